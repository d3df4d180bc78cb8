"""Matting errors against direct implementations of the published definitions, and on mattes of known error."""

from __future__ import annotations

import json
from math import hypot, isnan, nan

import numpy as np
import pytest
from numpy.typing import NDArray

from x2roto.evaluate.metrics import matting
from x2roto.evaluate.metrics.matting import KEYS, MattingErrors, Pair

Alpha = NDArray[np.float32]
SIZES = ((40, 56), (33, 61), (61, 48))


def blob(rng: np.random.Generator, size: tuple[int, int], softness: float = 4.0) -> Alpha:
    """A soft shape with islands and holes, in steps of 1/255 as files hold them."""
    y, x = np.mgrid[0 : size[0], 0 : size[1]]
    distance = np.hypot(y - size[0] * rng.uniform(0.3, 0.7), x - size[1] * rng.uniform(0.3, 0.7))
    ripples = 3 * np.sin(x * rng.uniform(0.2, 0.6)) + 3 * np.cos(y * rng.uniform(0.2, 0.6))
    alpha = np.clip((size[0] / 3 - distance + ripples) / softness + 0.5, 0, 1)
    alpha[2:6, 3:9] = rng.uniform(0.2, 1)
    return (np.rint(alpha * 255) / 255).astype(np.float32)


def pair(seed: int) -> Pair:
    rng = np.random.default_rng(seed)
    size = SIZES[seed % len(SIZES)]
    truth = blob(rng, size)
    noise = rng.normal(0, 0.1, size) * (rng.random(size) < 0.3)
    return Pair(truth, np.clip(0.6 * truth + 0.4 * blob(rng, size) + noise, 0, 1).astype(np.float32))


def disc(x: float, y: float, radius: float = 12, size: tuple[int, int] = (64, 96)) -> Alpha:
    rows, columns = np.mgrid[0 : size[0], 0 : size[1]]
    return np.clip(radius - np.hypot(columns - x, rows - y) + 0.5, 0, 1).astype(np.float32)


# ---- direct implementations --------------------------------------------------------------------------------------


def direct_gradient(alpha: Alpha) -> NDArray[np.float64]:
    """Magnitude of the gradient by whole two-dimensional kernels, as `gaussgradient` of the benchmark builds them."""
    sigma, half = 1.4, 4
    at = np.arange(-half, half + 1)
    gauss = np.exp(-(at**2) / (2 * sigma**2)) / (sigma * np.sqrt(2 * np.pi))
    kernel = np.outer(gauss, -at * gauss / sigma**2)
    kernel /= np.sqrt((kernel**2).sum())
    padded = np.pad(alpha.astype(np.float64), half, mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, kernel.shape)
    return np.hypot((windows * kernel).sum((2, 3)), (windows * kernel.T).sum((2, 3)))


def flooded(mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    """4-connected regions numbered from 1, by filling."""
    labels, count = np.zeros(mask.shape, np.int64), 0
    for start in zip(*np.nonzero(mask), strict=True):
        if labels[start]:
            continue
        count, stack = count + 1, [start]
        while stack:
            row, column = stack.pop()
            inside = 0 <= row < mask.shape[0] and 0 <= column < mask.shape[1]
            if inside and mask[row, column] and not labels[row, column]:
                labels[row, column] = count
                stack += [(row + 1, column), (row - 1, column), (row, column + 1), (row, column - 1)]
    return labels


def direct_connectivity(truth: Alpha, prediction: Alpha, label: object = flooded) -> NDArray[np.float64]:
    """The benchmark's map of connectivity errors, level by level."""
    level = np.full(truth.shape, -1.0)
    for step in range(1, 11):
        shared = (truth >= np.float32(step / 10)) & (prediction >= np.float32(step / 10))
        labels = label(shared)
        areas = np.bincount(labels.ravel())[1:]
        largest = labels == 1 + areas.argmax() if areas.size else np.zeros_like(shared)
        level[(level == -1) & ~largest] = (step - 1) / 10
    level[level == -1] = 1
    far = [alpha.astype(np.float64) - level for alpha in (truth, prediction)]
    connected = [1 - distance * (distance >= 0.15) for distance in far]
    return np.abs(connected[0] - connected[1])


def direct_contour(alpha: Alpha) -> list[tuple[int, int]]:
    inside = alpha >= 0.5
    height, width = inside.shape
    return [
        (row, column)
        for row, column in zip(*np.nonzero(inside), strict=True)
        for down, right in ((1, 0), (-1, 0), (0, 1), (0, -1))
        if 0 <= row + down < height and 0 <= column + right < width and not inside[row + down, column + right]
    ]


def direct_boundary(truth: Alpha, prediction: Alpha) -> tuple[float, float]:
    one, other = (np.array(sorted(set(direct_contour(alpha)))) for alpha in (truth, prediction))
    between = np.hypot(*(one[:, None] - other[None]).transpose(2, 0, 1))
    distances = np.concatenate([between.min(0), between.min(1)])
    return distances.mean(), np.percentile(distances, 95)


def direct_excess(before: Pair, now: Pair) -> float:
    change = np.abs(now.prediction - before.prediction).astype(np.float64) - np.abs(now.truth - before.truth)
    radius = int(np.ceil(0.008 * hypot(*change.shape)))
    padded = np.pad(change, radius)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (2 * radius + 1, 2 * radius + 1))
    return float(np.maximum(windows.mean((2, 3)), 0).sum())


# ---- agreement ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(9))
def test_stills_agree_with_direct_implementations(seed: int) -> None:
    both = pair(seed)
    truth, prediction = both.truth, both.prediction
    ignored = np.random.default_rng(seed).random(truth.shape) < 0.3
    apart = prediction.astype(np.float64) - truth
    for hidden in (None, ignored):
        counted = np.ones_like(ignored) if hidden is None else ~hidden
        assert matting.sad(truth, prediction, hidden) == pytest.approx(np.abs(apart[counted]).sum() / 1000, rel=1e-5)
        assert matting.mad(truth, prediction, hidden) == pytest.approx(np.abs(apart[counted]).mean() * 1000, rel=1e-5)
        assert matting.mse(truth, prediction, hidden) == pytest.approx((apart[counted] ** 2).mean() * 1000, rel=1e-5)
        steep = (direct_gradient(prediction) - direct_gradient(truth)) ** 2
        assert matting.gradient_error(truth, prediction, hidden) == pytest.approx(
            steep[counted].sum() / 1000, rel=1e-4
        )
        loose = direct_connectivity(truth, prediction)
        assert matting.connectivity_error(truth, prediction, hidden) == pytest.approx(
            loose[counted].sum() / 1000, rel=1e-4
        )
    assert matting.boundary_error(truth, prediction) == pytest.approx(direct_boundary(truth, prediction))


def test_the_gradient_of_a_small_difference_is_whole() -> None:
    truth = disc(40, 30)
    prediction = truth.copy()
    prediction[28:31, 51:53] = 0.3
    error = (direct_gradient(prediction) - direct_gradient(truth)) ** 2
    assert matting.gradient_error(truth, prediction) == pytest.approx(error.sum() / 1000, rel=1e-4)


def test_a_bright_island_does_not_take_over_from_a_larger_dim_one() -> None:
    truth = np.zeros((40, 60), np.float32)
    truth[5:25, 5:25], truth[30:35, 40:50] = 0.55, 1
    prediction = truth * np.float32(0.9)
    error = direct_connectivity(truth, prediction)
    assert error[32, 45] > 0
    assert matting.connectivity_error(truth, prediction) == pytest.approx(error.sum() / 1000, rel=1e-4)


@pytest.mark.parametrize("seed", range(6))
def test_connectivity_agrees_with_scikit_image(seed: int) -> None:
    measure = pytest.importorskip("skimage.measure", reason="scikit-image is not installed")
    both = pair(seed)
    error = direct_connectivity(both.truth, both.prediction, lambda mask: measure.label(mask, connectivity=1))
    assert matting.connectivity_error(both.truth, both.prediction) == pytest.approx(error.sum() / 1000, rel=1e-4)


@pytest.mark.parametrize("seed", range(6))
def test_errors_over_time_agree_with_direct_implementations(seed: int) -> None:
    before, now = pair(seed), pair(seed + len(SIZES))
    change = (now.prediction.astype(np.float64) - before.prediction) - (now.truth.astype(np.float64) - before.truth)
    assert matting.dtssd(before, now) == pytest.approx(100 * np.sqrt((change**2).mean()), rel=1e-5)
    assert matting.excess_change(before, now) == pytest.approx(direct_excess(before, now), rel=1e-4)


@pytest.mark.parametrize("shift", [(0, 0), (3, -2), (-5, 4)])
def test_messddt_follows_the_motion(shift: tuple[int, int]) -> None:
    rng = np.random.default_rng(5)
    before = pair(1)
    right, down = shift
    now = Pair(*(np.roll(alpha, (down, right), (0, 1)) for alpha in (before.truth, before.prediction)))
    flow = np.broadcast_to(np.float32((right + 0.3, down - 0.3)), (*before.truth.shape, 2))
    assert matting.messddt(before, now, flow) == pytest.approx(0, abs=1e-6)
    noisy = Pair(now.truth, np.clip(now.prediction + rng.normal(0, 0.2, now.truth.shape), 0, 1).astype(np.float32))
    total = count = 0.0
    for row, column in np.ndindex(before.truth.shape):
        to = row + down, column + right
        if 0 <= to[0] < before.truth.shape[0] and 0 <= to[1] < before.truth.shape[1]:
            was = (before.prediction[row, column] - before.truth[row, column]) ** 2
            total, count = total + abs(was - (noisy.prediction[to] - noisy.truth[to]) ** 2), count + 1
    assert matting.messddt(before, noisy, flow) == pytest.approx(1000 * total / count, rel=1e-4)


# ---- known errors ------------------------------------------------------------------------------------------------


def test_the_truth_itself_has_no_error() -> None:
    errors = matting.frame_errors(disc(40, 30), disc(40, 30), before=Pair(disc(38, 30), disc(38, 30)))
    assert all(getattr(errors, key) == 0 for key in KEYS)


def test_a_disc_grown_by_three_pixels_has_its_edge_three_pixels_off() -> None:
    mean, high = matting.boundary_error(disc(48, 32, 12), disc(48, 32, 15))
    assert mean == pytest.approx(3, abs=0.15)
    assert high == pytest.approx(3, abs=0.7)  # on the pixel grid, diagonals


def test_a_missed_object_has_its_edge_a_diagonal_off() -> None:
    nothing, everything = np.zeros((30, 40), np.float32), np.ones((30, 40), np.float32)
    assert matting.boundary_error(disc(20, 15, 5, (30, 40)), nothing) == (50, 50)
    assert matting.boundary_error(everything, nothing) == (50, 50)
    assert matting.boundary_error(nothing, nothing) == matting.boundary_error(everything, everything) == (0, 0)


def test_an_island_is_a_connectivity_error_a_dim_one_is_not() -> None:
    truth, island, dim = disc(30, 30), disc(30, 30), disc(30, 30)
    island[5:10, 80:90] = 1
    dim[5:10, 80:90] = 0.14
    assert matting.connectivity_error(truth, island) == pytest.approx(0.05)
    assert matting.connectivity_error(truth, dim) == 0


def test_a_steady_offset_is_no_flicker_a_trembling_edge_is() -> None:
    still = disc(40, 30)
    moving = [disc(40 + step, 30) for step in range(2)]
    assert matting.excess_change(Pair(still, disc(42, 30)), Pair(still, disc(42, 30))) == 0
    drift = matting.excess_change(Pair(moving[0], disc(41, 30)), Pair(moving[1], disc(42, 30)))
    jump = matting.excess_change(Pair(still, still), Pair(still, disc(42, 30)))
    assert drift < 0.2 * jump
    errors = matting.frame_errors(still, disc(40, 30, 13), before=Pair(still, still))
    assert errors.flicker == pytest.approx((13**2 - 12**2) / 12**2, rel=0.05)


def test_frames_without_a_predecessor_have_no_errors_over_time() -> None:
    errors = matting.frame_errors(disc(40, 30), disc(41, 30))
    assert isnan(errors.dtssd_x100)
    assert isnan(errors.flicker)
    nothing = np.zeros((64, 96), np.float32)
    assert isnan(matting.frame_errors(nothing, disc(9, 9), before=Pair(nothing, nothing)).flicker)


def test_nothing_counted_is_not_a_number() -> None:
    both = pair(0)
    hidden = np.ones(both.truth.shape, bool)
    assert isnan(matting.mse(both.truth, both.prediction, hidden))
    assert matting.sad(both.truth, both.prediction, hidden) == 0


# ---- accumulation ------------------------------------------------------------------------------------------------


def test_objects_weigh_the_same_however_long_they_are() -> None:
    errors = MattingErrors()
    long = [errors.add("long", disc(40, 30), disc(40 + step, 30)) for step in range(3)]
    short = errors.add("short", disc(40, 30), disc(40, 40))
    mean = sum(each.sad_thousands for each in long) / 3
    assert errors.of("long")["sad_thousands"] == pytest.approx(mean)
    assert errors.result()["sad_thousands"] == pytest.approx((mean + short.sad_thousands) / 2)


def test_shards_put_together_are_the_whole() -> None:
    whole, parts = MattingErrors(), (MattingErrors(), MattingErrors())
    for number in range(6):
        both, before = pair(number), pair(number + 3) if number % 2 else None
        for errors in (whole, parts[number // 3]):
            errors.add(f"clip {number // 2}", both.truth, both.prediction, before=before)
    again = MattingErrors()
    for part in reversed(parts):
        again.absorb(json.loads(json.dumps(part.state(), allow_nan=False)))
    parts[0].merge(parts[1])
    assert again.result() == parts[0].result() == whole.result()


def test_no_frames_are_not_a_number() -> None:
    assert MattingErrors().result() == pytest.approx(dict.fromkeys(KEYS, nan), nan_ok=True)
