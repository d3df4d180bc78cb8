"""SAM2.1 Hiera with its feature pyramid: the layers of `transformers`' `Sam2VisionModel`, in our order of work.

Numbers equal the library's, which moves every block's cells into windows and back and computes a product of
queries and keys within each cell that nothing reads. All that a block does beside attention and pooling it does to
each cell alone, so here cells stay in windows from block to block.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import Sam2HieraDetConfig, Sam2VisionConfig, Sam2VisionModel
from transformers.models.sam2.modeling_sam2 import Sam2HieraDetModel, Sam2MultiScaleAttention

from x2roto.engine.model.config import MaskEncoderConfig
from x2roto.engine.model.layers import with_fast_norms


@dataclass(frozen=True, slots=True)
class Pyramid:
    """What the encoder gives for a batch of B frames.

    `levels_bchw`: three maps of `fpn_dim` channels, fine to coarse (strides 4, 8, 16).
    `region_bhwc`: output of the third stage (stride 16), which region prompts are sampled from.
    """

    levels_bchw: tuple[Tensor, ...]
    region_bhwc: Tensor


class MaskEncoder(Sam2VisionModel):
    """Hiera and neck. Parameter names are those of `Sam2VisionModel`."""

    def __init__(self, config: MaskEncoderConfig, image_size: int) -> None:
        super().__init__(_library_config(config, image_size))
        with_fast_norms(self)
        self.neck.position_encoding = _NoEncoding()  # type: ignore[assignment]

    def forward(self, pixels_bchw: Tensor) -> Pyramid:
        """Encode normalised frames (B, 3, image_size, image_size)."""
        stages = _stages(self.backbone, pixels_bchw)
        # The neck lists coarse to fine and starts with the stride-32 level, which nothing reads.
        levels = self.neck(stages)[0][-3:][::-1]
        return Pyramid(levels, stages[-2])


@dataclass(frozen=True, slots=True)
class Grid:
    """How cells (n, h, w, C) are laid out: `batch` maps of `height` x `width`, whole, or cut into windows of `window`
    cells to a side, which then count as the batch."""

    batch: int
    height: int
    width: int
    window: int = 0

    def pooled(self, by: int) -> Grid:
        """The same after pooling."""
        return Grid(self.batch, self.height // by, self.width // by, self.window // by)

    def arranged(self, cells: Tensor, window: int) -> Tensor:
        """The same cells in windows of that size, or whole for 0."""
        if window == self.window:
            return cells
        if self.window:
            across = self.width // self.window
            rows = cells.unflatten(0, (self.batch, -1, across)).transpose(2, 3)
            cells = rows.reshape(self.batch, self.height, self.width, -1)
        if window:
            cut = cells.unflatten(2, (-1, window)).unflatten(1, (-1, window)).transpose(2, 3)
            cells = cut.reshape(-1, window, window, cells.shape[-1])
        return cells


def _stages(backbone: Sam2HieraDetModel, pixels_bchw: Tensor) -> tuple[Tensor, ...]:
    """What each stage ends with, (B, h, w, C)."""
    cells = backbone.patch_embed(pixels_bchw)
    cells = cells + backbone._get_pos_embed(cells.shape[1:3])
    grid, ends = Grid(*cells.shape[:3]), []
    for index, block in enumerate(backbone.blocks):
        if block.gradient_checkpointing and block.training:
            cells, grid = block._gradient_checkpointing_func(_through, block, cells, grid)
        else:
            cells, grid = _through(block, cells, grid)
        if index in backbone.stage_ends:
            ends.append(grid.arranged(cells, 0))
    return tuple(ends)


def _through(block: Any, cells: Tensor, grid: Grid) -> tuple[Tensor, Grid]:
    """Cells after a `Sam2MultiScaleBlock`, and how they are laid out."""
    window, stride = block.window_size, block.query_stride[0] if block.query_stride else 1
    padded = bool(window) and bool(grid.height % window or grid.width % window)
    if window or stride > 1:
        kept = 0 if padded else window
        cells, grid = grid.arranged(cells, kept), replace(grid, window=kept)
    normed = block.layer_norm1(cells)
    residual = cells if block.dim == block.dim_out else _pool(block.proj(normed), stride)
    if padded:
        attended = _attend_padded(block.attn, normed, window, stride)
    elif window or stride > 1:
        attended = _attend(block.attn, normed, stride)
    else:
        # All of a map's cells see each other, in whatever order they are.
        attended = _attend(block.attn, normed.reshape(grid.batch, grid.height, grid.width, -1)).view_as(residual)
    cells = residual + attended
    return cells + block.mlp(block.layer_norm2(cells)), grid.pooled(stride)


def _attend(attention: Sam2MultiScaleAttention, cells_nhwc: Tensor, stride: int = 1) -> Tensor:
    """Attention of the cells of each map or window, the queries pooled."""
    q, k, v = attention.qkv(cells_nhwc).chunk(3, dim=-1)
    pooled = _pool(q, stride)
    heads = (attention.num_attention_heads, -1)
    parts = [x.flatten(1, 2).unflatten(2, heads).transpose(1, 2) for x in (pooled, k, v)]
    read = F.scaled_dot_product_attention(parts[0], parts[1], parts[2], scale=attention.scale)
    return attention.proj(read.transpose(1, 2).reshape(pooled.shape))


def _attend_padded(attention: Sam2MultiScaleAttention, cells_bhwc: Tensor, window: int, stride: int) -> Tensor:
    """The same in windows that reach over the map's right and lower border, where there are zeros."""
    height, width = cells_bhwc.shape[1:3]
    padded = F.pad(cells_bhwc, (0, 0, 0, -width % window, 0, -height % window))
    grid = Grid(*padded.shape[:3])
    read = _attend(attention, grid.arranged(padded, window), stride)
    whole = replace(grid, window=window).pooled(stride).arranged(read, 0)
    return whole[:, : height // stride, : width // stride]


def _pool(cells_nhwc: Tensor, stride: int) -> Tensor:
    """The greatest of every square of cells."""
    if stride == 1:
        return cells_nhwc
    return F.max_pool2d(cells_nhwc.permute(0, 3, 1, 2), stride).permute(0, 2, 3, 1)


class _NoEncoding(nn.Module):
    """In place of the neck's position maps, which nothing reads."""

    def forward(self, shape: torch.Size, device: torch.device, dtype: torch.dtype) -> Tensor:
        return torch.empty(0, device=device, dtype=dtype)


def _library_config(config: MaskEncoderConfig, image_size: int) -> Sam2VisionConfig:
    backbone = Sam2HieraDetConfig(
        hidden_size=config.embed_dims[0],
        num_attention_heads=config.heads[0],
        image_size=[image_size, image_size],
        blocks_per_stage=list(config.blocks),
        embed_dim_per_stage=list(config.embed_dims),
        num_attention_heads_per_stage=list(config.heads),
        window_size_per_stage=list(config.windows),
        global_attention_blocks=list(config.global_blocks),
        window_positional_embedding_background_size=list(config.pos_embed_size),
        num_query_pool_stages=config.query_stages,
    )
    return Sam2VisionConfig(
        backbone_config=backbone,
        backbone_channel_list=list(reversed(config.embed_dims)),
        backbone_feature_sizes=[[image_size // s, image_size // s] for s in (4, 8, 16)],
        fpn_hidden_size=config.fpn_dim,
        fpn_top_down_levels=list(config.fpn_top_down_levels),
    )
