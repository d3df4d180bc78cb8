"""YouTube-VIS 2019 and 2021: objects of 40 classes with a mask on every frame they are seen on.

    ytvis19: valid/valid.json  valid/JPEGImages/VIDEO/FRAME.jpg      (`train` alike)
    ytvis21: valid/gt.json     valid/JPEGImages/VIDEO/FRAME.jpg

Source of names: wanghao9610/X2SAM@5b0b106 x2sam/x2sam/dataset/vid_genseg_dataset.py and its s3_train configuration.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from x2roto.data.annotations import (
    Size,
    check_files,
    condition_of,
    decode_mask,
    field,
    image_size,
    indexed,
    known_category,
    read_categories,
    read_json,
    records,
    write_json,
)
from x2roto.data.listed import Listed
from x2roto.data.names import chosen, class_targets, in_order
from x2roto.data.sample import Category, FrameTruth, PromptKind, Sample
from x2roto.data.truth import Marked, frame_truth
from x2roto.data.video.clips import Clip
from x2roto.data.video.miniature import Scene, runs_of, scenes, write_frames
from x2roto.errors import InputError

SPLITS_19 = {"val": "valid/valid.json", "train": "train/train.json"}
SPLITS_21 = {"val": "valid/gt.json"}


@dataclass(frozen=True, slots=True)
class Track:
    """An object of a video. `condition`: the place of its category. `masks`: RLE or None, one per frame."""

    id: int
    condition: int
    crowd: bool
    masks: Sequence[Any]


@dataclass(frozen=True, slots=True)
class TrackedVideo:
    """A video and its objects. `id`: its number in the table."""

    id: int
    clip: Clip
    size: Size
    tracks: tuple[Track, ...]


def open_ytvis19(root: Path, split: str, prompt: PromptKind | None) -> Listed:
    """One request per video, for all classes. Raises InputError."""
    return _opened("ytvis19", "genseg", root / chosen(split, SPLITS_19, "YouTube-VIS 2019"))


def open_ytvis21(root: Path, split: str, prompt: PromptKind | None) -> Listed:
    """One request per video, for all classes, as open vocabulary. Raises InputError."""
    return _opened("ytvis21", "ovseg", root / chosen(split, SPLITS_21, "YouTube-VIS 2021"))


def _opened(name: str, task: str, path: Path) -> Listed:
    pictures = path.parent / "JPEGImages"
    categories, videos = read_videos(path, pictures)
    check_files(pictures, (file for video in videos for file in video.clip.files))
    return Listed(name, categories, videos, partial(_sample, task=task, path=path, categories=categories))


def read_videos(path: Path, pictures: Path) -> tuple[tuple[Category, ...], tuple[TrackedVideo, ...]]:
    """The classes and videos of a YouTube-VIS table, by number. Raises InputError."""
    table = read_json(path)
    categories = read_categories(table, path)
    videos = indexed(records(table, "videos", path), "id", path)
    annotations = indexed(records(table, "annotations", path), "id", path)
    tracks: dict[Any, list[Track]] = {number: [] for number in videos}
    conditions = condition_of(categories)
    for number, annotation in annotations.items():
        what = f"annotation {number}"
        video = field(annotation, "video_id", int, path, what)
        if video not in tracks:
            raise InputError(f"{path}: {what} is of video {video}, which 'videos' does not list: file damaged", path)
        tracks[video].append(_track(annotation, videos[video], conditions, path, what))
    return categories, tuple(
        _video(videos[number], tuple(tracks[number]), pictures, path)
        for number in in_order(videos, path, "video ids")
    )


def _track(
    annotation: Mapping[str, Any], video: Mapping[str, Any], conditions: Mapping[int, int], path: Path, what: str
) -> Track:
    masks = field(annotation, "segmentations", list, path, what)
    frames = field(video, "file_names", list, path, "a video")
    if len(masks) != len(frames):
        raise InputError(f"{path}: {what} has {len(masks)} masks for {len(frames)} frames: the file is damaged", path)
    return Track(
        field(annotation, "id", int, path, what),
        known_category(annotation, conditions, path, what),
        bool(annotation.get("iscrowd", 0)),
        masks,
    )


def _video(record: Mapping[str, Any], tracks: tuple[Track, ...], pictures: Path, path: Path) -> TrackedVideo:
    number = field(record, "id", int, path, "a video")
    files = tuple(str(file) for file in field(record, "file_names", list, path, f"video {number}"))
    if not files:
        raise InputError(f"{path}: video {number} has no frames: the file is damaged", path)
    clip = Clip(str(PurePosixPath(files[0]).parent), pictures, files)
    return TrackedVideo(number, clip, image_size(record, path, f"video {number}"), tracks)


def _sample(video: TrackedVideo, task: str, path: Path, categories: tuple[Category, ...]) -> Sample:
    truth = partial(_truth, video=video, path=path)
    return video.clip.sample(
        video.clip.name, task, class_targets(categories), truth, video.size, categories=categories
    )


def _truth(frame: int, video: TrackedVideo, path: Path) -> FrameTruth:
    return frame_truth(
        (
            Marked(
                decode_mask(track.masks[frame], video.size, path, f"annotation {track.id}, frame {frame}"),
                track.condition,
                track.id,
                track.crowd,
            )
            for track in video.tracks
        ),
        video.size,
    )


# ---- miniature --------------------------------------------------------------------------------------------

CATEGORIES = ({"id": 1, "name": "person"}, {"id": 2, "name": "giant_panda"}, {"id": 3, "name": "lizard"})


def write_ytvis19(root: Path, seed: int) -> None:
    """Two videos of three objects in two of three classes."""
    write_table(root / SPLITS_19["val"], seed)


def write_ytvis21(root: Path, seed: int) -> None:
    """Two videos of three objects in two of three classes."""
    write_table(root / SPLITS_21["val"], seed)


def write_table(path: Path, seed: int) -> None:
    """A table at `path` and its pictures in `JPEGImages` beside it."""
    made = scenes(seed, step=5)
    for scene in made:
        write_frames(scene, path.parent / "JPEGImages" / scene.name)
    videos = [_video_record(number, scene) for number, scene in enumerate(made, 1)]
    tracks = [
        _track_record(10 * number + thing, number, scene, thing)
        for number, scene in enumerate(made, 1)
        for thing in range(len(scene.masks))
    ]
    write_json({"categories": CATEGORIES, "videos": videos, "annotations": tracks}, path)


def _video_record(number: int, scene: Scene) -> dict[str, Any]:
    height, width = scene.size
    files = [f"{scene.name}/{name}.jpg" for name in scene.names]
    return {"id": number, "file_names": files, "height": height, "width": width, "length": len(files)}


def _track_record(number: int, video: int, scene: Scene, thing: int) -> dict[str, Any]:
    height, width = scene.size
    return {
        "id": number,
        "video_id": video,
        "category_id": 1 + scene.kinds[thing],
        "iscrowd": 0,
        "segmentations": runs_of(scene, thing),
        "areas": [int(mask.sum()) or None for mask in scene.masks[thing]],
        "height": height,
        "width": width,
    }
