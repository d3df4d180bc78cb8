"""J and F against plain implementations of their definitions."""

from __future__ import annotations

from math import ceil, sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation, gaussian_filter

from x2roto.errors import InputError
from x2roto.evaluate.metrics.boundary import (
    RegionBoundary,
    boundary,
    boundary_accuracy,
    boundary_radius,
    region_similarity,
)

Masks = NDArray[np.bool_]


def blobs(seed: int, height: int, width: int) -> tuple[Masks, Masks]:
    """Two masks alike but for some noise; every few seeds one is empty, full or noise."""
    random = np.random.default_rng(seed)
    field = gaussian_filter(random.normal(size=(height, width)), random.uniform(0, 5))
    level = np.quantile(field, random.choice([0, 0.3, 0.6, 0.95, 1]))
    other = field + random.uniform(0, 1) * gaussian_filter(random.normal(size=field.shape), 3)
    return field > level, other > level


def plain_boundary(mask: Masks) -> Masks:
    height, width = mask.shape
    edge = np.zeros_like(mask)
    for y in range(height):
        for x in range(width):
            near = [(y + dy, x + dx) for dy, dx in ((0, 1), (1, 0), (1, 1)) if y + dy < height and x + dx < width]
            edge[y, x] = any(mask[place] != mask[y, x] for place in near)
    return edge


def plain_accuracy(truth: Masks, prediction: Masks, radius: int) -> float:
    """As the DAVIS toolkit: both boundaries dilated by a disc."""
    wanted, found = boundary(truth), boundary(prediction)
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    disc = x * x + y * y <= radius * radius
    precision = (found & binary_dilation(wanted, disc)).sum() / found.sum() if found.any() else 1
    recall = (wanted & binary_dilation(found, disc)).sum() / wanted.sum() if wanted.any() else 1
    if found.any() != wanted.any():
        return 0
    return 2 * precision * recall / (precision + recall) if precision + recall else 0


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 150), st.integers(1, 150), st.sampled_from([0.008, 0.05, 1, 7]))
def test_f_equals_dilation_by_a_disc(seed: int, height: int, width: int, tolerance: float) -> None:
    truth, prediction = blobs(seed, height, width)
    radius = boundary_radius(truth.shape, tolerance)
    assert boundary_accuracy(truth, prediction, tolerance) == plain_accuracy(truth, prediction, radius)
    np.testing.assert_array_equal(boundary(truth), plain_boundary(truth))


def test_f_of_a_large_picture_equals_dilation_by_a_disc() -> None:
    truth = gaussian_filter(np.random.default_rng(3).normal(size=(500, 777)), 12) > 0
    prediction = np.roll(truth, 9, axis=1)
    assert boundary_accuracy(truth, prediction) == plain_accuracy(truth, prediction, 8)
    assert 0.5 < boundary_accuracy(truth, prediction) < 0.95


def test_a_boundary_just_inside_the_radius_counts_and_one_outside_does_not() -> None:
    truth, prediction = np.zeros((2, 60, 60), bool)
    truth[:, :20] = True
    for shift, accuracy in ((5, 1.0), (6, 0.0)):
        prediction[:] = False
        prediction[:, : 20 + shift] = True
        assert boundary_accuracy(truth, prediction, tolerance=5) == accuracy


@pytest.mark.parametrize("shape", [(54, 70), (200, 300), (1080, 1920), (75, 100)])
def test_radius_is_a_share_of_the_diagonal_rounded_up(shape: tuple[int, int]) -> None:
    assert boundary_radius(shape) == ceil(0.008 * sqrt(shape[0] ** 2 + shape[1] ** 2))
    assert boundary_radius(shape, 3) == 3


def test_nothing_is_found_where_nothing_is() -> None:
    empty, some = np.zeros((9, 9), bool), np.eye(9, dtype=bool)
    assert (region_similarity(empty, empty), boundary_accuracy(empty, empty)) == (1, 1)
    assert (region_similarity(empty, some), boundary_accuracy(empty, some)) == (0, 0)
    assert (region_similarity(some, empty), boundary_accuracy(some, empty)) == (0, 0)


def test_objects_weigh_the_same_unless_as_reference() -> None:
    some = np.pad(np.ones((4, 4), bool), 4)
    metrics = RegionBoundary(), RegionBoundary(reference=True)
    for metric in metrics:
        metric.add("short", some, some)
        for _ in range(3):
            metric.add("long", some, ~some)
    assert metrics[0].result()["J"] == pytest.approx(0.5)
    assert metrics[1].result()["J"] == pytest.approx(0.25)
    assert metrics[0].result()["J&F"] == pytest.approx((0.5 + metrics[0].result()["F"]) / 2)


def test_ignored_pixels_do_not_count() -> None:
    truth, prediction = blobs(5, 40, 50)
    metric = RegionBoundary()
    metric.add("all", truth, prediction, ignored=truth ^ prediction)
    assert metric.result() == {"J": 1, "F": 1, "J&F": 1}


def test_masks_of_two_sizes_are_refused() -> None:
    with pytest.raises(InputError, match="truth is 5x4 and the prediction 4x4: scale"):
        RegionBoundary().add("a", np.zeros((4, 5), bool), np.zeros((4, 4), bool))


def test_nothing_added_is_not_a_number() -> None:
    assert all(np.isnan(value) for value in RegionBoundary().result().values())
