"""Stills crowded with things of every kind, quickly made: cut-outs strewn over a backdrop, for learning names alone.

Nothing here has a ground, a light or a size of its own, as scenes have; but a scene takes three times as long and
shows a third of the things (copy and paste, arXiv 2012.07177).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from x2roto.train.footage.material import Backdrop, Material, Prop
from x2roto.train.footage.scene import pick, weight
from x2roto.train.footage.vocabulary import Label

_SIDES = (1, 2, 3, 4)  # of the grid on which things are strewn
_SHARES = (0.15, 0.35, 0.3, 0.2)
_SIZE = (0.5, 1.3)  # of a thing's longer side, in cells
_SQUEEZE = (0.55, 1.1)  # of its width, as wide plates are squeezed into squares
_NAMELESS = 0.1
_EMPTY = 0.08  # of cells
_PLACES = 4  # to choose from
_SMOOTH = Image.Resampling.BILINEAR


@dataclass(frozen=True, slots=True, eq=False)
class Scattered:
    """`frame` uint8 (S, S, 3); `masks` bool (n, S, S) of what is seen of the things, whose `labels` are beside them;
    `holds`: what something behind them may be called."""

    frame: NDArray[np.uint8]
    masks: NDArray[np.bool_]
    labels: tuple[Label, ...]
    holds: frozenset[str]


def scatter(material: Material, seed: Sequence[int], side: int) -> Scattered:
    """The still of a seed, always the same."""
    rng = np.random.default_rng(seed)
    cells = int(rng.choice(_SIDES, p=_SHARES))
    taken = rng.permutation(cells * cells)[: max(1, round(cells * cells * (1 - _EMPTY)))]
    props = _cast(rng, material, len(taken))
    backdrop = _place(rng, material, {prop.noun for prop in props if prop.noun})
    canvas = _behind(backdrop, rng, side)
    masks, labels = np.zeros((len(taken), side, side), np.bool_), []
    for number, (prop, cell) in enumerate(zip(props, taken, strict=True)):
        sprite = prop.load()
        picture = sprite.pictures[rng.integers(len(sprite.pictures))]
        step = side / cells
        middle = (np.array([cell % cells, cell // cells]) + 0.5 + rng.uniform(-0.3, 0.3, 2)) * step
        masks[number] = _lay(canvas, _turned(picture, rng, step), middle)
        masks[:number] &= ~masks[number]
        labels.append(sprite.label)
    return Scattered(_developed(canvas, rng), masks, tuple(labels), backdrop.holds)


def _cast(rng: np.random.Generator, material: Material, count: int) -> list[Prop]:
    """Things of all names, half of them as often as scenes have them and half evenly; some without a name."""
    names = list(material.by_noun)
    weights = np.array([weight(noun, material) for noun in names])
    shares = 0.5 * weights / weights.sum() + 0.5 / len(names)
    chosen = rng.choice(len(names), size=count, p=shares)
    nameless = rng.random(count) < (_NAMELESS if material.nameless else 0)
    return [
        material.nameless[rng.integers(len(material.nameless))] if unknown else pick(rng, material, names[noun])
        for noun, unknown in zip(chosen, nameless, strict=True)
    ]


def _place(rng: np.random.Generator, material: Material, cast: set[str]) -> Backdrop:
    """The one of a few that may show the fewest of the same things."""
    few = [material.backdrops[number] for number in rng.integers(len(material.backdrops), size=_PLACES)]
    best: Backdrop = min(few, key=lambda backdrop: len(cast & backdrop.holds))
    return best


def _behind(backdrop: Backdrop, rng: np.random.Generator, side: int) -> NDArray[np.float32]:
    """Part of a backdrop, float32 (S, S, 3), display-encoded in [0, 1]."""
    pictures = backdrop.load()
    picture = pictures[rng.integers(len(pictures))]
    high, wide = (max(2, round(length * rng.uniform(0.35, 1))) for length in picture.shape[:2])
    top, left = (
        int(rng.integers(length - part + 1)) for length, part in ((picture.shape[0], high), (picture.shape[1], wide))
    )
    seen = Image.fromarray(picture[top : top + high, left : left + wide]).resize((side, side), _SMOOTH)
    return np.asarray(seen, np.float32) / np.float32(255)


def _turned(picture: NDArray[np.uint8], rng: np.random.Generator, step: float) -> NDArray[np.float32]:
    """A cut-out as it is strewn: of another size and width, turned, mirrored, in other light; premultiplied RGBA."""
    image = Image.fromarray(picture).convert("RGBa")
    size = step * rng.uniform(*_SIZE) / max(image.size)
    wide, high = (max(2, round(length * size)) for length in image.size)
    image = image.resize((max(2, round(wide * rng.uniform(*_SQUEEZE))), high), _SMOOTH)
    if rng.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    bands = [band.rotate(float(turn), _SMOOTH, expand=True) for turn in [rng.normal(0, 9)] for band in image.split()]
    rgba = np.stack([np.asarray(band, np.float32) for band in bands], -1) / np.float32(255)
    light = np.exp(rng.normal(0, 0.2) + rng.normal(0, 0.06, 3)).astype(np.float32)
    rgba[..., :3] = np.minimum(rgba[..., :3] * light, rgba[..., 3:])
    return rgba


def _lay(canvas: NDArray[np.float32], rgba: NDArray[np.float32], middle: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Lay a cut-out on the canvas; where it is, (S, S)."""
    side = len(canvas)
    mask = np.zeros((side, side), np.bool_)
    high, wide = rgba.shape[:2]
    left, top = round(middle[0] - wide / 2), round(middle[1] - high / 2)
    rows, columns = slice(max(0, top), min(side, top + high)), slice(max(0, left), min(side, left + wide))
    part = rgba[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
    cover = part[..., 3:]
    canvas[rows, columns] = canvas[rows, columns] * (1 - cover) + part[..., :3]
    mask[rows, columns] = cover[..., 0] > 0.5
    return mask


def _developed(canvas: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.uint8]:
    """What a camera makes of it: light, contrast, softness, noise; uint8 (S, S, 3)."""
    seen = 0.45 + (canvas * np.exp(rng.normal(0, 0.2)) - 0.45) * rng.uniform(0.75, 1.2)
    if rng.random() < 0.5:
        seen = seen + rng.normal(0, rng.uniform(0, 0.05), seen.shape)
    image = Image.fromarray((np.clip(seen, 0, 1) * 255).astype(np.uint8))
    if rng.random() < 0.4:
        image = image.filter(ImageFilter.GaussianBlur(float(rng.uniform(0.3, 1.4))))
    return np.asarray(image)
