"""Scores what is found on the frames of a data set: one scorer per kind of benchmark, made of the measures.

A scorer is an accumulator like a measure: one that has seen a sample can be absorbed by one for the whole data set.
Classes are numbered by their places in the data set, whatever the numbers in its files.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import fsum

import numpy as np
from numpy.typing import NDArray

from x2roto.data.sample import Category, FrameTruth, Sample
from x2roto.evaluate.asking import Answer, phrases_in
from x2roto.evaluate.benchmarks import Benchmark, Mode
from x2roto.evaluate.metrics import Metric, State
from x2roto.evaluate.metrics.average_precision import FoundInstances, FramePrecision, TrackPrecision, TrueInstances
from x2roto.evaluate.metrics.boundary import RegionBoundary, region_similarity
from x2roto.evaluate.metrics.caption import CaptionScores
from x2roto.evaluate.metrics.grounded import PairedIoU, PhraseRecall, Similarity, phrase_pairs
from x2roto.evaluate.metrics.panoptic import PanopticQuality, Segment, Segments, VideoPanopticQuality
from x2roto.evaluate.metrics.region import MaskIoU, Masks, areas, intersections
from x2roto.evaluate.metrics.semantic import IGNORE, SemanticIoU, VideoConsistency
from x2roto.evaluate.metrics.tracking import SegmentationTrackingQuality
from x2roto.evaluate.predict import Found

# Measures of single frames, by name.
Lines = dict[str, float]
# Masks of instances that score less are not held against a frame in pictures and curves.
SHOWN = 0.5


@dataclass(frozen=True, slots=True)
class Rules:
    """What scorers need to know of a run. `video`: whether samples are videos."""

    benchmark: Benchmark
    categories: tuple[Category, ...]
    video: bool
    mode: Mode
    similarity: Similarity | None = None

    @property
    def reference(self) -> bool:
        return self.mode == "reference"

    @property
    def numbered(self) -> tuple[Category, ...]:
        """The classes with their places for ids."""
        return tuple(Category(place, each.name, each.thing) for place, each in enumerate(self.categories))


@dataclass(frozen=True, slots=True)
class Agreement:
    """`value`: mean overlap of what is asked for and seen or found on a frame, 1 for nothing rightly found.

    `condition`: what differs most, None for all together.
    """

    value: float
    condition: int | None


def agreement(truth: FrameTruth, masks: Masks, condition: NDArray[np.int64]) -> Agreement:
    """The masks of each condition together, the true and the found ones (n, H, W), against each other."""
    asked = np.union1d(truth.condition, condition).tolist()
    sides = (truth.masks, truth.condition), (masks, condition)
    pairs = [tuple(united(side[numbers == each], truth) for side, numbers in sides) for each in asked]
    if not pairs:
        return Agreement(1.0, None)
    wrong = [np.count_nonzero(wanted ^ given) for wanted, given in pairs]
    value = fsum(region_similarity(*pair) for pair in pairs) / len(pairs)
    return Agreement(value, asked[int(np.argmax(wrong))])


def united(masks: Masks, truth: FrameTruth) -> NDArray[np.bool_]:
    """Masks (n, H, W) as one, without the pixels that do not count."""
    mask = together(masks)
    return mask if truth.ignored is None else mask & ~truth.ignored


def together(masks: Masks) -> NDArray[np.bool_]:
    """Masks (n, H, W) as one."""
    return np.asarray(masks.any(0))


class Scorer(ABC):
    """Measures of one kind. `add` takes a frame, `close` ends a sample."""

    def __init__(self, rules: Rules, *metrics: Metric) -> None:
        self.rules = rules
        self.metrics = {type(metric).__name__: metric for metric in metrics}
        self._places = {category.id: place for place, category in enumerate(rules.categories)}

    @abstractmethod
    def add(self, sample: Sample, truth: FrameTruth, found: Found) -> Lines:
        """Count a frame, those of a sample in the order of the protocol. Gives the measures of a frame, if any."""

    def close(self, sample: Sample) -> None:  # noqa: B027 (most have nothing left to do)
        """The sample has no more frames."""

    def judge(self, truth: FrameTruth, found: Found) -> Agreement:
        """How well a frame agrees, for pictures and curves."""
        return agreement(truth, found.masks, found.condition)

    def classes(self, sample: Sample, condition: NDArray[np.int64]) -> NDArray[np.int64]:
        """The class of each condition."""
        table = np.array([self._places[category.id] for category in sample.categories], np.int64)
        return table[condition]

    def result(self) -> dict[str, float]:
        return {name: value for metric in self.metrics.values() for name, value in metric.result().items()}

    def absent(self) -> dict[str, str]:
        return {name: reason for metric in self.metrics.values() for name, reason in metric.absent().items()}

    def state(self) -> State:
        return {name: metric.state() for name, metric in self.metrics.items()}

    def absorb(self, state: State) -> None:
        for name, metric in self.metrics.items():
            metric.absorb(state[name])


# ---- class maps -------------------------------------------------------------------------------------------


class PanopticScorer(Scorer):
    """PQ of images."""

    def __init__(self, rules: Rules) -> None:
        self.quality = PanopticQuality(rules.numbered, reference=rules.reference)
        super().__init__(rules, self.quality)

    def add(self, sample: Sample, truth: FrameTruth, found: Found) -> Lines:
        self.quality.add(*segments(self, sample, truth, found))
        return {}


class VideoPanopticScorer(Scorer):
    """VPQ and STQ of videos."""

    def __init__(self, rules: Rules) -> None:
        self.quality = VideoPanopticQuality(rules.numbered, reference=rules.reference)
        self.tracking = SegmentationTrackingQuality(rules.numbered, reference=rules.reference)
        super().__init__(rules, self.quality, self.tracking)

    def add(self, sample: Sample, truth: FrameTruth, found: Found) -> Lines:
        wanted, given = segments(self, sample, truth, found)
        self.quality.add(sample.key, wanted, given)
        self.tracking.add(sample.key, wanted, given)
        return {}


def segments(scorer: Scorer, sample: Sample, truth: FrameTruth, found: Found) -> tuple[Segments, Segments]:
    """The true and the found segments; a class is part of its ids, for stuff and things may share identities."""

    def cut(masks: Masks, condition: NDArray[np.int64], identity: NDArray[np.int64], crowd: Masks) -> Segments:
        classes = scorer.classes(sample, condition)
        ids = 1 + identity * len(scorer.rules.categories) + classes
        return Segments.of_masks(masks, list(map(Segment, ids.tolist(), classes.tolist(), crowd.tolist())))

    no_crowd = np.zeros(len(found.masks), np.bool_)
    return (
        cut(truth.masks, truth.condition, truth.identity, truth.crowd),
        cut(found.masks, found.condition, found.identity, no_crowd),
    )


class SemanticScorer(Scorer):
    """mIoU and the like of images."""

    def __init__(self, rules: Rules, *more: Metric) -> None:
        self.overlap = SemanticIoU(len(rules.categories), reference=rules.reference)
        super().__init__(rules, self.overlap, *more)

    def add(self, sample: Sample, truth: FrameTruth, found: Found) -> Lines:
        self.overlap.add(*self.labels(sample, truth, found))
        return {}

    def labels(self, sample: Sample, truth: FrameTruth, found: Found) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The true and the found class at each pixel."""
        wanted, given = np.full((2, *sample.size), IGNORE, np.int64)
        for labels, side in ((wanted, truth), (given, found)):
            for mask, place in zip(side.masks, self.classes(sample, side.condition), strict=True):
                labels[mask] = place
        if truth.ignored is not None:
            wanted[truth.ignored] = IGNORE
        return wanted, given


class VideoSemanticScorer(SemanticScorer):
    """mIoU and the like of videos, and mVC."""

    def __init__(self, rules: Rules) -> None:
        self.consistency = VideoConsistency(reference=rules.reference)
        super().__init__(rules, self.consistency)

    def add(self, sample: Sample, truth: FrameTruth, found: Found) -> Lines:
        wanted, given = self.labels(sample, truth, found)
        self.overlap.add(wanted, given)
        self.consistency.add(sample.key, wanted, given)
        return {}


# ---- objects ----------------------------------------------------------------------------------------------


class InstanceScorer(Scorer):
    """AP of single frames: of images and, in reference mode, of videos."""

    def __init__(self, rules: Rules) -> None:
        self.precision = FramePrecision(range(len(rules.categories)), reference=rules.reference)
        super().__init__(rules, self.precision)

    def add(self, sample: Sample, truth: FrameTruth, found: Found) -> Lines:
        self.precision.add(unit(sample, found), *instances(self, sample, truth, found))
        return {}

    def judge(self, truth: FrameTruth, found: Found) -> Agreement:
        return likely(truth, found)


class TrackScorer(Scorer):
    """AP of tracks."""

    def __init__(self, rules: Rules) -> None:
        self.precision = TrackPrecision(range(len(rules.categories)))
        super().__init__(rules, self.precision)

    def add(self, sample: Sample, truth: FrameTruth, found: Found) -> Lines:
        self.precision.add(sample.key, *instances(self, sample, truth, found))
        return {}

    def judge(self, truth: FrameTruth, found: Found) -> Agreement:
        return likely(truth, found)


def unit(sample: Sample, found: Found) -> str | int:
    """What counts as one frame: the reference numbers the frames of every video anew, so those of different videos
    are one; where classes are shown by regions it does not."""
    if sample.media == "image" or sample.task == "vgdseg":
        return f"{sample.key}/{found.frame}"
    return found.place


def instances(
    scorer: Scorer, sample: Sample, truth: FrameTruth, found: Found
) -> tuple[TrueInstances, FoundInstances]:
    """A frame as the measures of precision take it."""
    return (
        TrueInstances(truth.masks, scorer.classes(sample, truth.condition), truth.crowd, truth.identity),
        FoundInstances(found.masks, scorer.classes(sample, found.condition), found.scores, found.identity),
    )


def likely(truth: FrameTruth, found: Found) -> Agreement:
    """How well the instances agree that score enough to be shown."""
    kept = found.scores >= SHOWN
    return agreement(truth, found.masks[kept], found.condition[kept])


class MaskScorer(Scorer):
    """cIoU and gIoU of one mask an image."""

    def __init__(self, rules: Rules) -> None:
        self.overlap = MaskIoU()
        super().__init__(rules, self.overlap)

    def add(self, sample: Sample, truth: FrameTruth, found: Found) -> Lines:
        self.overlap.add(together(truth.masks), together(found.masks), truth.ignored)
        return {}


class ObjectScorer(Scorer):
    """J, F and J&F of an object or expression."""

    def __init__(self, rules: Rules) -> None:
        self.outline = RegionBoundary(reference=rules.reference)
        super().__init__(rules, self.outline)

    def add(self, sample: Sample, truth: FrameTruth, found: Found) -> Lines:
        self.outline.add(sample.key, together(truth.masks), together(found.masks), truth.ignored)
        region, edge = self.outline.values[sample.key][-1]
        return {"J": region, "F": edge, "J&F": (region + edge) / 2}


# ---- grounded description ---------------------------------------------------------------------------------


class SummedRecall(PhraseRecall):
    """Recall of phrases whose overlaps were summed up frame by frame."""

    def add_overlaps(self, iou: NDArray[np.float64], phrases: Sequence[str], found: Sequence[str]) -> None:
        """IoU of each true and each found phrase, (n, m)."""
        if self.similarity is None:
            return
        self.phrases += len(phrases)
        if phrases and found:
            self.found += len(phrase_pairs(iou, self.similarity(phrases, found), reference=self.reference))


@dataclass(slots=True)
class _Described:
    """A description under way: pixels that true (n) and found (m) phrases share and have so far."""

    answer: Answer
    shared: NDArray[np.int64]
    wanted: NDArray[np.int64]
    given: NDArray[np.int64]

    def add(self, wanted: Masks, given: Masks) -> None:
        self.shared += intersections(wanted, given)
        self.wanted += areas(wanted)
        self.given += areas(given)

    def iou(self) -> NDArray[np.float64]:
        union = self.wanted[:, None] + self.given - self.shared
        overlap: NDArray[np.float64] = self.shared / np.maximum(union, 1)
        return overlap


class GroundedScorer(Scorer):
    """mIoU of pairs, recall of phrases, METEOR and CIDEr; each chunk of a video has a description of its own."""

    def __init__(self, rules: Rules, *more: Metric) -> None:
        # Of videos the reference leaves no frame out.
        self.pairs = PairedIoU(reference=rules.reference and not rules.video)
        self.recall = SummedRecall(rules.similarity, reference=rules.reference)
        self.captions = CaptionScores()
        self._described: dict[int, _Described] = {}
        super().__init__(rules, self.captions, *more, self.pairs, self.recall)

    def add(self, sample: Sample, truth: FrameTruth, found: Found) -> Lines:
        wanted, given = self.by_phrase(sample, truth, found)
        self.pairs.add(wanted, given)
        if found.chunk not in self._described:
            rows, columns = len(wanted), len(given)
            sums = np.zeros((rows, columns), np.int64), np.zeros(rows, np.int64), np.zeros(columns, np.int64)
            self._described[found.chunk] = _Described(found.answer, *sums)
        self._described[found.chunk].add(wanted, given)
        return {}

    def by_phrase(self, sample: Sample, truth: FrameTruth, found: Found) -> tuple[Masks, Masks]:
        """One mask (n, H, W) for each true and each found phrase, empty where one has none."""
        counts = len(true_phrases(sample)), len(found.answer.phrases)
        wanted, given = (np.zeros((count, *sample.size), np.bool_) for count in counts)
        for joined, side in ((wanted, truth), (given, found)):
            for mask, number in zip(side.masks, side.condition, strict=True):
                joined[number] |= mask
        return wanted, given

    def close(self, sample: Sample) -> None:
        caption, phrases = plain(sample.captions[0]), true_phrases(sample)
        for chunk, described in self._described.items():
            self.captions.add(f"{sample.key}/{chunk}", caption, described.answer.caption)
            self.recall.add_overlaps(described.iou(), phrases, described.answer.phrases)
        self._described.clear()

    def judge(self, truth: FrameTruth, found: Found) -> Agreement:
        # The phrases of the answer are its own; together they should cover what the true ones do.
        alike = replace(truth, condition=np.zeros_like(truth.condition))
        return replace(agreement(alike, found.masks, np.zeros_like(found.condition)), condition=None)


class ImageGroundedScorer(GroundedScorer):
    """The same of images, and AP of all masks as one class."""

    def __init__(self, rules: Rules) -> None:
        self.precision = FramePrecision([0], reference=rules.reference)
        super().__init__(rules, self.precision)

    def add(self, sample: Sample, truth: FrameTruth, found: Found) -> Lines:
        wanted, given = self.by_phrase(sample, truth, found)
        wanted = wanted[wanted.any((1, 2))]
        one, none = (np.zeros(len(masks), np.int64) for masks in (wanted, given))
        self.precision.add(
            sample.key,
            TrueInstances(wanted, one, one.astype(np.bool_), one),
            FoundInstances(given, none, found.scores, none),
        )
        return super().add(sample, truth, found)


def true_phrases(sample: Sample) -> tuple[str, ...]:
    """The phrases of the reference caption, one per condition."""
    return tuple(str(target) for target in sample.targets) or tuple(phrases_in(sample.captions[0]))


def plain(caption: str) -> str:
    """A caption without markup."""
    return " ".join(re.sub(r"</?p>", " ", caption).split())


def scorer_for(rules: Rules) -> Scorer:
    """An empty scorer of the benchmark's kind."""
    match rules.benchmark.kind:
        case "panoptic":
            return VideoPanopticScorer(rules) if rules.video else PanopticScorer(rules)
        case "semantic":
            return VideoSemanticScorer(rules) if rules.video else SemanticScorer(rules)
        case "instance":
            return TrackScorer(rules) if rules.video and not rules.reference else InstanceScorer(rules)
        case "masks":
            return MaskScorer(rules)
        case "objects":
            return ObjectScorer(rules)
        case "grounded":
            return GroundedScorer(rules) if rules.video else ImageGroundedScorer(rules)
