"""Windows around single objects: where they stand, what of a frame they show, how mattes get back to the frame."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.tiny import TINY, tiny_segmenter
from x2roto.clip import Frame
from x2roto.engine.identity import EMPTY
from x2roto.engine.segmenter import Reading, Segmenter
from x2roto.engine.tasks import TASKS
from x2roto.engine.tracker import FrameResult, placed_side
from x2roto.engine.window import POINTED, SHRINKING, Window, extent, first_window, widened
from x2roto.prompt import Box, MaskPrompt, Points, Prompt, Text
from x2roto.train.footage.close import Close
from x2roto.train.samples import ClipSample

MEMORY = replace(TINY.memory, feature_strides=(0, 1, 0), mask_stride=2, mask_layers=2, prompts=True, carry=3)
ROOM = 2.0
LEFT, RIGHT = Box("left", 10, 20, 40, 60, 0), Box("right", 90, 30, 110, 40, 0)
FRAMES = [np.random.default_rng(index).integers(0, 256, (80, 120, 3)).astype(np.uint8) for index in range(5)]


@pytest.fixture(scope="module")
def segmenter() -> Segmenter:
    return tiny_segmenter(memory=MEMORY, room=ROOM)


def tracked(segmenter: Segmenter, prompts: list[Prompt], frames: list[Frame] | None = None) -> list[FrameResult]:
    queries = segmenter.read(prompts, FRAMES, {0: FRAMES[0]})
    shown = frames or [Frame(index, None, rgb) for index, rgb in enumerate(FRAMES)]
    return [result for query in queries for result in segmenter.track(query).step(shown)]


@given(st.floats(-50, 250), st.floats(-50, 250), st.floats(0, 500), st.integers(20, 200), st.integers(20, 200))
def test_a_window_lies_inside_the_frame(x: float, y: float, side: float, width: int, height: int) -> None:
    window = Window.around(x, y, side, width, height)
    assert 0 <= window.x0 < window.x1 <= width
    assert 0 <= window.y0 < window.y1 <= height
    assert window.crop(np.zeros((height, width))).size


def test_the_extent_of_a_rectangle_is_the_rectangle() -> None:
    cover = np.zeros((100, 200))
    cover[20:60, 50:150] = 1
    assert extent(cover) == pytest.approx((0.5, 0.4, 0.5, 0.4))


def test_stray_cells_hardly_widen_the_extent() -> None:
    cover = np.zeros((100, 100))
    cover[40:60, 40:60] = 1
    cover[0, 0] = 1
    found = extent(cover)
    assert found is not None
    assert found[2:] == pytest.approx((0.2, 0.2), abs=0.04)


def test_nothing_has_no_extent() -> None:
    assert extent(np.zeros((4, 4))) is None


def test_the_first_window_has_room_around_a_box_and_more_around_a_click() -> None:
    region = np.zeros((100, 200), np.bool_)
    region[45:55, 95:105] = True
    assert first_window(region, 2.0).side == 20
    assert first_window(region, 2.0, pointed=True).side == POINTED * 100


def test_a_window_follows_what_moves_and_keeps_its_pace() -> None:
    window = Window(50, 20, 90, 60, 200, 100)
    cover = np.zeros((40, 40))
    cover[10:20, 25:35] = 1
    moved = window.following(cover, 2.0)
    assert ((moved.x0 + moved.x1) / 2, (moved.y0 + moved.y1) / 2) == pytest.approx((80, 35), abs=1)
    assert moved.side == pytest.approx(window.side / SHRINKING, abs=2)


def test_a_window_grows_to_the_whole_frame_while_nothing_is_seen() -> None:
    window = Window(50, 20, 90, 60, 200, 100)
    for _ in range(40):
        grown = window.following(np.zeros((1, 1)), 2.0)
        assert grown.side >= window.side
        window = grown
    assert window == Window.whole(200, 100)


@pytest.mark.parametrize(
    ("edges", "moved"),
    [
        ((), (0, 0)),
        (("left",), (-10, 0)),
        (("right", "bottom"), (10, 10)),
        (("top",), (0, -10)),
    ],
)
def test_a_window_goes_where_its_object_goes_on(edges: tuple[str, ...], moved: tuple[int, int]) -> None:
    window, cover = Window(50, 20, 90, 60, 200, 100), torch.zeros(16, 16, dtype=torch.bool)
    cover[5:9, 5:9] = True
    sides = {"left": cover[5:9, :9], "right": cover[5:9, 5:], "top": cover[:9, 5:9], "bottom": cover[5:, 5:9]}
    for edge in edges:
        sides[edge][:] = True
    to = window.towards(cover)
    assert ((to.x0 - window.x0, to.y0 - window.y0), to.side) == (moved, window.side)


def test_a_window_does_not_leave_the_frame_for_what_does() -> None:
    cover = torch.zeros(16, 16, dtype=torch.bool)
    cover[5:9, :9] = True
    assert Window(0, 20, 40, 60, 200, 100).towards(cover) == Window(0, 20, 40, 60, 200, 100)
    assert Window(4, 20, 44, 60, 200, 100).towards(cover) == Window(0, 20, 40, 60, 200, 100)


def test_a_window_widens_for_what_reaches_both_its_sides_and_not_for_a_speck() -> None:
    window, cover = Window(50, 20, 90, 60, 200, 100), torch.zeros(16, 16, dtype=torch.bool)
    cover[7] = True
    assert window.towards(cover) == window
    cover[8] = True
    wider = window.towards(cover)
    assert wider.side == 44
    assert (wider.x0 + wider.x1, wider.y0 + wider.y1) == (140, 80)


def test_logits_get_back_to_their_place() -> None:
    window = Window(32, 16, 64, 48, 128, 64)
    placed = window.place(torch.full((8, 8), 3.0), 128)
    inside = torch.zeros(128, 128, dtype=torch.bool)
    inside[32:96, 32:64] = True
    assert torch.equal(placed > 0, inside)
    assert (placed[~inside] == EMPTY).all()


def test_what_is_placed_is_where_the_window_showed_it() -> None:
    window = Window(32, 16, 64, 48, 128, 64)
    logits = torch.full((8, 8), -5.0)
    logits[2:6, 3:7] = 5
    middles = window.place(logits, 256)[72:192:16, 68:128:8]
    assert torch.equal(middles > 0, logits > 0)


def test_a_margin_is_a_share_of_the_longer_side() -> None:
    mask = torch.zeros(64, 64, dtype=torch.bool)
    mask[10:50, 30:34] = True
    rows, columns = (widened(mask, 0.1).any(axis).nonzero().flatten() for axis in (1, 0))
    assert (rows[0], rows[-1], columns[0], columns[-1]) == (6, 53, 26, 37)


def test_the_whole_frame_is_placed_as_it_is() -> None:
    logits = torch.randn(16, 16)
    torch.testing.assert_close(Window.whole(77, 33).place(logits, 16), logits, rtol=1e-4, atol=1e-4)


def test_what_lies_outside_the_window_is_not_seen(segmenter: Segmenter) -> None:
    (query,) = segmenter.read([LEFT], FRAMES, {0: FRAMES[0]})
    (window,) = query.windows
    changed = FRAMES[0].copy()
    changed[:, window.x1 :] = 0
    first, second = (
        next(segmenter.track(query).step([Frame(0, None, rgb)])).prediction for rgb in (FRAMES[0], changed)
    )
    assert torch.equal(first.mask_logits_bqhw, second.mask_logits_bqhw)


def test_objects_are_looked_at_one_by_one_and_see_only_themselves(segmenter: Segmenter) -> None:
    together = tracked(segmenter, [LEFT, RIGHT])
    for place, box in enumerate((LEFT, RIGHT)):
        for both, alone in zip(together, tracked(segmenter, [box]), strict=True):
            torch.testing.assert_close(both.seen[place].logits, alone.seen[0].logits, rtol=1e-4, atol=1e-3)


def test_words_and_regions_come_on_one_grid(segmenter: Segmenter) -> None:
    results = tracked(segmenter, [LEFT, Text("man", "the man")])
    shapes = {tuple(seen.logits.shape) for result in results for seen in result.seen}
    assert shapes == {(placed_side(TINY), placed_side(TINY))}


def test_a_click_is_given_a_wide_view(segmenter: Segmenter) -> None:
    (query,) = segmenter.read([Points("it", ((60.0, 40.0),), 0)], FRAMES, {0: FRAMES[0]})
    assert query.windows[0].side == POINTED * 80


def test_frames_left_out_widen_the_view(segmenter: Segmenter) -> None:
    (query,) = segmenter.read([RIGHT], FRAMES, {0: FRAMES[0]})
    sides = []
    for index in (1, 4):
        tracker = segmenter.track(query)
        list(tracker.step([Frame(0, None, FRAMES[0])]))
        sides.append(tracker._windows(Frame(index, None, FRAMES[index]), tracker.state)[0].side)
    assert sides[1] > sides[0]


def test_a_drawn_box_bounds_its_own_frame_and_no_other(segmenter: Segmenter) -> None:
    (query,) = segmenter.read([LEFT], FRAMES, {0: FRAMES[0]})
    tracker = segmenter.track(query)
    assert [each is not None for each in tracker._bounds(tracker.state)] == [True]
    list(tracker.step([Frame(0, None, FRAMES[0])]))
    assert tracker._bounds(tracker.state) == [None]


def test_a_held_frame_moves_no_window(segmenter: Segmenter) -> None:
    (query,) = segmenter.read([LEFT], FRAMES, {0: FRAMES[0]})
    tracker = segmenter.track(query)
    list(tracker.step([Frame(0, None, FRAMES[0])]))
    before = tracker.state
    list(tracker.step([Frame(1, None, FRAMES[1], held="damaged")]))
    assert tracker.state.windows == before.windows


def test_a_shot_goes_on_elsewhere_where_it_looked(segmenter: Segmenter, tmp_path: Path) -> None:
    shown = [Frame(index, None, rgb) for index, rgb in enumerate(FRAMES)]
    (query,) = segmenter.read([LEFT], FRAMES, {0: FRAMES[0]})
    whole = list(segmenter.track(query).step(shown))
    tracker = segmenter.track(query)
    list(tracker.step(shown[:3]))
    tracker.save(tmp_path / "shot.safetensors")
    resumed = segmenter.resume(tmp_path / "shot.safetensors")
    assert resumed.state.windows == tracker.state.windows
    for again, once in zip(resumed.step(shown[3:]), whole[3:], strict=True):
        assert torch.equal(again.seen[0].logits, once.seen[0].logits)


def test_training_looks_at_the_object_that_is_asked_for() -> None:
    frames = np.zeros((3, 60, 100, 3), np.uint8)
    masks = np.zeros((1, 3, 60, 100), np.bool_)
    for t in range(3):
        masks[0, t, 20:40, 30 + 4 * t : 50 + 4 * t] = True
        frames[t][masks[0, t]] = 255
    region: NDArray[np.bool_] = masks[0, 0].copy()
    sample = ClipSample(frames, "objseg", (region,), masks, np.zeros(1, np.int64))
    close = Close(ROOM, 32).look(sample, np.random.default_rng(0), pointed=False)
    assert close is not None
    assert close.masks is not None
    assert close.frames.shape == (3, 32, 32, 3)
    shares = close.masks.mean((2, 3))
    # Room 2 is a quarter of the window; the window is unsteady on purpose.
    assert ((shares > 0.1) & (shares < 0.6)).all()
    assert (close.frames[close.masks[0]] > 127).all()
    assert close.glimpse is frames


def test_a_drawn_mask_is_the_matte_of_its_own_frame(segmenter: Segmenter) -> None:
    drawn = np.zeros((80, 120), np.bool_)
    drawn[20:60, 30:70] = True
    first, second, *_ = tracked(segmenter, [MaskPrompt("it", drawn, 0)])
    (seen,) = first.seen
    assert seen.presence > 0.99
    shown = torch.from_numpy(drawn).float()[None, None]
    wanted = torch.nn.functional.interpolate(shown, seen.logits.shape, mode="area")[0, 0]
    sure = (wanted == 0) | (wanted == 1)
    # The window's own grid is coarse: a cell or two about the edge may differ.
    assert ((seen.logits > 0) != (wanted > 0.5))[sure].float().mean() < 0.05
    assert not torch.equal(second.prediction.mask_logits_bqhw, first.prediction.mask_logits_bqhw)


def test_regions_that_stand_for_things_like_them_decide_no_matte(segmenter: Segmenter) -> None:
    drawn = np.zeros((80, 120), np.bool_)
    drawn[20:60, 30:70] = True
    prompts = [MaskPrompt("left", drawn, 0), MaskPrompt("right", drawn[:, ::-1], 0)]
    query, _ = segmenter.ask(TASKS["vgdseg"], prompts, FRAMES, {0: FRAMES[0]})
    assert [target.name for target in query.targets[0]] == ["left", "right"]
    assert all(target.cover is None and target.bounds is None for target in query.targets[0])
    (alone,) = segmenter.read(prompts[:1], FRAMES, {0: FRAMES[0]})
    assert alone.targets[0][0].cover is not None


def test_a_filled_box_of_a_data_set_is_no_outline(segmenter: Segmenter) -> None:
    drawn = np.zeros((80, 120), np.bool_)
    drawn[20:60, 30:70] = True
    prompts, plates = [MaskPrompt("it", drawn, 0)], {0: FRAMES[0]}
    (shown,) = segmenter.read(prompts, FRAMES, plates, Reading(outlined=False))
    (boxed,) = segmenter.read([Box("it", 30, 20, 70, 60, 0)], FRAMES, plates)
    ((target,),), ((wanted,),) = shown.targets, boxed.targets
    assert target.cover is None
    assert target.bounds is not None
    assert torch.equal(target.bounds, wanted.bounds)
