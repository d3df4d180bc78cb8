"""Memory attention: the current frame's features look at themselves and at the remembered frames.

After SAM 2 (arXiv 2408.00714); the differences are the reference's own: run on three scales with one set of
weights, keys of the memory without RoPE but with additive sine and frame-gap encodings
(wanghao9610/X2SAM@5b0b106 `segmentors/sam2/modeling_sam2.py` `Sam2MemoryAttention`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from x2roto.engine.model.config import MemoryConfig
from x2roto.engine.model.encodings import rotate, sine_tokens, turns_on
from x2roto.engine.model.layers import LayerNorm, rectified
from x2roto.engine.model.pixel_decoder import GROUPS


class MemoryAttention(nn.Module):
    """Four pre-norm layers with one head, shared by all scales."""

    def __init__(self, config: MemoryConfig, dim: int) -> None:
        super().__init__()
        self.dim = dim
        self.pooled = config.pooled
        self.layers = nn.ModuleList(MemoryLayer(config, dim) for _ in range(config.layers))
        self.layer_norm = LayerNorm(dim)

    def prepare(self, level_bchw: Tensor, *, fine: bool = False) -> Tensor:
        """The part that sees only its own frame: first self-attention, (B, tokens, C). Batches over frames. `fine`:
        whether the scale is finer than the coarsest."""
        height, width = level_bchw.shape[-2:]
        tokens = level_bchw.flatten(2).mT
        tokens = tokens + 0.1 * sine_tokens(self.dim, height, width, tokens.device, tokens.dtype)
        return self.layers[0].look_at_self(tokens, self._sight(level_bchw, fine=fine))

    def forward(
        self,
        prepared_blc: Tensor,
        level_bchw: Tensor,
        memory_bmc: Tensor,
        positions_mc: Tensor,
        *,
        fine: bool = False,
    ) -> Tensor:
        """Features of one scale conditioned on memory, shaped like `level_bchw`.

        `prepared_blc`: what `prepare` gave for the level. `memory_bmc`: tokens of all remembered frames, oldest
        first; `positions_mc`: their sine plus frame-gap encoding. `fine`: as `prepare` had it.
        """
        sight = self._sight(level_bchw, fine=fine)
        keys = memory_bmc + positions_mc
        tokens = prepared_blc
        for index, layer in enumerate(self.layers):
            if index:
                tokens = layer.look_at_self(tokens, sight)
            tokens = layer.look_at_memory(tokens, keys, memory_bmc, sight.turns)
            tokens = layer.think(tokens)
        return self.layer_norm(tokens).mT.unflatten(2, level_bchw.shape[-2:])

    def _sight(self, level_bchw: Tensor, *, fine: bool) -> Sight:
        height, width = level_bchw.shape[-2:]
        pooled = self.pooled if fine else 1
        turns = turns_on(self.dim, height, width, level_bchw.device)
        size = height // pooled, width // pooled
        read = turns if pooled == 1 else turns_on(self.dim, *size, level_bchw.device, pooled)
        return Sight((height, width), size, turns, read)


@dataclass(frozen=True, slots=True)
class Sight:
    """How the cells of a scale look at each other: `size` of their grid and of the grid they read, `read_size`, with
    the rotations of both."""

    size: tuple[int, int]
    read_size: tuple[int, int]
    turns: Tensor
    read_turns: Tensor

    def read(self, tokens_blc: Tensor) -> Tensor:
        """The cells (B, height * width, C) as they are read: all of them, or the means of squares."""
        if self.size == self.read_size:
            return tokens_blc
        cells = tokens_blc.mT.unflatten(2, self.size)
        return F.adaptive_avg_pool2d(cells, self.read_size).flatten(2).mT


class Carry(nn.Module):
    """A memory map, moved along with the picture: every cell takes it from the cells around it, or without a `radius`
    from any, that looked alike then.

    As SAM adds a mask prompt to its image embedding (arXiv 2304.02643), but motion-compensated by a local correlation
    of features that needs no learning to be of use. Attention finds the same in the end, from far more clips.
    """

    SHARPNESS = 20.0

    def __init__(self, radius: int | None, dim: int) -> None:
        super().__init__()
        self.radius = radius
        self.projection = nn.Conv2d(dim, dim, 1)
        self.log_sharpness = nn.Parameter(torch.tensor(math.log(self.SHARPNESS)))

    def forward(self, map_bchw: Tensor, then_bchw: Tensor, now_bchw: Tensor) -> Tensor:
        """What to add to the level `now_bchw`. `map_bchw`: of the frame whose level was `then_bchw`."""
        height, width = now_bchw.shape[-2:]
        now, then = (F.normalize(level, dim=1).flatten(2).mT for level in (now_bchw, then_bchw))
        near = None if self.radius is None else _near(height, width, self.radius, now.device, now.dtype)
        moved = F.scaled_dot_product_attention(
            (now * self.log_sharpness.exp())[:, None],
            then[:, None],
            map_bchw.flatten(2).mT[:, None],
            attn_mask=near,
            scale=1.0,
        )
        return self.projection(moved[:, 0].mT.unflatten(2, (height, width)))

    def silence(self) -> None:
        """Let it change nothing until it has learnt."""
        nn.init.zeros_(self.projection.weight)
        assert self.projection.bias is not None
        nn.init.zeros_(self.projection.bias)


@cache
def _near(height: int, width: int, radius: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """0 for every pair of cells at most `radius` rows and columns apart, minus infinity for the others."""
    with torch.inference_mode(False):
        rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        apart = torch.stack([(at.flatten()[:, None] - at.flatten()).abs() for at in (rows, columns)]).amax(0)
        return torch.zeros(apart.shape, dtype=dtype).masked_fill(apart > radius, -torch.inf).to(device)


class MaskRecall(nn.Module):
    """Lets the per-pixel embedding see what a level read from memory, through residual convolutions.

    In X2SAM masks see memory through the queries alone. A network too small to tell like from like by their queries
    needs to see where the thing was, as in space-time memory networks (arXiv 1904.00607).
    """

    def __init__(self, layers: int, dim: int) -> None:
        super().__init__()
        self.projection = nn.Conv2d(dim, dim, 1)
        self.layers = nn.ModuleList(
            nn.Sequential(nn.GroupNorm(GROUPS, dim), nn.GELU(), nn.Conv2d(dim, dim, 3, padding=1))
            for _ in range(layers)
        )

    def forward(self, masks_bchw: Tensor, level_bchw: Tensor) -> Tensor:
        """The embedding `masks_bchw` with what `level_bchw`, conditioned on memory, knows."""
        size = masks_bchw.shape[-2:]
        read = F.interpolate(self.projection(level_bchw), size=size, mode="bilinear", align_corners=False)
        seen = masks_bchw + read
        for layer in self.layers:
            seen = seen + layer(seen)
        return seen


class MemoryLayer(nn.Module):
    """Self-attention, attention to memory, feed-forward; each pre-norm with a residual."""

    def __init__(self, config: MemoryConfig, dim: int) -> None:
        super().__init__()
        self.self_attn = SingleHeadAttention(dim)
        self.cross_attn = SingleHeadAttention(dim)
        self.linear1 = nn.Linear(dim, config.feedforward)
        self.linear2 = nn.Linear(config.feedforward, dim)
        self.layer_norm1 = LayerNorm(dim)
        self.layer_norm2 = LayerNorm(dim)
        self.layer_norm3 = LayerNorm(dim)

    def look_at_self(self, tokens_blc: Tensor, sight: Sight) -> Tensor:
        normed = self.layer_norm1(tokens_blc)
        read = sight.read(normed)
        return tokens_blc + self.self_attn(normed, read, read, sight.turns, sight.read_turns)

    def look_at_memory(self, tokens_blc: Tensor, keys_bmc: Tensor, values_bmc: Tensor, turns: Tensor) -> Tensor:
        normed = self.layer_norm2(tokens_blc)
        return tokens_blc + self.cross_attn(normed, keys_bmc, values_bmc, turns)

    def think(self, tokens_blc: Tensor) -> Tensor:
        return tokens_blc + self.linear2(rectified(self.linear1, self.layer_norm3(tokens_blc)))


class SingleHeadAttention(nn.Module):
    """One head as wide as the model; queries always rotated, keys where their `key_turns` are given."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.q_proj = nn.Linear(dim, dim)
        self.k_proj = nn.Linear(dim, dim)
        self.v_proj = nn.Linear(dim, dim)
        self.o_proj = nn.Linear(dim, dim)

    def forward(
        self, queries: Tensor, keys: Tensor, values: Tensor, turns: Tensor, key_turns: Tensor | None = None
    ) -> Tensor:
        q, k, v = rotate(self.q_proj(queries), turns), self.k_proj(keys), self.v_proj(values)
        if key_turns is not None:
            k = rotate(k, key_turns)
        return self.o_proj(F.scaled_dot_product_attention(q[:, None], k[:, None], v[:, None])[:, 0])
