"""VIPSeg, panoptic: things told apart over time, stuff, and pixels of no segment, which do not count.

    panoptic_gt_VIPSeg_val.json
    images/VIDEO/FRAME.jpg
    panomasksRGB/VIDEO/FRAME.png    segment ids as R + 256 G + 65536 B

Source of names: wanghao9610/X2SAM@5b0b106 x2sam/x2sam/dataset/vid_genseg_dataset.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from x2roto.data.annotations import (
    Size,
    check_files,
    condition_of,
    field,
    image_size,
    indexed,
    known_category,
    read_categories,
    read_json,
    read_panoptic,
    records,
    write_json,
    write_panoptic,
)
from x2roto.data.listed import Listed
from x2roto.data.names import chosen, class_targets, in_order
from x2roto.data.sample import Category, FrameTruth, PromptKind, Sample
from x2roto.data.truth import Marked, frame_truth
from x2roto.data.video.clips import Clip, as_png
from x2roto.data.video.miniature import Scene, scenes, write_frames
from x2roto.errors import InputError

SPLITS = {split: f"panoptic_gt_VIPSeg_{split}.json" for split in ("val", "train")}


@dataclass(frozen=True, slots=True)
class Segment:
    """A segment of a frame. `id`: its value in the picture. `condition`: the place of its category."""

    id: int
    condition: int
    crowd: bool


@dataclass(frozen=True, slots=True)
class PanopticVideo:
    """A video and the segments of each of its frames."""

    clip: Clip
    size: Size
    segments: tuple[tuple[Segment, ...], ...]


def open_vipseg(root: Path, split: str, prompt: PromptKind | None) -> Listed:
    """One request per video, for all classes. Raises InputError."""
    path = root / chosen(split, SPLITS, "VIPSeg")
    categories, videos = read_videos(path, root / "images")
    check_files(root / "images", (file for video in videos for file in video.clip.files))
    check_files(root / "panomasksRGB", (file for video in videos for file in as_png(video.clip.files)))
    make = partial(_sample, masks=root / "panomasksRGB", categories=categories)
    return Listed("vipseg", categories, videos, make)


def read_videos(path: Path, pictures: Path) -> tuple[tuple[Category, ...], tuple[PanopticVideo, ...]]:
    """The classes and videos of a panoptic VIPSeg table, by name. Raises InputError."""
    table = read_json(path)
    categories = read_categories(table, path)
    annotations = indexed(records(table, "annotations", path), "video_id", path)
    videos = indexed(records(table, "videos", path), "video_id", path)
    return categories, tuple(
        _video(
            str(name), videos[name], _annotations(name, annotations, path), condition_of(categories), pictures, path
        )
        for name in in_order(videos, path, "video ids")
    )


def _annotations(name: Any, annotations: Mapping[Any, Mapping[str, Any]], path: Path) -> list[dict[str, Any]]:
    if name not in annotations:
        raise InputError(f"{path}: video {name} has no annotations: the file is damaged", path)
    return records(annotations[name], "annotations", path)


def _video(
    name: str,
    record: Mapping[str, Any],
    annotations: list[dict[str, Any]],
    conditions: Mapping[int, int],
    pictures: Path,
    path: Path,
) -> PanopticVideo:
    images = indexed(records(record, "images", path), "id", path)
    segments = indexed(annotations, "image_id", path)
    if not images or set(images) != set(segments):
        raise InputError(f"{path}: video {name} has other frames than its annotations: the file is damaged", path)
    sizes = {image_size(images[image], path, f"frame {image} of {name}") for image in images}
    if len(sizes) > 1:
        raise InputError(f"{path}: the frames of video {name} differ in size: the file is damaged", path)
    order = in_order(images, path, f"frame ids of {name}")
    files = tuple(f"{name}/{field(images[image], 'file_name', str, path, f'frame {image}')}" for image in order)
    return PanopticVideo(
        Clip(name, pictures, files),
        sizes.pop(),
        tuple(tuple(_segments(segments[image], conditions, path, f"{name}/{image}")) for image in order),
    )


def _segments(frame: Mapping[str, Any], conditions: Mapping[int, int], path: Path, what: str) -> Iterator[Segment]:
    for record in records(frame, "segments_info", path):
        number = field(record, "id", int, path, f"a segment of {what}")
        condition = known_category(record, conditions, path, f"segment {number} of {what}")
        yield Segment(number, condition, bool(record.get("iscrowd", 0)))


def _sample(video: PanopticVideo, masks: Path, categories: tuple[Category, ...]) -> Sample:
    truth = partial(_truth, video=video, masks=masks, categories=categories)
    name = video.clip.name
    return video.clip.sample(name, "genseg", class_targets(categories), truth, video.size, categories=categories)


def _truth(frame: int, video: PanopticVideo, masks: Path, categories: tuple[Category, ...]) -> FrameTruth:
    ids = read_panoptic(masks / as_png(video.clip.files)[frame], video.size)
    segments = video.segments[frame]
    marked = [
        Marked(ids == one.id, one.condition, _identity(one, categories[one.condition]), one.crowd) for one in segments
    ]
    return frame_truth(marked, video.size, ignored=~np.isin(ids, [one.id for one in segments]))


def _identity(segment: Segment, category: Category) -> int:
    return segment.id if category.thing else category.id


# ---- miniature --------------------------------------------------------------------------------------------

# As in the public file, ids do not start at zero and stuff has some too.
CATEGORIES = (
    {"id": 0, "name": "sky", "isthing": 0},
    {"id": 3, "name": "grass", "isthing": 0},
    {"id": 61, "name": "person", "isthing": 1},
    {"id": 80, "name": "ball_net", "isthing": 1},
)
FIRST_OBJECT = 1000
VOID_COLUMNS = 2


def write_vipseg(root: Path, seed: int) -> None:
    """Two videos of three things before sky and grass, with a strip of unlabelled pixels on the left."""
    made = scenes(seed)
    for scene in made:
        write_frames(scene, root / "images" / scene.name)
        for frame, name in enumerate(scene.names):
            write_panoptic(panoptic_ids(scene, frame), root / "panomasksRGB" / scene.name / f"{name}.png")
    write_json(panoptic_table(made), root / SPLITS["val"])


def panoptic_ids(scene: Scene, frame: int) -> NDArray[np.int64]:
    """Segment ids of a drawn frame: things from 1000 on, sky 1, grass 4, nothing 0."""
    labels = scene.labels(frame).astype(np.int64)
    ids = np.where(labels > 0, labels + FIRST_OBJECT, np.where(scene.sky, 1, 4))
    ids[:, :VOID_COLUMNS] = 0
    return ids


def panoptic_table(made: tuple[Scene, ...]) -> dict[str, Any]:
    """The table of drawn videos."""
    return {
        "categories": CATEGORIES,
        "videos": [
            {"video_id": scene.name, "images": [_image(scene, name) for name in scene.names]} for scene in made
        ],
        "annotations": [
            {"video_id": scene.name, "annotations": [_annotation(scene, frame) for frame in range(len(scene.names))]}
            for scene in made
        ],
    }


def _image(scene: Scene, name: str) -> dict[str, Any]:
    height, width = scene.size
    return {"id": name, "file_name": f"{name}.jpg", "height": height, "width": width}


def _annotation(scene: Scene, frame: int) -> dict[str, Any]:
    ids = panoptic_ids(scene, frame)
    classes = {1: 0, 4: 3} | {FIRST_OBJECT + 1 + index: (61, 80)[kind] for index, kind in enumerate(scene.kinds)}
    segments = [
        {"id": int(number), "category_id": classes[int(number)], "iscrowd": 0, "area": int((ids == number).sum())}
        for number in np.unique(ids[ids > 0])
    ]
    return {"image_id": scene.names[frame], "file_name": f"{scene.names[frame]}.png", "segments_info": segments}
