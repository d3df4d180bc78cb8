"""The measures. Each is an accumulator: `add` takes one frame or sample at a time, `result` gives the numbers.

Values are fractions, also where papers print percent; NaN where nothing was there to measure. `state` is what
`json.dumps` takes as it is, so that shards of a run can be put together again: `whole.absorb(shard.state())`.
Samples may be added in any order and in any shard, but the frames of one clip in order and in one shard.

Every measure follows its standard definition; `reference=True` follows the code of the X2SAM evaluation
(`wanghao9610/X2SAM@5b0b106 x2sam/evaluation`) where that differs, to compare with its published numbers.

    region             cIoU, gIoU, N-acc                 MaskIoU
    boundary           J, F, J&F                         RegionBoundary
    panoptic           PQ, VPQ@k                         PanopticQuality, VideoPanopticQuality
    tracking           STQ; identity switches            SegmentationTrackingQuality, IdentitySwitches
    semantic           mIoU, fwIoU, mACC, pACC; mVC@n    SemanticIoU, VideoConsistency
    average_precision  AP and AR on frames, on tracks    FramePrecision, TrackPrecision
    grounded           mIoU of pairs, recall of phrases  PairedIoU, PhraseRecall
    similarity         how alike phrases are             bert_similarity
    caption            METEOR, CIDEr                     CaptionScores
    matting            errors of alpha                   MattingErrors
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Self

State = dict[str, Any]


class Metric(ABC):
    """What all measures share besides `add`, whose arguments differ."""

    @abstractmethod
    def result(self) -> dict[str, float]:
        """The numbers so far by name; NaN where nothing was there to measure."""

    @abstractmethod
    def state(self) -> State:
        """All that was added, as plain lists, dicts with string keys, strings and numbers. Taken between clips."""

    @abstractmethod
    def absorb(self, state: State) -> None:
        """Add what another measure with the same settings had seen."""

    def merge(self, other: Self) -> None:
        """Add what `other`, with the same settings, has seen."""
        self.absorb(other.state())

    def absent(self) -> dict[str, str]:
        """Numbers this measure cannot give, with the reason in one line."""
        return {}
