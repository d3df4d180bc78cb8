"""Who is who, on masks and scores drawn by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tests.unit.model_parts import noise
from x2roto.engine.identity import (
    EMPTY,
    Candidates,
    Following,
    Identity,
    Kind,
    Seen,
    Target,
    assign,
    distinct_instances,
    follow,
    pairwise_iou,
)

HEIGHT, WIDTH = 8, 24
OBJECT, THINGS, STUFF = (Target("person", kind) for kind in (Kind.OBJECT, Kind.THINGS, Kind.STUFF))
CHOICES = Following()


def block(left: int, width: int = 4, top: int = 2, height: int = 4) -> Tensor:
    mask = torch.zeros(HEIGHT, WIDTH, dtype=torch.bool)
    mask[top : top + height, left : left + width] = True
    return mask


NOTHING = torch.zeros(HEIGHT, WIDTH, dtype=torch.bool)
LEFT, MIDDLE, RIGHT = block(1), block(9), block(18)


def candidates(
    masks: Sequence[Tensor], scores: Sequence[float], looks: Sequence[int] | None = None, strength: float = 6
) -> Candidates:
    """Queries with these masks and scores of one condition; equal `looks` are equal query vectors."""
    classes = torch.stack((torch.tensor(scores).logit(), torch.zeros(len(scores))), dim=1)
    logits = torch.stack([torch.where(mask, strength, -strength) for mask in masks])
    return Candidates.of(classes, logits, torch.eye(16)[list(looks or range(len(masks)))])


def see(
    frames: Sequence[Candidates], target: Target = OBJECT, choices: Following = CHOICES
) -> tuple[list[list[Seen]], list[Identity]]:
    """What is seen of a target on each frame, and what is known of it in the end."""
    known: list[Identity] = []
    everything = []
    for frame in frames:
        seen, known = follow(frame, 0, target, known, choices)
        everything.append(seen)
    return everything, known


def names_by_place(seen: Sequence[Seen]) -> dict[str, int]:
    """The leftmost column of each object that is there."""
    return {s.name: int((s.logits > 0).any(0).nonzero()[0]) for s in seen if s.present}


# ---- scores -----------------------------------------------------------------------------------------------


def test_scores_share_among_conditions_but_each_alone_meets_the_background_only() -> None:
    both = Candidates.of(torch.tensor([[3.0, 3.0, 0.0]]), noise(1, 2, 2), noise(1, 4))
    assert both.scores.shape == both.alone.shape == (1, 2)
    share = torch.tensor([3.0, 3.0, 0.0]).softmax(0)[0].item()
    assert both.scores[0].tolist() == pytest.approx([share] * 2)
    assert both.alone[0].tolist() == pytest.approx([torch.tensor(3.0).sigmoid().item()] * 2)


def test_with_one_condition_both_scores_are_equal() -> None:
    one = Candidates.of(noise(5, 2), noise(5, 2, 2), noise(5, 4))
    torch.testing.assert_close(one.scores, one.alone)


def test_padded_conditions_take_nothing() -> None:
    padded = Candidates.of(torch.tensor([[2.0, -1e6, 0.0]]), noise(1, 2, 2), noise(1, 4))
    assert padded.scores[0].tolist() == pytest.approx([torch.tensor(2.0).sigmoid().item(), 0])


def test_quality_is_the_mean_coverage_inside_the_mask() -> None:
    logits = torch.tensor([[[2.0, 1.0], [-1.0, -5.0]], [[-1.0, -1.0], [-1.0, -1.0]]])
    found = Candidates.of(torch.zeros(2, 2), logits, noise(2, 4))
    assert found.quality(0) == pytest.approx(float((logits[0, 0].sigmoid()).mean()))
    assert found.quality(1) == 0


# ---- one object -------------------------------------------------------------------------------------------


def test_the_first_frame_takes_the_likeliest_query() -> None:
    ((seen,),), _ = see([candidates([LEFT, RIGHT], [0.7, 0.9])])
    assert torch.equal(seen.logits > 0, RIGHT)
    assert (seen.name, seen.label) == ("person", "person")
    assert seen.presence == pytest.approx(0.9)
    assert seen.score == pytest.approx(0.9 * torch.tensor(6.0).sigmoid().item(), abs=1e-6)


def test_an_object_is_kept_by_place_when_queries_swap() -> None:
    frames = [
        candidates([LEFT, RIGHT], [0.90, 0.88]),
        candidates([RIGHT, block(2)], [0.90, 0.88]),
        candidates([RIGHT, block(3)], [0.90, 0.88]),
    ]
    seen, _ = see(frames)
    assert [names_by_place(objects)["person"] for objects in seen] == [1, 2, 3]
    seen, _ = see(frames, choices=replace(CHOICES, geometry=0.0))
    assert [names_by_place(objects)["person"] for objects in seen] == [1, 18, 18]


@pytest.mark.parametrize(("rival", "place"), [(0.84, 1), (0.86, 18)])
def test_place_counts_one_fifth(rival: float, place: int) -> None:
    """The full overlap is worth 0.2, which a class score must make up for by more than 0.25."""
    seen, _ = see([candidates([LEFT, RIGHT], [0.9, 0.5]), candidates([LEFT, RIGHT], [0.6, rival])])
    assert names_by_place(seen[1]) == {"person": place}


def test_the_prompt_s_own_mask_decides_between_look_alikes() -> None:
    target = replace(OBJECT, anchor=RIGHT)
    ((seen,),), _ = see([candidates([LEFT, RIGHT], [0.9, 0.8])], target)
    assert torch.equal(seen.logits > 0, RIGHT)


def test_past_masks_count_by_their_rank_and_the_prompt_by_one() -> None:
    target = replace(OBJECT, anchor=LEFT)
    known = Identity("person", masks=(MIDDLE, RIGHT), ranks=(0.5, 0.25))
    scores = torch.tensor([0.80, 0.80, 0.80])
    found = candidates([LEFT, MIDDLE, RIGHT], scores.tolist())
    _, (kept,) = follow(found, 0, target, [known], CHOICES)
    assert kept.ranks[-1] == pytest.approx(0.8 * 0.8 + 0.2 * 1 / 1.75)
    _, (kept,) = follow(found, 0, OBJECT, [known], CHOICES)
    assert torch.equal(kept.masks[-1], MIDDLE)
    assert kept.ranks[-1] == pytest.approx(0.8 * 0.8 + 0.2 * 0.5 / 0.75)


def test_only_the_last_accepted_masks_are_remembered() -> None:
    _, (known,) = see([candidates([block(left)], [0.9]) for left in range(7)])
    assert len(known.masks) == len(known.ranks) == CHOICES.depth
    assert [int(mask.any(0).nonzero()[0]) for mask in known.masks] == [3, 4, 5, 6]


def test_an_absent_object_is_empty_but_tells_its_score_and_stays_known() -> None:
    first, gone = candidates([LEFT, RIGHT], [0.9, 0.1]), candidates([LEFT, RIGHT], [0.3, 0.2])
    seen, known = see([first, gone])
    (absent,) = seen[1]
    assert (absent.logits == EMPTY).all()
    assert (absent.present, absent.score) == (False, 0)
    assert absent.presence == pytest.approx(0.3)
    assert torch.tensor(EMPTY, dtype=torch.float16).sigmoid() < 1e-6
    assert torch.equal(known[0].masks[-1], LEFT)
    assert len(known[0].masks) == 1


def test_the_threshold_of_presence_is_a_choice() -> None:
    found = candidates([LEFT], [0.3])
    ((seen,),), _ = see([found], choices=replace(CHOICES, presence=0.3))
    assert seen.present
    ((seen,),), _ = see([found], choices=replace(CHOICES, presence=0.31))
    assert not seen.present


def test_a_likely_query_with_an_empty_mask_is_absent() -> None:
    ((seen,),), (known,) = see([candidates([NOTHING], [0.9])])
    assert not seen.present
    assert (seen.logits == EMPTY).all()
    assert seen.presence == pytest.approx(0.9)
    assert known.masks == ()


def test_two_prompts_for_one_object_do_not_halve_each_other() -> None:
    logits = torch.where(LEFT, 6.0, -6.0)[None]
    found = Candidates.of(torch.tensor([[2.0, 2.0, 0.0]]), logits, noise(1, 4))
    for condition in (0, 1):
        (seen,), _ = follow(found, condition, OBJECT, [], CHOICES)
        assert seen.present
        assert seen.presence == pytest.approx(torch.tensor(2.0).sigmoid().item())


# ---- instances of a class ---------------------------------------------------------------------------------


def test_instances_are_numbered_by_score() -> None:
    (seen,), known = see([candidates([LEFT, MIDDLE, RIGHT], [0.7, 0.9, 0.8])], THINGS)
    assert names_by_place(seen) == {"person_1": 9, "person_2": 18, "person_3": 1}
    assert [identity.number for identity in known] == [1, 2, 3]
    assert {s.label for s in seen} == {"person"}


def test_numbers_survive_queries_that_trade_places() -> None:
    frames = [
        candidates([LEFT, RIGHT], [0.9, 0.8], looks=[0, 1]),
        candidates([RIGHT, LEFT], [0.9, 0.8], looks=[1, 0]),
        candidates([NOTHING, block(17), NOTHING, block(2)], [0.1, 0.8, 0.1, 0.9], looks=[5, 1, 6, 0]),
    ]
    seen, known = see(frames, THINGS)
    assert [names_by_place(objects) for objects in seen] == [
        {"person_1": 1, "person_2": 18},
        {"person_1": 1, "person_2": 18},
        {"person_1": 2, "person_2": 17},
    ]
    assert len(known) == 2


def test_place_links_instances_whose_looks_change_and_looks_those_that_jump() -> None:
    start = candidates([LEFT, RIGHT], [0.9, 0.8], looks=[0, 1])
    changed = candidates([RIGHT, LEFT], [0.9, 0.8], looks=[2, 3])
    jumped = candidates([block(6), block(12)], [0.8, 0.9], looks=[1, 0])
    assert names_by_place(see([start, changed], THINGS)[0][1]) == {"person_1": 1, "person_2": 18}
    assert names_by_place(see([start, jumped], THINGS)[0][1]) == {"person_1": 12, "person_2": 6}


def test_a_vanished_instance_is_listed_as_absent_and_comes_back_under_its_number() -> None:
    both = candidates([LEFT, RIGHT], [0.9, 0.8], looks=[0, 1])
    one = candidates([NOTHING, RIGHT], [0.9, 0.8], looks=[0, 1])
    elsewhere = candidates([MIDDLE, RIGHT], [0.8, 0.9], looks=[0, 1])
    seen, _ = see([both, one, one, elsewhere], THINGS)
    assert [[s.name for s in objects] for objects in seen] == [["person_1", "person_2"]] * 4
    assert (seen[1][0].present, seen[1][0].presence) == (False, 0)
    assert (seen[1][0].logits == EMPTY).all()
    assert names_by_place(seen[3]) == {"person_1": 9, "person_2": 18}


def test_a_stranger_gets_a_new_number() -> None:
    first = candidates([LEFT, RIGHT], [0.9, 0.8], looks=[0, 1])
    then = candidates([MIDDLE, RIGHT], [0.9, 0.8], looks=[7, 1])
    seen, known = see([first, then], THINGS)
    assert names_by_place(seen[1]) == {"person_2": 18, "person_3": 9}
    assert [identity.name for identity in known] == ["person_1", "person_2", "person_3"]


def test_masks_that_mostly_agree_are_one_instance() -> None:
    nearly, half = block(1, height=5), block(3)
    found = candidates([LEFT, nearly, half], [0.8, 0.9, 0.7])
    overlaps = pairwise_iou(torch.stack([nearly]), torch.stack([LEFT, half]))[0]
    assert overlaps[0] > CHOICES.overlap > overlaps[1]
    assert distinct_instances(found, 0, CHOICES) == [1, 2]
    assert distinct_instances(found, 0, replace(CHOICES, overlap=0.9)) == [1, 0, 2]


def test_a_query_counts_for_its_best_class_only_and_only_when_likely_and_not_empty() -> None:
    classes = torch.tensor([[4.0, 0.0, 0.0], [2.0, 3.0, 0.0], [0.2, 0.0, 0.0], [4.0, 0.0, 0.0]])
    logits = torch.stack([torch.where(mask, 6.0, -6.0) for mask in (LEFT, MIDDLE, RIGHT, NOTHING)])
    found = Candidates.of(classes, logits, torch.eye(4))
    lenient = replace(CHOICES, presence=0.2)
    assert distinct_instances(found, 0, CHOICES) == [0]
    assert distinct_instances(found, 1, CHOICES) == [1]
    assert distinct_instances(found, 0, lenient) == [0, 2]


def test_a_class_without_instances_is_nothing() -> None:
    assert follow(candidates([LEFT], [0.1]), 0, THINGS, [], CHOICES) == ([], [])


def test_the_number_of_instances_is_bounded() -> None:
    crowd = candidates([LEFT, MIDDLE, RIGHT], [0.7, 0.9, 0.8])
    seen, known = see([crowd, crowd], THINGS, replace(CHOICES, instances=2))
    assert names_by_place(seen[1]) == {"person_1": 9, "person_2": 18}
    assert len(known) == 2


def test_a_smaller_bound_than_before_keeps_those_known_and_adds_none() -> None:
    _, known = see([candidates([LEFT, MIDDLE, RIGHT], [0.7, 0.9, 0.8])], THINGS)
    strangers = candidates([block(5, 2), block(13, 2), block(15, 2)], [0.9, 0.9, 0.9], looks=[7, 8, 9])
    seen, after = follow(strangers, 0, THINGS, known, replace(CHOICES, instances=1))
    assert [identity.name for identity in after] == ["person_1", "person_2", "person_3"]
    assert not any(s.present for s in seen)


def test_assignment_is_the_best_in_total_not_the_best_first() -> None:
    likeness = torch.tensor([[0.9, 0.8], [0.85, 0.1]])
    assert assign(likeness, 0.0) == {0: 1, 1: 0}


def test_assignment_leaves_out_what_is_too_unlike() -> None:
    assert assign(torch.tensor([[0.9, 0.0], [0.0, 0.2]]), 0.3) == {0: 0}
    assert assign(torch.tensor([[0.9, 0.0], [0.0, 0.3]]), 0.25) == {0: 0, 1: 1}
    assert assign(torch.tensor([[0.4], [0.9], [0.5]]), 0.3) == {1: 0}


def test_overlap_of_every_pair() -> None:
    masks = torch.stack([LEFT, block(3), NOTHING])
    expected = torch.tensor([[1, 8 / 24, 0], [8 / 24, 1, 0], [0, 0, 0]])
    torch.testing.assert_close(pairwise_iou(masks, masks), expected)
    assert pairwise_iou(masks, masks[:1]).shape == (3, 1)


# ---- stuff ------------------------------------------------------------------------------------------------


def test_stuff_is_covered_by_all_its_queries_together() -> None:
    ((seen,),), known = see([candidates([LEFT, RIGHT], [0.9, 0.8])], STUFF)
    assert torch.equal(seen.logits > 0, LEFT | RIGHT)
    coverage = 0.9 * torch.tensor(6.0).sigmoid() + 0.8 * torch.tensor(-6.0).sigmoid()
    assert seen.logits[LEFT].sigmoid().mean().item() == pytest.approx(coverage.item(), abs=1e-5)
    assert (seen.name, seen.presence) == ("person", pytest.approx(0.9))
    assert seen.present
    assert known == []


def test_weak_queries_add_up_where_they_agree() -> None:
    found = candidates([LEFT, LEFT | RIGHT], [0.5, 0.3])
    ((seen,),), _ = see([found], STUFF)
    assert torch.equal(seen.logits > 0, LEFT)


def test_more_coverage_than_full_is_full() -> None:
    ((seen,),), _ = see([candidates([LEFT, LEFT, LEFT], [0.9, 0.9, 0.9])], STUFF)
    assert torch.isfinite(seen.logits).all()
    assert seen.logits[LEFT].sigmoid().min() > 0.999


@pytest.mark.parametrize(("mask", "score"), [(LEFT, 0.4), (NOTHING, 0.9)])
def test_stuff_too_unlikely_or_nowhere_is_absent(mask: Tensor, score: float) -> None:
    ((seen,),), _ = see([candidates([mask], [score])], STUFF)
    assert (seen.present, seen.score) == (False, 0)
    assert seen.presence == pytest.approx(score)
    assert (seen.logits == EMPTY).all()
