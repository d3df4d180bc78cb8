"""Overlap of masks against pycocotools and by hand."""

from __future__ import annotations

import numpy as np
import pytest

from x2roto.errors import InputError
from x2roto.evaluate.metrics.region import MaskIoU, areas, intersections, pairwise_iou


@pytest.mark.parametrize("shape", [(1, 1), (7, 9), (8, 8), (33, 65), (5, 12, 13)])
@pytest.mark.parametrize("counts", [(3, 4), (0, 2), (2, 0), (0, 0)])
def test_pairs_equal_a_loop(shape: tuple[int, ...], counts: tuple[int, int]) -> None:
    random = np.random.default_rng(len(shape) + sum(counts))
    first, second = (random.random((count, *shape)) < 0.4 for count in counts)
    shared = [[(a & b).sum() for b in second] for a in first]
    union = [[(a | b).sum() for b in second] for a in first]
    np.testing.assert_array_equal(intersections(first, second), np.reshape(shared, counts))
    iou = np.reshape(shared, counts) / np.maximum(np.reshape(union, counts), 1)
    np.testing.assert_array_equal(pairwise_iou(first, second), iou)
    np.testing.assert_array_equal(areas(first), first.reshape(counts[0], np.prod(shape)).sum(1))


def test_iou_equals_pycocotools() -> None:
    rle = pytest.importorskip("pycocotools.mask")
    random = np.random.default_rng(1)
    first, second = random.random((2, 6, 31, 47)) < 0.3
    coded = [rle.encode(np.asfortranarray(side.transpose(1, 2, 0).astype(np.uint8))) for side in (first, second)]
    np.testing.assert_array_equal(pairwise_iou(first, second), rle.iou(*coded, [0] * 6))


def test_samples_and_pixels_are_averaged() -> None:
    truth, found = np.zeros((2, 4, 10, 10), bool)
    truth[0, :5] = True  # 50 wanted, 25 of them found: IoU 1/2
    found[0, :5, :5] = True
    truth[1, 0, 0] = found[1, 0, 0] = True  # all of it: 1
    found[3, 0, :4] = True  # sample 2 rightly empty: 1, sample 3 wrongly not: 0
    metric = MaskIoU()
    for pair in zip(truth, found, strict=True):
        metric.add(*pair)
    assert metric.result() == pytest.approx({"cIoU": 26 / (50 + 1 + 4), "gIoU": 2.5 / 4, "N-acc": 0.5})


def test_ignored_pixels_do_not_count() -> None:
    truth, found, ignored = np.zeros((3, 6, 6), bool)
    truth[:3], found[:2], ignored[2] = True, True, True
    metric = MaskIoU()
    metric.add(truth, found, ignored)
    assert metric.result()["cIoU"] == 1


def test_empty_everywhere_agrees_and_nothing_added_is_not_a_number() -> None:
    metric, empty = MaskIoU(), np.zeros((3, 3), bool)
    assert all(np.isnan(value) for value in metric.result().values())
    metric.add(empty, empty)
    assert metric.result() == {"cIoU": 1, "gIoU": 1, "N-acc": 1}


def test_masks_of_two_sizes_are_refused() -> None:
    with pytest.raises(InputError, match="truth is 3x2 and the prediction 2x3"):
        MaskIoU().add(np.zeros((2, 3), bool), np.zeros((3, 2), bool))
