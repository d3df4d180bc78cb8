"""Drawn scenes for tiny data sets: a shape that stays, one that comes late, one that leaves; the same for a seed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from x2roto.data.annotations import Size, encode_mask, write_picture

# (height, width), frames: the videos of a data set need not be alike.
SHAPES: tuple[tuple[Size, int], ...] = (((48, 64), 5), ((40, 56), 4))
# Of each drawn thing: its kind, 0 round or 1 square, its first frame, and how many frames before the end it leaves.
THINGS = ((0, 0, 0), (1, 2, 0), (0, 0, 1))
KINDS = ("round", "square")


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """A drawn video of T frames and n things that never overlap.

    `frames`: uint8 (T, H, W, 3). `masks`: bool (n, T, H, W). `sky`: bool (H, W), the upper background.
    `kinds`: of each thing, an index into `KINDS`. `names`: of the frames.
    """

    name: str
    names: tuple[str, ...]
    frames: NDArray[np.uint8]
    masks: NDArray[np.bool_]
    sky: NDArray[np.bool_]
    kinds: tuple[int, ...]

    @property
    def size(self) -> Size:
        height, width = self.sky.shape
        return height, width

    def labels(self, frame: int) -> NDArray[np.uint8]:
        """Number of the thing, from 1, at each pixel (H, W) of a frame; 0 for the background."""
        numbers = np.arange(1, len(self.masks) + 1, dtype=np.uint8)[:, None, None]
        return np.asarray((self.masks[:, frame] * numbers).max(0), np.uint8)

    def seen(self, thing: int) -> list[int]:
        """The frames a thing is on."""
        return np.flatnonzero(self.masks[thing].any((1, 2))).tolist()


def scenes(seed: int, step: int = 1) -> tuple[Scene, ...]:
    """Two drawn videos. `step`: how far apart the numbers of their frames are."""
    rng = np.random.default_rng(seed)
    return tuple(_scene(f"clip{number}", size, count, step, rng) for number, (size, count) in enumerate(SHAPES))


def _scene(name: str, size: Size, count: int, step: int, rng: np.random.Generator) -> Scene:
    height, width = size
    sky = np.broadcast_to(np.arange(height)[:, None] < height // 2, size).copy()
    frames = np.where(sky[..., None], rng.integers(150, 200, 3), rng.integers(50, 100, 3))
    frames = np.repeat(frames[None].astype(np.uint8), count, 0)
    masks = np.zeros((len(THINGS), count, *size), np.bool_)
    for thing, (kind, first, early) in enumerate(THINGS):
        colour = rng.integers(0, 256, 3)
        # Each thing keeps to a third of the width, so that none hides another.
        middle = np.array([rng.uniform(0.35, 0.65) * height, (thing + 0.5) * width / len(THINGS)])
        drift = rng.uniform(-1.5, 1.5), rng.uniform(-0.4, 0.4)
        for frame in range(first, count - early):
            masks[thing, frame] = _drawn(kind, middle + np.multiply(drift, frame), rng.uniform(5, 6), size)
            frames[frame][masks[thing, frame]] = colour
    names = tuple(f"{index * step:05d}" for index in range(count))
    return Scene(name, names, frames, masks, sky, tuple(kind for kind, _, _ in THINGS))


def _drawn(kind: int, middle: NDArray[np.float64], radius: float, size: Size) -> NDArray[np.bool_]:
    offsets = np.abs(np.moveaxis(np.indices(size), 0, -1) - middle)
    return np.asarray(np.hypot(*np.moveaxis(offsets, -1, 0)) <= radius if kind == 0 else offsets.max(-1) <= radius)


def write_frames(scene: Scene, folder: Path) -> None:
    """The pictures of a scene as `folder`/FRAME.jpg."""
    for name, picture in zip(scene.names, scene.frames, strict=True):
        write_picture(picture, folder / f"{name}.jpg")


def write_labels(scene: Scene, folder: Path) -> None:
    """The label map of each frame as `folder`/FRAME.png."""
    for frame, name in enumerate(scene.names):
        write_picture(scene.labels(frame), folder / f"{name}.png")


def write_thing(scene: Scene, thing: int, folder: Path) -> None:
    """The mask of one thing on each frame as a black and white `folder`/FRAME.png."""
    for frame, name in enumerate(scene.names):
        write_picture(scene.masks[thing, frame].astype(np.uint8) * 255, folder / f"{name}.png")


def runs_of(scene: Scene, thing: int) -> list[dict[str, object] | None]:
    """The RLE of one thing on each frame, None where it is not seen."""
    return [encode_mask(mask) if mask.any() else None for mask in scene.masks[thing]]
