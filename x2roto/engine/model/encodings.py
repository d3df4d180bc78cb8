"""Parameter-free encodings: 2-D sine, frame gap, axial RoPE, deformable reference points.

All are computed in float32 and cast, whatever the model runs in. The reference computes the first, second and
fourth in the model's dtype, which in bfloat16 is off by up to 0.03 (and a pixel); `compute=torch.bfloat16`
reproduces that for comparison (wanghao9610/X2SAM@5b0b106 `segmentors/sam2/modeling_sam2.py`,
`segmentors/x_segmentor.py`).
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

from x2roto.engine.kernels import fuses

TEMPERATURE = 10000


def sine(dim: int, height: int, width: int, *, compute: torch.dtype = torch.float32) -> Tensor:
    """Normalised 2-D sine encoding, (dim, height, width) in `compute`: first dim/2 channels y, the rest x."""
    bands = torch.arange(dim // 2).to(compute)
    periods = TEMPERATURE ** (2 * torch.div(bands, 2, rounding_mode="floor") / (dim // 2))

    def axis(length: int) -> Tensor:
        ramp = torch.ones(length, dtype=compute).cumsum(0)
        angle = (ramp / (ramp[-1:] + 1e-6) * (2 * math.pi))[:, None] / periods
        return torch.stack((angle[:, 0::2].sin(), angle[:, 1::2].cos()), dim=2).flatten(1)

    y = axis(height).T[:, :, None].expand(-1, -1, width)
    x = axis(width).T[:, None, :].expand(-1, height, -1)
    return torch.cat((y, x))


def temporal(gap: int, dim: int, *, compute: torch.dtype = torch.float32) -> Tensor:
    """Encoding of a distance of `gap` frames, (dim,): sines then cosines of dim/2 frequencies."""
    half = dim // 2
    angles = gap * torch.exp(-math.log(TEMPERATURE) * torch.arange(half).to(compute) / half)
    return torch.cat((angles.sin(), angles.cos()))


def rope(dim: int, height: int, width: int, pooled: int = 1) -> tuple[Tensor, Tensor]:
    """Cosines and sines of axial RoPE, each (height * width, dim / 2) float32, one per pair of channels.

    The first dim/4 pairs turn with the column, the rest with the row. `pooled`: cells along a side, of a grid so many
    times finer, that each stands for; it turns as their middle.
    """
    frequencies = TEMPERATURE ** -(torch.arange(0, dim, 4).float() / dim)
    index = torch.arange(height * width)
    middle = (pooled - 1) / 2
    columns = torch.outer((index % width).float() * pooled + middle, frequencies)
    rows = torch.outer(torch.div(index, width, rounding_mode="floor").float() * pooled + middle, frequencies)
    angles = torch.cat((columns, rows), dim=-1)
    return angles.cos(), angles.sin()


def rotate(x: Tensor, turns: Tensor) -> Tensor:
    """Rotate adjacent channel pairs of x (…, tokens, dim) by complex64 `turns` (tokens, dim / 2), in float32."""
    if fuses(x) and math.log2(x.shape[-1]).is_integer():
        from x2roto.engine.model import fused

        return fused.rotate(x, turns)
    pairs = torch.view_as_complex(x.float().unflatten(-1, (-1, 2)).contiguous())
    return torch.view_as_real(pairs * turns).flatten(-2).type_as(x)


def centres(length: int, *, compute: torch.dtype = torch.float32) -> Tensor:
    """Pixel centres of one axis in (0, 1), (length,): the reference points of deformable attention."""
    return torch.linspace(0.5, length - 0.5, length, dtype=compute) / length


# Tables are a function of size alone, so every model of a process shares them.


@lru_cache(maxsize=32)
@torch.inference_mode(False)
def sine_tokens(dim: int, height: int, width: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """`sine` as tokens, (height * width, dim), on a device."""
    return sine(dim, height, width).flatten(1).T.contiguous().to(device, dtype)


@lru_cache(maxsize=32)
@torch.inference_mode(False)
def turns_on(dim: int, height: int, width: int, device: torch.device, pooled: int = 1) -> Tensor:
    """`rope` on a device, as complex64 numbers for `rotate`, (height * width, dim / 2)."""
    return torch.complex(*rope(dim, height, width, pooled)).to(device)


@lru_cache(maxsize=32)
@torch.inference_mode(False)
def temporal_on(gap: int, dim: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """`temporal` on a device."""
    return temporal(gap, dim).to(device, dtype)


@lru_cache(maxsize=32)
@torch.inference_mode(False)
def extent(width: int, height: int, device: torch.device) -> Tensor:
    """Width and height as a (2,) float32 tensor that is already on the device."""
    return torch.tensor((width, height), dtype=torch.float32, device=device)


@lru_cache(maxsize=8)
@torch.inference_mode(False)
def reference_points(sizes: tuple[tuple[int, int], ...], device: torch.device) -> Tensor:
    """Centres (x, y) in (0, 1) of every pixel of every level (height, width), (tokens, 2) float32."""
    grids = [
        torch.stack(
            (centres(width).expand(height, width), centres(height)[:, None].expand(height, width)), dim=-1
        ).flatten(0, 1)
        for height, width in sizes
    ]
    return torch.cat(grids).to(device)
