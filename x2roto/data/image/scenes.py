"""Drawn pictures for miniatures: overlapping objects of two classes, a crowd, two kinds of stuff and a void strip."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from x2roto.data.annotations import Size, encode_mask, write_picture
from x2roto.matte import bounds

Mask = NDArray[np.bool_]

# (height, width) of the four pictures, and what is drawn on each: the last is empty but for its stuff.
SIZES: tuple[Size, ...] = ((48, 64), (48, 64), (64, 48), (40, 56))
DRAWN: tuple[tuple[str, ...], ...] = (("person", "dog", "person"), ("dog", "crowd"), ("person", "dog"), ())
VOID_ROWS = 3
SKY, GRASS, VOID = 0, 1, 255


@dataclass(frozen=True, slots=True, eq=False)
class Thing:
    """A drawn object. `noun`: its class. `mask`: bool (H, W), whole, also where another hides it. `crowd`: of many.

    `box`: top, left, bottom, right of a rectangle, the last two exclusive; None for a round thing.
    """

    noun: str
    mask: Mask
    crowd: bool = False
    box: tuple[int, int, int, int] | None = None

    @property
    def segmentation(self) -> Any:
        """The mask as COCO writes it: a crowd as plain runs, a rectangle as a polygon, else compressed runs."""
        if self.crowd:
            return {"size": list(self.mask.shape), "counts": plain_runs(self.mask)}
        return encode_mask(self.mask) if self.box is None else [corners(self.box)]


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """A drawn picture. `pixels`: uint8 (H, W, 3). `things`: later ones hide earlier ones.

    `stuff`: int64 (H, W), SKY, GRASS or VOID behind the things.
    """

    number: int
    pixels: NDArray[np.uint8]
    things: tuple[Thing, ...]
    stuff: NDArray[np.int64]

    @property
    def size(self) -> Size:
        height, width = self.stuff.shape
        return height, width

    def order(self) -> NDArray[np.int64]:
        """The number of the visible thing at each pixel (H, W), from 1 in order; 0 where there is none."""
        seen = np.zeros(self.size, np.int64)
        for number, thing in enumerate(self.things, 1):
            seen[thing.mask] = number
        return seen

    def visible(self, number: int) -> Mask:
        """What is seen of a thing, counted from 0."""
        return np.asarray(self.order() == number + 1)

    def background(self, kind: int) -> Mask:
        """What is seen of SKY, GRASS or VOID."""
        return np.asarray((self.stuff == kind) & (self.order() == 0))


def scenes(seed: int) -> tuple[Scene, ...]:
    """Four pictures, the same for a seed."""
    rng = np.random.default_rng(seed)
    return tuple(_scene(number, size, rng) for number, size in enumerate(SIZES))


def _scene(number: int, size: Size, rng: np.random.Generator) -> Scene:
    height, width = size
    stuff = np.where(np.arange(height) < height // 2, SKY, GRASS)
    stuff[-VOID_ROWS:] = VOID
    stuff = np.repeat(stuff[:, None], width, 1)
    nouns = DRAWN[number]
    things = tuple(_thing(noun, size, (k + 0.6) / (len(nouns) + 0.2), rng) for k, noun in enumerate(nouns))
    return Scene(number, _painted(stuff, things, rng), things, stuff)


def _thing(noun: str, size: Size, across: float, rng: np.random.Generator) -> Thing:
    """A rectangle for a person, a disc for a dog, two apart for a crowd; neighbours overlap a little."""
    height, width = size
    row = int(rng.uniform(0.4, 0.6) * height)
    column = int(across * width)
    if noun == "person":
        box = (row - 11, max(0, column - 10), row + 11, min(width, column + 10))
        return Thing(noun, rectangle(box, size), box=box)
    if noun == "dog":
        return Thing(noun, _disc((row, column), rng.uniform(9, 11), size))
    return Thing("person", _disc((row, column), 5, size) | _disc((row, column - 11), 4, size), crowd=True)


def rectangle(box: tuple[int, int, int, int], size: Size) -> Mask:
    """A filled box."""
    mask = np.zeros(size, np.bool_)
    mask[box[0] : box[2], box[1] : box[3]] = True
    return mask


def _disc(middle: tuple[int, int], radius: float, size: Size) -> Mask:
    rows, columns = np.ogrid[: size[0], : size[1]]
    return np.asarray(np.hypot(rows - middle[0], columns - middle[1]) <= radius)


def _painted(stuff: NDArray[np.int64], things: Iterable[Thing], rng: np.random.Generator) -> NDArray[np.uint8]:
    pixels = np.zeros((*stuff.shape, 3), np.uint8)
    for region in (stuff == SKY, stuff == GRASS, *(thing.mask for thing in things)):
        pixels[region] = rng.integers(30, 226, 3)
    return pixels


# ---- writing ----------------------------------------------------------------------------------------------


def write_photographs(drawn: Iterable[Scene], folder: Path, name: str) -> None:
    """The pictures as JPEG. `name`: of the files, with the number to be formatted in."""
    for scene in drawn:
        write_picture(scene.pixels, folder / f"{name.format(scene.number)}.jpg")


def image_records(drawn: Iterable[Scene], name: str) -> list[dict[str, Any]]:
    """The `images` of a COCO table; ids count from 1."""
    return [
        {
            "id": scene.number + 1,
            "file_name": f"{name.format(scene.number)}.jpg",
            "height": scene.size[0],
            "width": scene.size[1],
        }
        for scene in drawn
    ]


def instance_records(drawn: Iterable[Scene], ids: dict[str, int]) -> list[dict[str, Any]]:
    """The `annotations` of a COCO instances table. `ids`: of the classes by noun."""
    found: list[dict[str, Any]] = []
    for scene in drawn:
        for thing in scene.things:
            found.append(
                {
                    "id": len(found) + 1,
                    "image_id": scene.number + 1,
                    "category_id": ids[thing.noun],
                    "iscrowd": int(thing.crowd),
                    "area": int(thing.mask.sum()),
                    "bbox": coco_box(thing.mask),
                    "segmentation": thing.segmentation,
                }
            )
    return found


def coco_box(mask: Mask) -> list[int]:
    """Left, top, width and height of a mask, as COCO writes boxes."""
    spans = bounds(mask)
    assert spans is not None
    rows, columns = spans
    return [columns.start, rows.start, columns.stop - columns.start, rows.stop - rows.start]


def corners(box: tuple[int, int, int, int]) -> list[int]:
    """A rectangle as a COCO polygon: x, y of each corner."""
    top, left, bottom, right = box
    return [left, top, right, top, right, bottom, left, bottom]


def plain_runs(mask: Mask) -> list[int]:
    """Uncompressed RLE: lengths of runs down the columns, the first outside."""
    inside = mask.ravel("F")
    changes = np.flatnonzero(np.diff(inside)) + 1
    runs: list[int] = np.diff([0, *changes, inside.size]).tolist()
    return [0, *runs] if inside[0] else runs
