"""Lets the picture itself see what is asked, for networks too small to find it through their queries.

In X2SAM words reach the masks through the queries alone, which takes millions of phrases to learn. Here the cells of
one level look at each other and at the words, and the state of <SEG> scales and shifts their channels (FiLM, arXiv
1709.07871); what comes of it is added to the level and to the per-pixel embedding.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from x2roto.engine.assembly import Conditions
from x2roto.engine.model.encodings import sine_tokens
from x2roto.engine.model.pixel_decoder import GROUPS

CONVOLUTIONS = 2


class WordReading(nn.Module):
    """Pre-norm layers over the cells of a level, and residual convolutions over the per-pixel embedding."""

    def __init__(self, layers: int, heads: int, feedforward: int, dim: int) -> None:
        super().__init__()
        self.dim = dim
        self.layers = nn.ModuleList(ReadingLayer(heads, feedforward, dim) for _ in range(layers))
        self.layer_norm = nn.LayerNorm(dim)
        self.to_level = nn.Conv2d(dim, dim, 1)
        self.to_masks = nn.Conv2d(dim, dim, 1)
        self.convolutions = nn.ModuleList(
            nn.Sequential(nn.GroupNorm(GROUPS, dim), nn.GELU(), nn.Conv2d(dim, dim, 3, padding=1))
            for _ in range(CONVOLUTIONS)
        )

    def forward(self, level_bchw: Tensor, masks_bchw: Tensor, conditions: Conditions) -> tuple[Tensor, Tensor]:
        """The level and the per-pixel embedding, with what the words of each batch entry point at."""
        height, width = level_bchw.shape[-2:]
        cells = level_bchw.flatten(2).mT
        places = sine_tokens(self.dim, height, width, cells.device, cells.dtype)
        for layer in self.layers:
            cells = layer(cells, places, conditions)
        read = self.layer_norm(cells).mT.unflatten(2, (height, width))
        size = masks_bchw.shape[-2:]
        masks = masks_bchw + F.interpolate(self.to_masks(read), size, mode="bilinear", align_corners=False)
        for convolution in self.convolutions:
            masks = masks + convolution(masks)
        return level_bchw + self.to_level(read), masks

    def silence(self) -> None:
        """Let it change nothing until it has learnt."""
        last = [convolution[-1] for convolution in self.convolutions]  # type: ignore[index]
        for output in (self.to_level, self.to_masks, *last):
            nn.init.zeros_(output.weight)
            nn.init.zeros_(output.bias)


class ReadingLayer(nn.Module):
    """Cells look at each other, at the words, take their channels from <SEG>, and think."""

    def __init__(self, heads: int, feedforward: int, dim: int) -> None:
        super().__init__()
        self.self_attn = nn.MultiheadAttention(dim, heads, batch_first=True)
        self.word_attn = nn.MultiheadAttention(dim, heads, batch_first=True)
        self.film = nn.Linear(dim, 2 * dim)
        self.linear1 = nn.Linear(dim, feedforward)
        self.linear2 = nn.Linear(feedforward, dim)
        self.layer_norm1 = nn.LayerNorm(dim)
        self.layer_norm2 = nn.LayerNorm(dim)
        self.layer_norm3 = nn.LayerNorm(dim)

    def forward(self, cells_blc: Tensor, places_lc: Tensor, conditions: Conditions) -> Tensor:
        normed = self.layer_norm1(cells_blc)
        placed = normed + places_lc
        cells = cells_blc + self.self_attn(placed, placed, normed, need_weights=False)[0]
        placed = self.layer_norm2(cells) + places_lc
        words, absent = conditions.token_embeds, ~conditions.token_mask.bool()
        cells = cells + self.word_attn(placed, words, words, key_padding_mask=absent, need_weights=False)[0]
        scale, shift = self.film(conditions.seg_embeds.expand(len(cells), -1, -1)).chunk(2, dim=-1)
        normed = self.layer_norm3(cells) * (1 + scale) + shift
        return cells + self.linear2(torch.relu(self.linear1(normed)))
