"""How well objects are followed: segmentation and tracking quality, and identity switches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import fsum, nan, sqrt

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from x2roto.data.sample import Category
from x2roto.errors import InputError
from x2roto.evaluate.metrics import Metric, State
from x2roto.evaluate.metrics.panoptic import Overlap, Segment, Segments, Tube
from x2roto.evaluate.metrics.region import Masks, pairwise_iou


@dataclass(slots=True)
class _Clip:
    """What one clip adds to STQ: pixels by class, and by tube, a class and an id."""

    confusion: NDArray[np.int64]
    first: int | None = None
    truth: Counter[Tube] = field(default_factory=Counter)
    prediction: Counter[Tube] = field(default_factory=Counter)
    shared: Counter[tuple[Tube, Tube]] = field(default_factory=Counter)

    def association(self) -> float:
        """The sum over true tubes of how purely and completely they are followed."""
        parts = (
            shared * shared / (self.truth[truth] * (self.truth[truth] + self.prediction[found] - shared))
            for (truth, found), shared in self.shared.items()
        )
        return fsum(parts)


class SegmentationTrackingQuality(Metric):
    """STQ, AQ and SQ (Weber et al., NeurIPS 2021, arXiv 2102.11859), as DeepLab2 computes them.

    AQ: over thing tubes that are no crowd; what is predicted on void or crowd is not held against it. SQ: mean IoU
    over what occurs; unlabelled prediction counts there as a class of its own that is always wrong.

    `reference`: class ids are row numbers, `classes` of them (default: as many as there are categories), and the
    segment listed first in a clip is taken for crowd, nothing else is.
    """

    def __init__(
        self, categories: Sequence[Category], *, reference: bool = False, classes: int | None = None
    ) -> None:
        ids = [category.id for category in categories]
        self.size = (classes or len(ids)) if reference else len(ids)
        self.rows = {id: id for id in range(self.size + 1)} if reference else {id: i for i, id in enumerate(ids)}
        self.things = {category.id for category in categories if category.thing}
        self.reference = reference
        self.clips: dict[str, _Clip] = {}

    def add(self, clip: str, truth: Segments, prediction: Segments) -> None:
        """The next frame of a clip. Raises InputError for another size or an unknown class."""
        overlap = Overlap.of(truth, prediction)
        seen = self.clips.setdefault(clip, _Clip(np.zeros((self.size + 1, self.size + 1), np.int64)))
        if seen.first is None and truth.segments:
            seen.first = truth.segments[0].id
        self._count_classes(seen, overlap)
        self._count_tubes(seen, overlap)

    def _count_classes(self, seen: _Clip, overlap: Overlap) -> None:
        rows = [self._row(segment) for segment in overlap.truth]
        columns = [self.size, *(self._row(segment) for segment in overlap.prediction)]
        for row, counts in zip(rows, overlap.counts[1:], strict=True):
            if row < self.size:
                np.add.at(seen.confusion[row], columns, counts)

    def _row(self, segment: Segment) -> int:
        if segment.category not in self.rows:
            raise InputError(f"class {segment.category} is not one of the data set's: check the classes")
        return self.rows[segment.category]

    def _count_tubes(self, seen: _Clip, overlap: Overlap) -> None:
        true_thing, thing = (self._thing(side) for side in (overlap.truth, overlap.prediction))
        crowd = true_thing & np.array([self._crowd(seen, segment) for segment in overlap.truth], bool)
        counts = overlap.counts[1:]
        for column in np.flatnonzero(thing):
            seen.prediction[overlap.prediction[column].tube] += int(counts[~crowd, column + 1].sum())
        for row in np.flatnonzero(true_thing & ~crowd & (counts.sum(1) > 0)):
            tube = overlap.truth[row].tube
            seen.truth[tube] += int(counts[row].sum())
            for column in np.flatnonzero(thing & (counts[row, 1:] > 0)):
                seen.shared[tube, overlap.prediction[column].tube] += int(counts[row, column + 1])

    def _thing(self, segments: Sequence[Segment]) -> NDArray[np.bool_]:
        return np.array([segment.category in self.things for segment in segments], bool)

    def _crowd(self, seen: _Clip, segment: Segment) -> bool:
        return segment.id == seen.first if self.reference else segment.crowd

    def per_clip(self) -> dict[str, dict[str, float]]:
        """STQ, AQ and SQ of each clip alone."""
        return {name: self._quality([clip]) for name, clip in self.clips.items()}

    def result(self) -> dict[str, float]:
        return self._quality(list(self.clips.values()))

    def _quality(self, clips: Sequence[_Clip]) -> dict[str, float]:
        tubes = sum(len(clip.truth) for clip in clips)
        association = fsum(clip.association() for clip in clips) / tubes if tubes else nan
        segmentation = _mean_iou(np.sum([clip.confusion for clip in clips], axis=0)) if clips else nan
        return {"STQ": sqrt(association * segmentation), "AQ": association, "SQ": segmentation}

    def state(self) -> State:
        return {name: _written(clip) for name, clip in self.clips.items()}

    def absorb(self, state: State) -> None:
        twice = state.keys() & self.clips.keys()
        if twice:
            raise InputError(f"clip {min(twice)!r} is in two shards: evaluate every clip once")
        self.clips.update({name: _read(clip) for name, clip in state.items()})


def _mean_iou(confusion: NDArray[np.int64]) -> float:
    shared = confusion.diagonal()
    union = confusion.sum(0) + confusion.sum(1) - shared
    return float((shared[union > 0] / union[union > 0]).mean()) if union.any() else nan


def _written(clip: _Clip) -> State:
    return {
        "confusion": clip.confusion.tolist(),
        "first": clip.first,
        "truth": [[*tube, area] for tube, area in clip.truth.items()],
        "prediction": [[*tube, area] for tube, area in clip.prediction.items()],
        "shared": [[*truth, *found, area] for (truth, found), area in clip.shared.items()],
    }


def _read(state: State) -> _Clip:
    return _Clip(
        np.array(state["confusion"], np.int64),
        state["first"],
        Counter({(category, id): area for category, id, area in state["truth"]}),
        Counter({(category, id): area for category, id, area in state["prediction"]}),
        Counter({((a, b), (c, d)): area for a, b, c, d, area in state["shared"]}),
    )


class IdentitySwitches(Metric):
    """How often a true object is found under another identity than when it was last found (CLEAR MOT's mismatches).

    Frame by frame, objects and predictions with IoU 0.5 and more are paired: first as they were last, then by the
    largest total IoU (Bernardin and Stiefelhagen 2008). `IDSW`: switches; `IDSW/object`: per object that was found.
    """

    def __init__(self) -> None:
        self.clip: str | None = None
        self.last: dict[int, int] = {}
        self.switches = 0
        self.objects = 0

    def add(
        self,
        clip: str,
        truth: Masks,
        identities: NDArray[np.int64],
        prediction: Masks,
        predicted_identities: NDArray[np.int64],
    ) -> None:
        """The next frame of a clip: masks (n, H, W) and (m, H, W), their identities (n,) and (m,)."""
        if clip != self.clip:
            self.clip, self.last = clip, {}
        iou = pairwise_iou(truth, prediction)
        for row, column in _pairs(iou, self._kept(identities, predicted_identities)):
            true, found = int(identities[row]), int(predicted_identities[column])
            self.objects += true not in self.last
            self.switches += self.last.get(true, found) != found
            self.last[true] = found

    def _kept(self, identities: NDArray[np.int64], predicted: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Pairs (n, m) that were each other's last."""
        last = [self.last.get(int(identity), -1) for identity in identities]
        return np.equal.outer(np.array(last, np.int64), predicted) & np.isin(identities, list(self.last))[:, None]

    def result(self) -> dict[str, float]:
        return {"IDSW": self.switches, "IDSW/object": self.switches / self.objects if self.objects else nan}

    def state(self) -> State:
        return {"switches": self.switches, "objects": self.objects}

    def absorb(self, state: State) -> None:
        self.switches += state["switches"]
        self.objects += state["objects"]


def _pairs(iou: NDArray[np.float64], kept: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """One-to-one pairs of IoU 0.5 and more: those of `kept`, then the rest by the largest total."""
    value = np.where(iou >= 0.5, iou + kept * len(iou), 0)
    rows, columns = linear_sum_assignment(value, maximize=True)
    return [(row, column) for row, column in zip(rows, columns, strict=True) if value[row, column] > 0]
