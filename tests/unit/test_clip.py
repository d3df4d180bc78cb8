"""Frame ranges: what an artist writes, and the source indices it means."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from x2roto.clip import FrameRange, format_frames, frame_indices, frames_end, parse_frames, spread, within
from x2roto.errors import PromptError


@pytest.mark.parametrize(
    ("text", "first_frame", "indices"),
    [
        ("1001-1005", 1001, [0, 1, 2, 3, 4]),
        ("1001-1010x3", 1001, [0, 3, 6, 9]),
        ("1001-1003,1008", 1001, [0, 1, 2, 7]),
        ("1008, 1001-1003", 1001, [0, 1, 2, 7]),
        ("1001-1003,1002-1004", 1001, [0, 1, 2, 3]),
        ("1003", 1001, [2]),
        ("1008-", 1001, [7, 8, 9]),
        ("1001-x4", 1001, [0, 4, 8]),
        ("0-2", 0, [0, 1, 2]),
        ("-5--3", -5, [0, 1, 2]),
        ("-5-1", -2, [0, 1, 2, 3]),
        ("995-1003", 1001, [0, 1, 2]),
        ("996-1006x3", 1001, [1, 4]),
        ("1009-1400", 1001, [8, 9]),
        ("1-5", 1001, []),
    ],
)
def test_numbers_become_indices_within_the_clip(text: str, first_frame: int, indices: list[int]) -> None:
    assert frame_indices(parse_frames(text, first_frame), 10) == indices


@pytest.mark.parametrize(
    "text", ["", "a", "1-2-3", "1..5", "1001-1050y2", "1-10:3", "5-1", "1-9x0", "1,,2", "1.5", "٣x"]
)
def test_anything_else_is_refused_with_the_right_spelling(text: str) -> None:
    with pytest.raises(PromptError, match="frame range"):
        parse_frames(text)


@given(st.sets(st.integers(0, 300)), st.integers(-20, 1001))
def test_formatting_round_trips(indices: set[int], first_frame: int) -> None:
    ordered = sorted(indices)
    text = format_frames(ordered, first_frame)
    assert (frame_indices(parse_frames(text, first_frame), 400) if text else []) == ordered


@given(
    st.lists(st.builds(FrameRange, st.integers(0, 30), st.integers(0, 40) | st.none(), st.integers(1, 5)), min_size=1)
)
def test_membership_end_and_listing_agree(ranges: list[FrameRange]) -> None:
    listed = frame_indices(ranges, 50)
    assert listed == [index for index in range(50) if within(ranges, index)]
    end = frames_end(ranges)
    assert end is None or all(index < end for index in listed)


@given(st.integers(1, 70), st.integers(1, 400))
def test_a_spread_keeps_its_ends_and_its_order(count: int, total: int) -> None:
    chosen = spread(count, range(total))
    assert len(chosen) == min(count, total)
    assert chosen[0] == 0
    assert chosen == sorted(set(chosen))
    assert count == 1 or chosen[-1] == total - 1


def test_a_spread_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        spread(0, [1, 2])
