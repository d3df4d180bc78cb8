"""Review movies: the plate with coloured mattes, object names and frame numbers, H.264 in MP4."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

import av
import numpy as np

from x2roto.export.colour import yuv420_frame
from x2roto.export.drawing import footer, marked_up
from x2roto.export.movie import Encoding, Movie
from x2roto.export.naming import Template
from x2roto.export.picture import eight_bit
from x2roto.export.take import Take
from x2roto.export.timecode import timecode_at
from x2roto.matte import MatteFrame


@dataclass(frozen=True, slots=True)
class OverlayOptions:
    """`crf`: x264's quality, 0 (best) to 51. `burn_in`: shot name and frame number along the bottom."""

    crf: int = 18
    burn_in: bool = True


class OverlayWriter:
    """Writes one movie of all objects; odd sizes are widened by a pixel, as 4:2:0 needs."""

    Options = OverlayOptions

    def __init__(self, template: Template, take: Take, options: OverlayOptions) -> None:
        self.take = take
        self._options = options
        # Without B-frames packets are in display order, so segments join without re-timing.
        settings = {"crf": str(options.crf), "preset": "veryfast", "bf": "0"}
        path = template.path(shot=take.shot, kind="overlay", ext="mp4", item="overlay")
        even = (take.clip.width + take.clip.width % 2, take.clip.height + take.clip.height % 2)
        self._movie = Movie(path, take, Encoding("libx264", "mp4", "yuv420p", settings), even)

    def paths(self, number: int) -> tuple[Path, ...]:
        """The one movie."""
        return (self._movie.path,)

    def finished(self, number: int) -> bool:
        """Whether the frame's segment is there."""
        return self._movie.finished(number)

    def write(self, result: MatteFrame) -> None:
        """Queue one frame."""
        self._movie.write(result.number, partial(self._draw, result))

    def __enter__(self) -> Self:
        self._movie.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._movie.__exit__(kind, error, trace)

    def _draw(self, result: MatteFrame) -> av.VideoFrame:
        canvas = marked_up(eight_bit(result.frame, self.take.clip), result)
        if self._options.burn_in:
            footer(canvas, self.take.shot, frame_caption(self.take, result))
        rgb = np.asarray(canvas)
        rgb = np.pad(rgb, ((0, rgb.shape[0] % 2), (0, rgb.shape[1] % 2), (0, 0)), mode="edge")
        return yuv420_frame(rgb * np.float32(1 / 255), self._movie.tags)


def frame_caption(take: Take, result: MatteFrame) -> str:
    """The frame number, after the timecode where the clip has one."""
    if take.clip.timecode is None:
        return str(result.number)
    return f"{timecode_at(take.clip.timecode, result.frame.index, take.clip.rate)}   {result.number}"
