"""Panoptic quality of images (Kirillov et al., CVPR 2019) and of video, VPQ@k (Kim et al., CVPR 2020)."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import fsum, nan
from typing import Self

import numpy as np
from numpy.typing import NDArray

from x2roto.data.sample import Category
from x2roto.errors import InputError
from x2roto.evaluate.metrics import Metric, State
from x2roto.evaluate.metrics.region import check_size

Tube = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Segment:
    """One segment of a frame. `id`: the same on all frames of a clip. `crowd`: many as one, may be missed."""

    id: int
    category: int
    crowd: bool = False

    @property
    def tube(self) -> Tube:
        return self.category, self.id


@dataclass(frozen=True, slots=True, eq=False)
class Segments:
    """A frame cut into segments that do not overlap.

    `index`: integers (H, W), 0 where there is none (void), i where `segments[i - 1]` is. Raises InputError when two
    have one id or one has 0, which is void's.
    """

    index: NDArray[np.integer]
    segments: tuple[Segment, ...]

    def __post_init__(self) -> None:
        ids = [segment.id for segment in self.segments]
        wrong = [id for id, times in Counter(ids).items() if times > 1 or id == 0]
        if wrong:
            raise InputError(f"segment id {wrong[0]} is void or used twice on a frame: give each segment its own")

    @classmethod
    def of_ids(cls, ids: NDArray[np.integer], segments: Sequence[Segment]) -> Self:
        """From a map (H, W) of the ids of `segments`, 0 void. Raises InputError for an id that none of them has.

        Meant for ids of pictures, below 2**24: it takes room for the highest.
        """
        listed = [segment.id for segment in segments]
        table = np.zeros(int(max([ids.max(initial=0), *listed])) + 1, np.int32)
        table[listed] = np.arange(1, len(listed) + 1)
        index = table[ids]
        unknown = (index == 0) & (ids != 0)
        if unknown.any():
            raise InputError(f"segment {ids[unknown][0]} is in the picture but not in its list: check the data set")
        return cls(index, tuple(segments))

    @classmethod
    def of_masks(cls, masks: NDArray[np.bool_], segments: Sequence[Segment]) -> Self:
        """From the masks (n, H, W) of `segments`. Raises InputError when two overlap."""
        index = np.zeros(masks.shape[1:], np.int32)
        for number, mask in enumerate(masks, start=1):
            if index[mask].any():
                raise InputError(f"segment {segments[number - 1].id} overlaps another: panoptic segments must not")
            index[mask] = number
        return cls(index, tuple(segments))


@dataclass(frozen=True, slots=True, eq=False)
class Overlap:
    """How the segments of the truth (rows) and of a prediction (columns) overlap, on one frame or several.

    `counts`: pixels, int64 (1 + n, 1 + m); row and column 0 are void.
    """

    truth: tuple[Segment, ...]
    prediction: tuple[Segment, ...]
    counts: NDArray[np.int64]

    @classmethod
    def of(cls, truth: Segments, prediction: Segments) -> Self:
        """Raises InputError when the pictures are not of one size."""
        check_size(truth.index, prediction.index)
        shape = len(truth.segments) + 1, len(prediction.segments) + 1
        pairs = truth.index.ravel().astype(np.intp) * shape[1] + prediction.index.ravel()
        counts = np.bincount(pairs, minlength=shape[0] * shape[1]).reshape(shape)
        return cls(truth.segments, prediction.segments, counts)

    @classmethod
    def joined(cls, frames: Sequence[Self]) -> Self:
        """Segments of one id as one tube; it has the class of the first frame that it is on."""
        truth = _tubes(frame.truth for frame in frames)
        prediction = _tubes(frame.prediction for frame in frames)
        rows, columns = ({tube.id: i for i, tube in enumerate(tubes, start=1)} for tubes in (truth, prediction))
        counts = np.zeros((len(truth) + 1, len(prediction) + 1), np.int64)
        for frame in frames:
            row = [0, *(rows[segment.id] for segment in frame.truth)]
            column = [0, *(columns[segment.id] for segment in frame.prediction)]
            counts[np.ix_(row, column)] += frame.counts
        return cls(truth, prediction, counts)

    def matches(self) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
        """Which pairs match (n, m): of one class, no crowd, IoU over 0.5, so that none is in two. And the IoUs."""
        shared, void = self.counts[1:, 1:], self.counts[0, 1:]
        truth, prediction = self.counts.sum(1)[1:], self.counts.sum(0)[1:]
        union = truth[:, None] + prediction - void - shared
        comparable = self.same_class() & ~self.crowd()[:, None]
        return comparable & (2 * shared > union), shared / np.maximum(union, 1)

    def same_class(self) -> NDArray[np.bool_]:
        truth, prediction = ([segment.category for segment in side] for side in (self.truth, self.prediction))
        return np.equal.outer(np.array(truth, np.int64), np.array(prediction, np.int64))

    def crowd(self) -> NDArray[np.bool_]:
        return np.array([segment.crowd for segment in self.truth], bool)


def _tubes(frames: Iterable[Sequence[Segment]]) -> tuple[Segment, ...]:
    """The segments of all frames, each id once as it is first, in the order they come in."""
    first: dict[int, Segment] = {}
    for segments in frames:
        for segment in segments:
            first.setdefault(segment.id, segment)
    return tuple(first.values())


@dataclass(slots=True)
class _Tally:
    iou: float = 0.0
    hits: int = 0
    false: int = 0
    missed: int = 0

    def quality(self) -> dict[str, float]:
        weight = self.hits + (self.false + self.missed) / 2
        parts = {"SQ": self.iou / self.hits if self.hits else 0.0, "RQ": self.hits / weight}
        return {"PQ": self.iou / weight, **parts}


class PanopticQuality(Metric):
    """PQ, SQ and RQ, each also for things and stuff (`PQ_th`, `PQ_st`): means over the classes that occur.

    As the COCO panoptic API, except that all crowd regions of a class excuse false positives, not the last alone.
    A segment without pixels is none. `reference`: as the API.
    """

    def __init__(self, categories: Sequence[Category], *, reference: bool = False) -> None:
        self.things = {category.id: category.thing for category in categories}
        self.reference = reference
        self.tallies = {category.id: _Tally() for category in categories}

    def add(self, truth: Segments, prediction: Segments) -> None:
        """One image. Raises InputError for another size or an unknown class."""
        self.add_overlap(Overlap.of(truth, prediction))

    def add_overlap(self, overlap: Overlap) -> None:
        """One image or tube, counted already. Raises InputError for an unknown class."""
        unknown = {segment.category for segment in (*overlap.truth, *overlap.prediction)} - self.tallies.keys()
        if unknown:
            raise InputError(f"class {min(unknown)} is not one of the data set's: check the prediction's classes")
        matched, iou = overlap.matches()
        for row, column in zip(*matched.nonzero(), strict=True):
            tally = self.tallies[overlap.truth[row].category]
            tally.hits += 1
            tally.iou += float(iou[row, column])
        wanted = (overlap.counts.sum(1)[1:] > 0) & ~overlap.crowd() & ~matched.any(1)
        false = (overlap.counts.sum(0)[1:] > 0) & ~self._excused(overlap) & ~matched.any(0)
        for row in np.flatnonzero(wanted):
            self.tallies[overlap.truth[row].category].missed += 1
        for column in np.flatnonzero(false):
            self.tallies[overlap.prediction[column].category].false += 1

    def _excused(self, overlap: Overlap) -> NDArray[np.bool_]:
        """Predictions (m,) that lie by more than half on void or crowd of their class."""
        crowd = overlap.crowd()
        if self.reference:
            last = {overlap.truth[row].category: row for row in np.flatnonzero(crowd)}
            crowd = np.isin(np.arange(len(crowd)), list(last.values()))
        shared = np.where(overlap.same_class() & crowd[:, None], overlap.counts[1:, 1:], 0).sum(0)
        return np.asarray(2 * (overlap.counts[0, 1:] + shared) > overlap.counts.sum(0)[1:])

    def per_class(self) -> dict[int, dict[str, float]]:
        """PQ, SQ and RQ of each class that occurs, by its id."""
        occurring = {id: tally for id, tally in self.tallies.items() if tally.hits + tally.false + tally.missed}
        return {id: tally.quality() for id, tally in occurring.items()}

    def result(self) -> dict[str, float]:
        classes = self.per_class()
        things = [quality for id, quality in classes.items() if self.things[id]]
        stuff = [quality for id, quality in classes.items() if not self.things[id]]
        groups = {"": list(classes.values()), "_th": things, "_st": stuff}
        return {
            f"{name}{suffix}": _mean(quality[name] for quality in group)
            for suffix, group in groups.items()
            for name in ("PQ", "SQ", "RQ")
        }

    def state(self) -> State:
        rows = {str(id): [tally.iou, tally.hits, tally.false, tally.missed] for id, tally in self.tallies.items()}
        return {"tallies": rows}

    def absorb(self, state: State) -> None:
        for id, (iou, hits, false, missed) in state["tallies"].items():
            tally = self.tallies[int(id)]
            tally.iou += iou
            tally.hits += hits
            tally.false += false
            tally.missed += missed


class VideoPanopticQuality(Metric):
    """VPQ@k, each also for things and stuff (`VPQ4_th`), and their mean over k (`VPQ`).

    PQ of the tubes in every k frames on end; a clip of fewer than k frames has none. `reference`: as PanopticQuality.
    """

    def __init__(
        self, categories: Sequence[Category], lengths: Sequence[int] = (1, 2, 4, 6), *, reference: bool = False
    ) -> None:
        self.qualities = {length: PanopticQuality(categories, reference=reference) for length in lengths}
        self.clip: str | None = None
        self.recent: deque[Overlap] = deque(maxlen=max(lengths))

    def add(self, clip: str, truth: Segments, prediction: Segments) -> None:
        """The next frame of a clip; ids follow its segments. Raises InputError as `PanopticQuality.add`."""
        if clip != self.clip:
            self.clip = clip
            self.recent.clear()
        self.recent.append(Overlap.of(truth, prediction))
        for length, quality in self.qualities.items():
            if len(self.recent) >= length:
                quality.add_overlap(Overlap.joined(list(self.recent)[-length:]))

    def result(self) -> dict[str, float]:
        each = {length: quality.result() for length, quality in self.qualities.items()}
        numbers = {
            f"VPQ{length}{suffix}": result[f"PQ{suffix}"]
            for length, result in each.items()
            for suffix in ("", "_th", "_st")
        }
        means = {f"VPQ{end}": _mean(result[f"PQ{end}"] for result in each.values()) for end in ("", "_th", "_st")}
        return numbers | means

    def state(self) -> State:
        return {str(length): quality.state() for length, quality in self.qualities.items()}

    def absorb(self, state: State) -> None:
        for length, quality in self.qualities.items():
            quality.absorb(state[str(length)])


def _mean(values: Iterable[float]) -> float:
    listed = list(values)
    return fsum(listed) / len(listed) if listed else nan
