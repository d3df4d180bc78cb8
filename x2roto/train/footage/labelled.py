"""Labelled photographs and real clips filmed anew: camera, light and film damage, their labels moved along."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from x2roto.train.footage.material import Backdrop, Labelled, Picture
from x2roto.train.footage.render import render_place
from x2roto.train.footage.scene import Scene, empty_scene

UNKNOWN = 255  # in label maps: a crowd, or not to be counted


@dataclass(frozen=True, slots=True, eq=False)
class PhotoClip:
    """`frames` uint8 (T, H, W, 3); `masks` bool (n, T, H, W) of the things called `names`; `unknown` bool (T, H, W):
    pixels that may hold a thing nobody labelled.
    """

    frames: NDArray[np.uint8]
    masks: NDArray[np.bool_]
    names: list[str]
    unknown: NDArray[np.bool_]


def film_labelled(
    source: Labelled, rng: np.random.Generator, height: int, width: int, frames: int, device: str = "cpu"
) -> PhotoClip:
    """A new view of a labelled picture, framed so that one of its things is in it."""
    pictures, labels = source.load()
    backdrop = Backdrop(source.name, "footage" if len(pictures) > 1 else "photo", frozenset(), lambda: pictures)
    scene = empty_scene(rng, backdrop, frames=frames, aspect=width / height)
    scene = _framed(scene, labels, rng)
    numbers = sorted(number for number in source.names if (labels == number).any())
    layers = np.stack([*(labels == number for number in numbers), labels == UNKNOWN], -1).astype(np.uint8) * 255
    seen, shares = render_place(scene, layers, height, width, device)
    masks, crowd = shares[:-1] > 0.5, shares[-1] > 0.5
    unknown = np.asarray(crowd if source.complete else ~masks.any(0))
    return PhotoClip(seen, masks, [source.names[number] for number in numbers], unknown)


def _framed(scene: Scene, labels: Picture, rng: np.random.Generator) -> Scene:
    """The scene looking at one of the labelled things, not closer than holds it with some room."""
    first = scene.first_picture % max(1, len(labels) - scene.frames) if len(labels) > 1 else 0
    middle = labels[min(first + scene.frames // 2, len(labels) - 1)]
    numbers = [number for number in np.unique(middle) if number not in (0, UNKNOWN)]
    scene = replace(scene, first_picture=first, step=1)
    if not numbers:
        return scene
    rows, columns = np.nonzero(middle == rng.choice(numbers))
    high, wide = middle.shape
    size = max(np.ptp(rows), np.ptp(columns) / scene.aspect) / high
    widest = min(1.0, wide / high / scene.aspect)
    view = float(np.clip(size * rng.uniform(1.1, 3.5), 0.25, 0.95 * widest))
    spare_x, spare_y = wide / high - view * scene.aspect, 1 - view
    at_x = (columns.mean() / high - wide / high / 2 + rng.normal(0, 0.1) * view) / max(spare_x, 1e-3) + 0.5
    at_y = (rows.mean() / high - 0.5 + rng.normal(0, 0.1) * view) / max(spare_y, 1e-3) + 0.5
    window = (float(np.clip(at_x, 0.02, 0.98)), float(np.clip(at_y, 0.02, 0.98)), view / widest)
    return replace(scene, window=window)
