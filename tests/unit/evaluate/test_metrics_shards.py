"""A run in shards gives the numbers of the whole run, through JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from tests.unit.evaluate.panoptic_clips import CATEGORIES, clip, segments
from x2roto.evaluate.metrics import Metric
from x2roto.evaluate.metrics.boundary import RegionBoundary
from x2roto.evaluate.metrics.caption import CaptionScores
from x2roto.evaluate.metrics.grounded import PairedIoU, PhraseRecall
from x2roto.evaluate.metrics.panoptic import PanopticQuality, VideoPanopticQuality
from x2roto.evaluate.metrics.region import MaskIoU
from x2roto.evaluate.metrics.semantic import SemanticIoU, VideoConsistency
from x2roto.evaluate.metrics.tracking import IdentitySwitches, SegmentationTrackingQuality

CLASSES = [category.id for category in CATEGORIES]


def alike(first: Sequence[str], second: Sequence[str]) -> Any:
    return np.ones((len(first), len(second)))


def pairs(seed: int) -> list[tuple[Any, Any]]:
    """Frames of clip `seed`: segments of the truth and of a prediction."""
    return [(segments(truth), segments(found)) for truth, found in clip(seed, 4)]


def masks(side: Any) -> Any:
    return np.stack([side.index == number for number in range(1, len(side.segments) + 1)])


def labels(side: Any) -> Any:
    return np.append(255, [CLASSES.index(segment.category) for segment in side.segments])[side.index]


def identities(side: Any) -> Any:
    return np.array([segment.id for segment in side.segments])


def phrases(side: Any) -> list[str]:
    return [str(segment.id) for segment in side.segments]


def instances(truth: Any, found: Any) -> tuple[Any, Any]:
    from x2roto.evaluate.metrics.average_precision import FoundInstances, TrueInstances

    wanted, given = (np.array([segment.category for segment in side.segments]) for side in (truth, found))
    crowd = np.array([segment.crowd for segment in truth.segments])
    scores = identities(found) % 7 / 7
    return (
        TrueInstances(masks(truth), wanted, crowd, identities(truth)),
        FoundInstances(masks(found), given, scores, identities(found)),
    )


def precision(kind: str, **settings: Any) -> Metric:
    pytest.importorskip("pycocotools", reason="average precision needs pycocotools")
    from x2roto.evaluate.metrics import average_precision

    made: Metric = getattr(average_precision, kind)(CLASSES, **settings)
    return made


Add = Callable[[Any, str, Any, Any], None]
# How a measure is made, and how a frame of a clip is added.
METRICS: dict[str, tuple[Callable[[], Metric], Add]] = {
    "region": (MaskIoU, lambda m, name, t, p: m.add(masks(t)[0], masks(p)[0])),
    "boundary": (RegionBoundary, lambda m, name, t, p: m.add(name, masks(t)[0], masks(p)[0])),
    "boundary pooled": (
        lambda: RegionBoundary(reference=True),
        lambda m, name, t, p: m.add(name, masks(t)[0], masks(p)[0]),
    ),
    "semantic": (lambda: SemanticIoU(4), lambda m, name, t, p: m.add(labels(t), labels(p))),
    "consistency": (lambda: VideoConsistency((2, 3)), lambda m, name, t, p: m.add(name, labels(t), labels(p))),
    "consistency reference": (
        lambda: VideoConsistency((2, 3), reference=True),
        lambda m, name, t, p: m.add(name, labels(t), labels(p)),
    ),
    "panoptic": (lambda: PanopticQuality(CATEGORIES), lambda m, name, t, p: m.add(t, p)),
    "video panoptic": (lambda: VideoPanopticQuality(CATEGORIES, (1, 3)), lambda m, name, t, p: m.add(name, t, p)),
    "tracking": (lambda: SegmentationTrackingQuality(CATEGORIES), lambda m, name, t, p: m.add(name, t, p)),
    "identity": (
        IdentitySwitches,
        lambda m, name, t, p: m.add(name, masks(t), identities(t), masks(p), identities(p)),
    ),
    "frames": (
        lambda: precision("FramePrecision"),
        lambda m, name, t, p: m.add(f"{name} {t.index.sum()}", *instances(t, p)),
    ),
    "frames pooled": (lambda: precision("FramePrecision"), lambda m, name, t, p: m.add(3, *instances(t, p))),
    "tracks": (lambda: precision("TrackPrecision"), lambda m, name, t, p: m.add(name, *instances(t, p))),
    "grounded": (PairedIoU, lambda m, name, t, p: m.add(masks(t), masks(p))),
    "recall": (
        lambda: PhraseRecall(alike),
        lambda m, name, t, p: m.add(masks(t), phrases(t), masks(p), phrases(p)),
    ),
}


def run(name: str, clips: Sequence[int]) -> Metric:
    make, add = METRICS[name]
    metric = make()
    for seed in clips:
        for truth, found in pairs(seed):
            add(metric, f"clip {seed}", truth, found)
    return metric


@pytest.mark.parametrize("name", METRICS)
def test_shards_put_together_equal_the_whole(name: str) -> None:
    whole = run(name, range(6))
    parts = run(name, [0, 1]), run(name, [2]), run(name, [3, 4, 5])
    joined = METRICS[name][0]()
    for part in parts:
        joined.absorb(json.loads(json.dumps(part.state(), allow_nan=False)))
    assert joined.result() == pytest.approx(whole.result(), rel=1e-14, nan_ok=True)
    assert not all(np.isnan(value) for value in whole.result().values())
    merged = METRICS[name][0]()
    merged.merge(parts[0])
    kept = json.dumps(merged.state())
    parts[0].merge(parts[1])
    assert json.dumps(merged.state()) == kept  # nothing is shared with what was merged


def test_captions_of_shards_are_all_kept() -> None:
    whole, part = CaptionScores(), CaptionScores()
    whole.add("a", "a cat", "a dog")
    part.add("b", "rain", "snow")
    whole.absorb(json.loads(json.dumps(part.state())))
    assert whole.captions == {"a": ("a cat", "a dog"), "b": ("rain", "snow")}
