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
INSIDE = 0.5  # coverage above which a token is the object's
LEAST = -1.0  # cosine of what is not there to be compared
NOTHING = -1e4


@dataclass(frozen=True, slots=True)
class Sight:
    """What the eyes see of B windows: `fine` (B, C, h, w), for drawing; `tokens` (B, n, D), for comparing; `cells`
    (B, h·w, F) float32, both and a one for each cell, for fitting."""

    fine: Tensor
    tokens: Tensor
    grid: tuple[int, int]
    cells: Tensor


@dataclass(frozen=True, slots=True)
class Places:
    """Where tokens lie, (B, n, 2) and (B, m, 2), in sides of the first ones' window."""

    one: Tensor
    other: Tensor

    def told(self, one_bnd: Tensor, other_bmd: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens whose products are less by the weighted squares of their distances: |p - q|² is
        |p|² - 2 p·q + |q|²."""
        one_square, other_square = (each.square().sum(-1, keepdim=True) for each in (self.one, self.other))
        one = [one_bnd, 2 * weight * self.one, -weight * one_square, torch.ones_like(one_square)]
        other = [other_bmd, self.other, torch.ones_like(other_square), -weight * other_square]
        return torch.cat(one, dim=-1), torch.cat(other, dim=-1)


@torch.no_grad()
def _cells(fine_bchw: Tensor, middle_bdhw: Tensor) -> Tensor:
    coarse = F.interpolate(F.normalize(middle_bdhw), fine_bchw.shape[-2:], mode="bilinear", align_corners=False)
    return torch.cat([fine_bchw, coarse, torch.ones_like(fine_bchw[:, :1])], dim=1).flatten(2).mT.float()


def _most(like_nm: Tensor) -> Tensor:
    """The greatest of each row, far below `LEAST` where there is none."""
    return like_nm.amax(-1) if like_nm.shape[-1] else like_nm.new_full(like_nm.shape[:1], NOTHING)


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
        fine, middle, *_ = levels_bchw
        fine, middle = fine.to(self.seen.weight.dtype), middle.to(self.comparing.weight.dtype)
        height, width = middle.shape[-2:]
        fine, middle = self.seen(fine), self.comparing(middle)
        # Laid out as they are read from a saved shot, on which the last bits of a result depend.
        return Sight(fine, middle.flatten(2).mT.contiguous(), (height, width), _cells(fine, middle))

    def compare(
        self, sight: Sight, other_bnd: Tensor, cover_bn: Tensor, centre_b1d: Tensor, places: Places | None = None
    ) -> Tensor:
        """How like the object and how like what surrounds it each place is, (B, 3, h, w), by the tokens of a window
        that the object covers by `cover_bn`. `centre_b1d`: what all tokens of a shot have in common. `places`: of
        both, where what is far counts for less."""
        one, other = (F.normalize(each - centre_b1d, dim=-1) for each in (sight.tokens, other_bnd))
        sharpness = self.sharpness.exp()
        if places is not None:
            one, other = places.told(one, other, self.nearness.exp() / sharpness)
        # The object's first, so that both sides are read where they lie.
        inside = cover_bn > INSIDE
        order = inside.logical_not().to(torch.uint8).argsort(dim=-1, stable=True)
        like = (sharpness * one) @ other.gather(1, order[..., None].expand_as(other)).mT
        sides = [rows.tensor_split([count], dim=-1) for rows, count in zip(like, inside.sum(1).tolist(), strict=True)]
        likest = torch.stack([torch.stack([_most(side) for side in both]) for both in sides]) / sharpness
        share = (like.softmax(-1) @ cover_bn.gather(1, order)[..., None])[..., 0]
        return torch.cat([2 * share[:, None] - 1, likest.clamp(min=LEAST)], dim=1).unflatten(-1, sight.grid)

    def forward(self, sight: Sight, own_bhw: Tensor, fields_bkhw: Tensor, likeness_bkhw: Tensor) -> Tensor:
        """Logits (B, h, w), as fine as `sight.fine`. `own_bhw`: the network's; `fields_bkhw`: the other cues of a
        place, in [-1, 1]; `likeness_bkhw`: of two comparisons."""
        liked = F.interpolate(likeness_bkhw, own_bhw.shape[-2:], mode="bilinear", align_corners=False)
        own = (own_bhw / OWN).clamp(-2, 2)[:, None]
        state = sight.fine + self.cues(torch.cat([own, fields_bkhw, liked], dim=1).to(sight.fine.dtype))
        state = self.norm(self.blocks(state))
        drawn: Tensor = self.trust * own_bhw + self.draw(F.gelu(state))[:, 0]
        return drawn


class Block(nn.Module):
    """Two convolutions whose taps are `spread` cells apart, each normalised first."""

    def __init__(self, width: int, spread: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.GroupNorm(width // 8, width), nn.GELU(), nn.Conv2d(width, width, 3, 1, spread, spread),
            nn.GroupNorm(width // 8, width), nn.GELU(), nn.Conv2d(width, width, 3, 1, spread, spread),
        )  # fmt: skip

    def silence(self) -> None:
        """Let it change nothing until it has learnt."""
        last = self.layers[-1]
        nn.init.zeros_(last.weight)  # type: ignore[arg-type]
        nn.init.zeros_(last.bias)  # type: ignore[arg-type]

    def forward(self, x_bchw: Tensor) -> Tensor:
        drawn: Tensor = x_bchw + self.layers(x_bchw)
        return drawn
