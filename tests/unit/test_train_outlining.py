"""Stage "outliner": what it is shown, and that it learns from that."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.tiny import FINDER, OUTLINER, TINY, tiny_model, tiny_segmenter
from x2roto.engine.model.x2sam import X2SAM
from x2roto.train import outlining
from x2roto.train.collate import Batch, Preparer, Reader, collate
from x2roto.train.config import Losses
from x2roto.train.footage.close import Close
from x2roto.train.outlining import OutlinerStage, learn_outliner, outline_losses
from x2roto.train.samples import ClipSample

SEGMENTER = tiny_segmenter()
LOSSES = Losses()
ROOM = 2.0
MEMORY = replace(TINY.memory, feature_strides=(0, 1, 0), mask_stride=2, mask_layers=2, prompts=True, carry=3)
CONFIG = replace(TINY, room=ROOM, memory=MEMORY, finder=FINDER, outliner=OUTLINER)


def sample(frames: int = 3, seed: int = 0) -> ClipSample:
    """A red square that moves over grey, asked for by a box, seen in windows."""
    pictures = np.full((frames, 80, 120, 3), 90, np.uint8)
    masks = np.zeros((1, frames, 80, 120), np.bool_)
    for t in range(frames):
        masks[0, t, 24:54, 30 + 4 * t : 60 + 4 * t] = True
        pictures[t][masks[0, t]] = (220, 30, 30)
    clip = ClipSample(pictures, "objseg" if frames > 1 else "intseg", (masks[0, 0],), masks, np.zeros(1, np.int64))
    looked = Close(ROOM, 64).look(clip, np.random.default_rng(seed), pointed=False)
    assert looked is not None
    return looked


def batch(*samples: ClipSample) -> Batch:
    reader = Reader(SEGMENTER.tokenizer, SEGMENTER.special, SEGMENTER.patches, 32, 1)
    prepare = Preparer(64, reader)
    return collate([prepare(each, 3 + number) for number, each in enumerate(samples)])


def model() -> X2SAM:
    return tiny_model(config=CONFIG).train()


# ---- windows of a sample --------------------------------------------------------------------------------------


def test_a_sample_says_where_its_windows_are() -> None:
    looked = sample()
    assert looked.windows is not None
    assert looked.windows.shape == (3, 4)
    left, top, right, bottom = looked.windows.T
    assert (left < 30).all()
    assert (right > 60).all()
    assert (top < 24).all()
    assert (bottom > 54).all()


def test_windows_of_a_batch_stand_beside_its_frames() -> None:
    one, other = sample(3), sample(2, seed=1)
    together = batch(one, other).windows
    assert together is not None
    assert together.shape == (3, 2, 4)
    assert np.array_equal(together[:, 0].numpy(), one.windows)
    assert np.array_equal(together[:2, 1].numpy(), other.windows)
    assert torch.equal(together[2, 1], together[1, 1])


def test_a_batch_of_whole_frames_has_no_windows() -> None:
    assert batch(replace(sample(), windows=None)).windows is None
    assert batch(sample(), replace(sample(), windows=None)).windows is None


# ---- the stage --------------------------------------------------------------------------------------------------


def test_windows_may_be_seen_finer_than_all_else() -> None:
    looked, reader = sample(), Reader(SEGMENTER.tokenizer, SEGMENTER.special, SEGMENTER.patches, 32, 1)
    both = collate([Preparer(64, reader, close=96)(each, 3) for each in (looked, sample(seed=1))])
    assert both.frames is not None
    assert both.frames.shape == (3, 2, 96, 96, 3)
    assert both.targets[0][0] is not None
    assert both.targets[0][0].masks_nhw.shape == (1, 96, 96)
    assert both.text is not None
    assert both.text.regions[0] is not None
    assert both.text.regions[0].cover_1hw is not None
    assert both.text.regions[0].cover_1hw.shape == (1, 16, 16)
    whole = Preparer(64, reader, close=96)(replace(looked, windows=None), 3)[0].frames
    assert whole is not None
    assert whole.shape == (3, 64, 64, 3)
    drawings = list(OutlinerStage(model().eval(), LOSSES)._frames(both))
    assert [len(each) for each in drawings] == [4, 1, 1]
    assert {each.shape for row in drawings for each in row} == {torch.Size([2, 24, 24])}


def test_an_outliner_that_is_to_draw_alone_is_shown_the_network_s_mask_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outlining, "ALONE", 0.0)
    # In double precision: kernels round otherwise for other batches.
    stage, shown = OutlinerStage(model().double(), LOSSES).eval(), batch(sample(), sample(seed=1))
    asked = stage._own(shown, 2)
    stage.model.config = replace(CONFIG, outliner=replace(OUTLINER, alone=True))
    once = stage._own(shown, 2)
    assert once.shape == asked.shape
    torch.testing.assert_close(once[0], asked[0])
    assert asked[1:].flatten(1).any(1).all()
    assert not once[1:].any()


def test_squares_at_another_side_show_the_same() -> None:
    frames = torch.zeros(2, 1, 96, 96, 3, dtype=torch.uint8)
    frames[1, :, :48, :, 0] = 200
    smaller = outlining.sided(frames, 64)
    assert (smaller.shape, smaller.dtype) == ((2, 1, 64, 64, 3), torch.uint8)
    assert not smaller[0].any()
    assert (smaller[1, 0, :30, :, 0] == 200).all()
    assert not smaller[1, 0, 34:].any()
    assert outlining.sided(frames, 96) is frames


@pytest.mark.parametrize("alone", [0.0, 1.0])
def test_every_frame_is_drawn_and_the_first_one_several_times(alone: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outlining, "ALONE", alone)
    shown = []
    keep = outlining.outline_losses
    monkeypatch.setattr(
        outlining, "outline_losses", lambda drawn, truth, losses: (shown.append(truth), keep(drawn, truth, losses))[1]
    )
    network = model()
    learn_outliner(network)
    losses = OutlinerStage(network, LOSSES)(batch(sample(), sample(seed=1)))
    assert torch.isfinite(losses.total)
    (truth,) = shown
    assert truth.shape == (12, 16, 16)
    assert torch.equal(truth[:8], truth[:2].repeat(4, 1, 1))
    assert truth.flatten(1).any(1).all()


def test_the_network_is_asked_unless_it_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    stage, shown = OutlinerStage(model(), LOSSES).eval(), batch(sample())
    own = {}
    for alone in (0.0, 1.0):
        monkeypatch.setattr(outlining, "ALONE", alone)
        own[alone] = stage._own(shown, 1)
    assert own[0.0].shape == own[1.0].shape == (3, 1, 16, 16)
    assert not own[1.0].any()
    assert own[0.0].any()
    sure = stage._own(shown, 1)
    monkeypatch.setattr(outlining, "ALONE", 0.0)
    assert torch.equal(stage._own(shown, 1), own[0.0])
    assert not sure.any()


def test_a_right_outline_costs_least() -> None:
    truth = torch.zeros(2, 16, 16)
    truth[:, 4:12, 4:12] = 1
    right = float(outline_losses(40 * truth - 20, truth, LOSSES).total)
    assert right < 0.1
    for wrong in (torch.roll(truth, 4, -1), torch.zeros_like(truth), torch.ones_like(truth)):
        assert float(outline_losses(40 * wrong - 20, truth, LOSSES).total) > right + 1


def test_it_learns_outlines_and_nothing_else_does() -> None:
    network = model()
    learn_outliner(network)
    learning = {name.partition(".")[0] for name, parameter in network.named_parameters() if parameter.requires_grad}
    assert learning == {"outliner"}
    stage = OutlinerStage(network, LOSSES)
    optimiser = torch.optim.AdamW([p for p in stage.parameters() if p.requires_grad], lr=5e-3)
    shown = batch(sample(), sample(seed=1))
    for _ in range(60):
        optimiser.zero_grad()
        stage(shown).total.backward()
        optimiser.step()
    stage.eval()
    with torch.inference_mode():
        answers = stage(shown, learn=False)
    found = answers.mask_logits_iqhw[:, 0] > 0
    targets = [target for row in shown.targets for target in row if target is not None]
    assert len(found) == len(targets) == 6
    for mask, target in zip(found, targets, strict=True):
        truth = torch.nn.functional.avg_pool2d(target.masks_nhw[:1].float(), 4)[0] > 0.5
        assert (mask & truth).sum() / (mask | truth).sum() > 0.8
    assert (answers.class_logits_iqk.argmax(-1) == 0).all()
