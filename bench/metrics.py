"""Frames per second of the measures at 1080p beside the public tools' way, in the same run.

    python bench/metrics.py [--frames 24] [--only boundary,panoptic]

Both sides get the same masks, on one thread, and give the same numbers, which is checked. The public side is
written out here as the tool named in the last column works; what is in its files is given to it decoded.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import time
from collections.abc import Callable, Iterator
from itertools import product
from math import ceil
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as rle
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from x2roto.data.sample import Category
from x2roto.evaluate.metrics.average_precision import FoundInstances, FramePrecision, TrackPrecision, TrueInstances
from x2roto.evaluate.metrics.boundary import RegionBoundary, boundary
from x2roto.evaluate.metrics.panoptic import PanopticQuality, Segment, Segments, VideoPanopticQuality
from x2roto.evaluate.metrics.semantic import VideoConsistency

WIDTH, HEIGHT = 1920, 1080
OBJECTS = 8
CATEGORIES = tuple(Category(number, str(number)) for number in range(1, 5))
LENGTHS = (1, 2, 4, 6)
OFFSET = 256**3
Masks = NDArray[np.bool_]
Pair = tuple[Masks, Masks]
Numbers = dict[str, float]
# COCO's annotations of the truth and of a prediction.
Rows = tuple[list[dict[str, Any]], list[dict[str, Any]]]


def footage(count: int) -> list[Pair]:
    """Frames of wavy discs that move, (OBJECTS, H, W), and of a prediction that is a few pixels off."""
    random = np.random.default_rng(0)
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.float32)
    x, y, radius = (random.uniform(*span, OBJECTS) for span in ((200, 1700), (200, 880), (40, 160)))

    def discs(shift: float, waves: float) -> Masks:
        masks = np.zeros((OBJECTS, HEIGHT, WIDTH), bool)
        for mask, cx, cy, r in zip(masks, x + shift, y, radius, strict=True):
            angle = np.arctan2(rows - cy, columns - cx)
            mask[:] = np.hypot(rows - cy, columns - cx) < r * (1 + 0.1 * np.sin(waves * angle))
        return masks

    return [(discs(3 * index, 9), discs(3 * index + 4, 10)) for index in range(count)]


# ---- J and F


def ours_boundary(frames: list[Pair]) -> Numbers:
    metric = RegionBoundary()
    for truth, found in frames:
        metric.add("0", truth[0], found[0])
    return metric.result()


def davis(frames: list[Pair]) -> Numbers:
    """One object, its boundaries dilated by a disc over the whole picture."""
    radius = ceil(0.008 * np.linalg.norm((HEIGHT, WIDTH)))
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    disc = (x * x + y * y <= radius * radius).astype(np.uint8)
    values = []
    for truth, found in ((truth[0], found[0]) for truth, found in frames):
        wanted, given = boundary(truth), boundary(found)
        near, close = (cv2.dilate(edge.astype(np.uint8), disc) for edge in (wanted, given))
        precision, recall = np.sum(given * near) / np.sum(given), np.sum(wanted * close) / np.sum(wanted)
        region = np.sum(truth & found) / np.sum(truth | found)
        values.append((region, 2 * precision * recall / (precision + recall)))
    region, edge = np.mean(values, axis=0)
    return {"J": region, "F": edge, "J&F": (region + edge) / 2}


# ---- panoptic


def painted(masks: Masks) -> NDArray[np.int32]:
    """Ids 1 to OBJECTS of the last mask at every pixel, 0 for none."""
    return (masks * np.arange(1, OBJECTS + 1, dtype=np.int32)[:, None, None]).max(0)


def listed(ids: NDArray[np.int32]) -> list[Segment]:
    return [Segment(int(id), 1 + int(id) % len(CATEGORIES)) for id in np.unique(ids) if id]


def maps(frames: list[Pair]) -> list[tuple[tuple[NDArray[np.int32], list[Segment]], ...]]:
    return [tuple((ids, listed(ids)) for ids in map(painted, pair)) for pair in frames]


def ours_image(pairs: list[Any]) -> Numbers:
    metric = PanopticQuality(CATEGORIES)
    for truth, found in pairs:
        metric.add(Segments.of_ids(*truth), Segments.of_ids(*found))
    return {"PQ": metric.result()["PQ"]}


def ours_video(pairs: list[Any]) -> Numbers:
    metric = VideoPanopticQuality(CATEGORIES, LENGTHS)
    for truth, found in pairs:
        metric.add("0", Segments.of_ids(*truth), Segments.of_ids(*found))
    return {f"VPQ{length}": metric.result()[f"VPQ{length}"] for length in LENGTHS}


def panopticapi(windows: list[list[Any]]) -> float:
    """Pairs of ids counted by sorting all pixels of a window, areas by another sort, then a loop over the pairs."""
    tallies = {category.id: [0.0, 0, 0, 0] for category in CATEGORIES}
    for window in windows:
        truth, found = (np.stack([pair[side][0] for pair in window]).astype(np.uint64) for side in (0, 1))
        sides = [{s.id: s.category for pair in window for s in pair[side][1]} for side in (0, 1)]
        areas = [dict(zip(*map(np.ndarray.tolist, np.unique(ids, return_counts=True)), strict=True))
                 for ids in (truth, found)]  # fmt: skip
        joint = zip(*np.unique(truth * OFFSET + found, return_counts=True), strict=True)
        shared = {divmod(int(both), OFFSET): int(count) for both, count in joint}
        hits = []
        for (t, f), count in shared.items():
            if t and f and sides[0][t] == sides[1][f]:
                iou = count / (areas[0][t] + areas[1][f] - count - shared.get((0, f), 0))
                if iou > 0.5:
                    hits.append((t, f))
                    tallies[sides[0][t]][0] += iou
                    tallies[sides[0][t]][1] += 1
        for f, category in sides[1].items():
            tallies[category][2] += f not in {f for _, f in hits} and shared.get((0, f), 0) / areas[1][f] <= 0.5
        for t, category in sides[0].items():
            tallies[category][3] += t not in {t for t, _ in hits}
    return float(np.mean([iou / (tp + fp / 2 + fn / 2) for iou, tp, fp, fn in tallies.values() if tp + fp + fn]))


def public_image(pairs: list[Any]) -> Numbers:
    return {"PQ": panopticapi([[pair] for pair in pairs])}


def public_video(pairs: list[Any]) -> Numbers:
    return {
        f"VPQ{length}": panopticapi([pairs[i : i + length] for i in range(len(pairs) - length + 1)])
        for length in LENGTHS
        if len(pairs) >= length
    }


# ---- consistency


def ours_consistency(pairs: list[Any]) -> Numbers:
    metric = VideoConsistency((8,), reference=True)
    for truth, found in pairs:
        metric.add("0", truth[0], found[0])
    return metric.result()


def vspw(pairs: list[Any]) -> Numbers:
    """Every window compared with its first frame anew."""
    values = []
    for start in range(len(pairs) - 8):
        kept = [np.ones((HEIGHT, WIDTH), bool) for _ in range(2)]
        for later, side in product(range(1, 8), (0, 1)):
            kept[side] = np.logical_and(kept[side], pairs[start][side][0] == pairs[start + later][side][0])
        values.append((kept[0] & kept[1]).sum() / (kept[0].sum() + 1e-6))
    return {"mVC8": float(np.mean(values)) if values else float("nan")}


# ---- average precision


def instances(frames: list[Pair]) -> Iterator[tuple[TrueInstances, FoundInstances]]:
    order = np.arange(OBJECTS)
    classes = 1 + order % len(CATEGORIES)
    for truth, found in frames:
        yield (
            TrueInstances(truth, classes, np.zeros(OBJECTS, bool), order),
            FoundInstances(found, classes, order / OBJECTS, order),
        )


def ours_frames(frames: list[Pair]) -> Numbers:
    metric = FramePrecision([category.id for category in CATEGORIES])
    for index, pair in enumerate(instances(frames)):
        metric.add(index, *pair)
    return {name: metric.result()[name] for name in ("AP", "AP50")}


def ours_tracks(frames: list[Pair]) -> Numbers:
    metric = TrackPrecision([category.id for category in CATEGORIES])
    for pair in instances(frames):
        metric.add("0", *pair)
    return {name: metric.result()[name] for name in ("AP", "AP50")}


def encoded(masks: Masks) -> list[dict[str, Any]]:
    return [rle.encode(np.asfortranarray(mask.astype(np.uint8))) for mask in masks]


def public_frames(frames: list[Pair]) -> Numbers:
    rows: Rows = ([], [])
    for image, pair in enumerate(frames):
        for side, masks in enumerate(pair):
            for number, mask in enumerate(encoded(masks)):
                category = 1 + number % len(CATEGORIES)
                rows[side].append({"image_id": image, "category_id": category, "segmentation": mask})
                rows[side][-1] |= {"score": number / OBJECTS} if side else {"area": rle.area(mask), "iscrowd": 0}
    return coco_summary(len(frames), rows)


def coco_summary(images: int, rows: Rows, of: type = COCOeval) -> Numbers:
    coco = COCO()
    coco.dataset = {
        "info": {},
        "images": [{"id": image, "height": HEIGHT, "width": WIDTH} for image in range(images)],
        "annotations": [{**row, "id": number} for number, row in enumerate(rows[0], 1)],
        "categories": [{"id": category.id} for category in CATEGORIES],
    }
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
        evaluation = of(coco, coco.loadRes(rows[1]), "segm")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return {"AP": float(evaluation.stats[0]), "AP50": float(evaluation.stats[1])}


class TubeEvaluation(COCOeval):
    """As the YouTube-VIS toolkit: run lengths of all frames, merged frame by frame for every pair of tracks."""

    def computeIoU(self, imgId: int, catId: int) -> Any:  # noqa: N802, N803
        truth, found = self._gts[imgId, catId], self._dts[imgId, catId]
        found = [found[i] for i in np.argsort([-row["score"] for row in found], kind="mergesort")]
        ious = np.zeros((len(found), len(truth)))
        for i, j in np.ndindex(ious.shape):
            pairs = list(zip(found[i]["tube"], truth[j]["tube"], strict=True))
            shared = sum(rle.area(rle.merge(list(pair), True)) for pair in pairs)
            ious[i, j] = shared / sum(rle.area(rle.merge(list(pair), False)) for pair in pairs)
        return ious


def public_tracks(frames: list[Pair]) -> Numbers:
    sides = [[encoded(pair[side]) for pair in frames] for side in (0, 1)]
    rows: Rows = ([], [])
    for side, number in product((0, 1), range(OBJECTS)):
        tube = [frame[number] for frame in sides[side]]
        row = {"image_id": 0, "category_id": 1 + number % len(CATEGORIES), "segmentation": tube[0], "tube": tube}
        rows[side].append(row | ({"score": number / OBJECTS} if side else {"area": rle.area(tube[0]), "iscrowd": 0}))
    return coco_summary(1, rows, TubeEvaluation)


# Name: what it needs made of the frames, ours, the public way and its name.
ROWS: dict[str, tuple[Callable[..., Any], Callable[..., Numbers], Callable[..., Numbers], str]] = {
    "boundary": (list, ours_boundary, davis, "DAVIS toolkit: cv2.dilate by a disc"),
    "panoptic": (maps, ours_image, public_image, "panopticapi: np.unique of pairs"),
    "video panoptic": (maps, ours_video, public_video, "VPSNet: np.unique of every window, k = 1, 2, 4, 6"),
    "consistency": (maps, ours_consistency, vspw, "VSPW: every window anew, n = 8"),
    "frame AP": (list, ours_frames, public_frames, "pycocotools"),
    "track AP": (list, ours_tracks, public_tracks, "YouTube-VIS toolkit: run lengths merged pair by pair"),
}


def timed(run: Callable[[Any], Numbers], given: Any) -> tuple[float, Numbers]:
    """The fastest of three runs in seconds, and what they gave."""
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        numbers = run(given)
        seconds.append(time.perf_counter() - start)
    return min(seconds), numbers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=24)
    parser.add_argument("--only", default=",".join(ROWS))
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    frames = footage(arguments.frames)
    print(f"{arguments.frames} frames of {WIDTH}x{HEIGHT}, {OBJECTS} objects, one thread")
    print(f"{'measure':15} {'frames/s':>9} {'public':>9} {'ratio':>6}  {'differs':>8}  public way")
    for name in arguments.only.split(","):
        prepare, ours, public, label = ROWS[name]
        given = prepare(frames)
        (mine, found), (other, expected) = timed(ours, given), timed(public, given)
        worst = max(abs(found[key] - expected[key]) for key in expected)
        speeds = arguments.frames / mine, arguments.frames / other
        print(f"{name:15} {speeds[0]:9.1f} {speeds[1]:9.1f} {other / mine:6.2f}  {worst:8.0e}  {label}", flush=True)


if __name__ == "__main__":
    main()
