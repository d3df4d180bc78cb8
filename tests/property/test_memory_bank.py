"""Whatever is remembered and passed over, the memory is the last few remembered frames and knows their age."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from x2roto.engine.memory import Memory

# True: the frame is remembered. False: it is passed over.
HISTORIES = st.lists(st.booleans(), max_size=40)
CAPACITIES = st.integers(1, 9)


def lived(history: list[bool], capacity: int) -> Memory:
    """The memory after a history; the map of a frame holds its number."""
    memory = Memory(capacity)
    for frame, kept in enumerate(history):
        memory = memory.remember((torch.full((1, 1, 1, 1), float(frame)),)) if kept else memory.pass_over()
    return memory


def remembered(memory: Memory) -> list[int]:
    return [int(entry.maps_bchw[0]) for entry in memory.entries]


@given(HISTORIES, CAPACITIES)
def test_it_holds_the_last_remembered_frames_in_order(history: list[bool], capacity: int) -> None:
    kept = [frame for frame, remember in enumerate(history) if remember]
    assert remembered(lived(history, capacity)) == kept[-capacity:]


@given(HISTORIES, CAPACITIES)
def test_it_never_holds_more_than_its_capacity(history: list[bool], capacity: int) -> None:
    for length in range(len(history) + 1):
        memory = lived(history[:length], capacity)
        assert len(memory.entries) <= capacity
        assert memory.step == length


@given(HISTORIES, CAPACITIES)
def test_gaps_are_the_distances_to_the_frame_about_to_be_read(history: list[bool], capacity: int) -> None:
    memory = lived(history, capacity)
    assert list(memory.gaps()) == [len(history) - frame for frame in remembered(memory)]
    assert all(gap >= 1 for gap in memory.gaps())


@given(st.integers(0, 40), CAPACITIES)
def test_without_skips_gaps_count_down_to_one(frames: int, capacity: int) -> None:
    gaps = lived([True] * frames, capacity).gaps()
    assert gaps == tuple(range(min(frames, capacity), 0, -1))


@given(HISTORIES, HISTORIES, CAPACITIES)
def test_a_memory_kept_aside_goes_on_as_if_never_put_down(
    before: list[bool], later: list[bool], capacity: int
) -> None:
    whole, resumed = lived(before + later, capacity), lived(before, capacity)
    for frame, kept in enumerate(later, start=len(before)):
        resumed = resumed.remember((torch.full((1, 1, 1, 1), float(frame)),)) if kept else resumed.pass_over()
    assert (resumed.step, remembered(resumed)) == (whole.step, remembered(whole))
