"""Made-up clips cut into segments: truth with void and crowd, and a prediction that is near it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from x2roto.data.sample import Category
from x2roto.evaluate.metrics.panoptic import Segment, Segments

CATEGORIES = (Category(3, "one"), Category(4, "two"), Category(9, "grass", False), Category(11, "sky", False))
Frame = tuple[NDArray[np.int64], list[Segment]]


def clip(seed: int, frames: int, height: int = 24, width: int = 30) -> Iterator[tuple[Frame, Frame]]:
    """Bars that move and now and then change their size; the prediction has other ids, and some other classes."""
    random = np.random.default_rng(seed)
    classes, guesses = random.choice([one.id for one in CATEGORIES], (2, 6))
    guesses = np.where(random.random(6) < 0.7, classes, guesses)
    crowd = random.random(6) < 0.2
    edges = np.sort(random.choice(np.arange(2, width - 2), 5, replace=False))
    for _ in range(frames):
        moved = np.clip(edges + random.integers(-1, 2, 5), 0, width)
        yield (
            bars(edges, height, width, random, [Segment(10 + i, int(classes[i]), bool(crowd[i])) for i in range(6)]),
            bars(moved, height, width, random, [Segment(70 + 2 * i, int(guesses[i])) for i in range(6)]),
        )


def bars(
    edges: NDArray[np.int64], height: int, width: int, random: np.random.Generator, segments: list[Segment]
) -> Frame:
    index = np.searchsorted(edges, np.broadcast_to(np.arange(width), (height, width)), side="right")
    ids = np.array([segment.id for segment in segments])[index]
    ids[random.random(ids.shape) < 0.1] = 0
    ids[ids == random.choice(ids.ravel())] = 0
    return ids, [segment for segment in segments if (ids == segment.id).any()]


def segments(frame: Frame) -> Segments:
    return Segments.of_ids(*frame)
