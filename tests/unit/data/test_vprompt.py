"""Visual prompts: where they lie, that they repeat, and the frame they are given on."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import combinations

import numpy as np
import pytest
from numpy.typing import NDArray

from x2roto.data.sample import PROMPT_KINDS, PromptKind
from x2roto.data.vprompt import components_of, line, prompt_frame, visual_prompt

Mask = NDArray[np.bool_]


def ring(size: tuple[int, int] = (240, 320)) -> Mask:
    """An object whose centroid is not in it, and a second piece."""
    down, across = np.indices(size)
    far = np.hypot(down - 100, across - 120)
    mask = (far < 60) & (far > 40)
    mask[200:220, 250:300] = True
    return mask


@pytest.mark.parametrize("make", [np.random.default_rng, random.Random], ids=["numpy", "python"])
@pytest.mark.parametrize("reference", [False, True])
@pytest.mark.parametrize("kind", PROMPT_KINDS)
def test_a_seed_gives_one_prompt(kind: PromptKind, reference: bool, make: Callable[[int], random.Random]) -> None:
    mask = ring()
    drawn = [visual_prompt(mask, kind, make(seed), reference=reference) for seed in (3, 3, 4)]
    np.testing.assert_array_equal(drawn[0], drawn[1])
    assert kind == "mask" or (drawn[0] != drawn[2]).any()
    assert drawn[0].dtype == np.bool_
    assert drawn[0].shape == mask.shape


@pytest.mark.parametrize("seed", range(10))
def test_points_are_discs_about_a_pixel_of_each_piece(seed: int) -> None:
    mask = ring()
    drawn = visual_prompt(mask, "point", random.Random(seed), reference=True)
    pieces = components_of(drawn)
    assert len(pieces) == 2
    for piece in pieces:
        row, column = (round(each) for each in piece.centroid)
        assert mask[row, column]
        assert (piece.height, piece.width) == (21, 21)


@pytest.mark.parametrize("seed", range(10))
def test_boxes_are_a_tenth_larger_or_smaller_at_most(seed: int) -> None:
    mask = np.zeros((200, 200), np.bool_)
    mask[50:150, 60:120] = True
    (box,) = components_of(visual_prompt(mask, "box", random.Random(seed)))
    assert 89 <= box.height <= 111
    assert 53 <= box.width <= 67


def test_masks_are_a_little_fuller() -> None:
    mask = ring()
    drawn = visual_prompt(mask, "mask", random.Random(0), reference=True)
    assert (drawn & mask).sum() == mask.sum()
    assert drawn.sum() < 1.5 * mask.sum()


@pytest.mark.parametrize("kind", PROMPT_KINDS)
def test_lengths_follow_the_frame_unless_the_reference_is_wanted(kind: PromptKind) -> None:
    # Large enough for neither to be drawn with the smallest radius.
    small, large = (np.kron(ring(), np.ones((times, times), np.bool_)).astype(np.bool_) for times in (2, 4))
    parts = {}
    for reference in (False, True):
        areas = [visual_prompt(mask, kind, random.Random(1), reference=reference).mean() for mask in (small, large)]
        parts[reference] = areas[1] / areas[0]
    assert parts[False] == pytest.approx(1, abs=0.3)
    if kind in ("point", "scribble"):
        assert parts[True] < 0.5


@pytest.mark.parametrize("kind", ["point", "scribble", "box"])
def test_a_speck_gives_itself_where_the_reference_gives_nothing(kind: PromptKind) -> None:
    speck = np.zeros((40, 40), np.bool_)
    speck[7, 5:9] = True
    assert not visual_prompt(speck, kind, random.Random(0), reference=True).any()
    np.testing.assert_array_equal(visual_prompt(speck, kind, random.Random(0)), speck)


def test_components_touch_at_corners_and_are_in_raster_order() -> None:
    mask = np.zeros((20, 20), np.bool_)
    mask[2:5, 12:15] = mask[5:8, 15:18] = mask[10:13, 2:5] = mask[15, 15:20] = True
    found = components_of(mask)
    assert [(each.top, each.left, each.bottom, each.right) for each in found] == [(2, 12, 8, 18), (10, 2, 13, 5)]
    assert found[1].centroid == (11, 3)


@pytest.mark.parametrize("end", [(0, 0), (9, 4), (-9, 4), (3, -8), (-5, -5), (0, 7), (6, 0)])
def test_lines_are_whole_and_straight(end: tuple[int, int]) -> None:
    rows, columns = line((0, 0), end)
    assert (rows[0], columns[0]) == (0, 0)
    assert (rows[-1], columns[-1]) == end
    assert max(np.abs(np.diff(rows)).max(initial=0), np.abs(np.diff(columns)).max(initial=0)) <= 1
    along = np.arange(len(rows)) / max(1, len(rows) - 1)
    assert np.abs(rows - along * end[0]).max() <= 0.5
    assert np.abs(columns - along * end[1]).max() <= 0.5


@pytest.mark.parametrize("seed", range(40))
def test_the_prompt_frame_is_that_of_trying_every_combination(seed: int) -> None:
    rng = np.random.default_rng(seed)
    frames = [rng.integers(0, 5, rng.integers(0, 4)).tolist() for _ in range(5)]
    assert prompt_frame(frames) == tried_in_turn(frames)


def tried_in_turn(frames: list[list[int]]) -> int:
    every = [category for frame in frames for category in frame]
    order = sorted(sorted(set(every)), key=every.count, reverse=True)
    shown = [set(frame) for frame in frames]
    for count in range(len(order), 0, -1):
        for combination in combinations(order, count):
            if set(combination) in shown:
                return shown.index(set(combination))
    return 0
