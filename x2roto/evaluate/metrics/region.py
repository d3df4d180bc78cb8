"""Overlap of masks: pairwise intersection and IoU, and cIoU and gIoU of a data set."""

from __future__ import annotations

from math import fsum, nan, prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from x2roto.errors import InputError
from x2roto.evaluate.metrics import Metric, State

Masks = NDArray[np.bool_]


def check_size(truth: NDArray[Any], prediction: NDArray[Any]) -> None:
    """Raises InputError unless both pictures, in their last two axes, are of one size."""
    if truth.shape[-2:] != prediction.shape[-2:]:
        sizes = [f"{wide}x{high}" for high, wide in (truth.shape[-2:], prediction.shape[-2:])]
        raise InputError(f"the truth is {sizes[0]} and the prediction {sizes[1]}: scale the prediction to the truth")


def packed(masks: Masks) -> NDArray[np.uint64]:
    """Masks (n, ...) as rows of bits (n, words), 64 pixels a word, zero padded."""
    bits = np.packbits(masks.reshape(len(masks), prod(masks.shape[1:])), axis=1)
    padded = np.zeros((len(masks), -(-bits.shape[1] // 8) * 8), np.uint8)
    padded[:, : bits.shape[1]] = bits
    return padded.view(np.uint64)


def areas(masks: Masks) -> NDArray[np.int64]:
    """Pixels of each mask (n, ...): int64 (n,)."""
    pixels: NDArray[np.int64] = np.bitwise_count(packed(masks)).sum(1, dtype=np.int64)
    return pixels


def intersections(first: Masks, second: Masks) -> NDArray[np.int64]:
    """Pixels that each of `first` (n, ...) shares with each of `second` (m, ...): int64 (n, m).

    Raises InputError when they are not of one size.
    """
    check_size(first, second)
    rows, columns = packed(first), packed(second)
    shared = [np.bitwise_count(row & columns).sum(1, dtype=np.int64) for row in rows]
    return np.stack(shared) if shared else np.zeros((0, len(second)), np.int64)


def pairwise_iou(first: Masks, second: Masks) -> NDArray[np.float64]:
    """IoU of each of `first` (n, ...) with each of `second` (m, ...): float64 (n, m); 0 for two empty masks."""
    shared = intersections(first, second)
    union = areas(first)[:, None] + areas(second) - shared
    iou: NDArray[np.float64] = shared / np.maximum(union, 1)
    return iou


def _count(mask: Masks) -> int:
    return int(np.count_nonzero(mask))


class MaskIoU(Metric):
    """cIoU: all intersections over all unions. gIoU: mean IoU of the samples; two empty masks agree fully.

    N-acc: of the samples that ask for nothing that is there, the share that got an empty answer (GRES, arXiv
    2306.00968). Used for referring, reasoning and interactive segmentation, whose tables also call gIoU mIoU.
    """

    def __init__(self) -> None:
        self.counts: list[tuple[int, int, int]] = []

    def add(self, truth: Masks, prediction: Masks, ignored: Masks | None = None) -> None:
        """One sample: bool masks (H, W); pixels of `ignored` do not count. Raises InputError for two sizes."""
        check_size(truth, prediction)
        if ignored is not None:
            truth, prediction = truth & ~ignored, prediction & ~ignored
        self.counts.append((_count(truth & prediction), _count(truth), _count(prediction)))

    def result(self) -> dict[str, float]:
        if not self.counts:
            return {"cIoU": nan, "gIoU": nan, "N-acc": nan}
        pairs = [(shared, truth + found - shared) for shared, truth, found in self.counts]
        whole = sum(union for _, union in pairs)
        each = [shared / union if union else 1.0 for shared, union in pairs]
        nothing = [found == 0 for _, truth, found in self.counts if truth == 0]
        return {
            "cIoU": sum(shared for shared, _ in pairs) / whole if whole else 1.0,
            "gIoU": fsum(each) / len(each),
            "N-acc": sum(nothing) / len(nothing) if nothing else nan,
        }

    def state(self) -> State:
        return {"counts": [list(row) for row in self.counts]}

    def absorb(self, state: State) -> None:
        self.counts += [tuple(row) for row in state["counts"]]
