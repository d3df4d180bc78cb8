"""The recurrent step as one CUDA graph: hundreds of kernels that the host starts at once instead of one by one.

Where frames are small or the host is busy, starting kernels takes longer than running them (`bench/RESULTS.md`).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from x2roto.engine.assembly import Conditions
from x2roto.engine.memory import Memory
from x2roto.engine.model.segmentor import FrameFeatures, Maps, Prediction, Segmentor

WARM_UPS = 2  # runs in which libraries choose and load what they will use


@dataclass(frozen=True, slots=True)
class Stepped:
    """What the network makes of a frame: its prediction, the state of its queries (B, Q, C), and its memory maps."""

    prediction: Prediction
    queries_bqc: Tensor
    maps_bchw: Maps

    def clone(self) -> Stepped:
        masks, classes = self.prediction.mask_logits_bqhw.clone(), self.prediction.class_logits_bqc.clone()
        return Stepped(Prediction(masks, classes), self.queries_bqc.clone(), tuple(x.clone() for x in self.maps_bchw))


def stepped(segmentor: Segmentor, features: FrameFeatures, memory: Memory, conditions: Conditions) -> Stepped:
    """One frame through decoder, classifier and memory encoder."""
    decoded = segmentor.decode(features, memory, conditions)
    prediction = segmentor.predict(decoded, conditions)
    return Stepped(prediction, decoded.queries_bqc, segmentor.memory_maps(features, prediction))


class Replay:
    """`stepped`, recorded on the current stream, which must not be the default one, for inputs of the same shapes."""

    def __init__(self, segmentor: Segmentor, features: FrameFeatures, memory: Memory, conditions: Conditions) -> None:
        """Raises torch.OutOfMemoryError: beside inputs, all that the step needs at once stays allocated."""
        self._gaps = memory.gaps()
        self._features, self._memory = features.cloned(), memory.cloned()
        for _ in range(WARM_UPS):
            stepped(segmentor, self._features, self._memory, conditions)
        self._graph = torch.cuda.CUDAGraph()
        stream = torch.cuda.current_stream(features.masks[0].device)
        # Other threads may go on using the card meanwhile.
        with torch.cuda.graph(self._graph, stream=stream, capture_error_mode="thread_local"):
            self._result = stepped(segmentor, self._features, self._memory, conditions)

    def fits(self, memory: Memory) -> bool:
        """Whether the memory holds frames as far back as when it was recorded."""
        return memory.gaps() == self._gaps

    def __call__(self, features: FrameFeatures, memory: Memory) -> Stepped:
        """What `stepped` gives."""
        for ours, theirs in ((self._features, features), (self._memory, memory)):
            for held, given in zip(ours.tensors(), theirs.tensors(), strict=True):
                held.copy_(given)
        self._graph.replay()
        return self._result.clone()
