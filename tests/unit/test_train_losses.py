"""Losses beyond the reference's: pixels nothing is known about, frames with nothing to see, points that stay put."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from x2roto.train.config import Losses
from x2roto.train.losses import Counts, LayerLosses, set_losses
from x2roto.train.matching import Answers, FrameTarget, match
from x2roto.train.points import Draw, compare, edge_points, read_at, uniform

QUERIES, SIDE = 6, 16
DENSE = Losses(points=0)


def logits(*masks: Tensor, certainty: float = 20.0) -> Tensor:
    """Logits (1, Q, SIDE, SIDE): the masks given, then queries that see nothing."""
    queries = torch.full((1, QUERIES, SIDE, SIDE), -certainty)
    for number, mask in enumerate(masks):
        queries[0, number][mask] = certainty
    return queries


def classes(*labels: int, count: int = 2) -> Tensor:
    """Certain class logits (1, Q, count + 1), background for queries beyond the labels."""
    scores = torch.zeros(1, QUERIES, count + 1)
    for query in range(QUERIES):
        scores[0, query, labels[query] if query < len(labels) else count] = 20.0
    return scores


def square(top: int, left: int, side: int = 6) -> Tensor:
    mask = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    mask[top : top + side, left : left + side] = True
    return mask


def graded(answers: Answers, target: FrameTarget, losses: Losses = DENSE) -> LayerLosses:
    counts = Counts.of([target], QUERIES, 0, losses)
    (result,) = set_losses([answers], [target], draws(), losses, counts)
    return result


def draws() -> list[Draw]:
    return [uniform(0, torch.device("cpu"))]


ONE, TWO = square(1, 1), square(8, 8)


def test_right_answers_cost_nothing_whatever_their_order() -> None:
    target = FrameTarget(torch.stack([TWO, ONE]), torch.tensor([1, 0]))
    assert float(graded(Answers(logits(ONE, TWO), classes(0, 1)), target).weighted(DENSE)) < 1e-4
    assert float(graded(Answers(logits(ONE, TWO), classes(1, 0)), target).classes) > 5


def test_points_rank_answers_as_pixels_do() -> None:
    target, losses = FrameTarget(ONE[None], torch.tensor([0])), replace(DENSE, points=200)
    shifted = [square(1, 1 + by) for by in (0, 1, 3)]
    costs = [float(graded(Answers(logits(mask), classes(0)), target, losses).masks) for mask in shifted]
    assert costs == sorted(costs)
    assert costs[0] < 0.5 * costs[1]


def test_pixels_nothing_is_known_about_cost_nothing() -> None:
    answers = Answers(logits(ONE | TWO), classes(0))
    known = graded(answers, FrameTarget(ONE[None], torch.tensor([0])))
    spared = graded(answers, FrameTarget(ONE[None], torch.tensor([0]), ignored_hw=TWO))
    assert float(known.masks) > 1
    assert float(spared.masks) < 1e-4
    assert float(spared.dice) < 1e-4


def test_a_query_on_unknown_pixels_is_not_called_background() -> None:
    answers = Answers(logits(ONE, TWO), classes(0, 1))
    target = FrameTarget(ONE[None], torch.tensor([0]))
    assert float(graded(answers, target).classes) > 1
    assert float(graded(answers, replace(target, ignored_hw=TWO)).classes) < 1e-4


def test_a_matched_query_answers_for_its_class_even_there() -> None:
    answers = Answers(logits(TWO), classes(1))
    target = FrameTarget(TWO[None], torch.tensor([0]), ignored_hw=TWO)
    (pairs,) = match(answers, [target], draws(), DENSE)
    assert pairs.excused_q[pairs.queries_m].all()
    assert float(graded(answers, target).classes) > 1


def test_a_frame_with_nothing_to_see_teaches_background_alone() -> None:
    masks = logits(ONE).requires_grad_()
    scores = classes(0).requires_grad_()
    nothing = FrameTarget(torch.zeros(0, SIDE, SIDE, dtype=torch.bool), torch.zeros(0, dtype=torch.long))
    found = graded(Answers(masks, scores), nothing)
    assert float(found.masks.detach()) == float(found.dice.detach()) == 0
    assert float(found.classes.detach()) > 1
    found.weighted(DENSE).backward()
    assert not masks.grad.any()
    assert scores.grad.any()


def test_more_targets_than_queries_leaves_some_out() -> None:
    target = FrameTarget(torch.stack([ONE] * (QUERIES + 2)), torch.zeros(QUERIES + 2, dtype=torch.long))
    (pairs,) = match(Answers(logits(ONE), classes(0)), [target], draws(), DENSE)
    assert len(pairs.queries_m) == QUERIES


def test_focal_loss_tells_tokens_apart() -> None:
    losses = replace(DENSE, classes="focal")
    tokens = torch.tensor([[0, 0, 1, -100]])
    scores = torch.full((1, QUERIES, 4), -20.0)
    scores[0, 0, :2] = scores[0, 1, 2] = 20
    scores[..., 3] = 50  # padding, which must not count
    target = FrameTarget(torch.stack([ONE, TWO]), torch.tensor([0, 1]))
    assert float(graded(Answers(logits(ONE, TWO), scores, tokens), target, losses).classes) < 1e-4
    assert float(graded(Answers(logits(TWO, ONE), scores, tokens), target, losses).classes) > 5


def test_points_sit_at_the_edge() -> None:
    points = edge_points(logits(ONE, certainty=3.0)[0, :1], draws()[0], points=100, oversample=3.0, uncertain=0.75)
    near = read_at(logits(ONE, certainty=3.0)[0, :1], points)[0].abs()
    assert near[:75].mean() < near[75:].mean()


def test_reading_between_pixels_and_at_every_pixel() -> None:
    ramp = torch.arange(SIDE).float().expand(1, SIDE, SIDE)
    assert read_at(ramp, torch.tensor([[[0.5, 0.5]]])).item() == pytest.approx((SIDE - 1) / 2)
    seen = compare(ramp, ONE[None], None, None)
    assert torch.equal(seen.logits_mp[0].view(SIDE, SIDE), ramp[0])
    assert seen.known.all()


def test_a_seed_gives_its_own_sequence() -> None:
    first, second, other = (uniform(seed, torch.device("cpu")) for seed in (1, 1, 2))
    assert torch.equal(first((2, 3)), second((2, 3)))
    assert torch.equal(first((4,)), second((4,)))
    assert not torch.equal(first((4,)), other((4,)))
