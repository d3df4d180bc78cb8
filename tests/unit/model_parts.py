"""Parts of the network with every parameter random: the zeros and ones of a fresh module would hide mistakes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

from x2roto.engine.assembly import Conditions

Part = TypeVar("Part", bound=nn.Module)


def randomised(part: Part, seed: int = 0, std: float = 0.3) -> Part:
    """The part itself, frozen, its parameters drawn from a normal distribution."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in part.named_parameters():
        # The scale of a norm stays near one: near zero it would drown what comes after it.
        centre = 1.0 if parameter.ndim == 1 and name.endswith("weight") else 0.0
        parameter.data = centre + torch.randn(parameter.shape, generator=generator) * std
    return part.eval().requires_grad_(False)


def noise(*shape: int, seed: int = 0) -> Tensor:
    """A normal tensor, the same for a seed and shape."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def levels(sizes: Sequence[tuple[int, int]], batch: int, dim: int, seed: int = 0) -> tuple[Tensor, ...]:
    """One random map (batch, dim, height, width) per size."""
    return tuple(noise(batch, dim, *size, seed=seed + index) for index, size in enumerate(sizes))


def random_conditions(phrases: int, tokens: int, dim: int, seed: int = 0) -> Conditions:
    """One set of conditions: so many phrases and a background, so many tokens, a <SEG>."""
    return Conditions(
        cond_embeds=noise(1, phrases + 1, dim, seed=seed),
        token_embeds=noise(1, tokens, dim, seed=seed + 1),
        seg_embeds=noise(1, 1, dim, seed=seed + 2),
        embed_mask=torch.ones(1, phrases + 1, dtype=torch.bool),
        token_mask=torch.ones(1, tokens, dtype=torch.bool),
    )
