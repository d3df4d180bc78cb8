"""VSPW, semantic: a class for every pixel of every frame.

    val.txt                        names of videos, one per line
    label_num_dic_final.json       class name -> number in the maps; 0 is no class
    images/VIDEO/FRAME.jpg
    semmasks/VIDEO/FRAME.png       numbers; 0, 253, 254 and 255 do not count

Source of the numbers: wanghao9610/X2SAM@5b0b106 x2sam/x2sam/dataset/vid_genseg_dataset.py, where they are one lower.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from x2roto.data.annotations import check_files, field, read_json, read_labels, write_json, write_picture
from x2roto.data.listed import Listed
from x2roto.data.names import chosen, class_targets
from x2roto.data.sample import Category, FrameTruth, PromptKind, Sample
from x2roto.data.truth import Marked, frame_truth
from x2roto.data.video.clips import Clip, as_png, listed_clip, read_lines
from x2roto.data.video.miniature import scenes, write_frames
from x2roto.errors import InputError

SPLITS = {split: f"{split}.txt" for split in ("val", "train", "test")}
CLASSES = "label_num_dic_final.json"
UNCOUNTED = (0, 253, 254, 255)


def open_vspw(root: Path, split: str, prompt: PromptKind | None) -> Listed:
    """One request per video, for all classes. Raises InputError."""
    names = read_lines(root / chosen(split, SPLITS, "VSPW"))
    categories = _categories(root / CLASSES)
    clips = tuple(listed_clip(name, root / "images", name) for name in sorted(names))
    check_files(root / "semmasks", (file for clip in clips for file in as_png(clip.files)))
    return Listed("vspw", categories, clips, partial(_sample, masks=root / "semmasks", categories=categories))


def _categories(path: Path) -> tuple[Category, ...]:
    table = read_json(path)
    if not isinstance(table, dict) or not table:
        raise InputError(f"{path} is not a table of class names and numbers: download it again", path)
    numbers = {field(table, name, (int, str), path, "the table"): name for name in table}
    if not all(str(number).isdecimal() for number in numbers):
        raise InputError(f"{path} has a class whose number is none: the file is damaged", path)
    named = sorted((int(number), name) for number, name in numbers.items())
    return tuple(Category(number, name, thing=False) for number, name in named if number not in UNCOUNTED)


def _sample(clip: Clip, masks: Path, categories: tuple[Category, ...]) -> Sample:
    size = clip.size()
    truth = partial(_truth, files=as_png(clip.files), masks=masks, size=size, categories=categories)
    return clip.sample(clip.name, "genseg", class_targets(categories), truth, size, categories=categories)


def _truth(
    frame: int, files: tuple[str, ...], masks: Path, size: tuple[int, int], categories: tuple[Category, ...]
) -> FrameTruth:
    labels = read_labels(masks / files[frame], size)
    ignored = np.isin(labels, UNCOUNTED)
    known = {category.id: place for place, category in enumerate(categories)}
    present = np.unique(labels[~ignored]).tolist()
    for number in present:
        if number not in known:
            path = masks / files[frame]
            raise InputError(f"{path} holds class {number}, which {CLASSES} does not list: download it again", path)
    return frame_truth([Marked(labels == number, known[number], number) for number in present], size, ignored)


# ---- miniature --------------------------------------------------------------------------------------------

NUMBERS = {"others": 0, "sky": 3, "grass": 5, "person": 61, "ball_net": 80}


def write_vspw(root: Path, seed: int) -> None:
    """Two videos of round and square things before sky and grass, the lowest line unlabelled."""
    made = scenes(seed)
    for scene in made:
        write_frames(scene, root / "images" / scene.name)
        for frame, name in enumerate(scene.names):
            labels = np.where(scene.sky, NUMBERS["sky"], NUMBERS["grass"]).astype(np.uint8)
            for mask, kind in zip(scene.masks[:, frame], scene.kinds, strict=True):
                labels[mask] = NUMBERS[("person", "ball_net")[kind]]
            labels[-1] = 255
            write_picture(labels, root / "semmasks" / scene.name / f"{name}.png")
    write_json(NUMBERS, root / CLASSES)
    (root / SPLITS["val"]).write_text("".join(f"{scene.name}\n" for scene in made))
