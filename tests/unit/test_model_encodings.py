"""Encodings against their formulas, number by number, and the properties they are chosen for."""

from __future__ import annotations

import math
from itertools import product

import pytest
import torch

from tests.unit.model_parts import noise
from x2roto.engine.model.encodings import (
    centres,
    reference_points,
    rope,
    rotate,
    sine,
    sine_tokens,
    temporal,
    temporal_on,
    turns_on,
)

CPU = torch.device("cpu")


def test_sine_is_y_then_x_with_sines_on_even_channels() -> None:
    dim, height, width = 12, 3, 5
    table = sine(dim, height, width)
    for channel, row, column in product(range(dim), range(height), range(width)):
        band = channel % (dim // 2)
        place, extent = (row, height) if channel < dim // 2 else (column, width)
        angle = (place + 1) / (extent + 1e-6) * 2 * math.pi / 10000 ** (2 * (band // 2) / (dim // 2))
        expected = math.cos(angle) if band % 2 else math.sin(angle)
        assert table[channel, row, column].item() == pytest.approx(expected, abs=1e-6)


def test_temporal_is_sines_then_cosines() -> None:
    dim = 8
    for gap in (0, 1, 5, 40):
        angles = [gap * 10000 ** (-i / (dim // 2)) for i in range(dim // 2)]
        expected = [math.sin(a) for a in angles] + [math.cos(a) for a in angles]
        assert temporal(gap, dim).tolist() == pytest.approx(expected, abs=1e-5)


def test_rope_turns_half_of_the_pairs_by_column_and_half_by_row() -> None:
    dim, height, width = 16, 3, 4
    cos, sin = rope(dim, height, width)
    assert cos.shape == sin.shape == (height * width, dim // 2)
    for row, column, pair in product(range(height), range(width), range(dim // 2)):
        place = column if pair < dim // 4 else row
        angle = place * 10000 ** (-4 * (pair % (dim // 4)) / dim)
        token = row * width + column
        assert cos[token, pair].item() == pytest.approx(math.cos(angle), abs=1e-6)
        assert sin[token, pair].item() == pytest.approx(math.sin(angle), abs=1e-6)


def test_rotation_turns_adjacent_channels() -> None:
    (cos, sin), x = rope(16, 3, 4), noise(2, 12, 16)
    a, b = x[..., 0::2], x[..., 1::2]
    expected = torch.stack((a * cos - b * sin, b * cos + a * sin), dim=-1).flatten(-2)
    torch.testing.assert_close(rotate(x, turns_on(16, 3, 4, CPU)), expected)


def test_rotation_preserves_norms() -> None:
    x = noise(2, 12, 16)
    torch.testing.assert_close(rotate(x, turns_on(16, 3, 4, CPU)).norm(dim=-1), x.norm(dim=-1))


@pytest.mark.parametrize("size", [(1, 7), (7, 1)])
def test_rotated_products_depend_on_the_distance_only(size: tuple[int, int]) -> None:
    turns = turns_on(16, *size, CPU)
    queries, keys = (rotate(noise(16, seed=seed).expand(7, -1), turns) for seed in (1, 2))
    scores = queries @ keys.T
    for distance in range(-6, 7):
        diagonal = scores.diagonal(distance)
        torch.testing.assert_close(diagonal, diagonal[:1].expand_as(diagonal), atol=1e-5, rtol=0)
    assert scores[0].std() > 0.1


def test_rotation_of_half_precision_is_computed_in_full() -> None:
    turns, x = turns_on(16, 8, 8, CPU), noise(1, 64, 16).bfloat16()
    assert torch.equal(rotate(x, turns), rotate(x.float(), turns).bfloat16())


def test_reference_points_are_pixel_centres_x_first_level_by_level() -> None:
    sizes = ((2, 3), (4, 5))
    expected = [
        ((column + 0.5) / width, (row + 0.5) / height)
        for height, width in sizes
        for row in range(height)
        for column in range(width)
    ]
    torch.testing.assert_close(reference_points(sizes, CPU), torch.tensor(expected))


def test_tables_on_a_device_are_the_plain_ones() -> None:
    assert torch.equal(sine_tokens(12, 3, 5, CPU, torch.float32), sine(12, 3, 5).flatten(1).T)
    assert torch.equal(sine_tokens(12, 3, 5, CPU, torch.bfloat16), sine(12, 3, 5).flatten(1).T.bfloat16())
    assert torch.equal(temporal_on(3, 12, CPU, torch.bfloat16), temporal(3, 12).bfloat16())
    turns = turns_on(16, 3, 4, CPU)
    assert all(map(torch.equal, (turns.real, turns.imag), rope(16, 3, 4)))


def test_bfloat16_computation_is_not_rounding_of_the_exact_table() -> None:
    exact, rough = sine(64, 32, 32), sine(64, 32, 32, compute=torch.bfloat16)
    assert rough.dtype == torch.bfloat16
    assert not torch.equal(rough, exact.bfloat16())
    assert (rough.float() - exact).abs().max() < 0.05
    assert len(set(centres(256, compute=torch.bfloat16).tolist())) < 256


def test_tables_first_used_for_inference_still_serve_training() -> None:
    with torch.inference_mode():
        made = [
            sine_tokens(8, 11, 13, CPU, torch.float32),
            temporal_on(17, 8, CPU, torch.float32),
            reference_points(((11, 13),), CPU),
            torch.view_as_real(turns_on(8, 11, 13, CPU)),
        ]
    for table in made:
        weight = torch.ones_like(table, requires_grad=True)
        (weight * table).sum().backward()
        assert weight.grad is not None
        assert torch.equal(weight.grad, table)
