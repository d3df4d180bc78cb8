"""Region prompts: points drawn inside a mask, features read there, averaged in fours into language tokens.

Same as the reference's "naive" sampler (wanghao9610/X2SAM@5b0b106 `modules/sampler/modeling_sampler.py`), except
that the draw takes a generator and averages are taken in float32.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def draw_points(mask_hw: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """`count` pixels of a mask (H, W) as (row / H, column / W), (count, 2) float32.

    More pixels than `count`: a random subset in random order. Fewer: all in row-major order, then random repeats.
    The draw happens on the generator's device (CPU for the same points everywhere). Raises ValueError if empty.
    """
    pixels = mask_hw.to(generator.device).nonzero()
    if not len(pixels):
        raise ValueError("a region prompt covers no pixel")
    if len(pixels) > count:
        pixels = pixels[torch.randperm(len(pixels), generator=generator, device=generator.device)[:count]]
    else:
        repeats = torch.randint(len(pixels), (count - len(pixels),), generator=generator, device=generator.device)
        pixels = torch.cat((pixels, pixels[repeats]))
    return (pixels / pixels.new_tensor(mask_hw.shape)).float()


def cell_cover(squares_nhw: Tensor, stride: int = 4) -> Tensor:
    """How much of each cell of the mask logits' grid regions (N, S, S) cover, (N, 1, S / stride, S / stride) in
    [0, 1]."""
    return F.avg_pool2d(squares_nhw[:, None].float(), stride)


def region_tokens(map_hwc: Tensor, points_rn2: Tensor, pool: int) -> Tensor:
    """Features of one frame's map read at each region's points, (regions, points / pool, C).

    Bilinear with align_corners=True, then the mean of every `pool` consecutive points. Points as `draw_points`.
    """
    grid = (points_rn2.flip(-1) * 2 - 1)[:, :, None].to(map_hwc.device, torch.float32)
    image = map_hwc.permute(2, 0, 1)[None].float().expand(len(grid), -1, -1, -1)
    read = F.grid_sample(image, grid, mode="bilinear", padding_mode="zeros", align_corners=True)
    return F.avg_pool1d(read[..., 0], pool).mT.to(map_hwc.dtype)
