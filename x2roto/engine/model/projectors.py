"""Bridges between the mask encoder, the language model and the mask decoder."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class Projector(nn.Module):
    """Linear, GELU, linear (wanghao9610/X2SAM@5b0b106 `modules/projector/modeling_projector.py`)."""

    def __init__(self, dim_in: int, dim_out: int) -> None:
        super().__init__()
        self.model = nn.Sequential(nn.Linear(dim_in, dim_out), nn.GELU(), nn.Linear(dim_out, dim_out))

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)


def fold(map_bhwc: Tensor, factor: int = 2) -> Tensor:
    """Each `factor` x `factor` patch into channels, row-major: (B, h / factor, w / factor, C * factor²)."""
    channels_first = F.pixel_unshuffle(map_bhwc.permute(0, 3, 1, 2), factor)
    # pixel_unshuffle orders channels (C, dy, dx); the trained weights expect (dy, dx, C).
    return channels_first.unflatten(1, (-1, factor * factor)).permute(0, 3, 4, 2, 1).flatten(3)
