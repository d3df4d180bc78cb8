"""Where a small network looks: a window of the plate around one object, that follows it from frame to frame.

A large network sees whole frames, as released. A small one sees an object of any size at about the same size, at
several times the resolution, and its picture moves with the object. Training and inference take their windows from
here, so both see the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from x2roto.engine.identity import EMPTY
from x2roto.engine.postprocess.masks import boxes_of
from x2roto.prompt import Points, Region, Scribble

# Sides of an upright box with the same second moments, in standard deviations.
SPANS = 12**0.5
# A click tells where a thing is, not how large: at least this share of the frame's smaller side is looked at.
POINTED = 0.75
# How much the window may grow from one frame to the next, and grows where the object was not seen; and how much it
# may shrink: slower, since a matte that loses a part of its object must not lose sight of that part.
PACE = 1.1
SHRINKING = 1.03
SMALLEST = 16  # pixels
# How far a window moves at once towards a side that its object reaches, in its sides; and how many cells of a mask's
# side must be the object's for that.
STEP = 0.25
REACHING = 2
# Margin around a drawn box, in shares of its longer side: people draw them a little too small.
DRAWN = 0.05


@dataclass(frozen=True, slots=True)
class Window:
    """A rectangle in pixels of a frame, `x1` and `y1` exclusive; `width`, `height`: of the frame."""

    x0: int
    y0: int
    x1: int
    y1: int
    width: int
    height: int

    @classmethod
    def whole(cls, width: int, height: int) -> Self:
        """The frame itself."""
        return cls(0, 0, width, height, width, height)

    @classmethod
    def around(cls, x: float, y: float, side: float, width: int, height: int) -> Self:
        """A square about the point `x`, `y`, moved into the frame and cut where the frame is smaller."""
        wide, high = (min(max(round(side), SMALLEST), full) for full in (width, height))
        x0 = min(max(round(x - wide / 2), 0), width - wide)
        y0 = min(max(round(y - high / 2), 0), height - high)
        return cls(x0, y0, x0 + wide, y0 + high, width, height)

    @property
    def side(self) -> int:
        return max(self.x1 - self.x0, self.y1 - self.y0)

    @property
    def edges(self) -> tuple[int, int, int, int]:
        """Left, top, right and bottom."""
        return self.x0, self.y0, self.x1, self.y1

    def crop(self, picture: NDArray[Any]) -> NDArray[Any]:
        """The part of a picture (height, width, …) in it, as a view."""
        return picture[self.y0 : self.y1, self.x0 : self.x1]

    def following(self, cover_hw: NDArray[Any] | Tensor, room: float) -> Self:
        """The window of the next frame, `room` times as wide as the object. `cover_hw`: where the object is in this
        one, at any resolution; empty where it was not seen."""
        found = extent(np.asarray(cover_hw, np.float64))
        middle_x, middle_y = (self.x0 + self.x1) / 2, (self.y0 + self.y1) / 2
        if found is None:
            return self.around(middle_x, middle_y, self.side * PACE + 1, self.width, self.height)
        x, y, wide, high = found
        across, down = self.x1 - self.x0, self.y1 - self.y0
        side = room * max(wide * across, high * down)
        side = min(max(side, self.side / SHRINKING - 1), self.side * PACE + 1)
        return self.around(self.x0 + x * across, self.y0 + y * down, side, self.width, self.height)

    def towards(self, cover_hw: Tensor) -> Self:
        """The window moved on to where its object goes on outside of it, itself where it does not: to the sides at
        which its mask (h, w) ends and the frame does not, a little wider where these are opposite ones."""
        on_left, on_right = (int(column.sum()) >= REACHING for column in (cover_hw[:, 0], cover_hw[:, -1]))
        on_top, on_bottom = (int(row.sum()) >= REACHING for row in (cover_hw[0], cover_hw[-1]))
        left, right = on_left and self.x0 > 0, on_right and self.x1 < self.width
        top, bottom = on_top and self.y0 > 0, on_bottom and self.y1 < self.height
        if not (left or right or top or bottom):
            return self
        x = (self.x0 + self.x1) / 2 + (right - left) * STEP * self.side
        y = (self.y0 + self.y1) / 2 + (bottom - top) * STEP * self.side
        side = self.side * (PACE if (left and right) or (top and bottom) else 1)
        return self.around(x, y, side, self.width, self.height)

    def place(self, logits_hw: Tensor, size: int) -> Tensor:
        """Logits of the window on a grid (size, size) over the whole frame, `EMPTY` outside of the window."""
        cells = (torch.arange(size, device=logits_hw.device, dtype=torch.float32) + 0.5) / size
        x = (cells * self.width - self.x0) / (self.x1 - self.x0) * 2 - 1
        y = (cells * self.height - self.y0) / (self.y1 - self.y0) * 2 - 1
        grid = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1)[None]
        placed = F.grid_sample(logits_hw[None, None], grid, padding_mode="border", align_corners=False)[0, 0]
        outside = (grid[0].abs() > 1).any(-1)
        return placed.masked_fill(outside, EMPTY)


def first_window(region_hw: NDArray[np.bool_], room: float, *, pointed: bool = False) -> Window:
    """The window on the frame where a region (height, width), not empty, is drawn. `pointed`: the region only
    touches the thing."""
    height, width = region_hw.shape
    left, top, right, bottom = boxes_of(torch.from_numpy(region_hw)[None])[0].tolist()
    side = room * max(right - left, bottom - top)
    least = POINTED * min(width, height) if pointed else 0.0
    return Window.around((left + right) / 2, (top + bottom) / 2, max(side, least), width, height)


def seen_from(maps_bchw: Tensor, before_b4: Tensor, now_b4: Tensor) -> Tensor:
    """Maps (B, C, h, w) of some windows as others show them, 0 where these reach farther; windows (B, 4) as left,
    top, right and bottom."""
    corner, side = before_b4[:, :2], before_b4[:, 2:] - before_b4[:, :2]
    scale = (now_b4[:, 2:] - now_b4[:, :2]) / side
    shift = (now_b4[:, :2] + now_b4[:, 2:] - 2 * corner) / side - 1
    affine = torch.cat([torch.diag_embed(scale), shift[..., None]], dim=-1).to(maps_bchw.dtype)
    grid = F.affine_grid(affine, list(maps_bchw.shape), align_corners=False)
    return F.grid_sample(maps_bchw, grid, align_corners=False)


def pointed(region: Region) -> bool:
    """Whether a region only touches what it asks for."""
    return isinstance(region, Points | Scribble)


def widened(mask_hw: Tensor, margin: float) -> Tensor:
    """A mask, not empty, with a margin all around, in shares of its longer side; a cell at least."""
    left, top, right, bottom = boxes_of(mask_hw[None])[0].tolist()
    cells = max(1, round(margin * max(right - left, bottom - top)))
    return F.max_pool2d(mask_hw[None, None].float(), 2 * cells + 1, 1, cells)[0, 0] > 0


def extent(cover_hw: NDArray[Any]) -> tuple[float, float, float, float] | None:
    """Middle x, y, width and height of what a cover (h, w) shows, in shares of its sides; None if it is empty.

    From moments, so that a few stray cells far off count for little.
    """
    total = cover_hw.sum()
    if not total:
        return None
    spans = []
    for axis, size in ((0, cover_hw.shape[1]), (1, cover_hw.shape[0])):
        weights, at = cover_hw.sum(axis) / total, (np.arange(size) + 0.5) / size
        middle = float(weights @ at)
        variance = float(weights @ (at - middle) ** 2) + 1 / (12 * size**2)
        spans.append((middle, SPANS * variance**0.5))
    (x, wide), (y, high) = spans
    return x, y, wide, high
