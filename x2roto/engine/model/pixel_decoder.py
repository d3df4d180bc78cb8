"""Multi-scale deformable encoder over the pyramid (Mask2Former, arXiv 2112.01527; Deformable DETR, arXiv 2010.04159).

Same numbers as `transformers`' `Mask2FormerPixelDecoder`; written out because that one rebuilds its tables on
every call, computes them in the model's dtype, and holds the samples of all levels at once.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from x2roto.engine.kernels import fuses
from x2roto.engine.model.config import PixelDecoderConfig
from x2roto.engine.model.encodings import extent, reference_points, sine_tokens
from x2roto.engine.model.layers import LayerNorm, rectified

LEVELS = 3
GROUPS = 32

Sizes = tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class PixelFeatures:
    """`levels_bchw`: three maps, coarse to fine (strides 16, 8, 4). `masks_bchw`: per-pixel embedding, stride 4."""

    levels_bchw: tuple[Tensor, ...]
    masks_bchw: Tensor


class PixelDecoder(nn.Module):
    """Pyramid of B frames to `PixelFeatures`; no frame sees another."""

    def __init__(self, config: PixelDecoderConfig, dim: int) -> None:
        super().__init__()
        self.dim = dim
        self.level_embed = nn.Parameter(torch.zeros(LEVELS, dim))
        self.input_projections = nn.ModuleList(
            nn.Sequential(nn.Conv2d(dim, dim, 1), nn.GroupNorm(GROUPS, dim)) for _ in range(LEVELS)
        )
        self.encoder = DeformableEncoder(config, dim)
        self.adapter_1 = nn.Sequential(nn.Conv2d(dim, dim, 1, bias=False), nn.GroupNorm(GROUPS, dim))
        self.layer_1 = nn.Sequential(
            nn.Conv2d(dim, dim, 3, padding=1, bias=False), nn.GroupNorm(GROUPS, dim), nn.ReLU()
        )
        self.mask_projection = nn.Conv2d(dim, dim, 1)

    def forward(self, pyramid_bchw: tuple[Tensor, ...]) -> PixelFeatures:
        """Decode three pyramid maps, fine to coarse."""
        levels = pyramid_bchw[::-1]
        sizes: Sizes = tuple((level.shape[-2], level.shape[-1]) for level in levels)
        tokens = torch.cat(
            [project(level).flatten(2).mT for project, level in zip(self.input_projections, levels, strict=True)],
            dim=1,
        )
        positions = torch.cat(
            [
                sine_tokens(self.dim, *size, tokens.device, tokens.dtype) + embed
                for size, embed in zip(sizes, self.level_embed, strict=True)
            ]
        )
        decoded = _as_maps(self.encoder(tokens, positions, sizes), sizes)
        finest = self.layer_1(self.adapter_1(pyramid_bchw[0]) + decoded[-1])
        return PixelFeatures(decoded, self.mask_projection(finest))


class DeformableEncoder(nn.Module):
    """The deformable layers in a row, over the tokens of all levels."""

    def __init__(self, config: PixelDecoderConfig, dim: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(DeformableLayer(config, dim) for _ in range(config.layers))

    def forward(self, tokens_blc: Tensor, positions_lc: Tensor, sizes: Sizes) -> Tensor:
        for layer in self.layers:
            tokens_blc = layer(tokens_blc, positions_lc, sizes)
        return tokens_blc


class DeformableLayer(nn.Module):
    """Post-norm deformable self-attention and feed-forward."""

    def __init__(self, config: PixelDecoderConfig, dim: int) -> None:
        super().__init__()
        self.self_attn = DeformableAttention(config, dim)
        self.self_attn_layer_norm = LayerNorm(dim)
        self.fc1 = nn.Linear(dim, config.feedforward)
        self.fc2 = nn.Linear(config.feedforward, dim)
        self.final_layer_norm = LayerNorm(dim)

    def forward(self, tokens_blc: Tensor, positions_lc: Tensor, sizes: Sizes) -> Tensor:
        attended = self.self_attn(tokens_blc + positions_lc, tokens_blc, sizes)
        tokens = self.self_attn_layer_norm(tokens_blc, attended)
        return self.final_layer_norm(tokens, self.fc2(rectified(self.fc1, tokens)))


class DeformableAttention(nn.Module):
    """Each token reads `points` learned positions per level and head, bilinearly, zero outside the map."""

    def __init__(self, config: PixelDecoderConfig, dim: int) -> None:
        super().__init__()
        self.heads, self.points = config.heads, config.points
        samples = config.heads * LEVELS * config.points
        self.sampling_offsets = nn.Linear(dim, samples * 2)
        self.attention_weights = nn.Linear(dim, samples)
        self.value_proj = nn.Linear(dim, dim)
        self.output_proj = nn.Linear(dim, dim)

    def forward(self, queries_blc: Tensor, values_blc: Tensor, sizes: Sizes) -> Tensor:
        shape = (*queries_blc.shape[:2], self.heads, LEVELS, self.points)
        offsets = self.sampling_offsets(queries_blc).view(*shape, 2)
        logits = self.attention_weights(queries_blc).view(*shape[:3], -1)
        values = self.value_proj(values_blc)
        if fuses(values):
            from x2roto.engine.model import fused

            return self.output_proj(fused.sample_levels(values, offsets, logits, sizes))
        weights = logits.softmax(-1).view(shape)
        return self.output_proj(sample_levels(values, offsets.float(), weights, sizes).type_as(values))


def sample_levels(values_blc: Tensor, offsets: Tensor, weights: Tensor, sizes: Sizes) -> Tensor:
    """Weighted bilinear samples (B, tokens, C), in float32.

    `offsets` (B, tokens, heads, levels, points, 2) in pixels of their level, x first; `weights` likewise without
    the last axis, summing to one over levels and points. On a CPU and without gradients in fewer passes over memory,
    which rounds otherwise.
    """
    if values_blc.device.type == "cpu" and not values_blc.requires_grad:
        return sample_in_bags(values_blc, offsets, weights, sizes)
    return sample_on_grids(values_blc, offsets, weights, sizes)


def sample_in_bags(values_blc: Tensor, offsets: Tensor, weights: Tensor, sizes: Sizes) -> Tensor:
    """As `sample_levels`: each sum over the corners of all points of a level is a bag of weighted rows."""
    centres = reference_points(sizes, values_blc.device)
    areas = [height * width for height, width in sizes]
    frames = []
    # Frame by frame, as what one frame reads fits into a cache.
    for values, offset, weight in zip(values_blc.float(), offsets.float(), weights.float(), strict=True):
        total = torch.zeros((), device=values.device)
        for index, (level, (height, width)) in enumerate(zip(values.split(areas), sizes, strict=True)):
            middles = centres * extent(width, height, values.device) - 0.5
            where = middles[:, None, None] + offset[:, :, index]
            total = total + _read_in_bags(level.unflatten(0, (height, width)), where, weight[:, :, index])
        frames.append(total)
    return torch.stack(frames)


def _read_in_bags(image_hwc: Tensor, where_lnp2: Tensor, weights_lnp: Tensor) -> Tensor:
    """Weighted sums (L, C) of what n heads read at p places of a map, zero outside of it. Places are counted from the
    middle of the first pixel."""
    height, width, channels = image_hwc.shape
    tokens, heads, _ = weights_lnp.shape
    # With a border of zeros, places too far out come to lie on it and every corner is a row.
    padded, stride = F.pad(image_hwc, (0, 0, 1, 2, 1, 2)), width + 3
    place = torch.minimum(where_lnp2.clamp_min(-1), extent(width, height, where_lnp2.device))
    corner = place.floor()
    (x, y), (column, row) = (place - corner).unbind(-1), corner.unbind(-1)
    first = ((row + 1) * stride + column + 1).int() * heads
    first += torch.arange(heads, dtype=torch.int32, device=first.device)[:, None]
    steps = torch.tensor([0, 1, stride, stride + 1], dtype=torch.int32, device=first.device) * heads
    upper, lower = weights_lnp * (1 - y), weights_lnp * y
    share = torch.stack((upper * (1 - x), upper * x, lower * (1 - x), lower * x), -1)
    read = F.embedding_bag(
        (first[..., None] + steps).view(tokens * heads, -1),
        padded.reshape(-1, channels // heads),
        mode="sum",
        per_sample_weights=share.view(tokens * heads, -1),
    )
    return read.view(tokens, channels)


def sample_on_grids(values_blc: Tensor, offsets: Tensor, weights: Tensor, sizes: Sizes) -> Tensor:
    """As `sample_levels`, plainly: what the others must equal."""
    batch, tokens, heads = offsets.shape[:3]
    centres = reference_points(sizes, values_blc.device)
    levels = values_blc.split([height * width for height, width in sizes], dim=1)
    total = torch.zeros((), device=values_blc.device)
    for index, ((height, width), level) in enumerate(zip(sizes, levels, strict=True)):
        size = extent(width, height, offsets.device)
        where = centres[:, None, None, :] + offsets[:, :, :, index] / size  # b l h p 2
        grid = (2 * where - 1).transpose(1, 2).flatten(0, 1)  # bh l p 2
        image = level.float().unflatten(2, (heads, -1)).permute(0, 2, 3, 1).reshape(batch * heads, -1, height, width)
        read = F.grid_sample(image, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
        share = weights[:, :, :, index].float().transpose(1, 2).reshape(batch * heads, 1, tokens, -1)
        total = total + (read * share).sum(-1)  # bh d l
    return total.view(batch, -1, tokens).mT


def _as_maps(tokens_blc: Tensor, sizes: Sizes) -> tuple[Tensor, ...]:
    parts = tokens_blc.split([height * width for height, width in sizes], dim=1)
    return tuple(part.mT.unflatten(2, size) for part, size in zip(parts, sizes, strict=True))
