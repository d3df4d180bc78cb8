"""The segmentation half of the network: frames and language conditions to queries, masks and memory.

Split by what may run ahead: `encode` and `features` see each frame alone and batch over a chunk; `decode` and
`remember` are the recurrent rest, one frame at a time (wanghao9610/X2SAM@5b0b106
`segmentors/x_segmentor.py` `XSegmentor.forward`, SAM2 encoder with Mask2Former decoder).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from functools import partial
from typing import Self

import torch
from torch import Tensor, nn

from x2roto.engine.assembly import Conditions
from x2roto.engine.memory import Memory
from x2roto.engine.model.config import MaskDecoderConfig, ModelConfig
from x2roto.engine.model.encodings import sine_tokens, temporal_on
from x2roto.engine.model.mask_decoder import ClassPredictor, Decoded, MaskDecoder
from x2roto.engine.model.mask_encoder import MaskEncoder
from x2roto.engine.model.memory_attention import Carry, MaskRecall, MemoryAttention
from x2roto.engine.model.memory_encoder import MemoryEncoder
from x2roto.engine.model.pixel_decoder import PixelDecoder
from x2roto.engine.model.word_reading import WordReading

Maps = tuple[Tensor, ...]

STRIDE = 4  # of the mask logits
READ_LEVEL = 1  # the middle one of three, at stride 8


@dataclass(frozen=True, slots=True)
class FrameFeatures:
    """All that is known of B frames before memory is read. Every field is a tuple of tensors of batch B.

    `levels`, `masks`: pixel decoder outputs, coarse to fine, and the per-pixel embedding. `downsampled`: levels
    that take part in memory, at its resolution. `prepared`: memory attention's first self-attention of those,
    empty for a frame that finds no memory.
    """

    levels: Maps
    masks: Maps
    downsampled: Maps
    prepared: Maps

    def frames(self) -> Iterator[Self]:
        """The same features one frame at a time, as views."""
        for index in range(self.masks[0].shape[0]):
            yield self._each(partial(_batch_entry, index=index))

    def expand(self, batch: int) -> Self:
        """One frame's features for `batch` independent sets of conditions, as views."""
        if self.masks[0].shape[0] == batch:
            return self
        return self._each(lambda x: x.expand(batch, *x.shape[1:]))

    def again(self, index_m: Tensor) -> Self:
        """The features of the frames of these numbers, in this order."""
        return self._each(lambda x: x[index_m])

    def to(self, device: torch.device) -> Self:
        return self._each(lambda x: x.to(device))

    def cloned(self) -> Self:
        return self._each(torch.clone)

    def tensors(self) -> Iterator[Tensor]:
        """All of them, in a fixed order."""
        for field in fields(self):
            yield from getattr(self, field.name)

    def _each(self, change: Callable[[Tensor], Tensor]) -> Self:
        return type(self)(*(tuple(map(change, getattr(self, f.name))) for f in fields(self)))


@dataclass(frozen=True, slots=True)
class Prediction:
    """Logits of one frame for B sets of conditions: masks (B, Q, h, w) at stride 4, classes (B, Q, conditions)."""

    mask_logits_bqhw: Tensor
    class_logits_bqc: Tensor

    def best(self) -> Tensor:
        """Mask logits (B, h, w) of the query that is surest to be each set's first condition."""
        sure = self.class_logits_bqc[..., 0] - self.class_logits_bqc[..., -1]
        return self.mask_logits_bqhw[torch.arange(len(sure), device=sure.device), sure.argmax(-1)]


def _reading(config: MaskDecoderConfig, dim: int) -> WordReading:
    return WordReading(config.reading, config.heads, config.feedforward, dim)


def _batch_entry(tensor: Tensor, *, index: int) -> Tensor:
    return tensor[index : index + 1]


class Segmentor(nn.Module):
    """Mask encoder, pixel decoder, memory, mask decoder and classifier."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.dim = config.dim
        self.encoder = MaskEncoder(config.encoder, config.image_size)
        self.pixel_decoder = PixelDecoder(config.pixel_decoder, config.dim)
        self.memory_attention = MemoryAttention(config.memory, config.dim)
        self.memory_encoder = MemoryEncoder(config.memory, config.dim)
        layers = config.memory.mask_layers
        self.mask_recall = MaskRecall(layers, config.dim) if layers else None
        self.carry = Carry(config.memory.carry, config.dim) if config.memory.carry else None
        self.match = Carry(None, config.dim) if config.memory.anchored else None
        self.reading = _reading(config.decoder, config.dim) if config.decoder.reading else None
        self.decoder = MaskDecoder(config.decoder, config.dim)
        self.class_predictor = ClassPredictor()
        self.no_memory_embedding = nn.Parameter(torch.zeros(1, 1, config.dim))

    def features(self, pyramid_bchw: Maps, *, first: bool) -> FrameFeatures:
        """Features of B frames from their pyramid maps (fine to coarse).

        Frames that find no memory (`first`) get the no-memory embedding, before the pixel decoder, and nothing
        prepared for memory attention.
        """
        if first:
            pyramid_bchw = tuple(level + self.no_memory_embedding.view(1, -1, 1, 1) for level in pyramid_bchw)
        pixel = self.pixel_decoder(pyramid_bchw)
        scales = () if first else self.memory_encoder.scales
        return FrameFeatures(
            levels=pixel.levels_bchw,
            masks=(pixel.masks_bchw,),
            downsampled=self.memory_encoder.downsample(pixel.levels_bchw),
            prepared=tuple(
                self.memory_attention.prepare(pixel.levels_bchw[scale], fine=self.fine(scale)) for scale in scales
            ),
        )

    def decode(self, features: FrameFeatures, memory: Memory, conditions: Conditions) -> Decoded:
        """Queries and masks of one frame for every set of conditions."""
        features = features.expand(len(conditions.seg_embeds))
        return self.decoder(*self.read(features, memory, conditions), conditions)

    def read(self, features: FrameFeatures, memory: Memory, conditions: Conditions) -> tuple[Maps, Tensor]:
        """The levels of one frame and its per-pixel embedding as the decoder gets them: conditioned on memory and, in
        models that do so, on what is asked."""
        levels, masks = self.recall(features, memory)
        if self.reading is None:
            return levels, masks
        middle, masks = self.reading(levels[READ_LEVEL], masks, conditions)
        return (*levels[:READ_LEVEL], middle, *levels[READ_LEVEL + 1 :]), masks

    def recall(self, features: FrameFeatures, memory: Memory) -> tuple[Maps, Tensor]:
        """The levels of one frame, coarse to fine, and its per-pixel embedding, both conditioned on memory."""
        (masks,) = features.masks
        if memory.empty:
            return features.levels, masks
        positions, levels = self.memory_positions(memory), list(features.levels)
        for slot, scale in enumerate(self.memory_encoder.scales):
            levels[scale] = self.memory_attention(
                features.prepared[slot], levels[scale], memory.tokens(slot), positions, fine=self.fine(scale)
            )
        finest = self.memory_encoder.scales[-1]
        level = features.levels[finest]
        for carry, maps in ((self.carry, memory.newest()), (self.match, memory.first())):
            if carry is not None:
                levels[finest] = levels[finest] + carry(maps[-2], maps[-1].expand_as(level), level)
        if self.mask_recall is not None:
            masks = self.mask_recall(masks, levels[finest])
        return tuple(levels), masks

    def fine(self, scale: int) -> bool:
        """Whether a scale of memory is finer than the coarsest."""
        return scale > self.memory_encoder.scales[0]

    def memory_positions(self, memory: Memory) -> Tensor:
        """Sine plus frame-gap encoding of all memory tokens, (entries * h * w, C); the same for every scale."""
        like = memory.maps(0)[0]
        space = sine_tokens(self.dim, *like.shape[-2:], like.device, like.dtype)
        return torch.cat([space + temporal_on(gap, self.dim, like.device, like.dtype) for gap in memory.gaps()])

    def predict(self, decoded: Decoded, conditions: Conditions) -> Prediction:
        """Class logits beside the mask logits."""
        return Prediction(decoded.mask_logits_bqhw, self.class_predictor(decoded.queries_bqc, conditions))

    def remember(self, features: FrameFeatures, prediction: Prediction, memory: Memory) -> Memory:
        """The memory after this frame."""
        return memory.remember(self.memory_maps(features, prediction))

    def memory_maps(self, features: FrameFeatures, prediction: Prediction) -> Maps:
        """What is remembered of this frame."""
        maps = self.memory_encoder(features.downsampled, prediction.mask_logits_bqhw, prediction.class_logits_bqc)
        return self._with_level(maps, features)

    def imprint(self, pyramid_bchw: Maps, regions_b1hw: Tensor) -> Maps:
        """Memory maps of region prompts (`Memory.prompt`), each shown on its own frame or all on the same one.

        `regions_b1hw`: how much of each cell of the mask logits' grid the region covers, in [0, 1].
        """
        features = self.features(pyramid_bchw, first=True).expand(len(regions_b1hw))
        return self._with_level(self.memory_encoder.imprint(features.downsampled, regions_b1hw), features)

    def _with_level(self, maps: Maps, features: FrameFeatures) -> Maps:
        """Memory maps, and after them the level that `Carry` compares, if there is one.

        Laid out as they are read from a saved shot, on which the last bits of a result depend.
        """
        compared = self.carry is not None or self.match is not None
        kept = (*maps, features.levels[self.memory_encoder.scales[-1]]) if compared else maps
        return tuple(each.contiguous() for each in kept)
