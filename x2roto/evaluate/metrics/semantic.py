"""Measures of class maps: IoU over a data set, and how steady a video is."""

from __future__ import annotations

from collections.abc import Sequence
from math import fsum, nan

import numpy as np
from numpy.typing import NDArray

from x2roto.errors import InputError
from x2roto.evaluate.metrics import Metric, State
from x2roto.evaluate.metrics.region import check_size

Classes = NDArray[np.integer]
IGNORE = 255


class SemanticIoU(Metric):
    """mIoU, fwIoU (classes weighted by their pixels), mACC (mean recall) and pACC (pixels that are right).

    Means go over the classes in the truth. A pixel of no class in the prediction is a miss. `reference`: it does
    not count.
    """

    def __init__(self, classes: int, *, ignore: int = IGNORE, reference: bool = False) -> None:
        self.ignore = ignore
        self.reference = reference
        self.confusion = np.zeros((classes + 1, classes + 1), np.int64)

    def add(self, truth: Classes, prediction: Classes) -> None:
        """One frame: class numbers (H, W), `ignore` for none. Raises InputError for other sizes or numbers."""
        check_size(truth, prediction)
        rows, columns = self._bounded(prediction, "prediction"), self._bounded(truth, "truth")
        size = len(self.confusion)
        counts = np.bincount((rows * size + columns).ravel(), minlength=size * size)
        self.confusion += counts.reshape(size, size)

    def _bounded(self, labels: Classes, what: str) -> NDArray[np.intp]:
        last = len(self.confusion) - 1
        numbers = np.where(labels == self.ignore, last, labels).astype(np.intp)
        if numbers.min(initial=0) < 0 or numbers.max(initial=0) > last:
            raise InputError(f"{what} holds class {numbers.max()} of {last}: check the labels")
        return numbers

    def per_class(self) -> dict[int, float]:
        """IoU of each class that is in the truth."""
        hits, wanted, found = self._counts()
        return {int(k): float(hits[k] / (wanted[k] + found[k] - hits[k])) for k in np.flatnonzero(wanted)}

    def _counts(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        counted = self.confusion[:, :-1]
        wanted = (counted[:-1] if self.reference else counted).sum(0)
        return self.confusion.diagonal()[:-1], wanted, counted[:-1].sum(1)

    def result(self) -> dict[str, float]:
        hits, wanted, found = self._counts()
        there = wanted > 0
        if not there.any():
            return dict.fromkeys(("mIoU", "fwIoU", "mACC", "pACC"), nan)
        hits, wanted, found = hits[there], wanted[there], found[there]
        iou = hits / (wanted + found - hits)
        numbers = {
            "mIoU": iou.mean(),
            "fwIoU": (iou * wanted).sum() / wanted.sum(),
            "mACC": (hits / wanted).mean(),
            "pACC": hits.sum() / wanted.sum(),
        }
        return {name: float(value) for name, value in numbers.items()}

    def state(self) -> State:
        return {"confusion": self.confusion.tolist()}

    def absorb(self, state: State) -> None:
        self.confusion += np.array(state["confusion"], np.int64)


class VideoConsistency(Metric):
    """mVC@n (Miao et al., CVPR 2021): of what keeps its class over n frames, how much is right on all of them.

    Mean over every n frames on end of every clip in which something keeps its class; `ignore` is no class.

    `reference`: the prediction only has to keep its class, right or wrong, `ignore` is a class, the last n frames of
    a clip are left out, and n frames in which nothing keeps its class score 0.
    """

    def __init__(self, lengths: Sequence[int] = (8, 16), *, ignore: int = IGNORE, reference: bool = False) -> None:
        self.ignore = ignore
        self.reference = reference
        self.values: dict[int, list[float]] = {length: [] for length in lengths}
        self.clip: str | None = None

    def add(self, clip: str, truth: Classes, prediction: Classes) -> None:
        """The next frame of a clip: class numbers (H, W). Raises InputError for two sizes."""
        check_size(truth, prediction)
        if clip != self.clip:
            self._start(clip, truth, prediction)
        self._extend(truth, prediction)
        self.frames += 1
        self._score()

    def _start(self, clip: str, truth: Classes, prediction: Classes) -> None:
        self.clip = clip
        self.frames = 0
        self.before = truth, prediction
        # For how many frames each pixel has kept its true class, and has been right or, as reference, kept its class.
        # More than the longest length is not told apart, so that small integers do.
        self.steady, self.good = np.zeros((2, *truth.shape), np.int16)
        self.pending: dict[int, float] = {}

    def _extend(self, truth: Classes, prediction: Classes) -> None:
        old_truth, old_prediction = self.before
        self.before = truth, prediction
        if self.reference:
            self._count_on(self.steady, truth == old_truth, True)
            self._count_on(self.good, prediction == old_prediction, True)
        else:
            right = prediction == truth
            self._count_on(self.steady, truth == old_truth, truth != self.ignore)
            self._count_on(self.good, right, right)

    def _count_on(self, run: NDArray[np.int16], kept: NDArray[np.bool_], counted: NDArray[np.bool_] | bool) -> None:
        """The frames up to this one where `kept`, only this one elsewhere; this one if it is `counted`."""
        np.minimum(run, max(self.values), out=run)
        run *= kept
        run += counted

    def _score(self) -> None:
        for length in self.values:
            steady = self.steady >= length
            area = np.count_nonzero(steady)
            both = np.count_nonzero(steady & (self.good >= length))
            if self.reference:
                self._delay(length, both / (area + 1e-6))
            elif area:
                self.values[length].append(both / area)

    def _delay(self, length: int, value: float) -> None:
        """Keep the value of the latest frames back until a further frame shows that they are not the clip's last."""
        if length in self.pending:
            self.values[length].append(self.pending[length])
        if self.frames >= length:
            self.pending[length] = value

    def result(self) -> dict[str, float]:
        return {f"mVC{n}": fsum(values) / len(values) if values else nan for n, values in self.values.items()}

    def state(self) -> State:
        return {"values": {str(length): list(values) for length, values in self.values.items()}}

    def absorb(self, state: State) -> None:
        for length, values in state["values"].items():
            self.values[int(length)] += values
