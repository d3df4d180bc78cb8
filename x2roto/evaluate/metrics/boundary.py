"""J and F of video object segmentation (Perazzi et al., CVPR 2016), as the DAVIS toolkit defines them."""

from __future__ import annotations

from math import ceil, fsum, hypot, isqrt, nan

import numpy as np
from numpy.typing import NDArray

from x2roto.evaluate.metrics import Metric, State
from x2roto.evaluate.metrics.region import Masks, check_size

Words = NDArray[np.uint64]
TOLERANCE = 0.008


def region_similarity(truth: Masks, prediction: Masks) -> float:
    """J: IoU of two masks (H, W); 1 when both are empty."""
    union = np.count_nonzero(truth | prediction)
    return np.count_nonzero(truth & prediction) / union if union else 1.0


def boundary_accuracy(truth: Masks, prediction: Masks, tolerance: float = TOLERANCE) -> float:
    """F: harmonic mean of how much of each boundary lies near the other; 1 when both are empty, 0 when one is.

    Masks (H, W). `tolerance`: the radius of near, as a share of the diagonal, rounded up to pixels; from 1 on it is
    in pixels already.
    """
    radius = boundary_radius(truth.shape, tolerance)
    wanted, found = (_packed(edge, radius) for edge in _cropped(boundary(truth), boundary(prediction)))
    if not wanted.any() or not found.any():
        return float(wanted.any() == found.any())
    precision = _count(found & _spread(wanted, radius)) / _count(found)
    recall = _count(wanted & _spread(found, radius)) / _count(wanted)
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def boundary_radius(shape: tuple[int, ...], tolerance: float = TOLERANCE) -> int:
    """Pixels that a boundary may be off in a picture of `shape` (H, W)."""
    return ceil(tolerance if tolerance >= 1 else tolerance * hypot(*shape))


def boundary(mask: Masks) -> Masks:
    """Pixels (H, W) that differ from the one to the right, below or below right; what is outside does not count."""
    edge = np.zeros_like(mask)
    edge[:, :-1] = mask[:, :-1] ^ mask[:, 1:]
    edge[:-1] |= mask[:-1] ^ mask[1:]
    edge[:-1, :-1] |= mask[:-1, :-1] ^ mask[1:, 1:]
    return edge


def _cropped(first: Masks, second: Masks) -> tuple[Masks, Masks]:
    """Both where either is anything, so that small objects cost little."""
    either = first | second
    spans = [np.flatnonzero(either.any(axis)) for axis in (1, 0)]
    rows, columns = (slice(span[0], span[-1] + 1) if len(span) else slice(0) for span in spans)
    return first[rows, columns], second[rows, columns]


def _packed(edge: Masks, radius: int) -> Words:
    """(H, words): 64 pixels a word, the left one lowest, and at least `radius` empty ones after every row."""
    height, width = edge.shape
    padded = np.zeros((height, -(-(width + radius) // 64) * 8), np.uint8)
    packed = np.packbits(edge, axis=1, bitorder="little")
    padded[:, : packed.shape[1]] = packed
    words: Words = padded.view("<u8")
    return words


def _spread(edge: Words, radius: int) -> Words:
    """Everything within `radius` of the boundary: for each row of the disc, the boundary widened and moved."""
    widened = [edge]
    for _ in range(radius):
        widened.append(_widened(widened[-1]))
    spread = widened[-1].copy()
    for row in range(1, radius + 1):
        wide = widened[isqrt(radius * radius - row * row)]
        spread[row:] |= wide[:-row]
        spread[:-row] |= wide[row:]
    return spread


def _widened(edge: Words) -> Words:
    """By a pixel to the left and right; what leaves a row stays in the empty pixels between rows."""
    line, one, last = edge.ravel(), np.uint64(1), np.uint64(63)
    wide: Words = line | line << one | line >> one
    wide[1:] |= line[:-1] >> last
    wide[:-1] |= line[1:] << last
    return wide.reshape(edge.shape)


def _count(words: Words) -> int:
    return int(np.bitwise_count(words).sum())


class RegionBoundary(Metric):
    """J, F and J&F: mean over the frames of each object or expression, then over those.

    `reference`: all frames of all of them weigh the same.
    """

    def __init__(self, *, reference: bool = False) -> None:
        self.reference = reference
        self.values: dict[str, list[tuple[float, float]]] = {}

    def add(self, key: str, truth: Masks, prediction: Masks, ignored: Masks | None = None) -> None:
        """One frame (H, W) of the object or expression `key`, in any order; pixels of `ignored` do not count.

        Raises InputError when the masks are not of one size.
        """
        check_size(truth, prediction)
        if ignored is not None:
            truth, prediction = truth & ~ignored, prediction & ~ignored
        pair = region_similarity(truth, prediction), boundary_accuracy(truth, prediction)
        self.values.setdefault(key, []).append(pair)

    def result(self) -> dict[str, float]:
        if not self.values:
            return {"J": nan, "F": nan, "J&F": nan}
        region, edge = (self._mean(column) for column in (0, 1))
        return {"J": region, "F": edge, "J&F": (region + edge) / 2}

    def _mean(self, column: int) -> float:
        each = [[pair[column] for pair in pairs] for pairs in self.values.values()]
        if self.reference:
            return fsum(value for values in each for value in values) / sum(map(len, each))
        return fsum(fsum(values) / len(values) for values in each) / len(each)

    def state(self) -> State:
        return {"values": {key: [list(pair) for pair in pairs] for key, pairs in self.values.items()}}

    def absorb(self, state: State) -> None:
        for key, pairs in state["values"].items():
            self.values.setdefault(key, []).extend((region, edge) for region, edge in pairs)
