"""Colours of an object and its surroundings: what they say, how they are learnt, what a tracker does with them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.tiny import TINY, tiny_segmenter
from x2roto.clip import Frame
from x2roto.engine.identity import EMPTY
from x2roto.engine.palette import MOST, Palette, colour_bins, settled
from x2roto.engine.segmenter import Segmenter
from x2roto.prompt import Box, Points

MEMORY = replace(TINY.memory, feature_strides=(0, 1, 0), mask_stride=2, mask_layers=2, prompts=True, carry=3)
RED, GREEN = (200, 30, 30), (30, 160, 40)


def picture(size: int = 64) -> tuple[torch.Tensor, torch.Tensor]:
    """A red square on green, uint8 (size, size, 3), and its mask."""
    inside = torch.zeros(size, size, dtype=torch.bool)
    inside[size // 4 : size // 2, size // 4 : size // 2] = True
    rgb = torch.where(inside[..., None], torch.tensor(RED), torch.tensor(GREEN)).to(torch.uint8)
    return rgb, inside


def palette() -> Palette:
    rgb, inside = picture()
    found = Palette.of(colour_bins(rgb), inside.float())
    assert found is not None
    return found


def test_histograms_are_shares() -> None:
    found = palette()
    assert found.inside.sum() == pytest.approx(1, abs=1e-5)
    assert found.outside.sum() == pytest.approx(1, abs=1e-5)


def test_the_objects_colours_speak_for_it_and_the_others_against() -> None:
    rgb, inside = picture()
    said = palette().logits(colour_bins(rgb), (64, 64))
    core = torch.nn.functional.max_pool2d((~inside)[None].float(), 7, 1, 3)[0] == 0
    rim = torch.nn.functional.max_pool2d(inside[None].float(), 7, 1, 3)[0] == 0
    assert said[core].min() == pytest.approx(MOST, abs=1e-3)
    assert said[rim].max() == pytest.approx(-MOST, abs=1e-3)


def test_a_colour_never_seen_says_nothing() -> None:
    blue = torch.tensor((20, 20, 220), dtype=torch.uint8).expand(32, 32, 3)
    assert palette().logits(colour_bins(blue), (32, 32)).abs().max() < 1e-3


def test_a_colour_on_both_sides_is_the_surroundings_where_these_are_larger() -> None:
    rgb = torch.tensor(GREEN, dtype=torch.uint8).expand(64, 64, 3)
    found = Palette.of(colour_bins(rgb), picture()[1].float())
    assert found is not None
    assert found.logits(colour_bins(rgb), (64, 64)).abs().max() < 1e-3
    assert found.logits(colour_bins(rgb), (64, 64), odds=1.0).max() < -2


def test_too_little_to_see_teaches_nothing() -> None:
    rgb, _ = picture()
    assert Palette.of(colour_bins(rgb), torch.zeros(64, 64)) is None
    known = palette()
    assert known.taught(None) is known


def test_the_surroundings_are_learnt_and_the_object_keeps_its_colours() -> None:
    rgb, inside = picture()
    other = Palette.of(colour_bins(rgb.flip(-1)), inside.float())
    assert other is not None
    known = palette()
    after = known.taught(other)
    assert torch.equal(after.inside, known.inside)
    assert (after.outside - known.outside).abs().sum() > 0


def test_a_loose_mask_settles_on_the_colours_inside_the_box() -> None:
    rgb, inside = picture()
    bounds = torch.zeros(64, 64, dtype=torch.bool)
    bounds[12:36, 12:36] = True
    loose = torch.where(bounds, 0.5, -4.0)
    loose[16:32, 16:32] = 2.0
    added = settled(loose, colour_bins(rgb), bounds, 1.0)
    assert not added[~bounds].any()
    overlap = ((loose + added > 0) & inside).sum() / ((loose + added > 0) | inside).sum()
    assert overlap > 0.8
    assert ((loose > 0) & inside).sum() / ((loose > 0) | inside).sum() < 0.5


def test_without_a_mask_nothing_settles() -> None:
    rgb, inside = picture()
    assert not settled(torch.full((16, 16), -9.0), colour_bins(rgb), inside[::4, ::4], 1.0).any()


# ---- in a tracker


@pytest.fixture(scope="module")
def segmenter() -> Segmenter:
    return tiny_segmenter(memory=MEMORY, room=2.0, palette=1.0)


FRAMES = [Frame(i, None, np.random.default_rng(i).integers(0, 256, (80, 120, 3)).astype(np.uint8)) for i in range(4)]
BOX = Box("it", 10, 20, 50, 60, 0)


def test_nothing_of_an_object_is_outside_its_box(segmenter: Segmenter) -> None:
    (query,) = segmenter.read([BOX], [FRAMES[0].rgb], {0: FRAMES[0].rgb})
    first, second, *_ = segmenter.track(query).step(FRAMES)
    logits = first.seen[0].logits
    outside, cells = torch.ones(logits.shape, dtype=torch.bool), len(logits)
    rows, columns = (
        slice(round((low - 8) / side * cells), round((high + 8) / side * cells))
        for low, high, side in ((20, 60, 80), (10, 50, 120))
    )
    outside[rows, columns] = False
    assert (logits[outside] <= EMPTY / 2).all()
    assert (second.prediction.mask_logits_bqhw > EMPTY / 2).any()


def test_a_click_bounds_nothing(segmenter: Segmenter) -> None:
    (query,) = segmenter.read([Points("it", ((30.0, 40.0),), 0)], [FRAMES[0].rgb], {0: FRAMES[0].rgb})
    assert query.targets[0][0].bounds is None


def test_the_colours_of_the_shot_change_its_mattes(segmenter: Segmenter) -> None:
    plain = tiny_segmenter(memory=MEMORY, room=2.0)
    results = []
    for each in (segmenter, plain):
        (query,) = each.read([BOX], [FRAMES[0].rgb], {0: FRAMES[0].rgb})
        *_, last = each.track(query).step(FRAMES)
        results.append(last.prediction.mask_logits_bqhw)
    assert (results[0] - results[1]).abs().max() > 0.1


def test_a_shot_goes_on_elsewhere_with_its_colours(segmenter: Segmenter, tmp_path: Path) -> None:
    (query,) = segmenter.read([BOX], [FRAMES[0].rgb], {0: FRAMES[0].rgb})
    *_, whole = segmenter.track(query).step(FRAMES)
    tracker = segmenter.track(query)
    list(tracker.step(FRAMES[:2]))
    assert any(each is not None for each in tracker.state.palettes)
    tracker.save(tmp_path / "shot.safetensors")
    *_, again = segmenter.resume(tmp_path / "shot.safetensors").step(FRAMES[2:])
    assert torch.equal(again.seen[0].logits, whole.seen[0].logits)
