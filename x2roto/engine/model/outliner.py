"""Draws an object's outline from all that is known of it, for networks too small to do so alone.

The released network draws well from its own queries. A small one has learnt little of what things look like; but the
shot shows what this thing looks like. So beside the network's own mask an outliner weighs how like the object each
cell is, where that was first seen and where it was last seen (FEELVOS, arXiv 1902.09513, with features of the
finder's eyes), the object's colours, and where the object was.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from x2roto.engine.model.config import OutlinerConfig

FIELDS = 5  # cues of a place: the network's own mask, colours, the mask before, the prompt, and how much is known
LIKENESS = 3  # maps of one comparison: the share of what is like it that is the object's; how like both sides are
OWN = 4.0  # the network's logits are shown in this unit
LEAST = -1.0  # cosine of what is not there to be compared


@dataclass(frozen=True, slots=True)
class Sight:
    """What the eyes see of B windows: `fine` (B, C, h, w), for drawing; `tokens` (B, n, D), for comparing."""

    fine: Tensor
    tokens: Tensor
    grid: tuple[int, int]


class Outliner(nn.Module):
    """Eyes' maps and cues to what is added to the network's own logits."""

    def __init__(self, config: OutlinerConfig, dim: int) -> None:
        super().__init__()
        width = config.dim
        self.comparing = nn.Conv2d(dim, config.tokens, 1)
        self.sharpness = nn.Parameter(torch.tensor(math.log(15.0)))
        self.nearness = nn.Parameter(torch.tensor(math.log(20.0)))
        self.seen = nn.Conv2d(dim, width, 1)
        self.cues = nn.Conv2d(FIELDS + 2 * LIKENESS, width, 3, padding=1)
        self.blocks = nn.Sequential(*(Block(width, 2**number) for number in range(config.blocks)))
        self.norm = nn.GroupNorm(width // 8, width)
        self.draw = nn.Conv2d(width, 1, 3, padding=1)
        self.trust = nn.Parameter(torch.ones(()))
        nn.init.orthogonal_(self.comparing.weight[..., 0, 0].data)
        nn.init.zeros_(self.draw.weight)
        nn.init.zeros_(self.draw.bias)  # type: ignore[arg-type]

    def look(self, levels_bchw: tuple[Tensor, ...]) -> Sight:
        """What the eyes' maps, fine to coarse, say of windows."""
        fine, middle, *_ = (level.to(self.trust.dtype) for level in levels_bchw)
        height, width = middle.shape[-2:]
        # Laid out as they are read from a saved shot, on which the last bits of a result depend.
        return Sight(self.seen(fine), self.comparing(middle).flatten(2).mT.contiguous(), (height, width))

    def compare(
        self, sight: Sight, other_bnd: Tensor, cover_bn: Tensor, centre_b1d: Tensor, apart_bnn: Tensor | None = None
    ) -> Tensor:
        """How like the object and how like what surrounds it each place is, (B, 3, h, w), by the tokens of a window
        that the object covers by `cover_bn`. `centre_b1d`: what all tokens of a shot have in common. `apart_bnn`:
        squares of the distances of the places, in sides of the window, where what is far counts for less."""
        one, other = (F.normalize(each - centre_b1d, dim=-1) for each in (sight.tokens, other_bnd))
        like, sharpness = one @ other.mT, self.sharpness.exp()
        if apart_bnn is not None:
            like = like - self.nearness.exp() / sharpness * apart_bnn
        share = ((sharpness * like).softmax(-1) @ cover_bn[..., None])[..., 0]
        inside, outside = cover_bn[:, None] > 0.5, cover_bn[:, None] <= 0.5
        likest = [like.masked_fill(~side, LEAST).amax(-1).clamp(min=LEAST) for side in (inside, outside)]
        return torch.stack([2 * share - 1, *likest], dim=1).unflatten(-1, sight.grid)

    def forward(self, sight: Sight, own_bhw: Tensor, fields_bkhw: Tensor, likeness_bkhw: Tensor) -> Tensor:
        """Logits (B, h, w). `own_bhw`: the network's; `fields_bkhw`: the other cues of a place, in [-1, 1];
        `likeness_bkhw`: of two comparisons."""
        size = own_bhw.shape[-2:]
        liked = F.interpolate(likeness_bkhw, size, mode="bilinear", align_corners=False)
        own = (own_bhw / OWN).clamp(-2, 2)[:, None]
        state = self.seen_at(sight.fine, size) + self.cues(torch.cat([own, fields_bkhw, liked], dim=1))
        state = self.norm(self.blocks(state))
        drawn: Tensor = self.trust * own_bhw + self.draw(F.gelu(state))[:, 0]
        return drawn

    @staticmethod
    def seen_at(fine_bchw: Tensor, size: torch.Size) -> Tensor:
        """The eyes' map on the grid of the masks, where that is another."""
        if fine_bchw.shape[-2:] == size:
            return fine_bchw
        return F.interpolate(fine_bchw, size, mode="bilinear", align_corners=False)


class Block(nn.Module):
    """Two convolutions whose taps are `spread` cells apart, each normalised first."""

    def __init__(self, width: int, spread: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.GroupNorm(width // 8, width), nn.GELU(), nn.Conv2d(width, width, 3, 1, spread, spread),
            nn.GroupNorm(width // 8, width), nn.GELU(), nn.Conv2d(width, width, 3, 1, spread, spread),
        )  # fmt: skip

    def forward(self, x_bchw: Tensor) -> Tensor:
        drawn: Tensor = x_bchw + self.layers(x_bchw)
        return drawn
