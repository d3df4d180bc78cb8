"""Stage "finder": what it is asked, what it is told, and that it learns from that."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.tiny import FINDER, ROWS, TINY, tiny_model, tiny_segmenter
from x2roto.engine.model.finder import Found
from x2roto.train.collate import Batch, Preparer, Reader, collate
from x2roto.train.config import Losses
from x2roto.train.finding import (
    Asked,
    FinderStage,
    Names,
    Views,
    found_losses,
    learn_finder,
    listed,
    naming_losses,
    phrases,
)
from x2roto.train.samples import ClipSample

SEGMENTER = tiny_segmenter()
LOSSES = Losses()
LEFT, RIGHT = (np.zeros((1, 64, 64), np.bool_) for _ in range(2))
LEFT[:, 16:48, 8:24] = True
RIGHT[:, 16:48, 40:56] = True
PICTURE = np.full((1, 64, 64, 3), 90, np.uint8)
PICTURE[0, 16:48, 8:24] = (220, 30, 30)
PICTURE[0, 16:48, 40:56] = (30, 30, 220)


def sample(*, apart: bool = True, task: str = "genseg") -> ClipSample:
    """A red thing on the left, a blue one on the right, and one that is asked for in vain."""
    return ClipSample(
        PICTURE,
        task,
        ("red", "blue", "green"),
        np.stack([LEFT, RIGHT]),
        np.array([0, 1]),
        apart=apart,
    )


def batch(*samples: ClipSample) -> Batch:
    reader = Reader(SEGMENTER.tokenizer, SEGMENTER.special, SEGMENTER.patches, 32, 1)
    prepare = Preparer(64, reader)
    return collate([prepare(each, 3) for each in samples])


def text(ids: torch.Tensor) -> str:
    return str(SEGMENTER.tokenizer.decode(ids.tolist(), skip_special_tokens=False))


@pytest.mark.parametrize("apart", [True, False])
def test_every_condition_of_every_picture_is_asked_by_itself(apart: bool) -> None:
    asked = phrases(batch(sample(apart=apart), sample(apart=apart)))
    words = [text(ids[valid]) for ids, valid in zip(asked.ids_pl, asked.valid_pl, strict=True)]
    assert words == ["<p>red</p>", "<p>blue</p>", "<p>green</p>"] * 2
    assert asked.pictures_p.tolist() == [0, 0, 0, 1, 1, 1]
    assert asked.truth_phw.shape == (6, 16, 16)
    assert torch.equal(asked.truth_phw[0], torch.from_numpy(LEFT[0, ::4, ::4]).float())
    assert torch.equal(asked.truth_phw[4], torch.from_numpy(RIGHT[0, ::4, ::4]).float())
    assert not asked.truth_phw[2].any()
    assert asked.known_phw.all()


def test_frames_of_a_clip_are_pictures_and_those_without_labels_are_left_out() -> None:
    three = replace(
        sample(),
        frames=np.repeat(PICTURE, 3, 0),
        masks=np.repeat(np.stack([LEFT, RIGHT]), 3, 1),
        labelled=np.array([True, False, True]),
    )
    asked = phrases(batch(three, three))
    assert asked.pictures_p.tolist() == [0, 0, 0, 1, 1, 1, 4, 4, 4, 5, 5, 5]


def test_seen_again_the_truth_moves_with_the_picture() -> None:
    shown = batch(sample(), sample()).again(1)
    pixels = shown.frames[0].permute(0, 3, 1, 2).float()
    views = Views.drawn(2, seed=5, device=pixels.device)
    seen = views.cropped(pixels)
    assert not torch.equal(seen[0], seen[1])
    assert torch.equal(Views.drawn(2, seed=5, device=pixels.device).cropped(pixels), seen)
    again = phrases(shown, views)
    red = torch.nn.functional.avg_pool2d((seen[:, 0] > 150).float()[:, None], 4)[:, 0]
    assert ((again.truth_phw[[0, 3]] - red).abs().mean((1, 2)) < 0.01).all()
    assert not torch.equal(again.truth_phw[0], again.truth_phw[3])
    assert not again.truth_phw[2].any()
    assert again.known_phw.all()


def test_other_light_keeps_the_order_of_values() -> None:
    pixels = torch.randn(3, 3, 4, 4)
    lit = Views.drawn(3, seed=1, device=pixels.device).lit(pixels)
    assert torch.equal(lit.flatten(1).argsort(1), pixels.flatten(1).argsort(1))
    assert not torch.allclose(lit, pixels, atol=0.01)


def test_a_batch_learnt_from_again_is_seen_otherwise() -> None:
    network = tiny_model(config=replace(TINY, finder=FINDER)).train()
    stage = FinderStage(network, LOSSES)
    shown = batch(sample())
    totals = [float(stage(shown.again(take) if take else shown).total.detach()) for take in (0, 0, 1, 1, 2)]
    assert totals[0] == totals[1]
    assert totals[2] == totals[3]
    assert len(set(totals)) == 3


def asked(truth: torch.Tensor, known: torch.Tensor | None = None) -> Asked:
    count = len(truth)
    ids = torch.ones(count, 2, dtype=torch.long)
    known = torch.ones_like(truth) if known is None else known
    return Asked(ids, ids > 0, torch.zeros(count, dtype=torch.long), truth, known)


def found(mask: torch.Tensor, presence: list[float]) -> Found:
    return Found(mask[:, ::2, ::2].clone(), mask.clone(), torch.tensor(presence))


TRUTH = torch.from_numpy(np.stack([LEFT[0, ::4, ::4], np.zeros((16, 16), np.bool_)])).float()


def test_the_right_answer_costs_next_to_nothing_but_the_choice_among_right_cells() -> None:
    right = found(40 * TRUTH - 20, [20.0, -20.0])
    losses = found_losses(right, asked(TRUTH), LOSSES)
    # Two softmaxes that spread evenly over 32 and 8 right cells.
    choice = float(np.log(32) + np.log(8))
    assert float(losses.language) == pytest.approx(choice, abs=1e-3)
    assert float(losses.total) == pytest.approx(0.5 * choice, abs=0.1)


def test_each_kind_of_error_costs() -> None:
    right = found(40 * TRUTH - 20, [20.0, -20.0])
    least = float(found_losses(right, asked(TRUTH), LOSSES).total)
    shown_elsewhere = found(40 * torch.roll(TRUTH, 8, 2) - 20, [20.0, -20.0])
    claimed = replace(right, presence_p=torch.tensor([20.0, 20.0]))
    missed = replace(right, presence_p=torch.tensor([-20.0, -20.0]))
    shown_in_vain = found(40 * TRUTH[[0, 0]] - 20, [20.0, -20.0])
    for wrong in (shown_elsewhere, claimed, missed, shown_in_vain):
        assert float(found_losses(wrong, asked(TRUTH), LOSSES).total) > least + 1


def test_nothing_is_held_against_cells_of_which_nothing_is_known() -> None:
    known = torch.ones_like(TRUTH)
    known[:, :, 8:] = 0
    wrong = TRUTH.clone()
    wrong[:, :, 8:] = 1
    there, elsewhere = (found(40 * each - 20, [20.0, -20.0]) for each in (TRUTH, wrong))
    assert float(found_losses(elsewhere, asked(TRUTH, known), LOSSES).total) == pytest.approx(
        float(found_losses(there, asked(TRUTH, known), LOSSES).total)
    )


def test_what_may_be_where_nothing_is_known_is_not_held_to_be_absent() -> None:
    claimed = found(TRUTH, [20.0, 20.0])
    unknown = torch.ones_like(TRUTH)
    unknown[1] = 0
    assert float(found_losses(claimed, asked(TRUTH), LOSSES).classes) > 5
    assert float(found_losses(claimed, asked(TRUTH, unknown), LOSSES).classes) < 1e-3


def test_only_absent_things_leave_finite_losses() -> None:
    losses = found_losses(found(TRUTH, [0.0, 0.0]), asked(torch.zeros_like(TRUTH)), LOSSES)
    assert torch.isfinite(losses.total)
    assert float(losses.language) == 0


def test_its_eyes_can_stay_as_they_are() -> None:
    model = tiny_model(config=replace(TINY, finder=FINDER)).train()
    learn_finder(model, eyes=False)
    learning = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert learning
    assert all(name.startswith("finder.") and ".eyes." not in name for name in learning)


def test_it_learns_names_and_nothing_else_does() -> None:
    model = tiny_model(config=replace(TINY, finder=FINDER)).train()
    assert model.config.language["text_config"]["vocab_size"] == ROWS
    learn_finder(model)
    learning = {name.partition(".")[0] for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert learning == {"finder"}
    stage = FinderStage(model, LOSSES)
    optimiser = torch.optim.AdamW([p for p in stage.parameters() if p.requires_grad], lr=5e-3)
    shown = batch(sample())
    for _ in range(60):
        optimiser.zero_grad()
        losses = stage(shown)
        losses.total.backward()
        optimiser.step()
    stage.eval()
    with torch.inference_mode():
        answers = stage(shown, learn=False)
    masks = answers.mask_logits_iqhw[0] > 0
    for number, mask in enumerate((LEFT, RIGHT)):
        truth = torch.from_numpy(mask[0, ::4, ::4])
        assert (masks[number] & truth).sum() / (masks[number] | truth).sum() > 0.8
    assert (answers.class_logits_iqk[0].diagonal() > 0).tolist() == [True, True, False]


# ---- lists of names ---------------------------------------------------------------------------------------------


def list_of(*names: str) -> ClipSample:
    """What is red and what is blue, under as many names as are given: all of the first are red, the last is not."""
    condition = np.arange(len(names))
    masks = np.stack([*[LEFT] * (len(names) - 1), RIGHT])
    return ClipSample(PICTURE, "genseg", names, masks, condition)


def test_a_list_has_every_name_once_and_where_it_is_right() -> None:
    names = listed(batch(sample(apart=False), list_of("warm", "red", "cold")))
    words = [text(ids[valid]) for ids, valid in zip(names.ids_nl, names.valid_nl, strict=True)]
    assert words == ["<p>red</p>", "<p>blue</p>", "<p>green</p>", "<p>warm</p>", "<p>cold</p>"]
    assert names.listed_bn.tolist() == [[True, True, True, False, False], [True, False, False, True, True]]
    left, right = (torch.from_numpy(mask[0, ::8, ::8]).float() for mask in (LEFT, RIGHT))
    nothing = torch.zeros(8, 8)
    expected = [[left, right, nothing, nothing, nothing], [left, nothing, nothing, left, right]]
    assert torch.equal(names.truth_bnhw, torch.stack([torch.stack(row) for row in expected]))
    assert names.known_bhw.all()


def test_seen_again_what_is_on_a_list_moves_with_the_picture() -> None:
    shown = batch(sample(apart=False), sample(apart=False)).again(1)
    views = Views.drawn(2, seed=5, device=shown.frames.device)
    seen = views.cropped(shown.frames[0].permute(0, 3, 1, 2).float())
    red = torch.nn.functional.avg_pool2d((seen[:, 0] > 150).float()[:, None], 8)[:, 0]
    names = listed(shown, views)
    assert ((names.truth_bnhw[:, 0] - red).abs().mean((1, 2)) < 0.03).all()
    assert not torch.equal(names.truth_bnhw[0, 0], names.truth_bnhw[1, 0])


LISTED = listed(batch(sample(apart=False), list_of("warm", "red", "cold")))


def likeness(names: Names) -> torch.Tensor:
    """What a perfect finder sees."""
    return 40 * names.truth_bnhw - 20


def test_right_names_cost_next_to_nothing_but_the_choice_among_right_cells() -> None:
    losses = naming_losses(likeness(LISTED), LISTED, LOSSES)
    choice = float(np.log(8))  # a softmax that spreads evenly over the eight cells of a thing
    assert float(losses.language) == pytest.approx(choice, abs=1e-3)
    assert float(losses.classes) == pytest.approx(0, abs=1e-3)
    assert float(losses.total) == pytest.approx(0.5 * choice, abs=1e-2)


def test_each_kind_of_wrong_name_costs() -> None:
    right = likeness(LISTED)
    least = float(naming_losses(right, LISTED, LOSSES).total)
    elsewhere = torch.roll(right, 4, 3)
    mistaken = right.clone()
    mistaken[0, [0, 1]] = right[0, [1, 0]]
    in_vain = right.clone()
    in_vain[0, 2] = right[0, 0]
    for wrong in (elsewhere, mistaken, in_vain):
        assert float(naming_losses(wrong, LISTED, LOSSES).total) > least + 0.5


def test_names_of_the_same_thing_do_not_compete() -> None:
    right = likeness(LISTED)
    unsure = right.clone()
    # "warm" and "red" are both right on the second picture.
    unsure[1, 3] -= 5
    assert float(naming_losses(unsure, LISTED, LOSSES).classes) == pytest.approx(0, abs=1e-3)


def test_names_that_are_not_listed_and_cells_of_which_nothing_is_known_do_not_count() -> None:
    right, known = likeness(LISTED), LISTED.known_bhw.clone()
    least = float(naming_losses(right, LISTED, LOSSES).total)
    other = right.clone()
    other[0, 3:] = 20
    assert float(naming_losses(other, LISTED, LOSSES).total) == least
    known[:, :, :1] = 0
    wrong = right.clone()
    wrong[..., :1] = 20
    part = replace(LISTED, known_bhw=known)
    assert float(naming_losses(wrong, part, LOSSES).total) == float(naming_losses(right, part, LOSSES).total)


def test_nothing_on_a_list_leaves_finite_losses() -> None:
    empty = replace(LISTED, truth_bnhw=torch.zeros_like(LISTED.truth_bnhw))
    losses = naming_losses(likeness(empty).requires_grad_(), empty, LOSSES)
    losses.total.backward()
    assert torch.isfinite(losses.total)
    assert (float(losses.language), float(losses.classes)) == (0, 0)


def test_it_learns_names_from_lists() -> None:
    model = tiny_model(config=replace(TINY, finder=FINDER)).train()
    learn_finder(model)
    stage = FinderStage(model, LOSSES)
    optimiser = torch.optim.AdamW([p for p in stage.parameters() if p.requires_grad], lr=5e-3)
    shown = batch(sample(apart=False))
    for _ in range(60):
        optimiser.zero_grad()
        stage(shown).total.backward()
        optimiser.step()
    names = listed(shown)
    with torch.inference_mode():
        liked = model.liken(SEGMENTER.pixels([PICTURE[0]]), names.ids_nl, names.valid_nl)
    assert torch.equal(liked[0] > 0, names.truth_bnhw[0] > 0.5)
