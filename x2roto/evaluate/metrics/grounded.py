"""Masks and phrases of grounded description (GLaMM, Rasheed et al., CVPR 2024)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import fsum, nan

import numpy as np
from numpy.typing import NDArray

from x2roto.evaluate.metrics import Metric, State
from x2roto.evaluate.metrics.region import Masks, pairwise_iou

Table = NDArray[np.float64]
# How alike each of n texts is to each of m: float (n, m), 1 for the same.
Similarity = Callable[[Sequence[str], Sequence[str]], Table]
THRESHOLD = 0.5


def greedy_pairs(score: Table) -> list[tuple[int, int]]:
    """One-to-one pairs of rows and columns, the highest score first, down to above 0."""
    left, pairs = score.copy(), []
    while left.size and left.max() > 0:
        row, column = divmod(int(left.argmax()), left.shape[1])
        pairs.append((row, column))
        left[row], left[:, column] = 0, 0
    return pairs


def phrase_pairs(iou: Table, similarity: Table, *, reference: bool = False) -> list[tuple[int, int]]:
    """Pairs of a true and a found phrase, (n, m), whose masks overlap and whose words agree, both by half.

    The greatest overlap goes first. `reference`: the first pair of greatest overlap that fails ends it.
    """
    agreeing = (iou >= THRESHOLD) & (similarity >= THRESHOLD)
    if not reference:
        return greedy_pairs(np.where(agreeing, iou, 0))
    pairs = greedy_pairs(iou)
    failing = [place for place, pair in enumerate(pairs) if not agreeing[pair]]
    return pairs[: failing[0]] if failing else pairs


class PairedIoU(Metric):
    """mIoU of grounded description: mean IoU of greedy pairs on each image or frame, then over those.

    Masks without a partner do not lower it; none paired is 0. `reference`: an image without a prediction is left
    out (the reference does so with images, not with frames of video).
    """

    def __init__(self, *, reference: bool = False) -> None:
        self.reference = reference
        self.values: list[float] = []

    def add(self, truth: Masks, prediction: Masks) -> None:
        """One image or frame: masks (n, H, W) and (m, H, W)."""
        if self.reference and not len(prediction):
            return
        iou = pairwise_iou(truth, prediction)
        paired = [float(iou[pair]) for pair in greedy_pairs(iou)]
        self.values.append(fsum(paired) / len(paired) if paired else 0.0)

    def result(self) -> dict[str, float]:
        return {"mIoU": fsum(self.values) / len(self.values) if self.values else nan}

    def state(self) -> State:
        return {"values": list(self.values)}

    def absorb(self, state: State) -> None:
        self.values += state["values"]


class PhraseRecall(Metric):
    """Recall of grounded description: phrases of the truth that were found, in words and mask.

    `similarity` says how alike phrases are (the papers: cosine of BERT's mean states); without one there is no
    recall. `reference`: as `phrase_pairs`.
    """

    def __init__(self, similarity: Similarity | None, *, reference: bool = False) -> None:
        self.similarity = similarity
        self.reference = reference
        self.found = 0
        self.phrases = 0

    def add(self, truth: Masks, phrases: Sequence[str], prediction: Masks, predicted_phrases: Sequence[str]) -> None:
        """One image (n, H, W) or clip (n, T, H, W), and a phrase for every mask."""
        if self.similarity is None:
            return
        self.phrases += len(phrases)
        if phrases and predicted_phrases:
            alike = self.similarity(phrases, predicted_phrases)
            pairs = phrase_pairs(pairwise_iou(truth, prediction), alike, reference=self.reference)
            self.found += len(pairs)

    def result(self) -> dict[str, float]:
        if self.similarity is None:
            return {}
        return {"Recall": self.found / self.phrases if self.phrases else nan}

    def absent(self) -> dict[str, str]:
        reason = "needs a text model to compare phrases, and none was given"
        return {} if self.similarity else {"Recall": reason}

    def state(self) -> State:
        return {"found": self.found, "phrases": self.phrases}

    def absorb(self, state: State) -> None:
        self.found += state["found"]
        self.phrases += state["phrases"]
