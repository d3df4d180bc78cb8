"""Regions as a person would give them: a click, a stroke, a box or a drawn mask of a thing on one frame.

After wanghao9610/X2SAM@5b0b106 dataset/utils/vprompt.py, with two differences on purpose: radii are a share of the
frame, as in `x2roto.prompt`, and a box goes round the whole thing, not round each of its visible pieces.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, label

from x2roto.engine.postprocess.masks import boxes_of
from x2roto.prompt import Box, MaskPrompt, Points, Region, Scribble, region_mask

Mask = NDArray[np.bool_]
Kind = Literal["point", "scribble", "box", "mask"]

_TRIES = 100


def region(kind: Kind, mask: Mask, rng: np.random.Generator) -> Mask:
    """A region prompt (H, W) for the thing in `mask` (H, W), which must not be empty; never empty."""
    return region_mask(asking(kind, mask, rng), mask.shape[1], mask.shape[0])


def asking(kind: Kind, mask: Mask, rng: np.random.Generator) -> Region:
    """The prompt of a person who wants the thing in `mask` (H, W), which must not be empty, on the first frame."""
    return _DRAWERS[kind](mask, rng)


def _point(mask: Mask, rng: np.random.Generator) -> Points:
    piece = _largest_piece(mask)
    left, top, right, bottom = _edges(piece)
    middle = np.argwhere(piece).mean(0)
    for _ in range(_TRIES):
        angle, reach = rng.uniform(0, 2 * np.pi), rng.uniform(0, min(bottom - top, right - left) / 2)
        row, column = (middle + reach * np.array([np.sin(angle), np.cos(angle)])).astype(int)
        if 0 <= row < mask.shape[0] and 0 <= column < mask.shape[1] and piece[row, column]:
            break
    else:
        row, column = rng.choice(np.argwhere(piece))
    return Points("click", ((float(column), float(row)),), 0)


def _scribble(mask: Mask, rng: np.random.Generator) -> Scribble:
    """A wavy diagonal of the resized box of the largest piece."""
    height, width = mask.shape
    left, top, right, bottom = _edges(_largest_piece(mask))
    tall, wide = _resized(bottom - top, right - left, rng)
    along = np.linspace(0, 1, 24)
    columns = (left + right) / 2 + (along - 0.5) * wide
    rows = (top + bottom) / 2 + (along - 0.5) * tall * rng.choice([-1, 1])
    wave = rng.uniform(0.02, 0.035) * min(height, width)
    rows += wave * np.sin(2 * np.pi * rng.uniform(0.2, 1) * along + rng.uniform(0, 2 * np.pi))
    columns, rows = np.clip(columns, 0, width - 1), np.clip(rows, 0, height - 1)
    return Scribble("stroke", tuple(zip(columns.tolist(), rows.tolist(), strict=True)), 0)


def _resized(tall: int, wide: int, rng: np.random.Generator) -> tuple[float, float]:
    """The sides times factors of 0.5 to 1.2 whose box keeps an IoU of a half with the old one."""
    while True:
        a, b = rng.uniform(0.5, 1.2, 2)
        inside = min(a, 1) * min(b, 1)
        if inside / (a * b + 1 - inside) >= 0.5:
            return tall * a, wide * b


def _box(mask: Mask, rng: np.random.Generator) -> Box:
    left, top, right, bottom = _edges(mask)
    scale = rng.uniform(0.9, 1.1)
    grow_y, grow_x = (bottom - top) * (scale - 1) / 2, (right - left) * (scale - 1) / 2
    x0, y0 = max(0, round(left - grow_x)), max(0, round(top - grow_y))
    x1, y1 = min(mask.shape[1], round(right + grow_x)), min(mask.shape[0], round(bottom + grow_y))
    return Box("box", x0, y0, max(x1, x0 + 1), max(y1, y0 + 1), 0)


def _mask(mask: Mask, rng: np.random.Generator) -> MaskPrompt:
    soft = gaussian_filter(mask.astype(np.float32), 2 * min(mask.shape) / 600 + 0.5)
    return MaskPrompt("mask", np.asarray(soft > soft.mean()), 0)


def _edges(mask: Mask) -> tuple[int, ...]:
    """Left, top, right and bottom, the last two exclusive."""
    return tuple(boxes_of(torch.from_numpy(mask)[None])[0].tolist())


def _largest_piece(mask: Mask) -> Mask:
    pieces, count = label(mask, np.ones((3, 3)))
    return np.asarray(pieces == 1 + np.argmax(np.bincount(pieces.ravel())[1:])) if count > 1 else mask


_DRAWERS: Mapping[Kind, Callable[[Mask, np.random.Generator], Region]] = {
    "point": _point,
    "scribble": _scribble,
    "box": _box,
    "mask": _mask,
}
KINDS: tuple[Kind, ...] = tuple(_DRAWERS)
