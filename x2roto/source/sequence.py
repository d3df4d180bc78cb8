"""Image sequences and stills: finding the files of one, and reading them by number."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Self

from x2roto.clip import ALL_FRAMES, ClipInfo, Frame, FrameRange, format_frames, frame_indices, spread
from x2roto.errors import InputError
from x2roto.source.mending import Mender, OnBadFrame, Pixels, odd_one_out
from x2roto.source.picture import Still, reader_of

DEFAULT_RATE = Fraction(24)  # pictures that state no rate; film's
IMAGE_SUFFIXES = frozenset(
    {".exr", ".png", ".jpg", ".jpeg", ".jpe", ".tif", ".tiff", ".dpx", ".bmp", ".webp", ".jp2", ".j2k", ".j2c"}
    | {".ppm", ".pgm", ".pnm", ".pfm", ".hdr", ".avif"}
)

_TOKEN = re.compile(r"%(?:0(?P<printf>\d+))?d|(?P<hashes>#+)|(?P<ats>@+)|\$F(?P<houdini>\d*)|<(?:frame|FRAME)>")
_NUMBERED = re.compile(r"(?P<before>.*?)(?P<number>\d+)(?P<after>\.[^.]+)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class ImageSequence:
    """Files by frame number. `pattern`: how a person would write it, for messages."""

    pattern: str
    files: dict[int, Path]


def is_pattern(path: Path) -> bool:
    """Whether the name holds a frame number token: `%04d`, `####`, `@@@@`, `$F4`, `<frame>`."""
    return _TOKEN.search(path.name) is not None


def by_pattern(path: Path) -> ImageSequence:
    """The files a pattern names; a number with more digits than the token asks for is taken if it needs them."""
    tokens = list(_TOKEN.finditer(path.name))
    if len(tokens) != 1:
        raise InputError(f"{path}: holds {len(tokens)} frame number tokens: write one, such as ####", path)
    token = tokens[0]
    before, after = path.name[: token.start()], path.name[token.end() :]
    digits = _digits(token)
    number = re.compile(re.escape(before) + r"(\d+)" + re.escape(after))
    found = {}
    for file in _listed(path.parent):
        match = number.fullmatch(file.name)
        if match and (digits is None or match[1] == f"{int(match[1]):0{digits}d}"):
            found[int(match[1])] = file
    if not found:
        raise InputError(f"{path}: no file matches this pattern: check the folder and the number of digits", path)
    return ImageSequence(str(path), dict(sorted(found.items())))


def _digits(token: re.Match[str]) -> int | None:
    """Least digits of the token; None when it takes any number of them."""
    if token["hashes"] or token["ats"]:
        return len(token[0])
    if token["printf"] or token["houdini"]:
        return int(token["printf"] or token["houdini"])
    return None if token[0].startswith("<") else 1


def by_member(path: Path) -> ImageSequence:
    """The sequence a numbered picture belongs to; itself alone when it has no number or no neighbours."""
    match = _NUMBERED.fullmatch(path.name)
    if match is None:
        return ImageSequence(str(path), {})
    for pattern, files in _grouped(_listed(path.parent)).items():
        if path in files.values():
            return ImageSequence(str(path.with_name(pattern)), files)
    return ImageSequence(str(path), {int(match["number"]): path})


def by_folder(folder: Path) -> ImageSequence:
    """The one sequence a folder holds; raises `InputError` when it holds none or several."""
    pictures = [file for file in _listed(folder) if file.suffix.lower() in IMAGE_SUFFIXES]
    groups = _grouped(pictures)
    if not groups:
        what = f"{len(pictures)} pictures without numbers" if pictures else "no pictures"
        raise InputError(f"{folder}: a folder with {what}: give a movie, or a folder with one sequence", folder)
    if len(groups) > 1:
        names = ", ".join(sorted(groups)[:4])
        raise InputError(f"{folder}: holds {len(groups)} sequences: name one of {names}", folder)
    pattern, files = next(iter(groups.items()))
    return ImageSequence(str(folder / pattern), files)


def _listed(folder: Path) -> list[Path]:
    try:
        return sorted(file for file in folder.iterdir() if not file.name.startswith("."))
    except FileNotFoundError as error:
        raise InputError(f"{folder}: no such folder: check the path", folder) from error
    except OSError as error:
        raise InputError(f"{folder}: cannot be listed ({error.strerror}): check its permissions", folder) from error


def _grouped(files: Sequence[Path]) -> dict[str, dict[int, Path]]:
    """Numbered files by pattern. Padding is one width that longer numbers outgrow, or none."""
    matches = defaultdict(list)
    for file in files:
        if match := _NUMBERED.fullmatch(file.name):
            matches[match["before"], match["after"]].append((match["number"], file))
    groups: dict[str, dict[int, Path]] = {}
    for (before, after), numbered in matches.items():
        width = min(len(number) for number, _ in numbered)
        for number, file in numbered:
            padded = number == f"{int(number):0{width}d}"
            token = ("#" * width if width > 1 else "%d") if padded else "#" * len(number)
            groups.setdefault(f"{before}{token}{after}", {})[int(number)] = file
    return {pattern: dict(sorted(files.items())) for pattern, files in groups.items()}


class SequenceSource:
    """Numbered pictures, or one still. Index 0 is the lowest number; gaps are bad frames."""

    def __init__(
        self,
        sequence: ImageSequence,
        *,
        on_bad_frame: OnBadFrame = "error",
        start_frame: int | None = None,
        rate: Fraction | None = None,
        layer: str | None = None,
    ) -> None:
        self._sequence, self._layer = sequence, layer
        self._lowest = min(sequence.files)
        self._count = max(sequence.files) - self._lowest + 1
        first_frame = self._lowest if start_frame is None else start_frame
        self._mender = Mender(on_bad_frame, Path(sequence.pattern), first_frame)
        first = self._first_readable()
        self._like = first.rgb
        self.info = self._describe(first, first_frame, rate)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is held open between readings."""

    @property
    def bad_frames(self) -> dict[int, str]:
        """Why, for each index read so far that a held frame stands in for."""
        return self._mender.bad_frames

    def frames(self, ranges: Sequence[FrameRange] = ALL_FRAMES) -> Iterator[Frame]:
        """The frames of the ranges in order.

        Raises `InputError` when the policy is "error": at once for numbers that are missing, else on reaching
        the bad picture.
        """
        indices = frame_indices(ranges, self._count)
        if self._mender.policy == "error":
            self._refuse_gaps(indices)
        return map(self._frame, indices)

    def sample(self, count: int, ranges: Sequence[FrameRange] = ALL_FRAMES) -> list[Frame]:
        """`count` frames evenly over the ranges, fewer when they hold fewer."""
        indices = frame_indices(ranges, self._count)
        self._refuse_gaps(indices if self._mender.policy == "error" else [])
        return [self._frame(index) for index in spread(count, indices)]

    def _refuse_gaps(self, indices: Sequence[int]) -> None:
        gaps = [index for index in indices if index + self._lowest not in self._sequence.files]
        if gaps:
            numbers = format_frames(gaps, self._mender.first_frame)
            raise InputError(
                f"{self._sequence.pattern}: {len(gaps)} of {len(indices)} frames are missing: {numbers} "
                "(--on-bad-frame hold or black reads on)",
                Path(self._sequence.pattern),
            )

    def _frame(self, index: int) -> Frame:
        try:
            return Frame(index, None, self._read(index).rgb)
        except InputError as error:
            return self._mender.stand_in(index, None, str(error), lambda: self._before(index), self._like)

    def _before(self, index: int) -> Pixels | None:
        """The nearest earlier picture that can be read: the same one however the clip is cut into ranges."""
        for earlier in range(index - 1, -1, -1):
            try:
                return self._read(earlier).rgb
            except InputError:
                continue
        return None

    def _read(self, index: int) -> Still:
        """One picture that fits the clip; raises `InputError` when it is missing, damaged or another size."""
        path = self._sequence.files.get(index + self._lowest)
        if path is None:
            raise InputError("it is missing", Path(self._sequence.pattern))
        still = read_still(path, self._layer)
        height, width = still.rgb.shape[:2]
        odd = odd_one_out(width, height, still.rgb.dtype, self._like)
        if odd is not None:
            raise InputError(f"{path.name}: {odd}", path)
        return still

    def _first_readable(self) -> Still:
        """The first picture, or with a policy that reads on the first that can be read."""
        files = list(self._sequence.files.values())
        for path in files[: None if self._mender.policy != "error" else 0]:
            try:
                return read_still(path, self._layer)
            except InputError:
                continue
        return read_still(files[0], self._layer)

    def _describe(self, first: Still, first_frame: int, rate: Fraction | None) -> ClipInfo:
        gaps = self._count - len(self._sequence.files)
        missing = (f"{gaps} of {self._count} frames are missing",) if gaps else ()
        height, width = first.rgb.shape[:2]
        return ClipInfo(
            width=width,
            height=height,
            rate=rate or first.rate or DEFAULT_RATE,
            frame_count=self._count,
            first_frame=first_frame,
            pixel_aspect=first.pixel_aspect,
            depth=first.depth,
            colour=first.colour,
            notes=(*first.notes, *missing),
            metadata={
                "container": "image sequence" if self._count > 1 else "still",
                "pattern": self._sequence.pattern,
            },
        )


def read_still(path: Path, layer: str | None = None) -> Still:
    """One picture file; raises `InputError` when it cannot be read as one picture."""
    try:
        reader = reader_of(path) if path.stat().st_size else None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}): check it and its permissions", path) from error
    if reader is None:
        what = "is not a picture" if path.stat().st_size else "is empty"
        raise InputError(f"{path}: {what}: check or render it again", path)
    return reader(path, layer)
