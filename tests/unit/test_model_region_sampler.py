"""Points drawn from masks and features read there."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch import Tensor

from tests.unit.model_parts import noise
from x2roto.engine.model.region_sampler import draw_points, region_tokens

HEIGHT, WIDTH = 6, 10


def block(rows: slice, columns: slice) -> Tensor:
    mask = torch.zeros(HEIGHT, WIDTH, dtype=torch.bool)
    mask[rows, columns] = True
    return mask


def drawn(mask: Tensor, count: int, seed: int = 0) -> list[tuple[int, int]]:
    """The drawn pixels as (row, column)."""
    points = draw_points(mask, count, torch.Generator().manual_seed(seed))
    assert points.shape == (count, 2)
    assert points.dtype == torch.float32
    return [(round(row * HEIGHT), round(column * WIDTH)) for row, column in points.tolist()]


MASK = block(slice(1, 4), slice(2, 6))
PIXELS = [(row, column) for row in range(1, 4) for column in range(2, 6)]


def test_a_seed_decides_the_points() -> None:
    assert drawn(MASK, 5, seed=1) == drawn(MASK, 5, seed=1)
    assert drawn(MASK, 5, seed=1) != drawn(MASK, 5, seed=2)


def test_fewer_than_the_pixels_are_distinct_pixels_of_the_mask() -> None:
    points = drawn(MASK, 7)
    assert len(set(points)) == 7
    assert set(points) <= set(PIXELS)


def test_every_pixel_is_drawn_as_often_as_another() -> None:
    counts = Counter(point for seed in range(600) for point in drawn(MASK, 3, seed))
    assert set(counts) == set(PIXELS)
    assert max(counts.values()) < 2 * min(counts.values())


def test_as_many_as_the_pixels_are_all_of_them_in_order() -> None:
    assert drawn(MASK, len(PIXELS)) == PIXELS


def test_more_than_the_pixels_are_all_of_them_and_repeats() -> None:
    points = drawn(MASK, 40)
    assert points[:12] == PIXELS
    assert set(points[12:]) <= set(PIXELS)
    assert len(set(points[12:])) > 1


def test_an_empty_mask_is_refused() -> None:
    with pytest.raises(ValueError, match="covers no pixel"):
        draw_points(torch.zeros(4, 4, dtype=torch.bool), 8, torch.Generator())


def test_a_point_is_a_share_of_the_height_and_of_the_width() -> None:
    points = draw_points(block(slice(3, 4), slice(7, 8)), 2, torch.Generator())
    torch.testing.assert_close(points, torch.tensor([[3 / HEIGHT, 7 / WIDTH]] * 2))


def test_a_constant_map_gives_its_constant() -> None:
    points = torch.rand(2, 8, 2, generator=torch.Generator().manual_seed(0))
    tokens = region_tokens(torch.full((5, 7, 3), 2.5), points, 4)
    torch.testing.assert_close(tokens, torch.full((2, 2, 3), 2.5))


def test_a_ramp_reads_back_its_places_between_the_outer_pixels() -> None:
    """0 is the centre of the first pixel, 1 that of the last; consecutive points are averaged."""
    rows, columns = torch.meshgrid(torch.arange(5.0), torch.arange(7.0), indexing="ij")
    points = torch.rand(2, 8, 2, generator=torch.Generator().manual_seed(0))
    tokens = region_tokens(torch.stack((rows, columns), -1), points, 4)
    expected = (points * torch.tensor([4.0, 6.0])).unflatten(1, (2, 4)).mean(2)
    torch.testing.assert_close(tokens, expected, atol=1e-5, rtol=0)


def test_half_precision_maps_are_averaged_in_full_and_keep_their_type() -> None:
    features, points = noise(5, 7, 3).bfloat16(), torch.rand(1, 64, 2, generator=torch.Generator().manual_seed(0))
    tokens = region_tokens(features, points, 64)
    assert tokens.dtype == torch.bfloat16
    assert torch.equal(tokens, region_tokens(features.float(), points, 64).bfloat16())
