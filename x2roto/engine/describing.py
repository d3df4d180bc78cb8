"""Which things to tell of in a clip, and under which names, when nobody has asked for any.

Single pictures often show what looks like another thing, and others show too little of one. So each thing that has
been seen is followed, and is called what it is called most surely on half of the frames.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from x2roto.engine.finding import Named
from x2roto.prompt import Box

Masks = Mapping[int | None, NDArray[np.bool_]]

# How sure a name must be on the frame from which its thing is followed, and on average over the surer half of those
# that show it. Found on clips of seeds that nothing else uses.
SURE = 0.7
AGREED = 0.75
# Most things that are told of, and most that are followed to know.
MOST = 8
FOLLOWED = 16
# Share of what is seen that lies in a thing where it is of that thing; of both together that they share where it is
# that thing; and of the smaller of two things, all frames together, that lies in the other where they are one.
INSIDE = 0.5
FITS = 0.4
ONE = 0.5


@dataclass(frozen=True, slots=True)
class Told:
    """A thing to tell of: its name, the box it is followed from, how sure the name is, in [0, 1]."""

    name: str
    box: Box
    score: float


def told_of(seen: Sequence[Named], follow: Callable[[Box], Masks]) -> list[Told]:
    """The things that are surely there, the surest first. `seen`: under all names, on all frames, the surest first;
    `follow`: masks (h, w) on all those frames of what is in a box.
    """
    told: list[Told] = []
    known: list[Masks] = []
    left = [each for each in seen if each.thing.score >= SURE]
    while left and len(told) < MOST and len(known) < FOLLOWED:
        first, *others = left
        masks = follow(first.thing.box)
        cells = {frame: _on_cells(mask, first.cells_hw.shape) for frame, mask in masks.items()}
        about = [each for each in seen if _inside(each, cells)]
        name, score = _agreed([first, *(each for each in about if _fits(each, cells))], masks)
        if score >= AGREED and not any(_one(masks, other) for other in known):
            told.append(Told(name, first.thing.box, score))
        known.append(masks)
        theirs = {id(each) for each in about}
        left = [each for each in others if id(each) not in theirs and not _same(each, first)]
    return told


def _agreed(about: Sequence[Named], masks: Masks) -> tuple[str, float]:
    """The name that fits best on the surer half of the frames that show a thing, and how well."""
    surest: dict[str, dict[int | None, float]] = defaultdict(dict)
    for each in about:
        on = surest[each.name]
        on[each.thing.box.frame] = max(on.get(each.thing.box.frame, 0.0), each.thing.score)
    half = max(1, -(-sum(bool(mask.any()) for mask in masks.values()) // 2))
    means = {name: sum(sorted(on.values())[-half:]) / half for name, on in surest.items()}
    return max(means.items(), key=lambda item: item[1])


def _inside(seen: Named, cells: Masks) -> bool:
    """Whether what is seen is of a thing, or part of it."""
    return bool(cells[seen.thing.box.frame][seen.cells_hw].mean() > INSIDE)


def _fits(seen: Named, cells: Masks) -> bool:
    """Whether what is seen is a thing as a whole."""
    thing = cells[seen.thing.box.frame]
    return bool((thing & seen.cells_hw).sum() > FITS * (thing | seen.cells_hw).sum())


def _same(one: Named, other: Named) -> bool:
    """Whether two names of what is seen on one frame are about one thing."""
    if one.thing.box.frame != other.thing.box.frame:
        return False
    return bool(other.cells_hw[one.cells_hw].mean() > INSIDE)


def _one(masks: Masks, other: Masks) -> bool:
    """Whether of two things that have been followed one is the other, or part of it."""
    both = sum(int((mask & other[frame]).sum()) for frame, mask in masks.items())
    smaller = min(sum(int(mask.sum()) for mask in each.values()) for each in (masks, other))
    return both > ONE * smaller


def _on_cells(mask_hw: NDArray[np.bool_], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """The mask on as many cells as `shape` says, each as its middle is."""
    mask = torch.from_numpy(mask_hw)[None, None].to(torch.uint8)
    return functional.interpolate(mask, shape, mode="nearest-exact")[0, 0].bool().numpy()
