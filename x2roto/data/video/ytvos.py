"""YouTube-VOS 2019, semi-supervised: objects to follow from the first mask each has, in seen and unseen classes.

    valid/meta.json                     objects of each video: category and frames
    valid/JPEGImages/VIDEO/FRAME.jpg
    valid/Annotations/VIDEO/FRAME.png   number of the object; all frames, not the public first masks only

Source of the class lists: wanghao9610/X2SAM@5b0b106 x2sam/x2sam/dataset/vid_objseg_dataset.py, after the data set's
own training and validation lists: a class is unseen when training has no object of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from x2roto.data.annotations import check_files, field, list_folder, read_json, write_json
from x2roto.data.listed import Listed
from x2roto.data.names import chosen
from x2roto.data.sample import Category, PromptKind, Sample
from x2roto.data.video.clips import Clip, as_png, label_mask, listed_clip, prompted
from x2roto.data.video.miniature import Scene, scenes, write_frames, write_labels
from x2roto.errors import InputError

SPLITS = {"val": "valid", "train": "train"}
_SEEN = """
airplane ape bear bike bird boat bucket bus camel cat cow crocodile deer dog dolphin duck eagle earless_seal
elephant fish fox frisbee frog giant_panda giraffe hand hat hedgehog horse knife leopard lion lizard monkey
motorbike mouse others owl paddle parachute parrot penguin person plant rabbit raccoon sedan shark sheep sign
skateboard snail snake snowboard squirrel surfboard tennis_racket tiger toilet train truck turtle umbrella whale
zebra
"""
_UNSEEN = """
backpack ball bottle box butterfly camera chameleon cloth cup eyeglasses flag guitar handbag jellyfish kangaroo
microphone mirror ring rope shovel small_panda spider stuffed_toy table tissue watch
"""
SEEN, UNSEEN = frozenset(_SEEN.split()), frozenset(_UNSEEN.split())
CATEGORIES = tuple(Category(number, name) for number, name in enumerate(sorted(SEEN | UNSEEN)))
BY_NAME = {category.name: category for category in CATEGORIES}
MISSPELT = {"gaint_panda": "giant_panda"}


@dataclass(frozen=True, slots=True)
class Target:
    """An object of a video. `value`: its number in the masks. `annotated`: the frames of the video with a mask."""

    clip: Clip
    value: int
    category: Category
    annotated: tuple[bool, ...]

    @property
    def key(self) -> str:
        return f"{self.clip.name}/{self.value}"


def open_ytvos19(root: Path, split: str, prompt: PromptKind | None) -> Listed:
    """One request per object; `parts` says whether its class was seen in training. Raises InputError."""
    folder = root / chosen(split, SPLITS, "YouTube-VOS 2019")
    path = folder / "meta.json"
    videos = field(read_json(path), "videos", dict, path, "the file")
    targets = tuple(target for name in sorted(videos) for target in _targets(name, videos[name], folder, path))
    make = partial(_sample, masks=folder / "Annotations", prompt=prompt or "mask")
    return Listed("ytvos19", CATEGORIES, targets, make)


def _targets(name: str, video: Any, folder: Path, path: Path) -> Iterator[Target]:
    objects = field(video, "objects", dict, path, f"video {name}")
    clip = listed_clip(name, folder / "JPEGImages", name)
    check_files(folder / "Annotations", _promised(name, objects, path))
    masks = list_folder(folder / "Annotations" / name)
    annotated = tuple(f"{frame}.png" in masks for frame in clip.names)
    for value in sorted(objects, key=int):
        yield Target(clip, int(value), _category(objects[value], path, f"object {value} of {name}"), annotated)


def _promised(name: str, objects: Mapping[str, Any], path: Path) -> Iterator[str]:
    """The masks that the table says there are."""
    for value, record in objects.items():
        if not value.isdecimal():
            raise InputError(f"{path}: video {name} has an object {value!r}, not a number: the file is damaged", path)
        for frame in field(record, "frames", list, path, f"object {value} of {name}"):
            yield f"{name}/{frame}.png"


def _category(record: Any, path: Path, what: str) -> Category:
    name = field(record, "category", str, path, what)
    name = MISSPELT.get(name, name)
    if name not in BY_NAME:
        raise InputError(f"{path}: {what} has category {name!r}, which YouTube-VOS does not have: file damaged", path)
    return BY_NAME[name]


def _sample(target: Target, masks: Path, prompt: PromptKind) -> Sample:
    clip, size = target.clip, target.clip.size()
    read = partial(label_mask, folder=masks, files=as_png(clip.files), value=target.value, size=size)
    part = "unseen" if target.category.name in UNSEEN else "seen"
    annotated = np.array(target.annotated)
    categories = (target.category,)
    return prompted(
        clip, target.key, read, target.value, size, prompt, annotated, categories=categories, parts=(part,)
    )


# ---- miniature --------------------------------------------------------------------------------------------

# By thing; the data set's own misspelling among them.
DRAWN_CATEGORIES = ("gaint_panda", "guitar", "person")


def write_ytvos19(root: Path, seed: int) -> None:
    """Two videos of three objects, the late one of an unseen class."""
    folder = root / SPLITS["val"]
    made = scenes(seed, step=5)
    for scene in made:
        write_frames(scene, folder / "JPEGImages" / scene.name)
        write_labels(scene, folder / "Annotations" / scene.name)
    write_json({"videos": {scene.name: {"objects": _objects(scene)} for scene in made}}, folder / "meta.json")


def _objects(scene: Scene) -> dict[str, Any]:
    return {
        str(thing + 1): {"category": category, "frames": [scene.names[frame] for frame in scene.seen(thing)]}
        for thing, category in enumerate(DRAWN_CATEGORIES)
    }
