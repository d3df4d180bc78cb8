"""Memory attention against plain softmaxes, and what must not change it."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from tests.unit.model_parts import noise, randomised
from x2roto.engine.model.config import MemoryConfig
from x2roto.engine.model.encodings import rope, sine
from x2roto.engine.model.memory_attention import Carry, MemoryAttention, MemoryLayer, SingleHeadAttention

DIM, HEIGHT, WIDTH = 16, 3, 5
ATTENTION = randomised(MemoryAttention(MemoryConfig(layers=3, feedforward=24), DIM))
LEVEL = noise(2, DIM, HEIGHT, WIDTH)
MEMORY = noise(2, 22, DIM, seed=1)
POSITIONS = noise(22, DIM, seed=2)


def turned(x: Tensor) -> Tensor:
    """Axial rotary encoding by complex numbers."""
    cos, sin = rope(DIM, HEIGHT, WIDTH)
    return torch.view_as_real(
        torch.view_as_complex(x.unflatten(-1, (-1, 2)).contiguous()) * torch.complex(cos, sin)
    ).flatten(-2)


def softmax_attention(part: SingleHeadAttention, q: Tensor, k: Tensor, v: Tensor, *, rotate_keys: bool) -> Tensor:
    queries, keys = turned(part.q_proj(q)), part.k_proj(k)
    scores = queries @ (turned(keys) if rotate_keys else keys).mT / DIM**0.5
    return part.o_proj(scores.softmax(-1) @ part.v_proj(v))


def plain_layer(layer: MemoryLayer, x: Tensor, memory: Tensor, positions: Tensor) -> Tensor:
    normed = layer.layer_norm1(x)
    x = x + softmax_attention(layer.self_attn, normed, normed, normed, rotate_keys=True)
    seen = softmax_attention(layer.cross_attn, layer.layer_norm2(x), memory + positions, memory, rotate_keys=False)
    x = x + seen
    return x + layer.linear2(F.relu(layer.linear1(layer.layer_norm3(x))))


def plain(level: Tensor, memory: Tensor, positions: Tensor) -> Tensor:
    x = level.flatten(2).mT + 0.1 * sine(DIM, HEIGHT, WIDTH).flatten(1).T
    for layer in ATTENTION.layers:
        x = plain_layer(layer, x, memory, positions)
    return ATTENTION.layer_norm(x).mT.reshape(level.shape)


def attend(level: Tensor, memory: Tensor, positions: Tensor = POSITIONS) -> Tensor:
    return ATTENTION(ATTENTION.prepare(level), level, memory, positions)


def test_equals_a_plain_formulation() -> None:
    torch.testing.assert_close(attend(LEVEL, MEMORY), plain(LEVEL, MEMORY, POSITIONS), atol=1e-4, rtol=1e-4)


def test_a_batch_equals_its_frames_one_by_one() -> None:
    prepared, together = ATTENTION.prepare(LEVEL), attend(LEVEL, MEMORY)
    for index in range(len(LEVEL)):
        one = slice(index, index + 1)
        torch.testing.assert_close(prepared[one], ATTENTION.prepare(LEVEL[one]), atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(together[one], attend(LEVEL[one], MEMORY[one]), atol=1e-4, rtol=1e-4)


def test_memory_is_a_set_whose_places_are_told_by_the_positions_alone() -> None:
    order = torch.randperm(MEMORY.shape[1], generator=torch.Generator().manual_seed(0))
    expected = attend(LEVEL, MEMORY)
    torch.testing.assert_close(attend(LEVEL, MEMORY[:, order], POSITIONS[order]), expected, atol=1e-4, rtol=1e-4)
    assert (attend(LEVEL, MEMORY[:, order]) - expected).abs().max() > 1e-3


@pytest.mark.parametrize("change", ["memory", "positions"])
def test_both_the_memory_and_its_positions_are_read(change: str) -> None:
    memory = MEMORY + (change == "memory") * noise(*MEMORY.shape, seed=3)
    positions = POSITIONS + (change == "positions") * noise(*POSITIONS.shape, seed=3)
    assert (attend(LEVEL, memory, positions) - attend(LEVEL, MEMORY)).abs().max() > 1e-3


def test_one_set_of_weights_serves_every_scale() -> None:
    sizes = [(3, 5), (6, 10), (12, 20)]
    for (height, width), (next_height, next_width) in pairwise(sizes):
        assert attend(noise(2, DIM, height, width), MEMORY).shape[-2:] == (height, width)
        assert attend(noise(2, DIM, next_height, next_width), MEMORY).shape[-2:] == (next_height, next_width)


def carried(carry: Carry, shift: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """What is carried of a spot when the picture moves by `shift`, and the spot moved by hand."""
    then, newest = noise(1, 256, 9, 11), torch.zeros(1, 256, 9, 11)
    newest[:, :, 3:5, 4:7] = 1
    with torch.no_grad():
        carry.projection.weight.copy_(torch.eye(256)[..., None, None])
        carry.projection.bias.zero_()  # type: ignore[union-attr]
        moved = carry(newest, then, then.roll(shift, (2, 3)))
    return moved, newest.roll(shift, (2, 3))


@pytest.mark.parametrize("shift", [(0, 0), (2, -3), (-1, 3)])
def test_the_newest_map_goes_where_the_picture_goes(shift: tuple[int, int]) -> None:
    moved, expected = carried(Carry(3, 256), shift)
    down, across = shift
    # What the moving picture has uncovered was nowhere before.
    seen = (..., slice(max(down, 0), 9 + min(down, 0)), slice(max(across, 0), 11 + min(across, 0)))
    torch.testing.assert_close(moved[seen], expected[seen], atol=0.05, rtol=0)


def test_it_does_not_go_farther_than_its_radius() -> None:
    moved, expected = carried(Carry(1, 256), (0, 3))
    assert (moved - expected).abs().max() > 0.5


@pytest.mark.parametrize("shift", [(0, 0), (4, 5)])
def test_without_a_radius_it_is_found_anywhere(shift: tuple[int, int]) -> None:
    moved, expected = carried(Carry(None, 256), shift)
    torch.testing.assert_close(moved, expected, atol=0.05, rtol=0)


def test_nothing_is_taken_from_outside_the_map() -> None:
    carry, full = Carry(2, 32), torch.ones(1, 32, 4, 4)
    with torch.no_grad():
        carry.projection.weight.copy_(torch.eye(32)[..., None, None])
        carry.projection.bias.zero_()  # type: ignore[union-attr]
        torch.testing.assert_close(carry(full, noise(1, 32, 4, 4), noise(1, 32, 4, 4, seed=1)), full)
