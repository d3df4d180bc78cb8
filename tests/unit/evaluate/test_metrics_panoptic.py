"""PQ and VPQ against a plain reading of the COCO panoptic API."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.evaluate.panoptic_clips import CATEGORIES, Frame, clip, segments
from x2roto.errors import InputError
from x2roto.evaluate.metrics.panoptic import PanopticQuality, Segment, Segments, VideoPanopticQuality


def plain_tallies(pairs: Sequence[tuple[Frame, Frame]]) -> dict[int, list[float]]:
    """IoU, hits, false and missed of each class, segment by segment, of one image or of a tube's frames."""
    truth_ids, found_ids = (np.stack([pair[side][0] for pair in pairs]) for side in (0, 1))
    truth, found = ({s.id: s for pair in reversed(pairs) for s in pair[side][1]} for side in (0, 1))
    tallies: dict[int, list[float]] = defaultdict(lambda: [0.0, 0, 0, 0])
    hit, hits = set(), set()
    for t in truth.values():
        for p in found.values():
            a, b = truth_ids == t.id, found_ids == p.id
            union = (a | b).sum() - (b & (truth_ids == 0)).sum()
            iou = (a & b).sum() / union
            if t.category == p.category and not t.crowd and iou > 0.5:
                tallies[t.category][0] += iou
                tallies[t.category][1] += 1
                hit.add(t.id)
                hits.add(p.id)
    for p in found.values():
        if p.id not in hits:
            excused = [t.id for t in truth.values() if t.crowd and t.category == p.category]
            inside = np.isin(truth_ids[found_ids == p.id], [0, *excused])
            tallies[p.category][2] += inside.mean() <= 0.5
    for t in truth.values():
        tallies[t.category][3] += t.id not in hit and not t.crowd
    return tallies


def check(metric: PanopticQuality, plain: Sequence[dict[int, list[float]]]) -> None:
    for category, tally in metric.tallies.items():
        expected = np.sum([tallies.get(category, [0, 0, 0, 0]) for tallies in plain], axis=0)
        assert [tally.hits, tally.false, tally.missed] == expected[1:].tolist()
        assert tally.iou == pytest.approx(expected[0], abs=1e-12)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6))
def test_pq_and_vpq_equal_a_plain_reading(seed: int) -> None:
    frames = list(clip(seed, 5))
    image, video = PanopticQuality(CATEGORIES), VideoPanopticQuality(CATEGORIES, (1, 2, 4))
    for truth, found in frames:
        image.add(segments(truth), segments(found))
        video.add("a", segments(truth), segments(found))
    check(image, [plain_tallies([pair]) for pair in frames])
    for length, quality in video.qualities.items():
        check(quality, [plain_tallies(frames[i : i + length]) for i in range(5 - length + 1)])
    assert video.result()["VPQ1"] == image.result()["PQ"]


def test_means_go_over_the_classes_that_occur() -> None:
    ids = np.array([[1, 1, 2, 2, 3, 3]])
    truth = Segments.of_ids(ids, [Segment(1, 3), Segment(2, 3), Segment(3, 9)])
    found = Segments.of_ids(np.array([[7, 7, 8, 0, 0, 0]]), [Segment(7, 3), Segment(8, 9)])
    metric = PanopticQuality(CATEGORIES)
    metric.add(truth, found)
    assert metric.per_class() == {3: {"PQ": 1 / 1.5, "SQ": 1, "RQ": 1 / 1.5}, 9: {"PQ": 0, "SQ": 0, "RQ": 0}}
    result = metric.result()
    assert (result["PQ"], result["PQ_th"], result["PQ_st"]) == pytest.approx((1 / 3, 2 / 3, 0))


@pytest.mark.parametrize(("step", "quality"), [(0, 1), (9, 0)])
def test_ids_may_differ_from_the_truth_but_tubes_need_them_to_last(step: int, quality: float) -> None:
    index = np.array([[1, 2, 2, 3, 0]])
    classes = 3, 3, 9
    metric = VideoPanopticQuality(CATEGORIES)
    for frame in range(6):
        sides = (
            Segments(index, tuple(Segment(first + i, category) for i, category in enumerate(classes)))
            for first in (1, 50 + step * frame)
        )
        metric.add("a", *sides)
    result = metric.result()
    assert (result["VPQ1"], result["VPQ2"], result["VPQ6"]) == (1, quality, quality)


def test_windows_do_not_reach_into_the_next_clip() -> None:
    metric = VideoPanopticQuality(CATEGORIES, (2,))
    for name in ("a", "b", "c"):
        metric.add(name, *map(segments, next(clip(1, 1))))
    assert np.isnan(metric.result()["VPQ2"])


def test_all_crowds_of_a_class_excuse_unless_as_reference() -> None:
    truth = Segments.of_ids(np.array([[1, 1, 2, 2, 2, 0]]), [Segment(1, 3, True), Segment(2, 3, True)])
    found = Segments.of_ids(np.array([[5, 5, 5, 0, 0, 0]]), [Segment(5, 3)])
    for reference, false in ((False, 0), (True, 1)):
        metric = PanopticQuality(CATEGORIES, reference=reference)
        metric.add(truth, found)
        assert metric.tallies[3].false == false


def test_maps_masks_and_lists_must_fit() -> None:
    masks = np.zeros((2, 3, 3), bool)
    masks[0, 0] = masks[1, 1] = True
    pair = [Segment(4, 3), Segment(6, 9)]
    ids = np.array([[4, 4, 4], [6, 6, 6], [0, 0, 0]], np.uint32)
    np.testing.assert_array_equal(Segments.of_masks(masks, pair).index, Segments.of_ids(ids, pair).index)
    with pytest.raises(InputError, match="segment 6 is in the picture but not in its list"):
        Segments.of_ids(ids, pair[:1])
    with pytest.raises(InputError, match="segment 6 overlaps"):
        Segments.of_masks(np.ones((2, 3, 3), bool), pair)
    with pytest.raises(InputError, match="segment id 4 is void or used twice"):
        Segments.of_masks(masks, [pair[0], pair[0]])
    with pytest.raises(InputError, match="class 5 is not one"):
        PanopticQuality(CATEGORIES).add(*[Segments.of_masks(masks[:1], [Segment(1, 5)])] * 2)
    with pytest.raises(InputError, match="truth is 3x3 and the prediction 3x2"):
        PanopticQuality(CATEGORIES).add(Segments.of_ids(ids, pair), Segments.of_ids(ids[:2], pair))
