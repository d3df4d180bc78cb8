"""Post-processing on drawn masks whose right answer is known."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from x2roto.engine.postprocess import (
    ColourIds,
    Geometry,
    LinkMemory,
    ObjectMemory,
    Panoptic,
    Segment,
    anchor_of,
    boxes_of,
    condition_average,
    flat_scores,
    generalised_referring,
    geometry,
    instance_map,
    instances,
    interactive,
    label_map,
    link,
    mask_iou,
    panoptic,
    phrases,
    referring,
    resize_back,
    resized,
    semantic,
    softmax_scores,
    video_object,
)

SIZE = (8, 12)
SAME = Geometry(SIZE, SIZE, SIZE)
SURE = 20.0


def area(top: int, bottom: int, left: int, right: int, size: tuple[int, int] = SIZE) -> Tensor:
    mask = torch.zeros(size, dtype=torch.bool)
    mask[top:bottom, left:right] = True
    return mask


def logits(*masks: Tensor) -> Tensor:
    return torch.stack([torch.where(mask, SURE, -SURE) for mask in masks])


LEFT, RIGHT = area(0, 8, 0, 6), area(0, 8, 6, 12)
CORNER, NOTHING = area(0, 2, 0, 3), area(0, 0, 0, 0)


# Geometry


def test_a_mask_of_the_frame_s_size_is_unchanged() -> None:
    masks = torch.randn(3, *SIZE)
    assert torch.equal(resize_back(masks, SAME), masks)


def test_only_the_scaled_part_of_the_canvas_is_shown() -> None:
    canvas = torch.zeros(1, 8, 8)
    canvas[:, :4] = 1
    assert resize_back(canvas, Geometry((4, 8), (4, 8), (8, 8))).eq(1).all()
    assert resize_back(canvas, Geometry((8, 8), (8, 8), (8, 8))).mean() == 0.5


def test_logits_go_to_the_canvas_before_the_frame() -> None:
    small = torch.tensor([[[0.0, 1.0]]])
    # Half-pixel centres: 0 and 1 become 0, 0.25, 0.75, 1; their middle pair is then the frame.
    found = resize_back(small, Geometry((1, 2), (1, 4), (1, 4)))
    torch.testing.assert_close(found, torch.tensor([[[0.125, 0.875]]]))


def test_halves_are_computed_in_single_precision() -> None:
    assert resize_back(torch.zeros(1, 2, 2, dtype=torch.float16), SAME).dtype == torch.float32


def test_a_large_frame_is_upsampled_a_few_queries_at_a_time() -> None:
    assert geometry.planes_at_once(Geometry((2160, 3840))) == 8
    assert geometry.planes_at_once(Geometry((4320, 7680))) == 2
    assert geometry.planes_at_once(Geometry((100_000, 100_000))) == 1


def test_chunks_cover_all_queries_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(geometry, "VALUES_AT_ONCE", 2 * SIZE[0] * SIZE[1])
    masks = torch.randn(5, *SIZE)
    chunks = list(resized(masks, SAME))
    assert [len(chunk) for _, chunk in chunks] == [2, 2, 1]
    assert all(torch.equal(masks[part], chunk) for part, chunk in chunks)


def test_chunking_changes_no_result(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    masks, scores = 4 * torch.randn(7, 6, 6), softmax_scores(3 * torch.randn(7, 5))
    single, prompt = scores[:, :1], area(1, 5, 2, 9)
    place = Geometry(SIZE, (10, 12), (12, 12))

    def everything() -> list[Tensor]:
        found = instances(scores, masks, place, threshold=0.0)
        named = phrases(scores, masks, place)
        return [
            semantic(scores, masks, place),
            panoptic(scores, masks, place, stuff={3}, threshold=0.0).id_map,
            *(found.masks, found.scores, found.classes, found.queries, found.boxes, named.masks),
            referring(single, masks, place).mask,
            generalised_referring(single, masks, place, threshold=0.1).mask,
            interactive(single, masks, place, prompt, threshold=0.0).mask,
            video_object(single, masks, place, ObjectMemory(prompt), threshold=0.0)[0].mask,
        ]

    whole = everything()
    monkeypatch.setattr(geometry, "VALUES_AT_ONCE", 1)
    for one, other in zip(whole, everything(), strict=True):
        torch.testing.assert_close(one, other)


# Scores


def test_scores_are_a_softmax_without_the_background() -> None:
    logit = torch.tensor([[1.0, 3.0, 6.0]]).log()
    torch.testing.assert_close(softmax_scores(logit), torch.tensor([[0.1, 0.3]]))


def test_flat_scores_average_the_tokens_of_a_condition() -> None:
    token_logits = torch.tensor([[0.2, 0.4, 0.8]]).logit()
    cond_ids = torch.tensor([0, 0, 1])
    close = partial(torch.testing.assert_close, rtol=1e-5, atol=1e-5)
    plain = flat_scores(token_logits, cond_ids, root=False)
    close(plain, torch.tensor([[0.3, 0.8]]))
    rooted = flat_scores(token_logits, cond_ids, root=True)
    close(rooted, torch.tensor([[0.3, 0.8]]).sqrt())


def test_ignored_tokens_count_in_training_only_and_the_background_comes_last() -> None:
    cond_ids = torch.tensor([5, -1, -100, 2])
    assert condition_average(cond_ids, training=True).argmax(1).tolist() == [3, 0, 2, 1]
    assert condition_average(cond_ids).argmax(1).tolist() == [3, 0, 1]
    assert condition_average(torch.tensor([-1, -100])).shape == (0, 2)


# Masks


def test_boxes_are_tight_and_end_after_the_last_pixel() -> None:
    single = area(7, 8, 11, 12)
    boxes = boxes_of(torch.stack((area(1, 4, 2, 9), single, NOTHING)))
    assert boxes.tolist() == [[2, 1, 9, 4], [11, 7, 12, 8], [0, 0, 0, 0]]
    assert boxes_of(torch.zeros(0, *SIZE, dtype=torch.bool)).shape == (0, 4)


def test_iou_of_every_pair() -> None:
    half = area(0, 8, 3, 9)
    found = mask_iou(torch.stack((LEFT, NOTHING)), torch.stack((LEFT, RIGHT, half, NOTHING)))
    torch.testing.assert_close(found, torch.tensor([[1, 0, 1 / 3, 0], [0, 0, 0, 0]]))


def test_later_masks_are_painted_over_earlier_ones() -> None:
    painted = label_map([LEFT, CORNER], [1, 2], 255, SIZE)
    assert painted[0, 0] == 2
    assert painted[7, 0] == 1
    assert painted[0, 11] == 255
    assert label_map([], [], 255, SIZE).eq(255).all()


# Semantic


def test_every_pixel_gets_the_class_with_most_votes() -> None:
    scores = torch.tensor([[0.1, 0.7], [0.6, 0.1], [0.5, 0.0], [0.0, 0.3]])
    found = semantic(scores, logits(LEFT, LEFT, LEFT, RIGHT), SAME)
    assert found[LEFT].eq(0).all()
    assert found[RIGHT].eq(1).all()


# Instances


def test_instances_are_ranked_and_measured() -> None:
    scores = torch.tensor([[0.6, 0.1], [0.0, 0.9], [0.3, 0.2]])
    found = instances(scores, logits(LEFT, CORNER, RIGHT), SAME)
    assert found.queries.tolist() == [1, 0]
    assert found.classes.tolist() == [1, 0]
    torch.testing.assert_close(found.scores, torch.tensor([0.9, 0.6]))
    assert found.boxes.tolist() == [[0, 0, 3, 2], [0, 0, 6, 8]]
    assert torch.equal(found.masks, torch.stack((CORNER, LEFT)))


def test_an_unsure_mask_lowers_the_score() -> None:
    probability = torch.where(LEFT, 0.8, 0.2)
    found = instances(torch.tensor([[0.9]]), probability.logit()[None], SAME, threshold=0.7)
    torch.testing.assert_close(found.scores, torch.tensor([0.72]))
    assert len(instances(torch.tensor([[0.9]]), probability.logit()[None], SAME, threshold=0.73).scores) == 0


def test_one_query_may_answer_for_two_classes_but_only_q_pairs_count() -> None:
    scores = torch.tensor([[0.5, 0.4], [0.1, 0.0]])
    found = instances(scores, logits(LEFT, RIGHT), SAME, threshold=0.0)
    assert found.queries.tolist() == [0, 0]
    assert found.classes.tolist() == [0, 1]


def test_only_things_and_nothing_at_all() -> None:
    scores = torch.tensor([[0.9, 0.1], [0.2, 0.8]])
    assert instances(scores, logits(LEFT, RIGHT), SAME, things={1}).classes.tolist() == [1]
    none = instances(scores, logits(LEFT, RIGHT), SAME, things=())
    assert none.masks.shape == (0, *SIZE)
    assert instance_map(none).eq(-1).all()


def test_equal_scores_keep_the_order_of_queries() -> None:
    scores = torch.full((4, 1), 0.5)
    found = instances(scores, logits(LEFT, LEFT, LEFT, LEFT), SAME, threshold=0.0)
    assert found.queries.tolist() == [0, 1, 2, 3]


def test_an_empty_mask_scores_nothing() -> None:
    found = instances(torch.tensor([[0.9]]), logits(NOTHING), SAME, threshold=0.0)
    assert found.scores.tolist() == [0]
    assert len(instances(torch.tensor([[0.9]]), logits(NOTHING), SAME, threshold=0.1).scores) == 0


def test_the_best_instance_is_on_top() -> None:
    painted = instance_map(instances(torch.tensor([[0.6], [0.9]]), logits(LEFT, CORNER), SAME), empty=255)
    assert painted[CORNER].eq(0).all()
    assert painted[LEFT & ~CORNER].eq(1).all()
    assert painted[RIGHT].eq(255).all()


# Panoptic


def one_hot(*rows: tuple[int, float]) -> Tensor:
    scores = torch.zeros(len(rows), 5)
    for row, (category, score) in zip(scores, rows, strict=True):
        row[category] = score
    return scores


def test_stuff_of_a_class_is_one_segment_and_ids_are_unique() -> None:
    quarters = [area(0, 8, 3 * i, 3 * i + 3) for i in range(4)]
    scores = one_hot((3, 0.9), (0, 0.8), (3, 0.7), (0, 0.6))
    found = panoptic(scores, logits(*quarters), SAME, stuff={3})
    assert [(s.category, s.is_thing, s.area, s.queries) for s in found.segments] == [
        (3, False, 48, (0, 2)),
        (0, True, 24, (1,)),
        (0, True, 24, (3,)),
    ]
    assert [s.score for s in found.segments] == pytest.approx([0.9, 0.8, 0.6])
    ids = [s.id for s in found.segments]
    assert ids == [1, 2, 3]
    for quarter, id in zip(quarters, [1, 2, 1, 3], strict=True):
        assert found.id_map[quarter].eq(id).all()


def test_the_reference_gives_one_id_twice() -> None:
    quarters = [area(0, 8, 3 * i, 3 * i + 3) for i in range(4)]
    scores = one_hot((3, 0.9), (0, 0.8), (3, 0.7), (0, 0.6))
    found = panoptic(scores, logits(*quarters), SAME, stuff={3}, reference=True)
    assert [s.id for s in found.segments] == [1, 2, 1, 2]


@pytest.mark.parametrize(("hidden", "survives"), [(1, True), (2, True), (3, False)])
def test_a_segment_mostly_hidden_by_a_better_one_is_dropped(hidden: int, survives: bool) -> None:
    below, above = area(0, 1, 0, 10), area(0, 1, 0, hidden)
    # 8 of 10 is not above 0.8, but is in single precision, which the reference compares.
    found = panoptic(one_hot((0, 0.8), (1, 0.9)), logits(below, above), SAME, stuff=())
    assert (0 in {s.category for s in found.segments}) is survives
    assert bool(found.id_map[below & ~above].bool().all()) is survives


def test_a_candidate_must_beat_the_threshold() -> None:
    found = panoptic(one_hot((0, 0.5)), logits(LEFT), SAME, stuff=(), threshold=0.5)
    assert found.segments == ()
    assert found.id_map.shape == SIZE
    assert found.id_map.eq(0).all()


def test_queries_are_those_of_the_network_not_of_the_candidates() -> None:
    found = panoptic(one_hot((0, 0.1), (1, 0.9)), logits(LEFT, RIGHT), SAME, stuff=())
    assert found.segments[0].queries == (1,)


def test_ids_may_come_from_outside_once_per_stuff_class() -> None:
    asked: list[int] = []

    def new_id(category: int) -> int:
        asked.append(category)
        return 100 + len(asked)

    thirds = [area(0, 8, 4 * i, 4 * i + 4) for i in range(3)]
    scores = one_hot((3, 0.9), (3, 0.8), (0, 0.7))
    found = panoptic(scores, logits(*thirds), SAME, stuff={3}, new_id=new_id)
    assert asked == [3, 0]
    assert [s.id for s in found.segments] == [101, 102]


def test_colour_ids_start_from_the_class_s_colour_and_never_repeat() -> None:
    give = ColourIds({0: (10, 0, 0), 1: (1, 2, 3)}, stuff={1})
    ids = [give(0) for _ in range(200)]
    assert ids[0] == 10
    assert len(set(ids)) == 200
    assert 0 not in ids
    assert {give(1) for _ in range(3)} == {1 + 2 * 256 + 3 * 65536}


# Links


def drawn(*parts: tuple[int, int, bool, Tensor]) -> Panoptic:
    """Segments of id, category, thing or stuff, and mask."""
    id_map = label_map([mask for *_, mask in parts], [id for id, *_ in parts], 0, SIZE).int()
    sizes = [int(mask.sum()) for *_, mask in parts]
    rows = zip(parts, sizes, strict=True)
    return Panoptic(id_map, tuple(Segment(id, kind, thing, 1.0, n) for (id, kind, thing, _), n in rows))


def run(*frames: Panoptic, reference: bool = False) -> list[list[int]]:
    memory, ids = LinkMemory(), []
    for frame in frames:
        linked, memory = link(frame, memory, reference=reference)
        assert {s.id for s in linked.segments} <= set(linked.id_map.unique().tolist())
        ids.append([s.id for s in linked.segments])
    return ids


def test_a_thing_keeps_its_id_while_it_overlaps_itself() -> None:
    a, b = area(0, 8, 0, 4), area(0, 8, 6, 10)
    moved_a, moved_b = area(0, 8, 1, 5), area(0, 8, 7, 11)
    assert run(drawn((1, 0, True, a), (2, 0, True, b)), drawn((1, 0, True, moved_b), (2, 0, True, moved_a))) == [
        [1, 2],
        [2, 1],
    ]


def test_half_an_overlap_is_not_enough() -> None:
    # 4 columns moved by 2 share 2 of 6; 6 moved by 2 share 4 of 8, exactly one half.
    assert run(drawn((1, 0, True, area(0, 8, 0, 6))), drawn((1, 0, True, area(0, 8, 2, 8)))) == [[1], [2]]


def test_another_class_is_another_thing() -> None:
    assert run(drawn((1, 0, True, LEFT)), drawn((1, 1, True, LEFT))) == [[1], [2]]


def test_stuff_keeps_one_id_wherever_it_is_even_after_an_absence() -> None:
    frames = [drawn((5, 3, False, LEFT)), drawn((1, 0, True, LEFT)), drawn((7, 3, False, RIGHT))]
    assert run(*frames) == [[1], [2], [1]]


def test_a_new_thing_never_takes_an_id_already_used() -> None:
    a, b = area(0, 8, 0, 4), area(0, 8, 6, 10)
    frames = [
        drawn((1, 0, True, a), (2, 0, True, b)),
        drawn((1, 0, True, b), (2, 0, True, a)),
        drawn((1, 0, True, area(0, 2, 4, 6)), (2, 0, True, b)),
        drawn((1, 0, True, a), (2, 0, True, b)),
    ]
    assert run(*frames) == [[1, 2], [2, 1], [3, 2], [4, 2]]


def test_the_reference_lets_ids_collide() -> None:
    a, b = area(0, 8, 0, 4), area(0, 8, 6, 10)
    frames = [drawn((1, 0, True, a)), drawn((1, 0, True, b), (2, 0, True, a))]
    assert run(*frames, reference=True) == [[1], [1, 1]]
    assert run(*frames) == [[1], [2, 1]]


def test_linking_leaves_its_inputs_alone() -> None:
    frame = drawn((7, 0, True, LEFT))
    link(frame, LinkMemory())
    assert frame.id_map[0, 0] == 7
    assert frame.segments[0].id == 7


# One condition


def test_referring_always_answers_with_the_best_query() -> None:
    found = referring(torch.tensor([[0.01], [0.02]]), logits(LEFT, RIGHT), SAME)
    assert torch.equal(found.mask, RIGHT)
    assert found.score == pytest.approx(0.02)
    assert found.queries == (1,)


def test_generalised_referring_is_a_union_or_the_best() -> None:
    scores = torch.tensor([[0.6], [0.8], [0.1]])
    found = generalised_referring(scores, logits(CORNER, RIGHT, LEFT), SAME)
    assert torch.equal(found.mask, CORNER | RIGHT)
    assert found.score == pytest.approx(0.7)
    weak = generalised_referring(scores / 2, logits(CORNER, RIGHT, LEFT), SAME)
    assert weak.queries == (1,)


def test_phrases_have_one_mask_each_in_their_order() -> None:
    scores = torch.tensor([[0.1, 0.9], [0.4, 0.2]])
    found = phrases(scores, logits(LEFT, RIGHT), SAME)
    assert found.queries.tolist() == [1, 0]
    assert torch.equal(found.masks, torch.stack((RIGHT, LEFT)))
    torch.testing.assert_close(found.scores, torch.tensor([0.4, 0.9]))


def test_a_click_chooses_by_overlap_among_the_confident() -> None:
    scores = torch.tensor([[0.9], [0.7], [0.4]])
    masks = logits(LEFT, RIGHT, area(0, 8, 6, 11))
    prompt = area(2, 3, 7, 8)
    assert interactive(scores, masks, SAME, prompt).queries == (1,)
    assert interactive(scores, masks, SAME, prompt, threshold=0.3).queries == (2,)
    assert interactive(scores, masks, SAME, prompt, threshold=0.95).queries == (0,)


@pytest.mark.parametrize("task", [referring, generalised_referring])
def test_a_task_of_one_condition_refuses_two(task: Any) -> None:
    with pytest.raises(ValueError, match="there are 2"):
        task(torch.zeros(1, 2), logits(LEFT), SAME)


# Video object


def test_overlap_decides_between_nearly_equal_scores() -> None:
    scores = torch.tensor([[0.80], [0.75]])
    found, _ = video_object(scores, logits(LEFT, RIGHT), SAME, ObjectMemory(RIGHT))
    assert found.queries == (1,)
    assert found.score == pytest.approx(0.2 * 1 + 0.8 * 0.75)
    found, _ = video_object(scores, logits(LEFT, RIGHT), SAME, ObjectMemory(NOTHING))
    assert found.queries == (0,)


def test_accepted_masks_weigh_as_much_as_they_scored() -> None:
    memory = ObjectMemory(LEFT, ((RIGHT, 0.5),))
    found, _ = video_object(torch.tensor([[0.9]]), logits(LEFT), SAME, memory)
    assert found.score == pytest.approx(0.2 * 1 / 1.5 + 0.8 * 0.9)


def test_a_doubtful_mask_is_not_remembered() -> None:
    memory = ObjectMemory(LEFT)
    _, after = video_object(torch.tensor([[0.3]]), logits(RIGHT), SAME, memory)
    assert after == memory


def test_the_last_four_accepted_masks_are_remembered() -> None:
    memory = ObjectMemory(LEFT)
    for score in (0.5, 0.6, 0.7, 0.8, 0.9, 1.0):
        _, memory = video_object(torch.tensor([[score]]), logits(LEFT), SAME, memory)
    assert [score for _, score in memory.accepted] == pytest.approx([0.2 + 0.8 * s for s in (0.7, 0.8, 0.9, 1.0)])


def test_the_anchor_is_every_marked_pixel_but_for_the_reference() -> None:
    prompt = torch.tensor([[0, 1, 255]])
    assert anchor_of(prompt).tolist() == [[False, True, True]]
    assert anchor_of(prompt, reference=True).tolist() == [[False, False, True]]
