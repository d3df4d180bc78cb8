"""STQ against a pixel by pixel reading of its definition; identity switches by hand."""

from __future__ import annotations

from math import sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.unit.evaluate.panoptic_clips import CATEGORIES, Frame, clip, segments
from x2roto.data.sample import Category
from x2roto.errors import InputError
from x2roto.evaluate.metrics.panoptic import Segment, Segments
from x2roto.evaluate.metrics.tracking import IdentitySwitches, SegmentationTrackingQuality

THINGS = [category.id for category in CATEGORIES if category.thing]


def classes_of(frame: Frame) -> NDArray[np.int64]:
    """The class at every pixel, -1 for none."""
    ids, listed = frame
    return np.select([ids == segment.id for segment in listed], [segment.category for segment in listed], -1)


def plain_stq(frames: list[tuple[Frame, Frame]]) -> dict[str, float]:
    truth_ids, found_ids = (np.stack([pair[side][0] for pair in frames]) for side in (0, 1))
    truth_class, found_class = (np.stack([classes_of(pair[side]) for pair in frames]) for side in (0, 1))
    crowd = {s.id for (_, listed), _ in frames for s in listed if s.crowd and s.category in THINGS}
    counted = (truth_class >= 0) & ~np.isin(truth_ids, list(crowd))
    tubes = [truth_ids == id for id in np.unique(truth_ids[counted & np.isin(truth_class, THINGS)])]
    found = [counted & (found_ids == id) for id in np.unique(found_ids[np.isin(found_class, THINGS)])]
    total = 0.0
    for tube in tubes:
        total += sum((tube & f).sum() * ((tube & f).sum() / (tube | f).sum()) for f in found) / tube.sum()
    labelled = truth_class >= 0
    ious = []
    for category in np.unique([truth_class[labelled], found_class[labelled]]):
        a, b = labelled & (truth_class == category), labelled & (found_class == category)
        ious.append((a & b).sum() / (a | b).sum())
    association = total / len(tubes) if tubes else float("nan")
    return {"STQ": sqrt(association * np.mean(ious)), "AQ": association, "SQ": float(np.mean(ious))}


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6))
def test_stq_equals_a_plain_reading(seed: int) -> None:
    frames = list(clip(seed, 4))
    metric = SegmentationTrackingQuality(CATEGORIES)
    for truth, found in frames:
        metric.add("a", segments(truth), segments(found))
    expected = plain_stq(frames)
    assert metric.result() == pytest.approx(expected, abs=1e-12, nan_ok=True)
    assert metric.per_clip()["a"] == pytest.approx(expected, abs=1e-12, nan_ok=True)


def test_changing_ids_lower_association_only() -> None:
    index = np.repeat([[1, 2]], 8, 1)
    metric = SegmentationTrackingQuality(CATEGORIES)
    for frame in range(4):
        truth = Segments(index, (Segment(1, 3), Segment(2, 9)))
        metric.add("a", truth, Segments(index, (Segment(5 + frame // 2, 3), Segment(2, 9))))
    assert metric.result() == pytest.approx({"STQ": sqrt(0.5), "AQ": 0.5, "SQ": 1})


def test_reference_takes_the_first_segment_for_crowd() -> None:
    index = np.array([[1, 1, 2, 2]])
    listed = Segment(7, 1), Segment(8, 0)
    frame = Segments(index, listed)
    half = Segments(np.array([[1, 1, 2, 0]]), listed)
    things = [Category(id, str(id)) for id in (0, 1)]
    metrics = SegmentationTrackingQuality(things), SegmentationTrackingQuality(things, reference=True)
    for metric in metrics:
        metric.add("a", frame, half)
    assert [metric.result()["AQ"] for metric in metrics] == pytest.approx([0.625, 0.25])


def test_a_clip_in_two_shards_and_an_unknown_class_are_refused() -> None:
    metric = SegmentationTrackingQuality(CATEGORIES)
    frame = Segments(np.ones((2, 2), np.int64), (Segment(1, 3),))
    metric.add("a", frame, frame)
    with pytest.raises(InputError, match="clip 'a' is in two shards"):
        metric.merge(metric)
    with pytest.raises(InputError, match="class 77"):
        metric.add("a", frame, Segments(frame.index, (Segment(1, 77),)))


# ---- identity switches


def boxes(*columns: int) -> NDArray[np.bool_]:
    """A mask of four columns from each of `columns` on."""
    masks = np.zeros((len(columns), 6, 60), bool)
    for mask, column in zip(masks, columns, strict=True):
        mask[:, column : column + 4] = True
    return masks


def switches(*frames: tuple[list[int], list[int], list[int]]) -> float:
    """Frames of where two objects, 1 and 2, are, where predictions are, and what those are called."""
    metric = IdentitySwitches()
    for places, found, names in frames:
        metric.add("a", boxes(*places), np.arange(1, len(places) + 1), boxes(*found), np.array(names, np.int64))
    return metric.result()["IDSW"]


def test_a_crossing_is_two_switches_when_names_are_left_behind() -> None:
    assert switches(([0, 20], [0, 20], [5, 6]), ([20, 0], [20, 0], [5, 6])) == 0
    assert switches(([0, 20], [0, 20], [5, 6]), ([20, 0], [0, 20], [5, 6])) == 2


def test_a_gap_does_not_forget_the_name() -> None:
    gap: tuple[list[int], list[int], list[int]] = ([0, 20], [], [])
    first = ([0, 20], [0, 20], [5, 6])
    assert switches(first, gap, first) == 0
    assert switches(first, gap, ([0, 20], [0, 20], [5, 7])) == 1


def test_the_last_partner_is_kept_while_it_overlaps_by_half() -> None:
    assert switches(([0], [0], [5]), ([0], [1, 0], [5, 8])) == 0
    assert switches(([0], [0], [5]), ([0], [2, 0], [5, 8])) == 1


def test_clips_are_apart_and_rates_are_per_object() -> None:
    metric = IdentitySwitches()
    for name in ("a", "b"):
        for called in (5, 6):
            metric.add(name, boxes(0, 20), np.array([1, 2]), boxes(0), np.array([called]))
    assert metric.result() == {"IDSW": 2, "IDSW/object": 1}
