"""What is shown by a region: COCO-Int, one object each, and COCO-VGD, every object of the classes shown.

`root` is the folder `coco_int` or `coco_vgd`. The regions are in the tables, so everybody is asked the same.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from x2roto.data.annotations import (
    checked_size,
    condition_of,
    decode_mask,
    encode_mask,
    field,
    image_size,
    known_category,
    listed_records,
    mask_area,
    read_categories,
    read_json,
    records,
    write_json,
)
from x2roto.data.image.classes import Annotated, instance_truth
from x2roto.data.image.coco import PICTURE_NAME, THINGS, write_instances
from x2roto.data.image.pictures import Picture, called, check_pictures, some
from x2roto.data.image.scenes import Mask, Scene, Thing, instance_records, rectangle, scenes, write_photographs
from x2roto.data.listed import Listed
from x2roto.data.names import chosen
from x2roto.data.sample import PROMPT_KINDS, Category, FrameTruth, Layout, PromptKind, Sample
from x2roto.data.truth import Marked, frame_truth
from x2roto.data.vprompt import thickened

SPLITS = {"val": "val2017", "train": "train2017"}
# COCO-Int holds a click as its pixel and a stroke as its line; they are drawn this thick, in pixels, when read.
THICKNESS: Mapping[PromptKind, float] = {"point": 10.0, "scribble": 5.0}


def _kind(prompt: PromptKind | None) -> PromptKind:
    return prompt or PROMPT_KINDS[0]


# ---- COCO-Int ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Shown:
    """One object of a picture."""

    picture: Picture
    annotation: Mapping[str, Any]


def open_interactive(root: Path, split: str, prompt: PromptKind | None) -> Listed:
    """A sample for each object that has a region of this kind, pictures in the order of the file.

    Source of the drawing of regions: wanghao9610/X2SAM@5b0b106 x2sam/x2sam/dataset/img_intseg_dataset.py. The file
    names no classes. Raises InputError.
    """
    pictures = root / "coco2017" / chosen(split, SPLITS, "coco_int")
    path = root / "annotations" / f"coco_interactive_{split}_psalm.json"
    kind = _kind(prompt)
    items = [item for entry in listed_records(read_json(path), path) for item in _shown(entry, kind, path, pictures)]
    check_pictures((item.picture for item in items), pictures)
    make = partial(_interactive_sample, kind=kind, path=path)
    return Listed("coco_int", (), some(items, path), make)


def _shown(entry: Mapping[str, Any], kind: PromptKind, path: Path, folder: Path) -> Iterator[Shown]:
    about = field(entry, "image_info", dict, path)
    number = field(about, "id", (int, str), path, "an image")
    size = image_size(about, path, f"image {number}")
    picture = Picture(number, folder, field(entry, "image", str, path, f"image {number}"), size)
    for annotation in records(entry, "anns", path):
        field(annotation, "segmentation", (list, dict), path, called(annotation))
        field(annotation, "id", int, path, called(annotation))
        if mask_area(annotation.get(f"{kind}_visual_prompt_mask"), size, path, called(annotation)):
            yield Shown(picture, annotation)


def _interactive_sample(item: Shown, kind: PromptKind, path: Path) -> Sample:
    marks = item.annotation[f"{kind}_visual_prompt_mask"]
    region = decode_mask(marks, item.picture.size, path, called(item.annotation))
    if kind in THICKNESS:
        region = thickened(region, THICKNESS[kind])
    truth = partial(_interactive_truth, item, path)
    return item.picture.sample("intseg", [region], truth, str(item.annotation["id"]), prompt=kind)


def _interactive_truth(item: Shown, path: Path) -> FrameTruth:
    mask = decode_mask(item.annotation["segmentation"], item.picture.size, path, called(item.annotation))
    crowd = bool(item.annotation.get("iscrowd", 0))
    return frame_truth([Marked(mask, identity=item.annotation["id"], crowd=crowd)], item.picture.size)


# ---- COCO-VGD ---------------------------------------------------------------------------------------------


def open_vgd(root: Path, split: str, prompt: PromptKind | None) -> Listed:
    """A sample for each picture: a region for each class seen, classes by id, and every object of those classes.

    The region shows one of the objects, drawn at random but the same each time. Classes whose objects have no
    region of this kind are not asked for; objects without one count where another of the class has one. Raises
    InputError.
    """
    part = chosen(split, SPLITS, "coco_vgd")
    pictures = root / "coco2017" / part
    classes = root / "coco2017" / "annotations" / f"instances_{part}.json"
    path = root / "annotations" / f"img_vgdseg_coco_{split}.json"
    categories = read_categories(read_json(classes), classes)
    conditions = condition_of(categories)
    kind = _kind(prompt)
    entries = [_pictured(each, conditions, path, pictures) for each in listed_records(read_json(path), path)]
    items = [item for item in entries if any(_has_region(each, item, kind, path) for each in item.annotations)]
    check_pictures((item.picture for item in items), pictures)
    make = partial(_vgd_sample, kind=kind, path=path, categories=categories)
    return Listed("coco_vgd", categories, some(items, path), make)


def _pictured(entry: Mapping[str, Any], conditions: Mapping[int, int], path: Path, folder: Path) -> Annotated:
    number = field(entry, "image_id", (int, str), path)
    what = f"image {number}"
    size = checked_size(field(entry, "image_size", list, path, what), path, what)
    annotations = records(entry, "annotations", path)
    for each in annotations:
        field(each, "segmentation", (list, dict), path, called(each))
        field(each, "visual_prompts", dict, path, called(each))
        known_category(each, conditions, path, called(each))
    return Annotated(Picture(number, folder, field(entry, "image_file", str, path, what), size), annotations)


def _has_region(annotation: Mapping[str, Any], item: Annotated, kind: PromptKind, path: Path) -> bool:
    return mask_area(_region(annotation, kind), item.picture.size, path, called(annotation)) > 0


def _region(annotation: Mapping[str, Any], kind: PromptKind) -> Any:
    return annotation["visual_prompts"].get(f"{kind}_visual_prompt")


def _vgd_sample(item: Annotated, kind: PromptKind, path: Path, categories: Sequence[Category]) -> Sample:
    rng = np.random.default_rng(zlib.crc32(f"{item.picture.name} {kind}".encode()))
    asked, regions = [], []
    for category in categories:
        shown = [
            each
            for each in item.annotations
            if each["category_id"] == category.id and _has_region(each, item, kind, path)
        ]
        if shown:
            drawn = shown[int(rng.integers(len(shown)))]
            asked.append(category)
            regions.append(decode_mask(_region(drawn, kind), item.picture.size, path, called(drawn)))
    truth = partial(instance_truth, item, path, condition_of(asked))
    return item.picture.sample("vgdseg", regions, truth, categories=tuple(asked), prompt=kind)


# ---- miniatures -------------------------------------------------------------------------------------------


def regions_of(thing: Thing, size: tuple[int, int]) -> dict[PromptKind, Mask]:
    """A plain region of each kind for a drawn thing: its middle, its middle row, its box, itself."""
    rows, columns = np.flatnonzero(thing.mask.any(1)), np.flatnonzero(thing.mask.any(0))
    top, left, bottom, right = int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1
    middle = ((top + bottom) // 2, (left + right) // 2)
    return {
        "point": rectangle((middle[0], middle[1], middle[0] + 1, middle[1] + 1), size),
        "scribble": rectangle((middle[0], left, middle[0] + 1, right), size),
        "box": rectangle((top, left, bottom, right), size),
        "mask": thing.mask,
    }


def _write_interactive(root: Path, seed: int) -> None:
    """The empty picture has no entry, as in the file itself; the last object has no click and no stroke."""
    drawn = [scene for scene in scenes(seed) if scene.things]
    write_photographs(drawn, root / "coco2017" / "val2017", PICTURE_NAME)
    entries = [_interactive_entry(scene, annotations) for scene, annotations in _by_scene(drawn)]
    for kind in THICKNESS:
        del entries[-1]["anns"][-1][f"{kind}_visual_prompt_mask"]
    write_json(entries, root / "annotations" / "coco_interactive_val_psalm.json")


def _by_scene(drawn: Sequence[Scene]) -> Iterator[tuple[Scene, list[dict[str, Any]]]]:
    annotations = instance_records(drawn, THINGS)
    for scene in drawn:
        yield scene, [each for each in annotations if each["image_id"] == scene.number + 1]


def _interactive_entry(scene: Scene, annotations: Sequence[dict[str, Any]]) -> dict[str, Any]:
    file = f"{PICTURE_NAME.format(scene.number)}.jpg"
    height, width = scene.size
    about = {"id": scene.number + 1, "file_name": file, "height": height, "width": width}
    for annotation, thing in zip(annotations, scene.things, strict=True):
        for kind, mask in regions_of(thing, scene.size).items():
            annotation[f"{kind}_visual_prompt_mask"] = encode_mask(mask)
    return {"image": file, "image_info": about, "anns": annotations}


def _write_vgd(root: Path, seed: int) -> None:
    """The instances beside their regions; crowds and the empty picture are left out, one thing has no click."""
    write_instances(root / "coco2017", seed)
    drawn = [scene for scene in scenes(seed) if scene.things]
    entries = [_vgd_entry(scene, annotations) for scene, annotations in _by_scene(drawn)]
    del entries[-1]["annotations"][-1]["visual_prompts"]["point_visual_prompt"]
    write_json(entries, root / "annotations" / "img_vgdseg_coco_val.json")


def _vgd_entry(scene: Scene, annotations: Sequence[dict[str, Any]]) -> dict[str, Any]:
    kept = []
    for annotation, thing in zip(annotations, scene.things, strict=True):
        regions = regions_of(thing, scene.size)
        prompts = {f"{kind}_visual_prompt": encode_mask(mask) for kind, mask in regions.items()}
        if not thing.crowd:
            kept.append({**annotation, "bbox_mode": 1, "visual_prompts": prompts})
    file, number = f"{PICTURE_NAME.format(scene.number)}.jpg", scene.number + 1
    return {
        "image_file": file,
        "image_id": number,
        "image_size": list(scene.size),
        "image_info": {"id": number, "file_name": file, "height": scene.size[0], "width": scene.size[1]},
        "annotations": kept,
    }


LAYOUTS = (
    Layout("coco_int", "COCO interactive", tuple(SPLITS), open_interactive, _write_interactive, PROMPT_KINDS),
    Layout("coco_vgd", "COCO visual grounding", tuple(SPLITS), open_vgd, _write_vgd, PROMPT_KINDS),
)
