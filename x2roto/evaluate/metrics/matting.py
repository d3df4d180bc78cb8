"""How far a matte is from the true one: alpha errors, errors over time, the edge in pixels.

Mattes are float (H, W) in [0, 1]. Pixels of `ignored`, bool (H, W), do not count: published numbers of stills ignore
what a trimap knows, those of videos nothing. Lower is better throughout; each key of a result says its unit.

Sources: Rhemann et al., "A Perceptually Motivated Online Benchmark for Image Matting", CVPR 2009 (SAD, MSE, Grad,
Conn); Erofeev et al., "Perceptually Motivated Benchmark for Video Matting", BMVC 2015 (dtSSD, MESSDdt), with the
usual scale of Lin et al., "Robust High-Resolution Video Matting with Temporal Guidance", WACV 2022.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import astuple, dataclass, fields
from math import ceil, fsum, hypot, isnan, log, nan, pi, sqrt

import numpy as np
from numpy.typing import NDArray

from x2roto.evaluate.metrics import Metric, State
from x2roto.evaluate.metrics.boundary import boundary_radius
from x2roto.matte import FloatArray, bounds

Mask = NDArray[np.bool_]

GRADIENT_SIGMA = 1.4
CONNECTIVITY_STEPS = 10
CONNECTIVITY_SLACK = 0.15


def sad(truth: FloatArray, prediction: FloatArray, ignored: Mask | None = None) -> float:
    """Sum of absolute differences, in thousands of pixels."""
    return _total(np.abs(prediction - truth), ignored) / 1e3


def mad(truth: FloatArray, prediction: FloatArray, ignored: Mask | None = None) -> float:
    """Mean absolute difference, times 1000; not-a-number when no pixel counts."""
    return _mean(np.abs(prediction - truth), ignored) * 1e3


def mse(truth: FloatArray, prediction: FloatArray, ignored: Mask | None = None) -> float:
    """Mean squared difference, times 1000; not-a-number when no pixel counts."""
    return _mean(np.square(prediction - truth), ignored) * 1e3


def gradient_error(truth: FloatArray, prediction: FloatArray, ignored: Mask | None = None) -> float:
    """Grad: squared differences of the gradients' magnitudes (Gaussian derivatives, sigma 1.4): their sum, in
    thousands."""
    reach = 2 * (_derivative_filters()[0].size // 2)
    differing = bounds(prediction != truth, margin=reach)
    if differing is None:
        return 0.0
    error = np.square(_steepness(prediction[differing]) - _steepness(truth[differing]))
    return _total(error, None if ignored is None else ignored[differing]) / 1e3


def _steepness(alpha: FloatArray) -> FloatArray:
    from scipy.ndimage import convolve1d

    smooth, slope = _derivative_filters()
    across = convolve1d(convolve1d(alpha, slope, axis=1, mode="nearest"), smooth, axis=0, mode="nearest")
    down = convolve1d(convolve1d(alpha, slope, axis=0, mode="nearest"), smooth, axis=1, mode="nearest")
    return np.asarray(np.hypot(across, down), np.float32)


def _derivative_filters() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """A Gaussian and its derivative, cut where the Gaussian falls below 0.01; their product has unit length."""
    half = ceil(GRADIENT_SIGMA * sqrt(-2 * log(sqrt(2 * pi) * GRADIENT_SIGMA * 0.01)))
    at = np.arange(-half, half + 1)
    smooth = np.exp(-np.square(at / GRADIENT_SIGMA) / 2)
    slope = at * smooth
    return smooth / np.linalg.norm(smooth), slope / np.linalg.norm(slope)


def connectivity_error(truth: FloatArray, prediction: FloatArray, ignored: Mask | None = None) -> float:
    """Conn: differences in how well pixels connect to the region both mattes share, summed, in thousands.

    That region is the largest 4-connected one where both reach a level, for levels 0.1 to 1. A matte's pixel loses
    what its alpha has above the last level that connects it, when that is at least 0.15.
    """
    level = _connected_level(np.minimum(prediction, truth))
    error = np.abs(_connectedness(prediction, level) - _connectedness(truth, level))
    return _total(error, ignored) / 1e3


def _connectedness(alpha: FloatArray, level: FloatArray) -> FloatArray:
    above = alpha - level
    return np.where(above >= CONNECTIVITY_SLACK, 1 - above, np.float32(1))


def _connected_level(shared: FloatArray) -> FloatArray:
    """The greatest level up to which each pixel belongs to the largest region, at every level; 0 outside."""
    level = np.zeros_like(shared)
    window = bounds(shared >= 1 / CONNECTIVITY_STEPS)
    if window is None:
        return level
    inner, reached = level[window], shared[window]
    connected, size, largest = np.ones(reached.shape, bool), -1, np.ones(reached.shape, bool)
    for step in range(1, CONNECTIVITY_STEPS + 1):
        mask = reached >= step / CONNECTIVITY_STEPS
        # Each level lies inside the one before, so equal areas are equal regions.
        if (area := int(np.count_nonzero(mask))) != size:
            size, largest = area, _largest_region(mask)
        connected &= largest
        inner[connected] = step / CONNECTIVITY_STEPS
    return level


def _largest_region(mask: Mask) -> Mask:
    """The 4-connected region of most pixels; of equal ones the first in reading order."""
    from scipy.ndimage import label

    labels, count = label(mask)
    if count < 2:
        return mask
    areas = np.bincount(labels.ravel())
    return np.asarray(labels == 1 + areas[1:].argmax())


@dataclass(frozen=True, slots=True, eq=False)
class Pair:
    """A matte and the true one of the same frame."""

    truth: FloatArray
    prediction: FloatArray


def dtssd(before: Pair, now: Pair, ignored: Mask | None = None) -> float:
    """dtSSD: root mean square of how much more or less a matte changed since the frame before than the true one
    did, times 100."""
    change = (now.prediction - before.prediction) - (now.truth - before.truth)
    return sqrt(_mean(np.square(change), ignored)) * 1e2


def messddt(before: Pair, now: Pair, flow: FloatArray, ignored: Mask | None = None) -> float:
    """MESSDdt: mean change of the squared error along the true motion, times 1000; not-a-number when no pixel
    counts.

    `flow`: (H, W, 2), how far (x, y) what is seen on each pixel of the frame before has moved, in pixels, taken to
    the nearest one. Pixels that leave the picture do not count.
    """
    height, width = now.truth.shape
    y, x = np.indices((height, width))
    to_x, to_y = x + np.rint(flow[..., 0]).astype(int), y + np.rint(flow[..., 1]).astype(int)
    inside = (to_x >= 0) & (to_x < width) & (to_y >= 0) & (to_y < height)
    counted = inside if ignored is None else inside & ~ignored
    was = np.square(before.prediction - before.truth)[counted]
    has = np.square(now.prediction - now.truth)[to_y[counted], to_x[counted]]
    return _mean(np.abs(was - has), None) * 1e3


def excess_change(before: Pair, now: Pair) -> float:
    """How much a matte changes beyond what the truth does nearby, in pixels of coverage: flicker, before it is
    related to the size of the object.

    Changes are averaged over a square of `boundary_radius` to either side first, so an edge that moves with the true
    one at a small distance from it does not count; the other errors see that.
    """
    from scipy.ndimage import uniform_filter

    change = np.abs(now.prediction - before.prediction) - np.abs(now.truth - before.truth)
    moving = bounds(change != 0, margin=(reach := boundary_radius(change.shape)))
    if moving is None:
        return 0.0
    nearby = uniform_filter(change[moving], 2 * reach + 1, mode="constant")
    return float(np.maximum(nearby, 0).sum(dtype=np.float64))


def contour(alpha: FloatArray) -> Mask:
    """The pixels of at least one half that have a 4-neighbour of less; the picture's border is no edge."""
    inside = alpha >= 0.5
    edge = np.zeros_like(inside)
    edge[1:] |= inside[1:] & ~inside[:-1]
    edge[:-1] |= inside[:-1] & ~inside[1:]
    edge[:, 1:] |= inside[:, 1:] & ~inside[:, :-1]
    edge[:, :-1] |= inside[:, :-1] & ~inside[:, 1:]
    return edge


def boundary_error(truth: FloatArray, prediction: FloatArray) -> tuple[float, float]:
    """Mean and 95th percentile of the distances between the contours at one half, both ways together, in pixels.

    0 when both mattes are the same everywhere or nowhere; the picture's diagonal when one alone has a contour, or
    one is everywhere and the other nowhere.
    """
    edges = contour(truth), contour(prediction)
    if not all(edge.any() for edge in edges):
        alike = np.array_equal(prediction >= 0.5, truth >= 0.5)
        return (0.0, 0.0) if alike else (hypot(*truth.shape), hypot(*truth.shape))
    distances = _contour_distances(*edges)
    return float(distances.mean()), float(np.percentile(distances, 95))


def _contour_distances(one: Mask, other: Mask) -> NDArray[np.float64]:
    from scipy.spatial import cKDTree

    points = np.argwhere(one), np.argwhere(other)
    trees = [cKDTree(each, balanced_tree=False, compact_nodes=False) for each in points]
    return np.concatenate([trees[1].query(points[0])[0], trees[0].query(points[1])[0]])


@dataclass(frozen=True, slots=True)
class FrameErrors:
    """What is wrong with one matte; errors over time are not-a-number on a frame that follows none.

    `flicker`: `excess_change` as a share of the true area, of both frames on average; not-a-number where that is 0.
    """

    sad_thousands: float
    mad_x1000: float
    mse_x1000: float
    grad_thousands: float
    conn_thousands: float
    boundary_mean_px: float
    boundary_p95_px: float
    dtssd_x100: float
    flicker: float


KEYS: tuple[str, ...] = tuple(field.name for field in fields(FrameErrors))


def frame_errors(
    truth: FloatArray, prediction: FloatArray, ignored: Mask | None = None, before: Pair | None = None
) -> FrameErrors:
    """Everything about one matte. `before`: the frame before, None where there is none.

    `ignored` does not apply to contours and flicker.
    """
    now = Pair(truth, prediction)
    mean_px, p95_px = boundary_error(truth, prediction)
    return FrameErrors(
        sad_thousands=sad(truth, prediction, ignored),
        mad_x1000=mad(truth, prediction, ignored),
        mse_x1000=mse(truth, prediction, ignored),
        grad_thousands=gradient_error(truth, prediction, ignored),
        conn_thousands=connectivity_error(truth, prediction, ignored),
        boundary_mean_px=mean_px,
        boundary_p95_px=p95_px,
        dtssd_x100=dtssd(before, now, ignored) if before else nan,
        flicker=_share(excess_change(before, now), _area(before, now)) if before else nan,
    )


class MattingErrors(Metric):
    """The errors of `FrameErrors`: mean over the frames of each object, then over those.

    A frame where one is not a number does not count for it.
    """

    def __init__(self) -> None:
        self.values: dict[str, list[list[float | None]]] = {}

    def add(
        self,
        key: str,
        truth: FloatArray,
        prediction: FloatArray,
        ignored: Mask | None = None,
        before: Pair | None = None,
    ) -> FrameErrors:
        """One frame of the object `key`, and what is wrong with it; arguments as `frame_errors` takes them."""
        errors = frame_errors(truth, prediction, ignored, before)
        row = [None if isnan(value) else value for value in astuple(errors)]
        self.values.setdefault(key, []).append(row)
        return errors

    def of(self, key: str) -> dict[str, float]:
        """The errors of one object; not-a-number where no frame counts. Raises KeyError for one never added."""
        columns = zip(*self.values[key], strict=True)
        return {name: _average(value for value in column) for name, column in zip(KEYS, columns, strict=True)}

    def result(self) -> dict[str, float]:
        each = [self.of(key) for key in self.values]
        return {name: _average(errors[name] for errors in each) for name in KEYS}

    def state(self) -> State:
        return {"values": {key: [list(row) for row in rows] for key, rows in self.values.items()}}

    def absorb(self, state: State) -> None:
        for key, rows in state["values"].items():
            self.values.setdefault(key, []).extend(list(row) for row in rows)


def _average(values: Iterable[float | None]) -> float:
    counted = [value for value in values if value is not None and not isnan(value)]
    return fsum(counted) / len(counted) if counted else nan


def _area(before: Pair, now: Pair) -> float:
    return (_total(before.truth, None) + _total(now.truth, None)) / 2


def _share(part: float, whole: float) -> float:
    return part / whole if whole else nan


def _total(error: FloatArray, ignored: Mask | None) -> float:
    return float((error if ignored is None else error[~ignored]).sum(dtype=np.float64))


def _mean(error: FloatArray, ignored: Mask | None) -> float:
    counted = error if ignored is None else error[~ignored]
    return float(counted.mean(dtype=np.float64)) if counted.size else nan
