"""What was cut: tracks, mattes and the picture they belong to, with pure functions on alpha and colour.

Arrays are numpy; nothing heavy is imported. Turning logits into alpha is in `refine.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from x2roto.clip import Frame
from x2roto.errors import PromptError

FloatArray = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Track:
    """One object, the same through the shot.

    `id`: 1, 2, … (0 is the background of id maps). `label`: its name. `prompt`: as the person wrote it.
    """

    id: int
    label: str
    prompt: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Matte:
    """One track's coverage of one frame: `alpha` (height, width) float32 in [0, 1]; `score` in [0, 1]."""

    track: Track
    alpha: FloatArray
    score: float = 1.0


@dataclass(frozen=True, slots=True, eq=False)
class MatteFrame:
    """A frame with its mattes. `number`: what the artist sees, and what file names carry."""

    frame: Frame
    number: int
    mattes: tuple[Matte, ...]

    def alpha(self, track: Track) -> FloatArray:
        """The alpha of `track`, black where this frame has no matte of it."""
        for matte in self.mattes:
            if matte.track.id == track.id:
                return matte.alpha
        return np.zeros(self.frame.rgb.shape[:2], np.float32)

    def score(self, track: Track) -> float:
        """The score of `track`, 0 where this frame has no matte of it."""
        return next((matte.score for matte in self.mattes if matte.track.id == track.id), 0.0)

    def union(self) -> FloatArray:
        """The greatest alpha of all mattes, black when there is none."""
        union = np.zeros(self.frame.rgb.shape[:2], np.float32)
        for matte in self.mattes:
            np.maximum(union, matte.alpha, out=union)
        return union


@dataclass(frozen=True, slots=True)
class Refine:
    """How logits become alpha. Lengths are plate pixels.

    `edge`: "soft" (calibrated coverage), "hard" (0 or 1), "refined" (led by the plate's colours) or "auto" (refined
    for models whose outlines are coarse, else soft).
    `temperature`: logits are divided by it; above 1 widens the soft edge. `grow`: outwards, negative inwards,
    subpixel. `feather`: how far the edge fades on either side (two standard deviations of a Gaussian).
    `smooth`: share in [0, 1] of the previous alpha kept where the picture stands still.
    `invert`: hold-out instead of matte. Raises PromptError for values outside these ranges.
    """

    edge: Literal["auto", "soft", "hard", "refined"] = "auto"
    temperature: float = 1.0
    grow: float = 0.0
    feather: float = 0.0
    smooth: float = 0.0
    invert: bool = False

    def __post_init__(self) -> None:
        if self.edge not in ("auto", "soft", "hard", "refined"):
            raise PromptError(f"edge is {self.edge!r}: use auto, soft, hard or refined")
        if self.temperature <= 0:
            raise PromptError(f"temperature is {self.temperature}: it must be above 0")
        if self.feather < 0:
            raise PromptError(f"feather is {self.feather}: it must be 0 or more pixels")
        if not 0 <= self.smooth <= 1:
            raise PromptError(f"smooth is {self.smooth}: it must lie in 0 to 1")


def premultiply(rgb: FloatArray, alpha: FloatArray) -> FloatArray:
    """Colour times coverage. `rgb` (height, width, 3) straight and linear; `alpha` (height, width)."""
    return rgb * alpha[..., None]


def unpremultiply(rgb: FloatArray, alpha: FloatArray) -> FloatArray:
    """Straight colour of a premultiplied one; black where alpha is 0."""
    coverage = alpha[..., None]
    return np.divide(rgb, coverage, out=np.zeros_like(rgb), where=coverage > 0)


def invert(alpha: FloatArray) -> FloatArray:
    """The hold-out of a matte."""
    return 1 - alpha


def bounds(alpha: NDArray[Any], margin: int = 0) -> tuple[slice, slice] | None:
    """Rows and columns where alpha is above 0, widened by `margin` inside the picture; None if nowhere."""
    rows, columns = (np.flatnonzero(alpha.any(axis=axis)) for axis in (1, 0))
    if not rows.size:
        return None
    spans = zip((rows, columns), alpha.shape, strict=True)
    top_left = [slice(max(0, int(at[0]) - margin), min(size, int(at[-1]) + 1 + margin)) for at, size in spans]
    return top_left[0], top_left[1]


def edges_of(mask_hw: NDArray[np.bool_]) -> tuple[float, float, float, float] | None:
    """Left, top, right and bottom of a mask in its sides; None if it is empty."""
    if (spans := bounds(mask_hw)) is None:
        return None
    (rows, columns), (height, width) = spans, mask_hw.shape
    return columns.start / width, rows.start / height, columns.stop / width, rows.stop / height


def foreground(rgb: FloatArray, alpha: FloatArray, margin: int = 16) -> FloatArray:
    """Straight colour of the object without the background that soft edges have mixed in.

    `rgb` (height, width, 3), not negative, any encoding (linear mixes as light does). Solid pixels keep their
    value; partly covered ones, and `margin` pixels around, continue the object's colour; beyond is black.
    Source: Germer et al., "Fast Multi-Level Foreground Estimation", 2020, through `pymatting`.
    """
    straight = np.zeros_like(rgb)
    region = bounds(alpha, margin)
    if region is None:
        return straight
    # Compiles itself on first import, so it is paid only where it is used.
    from pymatting import estimate_foreground_ml

    plate, coverage = rgb[region], alpha[region]
    # The estimator clips at 1; scene values go beyond.
    white = max(float(plate.max()), 1.0)
    estimate = estimate_foreground_ml(plate / white, coverage).astype(np.float32) * np.float32(white)
    straight[region] = np.where(coverage[..., None] < 1, estimate, plate)
    return straight
