"""AP of frames against pycocotools on files, AP of tracks against a plain reading of its definition."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from math import fsum

import numpy as np
import pytest
from numpy.typing import NDArray

from x2roto.errors import InputError

rle = pytest.importorskip("pycocotools.mask", reason="average precision needs pycocotools")
from pycocotools.coco import COCO  # noqa: E402
from pycocotools.cocoeval import COCOeval  # noqa: E402

from x2roto.evaluate.metrics.average_precision import (  # noqa: E402
    NAMES,
    FoundInstances,
    FramePrecision,
    TrackPrecision,
    TrueInstances,
)

Masks = NDArray[np.bool_]
Pair = tuple[TrueInstances, FoundInstances]
CLASSES = (2, 5, 9)


def discs(random: np.random.Generator, centres: NDArray[np.float64], radii: NDArray[np.float64]) -> Masks:
    y, x = np.mgrid[:90, :120]
    return np.hypot(y - centres[:, :1, None], x - centres[:, 1:, None]) < radii[:, None, None]


def clip(seed: int, frames: int, crowd: float = 0.2) -> Iterator[Pair]:
    """Discs that move; predictions are near them, some doubled, some of another class, some of nothing."""
    random = np.random.default_rng(seed)
    count = int(random.integers(1, 6))
    centres, radii = random.uniform(10, 90, (count, 2)), random.choice([5.0, 20, 40], count)
    truth = random.choice(CLASSES, count), random.random(count) < crowd, np.arange(count) + 4
    origin = random.choice(count, count + 2)
    guesses = np.where(random.random(count + 2) < 0.8, truth[0][origin], random.choice([*CLASSES, 77], count + 2))
    offsets, scores = random.normal(0, 2, (count + 2, 2)), random.random((frames, count + 2)).round(1)
    for frame in range(frames):
        moved = centres + 2 * frame
        found = discs(random, moved[origin] + offsets, radii[origin] * random.uniform(0.8, 1.2, count + 2))
        yield (
            TrueInstances(discs(random, moved, radii), *truth),
            FoundInstances(found, guesses, scores[frame], np.arange(count + 2) + 30),
        )


def coco_stats(frames: list[Pair]) -> list[float]:
    """By pycocotools, from what would be in the two files."""
    truth, found = [], []
    for image, (wanted, given) in enumerate(frames):
        for mask, category, crowd in zip(wanted.masks, wanted.categories, wanted.crowd, strict=True):
            truth.append({"image_id": image, "category_id": int(category), "iscrowd": int(crowd), **coded(mask)})
        for mask, category, score in zip(given.masks, given.categories, given.scores, strict=True):
            found.append({"image_id": image, "category_id": int(category), "score": float(score), **coded(mask)})
    coco = COCO()
    coco.dataset = {
        "info": {},
        "images": [{"id": image, "height": 90, "width": 120} for image in range(len(frames))],
        "annotations": [{**row, "id": number} for number, row in enumerate(truth, 1)],
        "categories": [{"id": category} for category in CLASSES],
    }
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(found), "segm")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return [value if value >= 0 else float("nan") for value in evaluation.stats]


def coded(mask: Masks) -> dict[str, object]:
    run = rle.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"segmentation": run, "area": int(mask.sum())}


@pytest.mark.parametrize("seed", range(4))
def test_frames_equal_pycocotools(seed: int) -> None:
    frames = [pair for one in range(5) for pair in clip(100 * seed + one, 3)]
    metric = FramePrecision(CLASSES)
    for index, pair in enumerate(frames):
        metric.add(index, *pair)
    result = metric.result()
    assert list(result) == list(NAMES)
    assert list(result.values()) == pytest.approx(coco_stats(frames), abs=1e-12, nan_ok=True)
    assert 0.05 < result["AP"] < 0.95


def test_frames_without_prediction_are_left_out_as_reference() -> None:
    truth, found = next(clip(1, 1, crowd=0))
    nothing = FoundInstances(found.masks[:0], found.categories[:0], found.scores[:0], found.identities[:0])
    metrics = FramePrecision(CLASSES), FramePrecision(CLASSES, reference=True)
    for metric in metrics:
        metric.add("a", truth, FoundInstances(truth.masks, truth.categories, np.ones(len(truth.masks)), np.arange(9)))
        metric.add("b", truth, nothing)
    assert metrics[1].result()["AR100"] == 1
    assert metrics[0].result()["AR100"] == pytest.approx(0.5)


def test_frames_of_one_name_are_pooled() -> None:
    first, second = clip(5, 2, crowd=0)
    pooled = FramePrecision(CLASSES)
    for pair in (first, second):
        pooled.add(7, *pair)
    joined = FramePrecision(CLASSES)
    sides = [
        [np.concatenate([getattr(pair[side], name) for pair in (first, second)]) for name in names]
        for side, names in enumerate((("masks", "categories", "crowd", "identities"),
                                      ("masks", "categories", "scores", "identities")))
    ]  # fmt: skip
    joined.add(7, TrueInstances(*sides[0]), FoundInstances(*sides[1]))
    assert pooled.result() == pytest.approx(joined.result(), nan_ok=True)


def test_given_sizes_sort_objects() -> None:
    truth, found = next(clip(2, 1, crowd=0))
    large = TrueInstances(
        truth.masks, truth.categories, truth.crowd, truth.identities, np.full(len(truth.masks), 1e5)
    )
    metric = FramePrecision(CLASSES)
    metric.add(0, large, found)
    result = metric.result()
    assert np.isnan(result["APs"])
    assert result["ARl"] == result["AR100"]


def plain_track_ap(clips: list[list[Pair]], category: int, threshold: float) -> float:
    """Average precision of one class at one IoU: 101 points, tracks by score, each to the best left over."""
    ranked, wanted = [], 0
    for number, frames in enumerate(clips):
        truth, found = frames[0]
        rows, columns = np.flatnonzero(truth.categories == category), np.flatnonzero(found.categories == category)
        wanted += len(rows)
        for column in columns:
            score = fsum(given.scores[column] for _, given in frames)
            given = np.stack([given.masks[column] for _, given in frames])
            masks = {row: np.stack([true.masks[row] for true, _ in frames]) for row in rows}
            ious = {(number, row): (m & given).sum() / (m | given).sum() for row, m in masks.items()}
            ranked.append((score, ious))
    taken: set[tuple[int, int]] = set()
    hits = []
    for _, ious in sorted(ranked, key=lambda item: -item[0]):
        left = {place: iou for place, iou in ious.items() if place not in taken and iou >= threshold}
        best = max(left, key=lambda place: left[place], default=None)
        hits.append(best is not None)
        if best is not None:
            taken.add(best)
    recall = np.cumsum(hits) / wanted
    precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
    return float(np.mean([precision[recall >= r].max(initial=0) for r in np.linspace(0, 1, 101)]))


@pytest.mark.parametrize("seed", range(4))
def test_tracks_equal_a_plain_reading(seed: int) -> None:
    clips = [list(clip(50 * seed + one, 4, crowd=0)) for one in range(6)]
    metric = TrackPrecision(CLASSES)
    for number, frames in enumerate(clips):
        for pair in frames:
            metric.add(str(number), *pair)
    result = metric.result()
    there = sorted({int(one) for frames in clips for one in frames[0][0].categories})
    for name, threshold in (("AP50", 0.5), ("AP75", 0.75)):
        expected = np.mean([plain_track_ap(clips, category, threshold) for category in there])
        assert result[name] == pytest.approx(expected, abs=1e-9)


def test_tracks_of_one_frame_are_frames_but_for_their_sizes() -> None:
    frames, tracks = FramePrecision(CLASSES), TrackPrecision(CLASSES)
    for seed in range(6):
        (pair,) = clip(seed, 1)
        frames.add(str(seed), *pair)
        tracks.add(str(seed), *pair)
    overall = [name for name in NAMES if name[-1] not in "sml"]
    assert [tracks.result()[name] for name in overall] == [frames.result()[name] for name in overall]


def test_the_size_of_a_track_is_its_mean_where_it_is_seen() -> None:
    masks = np.zeros((1, 200, 200), bool)
    seen = masks.copy()
    seen[0, :150, :150] = True  # 150 squared is medium, half of it small
    facts = np.array([2]), np.array([False]), np.array([1])
    metric = TrackPrecision(CLASSES)
    for shape in (seen, masks):
        metric.add("a", TrueInstances(shape, *facts), FoundInstances(shape, facts[0], np.array([0.5]), facts[2]))
    result = metric.result()
    assert result["APm"] == pytest.approx(1)
    assert np.isnan(result["APs"])
    assert np.isnan(result["APl"])


def test_a_swapped_identity_is_half_a_track() -> None:
    (pair, *_) = clip(3, 1, crowd=0)
    truth = TrueInstances(pair[0].masks[:1], np.array([2]), np.array([False]), np.array([1]))
    metric = TrackPrecision(CLASSES)
    for name in (8, 8, 8, 9, 9):
        metric.add("a", truth, FoundInstances(truth.masks, np.array([2]), np.array([1.0]), np.array([name])))
    result = metric.result()
    assert (result["AP50"], result["AP75"]) == (pytest.approx(1), 0)


def test_a_track_twice_on_a_frame_is_refused() -> None:
    truth, found = next(clip(3, 1))
    double = FoundInstances(found.masks, found.categories * 0 + 2, found.scores, found.identities * 0)
    with pytest.raises(InputError, match="object 0 of class 2 is twice on a frame"):
        TrackPrecision(CLASSES).add("a", truth, double)


def test_nothing_to_find_is_not_a_number() -> None:
    for metric in (FramePrecision(CLASSES), TrackPrecision(CLASSES)):
        assert all(np.isnan(value) for value in metric.result().values())
