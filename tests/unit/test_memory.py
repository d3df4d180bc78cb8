"""The memory as a value: what it keeps, in which order, and how far back."""

from __future__ import annotations

from dataclasses import FrozenInstanceError

import pytest
import torch
from torch import Tensor

from tests.unit.model_parts import noise
from x2roto.engine.memory import Memory


def maps(number: float, batch: int = 1) -> tuple[Tensor, ...]:
    """Three maps that hold their frame's number."""
    return tuple(torch.full((batch, 4, 2, 3), number) + scale / 10 for scale in range(3))


def after(frames: int, capacity: int = 3) -> Memory:
    memory = Memory(capacity)
    for frame in range(frames):
        memory = memory.remember(maps(frame))
    return memory


@pytest.mark.parametrize("capacity", [0, -1])
def test_a_memory_of_nothing_is_refused(capacity: int) -> None:
    with pytest.raises(ValueError, match="at least 1 frame"):
        Memory(capacity)


def test_the_oldest_goes_first() -> None:
    memory = after(5)
    assert [entry.step for entry in memory.entries] == [2, 3, 4]
    assert [entry.maps_bchw[0][0, 0, 0, 0].item() for entry in memory.entries] == [2, 3, 4]
    assert memory.gaps() == (3, 2, 1)


def test_an_anchored_memory_keeps_the_first_frame_as_the_oldest_it_knows() -> None:
    memory = Memory(3, anchored=True)
    for frame in range(9):
        assert memory.first() == (memory.entries[0].maps_bchw if frame else ())
        memory = memory.remember(maps(frame))
    assert [entry.step for entry in memory.entries] == [0, 7, 8]
    assert memory.gaps() == (3, 2, 1)


def test_an_anchored_memory_of_one_frame_keeps_the_newest() -> None:
    memory = Memory(1, anchored=True).remember(maps(0)).remember(maps(1))
    assert [entry.step for entry in memory.entries] == [1]


def test_a_frame_passed_over_is_counted_but_not_kept() -> None:
    memory = after(2).pass_over().pass_over()
    assert memory.step == 4
    assert memory.gaps() == (4, 3)
    assert memory.remember(maps(4)).gaps() == (5, 4, 1)


def test_remembering_gives_a_new_value_and_leaves_the_old() -> None:
    before = after(2)
    later = before.remember(maps(2))
    assert (before.step, len(before.entries)) == (2, 2)
    assert (later.step, len(later.entries)) == (3, 3)
    with pytest.raises(FrozenInstanceError):
        before.step = 7  # type: ignore[misc]


def test_tokens_run_over_entries_then_rows_then_columns() -> None:
    first, second = ((noise(2, 4, 2, 3, seed=seed),) for seed in (0, 1))
    tokens = Memory(5).remember(first).remember(second).tokens(0)
    assert tokens.shape == (2, 2 * 6, 4)
    for entry, row, column in ((0, 0, 2), (0, 1, 0), (1, 1, 2)):
        expected = (first, second)[entry][0][:, :, row, column]
        assert torch.equal(tokens[:, entry * 6 + row * 3 + column], expected)


def test_scales_are_kept_apart() -> None:
    assert after(1).tokens(2).unique().item() == pytest.approx(0.2)


def test_moving_keeps_everything_else() -> None:
    memory = after(4).pass_over()
    moved = memory.to("meta")
    assert (moved.capacity, moved.step, moved.gaps()) == (memory.capacity, memory.step, memory.gaps())
    assert {m.device.type for entry in moved.entries for m in entry.maps_bchw} == {"meta"}
    assert moved.tokens(1).shape == memory.tokens(1).shape


def test_a_copy_holds_the_same_maps_in_tensors_of_its_own() -> None:
    memory = Memory(3, prompt=maps(9.0)).remember(maps(1.0)).remember(maps(2.0))
    copy = memory.cloned()
    assert copy.gaps() == memory.gaps()
    pairs = list(zip(memory.tensors(), copy.tensors(), strict=True))
    assert len(pairs) == 3 * len(maps(0.0))
    for ours, theirs in pairs:
        assert torch.equal(ours, theirs)
        assert ours.data_ptr() != theirs.data_ptr()
