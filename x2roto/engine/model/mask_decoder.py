"""Language-conditioned mask decoder: queries read the image, the language model's tokens and each other.

Mask2Former's masked-attention decoder (arXiv 2112.01527) plus a cross attention to the phrase tokens and a
<SEG> state added to every query (arXiv 2605.00891; wanghao9610/X2SAM@5b0b106
`segmentors/mask2former/modeling_mask2former.py`, `segmentors/x_segmentor.py` `ClassPredictor`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from x2roto.engine.assembly import Conditions
from x2roto.engine.kernels import fuses
from x2roto.engine.model.config import MaskDecoderConfig
from x2roto.engine.model.encodings import sine_tokens
from x2roto.engine.model.layers import LayerNorm, rectified
from x2roto.engine.model.pixel_decoder import LEVELS

# What the fused kernel is written for.
HEAD_WIDTHS = frozenset({16, 32, 64, 128})
STRIDES = frozenset({1, 2, 4, 8})


@dataclass(frozen=True, slots=True)
class Decoded:
    """State of the queries after a layer: `queries_bqc` layer-normed, `hidden_bqc` raw, mask logits at stride 4."""

    hidden_bqc: Tensor
    queries_bqc: Tensor
    mask_logits_bqhw: Tensor


@dataclass(frozen=True, slots=True)
class Level:
    """A map as the decoder's layers read it, tokens (B, h * w, C): `placed` with their positions, for the keys."""

    tokens: Tensor
    placed: Tensor
    size: tuple[int, int]

    @classmethod
    def of(cls, level_bchw: Tensor, embed: Tensor) -> Self:
        height, width = level_bchw.shape[-2:]
        tokens = level_bchw.flatten(2).mT + embed
        return cls(
            tokens, tokens + sine_tokens(len(embed), height, width, tokens.device, tokens.dtype), (height, width)
        )


class MaskDecoder(nn.Module):
    """Features of one frame and the language conditions to query states and mask logits."""

    def __init__(self, config: MaskDecoderConfig, dim: int) -> None:
        super().__init__()
        self.dim = dim
        self.queries_embedder = nn.Embedding(config.queries, dim)
        self.queries_features = nn.Embedding(config.queries, dim)
        self.level_embed = nn.Embedding(LEVELS, dim)
        self.decoder = DecoderStack(config, dim)

    def forward(self, levels_bchw: tuple[Tensor, ...], masks_bchw: Tensor, conditions: Conditions) -> Decoded:
        """The state after the last layer. Batch of features and of conditions must be equal or 1."""
        *_, last = self.layers(levels_bchw, masks_bchw, conditions)
        return last

    def layers(
        self, levels_bchw: tuple[Tensor, ...], masks_bchw: Tensor, conditions: Conditions
    ) -> Iterator[Decoded]:
        """The state before the first layer and after each; training supervises them all."""
        levels = [
            Level.of(level_bchw, embed)
            for level_bchw, embed in zip(levels_bchw, self.level_embed.weight, strict=True)
        ]
        positions = self.queries_embedder.weight
        hidden = self.queries_features.weight + conditions.seg_embeds
        decoded = self.decoder.decode(hidden, masks_bchw)
        yield decoded
        for index, layer in enumerate(self.decoder.layers):
            hidden = layer(decoded, positions, levels[index % LEVELS], conditions)
            decoded = self.decoder.decode(hidden, masks_bchw)
            yield decoded


class DecoderStack(nn.Module):
    """The layers with what turns their output into masks."""

    def __init__(self, config: MaskDecoderConfig, dim: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(DecoderLayer(config, dim) for _ in range(config.layers))
        self.layernorm = LayerNorm(dim)
        self.mask_predictor = MaskPredictor(dim)

    def decode(self, hidden_bqc: Tensor, masks_bchw: Tensor) -> Decoded:
        queries = self.layernorm(hidden_bqc)
        embedded = self.mask_predictor.mask_embedder(queries)
        return Decoded(hidden_bqc, queries, (embedded @ masks_bchw.flatten(2)).unflatten(2, masks_bchw.shape[-2:]))


class MaskPredictor(nn.Module):
    """Three-layer perceptron from a query to its mask embedding."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.mask_embedder = nn.Sequential(
            nn.Sequential(nn.Linear(dim, dim), nn.ReLU()),
            nn.Sequential(nn.Linear(dim, dim), nn.ReLU()),
            nn.Sequential(nn.Linear(dim, dim)),
        )


def attention_mask(mask_logits_bqhw: Tensor, size: Sequence[int]) -> Tensor:
    """Keys each query may read, (B, 1, Q, h * w) bool: where its mask is at least one half, or everywhere if
    that is nowhere. The test is on the sigmoid, whose rounding at 0.5 belongs to the result."""
    resized = F.interpolate(mask_logits_bqhw.detach(), size=tuple(size), mode="bilinear", align_corners=False)
    allowed = (resized.sigmoid() >= 0.5).flatten(2)
    return (allowed | ~allowed.any(-1, keepdim=True))[:, None]


class DecoderLayer(nn.Module):
    """Post-norm: image, language, self, feed-forward."""

    def __init__(self, config: MaskDecoderConfig, dim: int) -> None:
        super().__init__()
        self.cross_attn = PackedAttention(dim, config.heads)
        self.cross_attn_layer_norm = LayerNorm(dim)
        self.text_cross_attn = PackedAttention(dim, config.heads)
        self.text_cross_attn_layer_norm = LayerNorm(dim)
        self.self_attn = SplitAttention(dim, config.heads)
        self.self_attn_layer_norm = LayerNorm(dim)
        self.fc1 = nn.Linear(dim, config.feedforward)
        self.fc2 = nn.Linear(config.feedforward, dim)
        self.final_layer_norm = LayerNorm(dim)

    def forward(self, decoded: Decoded, positions: Tensor, level: Level, conditions: Conditions) -> Tensor:
        """The next hidden state of the queries, each of which reads the level where its mask is."""
        hidden = decoded.hidden_bqc
        attended = self.cross_attn.inside(decoded.mask_logits_bqhw, hidden + positions, level)
        hidden = self.cross_attn_layer_norm(hidden, attended)
        tokens = conditions.token_embeds
        valid = conditions.token_mask.bool()[:, None, None, :]
        attended = self.text_cross_attn(hidden + positions, tokens, tokens, valid)
        hidden = self.text_cross_attn_layer_norm(hidden, attended)
        hidden = self.self_attn_layer_norm(hidden, self.self_attn(hidden + positions, hidden))
        return self.final_layer_norm(hidden, self.fc2(rectified(self.fc1, hidden)))


class PackedAttention(nn.Module):
    """Multi-head attention with the parameter names of `nn.MultiheadAttention`, through the fused kernels."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * dim, dim))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * dim))
        self.out_proj = nn.Linear(dim, dim)
        nn.init.xavier_uniform_(self.in_proj_weight)

    def forward(self, queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
        q, k, v = self._projected(queries, keys, values)
        return self.out_proj(attend(q, k, v, self.heads, mask))

    def inside(self, mask_logits_bqhw: Tensor, queries: Tensor, level: Level) -> Tensor:
        """What each query reads of a level where its mask is (`attention_mask`)."""
        q, k, v = self._projected(queries, level.placed, level.tokens)
        if _fits(q, k, self.heads) and mask_logits_bqhw.shape[-1] // level.size[1] in STRIDES:
            from x2roto.engine.model import fused

            return self.out_proj(fused.attend_where(q, k, v, self.heads, mask_logits_bqhw, level.size))
        return self.out_proj(attend(q, k, v, self.heads, attention_mask(mask_logits_bqhw, level.size)))

    def _projected(self, queries: Tensor, keys: Tensor, values: Tensor) -> Iterable[Tensor]:
        weights, biases = self.in_proj_weight.chunk(3), self.in_proj_bias.chunk(3)
        return map(F.linear, (queries, keys, values), weights, biases)


class SplitAttention(nn.Module):
    """Multi-head self-attention with separate projections; the position enters queries and keys only."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj = nn.Linear(dim, dim)
        self.k_proj = nn.Linear(dim, dim)
        self.v_proj = nn.Linear(dim, dim)
        self.out_proj = nn.Linear(dim, dim)

    def forward(self, placed: Tensor, values: Tensor) -> Tensor:
        return self.out_proj(attend(self.q_proj(placed), self.k_proj(placed), self.v_proj(values), self.heads))


def _fits(q_blc: Tensor, k_blc: Tensor, heads: int) -> bool:
    """Whether the fused kernel takes these: half precision, its widths of a head, and one batch."""
    width, half = q_blc.shape[-1] // heads, q_blc.dtype in (torch.bfloat16, torch.float16)
    return fuses(q_blc) and half and width in HEAD_WIDTHS and len(q_blc) == len(k_blc)


def attend(q_blc: Tensor, k_blc: Tensor, v_blc: Tensor, heads: int, mask: Tensor | None = None) -> Tensor:
    """Multi-head attention of projected tokens; `mask` (B, 1, queries, keys) bool, True may be read."""
    q, k, v = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (q_blc, k_blc, v_blc))
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2)


class ClassPredictor(nn.Module):
    """Scaled cosine of query and condition; the conditions act as the classifier's weights."""

    def __init__(self) -> None:
        super().__init__()
        self.logit_scale = nn.Parameter(torch.tensor([math.log(1 / 0.07)]))

    def forward(self, queries_bqc: Tensor, conditions: Conditions) -> Tensor:
        """Class logits (B, Q, conditions), padded conditions at -1e6. The background is the last column."""
        cosine = F.normalize(queries_bqc, dim=-1) @ F.normalize(conditions.cond_embeds, dim=-1).mT
        logits = (self.logit_scale.exp() * cosine).clamp(-50, 50)
        valid = conditions.embed_mask.bool()
        return logits.masked_fill(~(valid[:, None] if valid.ndim == 2 else valid), -1e6)
