"""Mask losses on points instead of pixels (PointRend, arXiv 1912.08193): drawing points, reading maps there.

Points are (x, y) in [0, 1). Every draw goes through a `Draw`, so that a recorded one can stand in, and every clip
draws from a generator of its own, so that results do not depend on which clips share a batch or a device.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

Draw = Callable[[Sequence[int]], Tensor]


@dataclass(frozen=True, slots=True)
class Compared:
    """Logits and right answers at the same P places, float32: `logits_mp`, `wanted_np` in [0, 1], and `known`
    (m or 1, P), 0 where nothing is known."""

    logits_mp: Tensor
    wanted_np: Tensor
    known: Tensor


def uniform(seed: int, device: torch.device) -> Draw:
    """Uniform float32 numbers in [0, 1) of any shape, the same sequence for a seed on a kind of device."""
    generator = torch.Generator(device).manual_seed(seed)
    return lambda shape: torch.rand(tuple(shape), generator=generator, device=device)


def compare(
    logits_mhw: Tensor, masks_nhw: Tensor, ignored_hw: Tensor | None, points: Tensor | None, stride: int = 1
) -> Compared:
    """Logits beside masks of another size: at points (m or 1, P, 2), or at every pixel of the masks made smaller by
    `stride`, where they are the share that is covered, and known where nothing is ignored."""
    ignored = masks_nhw.new_zeros(1, 1, 1) if ignored_hw is None else ignored_hw[None]
    if points is None:
        wanted = _shrunk(masks_nhw, stride)
        size = wanted.shape[-2:]
        resized = F.interpolate(logits_mhw[:, None].float(), size=size, mode="bilinear", align_corners=False)
        known = (_shrunk(ignored, stride) == 0 if ignored_hw is not None else ~ignored.bool()).float()
        return Compared(resized.flatten(1), wanted.flatten(1), known.expand(1, *size).flatten(1))
    known = (read_at(ignored, points) == 0).float()
    return Compared(read_at(logits_mhw, points), read_at(masks_nhw, points), known)


def _shrunk(masks_nhw: Tensor, stride: int) -> Tensor:
    return masks_nhw.float() if stride == 1 else F.avg_pool2d(masks_nhw[:, None].float(), stride)[:, 0]


def read_at(maps_nhw: Tensor, points_np2: Tensor) -> Tensor:
    """Values (n, P) of maps at points, bilinear, float32; one map may serve all sets of points, or one set all."""
    count = max(len(maps_nhw), len(points_np2)) if len(maps_nhw) else 0
    maps = maps_nhw[:, None].float().expand(count, -1, -1, -1)
    grid = (2 * points_np2 - 1)[:, :, None].float().expand(count, -1, -1, -1)
    return F.grid_sample(maps, grid, align_corners=False)[:, 0, :, 0]


def hardest(logits_nk: Tensor, candidates_nk2: Tensor, count: int) -> Tensor:
    """Of each map's candidates the `count` whose logit is nearest to 0, where the map is least certain."""
    chosen = logits_nk.abs().topk(count, dim=1, largest=False).indices
    return candidates_nk2.gather(1, chosen[..., None].expand(-1, -1, 2))


def edge_points(logits_nhw: Tensor, draw: Draw, *, points: int, oversample: float, uncertain: float) -> Tensor:
    """`points` places per map (n, points, 2): the share `uncertain` where the map is least certain among
    `oversample` times as many candidates, the rest anywhere."""
    kept = int(uncertain * points)
    candidates = draw((len(logits_nhw), int(points * oversample), 2))
    hard = hardest(read_at(logits_nhw, candidates), candidates, kept)
    return torch.cat((hard, draw((len(logits_nhw), points - kept, 2))), dim=1)
