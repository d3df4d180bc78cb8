"""The way back from the network's square to the frame, a few queries at a time."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

# Values held by one upsampled chunk: 256 MiB in float32, eight masks of a UHD frame.
VALUES_AT_ONCE = 1 << 26


@dataclass(frozen=True, slots=True)
class Geometry:
    """How a frame was brought to the network, all as (height, width).

    `frame`: the picture. `scaled`: what it was resized to. `canvas`: the network's input, with the scaled
    picture at its top left. X2SAM squashes every frame to its whole input, so the last two are equal.
    """

    frame: tuple[int, int]
    scaled: tuple[int, int] = (1024, 1024)
    canvas: tuple[int, int] = (1024, 1024)


def resize_back(masks_nhw: Tensor, geometry: Geometry, mode: str = "bilinear") -> Tensor:
    """Masks (N, h, w) of the canvas at frame size, (N, H, W) float32.

    Two steps, as the network was trained: to the canvas, cropped to `scaled`, to the frame. `mode` is
    "bilinear" (half-pixel centres, no antialiasing) for logits, "nearest" for prompts and labels.
    """
    height, width = geometry.scaled
    canvas = _resize(masks_nhw.float(), geometry.canvas, mode)
    return _resize(canvas[:, :height, :width], geometry.frame, mode)


def _resize(masks_nhw: Tensor, size: tuple[int, int], mode: str) -> Tensor:
    if masks_nhw.shape[-2:] == size:
        return masks_nhw
    corners = False if mode == "bilinear" else None
    return F.interpolate(masks_nhw[None], size=size, mode=mode, align_corners=corners)[0]


def planes_at_once(geometry: Geometry) -> int:
    """How many maps of the frame, or of the canvas if that is larger, are held at a time."""
    return max(1, VALUES_AT_ONCE // max(math.prod(geometry.canvas), math.prod(geometry.frame)))


def resized(logits_qhw: Tensor, geometry: Geometry) -> Iterator[tuple[slice, Tensor]]:
    """The logits at frame size in chunks: which queries, and their (n, H, W) float32 logits."""
    step = planes_at_once(geometry)
    for start in range(0, len(logits_qhw), step):
        part = slice(start, start + step)
        yield part, resize_back(logits_qhw[part], geometry)
