"""What is being cut: a clip's facts, one decoded frame, a range of frames. Plain values; knows no decoder."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import groupby
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from x2roto.errors import PromptError

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class FrameRange:
    """Source indices `start, start + step, …` below `stop` (0-based, half-open; `stop` None: to the end)."""

    start: int = 0
    stop: int | None = None
    step: int = 1

    def __contains__(self, index: object) -> bool:
        return (
            isinstance(index, int)
            and index >= self.start
            and (self.stop is None or index < self.stop)
            and (index - self.start) % self.step == 0
        )

    def up_to(self, count: int) -> range:
        """Its indices in a clip of `count` frames, ascending; those before the clip's start left out."""
        skipped = max(0, -(self.start // self.step)) if self.start < 0 else 0
        stop = count if self.stop is None else min(self.stop, count)
        return range(self.start + skipped * self.step, stop, self.step)


ALL_FRAMES = (FrameRange(),)

_SPAN = re.compile(r"(?P<first>-?\d+)(?P<dash>-(?P<last>-?\d+)?)?(?:x(?P<step>\d+))?")


def parse_frames(text: str, first_frame: int = 0) -> tuple[FrameRange, ...]:
    """Ranges of source indices from what an artist writes: `1001-1050`, `1001-1050x2`, `1001-1010,1020`, `1040-`.

    Numbers are inclusive frame numbers of a clip whose index 0 is `first_frame`; with the default 0 they are
    0-based source frames. `xN` takes every N-th; an open end runs to the end of the clip. A range may begin
    before the clip or end after it: `FrameRange.up_to` clamps. Raises `PromptError` on anything else.
    """
    return tuple(_parse_span(span.strip(), text, first_frame) for span in text.split(","))


def _parse_span(span: str, text: str, first_frame: int) -> FrameRange:
    match = _SPAN.fullmatch(span)
    if match is None:
        raise PromptError(
            f"frame range {span!r} in {text!r} is not understood: write 1001-1050, 1001-1050x2 or 1001-1010,1020"
        )
    first, step = int(match["first"]), int(match["step"] or 1)
    last = first if match["dash"] is None else int(match["last"]) if match["last"] else None
    if step < 1:
        raise PromptError(f"frame range {span!r} has step 0: use x1 or more")
    if last is not None and last < first:
        raise PromptError(f"frame range {span!r} runs backwards: write {last}-{first}")
    return FrameRange(first - first_frame, None if last is None else last - first_frame + 1, step)


def format_frames(indices: Sequence[int], first_frame: int = 0) -> str:
    """Ascending source indices in the artist's numbers, short: `1001-1010,1020`."""
    runs = groupby(enumerate(indices), key=lambda item: item[1] - item[0])
    numbers = [[index + first_frame for _, index in run] for _, run in runs]
    return ",".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in numbers)


def frame_indices(ranges: Sequence[FrameRange], count: int) -> list[int]:
    """Every source index the ranges name in a clip of `count` frames, ascending, each once."""
    return sorted(set().union(*(span.up_to(count) for span in ranges)))


def within(ranges: Sequence[FrameRange], index: int) -> bool:
    """Whether any range names source index `index`."""
    return any(index in span for span in ranges)


def frames_end(ranges: Sequence[FrameRange]) -> int | None:
    """The source index no range reaches (exclusive end of all); None when one runs to the end of the clip."""
    stops = [span.stop for span in ranges]
    return None if None in stops else max((stop for stop in stops if stop is not None), default=0)


def spread(count: int, indices: Sequence[int]) -> list[int]:
    """`count` of the indices evenly from first to last (positions truncated), all of them when there are fewer.

    Source: wanghao9610/X2SAM@5b0b106 dataset/utils/load.py, computed in whole numbers.
    """
    if count < 1:
        raise ValueError("at least one frame must be sampled")
    if count >= len(indices):
        return list(indices)
    last = len(indices) - 1
    return [indices[position * last // max(1, count - 1)] for position in range(count)]


def both_ways(
    follow: Callable[[Sequence[Item]], Iterable[Result]], frames: Sequence[Item], start: int
) -> Iterator[Result]:
    """What `follow` gives of frames, in their order; of those before the place `start` it is asked backward in time.

    For clips of which what comes before may wait in memory.
    """
    if start:
        # The start frame is seen first, so that memory begins where the prompt is true.
        _, *before = follow(frames[start::-1])
        yield from reversed(before)
    yield from follow(frames[start:])


@dataclass(frozen=True, slots=True)
class Colour:
    """Colour facts as the container states them, in ffmpeg's names; None where unstated."""

    range: str | None = None  # "tv" (limited) | "pc" (full)
    matrix: str | None = None  # "bt709", "smpte170m", "bt2020nc", …
    transfer: str | None = None  # "bt709", "smpte2084" (PQ), "arib-std-b67" (HLG), "linear", …
    primaries: str | None = None


@dataclass(frozen=True, slots=True)
class ClipInfo:
    """What is known of a clip before its first frame is read.

    `width`, `height`: display pixels, rotation applied, pixel aspect not applied. `rate`: exact frames per
    second. `frame_count` None when unknown until the end. `first_frame`: the number an artist sees on index 0.
    `depth`: bits per component as stored. `notes`: what a person should know (interlaced, variable rate, …).
    """

    width: int
    height: int
    rate: Fraction
    frame_count: int | None
    first_frame: int
    pixel_aspect: Fraction = Fraction(1)
    depth: int = 8
    colour: Colour = field(default_factory=Colour)
    timecode: str | None = None  # "HH:MM:SS:FF" (";" before FF: drop frame) of index 0
    has_audio: bool = False
    notes: tuple[str, ...] = ()
    metadata: dict[str, Any] = field(default_factory=dict)

    def number(self, index: int) -> int:
        """The frame number an artist sees on source index `index`."""
        return index + self.first_frame


@dataclass(frozen=True, slots=True)
class Frame:
    """One decoded picture.

    `index`: 0-based position in the source. `pts`: seconds as an exact fraction, None for sequences.
    `rgb`: (height, width, 3) as decoded: uint8, uint16 (full 0..65535 range) or float32 (scene values of EXR).
    `held`: True when the picture stands in for one that could not be read.
    """

    index: int
    pts: Fraction | None
    rgb: NDArray[np.uint8] | NDArray[np.uint16] | NDArray[np.float32]
    held: bool = False
