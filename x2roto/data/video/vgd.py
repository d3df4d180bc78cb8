"""V-VGD: classes shown by regions, on YouTube-VIS 2019 and VIPSeg, with the prompts of `x2roto.data.vvgd`.

    ytvis_vgd:  annotations/vid_vgdseg_yt19_val.json    ytvis19/valid/{valid.json, JPEGImages/VIDEO/FRAME.jpg}
    vipseg_vgd: annotations/vid_vgdseg_vipseg_val.json  vipseg_720p/{panoptic_gt_VIPSeg_val.json, images/VIDEO/...}

A region stands for a class: every object of the class on every frame is the answer, and the region is the prompt of
its first object there. Split "val": whole videos; classes are shown on the first frame they are seen on, so a video
makes a request for each frame on which classes come new. Split "chunks": the reference's eight frames at a time,
frames without objects dropped, what the first of them shows being all there is. Source: wanghao9610/X2SAM@5b0b106
x2sam/x2sam/dataset/vid_vgdseg_dataset.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from x2roto.data.annotations import (
    Size,
    check_files,
    condition_of,
    decode_mask,
    field,
    known_category,
    read_categories,
    read_json,
)
from x2roto.data.listed import Listed
from x2roto.data.names import chosen
from x2roto.data.sample import PROMPT_KINDS, Category, FrameTruth, PromptKind, Sample
from x2roto.data.truth import Marked, Mask, frame_truth
from x2roto.data.video.clips import Clip
from x2roto.data.video.vipseg import write_vipseg
from x2roto.data.video.ytvis import write_ytvis19
from x2roto.data.vvgd import FRAMES_PER_ID, build, listed_size, write
from x2roto.errors import InputError

CHUNK = 8


@dataclass(frozen=True, slots=True)
class Source:
    """Where the parts of a set lie, by split: prompts, the table with the classes, and the pictures."""

    name: str
    prompts: str
    classes: str
    pictures: str


YT19 = {
    split: Source(
        "yt19_vgd",
        f"annotations/vid_vgdseg_yt19_{split}.json",
        f"ytvis19/{part}/{part}.json",
        f"ytvis19/{part}/JPEGImages",
    )
    for split, part in (("val", "valid"), ("train", "train"))
}
VIPSEG = {
    split: Source(
        "vipseg_vgd",
        f"annotations/vid_vgdseg_vipseg_{split}.json",
        f"vipseg_720p/panoptic_gt_VIPSeg_{split}.json",
        "vipseg_720p/images",
    )
    for split in ("val", "train")
}


@dataclass(frozen=True, slots=True)
class Shown:
    """An object on a frame. `category`: its place. `prompts`: RLE by kind, None where the file has none."""

    identity: int
    category: int
    crowd: bool
    mask: Any
    prompts: Mapping[PromptKind, Any]


@dataclass(frozen=True, slots=True)
class Request:
    """Frames of a video and the classes to find there, each of which is on the frame of that index."""

    clip: Clip
    key: str
    size: Size
    objects: tuple[tuple[Shown, ...], ...]
    prompt_frame: int
    categories: tuple[int, ...]


def open_yt19_vgd(root: Path, split: str, prompt: PromptKind | None) -> Listed:
    """Requests on YouTube-VIS 2019. Raises InputError."""
    return _opened(root, split, YT19, prompt or "point")


def open_vipseg_vgd(root: Path, split: str, prompt: PromptKind | None) -> Listed:
    """Requests on VIPSeg, for its things. Raises InputError."""
    return _opened(root, split, VIPSEG, prompt or "point")


def _opened(root: Path, split: str, sources: Mapping[str, Source], prompt: PromptKind) -> Listed:
    source = chosen(split, {**sources, "chunks": sources["val"]}, sources["val"].name)
    path = root / source.prompts
    categories = read_categories(read_json(root / source.classes), root / source.classes)
    entries = read_json(path)
    if not isinstance(entries, list):
        raise InputError(f"{path} is not a list of videos: make it with `x2roto vvgd build`", path)
    videos = [_video(entry, root / source.pictures, categories, path) for entry in entries]
    check_files(root / source.pictures, (file for video in videos for file in video.clip.files))
    requested = _chunks if split == "chunks" else _firsts
    items = tuple(request for video in videos for request in requested(video))
    make = partial(_sample, path=path, categories=categories, prompt=prompt)
    return Listed(source.name, categories, items, make)


def _video(entry: Any, pictures: Path, categories: Sequence[Category], path: Path) -> Request:
    """The whole video as read, before it is decided what is asked."""
    name = str(field(entry, "video_id", (int, str), path))
    files = field(entry, "image_files", list, path, f"video {name}")
    frames = field(entry, "annotations", list, path, f"video {name}")
    sizes = {
        listed_size(size, path, f"video {name}") for size in field(entry, "image_sizes", list, path, f"video {name}")
    }
    if len(sizes) != 1 or len(files) != len(frames) or not all(isinstance(frame, list) for frame in frames):
        raise InputError(
            f"{path}: video {name} has frames, sizes and annotations that disagree: build it again", path
        )
    places = condition_of(categories)
    objects = tuple(tuple(_shown(record, places, path, name) for record in frame) for frame in frames)
    clip = Clip(str(files[0]).rpartition("/")[0] or name, pictures, tuple(str(file) for file in files))
    return Request(clip, clip.name, sizes.pop(), objects, 0, ())


def _shown(record: Any, places: Mapping[int, int], path: Path, name: str) -> Shown:
    what = f"an object of video {name}"
    prompts = field(record, "visual_prompts", dict, path, what)
    return Shown(
        field(record, "id", int, path, what) // FRAMES_PER_ID,
        known_category(record, places, path, what),
        bool(record.get("iscrowd", 0)),
        field(record, "segmentation", dict, path, what),
        {kind: prompts.get(f"{kind}_visual_prompt") for kind in PROMPT_KINDS},
    )


# ---- what is asked ----------------------------------------------------------------------------------------


def _firsts(video: Request) -> Iterator[Request]:
    """A request for each frame on which classes are seen for the first time."""
    known: set[int] = set()
    for frame, objects in enumerate(video.objects):
        new = tuple(sorted({each.category for each in objects} - known))
        if new:
            known.update(new)
            yield _request(video, range(len(video.clip)), f"{video.key}/{video.clip.names[frame]}", frame, new)


def _chunks(video: Request) -> Iterator[Request]:
    """The reference's requests: runs of eight frames, those with objects only, if at least two are left."""
    for start in range(0, len(video.clip), CHUNK):
        run = range(start, min(start + CHUNK, len(video.clip)))
        frames = [frame for frame in run if video.objects[frame]]
        if len(run) > 1 and len(frames) > 1:
            shown = tuple(sorted({each.category for each in video.objects[frames[0]]}))
            yield _request(video, frames, f"{video.key}/{start // CHUNK}", 0, shown)


def _request(
    video: Request, frames: Sequence[int], key: str, prompt_frame: int, categories: tuple[int, ...]
) -> Request:
    objects = tuple(tuple(each for each in video.objects[frame] if each.category in categories) for frame in frames)
    clip = Clip(video.clip.name, video.clip.folder, tuple(video.clip.files[frame] for frame in frames))
    return Request(clip, key, video.size, objects, prompt_frame, categories)


def _sample(request: Request, path: Path, categories: tuple[Category, ...], prompt: PromptKind) -> Sample:
    asked = tuple(categories[place] for place in request.categories)
    return request.clip.sample(
        request.key,
        "vgdseg",
        [_region(request, place, prompt, path) for place in request.categories],
        partial(_truth, request=request, path=path),
        request.size,
        categories=asked,
        prompt=prompt,
        prompt_frame=request.prompt_frame,
    )


def _region(request: Request, category: int, prompt: PromptKind, path: Path) -> Mask:
    """The prompt of the first object of a class that has one; its mask where none has, as for a few pixels."""
    objects = [each for each in request.objects[request.prompt_frame] if each.category == category]
    for each in objects:
        drawn = decode_mask(each.prompts[prompt], request.size, path, f"the {prompt} in {request.key}")
        if drawn.any():
            return drawn
    return decode_mask(objects[0].mask, request.size, path, f"object {objects[0].identity} in {request.key}")


def _truth(frame: int, request: Request, path: Path) -> FrameTruth:
    what = f"{request.clip.files[frame]}"
    return frame_truth(
        (
            Marked(
                decode_mask(each.mask, request.size, path, f"object {each.identity} of {what}"),
                request.categories.index(each.category),
                each.identity,
                each.crowd,
            )
            for each in request.objects[frame]
        ),
        request.size,
    )


# ---- miniatures -------------------------------------------------------------------------------------------


def write_yt19_vgd(root: Path, seed: int) -> None:
    """The miniature of YouTube-VIS 2019 and prompts built for it."""
    source = YT19["val"]
    write_ytvis19(root / "ytvis19", seed)
    write(build("ytvis19", [root / source.classes], seed), root / source.prompts)


def write_vipseg_vgd(root: Path, seed: int) -> None:
    """The miniature of VIPSeg and prompts built for it."""
    source = VIPSEG["val"]
    write_vipseg(root / "vipseg_720p", seed)
    masks = root / "vipseg_720p" / "panomasksRGB"
    write(build("vipseg", [root / source.classes, masks], seed), root / source.prompts)
