"""Outlines: what they are drawn from, that sets of objects do not disturb each other, and how they go on."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tests.tiny import FINDER, OUTLINER, TINY, tiny_model, tiny_segmenter
from x2roto.clip import Frame
from x2roto.engine import outlining
from x2roto.engine.identity import EMPTY
from x2roto.engine.memory import Memory
from x2roto.engine.model.config import OutlinerConfig
from x2roto.engine.model.outliner import Outliner, Places, Sight
from x2roto.engine.model.segmentor import Prediction
from x2roto.engine.outlining import FITTED, Trace, on_grid, outlined, palettes_of, places_of
from x2roto.engine.palette import colour_bins
from x2roto.engine.segmenter import Segmenter, load_segmenter
from x2roto.engine.sizes import infer_sizes
from x2roto.engine.tracker import Drawn, Encoded, _better
from x2roto.engine.weights import shapes_of
from x2roto.engine.window import Window, seen_from
from x2roto.evaluate.metrics.boundary import region_similarity
from x2roto.prompt import Box, MaskPrompt, Points
from x2roto.refine import upsample

SIDE, DIM = 16, 10
MEMORY = replace(TINY.memory, feature_strides=(0, 1, 0), mask_stride=2, mask_layers=2, prompts=True, carry=3)
GENERATOR = torch.Generator().manual_seed(3)
CENTRE = torch.zeros(1, 1, 12)
NOTHING = torch.zeros(1, SIDE * SIDE, 0)  # to be fitted from


def drawing_outliner(seed: int = 0) -> Outliner:
    """One that adds something: a new one adds nothing."""
    torch.manual_seed(seed)
    outliner = Outliner(OUTLINER, DIM)
    nn.init.normal_(outliner.draw.weight, std=0.3)
    return outliner.eval()


OUTLINER_OF_NOISE = drawing_outliner()


def sight(batch: int = 1, seed: int = 0) -> Sight:
    generator = torch.Generator().manual_seed(seed)
    levels = [torch.randn(batch, DIM, side, side, generator=generator) for side in (SIDE, SIDE // 2, SIDE // 4)]
    with torch.inference_mode():
        return OUTLINER_OF_NOISE.look(tuple(levels))


def square(left: int, right: int) -> Tensor:
    cover = torch.zeros(1, SIDE, SIDE)
    cover[:, 4:12, left:right] = 1
    return cover


def windows(batch: int = 1, left: float = 0.0) -> Tensor:
    return torch.tensor([[left, 0.0, left + 64.0, 64.0]]).expand(batch, 4)


def picture(seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return colour_bins(torch.randint(0, 256, (64, 64, 3), generator=generator, dtype=torch.uint8))


# ---- windows ----------------------------------------------------------------------------------------------


def test_a_map_stays_where_it_is_on_the_plate_when_the_window_moves() -> None:
    mask = square(4, 8)[None]
    moved = seen_from(mask, windows(), windows(left=16.0))
    assert torch.allclose(moved, torch.roll(mask, -4, -1), atol=1e-5)
    assert torch.allclose(seen_from(mask, windows(), windows()), mask, atol=1e-5)
    assert not seen_from(mask, windows(), windows(left=64.0)).any()


def test_a_closer_window_shows_a_map_larger() -> None:
    closer = torch.tensor([[16.0, 16.0, 48.0, 48.0]])
    larger = seen_from(square(4, 8)[None], windows(), closer)[0, 0]
    assert larger[1:-1, 1:7].min() > 0.99
    assert larger[:, 9:].max() < 0.01


def test_the_edges_of_a_window_are_its_corners() -> None:
    assert Window(3, 5, 30, 40, 100, 90).edges == (3, 5, 30, 40)


# ---- what the outliner sees ---------------------------------------------------------------------------------


def test_a_new_outliner_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    outliner, own = Outliner(OUTLINER, DIM), torch.randn(2, SIDE, SIDE, generator=GENERATOR)
    seen = outliner.look(tuple(torch.randn(2, DIM, side, side) for side in (SIDE, SIDE // 2)))

    def drawings() -> list[Tensor]:
        return outlined(outliner, seen, own, [picture()] * 2, None, [], windows(2), square(3, 9).expand(2, -1, -1))

    # But what is fitted says its part from the first sketch on.
    first, *sketches = drawings()
    assert torch.equal(first, own)
    for sketch in sketches:
        assert 0 < (sketch - own).abs().max() <= FITTED
    monkeypatch.setattr(outlining, "FITTED", 0.0)
    for drawing in drawings():
        assert torch.equal(drawing, own)


def test_places_are_told_apart_by_the_side_they_are_like() -> None:
    tokens = torch.zeros(1, 64, 12)
    tokens[:, :32, 0], tokens[:, 32:, 1] = 5, 5
    now = Sight(torch.zeros(1, 8, SIDE, SIDE), tokens.flip(1), (8, 8), NOTHING)
    cover = torch.cat([torch.ones(1, 32), torch.zeros(1, 32)], dim=1)
    share, inside, outside = OUTLINER_OF_NOISE.compare(now, tokens, cover, CENTRE)[0]
    assert share[4:].min() > 0.9
    assert share[:4].max() < -0.9
    assert torch.equal(inside[4:], torch.ones(4, 8))
    assert torch.equal(outside[:4], torch.ones(4, 8))
    assert inside[:4].max() < 0.1


def test_of_places_that_look_alike_the_nearest_counts_most() -> None:
    tokens = torch.zeros(1, 64, 12)
    tokens[..., 0] = 1
    now = Sight(torch.zeros(1, 8, SIDE, SIDE), tokens, (8, 8), NOTHING)
    left = torch.zeros(1, 8, 8)
    left[:, :, :4] = 1
    apart = places_of((8, 8), windows(), windows())
    cover = left.flatten(1)
    anywhere, near = (OUTLINER_OF_NOISE.compare(now, tokens, cover, CENTRE, each)[0] for each in (None, apart))
    assert anywhere[0].abs().max() < 1e-3
    assert (near[0, :, :2] > 0.2).all()
    assert (near[0, :, 6:] < -0.2).all()
    assert (near[1, :, 0] > near[1, :, 7]).all()


def squares(places: Places) -> Tensor:
    """Of the distances, as products of tokens that are nothing but their places."""
    nothing = torch.zeros(1, places.one.shape[1], 1)
    one, other = places.told(nothing, nothing, torch.ones(()))
    return -(one @ other.mT)[0]


def test_distances_are_told_on_the_plate() -> None:
    still = squares(places_of((4, 4), windows(), windows()))
    assert still.diagonal().abs().max() < 1e-5
    assert float(still[0, 3]) == pytest.approx(0.75**2, abs=1e-4)
    moved = squares(places_of((4, 4), windows(), windows(left=16.0)))
    assert float(moved[1, 0]) == pytest.approx(0, abs=1e-4)
    assert float(moved[0, 0]) == pytest.approx(0.25**2, abs=1e-4)


def test_what_nothing_is_known_of_is_like_nothing() -> None:
    now = sight()
    _, inside, outside = OUTLINER_OF_NOISE.compare(now, now.tokens, torch.zeros(1, 64), CENTRE)[0]
    assert (inside == -1).all()
    assert (outside > -1).all()


@pytest.mark.parametrize("cue", ["own", "prompt", "colours", "before", "first", "last", "fitted"])
def test_every_cue_counts(cue: str) -> None:
    own, prompt, bins = torch.randn(1, SIDE, SIDE, generator=GENERATOR), square(3, 9), picture()
    seen, trace = sight(seed=4), Trace.begin(sight(seed=5), square(3, 9), windows())
    palettes = palettes_of(square(3, 9), [bins])
    before = [
        outlined(OUTLINER_OF_NOISE, seen, own, [bins], each, palettes, windows(), prompt)[-1]
        for each in (None, trace)
    ]
    match cue:
        case "own":
            own = -own
        case "prompt":
            prompt = square(6, 14)
        case "colours":
            bins = picture(2)
        case "before":
            trace = replace(trace, mask=square(6, 14))
        case "first":
            trace = replace(trace, first=sight(seed=6).tokens)
        case "last":
            trace = replace(trace, last_cover=trace.last_cover.flip(-1))
        case "fitted":
            trace = replace(trace, later_sums=Trace.begin(seen, square(6, 14), windows()).later_sums)
    after = [
        outlined(OUTLINER_OF_NOISE, seen, own, [bins], each, palettes, windows(), prompt)[-1]
        for each in (None, trace)
    ]
    changed = [bool((one - other).abs().max() > 1e-3) for one, other in zip(before, after, strict=True)]
    first_only, later_only = cue == "prompt", cue in ("before", "first", "last", "fitted")
    assert changed == [not later_only, not first_only]


def likened(tokens: Tensor) -> Sight:
    """A window of 4 by 4 places with these tokens (B, 16, D)."""
    return Sight(torch.zeros(len(tokens), DIM, 8, 8), tokens, (4, 4), tokens.repeat_interleave(4, dim=1))


def corner(rows: int = 2, sure: float = 1.0) -> Tensor:
    cover = torch.zeros(1, 8, 8)
    cover[:, : 2 * rows, :4] = sure
    return cover


def kept(cover_bhw: Tensor) -> tuple[Trace, Tensor]:
    """What is kept of an object whose tokens are unlike all others, and the tokens (1, 16, 8)."""
    generator = torch.Generator().manual_seed(5)
    tokens = torch.randn(1, 16, 8, generator=generator)
    return Trace.begin(likened(tokens), cover_bhw, windows()), tokens


def test_what_is_drawn_is_the_object_where_it_looks_like_it() -> None:
    trace, tokens = kept(corner())
    assert trace.itself(likened(tokens), corner())
    # Its own places in another order are as like it, those of its surroundings are not.
    assert trace.itself(likened(tokens.unflatten(1, (4, 4)).flip(1).flatten(1, 2)), corner().flip(1))
    assert not trace.itself(likened(tokens), corner().flip(-1))


def test_what_is_drawn_less_surely_than_usual_is_not_the_object() -> None:
    trace, tokens = kept(corner())
    # As like it, but for noise, as what goes on is.
    blurred = likened(tokens + 0.5 * torch.randn(tokens.shape, generator=torch.Generator().manual_seed(6)))
    assert trace.itself(blurred, corner())
    assert not trace.itself(blurred, corner(sure=0.6))
    unsure = replace(trace, sure=torch.full_like(trace.sure, 0.6))
    assert unsure.itself(blurred, corner(sure=0.6))


def test_what_is_usual_follows_slowly_and_no_sudden_doubt() -> None:
    trace, tokens = kept(corner(sure=0.9))
    assert float(trace.sure) == pytest.approx(0.9)
    for sure, usual in ((0.85, 0.89), (0.6, 0.89), (0.0, 0.89), (0.94, 0.9)):
        trace = trace.after(likened(tokens), corner(sure=sure), windows())
        assert float(trace.sure) == pytest.approx(usual, abs=1e-3)


def test_a_frame_that_does_not_show_an_object_leaves_what_was_last_seen_of_it() -> None:
    trace, tokens = kept(corner())
    both = Trace(*(torch.cat([getattr(trace, each.name)] * 2) for each in fields(trace)))
    covers = torch.cat([torch.zeros(1, 8, 8), corner(rows=1)])
    after = both.after(likened(tokens.flip(1).repeat(2, 1, 1)), covers, windows(2, left=1.0))
    assert after.gone.tolist() == [True, False]
    for name in ("last", "last_cover", "mask", "window_b4", "later_sums"):
        before, now = getattr(both, name), getattr(after, name)
        assert torch.equal(now[0], before[0])
        assert not torch.equal(now[1], before[1])


@pytest.mark.parametrize(
    ("before", "cover", "left", "stays"),
    [
        (corner(), corner(), 0.0, True),
        (corner(), corner(sure=0.6), 0.0, True),
        (corner(), corner(rows=1), 0.0, False),
        (corner(), corner(), 16.0, False),
        # The same place of the plate, seen from a window that has moved on by a cell.
        (torch.roll(corner(), 1, -1), corner(), 8.0, True),
    ],
)
def test_what_was_last_seen_is_kept_while_the_object_stays(
    before: Tensor, cover: Tensor, left: float, stays: bool
) -> None:
    trace, tokens = kept(before)
    after = trace.after(likened(tokens.flip(1)), cover, windows(left=left))
    assert not after.gone
    assert torch.equal(after.last, trace.last) == stays
    if stays:
        assert all(
            torch.equal(getattr(after, each), getattr(trace, each)) for each in ("last_cover", "mask", "window_b4")
        )


def test_what_comes_back_must_look_more_like_itself_than_what_goes_on() -> None:
    trace, tokens = kept(corner())
    blurred = likened(tokens + torch.randn(tokens.shape, generator=torch.Generator().manual_seed(6)))
    gone = trace.after(blurred, torch.zeros(1, 8, 8), windows())
    assert trace.itself(blurred, corner())
    assert not gone.itself(blurred, corner())
    assert gone.itself(likened(tokens), corner())
    assert gone.after(likened(tokens), corner(), windows()).itself(blurred, corner())


def test_what_was_never_seen_well_is_taken_as_it_is() -> None:
    trace, tokens = kept(corner(sure=0.3))
    assert trace.itself(likened(tokens.flip(1)), corner())


def test_each_object_is_compared_with_itself() -> None:
    trace, tokens = kept(corner())
    both = Trace(*(torch.cat([getattr(trace, each.name)] * 2) for each in fields(trace)))
    covers = torch.cat([corner(), corner().flip(-1)])
    assert both.itself(likened(tokens.repeat(2, 1, 1)), covers).tolist() == [True, False]


def drawing(tokens: Tensor, covers: Tensor, *, left: int) -> Drawn:
    """Two objects as they are drawn in windows that begin at column `left`."""
    masks = covers.logit(eps=1e-4)[:, None]
    sure = masks.flatten(1).amax(1)
    prediction = Prediction(masks, torch.stack([sure, -sure], dim=-1)[:, None])
    views = tuple(Window(left, 0, left + 8, 8, 32, 8) for _ in covers)
    encoded = Encoded(None, views, tuple(torch.full((8, 8, 3), left) for _ in covers), likened(tokens))
    return Drawn(FRAMES[0], encoded, [torch.full((8, 8), left)] * 2, prediction, masks, Memory(1), None)


def test_a_second_look_that_runs_off_counts_for_no_object_but_its_own() -> None:
    trace, tokens = kept(corner())
    both = Trace(*(torch.cat([getattr(trace, each.name)] * 2) for each in fields(trace)))
    first = drawing(tokens.repeat(2, 1, 1), corner().repeat(2, 1, 1), left=0)
    again = drawing(tokens.repeat(2, 1, 1), torch.cat([corner().flip(-1), corner(rows=1)]), left=4)
    better = _better(first, again, both)
    assert [window.x0 for window in better.encoded.windows] == [0, 4]
    assert [int(square[0, 0, 0]) for square in better.encoded.squares] == [0, 4]
    assert [int(bins[0, 0]) for bins in better.bins] == [0, 4]
    masks = better.prediction.mask_logits_bqhw
    assert torch.equal(masks[0], first.prediction.mask_logits_bqhw[0])
    assert torch.equal(masks[1], again.prediction.mask_logits_bqhw[1])
    # Of what nothing is known yet the second look is all there is.
    assert _better(first, again, None) is again


def test_objects_are_drawn_the_same_alone() -> None:
    own = torch.randn(3, SIDE, SIDE, generator=GENERATOR)
    prompt = torch.cat([square(2, 6), square(5, 12), square(9, 15)])
    seen, bins = sight(3, seed=7), [picture(seed) for seed in range(3)]
    every = outlined(OUTLINER_OF_NOISE, seen, own, bins, None, [], windows(3), prompt)[-1]
    for row in range(3):
        part = slice(row, row + 1)
        its = Sight(seen.fine[part], seen.tokens[part], seen.grid, seen.cells[part])
        alone = outlined(OUTLINER_OF_NOISE, its, own[part], bins[part], None, [], windows(), prompt[part])[-1]
        torch.testing.assert_close(alone[0], every[row], atol=1e-4, rtol=1e-4)


def test_its_sizes_are_told_by_its_weights() -> None:
    model = tiny_model(config=replace(TINY, finder=FINDER, outliner=OUTLINER))
    unknown = replace(model.config, outliner=OutlinerConfig())
    assert infer_sizes(unknown, shapes_of(model.state_dict())).outliner == OUTLINER
    without = {name: shape for name, shape in shapes_of(model.state_dict()).items() if "outliner" not in name}
    assert infer_sizes(model.config, without).outliner.dim == 0


# ---- in a tracker -------------------------------------------------------------------------------------------


FRAMES = [Frame(i, None, np.random.default_rng(i).integers(0, 256, (80, 120, 3)).astype(np.uint8)) for i in range(4)]
BOX = Box("it", 10, 20, 50, 60, 0)


def made(outliner: OutlinerConfig) -> Segmenter:
    segmenter = tiny_segmenter(memory=MEMORY, room=2.0, finder=FINDER, outliner=outliner)
    assert segmenter.model.outliner is not None
    torch.manual_seed(1)
    nn.init.normal_(segmenter.model.outliner.draw.weight, std=0.3)
    return segmenter


@pytest.fixture(scope="module", params=[0, 96], ids=["as the masks", "finer"])
def segmenter(request: pytest.FixtureRequest) -> Segmenter:
    return made(replace(OUTLINER, side=request.param))


def test_outlines_are_drawn_as_fine_as_the_eyes_see() -> None:
    for side, cells in ((0, 16), (64, 16), (96, 24), (128, 32)):
        each = made(replace(OUTLINER, side=side))
        (query,) = each.read([BOX], [FRAMES[0].rgb], {0: FRAMES[0].rgb})
        tracker = each.track(query)
        results = list(tracker.step(FRAMES))
        assert {result.prediction.mask_logits_bqhw.shape[-2:] for result in results} == {(cells, cells)}
        assert tracker.state.trace is not None
        assert tracker.state.trace.mask.shape[-2:] == (cells, cells)
        assert tracker.state.trace.first.shape[1] == (cells // 2) ** 2
        # Whatever it is drawn on, it comes on the grid that all things share.
        assert {result.seen[0].logits.shape for result in results} == {(128, 128)}


def test_another_side_is_another_network_to_a_saved_shot() -> None:
    assert made(OUTLINER).fingerprint != made(replace(OUTLINER, side=96)).fingerprint


def test_outlines_change_the_mattes_and_not_what_the_network_remembers_of_its_own(segmenter: Segmenter) -> None:
    plain = tiny_segmenter(memory=MEMORY, room=2.0, finder=FINDER)
    results = []
    for each in (segmenter, plain):
        (query,) = each.read([BOX], [FRAMES[0].rgb], {0: FRAMES[0].rgb})
        tracker = each.track(query)
        (first,) = tracker.step(FRAMES[:1])
        results.append((first.prediction.mask_logits_bqhw, tracker.state.memory.maps(0)[0]))
    same = on_grid(results[1][0][0], results[0][0].shape[-2:])
    assert (results[0][0][0] - same).abs().max() > 0.1
    torch.testing.assert_close(results[0][1], results[1][1], atol=2e-3, rtol=1e-2)


def test_a_drawn_mask_is_the_matte_of_its_frame(segmenter: Segmenter) -> None:
    mask = np.zeros((80, 120), np.bool_)
    mask[20:60, 10:50] = True
    (query,) = segmenter.read([MaskPrompt("it", mask, 0)], [FRAMES[0].rgb], {0: FRAMES[0].rgb})
    tracker = segmenter.track(query)
    list(tracker.step(FRAMES[:1]))
    trace = tracker.state.trace
    assert trace is not None
    drawn = on_grid(query.targets[0][0].drawn[None], trace.mask.shape[-2:])
    assert ((trace.mask > 0.5) == (drawn > 0.5)).all()


def test_outlines_keep_to_the_box(segmenter: Segmenter) -> None:
    (query,) = segmenter.read([BOX], [FRAMES[0].rgb], {0: FRAMES[0].rgb})
    tracker = segmenter.track(query)
    list(tracker.step(FRAMES[:1]))
    assert tracker.state.trace is not None
    mask = tracker.state.trace.mask
    bounds = on_grid(query.targets[0][0].bounds[None].float(), mask.shape[-2:])[0] >= 0.5
    assert not mask[:, ~bounds].gt(1e-6).any()
    assert mask[:, bounds].gt(1e-6).any()


def test_several_objects_are_each_followed_as_if_alone(segmenter: Segmenter) -> None:
    prompts = [BOX, Points("that", ((80.0, 30.0),), 0)]
    (together,) = segmenter.read(prompts, [FRAMES[0].rgb], {0: FRAMES[0].rgb})
    *_, last = segmenter.track(together).step(FRAMES)
    for prompt in prompts:
        (query,) = segmenter.read([prompt], [FRAMES[0].rgb], {0: FRAMES[0].rgb})
        *_, alone = segmenter.track(query).step(FRAMES)
        seen = next(each for each in last.seen if each.name == prompt.name)
        torch.testing.assert_close(seen.logits, alone.seen[0].logits, atol=1e-2, rtol=1e-3)


def test_a_shot_goes_on_elsewhere_with_its_outlines(segmenter: Segmenter, tmp_path: Path) -> None:
    (query,) = segmenter.read([BOX], [FRAMES[0].rgb], {0: FRAMES[0].rgb})
    *_, whole = segmenter.track(query).step(FRAMES)
    tracker = segmenter.track(query)
    list(tracker.step(FRAMES[:2]))
    trace = tracker.state.trace
    assert trace is not None
    # What is read back is; sums of large matrices depend on it in their last bits.
    assert all(getattr(trace, field.name).is_contiguous() for field in fields(trace))
    tracker.save(tmp_path / "shot.safetensors")
    *_, again = segmenter.resume(tmp_path / "shot.safetensors").step(FRAMES[2:])
    assert torch.equal(again.seen[0].logits, whole.seen[0].logits)


def test_a_picture_that_stands_in_for_another_leaves_no_trace(segmenter: Segmenter) -> None:
    (query,) = segmenter.read([BOX], [FRAMES[0].rgb], {0: FRAMES[0].rgb})
    tracker = segmenter.track(query)
    list(tracker.step(FRAMES[:2]))
    before = tracker.state.trace
    list(tracker.step([replace(FRAMES[2], held=True)]))
    assert tracker.state.trace is before


def test_alone_an_outliner_asks_the_network_for_the_first_frame_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    both, alone = made(OUTLINER), made(replace(OUTLINER, alone=True))
    (query,) = alone.read([BOX], [FRAMES[0].rgb], {0: FRAMES[0].rgb})
    first, *_ = both.track(query).step(FRAMES[:1])
    tracker = alone.track(query)
    (same,) = tracker.step(FRAMES[:1])
    assert torch.equal(same.seen[0].logits, first.seen[0].logits)
    remembered = tracker.state.memory
    monkeypatch.setattr(alone.model.segmentor, "encoder", None)
    later = list(tracker.step(FRAMES[1:]))
    assert [result.frame.index for result in later] == [1, 2, 3]
    assert tracker.state.memory == replace(remembered, step=remembered.step + 3)
    for result in later:
        (seen,), drawn = result.seen, result.prediction.mask_logits_bqhw
        assert drawn.shape == (1, 1, 16, 16)
        assert seen.presence == pytest.approx(float(drawn.max().sigmoid()))
        assert seen.present == bool((drawn > 0).any())


def test_what_an_outliner_draws_nowhere_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outlining, "FITTED", 0.0)
    segmenter = made(replace(OUTLINER, alone=True))
    assert segmenter.model.outliner is not None
    (query,) = segmenter.read([BOX], [FRAMES[0].rgb], {0: FRAMES[0].rgb})
    tracker = segmenter.track(query)
    list(tracker.step(FRAMES[:1]))
    nn.init.zeros_(segmenter.model.outliner.draw.weight)
    nn.init.constant_(segmenter.model.outliner.draw.bias, -3.0)
    (later,) = tracker.step(FRAMES[1:2])
    assert not later.seen[0].present
    assert later.seen[0].presence == pytest.approx(float(torch.tensor(-3.0).sigmoid()))
    assert (later.seen[0].logits <= 0).all()


def test_absent_cells_stay_empty(segmenter: Segmenter) -> None:
    (query,) = segmenter.read([BOX], [FRAMES[0].rgb], {0: FRAMES[0].rgb})
    first, *_ = segmenter.track(query).step(FRAMES)
    across = first.seen[0].logits.shape[1]
    assert (first.seen[0].logits[:, 3 * across // 4 :] <= EMPTY / 2).all()


# ---- the model that ships ----------------------------------------------------------------------------------

RADIUS, PLATE_SIZE = 16, (120, 320)


@pytest.fixture(scope="module")
def shipped() -> Segmenter:
    return load_segmenter()


def disc(x: int) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """A plate on which a red disc stands at column `x`, and the disc."""
    height, width = PLATE_SIZE
    coarse = np.random.default_rng(0).integers(40, 120, (height // 8, width // 8, 3)).astype(np.uint8)
    plate = np.kron(coarse, np.ones((8, 8, 1), np.uint8))
    rows, columns = np.indices(PLATE_SIZE)
    inside = (columns - x) ** 2 + (rows - height // 2) ** 2 < RADIUS**2
    plate[inside] = (230, 60, 40)
    return plate, inside


def likeness(logits: Tensor, truth: NDArray[np.bool_]) -> float:
    return region_similarity(truth, (upsample(logits[None], *PLATE_SIZE)[0] > 0).numpy())


@pytest.mark.parametrize("step", [8, 26, 32])
def test_what_moves_by_its_own_size_from_frame_to_frame_is_not_lost(shipped: Segmenter, step: int) -> None:
    shots = [disc(x) for x in range(40, 300, step)][:8]
    frames = [Frame(index, None, plate) for index, (plate, _) in enumerate(shots)]
    box = Box("disc", 40 - RADIUS, 60 - RADIUS, 40 + RADIUS, 60 + RADIUS, 0)
    (query,) = shipped.read([box], [frames[0].rgb], {0: frames[0].rgb})
    for (_, truth), result in zip(shots, shipped.track(query).step(frames), strict=True):
        assert likeness(result.seen[0].logits, truth) > 0.9


def test_what_a_window_cuts_off_is_looked_for_before_it_counts_as_something_else(shipped: Segmenter) -> None:
    """Of a disc that moves by more than its window leaves room for, at first only the white rear is seen."""
    shots = [disc(x) for x in range(40, 300, 34)]
    columns = np.indices(PLATE_SIZE)[1]
    for index, (plate, truth) in enumerate(shots):
        plate[truth & (columns < 34 + 34 * index)] = 240
    frames = [Frame(index, None, plate) for index, (plate, _) in enumerate(shots)]
    box = Box("disc", 40 - RADIUS, 60 - RADIUS, 40 + RADIUS, 60 + RADIUS, 0)
    (query,) = shipped.read([box], [frames[0].rgb], {0: frames[0].rgb})
    for (_, truth), result in zip(shots, shipped.track(query).step(frames), strict=True):
        assert likeness(result.seen[0].logits, truth) > 0.9


def test_of_several_each_is_looked_for_where_it_went(shipped: Segmenter) -> None:
    height = PLATE_SIZE[0]
    places = [(40 + 26 * index, 260 - 4 * index) for index in range(4)]
    frames, truths = [], []
    for index, (left, right) in enumerate(places):
        plate, moving = disc(left)
        _, still = disc(right)
        plate[still] = (40, 90, 230)
        frames.append(Frame(index, None, plate))
        truths.append((moving, still))
    boxes = [
        Box(name, x - RADIUS, height // 2 - RADIUS, x + RADIUS, height // 2 + RADIUS, 0)
        for name, x in zip(("red", "blue"), places[0], strict=True)
    ]
    (query,) = shipped.read(boxes, [frames[0].rgb], {0: frames[0].rgb})
    for both, result in zip(truths, shipped.track(query).step(frames), strict=True):
        assert [seen.name for seen in result.seen] == ["red", "blue"]
        assert all(likeness(seen.logits, truth) > 0.9 for seen, truth in zip(result.seen, both, strict=True))


def test_a_click_is_looked_at_twice_the_second_time_as_closely_as_a_box(shipped: Segmenter) -> None:
    plate, truth = disc(160)
    (query,) = shipped.read([Points("disc", ((165.0, 55.0),), 0)], [plate], {0: plate})
    ((target,),) = query.targets
    assert (target.name, target.bounds, target.cover) == ("disc", None, None)
    assert query.windows[0].side == pytest.approx(1.8 * 2 * RADIUS, rel=0.1)
    (result,) = shipped.track(query).step([Frame(0, None, plate)])
    assert likeness(result.seen[0].logits, truth) > 0.9
