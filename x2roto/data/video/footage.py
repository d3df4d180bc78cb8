"""Clips with a MANIFEST.json that says what to cut and how it is shown; not all need a mask on every frame.

    MANIFEST.json
    gt/NAME/frames/FRAME.jpg
    gt/NAME/masks/FRAME.png      the object has the manifest's `mask_value`

Of the manifest's items those of kind "gt-sequence" are read. Split "region": each object by the manifest's own box or
point, or by its first mask. Split "text": by the manifest's words.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from x2roto.data.annotations import Size, field, list_folder, read_json, records, write_json
from x2roto.data.listed import Listed
from x2roto.data.names import chosen
from x2roto.data.sample import PromptKind, Sample
from x2roto.data.truth import Mask
from x2roto.data.video.clips import Clip, as_png, first_seen, label_mask, listed_clip, object_truth, shown
from x2roto.data.video.miniature import Scene, scenes, write_frames, write_thing
from x2roto.errors import InputError, PromptError
from x2roto.prompt import Box, Points, region_mask

SPLITS = ("region", "text")
PROMPTS: tuple[PromptKind, ...] = ("box", "point", "mask")


@dataclass(frozen=True, slots=True)
class Target:
    """An object of a clip. `box`: x0, y0, x1, y1, exclusive, and `point`: x, y, both on frame `first`."""

    clip: Clip
    number: int
    value: int
    text: str
    first: int
    box: tuple[float, ...]
    point: tuple[float, ...]
    masks: tuple[str, ...]
    annotated: tuple[bool, ...]

    @property
    def key(self) -> str:
        return f"{self.clip.name}/{self.number}"


def open_footage(root: Path, split: str, prompt: PromptKind | None) -> Listed:
    """One request per object. Raises InputError."""
    chosen(split, dict.fromkeys(SPLITS), "footage")
    path = root / "MANIFEST.json"
    items = [item for item in records(read_json(path), "items", path) if item.get("kind") == "gt-sequence"]
    targets = tuple(target for item in items for target in _targets(item, root, path))
    if not targets:
        raise InputError(f"{path} has no item of kind 'gt-sequence': is this the folder of the footage?", path)
    make = partial(_named, root=root) if split == "text" else partial(_shown, root=root, prompt=prompt or PROMPTS[0])
    return Listed("footage", (), targets, make)


def _targets(item: Mapping[str, Any], root: Path, path: Path) -> Iterator[Target]:
    folder = field(item, "file", str, path, "an item").rstrip("/")
    clip = listed_clip(folder.rpartition("/")[2], root, f"{folder}/frames")
    masks = as_png(file.replace("/frames/", "/masks/") for file in clip.files)
    there = list_folder(root / folder / "masks")
    for found, key in ((len(clip), "frames"), (len(there), "mask_frames")):
        if found != field(item, key, int, path, folder):
            raise InputError(f"{root / folder} has {found} {key}, {path.name} says {item[key]}: copy it again", root)
    annotated = tuple(mask.rpartition("/")[2] in there for mask in masks)
    if sum(annotated) < len(there):
        raise InputError(f"{root / folder / 'masks'} holds a mask of no frame: copy it again", root / folder)
    for record in records(item, "objects", path):
        yield _target(record, clip, masks, annotated, path, f"an object of {folder}")


def _target(
    record: Mapping[str, Any], clip: Clip, masks: tuple[str, ...], annotated: tuple[bool, ...], path: Path, what: str
) -> Target:
    first = field(record, "first_frame", int, path, what)
    if not 0 <= first < len(clip):
        raise InputError(f"{path}: {what} is first seen on frame {first} of {len(clip)}: correct it", path)
    return Target(
        clip,
        field(record, "id", int, path, what),
        field(record, "mask_value", int, path, what),
        field(record, "text", str, path, what),
        first,
        _numbers(record, "box_xyxy", 4, path, what),
        _numbers(record, "point_xy", 2, path, what),
        masks,
        annotated,
    )


def _numbers(record: Mapping[str, Any], key: str, count: int, path: Path, what: str) -> tuple[float, ...]:
    found = field(record, key, list, path, what)
    if len(found) != count or not all(isinstance(each, int | float) for each in found):
        raise InputError(f"{path}: {key!r} of {what} is not {count} numbers: correct it", path)
    return tuple(float(each) for each in found)


def _named(target: Target, root: Path) -> Sample:
    return _sample(target, root, target.clip.size(), "refseg", target.text)


def _shown(target: Target, root: Path, prompt: PromptKind) -> Sample:
    size = target.clip.size()
    if prompt in ("box", "point"):
        start, region = target.first, _given(target, prompt, size, root)
    else:
        known = np.flatnonzero(target.annotated).tolist()
        start, mask = first_seen(_reader(target, root, size), known, root, target.key)
        region = shown(mask, prompt, target.key)
    return _sample(target, root, size, "objseg", region, prompt=prompt, prompt_frame=start)


def _given(target: Target, prompt: PromptKind, size: Size, root: Path) -> Mask:
    """The manifest's own box or point as a region. Raises InputError when it leaves the picture."""
    height, width = size
    (x0, y0, x1, y1), (x, y) = target.box, target.point
    region = Box(target.key, x0, y0, x1, y1) if prompt == "box" else Points(target.key, ((x, y),))
    try:
        return region_mask(region, width, height)
    except PromptError as error:
        raise InputError(f"{root / 'MANIFEST.json'}: {error}", root / "MANIFEST.json") from error


def _reader(target: Target, root: Path, size: Size) -> partial[Mask]:
    return partial(label_mask, folder=root, files=target.masks, value=target.value, size=size)


def _sample(target: Target, root: Path, size: Size, task: str, asked: str | Mask, **more: Any) -> Sample:
    truth = partial(object_truth, read=_reader(target, root, size), identity=target.number, size=size)
    return target.clip.sample(target.key, task, [asked], truth, size, np.array(target.annotated), **more)


# ---- miniature --------------------------------------------------------------------------------------------


def write_footage(root: Path, seed: int) -> None:
    """Two clips of one object each: one late and without a mask on its fourth frame, one that leaves."""
    items = []
    for scene, thing in zip(scenes(seed), (1, 2), strict=True):
        folder = root / "gt" / scene.name
        write_frames(scene, folder / "frames")
        write_thing(scene, thing, folder / "masks")
        if thing == 1:
            (folder / "masks" / f"{scene.names[3]}.png").unlink()
        items.append(_item(scene, thing, len(scene.names) - (thing == 1)))
    write_json({"set": "miniature", "items": items}, root / "MANIFEST.json")


def _item(scene: Scene, thing: int, masks: int) -> dict[str, Any]:
    first = scene.seen(thing)[0]
    rows, columns = np.nonzero(scene.masks[thing, first])
    box = [int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1]
    shape = {
        "id": 1,
        "mask_value": 255,
        "text": f"the shape of {scene.name}",
        "first_frame": first,
        "box_xyxy": box,
        "point_xy": [(box[0] + box[2]) // 2, (box[1] + box[3]) // 2],
    }
    return {
        "file": f"gt/{scene.name}/",
        "kind": "gt-sequence",
        "frames": len(scene.names),
        "mask_frames": masks,
        "objects": [shape],
    }
