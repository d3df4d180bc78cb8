"""What is being cut: a clip's facts, one decoded frame, a range of frames. Plain values; knows no decoder."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray


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
