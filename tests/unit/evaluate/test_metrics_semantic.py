"""Class maps against counting pixel by pixel and frame by frame."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from x2roto.errors import InputError
from x2roto.evaluate.metrics.semantic import IGNORE, SemanticIoU, VideoConsistency

Maps = NDArray[np.uint8]


def maps(seed: int, frames: int, height: int = 9, width: int = 11) -> tuple[Maps, Maps]:
    """Truth and prediction of a still scene with changes here and there; 5 classes and ignored pixels."""
    random = np.random.default_rng(seed)
    truth = np.repeat(random.integers(0, 5, (1, height, width)), frames, 0)
    for share, source in ((0.05, random.integers(0, 5, truth.shape)), (0.01, IGNORE)):
        truth = np.where(random.random(truth.shape) < share, source, truth)
    truth[:, 0] = IGNORE
    found = np.where(random.random(truth.shape) < 0.1, random.integers(0, 5, truth.shape), truth % IGNORE)
    found[:, 1:3] = np.where(truth[:, 1:3] == 1, 2, found[:, 1:3])
    return truth.astype(np.uint8), found.astype(np.uint8)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6))
def test_scores_equal_counting(seed: int) -> None:
    truth, found = maps(seed, 3)
    found[0, -1] = IGNORE
    metric = SemanticIoU(5)
    for pair in zip(truth, found, strict=True):
        metric.add(*pair)
    valid = truth != IGNORE
    classes = [k for k in range(5) if (truth == k).any()]
    hits = np.array([(truth == k)[found == k].sum() for k in classes])
    wanted = np.array([(truth == k).sum() for k in classes])
    union = np.array([((truth == k) | (found == k))[valid].sum() for k in classes])
    expected = {
        "mIoU": np.mean(hits / union),
        "fwIoU": np.average(hits / union, weights=wanted),
        "mACC": np.mean(hits / wanted),
        "pACC": (truth == found)[valid].sum() / valid.sum(),
    }
    assert metric.result() == pytest.approx(expected, abs=1e-12)
    assert list(metric.per_class().values()) == pytest.approx(list(hits / union), abs=1e-12)


def test_unlabelled_prediction_is_a_miss_unless_as_reference() -> None:
    truth, found = np.zeros((2, 2, 2), np.uint8)
    found[0] = IGNORE
    metrics = SemanticIoU(3), SemanticIoU(3, reference=True)
    for metric in metrics:
        metric.add(truth, found)
    assert [metric.result()["mIoU"] for metric in metrics] == [0.5, 1]


def plain_consistency(truth: Maps, found: Maps, length: int) -> list[float]:
    values = []
    for start in range(len(truth) - length + 1):
        t, f = truth[start : start + length], found[start : start + length]
        steady = (t == t[0]).all(0) & (t[0] != IGNORE)
        if steady.any():
            values.append((steady & (f == t).all(0)).sum() / steady.sum())
    return values


def reference_consistency(truth: Maps, found: Maps, length: int) -> list[float]:
    values = []
    for start in range(len(truth) - length):
        steady, kept = ((side[start : start + length] == side[start]).all(0) for side in (truth, found))
        values.append((steady & kept).sum() / (steady.sum() + 1e-6))
    return values


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6))
def test_consistency_equals_whole_windows(seed: int) -> None:
    clips = {"a": maps(seed, 9), "short": maps(seed + 1, 2), "b": maps(seed + 2, 4)}
    for reference, plain in ((False, plain_consistency), (True, reference_consistency)):
        metric = VideoConsistency((2, 3, 8), reference=reference)
        for name, (truth, found) in clips.items():
            for pair in zip(truth, found, strict=True):
                metric.add(name, *pair)
        for length, values in metric.values.items():
            expected = [value for pair in clips.values() for value in plain(*pair, length)]
            assert values == pytest.approx(expected, abs=1e-12)
            assert metric.result()[f"mVC{length}"] == pytest.approx(np.mean(expected), abs=1e-12)


def test_steady_but_wrong_counts_only_as_reference() -> None:
    truth, found = np.zeros((3, 4, 4), np.uint8), np.ones((3, 4, 4), np.uint8)
    results = []
    for reference in (False, True):
        metric = VideoConsistency((2,), reference=reference)
        for pair in zip(truth, found, strict=True):
            metric.add("a", *pair)
        results.append(metric.result()["mVC2"])
    assert results == pytest.approx([0, 1])


def test_labels_out_of_range_and_other_sizes_are_refused() -> None:
    truth = np.zeros((2, 2), np.uint8)
    with pytest.raises(InputError, match="prediction holds class 7 of 3"):
        SemanticIoU(3).add(truth, truth + np.uint8(7))
    for metric in (SemanticIoU(3).add, lambda *maps: VideoConsistency().add("a", *maps)):
        with pytest.raises(InputError, match="truth is 2x2 and the prediction 2x1"):
            metric(truth, truth[:1])


def test_nothing_added_is_not_a_number() -> None:
    for metric in (SemanticIoU(3), VideoConsistency()):
        assert all(np.isnan(value) for value in metric.result().values())
