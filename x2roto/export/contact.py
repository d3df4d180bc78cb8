"""Contact sheets: a grid of marked-up frames spread over the shot, with the facts of the take, as one PNG."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw

from x2roto.export.atomic import committed
from x2roto.export.drawing import DIM, INK, PAPER, colour_of, font, marked_up
from x2roto.export.gather import GatheringWriter
from x2roto.export.naming import Template
from x2roto.export.picture import eight_bit
from x2roto.export.take import Take
from x2roto.matte import MatteFrame

MARGIN, GAP, CAPTION, HEADER = 36, 14, 26, 92


@dataclass(frozen=True, slots=True)
class ContactOptions:
    """`columns` by `rows` frames at most; `width`: of one picture, in pixels."""

    columns: int = 5
    rows: int = 4
    width: int = 384


class ContactWriter(GatheringWriter):
    """Writes one sheet per take; of a clip of unknown length every frame is kept small until the end."""

    Options = ContactOptions

    def __init__(self, template: Template, take: Take, options: ContactOptions) -> None:
        path = template.path(shot=take.shot, kind="contact", ext="png", item="contact")
        super().__init__(path, take, ".png")
        self._options = options
        count = options.columns * options.rows
        self._wanted = None if take.numbers is None else frozenset(spread(take.numbers, count))

    def finished(self, number: int) -> bool:
        """Whether the frame is on the sheet already, or not wanted there."""
        return (self._wanted is not None and number not in self._wanted) or super().finished(number)

    def save(self, result: MatteFrame, piece: Path) -> None:
        """The small picture of one frame."""
        clip, width = self.take.clip, self._options.width
        height = max(1, round(width * clip.height / (clip.width * float(clip.pixel_aspect))))
        picture = marked_up(eight_bit(result.frame, clip), result, (width, height))
        with committed(piece) as temporary:
            picture.save(temporary, format="PNG")

    def join(self, pieces: dict[int, Path]) -> None:
        """The sheet: a header, then the grid."""
        numbers = spread(list(pieces), self._options.columns * self._options.rows)
        with committed(self.path) as temporary:
            self._sheet({number: pieces[number] for number in numbers}).save(temporary, format="PNG")

    def _sheet(self, pieces: dict[int, Path]) -> Image.Image:
        pictures = {number: Image.open(path) for number, path in pieces.items()}
        width, height = next(iter(pictures.values())).size if pictures else (self._options.width, 0)
        columns = max(1, min(self._options.columns, len(pictures)))
        rows = -(-len(pictures) // columns)
        size = (2 * MARGIN + columns * (width + GAP) - GAP, MARGIN + HEADER + rows * (height + CAPTION + GAP))
        sheet = Image.new("RGB", size, PAPER)
        self._header(sheet)
        for place, (number, picture) in enumerate(pictures.items()):
            row, column = divmod(place, columns)
            at = (MARGIN + column * (width + GAP), MARGIN + HEADER + row * (height + CAPTION + GAP) - GAP)
            sheet.paste(picture, at)
            ImageDraw.Draw(sheet).text((at[0], at[1] + height + 5), str(number), font=font(15), fill=DIM)
        return sheet

    def _header(self, sheet: Image.Image) -> None:
        draw = ImageDraw.Draw(sheet)
        draw.text((MARGIN, MARGIN - 6), self.take.shot, font=font(30), fill=INK)
        draw.text((sheet.width - MARGIN, MARGIN + 10), self._facts(), font=font(16), fill=DIM, anchor="ra")
        x = MARGIN
        for track in self.take.tracks:
            draw.rounded_rectangle((x, MARGIN + 43, x + 14, MARGIN + 57), radius=3, fill=colour_of(track))
            draw.text((x + 22, MARGIN + 50), track.label, font=font(17), fill=INK, anchor="lm")
            x += 22 + round(draw.textlength(track.label, font=font(17))) + 26

    def _facts(self) -> str:
        clip, numbers = self.take.clip, self.take.numbers
        span = f"{numbers[0]}-{numbers[-1]}, {len(numbers)} frames, " if numbers else ""
        return f"{span}{clip.width}x{clip.height}, {float(clip.rate):.6g} fps"


def spread(numbers: Sequence[int], count: int) -> list[int]:
    """At most `count` of `numbers`, evenly over all, the first and the last among them."""
    if len(numbers) <= count:
        return list(numbers)
    step = (len(numbers) - 1) / max(1, count - 1)
    return [numbers[round(place * step)] for place in range(count)]
