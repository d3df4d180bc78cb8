"""Average precision of instances, as pycocotools and the YouTube-VIS toolkit compute it."""

from __future__ import annotations

import contextlib
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from math import fsum, nan

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as rle
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from x2roto.errors import InputError
from x2roto.evaluate.metrics import Metric, State
from x2roto.evaluate.metrics.region import Masks, areas, intersections

NAMES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
# Sides of squares that part small, medium and large tracks (github.com/youtubevos/cocoapi, ytvoseval.py).
TRACK_SIDES = (128, 256)
Unit = str | int


@dataclass(frozen=True, slots=True, eq=False)
class TrueInstances:
    """What is on a frame: masks (n, H, W), class ids, whether a crowd, identities, each (n,).

    `areas`: the sizes by which a data set sorts its objects, when not their pixels; (n,).
    """

    masks: Masks
    categories: NDArray[np.int64]
    crowd: NDArray[np.bool_]
    identities: NDArray[np.int64]
    areas: NDArray[np.float64] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class FoundInstances:
    """What is predicted on a frame: masks (n, H, W), class ids, scores and identities, each (n,)."""

    masks: Masks
    categories: NDArray[np.int64]
    scores: NDArray[np.floating]
    identities: NDArray[np.int64]


class FramePrecision(Metric):
    """Mask AP and AR of COCO, on single frames; classes that are not in `categories` do not count.

    `reference`: frames without a prediction are left out. Its way of pooling frames of different videos that have
    the same number is had by giving them the same `unit`.
    """

    def __init__(self, categories: Sequence[int], *, reference: bool = False) -> None:
        self.categories = sorted(categories)
        self.reference = reference
        self.units: dict[Unit, tuple[list[State], list[State]]] = {}

    def add(self, unit: Unit, truth: TrueInstances, prediction: FoundInstances) -> None:
        """A frame named `unit`; all that is added under one name counts as one frame."""
        coded = _encoded(truth.masks)
        sizes = map(rle.area, coded) if truth.areas is None else truth.areas
        facts = zip(coded, truth.categories, truth.crowd, sizes, strict=True)
        wanted = [
            {"segmentation": mask, "category_id": int(category), "iscrowd": int(crowd), "area": float(size)}
            for mask, category, crowd, size in facts
        ]
        ranked = zip(_encoded(prediction.masks), prediction.categories, prediction.scores, strict=True)
        found = [
            {"segmentation": mask, "category_id": int(category), "score": float(score)}
            for mask, category, score in ranked
        ]
        self._extend(unit, wanted, found)

    def _extend(self, unit: Unit, wanted: Sequence[State], found: Sequence[State]) -> None:
        kept = self.units.setdefault(unit, ([], []))
        kept[0].extend(wanted)
        kept[1].extend(found)

    def result(self) -> dict[str, float]:
        units = sorted(unit for unit, (_, found) in self.units.items() if found or not self.reference)
        truth = [{**row, "image_id": i} for i, unit in enumerate(units) for row in self.units[unit][0]]
        found = [{**row, "image_id": i} for i, unit in enumerate(units) for row in self.units[unit][1]]
        sized = [{**row, "area": int(rle.area(row["segmentation"])), "iscrowd": 0} for row in found]
        return _summary(_evaluator("segm", len(units), self.categories, truth, sized))

    def state(self) -> State:
        return {"units": [[unit, *rows] for unit, rows in self.units.items()]}

    def absorb(self, state: State) -> None:
        for unit, wanted, found in state["units"]:
            self._extend(unit, wanted, found)


@dataclass(slots=True)
class _Track:
    """An object or a prediction in a clip. `area`: its pixels on all frames. `frames`: those it is seen on."""

    category: int
    identity: int
    crowd: bool = False
    area: int = 0
    frames: int = 0
    scores: list[float] = field(default_factory=list)


@dataclass(slots=True)
class _Clip:
    """Its tracks, and the pixels that a true and a found one, by their places in the lists, share."""

    truth: list[_Track] = field(default_factory=list)
    found: list[_Track] = field(default_factory=list)
    shared: Counter[tuple[int, int]] = field(default_factory=Counter)

    def iou(self, row: int, column: int) -> float:
        """Of a true and a found track; the share of the found one if the true one is a crowd, as in COCO."""
        shared, truth, found = self.shared[row, column], self.truth[row], self.found[column]
        whole = found.area if truth.crowd else truth.area + found.area - shared
        return shared / max(whole, 1)


class TrackPrecision(Metric):
    """AP and AR of tracks (Yang et al., ICCV 2019): the IoU of two is over all frames of the clip together.

    A track is what has one class and one identity. Its score is the mean of its frames', its size the mean of the
    frames it is seen on; small, medium and large part at 128 and 256 pixels squared.
    """

    def __init__(self, categories: Sequence[int]) -> None:
        self.categories = sorted(categories)
        self.clips: dict[str, _Clip] = {}

    def add(self, clip: str, truth: TrueInstances, prediction: FoundInstances) -> None:
        """A frame of a clip. Raises InputError when one of its tracks is there twice."""
        seen = self.clips.setdefault(clip, _Clip())
        rows = _places(seen.truth, truth.categories, truth.identities, areas(truth.masks))
        columns = _places(seen.found, prediction.categories, prediction.identities, areas(prediction.masks))
        for row, crowd in zip(rows, truth.crowd, strict=True):
            seen.truth[row].crowd |= bool(crowd)
        for column, score in zip(columns, prediction.scores, strict=True):
            seen.found[column].scores.append(float(score))
        shared = intersections(truth.masks, prediction.masks)
        for i, j in zip(*shared.nonzero(), strict=True):
            seen.shared[rows[i], columns[j]] += int(shared[i, j])

    def result(self) -> dict[str, float]:
        clips = [self.clips[name] for name in sorted(self.clips)]
        truth = [row for number, clip in enumerate(clips) for row in _rows(number, clip.truth)]
        found = [row for number, clip in enumerate(clips) for row in _rows(number, clip.found)]
        evaluator = _evaluator("bbox", len(clips), self.categories, truth, found, of=_TrackEvaluator)
        evaluator.clips = clips
        small, large = (side * side for side in TRACK_SIDES)
        evaluator.params.areaRng = [[0, 1e10], [0, small], [small, large], [large, 1e10]]
        return _summary(evaluator)

    def state(self) -> State:
        return {
            name: {
                "truth": [asdict(track) for track in clip.truth],
                "found": [asdict(track) for track in clip.found],
                "shared": [[*pair, pixels] for pair, pixels in clip.shared.items()],
            }
            for name, clip in self.clips.items()
        }

    def absorb(self, state: State) -> None:
        twice = state.keys() & self.clips.keys()
        if twice:
            raise InputError(f"clip {min(twice)!r} is in two shards: evaluate every clip once")
        for name, clip in state.items():
            truth, found = ([_Track(**track) for track in clip[side]] for side in ("truth", "found"))
            self.clips[name] = _Clip(truth, found, Counter({(i, j): n for i, j, n in clip["shared"]}))


def _places(
    tracks: list[_Track], categories: NDArray[np.int64], identities: NDArray[np.int64], sizes: NDArray[np.int64]
) -> list[int]:
    """Where in `tracks` the instances of a frame are, new ones added; their sizes are counted."""
    known = {(track.category, track.identity): place for place, track in enumerate(tracks)}
    places = []
    for category, identity, size in zip(categories.tolist(), identities.tolist(), sizes.tolist(), strict=True):
        place = known.setdefault((category, identity), len(tracks))
        if place == len(tracks):
            tracks.append(_Track(category, identity))
        elif place in places:
            raise InputError(f"object {identity} of class {category} is twice on a frame: identities must be unique")
        tracks[place].area += size
        tracks[place].frames += size > 0
        places.append(place)
    return places


def _rows(clip: int, tracks: Sequence[_Track]) -> list[State]:
    return [
        {
            "image_id": clip,
            "category_id": track.category,
            "iscrowd": int(track.crowd),
            "area": track.area / max(track.frames, 1),
            "score": fsum(track.scores) / max(len(track.scores), 1),
            "place": place,
        }
        for place, track in enumerate(tracks)
    ]


class _TrackEvaluator(COCOeval):
    """pycocotools' matching and averaging on IoUs that are known already."""

    clips: Sequence[_Clip] = ()

    def computeIoU(self, imgId: int, catId: int) -> NDArray[np.float64]:  # noqa: N802, N803
        truth, found = self._gts[imgId, catId], self._dts[imgId, catId]
        ranked = sorted(found, key=lambda row: -row["score"])[: self.params.maxDets[-1]]
        clip = self.clips[imgId]
        pairs = [[clip.iou(row["place"], column["place"]) for row in truth] for column in ranked]
        return np.array(pairs).reshape(len(ranked), len(truth))


def _encoded(masks: Masks) -> list[State]:
    """Run lengths of masks (n, H, W), as COCO's files have them."""
    coded = [rle.encode(np.asfortranarray(mask.view(np.uint8))) for mask in masks]
    return [{"size": list(map(int, mask["size"])), "counts": mask["counts"].decode("ascii")} for mask in coded]


def _evaluator(
    kind: str,
    units: int,
    categories: Sequence[int],
    truth: Sequence[State],
    found: Sequence[State],
    of: type[COCOeval] = COCOeval,
) -> COCOeval:
    # Sizes are for polygons only, which there are none of.
    images = [{"id": unit, "height": 0, "width": 0} for unit in range(units)]
    listed = [{"id": category} for category in categories]
    return of(*(_coco(images, listed, rows) for rows in (truth, found)), kind)


def _coco(images: list[State], categories: list[State], rows: Sequence[State]) -> COCO:
    coco = COCO()
    # pycocotools takes number 0 for no match.
    annotations = [{**row, "id": number} for number, row in enumerate(rows, start=1)]
    coco.dataset = {"images": images, "categories": categories, "annotations": annotations}
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
    return coco


def _summary(evaluator: COCOeval) -> dict[str, float]:
    with contextlib.redirect_stdout(io.StringIO()):
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    return {name: float(value) if value >= 0 else nan for name, value in zip(NAMES, evaluator.stats, strict=True)}
