"""Animated WebP, which libav does not decode, through Pillow."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np

from x2roto.clip import ALL_FRAMES, ClipInfo, Colour, Frame, FrameRange, frame_indices, spread
from x2roto.errors import InputError
from x2roto.source.container import missing_bytes
from x2roto.source.ledger import NOT_DECODABLE
from x2roto.source.mending import Mender, OnBadFrame, Pixels
from x2roto.source.picture import pillow
from x2roto.source.timeline import rate_of

if TYPE_CHECKING:
    from PIL.Image import Image

_TICK = Fraction(1, 1000)  # frame times are whole milliseconds


class AnimationSource:
    """An animated picture file; frames are decoded from its start, since each builds on the one before."""

    def __init__(
        self,
        path: Path,
        *,
        on_bad_frame: OnBadFrame = "error",
        start_frame: int = 1001,
        rate: Fraction | None = None,
    ) -> None:
        missing = missing_bytes(path)
        if missing and on_bad_frame == "error":
            raise InputError(
                f"{path}: is cut short, {missing} bytes are missing (--on-bad-frame hold reads on)", path
            )
        self._path = path
        self._mender = Mender(on_bad_frame, path, start_frame)
        with pillow(path) as image:
            self._times = list(_times(image))
            image.seek(0)
            self._like = _pixels(image)
            found = rate_of(self._times, _TICK)
            self.info = ClipInfo(
                width=image.width,
                height=image.height,
                rate=rate or found.rate,
                frame_count=len(self._times) - 1,
                first_frame=start_frame,
                colour=Colour(range="pc"),
                notes=_notes(image, found.constant),
                metadata={"container": str(image.format).lower()},
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is held open between readings."""

    @property
    def bad_frames(self) -> dict[int, str]:
        """Why, for each index read so far that a held frame stands in for."""
        return self._mender.bad_frames

    def frames(self, ranges: Sequence[FrameRange] = ALL_FRAMES) -> Iterator[Frame]:
        """The frames of the ranges in order; raises `InputError` at a bad one when the policy is "error"."""
        good: Pixels | None = None
        with pillow(self._path) as image:
            for index in frame_indices(ranges, len(self._times) - 1):
                try:
                    image.seek(index)
                    good = _pixels(image)
                except (OSError, EOFError):
                    before = partial(_same, good)
                    yield self._mender.stand_in(index, self._times[index], NOT_DECODABLE, before, self._like)
                    continue
                yield Frame(index, self._times[index], good)

    def sample(self, count: int, ranges: Sequence[FrameRange] = ALL_FRAMES) -> list[Frame]:
        """`count` frames evenly over the ranges, fewer when they hold fewer."""
        wanted = spread(count, frame_indices(ranges, len(self._times) - 1))
        return list(self.frames([FrameRange(index, index + 1) for index in wanted]))


def _times(image: Image) -> Iterator[Fraction]:
    """When each frame is shown, and at last when the animation ends."""
    time = Fraction(0)
    yield time
    for index in range(getattr(image, "n_frames", 1)):
        image.seek(index)
        image.load()
        time += Fraction(int(image.info.get("duration", 0)), 1000)
        yield time


def _same(pixels: Pixels | None) -> Pixels | None:
    return pixels


def _pixels(image: Image) -> Pixels:
    return np.asarray(image.convert("RGB"))


def _notes(image: Image, constant: bool) -> tuple[str, ...]:
    alpha = ("its alpha channel is not used",) if image.has_transparency_data else ()
    return alpha if constant else (*alpha, "variable frame rate: frames are numbered in display order")
