"""Grounded description of videos, V-GCG: captions whose phrases have masks. Three sets, one request per caption.

Video-GCG, words of a caption tagged by their places:
    instruction_data/test.json                             `train` alike
    SOURCE/val/VIDEO/FRAME.jpg, yt19/train/JPEGImages/VIDEO/FRAME.jpg

MeViS-GCG, "[phrase](object, object)", beside a `mevis` folder in that data set's own layout:
    valid_u/VIDEO.json                                     `train` alike
    ../mevis/valid_u/meta_expressions.json                 object -> mask
    ../mevis/valid_u/mask_dict.json                        of each mask: RLE or null per frame
    ../mevis/valid_u/JPEGImages/VIDEO/FRAME.jpg

VidSTG-GCG, captions alike:
    val_captions/VIDEO.json                                `train` alike
    val/VIDEO/frames/FRAME.jpg
    val/VIDEO/masks/OBJECT/FRAME.png                       black and white; none where the object is not seen

Source: wanghao9610/X2SAM@5b0b106 x2sam/x2sam/dataset/vid_gcgseg_dataset.py. There phrases of Video-GCG are numbered
in the order of the table, here in the order of the caption.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from x2roto.data.annotations import (
    Size,
    check_files,
    decode_mask,
    field,
    image_size,
    indexed,
    list_folder,
    read_json,
    read_labels,
    records,
    write_json,
    write_picture,
)
from x2roto.data.listed import Listed
from x2roto.data.names import chosen, whole_numbers
from x2roto.data.sample import FrameTruth, PromptKind, Sample
from x2roto.data.truth import Marked, Mask, frame_truth
from x2roto.data.video.clips import Clip, listed_clip
from x2roto.data.video.miniature import Scene, runs_of, scenes, write_frames
from x2roto.data.video.revos import masks_of
from x2roto.engine.tasks import PHRASE_END, PHRASE_START
from x2roto.errors import InputError

SPLITS_VIDEO = {"val": "test", "train": "train"}
SPLITS_MEVIS = {"val": "valid_u", "train": "train"}
SPLITS_VIDSTG = {"val": "val", "train": "train"}
_LINK = re.compile(r"\[([^\]]+)\]\(([^)]+)\)")


@dataclass(frozen=True, slots=True)
class Described:
    """A video and its caption. `phrases`: the objects of each. `masks`: of an object, RLE or file by frame."""

    clip: Clip
    caption: str
    phrases: tuple[tuple[int, ...], ...]
    masks: Mapping[int, Sequence[Any]]


def _sample(item: Described, read: Callable[[Any, Size, int, int], Mask]) -> Sample:
    size = item.clip.size()
    truth = partial(_truth, item=item, size=size, read=read)
    return item.clip.sample(item.clip.name, "gcgseg", (), truth, size, captions=(item.caption,))


def _truth(frame: int, item: Described, size: Size, read: Callable[[Any, Size, int, int], Mask]) -> FrameTruth:
    return frame_truth(
        (
            Marked(read(item.masks[number][frame], size, number, frame), condition, number)
            for condition, numbers in enumerate(item.phrases)
            for number in numbers
        ),
        size,
    )


def _decoded(runs: Any, size: Size, number: int, frame: int, path: Path) -> Mask:
    return decode_mask(runs, size, path, f"mask {number}, frame {frame}")


def _tagged(phrase: str) -> str:
    return f"{PHRASE_START}{phrase}{PHRASE_END}"


# ---- Video-GCG --------------------------------------------------------------------------------------------


def open_video_gcg(root: Path, split: str, prompt: PromptKind | None) -> Listed:
    """Videos of BURST and YouTube-VIS. Raises InputError.

    Entries whose words and masks do not pair up are left out, as in the reference.
    """
    part = chosen(split, SPLITS_VIDEO, "Video-GCG")
    path = root / "instruction_data" / f"{part}.json"
    table = read_json(path)
    masks = indexed(records(table, "annotations", path), "id", path)
    videos = indexed(records(table, "videos", path), "id", path)
    described = (_worded(video, masks, root, part, path) for video in videos.values())
    items = tuple(item for item in described if item is not None)
    check_files(root, (file for item in items for file in item.clip.files))
    return Listed("video_gcg", (), items, partial(_sample, read=partial(_decoded, path=path)))


def _worded(
    video: Mapping[str, Any], annotations: Mapping[Any, Mapping[str, Any]], root: Path, part: str, path: Path
) -> Described | None:
    what = f"video {video['id']}"
    told = field(video, "dense_cap", dict, path, what)
    places, numbers = (
        whole_numbers(field(told, key, list, path, f"the caption of {what}"), path, f"the caption of {what}")
        for key in ("token_pos", "mask_id")
    )
    if len(places) != len(numbers) or not places:
        return None
    words = field(told, "caption", str, path, f"the caption of {what}").split(" ")
    if not 0 <= min(places) <= max(places) < len(words):
        raise InputError(f"{path}: the caption of {what} has no word {max(places)}: the file is damaged", path)
    caption = " ".join(_tagged(word) if place in places else word for place, word in enumerate(words))
    phrases = tuple(
        tuple(number for at, number in zip(places, numbers, strict=True) if at == place)
        for place in sorted(set(places))
    )
    clip = _pooled(video, root, part, path, what)
    return Described(clip, caption, phrases, {number: _runs(number, annotations, clip, path) for number in numbers})


def _pooled(video: Mapping[str, Any], root: Path, part: str, path: Path, what: str) -> Clip:
    """The video below the folder of the data set it was taken from."""
    source = field(video, "dataset_split", str, path, what)
    inside = f"{source}/train/JPEGImages" if source == "yt19" else f"{source}/{'train' if part == 'train' else 'val'}"
    files = sorted(str(file) for file in field(video, "file_names", list, path, what))
    image_size(video, path, what)
    if not files:
        raise InputError(f"{path}: {what} has no frames: the file is damaged", path)
    return Clip(f"{source}/{PurePosixPath(files[0]).parent}", root, tuple(f"{inside}/{file}" for file in files))


def _runs(number: int, annotations: Mapping[Any, Mapping[str, Any]], clip: Clip, path: Path) -> list[Any]:
    if number not in annotations:
        raise InputError(f"{path}: the caption of {clip.name} names mask {number}, which is not there", path)
    runs = field(annotations[number], "segmentations", list, path, f"mask {number}")
    if len(runs) != len(clip):
        raise InputError(f"{path}: mask {number} has {len(runs)} frames, {clip.name} has {len(clip)}", path)
    return runs


# ---- captions with links ----------------------------------------------------------------------------------


def _linked(path: Path) -> tuple[str, tuple[tuple[int, ...], ...]]:
    """A caption with its phrases tagged, and the objects of each phrase."""
    text = field(read_json(path), "caption", str, path, "the file")
    links = _LINK.findall(text)
    if not links:
        raise InputError(f"{path}: the caption has no [phrase](object): download it again", path)
    if not all(each.strip().isdecimal() for _, numbers in links for each in numbers.split(",")):
        raise InputError(f"{path}: the caption has a phrase whose object is no number: the file is damaged", path)
    caption = _LINK.sub(lambda link: _tagged(link[1]), text)
    return caption, tuple(tuple(int(each) for each in numbers.split(",")) for _, numbers in links)


def _captions(folder: Path) -> list[str]:
    names = sorted(name.removesuffix(".json") for name in list_folder(folder) if name.endswith(".json"))
    if not names:
        raise InputError(f"{folder} holds no captions: unpack the data set there", folder)
    return names


def open_mevis_gcg(root: Path, split: str, prompt: PromptKind | None) -> Listed:
    """Captions of MeViS videos. Raises InputError."""
    part = chosen(split, SPLITS_MEVIS, "MeViS-GCG")
    mevis = root.parent / "mevis" / part
    path = mevis / "meta_expressions.json"
    videos = field(read_json(path), "videos", dict, path, "the file")
    masks = read_json(mevis / "mask_dict.json")
    items = tuple(_mevis(name, root / part / f"{name}.json", videos, masks, mevis) for name in _captions(root / part))
    check_files(mevis / "JPEGImages", (file for item in items for file in item.clip.files))
    read = partial(_decoded, path=mevis / "mask_dict.json")
    return Listed("mevis_gcg", (), items, partial(_sample, read=read))


def _mevis(name: str, caption_file: Path, videos: Any, masks: Any, mevis: Path) -> Described:
    path = mevis / "meta_expressions.json"
    video = field(videos, name, dict, path, f"'videos', which {caption_file} needs,")
    frames = field(video, "frames", list, path, f"video {name}")
    clip = Clip(name, mevis / "JPEGImages", tuple(f"{name}/{frame}.jpg" for frame in frames))
    numbers = dict(_mask_numbers(video, path, name))
    caption, phrases = _linked(caption_file)
    for each in sorted({number for phrase in phrases for number in phrase} - set(numbers)):
        raise InputError(f"{caption_file}: the caption names object {each}, which {path} does not have", caption_file)
    found = {
        each: masks_of(numbers[each], masks, len(clip), mevis / "mask_dict.json", f"object {each} of {name}")
        for phrase in phrases
        for each in phrase
    }
    return Described(clip, caption, phrases, found)


def _mask_numbers(video: Mapping[str, Any], path: Path, name: str) -> Iterator[tuple[int, int]]:
    for expression in field(video, "expressions", dict, path, f"video {name}").values():
        what = f"an expression of {name}"
        objects, masks = (
            whole_numbers(field(expression, key, list, path, what), path, what) for key in ("obj_id", "anno_id")
        )
        if len(objects) != len(masks):
            raise InputError(f"{path}: {what} has {len(objects)} objects and {len(masks)} masks: file damaged", path)
        yield from zip(objects, masks, strict=True)


def open_vidstg_gcg(root: Path, split: str, prompt: PromptKind | None) -> Listed:
    """Captions of VidSTG videos. Raises InputError."""
    part = chosen(split, SPLITS_VIDSTG, "VidSTG-GCG")
    captions = root / f"{part}_captions"
    items = tuple(_vidstg(name, captions / f"{name}.json", root / part) for name in _captions(captions))
    return Listed("vidstg_gcg", (), items, partial(_sample, read=_white))


def _vidstg(name: str, caption_file: Path, folder: Path) -> Described:
    clip = listed_clip(name, folder, f"{name}/frames")
    caption, phrases = _linked(caption_file)
    objects = dict.fromkeys(each for phrase in phrases for each in phrase)
    return Described(
        clip, caption, phrases, {each: _pictures(clip, folder / name / "masks", each) for each in objects}
    )


def _pictures(clip: Clip, folder: Path, number: int) -> list[Path | None]:
    """The mask file of each frame; an object has none where it is not seen."""
    inside = folder / f"{number:03d}"
    there = list_folder(inside)
    stray = sorted(there - {f"{frame}.png" for frame in clip.names})
    if stray or not there:
        what = f"holds {stray[0]}, which is the mask of no frame" if stray else "holds no masks"
        raise InputError(f"{inside} {what}: unpack the data set's download again", inside)
    return [inside / f"{frame}.png" if f"{frame}.png" in there else None for frame in clip.names]


def _white(path: Path | None, size: Size, number: int, frame: int) -> Mask:
    return np.zeros(size, np.bool_) if path is None else read_labels(path, size) > 127


# ---- miniatures -------------------------------------------------------------------------------------------

# Objects in the captions are counted from one; the second phrase has two.
LINKED = "In this clip, [a round shape](1) drifts while [two others](2, 3) come and go."


def write_video_gcg(root: Path, seed: int) -> None:
    """Two captioned videos, the first phrase of one object and the second of two, from two sources."""
    made = scenes(seed)
    videos, annotations = [], []
    for place, (scene, source) in enumerate(zip(made, ("yt19", "HACS"), strict=True)):
        inside = root / source / ("train/JPEGImages" if source == "yt19" else "val")
        write_frames(scene, inside / scene.name)
        numbers = [100 * (place + 1) + thing for thing in range(len(scene.masks))]
        annotations += [
            {"id": number, "segmentations": runs_of(scene, thing)} for thing, number in enumerate(numbers)
        ]
        videos.append(_captioned(place, scene, source, numbers))
    write_json({"videos": videos, "annotations": annotations}, root / "instruction_data" / "test.json")


def _captioned(place: int, scene: Scene, source: str, numbers: list[int]) -> dict[str, Any]:
    height, width = scene.size
    # Not in the order of the caption, to tell the two apart.
    told = {
        "caption": "A shape drifts while others come and go.",
        "token_pos": [4, 1, 4],
        "mask_id": [numbers[1], numbers[0], numbers[2]],
    }
    return {
        "id": place,
        "dataset_split": source,
        "file_names": [f"{scene.name}/{name}.jpg" for name in scene.names],
        "height": height,
        "width": width,
        "length": len(scene.names),
        "dense_cap": told,
    }


def write_mevis_gcg(root: Path, seed: int) -> None:
    """Two captioned videos; also writes the `mevis` folder beside `root`."""
    mevis = root.parent / "mevis" / "valid_u"
    videos: dict[str, Any] = {}
    masks: dict[str, Any] = {}
    for place, scene in enumerate(scenes(seed)):
        write_frames(scene, mevis / "JPEGImages" / scene.name)
        write_json({"caption": LINKED}, root / "valid_u" / f"{scene.name}.json")
        numbers = [10 * place + thing for thing in range(len(scene.masks))]
        masks |= {str(number): runs_of(scene, thing) for thing, number in enumerate(numbers)}
        expression = {"exp": "all shapes", "obj_id": [1, 2, 3], "anno_id": numbers}
        videos[scene.name] = {"frames": list(scene.names), "expressions": {"0": expression}}
    write_json({"videos": videos}, mevis / "meta_expressions.json")
    write_json(masks, mevis / "mask_dict.json")


def write_vidstg_gcg(root: Path, seed: int) -> None:
    """Two captioned videos; objects have masks only on the frames they are seen on."""
    for scene in scenes(seed):
        write_frames(scene, root / "val" / scene.name / "frames")
        write_json({"caption": LINKED}, root / "val_captions" / f"{scene.name}.json")
        for thing in range(len(scene.masks)):
            for frame in scene.seen(thing):
                path = root / "val" / scene.name / "masks" / f"{thing + 1:03d}" / f"{scene.names[frame]}.png"
                write_picture(scene.masks[thing, frame].astype(np.uint8) * 255, path)
