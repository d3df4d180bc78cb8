"""The V-VGD annotations: point, scribble, box and mask prompts for every object on every frame it is seen on.

Made from YouTube-VIS 2019 or VIPSeg, thing classes only. A file is a list of videos:

    {"video_id", "image_files": [T], "image_sizes": [T x (height, width)], "video_info",
     "annotations": [T x [{"id", "segmentation", "bbox", "bbox_mode", "area", "iscrowd", "category_id",
                           "visual_prompts": {"point_visual_prompt", "scribble_visual_prompt", ...}}]]}

with masks and prompts as RLE. `id` is 100 times the number of the object plus the frame. Source:
wanghao9610/X2SAM@5b0b106 x2sam/x2sam/dataset/vid_vgdseg_dataset.py. Differences on purpose: frames without objects
stay, with an empty list, so that a file can serve whole videos; boxes are those of the masks, not of the picture; an
empty prompt, as the reference draws for objects of a few pixels, is the mask itself; draws depend on the seed alone.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from x2roto.data.annotations import (
    Size,
    checked_size,
    decode_mask,
    encode_mask,
    field,
    list_folder,
    picture_size,
    read_json,
    read_panoptic,
)
from x2roto.data.sample import PROMPT_KINDS, Category
from x2roto.data.vprompt import visual_prompt
from x2roto.errors import InputError, OutputError
from x2roto.export.atomic import committed

if TYPE_CHECKING:
    from x2roto.data.video.vipseg import PanopticVideo
    from x2roto.data.video.ytvis import TrackedVideo

Mask = NDArray[np.bool_]

FRAMES_PER_ID = 100
XYXY_ABSOLUTE = 0  # detectron2's number for boxes of two corners


@dataclass(frozen=True, slots=True)
class SourceVideo:
    """A video to make prompts for. `objects`: number, category id and mask (H, W) of the things on a frame."""

    id: int | str
    files: tuple[str, ...]
    size: Size
    objects: Callable[[int], Iterable[tuple[int, int, Mask]]]


# ---- building ---------------------------------------------------------------------------------------------


def build(layout: str, sources: Sequence[Path], seed: int) -> Iterator[dict[str, Any]]:
    """The entries of all videos that show a thing, one at a time; equal for equal seeds.

    `layout`: a key of `LAYOUTS`. `sources`: for `ytvis19` its table, for `vipseg` its table and the folder of its
    panoptic pictures. Raises InputError.
    """
    for video in LAYOUTS[layout](*_fitting(layout, sources)):
        entry = _entry(video, seed)
        if any(entry["annotations"]):
            yield entry


def _fitting(layout: str, sources: Sequence[Path]) -> Sequence[Path]:
    wanted = SOURCES[layout]
    if len(sources) != len(wanted):
        raise InputError(f"{layout} is built from {' and '.join(wanted)}: give {len(wanted)}, not {len(sources)}")
    return sources


def write(entries: Iterable[Mapping[str, Any]], path: Path) -> int:
    """Write a file, whole or not at all, and give the number of its videos. Raises OutputError."""
    try:
        with committed(path) as temporary, temporary.open("w", encoding="ascii") as file:
            return _write_list(entries, file)
    except OutputError as error:
        # `committed` takes every OSError for its own, and an InputError is one.
        if isinstance(error.__cause__, InputError):
            raise error.__cause__ from None
        raise


def _write_list(entries: Iterable[Mapping[str, Any]], file: IO[str]) -> int:
    """A JSON list with an entry per line, and how many there were."""
    count = 0
    for entry in entries:
        file.write(",\n" if count else "[\n")
        file.write(json.dumps(entry, separators=(",", ":")))
        count += 1
    file.write("\n]\n" if count else "[]\n")
    return count


def _entry(video: SourceVideo, seed: int) -> dict[str, Any]:
    if len(video.files) > FRAMES_PER_ID:
        raise InputError(
            f"video {video.id} has more than {FRAMES_PER_ID} frames, which ids of this format cannot tell"
        )
    return {
        "video_id": video.id,
        "image_files": list(video.files),
        "image_sizes": [list(video.size)] * len(video.files),
        "annotations": [
            [_record(video.id, frame, *found, seed) for found in video.objects(frame)]
            for frame in range(len(video.files))
        ],
        "video_info": {
            "video_id": video.id,
            "image_files": list(video.files),
            "height": video.size[0],
            "width": video.size[1],
        },
    }


def _record(video: int | str, frame: int, number: int, category: int, mask: Mask, seed: int) -> dict[str, Any]:
    rng = np.random.default_rng((seed, zlib.crc32(str(video).encode()), number, frame))
    prompts = {}
    for kind in PROMPT_KINDS:
        drawn = visual_prompt(mask, kind, rng, reference=True)
        prompts[f"{kind}_visual_prompt"] = encode_mask(drawn if drawn.any() else mask)
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return {
        "id": number * FRAMES_PER_ID + frame,
        "segmentation": encode_mask(mask),
        "bbox": [float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)],
        "bbox_mode": XYXY_ABSOLUTE,
        "area": int(mask.sum()),
        "iscrowd": 0,
        "category_id": category,
        "visual_prompts": prompts,
    }


# ---- the two sources --------------------------------------------------------------------------------------
# The readers use this module's format, so they are imported when it is there.


def _ytvis_videos(path: Path) -> Iterator[SourceVideo]:
    from x2roto.data.video.ytvis import read_videos

    categories, videos = read_videos(path, path.parent)
    for video in videos:
        objects = partial(_ytvis_objects, video=video, categories=categories, path=path)
        yield SourceVideo(video.id, video.clip.files, video.size, objects)


def _ytvis_objects(
    frame: int, video: TrackedVideo, categories: Sequence[Category], path: Path
) -> Iterator[tuple[int, int, Mask]]:
    for track in video.tracks:
        mask = decode_mask(track.masks[frame], video.size, path, f"annotation {track.id}, frame {frame}")
        if mask.any() and not track.crowd and categories[track.condition].thing:
            yield track.id, categories[track.condition].id, mask


def _vipseg_videos(path: Path, masks: Path) -> Iterator[SourceVideo]:
    from x2roto.data.video.vipseg import read_videos

    categories, videos = read_videos(path, masks)
    for video in videos:
        objects = partial(_vipseg_objects, video=video, categories=categories, masks=masks)
        yield SourceVideo(video.clip.name, video.clip.files, video.size, objects)


def _vipseg_objects(
    frame: int, video: PanopticVideo, categories: Sequence[Category], masks: Path
) -> Iterator[tuple[int, int, Mask]]:
    ids = read_panoptic(masks / PurePosixPath(video.clip.files[frame]).with_suffix(".png"), video.size)
    for segment in video.segments[frame]:
        mask = np.asarray(ids == segment.id)
        if mask.any() and not segment.crowd and categories[segment.condition].thing:
            yield segment.id, categories[segment.condition].id, mask


LAYOUTS: Mapping[str, Callable[..., Iterator[SourceVideo]]] = {"ytvis19": _ytvis_videos, "vipseg": _vipseg_videos}
SOURCES: Mapping[str, tuple[str, ...]] = {
    "ytvis19": ("its valid.json",),
    "vipseg": ("its panoptic_gt_VIPSeg_val.json", "its folder panomasksRGB"),
}


# ---- checking ---------------------------------------------------------------------------------------------


def check(path: Path, pictures: Path) -> Iterator[str]:
    """What is wrong with a file, one line each; nothing when it is sound. `pictures`: where `image_files` lie."""
    try:
        entries = read_json(path)
    except InputError as error:
        yield str(error)
        return
    if not isinstance(entries, list) or not entries:
        yield f"{path} is not a list of videos: make it with `x2roto vvgd build`"
        return
    known: set[Any] = set()
    for place, entry in enumerate(entries):
        try:
            name = field(entry, "video_id", (int, str), path, f"video number {place}")
            if name in known:
                yield f"{path}: video {name} is there twice"
            known.add(name)
            yield from _video_faults(entry, f"video {name}", path, pictures)
        except InputError as error:
            yield str(error)


def _video_faults(entry: Any, what: str, path: Path, pictures: Path) -> Iterator[str]:
    files = field(entry, "image_files", list, path, what)
    sizes = field(entry, "image_sizes", list, path, what)
    frames = field(entry, "annotations", list, path, what)
    field(entry, "video_info", dict, path, what)
    if not len(files) == len(sizes) == len(frames) or not all(isinstance(frame, list) for frame in frames):
        yield f"{path}: {what} has {len(files)} files, {len(sizes)} sizes and annotations for {len(frames)} frames"
        return
    if not any(frames):
        yield f"{path}: {what} shows no object"
    numbers: set[int] = set()
    for frame, (file, size, objects) in enumerate(zip(files, sizes, frames, strict=True)):
        where = f"{what}, frame {frame}"
        fitting = listed_size(size, path, where)
        yield from _picture_faults(pictures, str(file), fitting)
        for record in objects:
            yield from _object_faults(record, numbers, fitting, path, where)


def listed_size(value: Any, path: Path, what: str) -> Size:
    """An entry of `image_sizes`. Raises InputError when it is no size."""
    if not isinstance(value, list):
        raise InputError(f"{path}: {what} has the size {value!r}, not (height, width): the file is damaged", path)
    return checked_size(value, path, what)


def _picture_faults(pictures: Path, file: str, size: Size) -> Iterator[str]:
    path = pictures / file
    try:
        if path.name not in list_folder(path.parent):
            yield f"{path} is missing"
        elif picture_size(path) != size:
            yield f"{path} is not {size[1]}x{size[0]}, as its annotations are"
    except InputError as error:
        yield str(error)


def _object_faults(record: Any, numbers: set[int], size: Size, path: Path, where: str) -> Iterator[str]:
    try:
        number = field(record, "id", int, path, f"an object of {where}")
        what = f"object {number} of {where}"
        if number in numbers:
            yield f"{path}: {what} is there twice"
        numbers.add(number)
        for key, kind in (("category_id", int), ("iscrowd", int), ("bbox_mode", int), ("bbox", list)):
            field(record, key, kind, path, what)
        mask = decode_mask(field(record, "segmentation", dict, path, what), size, path, what)
        area = int(mask.sum())
        if not area or area != field(record, "area", int, path, what):
            yield f"{path}: {what} says {record['area']} pixels, its mask has {area}"
        yield from _prompt_faults(field(record, "visual_prompts", dict, path, what), mask, size, path, what)
    except InputError as error:
        yield str(error)


def _prompt_faults(prompts: Mapping[str, Any], mask: Mask, size: Size, path: Path, what: str) -> Iterator[str]:
    for kind in PROMPT_KINDS:
        key = f"{kind}_visual_prompt"
        try:
            drawn = decode_mask(field(prompts, key, dict, path, what), size, path, f"the {kind} prompt of {what}")
        except InputError as error:
            yield str(error)
            continue
        if not drawn.any():
            yield f"{path}: the {kind} of {what} is empty"
        elif kind == "point" and not (drawn & mask).any():
            yield f"{path}: the point of {what} is not on it"
