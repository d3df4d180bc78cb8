"""The truth of a frame from its masks."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from x2roto.data.annotations import Size
from x2roto.data.sample import FrameTruth

Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Marked:
    """One mask (H, W) on a frame, and what `FrameTruth` says of it."""

    mask: Mask
    condition: int = 0
    identity: int = 0
    crowd: bool = False


def frame_truth(marked: Iterable[Marked], size: Size, ignored: Mask | None = None) -> FrameTruth:
    """The masks that have pixels, stacked."""
    seen = [each for each in marked if each.mask.any()]
    return FrameTruth(
        np.stack([each.mask for each in seen]) if seen else np.zeros((0, *size), np.bool_),
        np.array([each.condition for each in seen], np.int64),
        np.array([each.identity for each in seen], np.int64),
        np.array([each.crowd for each in seen], np.bool_),
        ignored,
    )
