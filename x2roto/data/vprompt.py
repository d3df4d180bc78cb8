"""Visual prompts as a person would give them: a click, a stroke, a box or a rough mask, drawn from an object's mask.

After wanghao9610/X2SAM@5b0b106 x2sam/x2sam/dataset/utils/vprompt.py (tasks spec, section 11): one prompt for each
connected component, all in one region. Two differences on purpose, undone by `reference`: lengths are a share of the
frame, as in `x2roto.prompt`, and a prompt that comes out empty is the mask itself.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt, find_objects, gaussian_filter, label

from x2roto.data.sample import PromptKind
from x2roto.prompt import POINT_RADIUS, SCRIBBLE_RADIUS, SMALLEST_RADIUS, TRAINED_LINES

Mask = NDArray[np.bool_]
# Either serves; the golden data were drawn with Python's own.
Rng = np.random.Generator | random.Random

SMALLEST_AREA = 5
TRIES = 1000
# Pixels of a frame of TRAINED_LINES lines, like the two radii.
WAVE = (10.0, 20.0)
BLUR_SIGMA = 2.0


@dataclass(frozen=True, slots=True)
class Component:
    """A connected piece of a mask. Rows and columns; `bottom` and `right` are exclusive."""

    top: int
    left: int
    bottom: int
    right: int
    centroid: tuple[float, float]

    @property
    def height(self) -> int:
        return self.bottom - self.top

    @property
    def width(self) -> int:
        return self.right - self.left


def visual_prompt(mask: Mask, kind: PromptKind, rng: Rng, *, reference: bool = False) -> Mask:
    """A region prompt (H, W) for the object in `mask`, bool (H, W), which must not be empty.

    Never empty, unless `reference`: then lengths are pixels whatever the size of the frame (discs of 10, strokes of
    5), and a mask of small pieces, or an unlucky draw, gives an empty region, all as in the reference. There a call
    with `random.Random(seed)` equals the reference's after `random.seed(seed)`.
    """
    components = components_of(mask)
    drawn = DRAWERS[kind](mask, components, rng, 1.0 if reference else min(mask.shape) / TRAINED_LINES)
    return drawn if reference or drawn.any() else mask.copy()


def components_of(mask: Mask) -> list[Component]:
    """The 8-connected pieces of more than five pixels, in raster order of their first pixels."""
    pieces, _ = label(mask, np.ones((3, 3)))
    return [
        _component(pieces[window] == number, window)
        for number, window in enumerate(find_objects(pieces), 1)
        if np.count_nonzero(pieces[window] == number) > SMALLEST_AREA
    ]


def _component(piece: Mask, window: tuple[slice, slice]) -> Component:
    rows, columns = window
    down, across = np.argwhere(piece).mean(0)
    return Component(
        rows.start, columns.start, rows.stop, columns.stop, (rows.start + float(down), columns.start + float(across))
    )


def prompt_frame(frame_categories: Sequence[Iterable[int]]) -> int:
    """The first frame whose categories are the most of the clip's at once; 0 when no frame has any.

    Of equally many, those win whose members are annotated most often (the lower number on a tie). Source:
    x2sam/x2sam/dataset/vid_vgdseg_dataset.py `_get_vprompt_index`, which tries every combination in that order.
    """
    frames = [list(categories) for categories in frame_categories]
    counts = Counter(category for categories in frames for category in categories)
    ranks = {category: rank for rank, category in enumerate(sorted(counts, key=lambda one: (-counts[one], one)))}
    return min(range(len(frames)), key=lambda index: _preference(frames[index], ranks))


def _preference(categories: Iterable[int], ranks: Mapping[int, int]) -> tuple[int, list[int]]:
    shown = sorted(ranks[category] for category in set(categories))
    return -len(shown), shown


# ---- the four kinds ---------------------------------------------------------------------------------------


def draw_point(mask: Mask, components: Sequence[Component], rng: Rng, scale: float) -> Mask:
    """A disc about a random pixel of each component, close to its centroid."""
    marks = np.zeros_like(mask)
    for component in components:
        for row, column in _candidates(component, rng):
            if mask[row, column]:
                marks[row, column] = True
                break
    return thickened(marks, _radius(POINT_RADIUS, scale))


def _candidates(component: Component, rng: Rng) -> Iterable[tuple[int, int]]:
    reach = min(component.height, component.width) * 0.5
    for _ in range(TRIES):
        angle = rng.uniform(0, 2 * math.pi)
        # Two draws, not one radius: the reference does, and its seeds must give its points.
        down, across = (rng.uniform(0, reach) * math.cos(angle), rng.uniform(0, reach) * math.sin(angle))
        row, column = int(component.centroid[0] + down), int(component.centroid[1] + across)
        yield (
            min(max(row, component.top), component.bottom - 1),
            min(max(column, component.left), component.right - 1),
        )


def draw_scribble(mask: Mask, components: Sequence[Component], rng: Rng, scale: float) -> Mask:
    """A wavy diagonal of each component's randomly resized box."""
    marks = np.zeros_like(mask)
    for component in components:
        box = _resized_box(component, mask.shape, rng)
        if box is None:
            continue
        rows, columns = _diagonal(box, rng)
        amplitude, periods, phase = rng.uniform(*WAVE) * scale, rng.uniform(0.2, 1), rng.uniform(0, 2 * math.pi)
        # Single precision decides which way a few pixels round; the reference has it.
        wavy = rows.astype(np.float32)
        wavy += amplitude * np.sin(2 * np.pi * periods * np.linspace(0, 1, len(rows)) + phase)
        marks[_inside(wavy, mask.shape[0]), _inside(columns, mask.shape[1])] = True
    return thickened(marks, _radius(SCRIBBLE_RADIUS, scale))


def _resized_box(component: Component, shape: tuple[int, ...], rng: Rng) -> tuple[int, int, int, int] | None:
    """The box with sides times 0.5 to 1.2 about the centroid that keeps half its overlap; None if none comes up."""
    middle_row, middle_column = component.centroid
    original = (component.top, component.left, component.bottom, component.right)
    for _ in range(TRIES):
        height, width = component.height * rng.uniform(0.5, 1.2), component.width * rng.uniform(0.5, 1.2)
        box = (
            max(0, int(middle_row - height / 2)),
            max(0, int(middle_column - width / 2)),
            min(shape[0], int(middle_row + height / 2)),
            min(shape[1], int(middle_column + width / 2)),
        )
        if _overlap(box, original) >= 0.5:
            return box
    return None


def _overlap(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> float:
    """IoU of two boxes whose edges all count as inside."""
    down = max(0, min(a[2], b[2]) - max(a[0], b[0]) + 1)
    across = max(0, min(a[3], b[3]) - max(a[1], b[1]) + 1)
    areas = [(box[2] - box[0] + 1) * (box[3] - box[1] + 1) for box in (a, b)]
    return down * across / (sum(areas) - down * across)


def _diagonal(box: tuple[int, int, int, int], rng: Rng) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    top, left, bottom, right = box
    corners = ((top, left), (top, right), (bottom, left), (bottom, right))
    start = int(rng.choice(range(4)))
    return line(corners[start], corners[3 - start])


def line(start: tuple[int, int], end: tuple[int, int]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows and columns of Bresenham's line, both ends included; half steps go with the line."""
    steps = max(abs(end[0] - start[0]), abs(end[1] - start[1]))
    along = np.arange(steps + 1)
    rows, columns = (
        a + math.copysign(1, b - a) * ((2 * abs(b - a) * along + steps) // max(1, 2 * steps))
        for a, b in zip(start, end, strict=True)
    )
    return rows.astype(np.int64), columns.astype(np.int64)


def draw_box(mask: Mask, components: Sequence[Component], rng: Rng, scale: float) -> Mask:
    """Each component's filled box with both sides times one factor of 0.9 to 1.1."""
    drawn = np.zeros_like(mask)
    for component in components:
        grown = rng.uniform(0.9, 1.1) - 1
        down, across = component.height * grown / 2, component.width * grown / 2
        drawn[
            max(0, int(component.top - down)) : int(component.bottom + down),
            max(0, int(component.left - across)) : int(component.right + across),
        ] = True
    return drawn


def draw_mask(mask: Mask, components: Sequence[Component], rng: Rng, scale: float) -> Mask:
    """The mask with its outline blurred and a little fuller."""
    soft = gaussian_filter(mask.astype(np.float64), BLUR_SIGMA * scale)
    return np.asarray(soft > soft.mean())


def thickened(marks: Mask, radius: float) -> Mask:
    """All pixels within `radius` of a marked one."""
    if not marks.any():
        return marks
    return np.asarray(distance_transform_edt(~marks) <= radius)


def _radius(trained: float, scale: float) -> float:
    return max(SMALLEST_RADIUS, trained * scale)


def _inside(coordinates: NDArray[np.float32] | NDArray[np.int64], length: int) -> NDArray[np.int64]:
    return np.clip(coordinates, 0, length - 1).astype(np.int64)


DRAWERS: Mapping[PromptKind, Callable[[Mask, Sequence[Component], Rng, float], Mask]] = {
    "point": draw_point,
    "scribble": draw_scribble,
    "box": draw_box,
    "mask": draw_mask,
}
