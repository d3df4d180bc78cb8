"""All classes of a data set at once: the panoptic, semantic and instance layouts of COCO and ADE20K.

A COCO table lists pictures and classes; segments are in panoptic PNGs, classes of pixels in label PNGs, objects in
the table itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from x2roto.data.annotations import (
    check_files,
    condition_of,
    decode_mask,
    field,
    indexed,
    known_category,
    read_categories,
    read_json,
    read_labels,
    read_panoptic,
    records,
)
from x2roto.data.image.pictures import Picture, by_picture, called, check_pictures, picture_of, read_pictures, some
from x2roto.data.listed import Listed
from x2roto.data.names import spoken
from x2roto.data.sample import Category, FrameTruth, Sample
from x2roto.data.truth import Marked, frame_truth
from x2roto.errors import InputError

# Pixels of label maps that belong to no class.
VOID_LABEL = 255


@dataclass(frozen=True, slots=True)
class ClassFiles:
    """Where one split lies. `table`: the JSON. `pictures`: folder of the photographs. `maps`: folder of the PNGs
    that go with them by name; None where the table itself holds the masks. `task`: "genseg" or "ovseg".
    """

    name: str
    task: str
    table: Path
    pictures: Path
    maps: Path | None = None


# ---- panoptic ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Segment:
    """One entry of `segments_info`. `condition`: place of its class."""

    id: int
    condition: int
    crowd: bool


@dataclass(frozen=True, slots=True)
class Segmented:
    picture: Picture
    map: Path
    segments: tuple[Segment, ...]


def open_panoptic(files: ClassFiles) -> Listed:
    """All segments of each picture: things one by one, stuff by class; id 0 is void. Raises InputError."""
    table = read_json(files.table)
    categories = read_categories(table, files.table)
    pictures = read_pictures(table, files.table, files.pictures)
    items = list(_segmented(table, categories, pictures, files))
    check_pictures((item.picture for item in items), files.pictures)
    check_files(_maps(files), (item.map.name for item in items))
    make = partial(_panoptic_sample, task=files.task, categories=categories)
    return Listed(files.name, categories, some(items, files.table), make)


def _segmented(table: Any, categories: Sequence[Category], pictures: Mapping[Any, Picture], files: ClassFiles) -> Any:
    path, conditions, maps = files.table, condition_of(categories), _maps(files)
    annotations = indexed(records(table, "annotations", path), "image_id", path)
    for number, picture in pictures.items():
        if number not in annotations:
            raise InputError(f"{path}: image {number} has no annotation: the file is damaged", path)
        segments = _segments(annotations[number], conditions, path)
        yield Segmented(picture, maps / field(annotations[number], "file_name", str, path), segments)
    for annotation in annotations.values():
        picture_of(annotation, pictures, path)


def _segments(annotation: Any, conditions: Mapping[int, int], path: Path) -> tuple[Segment, ...]:
    what = f"a segment of image {annotation['image_id']}"
    return tuple(
        Segment(
            field(each, "id", int, path, what),
            known_category(each, conditions, path, what),
            bool(each.get("iscrowd", 0)),
        )
        for each in records(annotation, "segments_info", path)
    )


def _panoptic_sample(item: Segmented, task: str, categories: tuple[Category, ...]) -> Sample:
    truth = partial(_panoptic_truth, item, categories)
    return item.picture.sample(task, targets_of(categories), truth, categories=categories)


def _panoptic_truth(item: Segmented, categories: Sequence[Category]) -> FrameTruth:
    ids = read_panoptic(item.map, item.picture.size)
    _check_segments(np.unique(ids), item)
    marked = [
        Marked(ids == each.id, each.condition, _identity(each, categories[each.condition]), each.crowd)
        for each in item.segments
    ]
    return frame_truth(marked, item.picture.size, ids == 0)


def _identity(segment: Segment, category: Category) -> int:
    return segment.id if category.thing else category.id


def _check_segments(seen: Any, item: Segmented) -> None:
    """Raises InputError where the PNG shows other segments than the table lists."""
    odd = {int(each) for each in seen if each} ^ {segment.id for segment in item.segments}
    if odd:
        raise InputError(
            f"{item.map}: segment {min(odd)} is only in the picture or only in the table: the two are not of the "
            "same data set",
            item.map,
        )


# ---- semantic ---------------------------------------------------------------------------------------------


def open_semantic(files: ClassFiles) -> Listed:
    """The class of each pixel: label i is the i-th class by id, 255 is void. Raises InputError."""
    table = read_json(files.table)
    categories = read_categories(table, files.table)
    items = list(read_pictures(table, files.table, files.pictures).values())
    check_pictures(items, files.pictures)
    check_files(_maps(files), (picture.png for picture in items))
    make = partial(_semantic_sample, maps=_maps(files), task=files.task, categories=categories)
    return Listed(files.name, categories, some(items, files.table), make)


def _semantic_sample(picture: Picture, maps: Path, task: str, categories: tuple[Category, ...]) -> Sample:
    truth = partial(_semantic_truth, picture, maps / picture.png, categories)
    return picture.sample(task, targets_of(categories), truth, categories=categories)


def _semantic_truth(picture: Picture, path: Path, categories: Sequence[Category]) -> FrameTruth:
    labels = read_labels(path, picture.size)
    seen = [int(label) for label in np.unique(labels) if label != VOID_LABEL]
    if seen and max(seen) >= len(categories):
        raise InputError(f"{path}: label {max(seen)} of a data set of {len(categories)} classes: file damaged", path)
    marked = [Marked(labels == label, label, categories[label].id) for label in seen]
    return frame_truth(marked, picture.size, labels == VOID_LABEL)


# ---- instances --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Annotated:
    picture: Picture
    annotations: Sequence[Mapping[str, Any]]


def open_instances(files: ClassFiles) -> Listed:
    """Every object of each picture, pictures without any too; crowds are marked. Raises InputError."""
    table = read_json(files.table)
    categories = read_categories(table, files.table)
    pictures = read_pictures(table, files.table, files.pictures)
    found = by_picture(records(table, "annotations", files.table), pictures, files.table)
    conditions = condition_of(categories)
    for annotation in chain.from_iterable(found.values()):
        field(annotation, "segmentation", (list, dict), files.table, called(annotation))
        known_category(annotation, conditions, files.table, called(annotation))
    check_pictures(pictures.values(), files.pictures)
    items = [Annotated(pictures[number], its_own) for number, its_own in found.items()]
    make = partial(_instance_sample, path=files.table, task=files.task, categories=categories)
    return Listed(files.name, categories, some(items, files.table), make)


def _instance_sample(item: Annotated, path: Path, task: str, categories: tuple[Category, ...]) -> Sample:
    truth = partial(instance_truth, item, path, condition_of(categories))
    return item.picture.sample(task, targets_of(categories), truth, categories=categories)


def instance_truth(item: Annotated, path: Path, conditions: Mapping[int, int]) -> FrameTruth:
    """The objects of a picture whose class has a condition. Raises InputError for a mask that cannot be used."""
    size = item.picture.size
    marked = [
        Marked(
            decode_mask(each["segmentation"], size, path, called(each)),
            conditions[each["category_id"]],
            field(each, "id", int, path, called(each)),
            bool(each.get("iscrowd", 0)),
        )
        for each in item.annotations
        if each["category_id"] in conditions
    ]
    return frame_truth(marked, size)


# ---- names ------------------------------------------------------------------------------------------------


def targets_of(categories: Sequence[Category]) -> tuple[str, ...]:
    """The classes as training said them: COCO's "-merged" and "-stuff" dropped, then as for the other data sets.

    Source: wanghao9610/X2SAM@5b0b106 x2sam/x2sam/dataset/img_genseg_dataset.py.
    """
    return tuple(spoken(category.name.replace("-merged", "").replace("-stuff", "")) for category in categories)


def _maps(files: ClassFiles) -> Path:
    assert files.maps is not None, "panoptic and semantic layouts have a folder of maps"
    return files.maps
