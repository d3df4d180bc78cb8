"""Ref-YouTube-VOS: phrases for objects of YouTube-VOS videos.

    meta_expressions/valid/meta_expressions.json     frames of each video and its expressions
    valid/JPEGImages/VIDEO/FRAME.jpg
    valid/Annotations/VIDEO/EXPRESSION/FRAME.png     black and white; not public, so made locally
    train/Annotations/VIDEO/FRAME.png                number of the object, which the expression names

Source: wanghao9610/X2SAM@5b0b106 x2sam/x2sam/dataset/vid_refseg_dataset.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from x2roto.data.annotations import Size, check_files, field, picture_size, read_json, read_labels, write_json
from x2roto.data.listed import Listed
from x2roto.data.names import chosen
from x2roto.data.sample import PromptKind, Sample
from x2roto.data.truth import Mask
from x2roto.data.video.clips import Clip, label_mask, object_truth
from x2roto.data.video.miniature import scenes, write_frames, write_thing
from x2roto.errors import InputError

SPLITS = {"val": "valid", "train": "train"}


@dataclass(frozen=True, slots=True)
class Expression:
    """A phrase for an object. `masks`: its pictures. `value`: the object's number there; None where it is white."""

    clip: Clip
    number: str
    text: str
    masks: tuple[str, ...]
    value: int | None


def open_ref_ytvos(root: Path, split: str, prompt: PromptKind | None) -> Listed:
    """One request per expression. Raises InputError."""
    part = chosen(split, SPLITS, "Ref-YouTube-VOS")
    path = root / "meta_expressions" / part / "meta_expressions.json"
    videos = field(read_json(path), "videos", dict, path, "the file")
    pictures, masks = root / part / "JPEGImages", root / part / "Annotations"
    items = tuple(
        expression for name in sorted(videos) for expression in _expressions(name, videos[name], part, pictures, path)
    )
    check_files(pictures, (file for item in items for file in item.clip.files))
    check_files(masks, (file for item in items for file in item.masks))
    return Listed("ref_ytvos", (), items, partial(_sample, masks=masks))


def _expressions(name: str, video: Any, part: str, pictures: Path, path: Path) -> Iterator[Expression]:
    frames = tuple(str(frame) for frame in field(video, "frames", list, path, f"video {name}"))
    if not frames:
        raise InputError(f"{path}: video {name} has no frames: the file is damaged", path)
    clip = Clip(name, pictures, tuple(f"{name}/{frame}.jpg" for frame in frames))
    for number, record in field(video, "expressions", dict, path, f"video {name}").items():
        what = f"expression {number} of {name}"
        text = field(record, "exp", str, path, what)
        if part == "valid":
            yield Expression(clip, number, text, tuple(f"{name}/{number}/{frame}.png" for frame in frames), None)
            continue
        value = field(record, "obj_id", (int, str), path, what)
        yield Expression(clip, number, text, tuple(f"{name}/{frame}.png" for frame in frames), int(value))


def _sample(item: Expression, masks: Path) -> Sample:
    size = item.clip.size()
    if item.value is None:
        read = partial(_white, folder=masks, files=item.masks, size=size)
    else:
        read = partial(label_mask, folder=masks, files=item.masks, value=item.value, size=size)
    truth = partial(object_truth, read=read, identity=item.value or 0, size=size)
    return item.clip.sample(f"{item.clip.name}/{item.number}", "refseg", [item.text], truth, size)


def _white(frame: int, folder: Path, files: tuple[str, ...], size: Size) -> Mask:
    """Where the mask is white. Some local masks are larger or smaller than their pictures, of the same shape."""
    path = folder / files[frame]
    there = picture_size(path)
    if not _alike(there, size):
        # Refused with the words of every other picture of a wrong size.
        return read_labels(path, size) > 127
    rows, columns = (np.arange(wanted) * found // wanted for wanted, found in zip(size, there, strict=True))
    return read_labels(path, there)[np.ix_(rows, columns)] > 127


def _alike(there: Size, size: Size) -> bool:
    """Whether one is the other scaled, to a pixel."""
    return abs(there[1] * size[0] - there[0] * size[1]) <= max(size)


# ---- miniature --------------------------------------------------------------------------------------------


def write_ref_ytvos(root: Path, seed: int) -> None:
    """Two videos with an expression for each of three objects."""
    made = scenes(seed, step=5)
    videos = {}
    for scene in made:
        write_frames(scene, root / "valid" / "JPEGImages" / scene.name)
        for thing in range(len(scene.masks)):
            write_thing(scene, thing, root / "valid" / "Annotations" / scene.name / str(thing))
        expressions = {str(thing): {"exp": f"the shape number {thing + 1}"} for thing in range(len(scene.masks))}
        videos[scene.name] = {"frames": list(scene.names), "expressions": expressions}
    write_json({"videos": videos}, root / "meta_expressions" / "valid" / "meta_expressions.json")
