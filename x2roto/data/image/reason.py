"""One question about one picture: ReasonSeg. `root` is the folder `lisa`, with `val`, `test` and `train` in it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from x2roto.data.annotations import Size, check_files, field, list_folder, read_json, records, write_json
from x2roto.data.image.pictures import Picture, some
from x2roto.data.image.scenes import Mask, Scene, scenes, write_photographs
from x2roto.data.listed import Listed
from x2roto.data.names import chosen
from x2roto.data.sample import FrameTruth, Layout, PromptKind, Sample
from x2roto.data.truth import Marked, frame_truth
from x2roto.errors import InputError

SPLITS = ("val", "test", "train")
# Some of the files are not in UTF-8.
ENCODING = "cp1252"
OUTSIDE, INSIDE, IGNORED = 0, 1, 2


@dataclass(frozen=True, slots=True)
class Outline:
    """A polygon around what is meant, or around what does not count. `corners`: x, y in pixels."""

    value: int
    corners: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Asked:
    """A question. `place`: its number among those about the picture. `long`: a sentence, else a phrase."""

    picture: Picture
    place: int
    text: str
    long: bool
    outlines: tuple[Outline, ...]


def open_reasoning(root: Path, split: str, prompt: PromptKind | None) -> Listed:
    """A sample for each question; parts are "short" for phrases and "long" for sentences. Raises InputError."""
    chosen(split, dict.fromkeys(SPLITS), "reasonseg")
    folder = root / split
    listed = list_folder(folder)
    stems = {kind: {name.removesuffix(kind) for name in listed if name.endswith(kind)} for kind in (".jpg", ".json")}
    check_files(folder, sorted(f"{stem}.json" for stem in stems[".jpg"]))
    check_files(folder, sorted(f"{stem}.jpg" for stem in stems[".json"]))
    items = [item for stem in sorted(stems[".jpg"]) for item in _asked(folder, stem)]
    return Listed("reasonseg", (), some(items, folder), _sample)


def _asked(folder: Path, stem: str) -> Iterator[Asked]:
    path = folder / f"{stem}.json"
    table = read_json(path, legacy=ENCODING)
    picture = Picture(stem, folder, f"{stem}.jpg", None)
    outlines = tuple(_outlines(records(table, "shapes", path), path))
    long = field(table, "is_sentence", bool, path, "the file")
    for place, text in enumerate(field(table, "text", list, path, "the file")):
        if not isinstance(text, str):
            raise InputError(f"{path}: 'text' holds something else than questions: the file is damaged", path)
        yield Asked(picture, place, text, long, outlines)


def _outlines(shapes: Sequence[Mapping[str, Any]], path: Path) -> Iterator[Outline]:
    """The polygons; shapes called "flag" are remarks of the annotators."""
    for shape in shapes:
        label = field(shape, "label", str, path, "a shape").lower()
        if label != "flag":
            corners = field(shape, "points", list, path, "a shape")
            yield Outline(IGNORED if "ignore" in label else INSIDE, tuple(_corner(each, path) for each in corners))


def _corner(point: Any, path: Path) -> tuple[int, int]:
    """Whole pixels, cut off as in the data set's own tools."""
    if not isinstance(point, list) or len(point) != 2 or not all(isinstance(each, (int, float)) for each in point):
        raise InputError(f"{path}: a shape has the point {point!r}, not x and y: the file is damaged", path)
    return int(point[0]), int(point[1])


def _sample(item: Asked) -> Sample:
    part = "long" if item.long else "short"
    return item.picture.sample("reaseg", [item.text], partial(_truth, item), str(item.place), parts=(part,))


def _truth(item: Asked) -> FrameTruth:
    painted = _painted(item.outlines, item.picture.size)
    ignored = painted == IGNORED
    return frame_truth([Marked(painted == INSIDE)], item.picture.size, ignored if ignored.any() else None)


def _painted(outlines: Sequence[Outline], size: Size) -> Any:
    """OUTSIDE, INSIDE or IGNORED at each pixel: smaller shapes lie on larger ones.

    Source: wanghao9610/X2SAM@5b0b106 x2sam/x2sam/dataset/img_reaseg_dataset.py, which draws with OpenCV; edges that
    pass just between two pixels may take the other one.
    """
    filled = [(_filled(outline.corners, size), outline.value) for outline in outlines]
    painted = np.full(size, OUTSIDE, np.uint8)
    for mask, value in sorted(filled, key=lambda each: -int(each[0].sum())):
        painted[mask] = value
    return painted


def _filled(corners: Sequence[tuple[int, int]], size: Size) -> Mask:
    """A polygon with its edges, bool (H, W)."""
    picture = Image.new("1", (size[1], size[0]))
    draw = ImageDraw.Draw(picture)
    if len(corners) > 1:
        draw.polygon(corners, fill=1)
        draw.line([*corners, corners[0]], fill=1)
    return np.asarray(picture, np.bool_)


# ---- miniature --------------------------------------------------------------------------------------------

PICTURE_NAME = "{:04d}"
QUESTIONS = (
    ("the one that walks the dog",),
    ("Which animal isn\u2019t on a lead?", "Who would chase a ball?"),
    ("something to throw a stick for",),
)


def _write_miniature(root: Path, seed: int) -> None:
    """Three pictures in `val`: the first with a part that does not count, the second in the other encoding."""
    drawn = scenes(seed)[: len(QUESTIONS)]
    write_photographs(drawn, root / "val", PICTURE_NAME)
    for scene, questions in zip(drawn, QUESTIONS, strict=True):
        path = root / "val" / f"{PICTURE_NAME.format(scene.number)}.json"
        table = {"text": list(questions), "is_sentence": len(questions) > 1, "shapes": shapes_of(scene)}
        write_json(table, path)
        if len(questions) > 1:
            path.write_text(path.read_text().replace("\\u2019", "\u2019"), encoding=ENCODING)


def shapes_of(scene: Scene) -> list[dict[str, Any]]:
    """What is meant: a rectangle in each quarter that a thing is in; in the first picture part of it is ignored."""
    height, width = scene.size
    target = {"label": "target", "points": outline((height // 4, width // 4, height // 2, width // 2))}
    ignore = {"label": "ignore", "points": outline((height // 3, width // 3, height // 3 + 5, width // 3 + 6))}
    flag = {"label": "flag", "points": [[0, 0], [3, 0], [3, 3]]}
    return [ignore, flag, target] if scene.number == 0 else [target]


def outline(box: tuple[int, int, int, int]) -> list[list[float]]:
    """Corners of a rectangle (top, left, bottom, right; the last two exclusive), somewhere inside their pixels."""
    top, left, bottom, right = box
    return [
        [left + 0.4, top + 0.9],
        [right - 0.7, top + 0.2],
        [right - 0.1, bottom - 0.5],
        [left + 0.3, bottom - 0.8],
    ]


LAYOUTS = (Layout("reasonseg", "ReasonSeg reasoning segmentation", SPLITS, open_reasoning, _write_miniature),)
