"""DAVIS 2016 and 2017, semi-supervised, and Ref-DAVIS 2017: objects to follow from a first mask or a phrase.

    JPEGImages/480p/VIDEO/FRAME.jpg
    Annotations/480p/VIDEO/FRAME.png            2016: black and white; 2017: number of the object
    ImageSets/480p/val.txt                      2016: "/JPEGImages/480p/VIDEO/FRAME.jpg /Annotations/..." per line
    ImageSets/2017/val.txt                      2017: names of videos
    davis_text_annotations/Davis17_annot*.txt   Ref: VIDEO OBJECT "PHRASE" per line; four files, read as one

Source of the text files: wanghao9610/X2SAM@5b0b106 x2sam/x2sam/dataset/vid_refseg_dataset.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np

from x2roto.data.annotations import check_files, read_labels, write_picture
from x2roto.data.listed import Listed
from x2roto.data.names import chosen
from x2roto.data.sample import PromptKind, Sample
from x2roto.data.video.clips import (
    Clip,
    as_png,
    binary_mask,
    label_mask,
    listed_clip,
    object_truth,
    prompted,
    read_lines,
)
from x2roto.data.video.miniature import Scene, scenes, write_frames, write_labels
from x2roto.errors import InputError

PICTURES, MASKS, TEXTS = "JPEGImages/480p", "Annotations/480p", "davis_text_annotations"
SPLITS_16 = {split: f"ImageSets/480p/{split}.txt" for split in ("val", "train", "trainval")}
SPLITS_17 = {split: f"ImageSets/2017/{split}.txt" for split in ("val", "train")}
# The second annotator's files are not UTF-8.
TEXT_FILES = (
    ("Davis17_annot1_full_video.txt", "utf-8"),
    ("Davis17_annot1.txt", "utf-8"),
    ("Davis17_annot2_full_video.txt", "latin-1"),
    ("Davis17_annot2.txt", "latin-1"),
)
MISSPELT = {"clasic-car": "classic-car", "dog-scale": "dogs-scaled", "motor-bike": "motorbike"}


@dataclass(frozen=True, slots=True)
class Target:
    """An object of a video. `value`: its number in the masks. `text`, `number`: a phrase for it and its place."""

    clip: Clip
    value: int
    text: str = ""
    number: int = 0


# ---- semi-supervised --------------------------------------------------------------------------------------


def open_davis16(root: Path, split: str, prompt: PromptKind | None) -> Listed:
    """One request per video, for its foreground. Raises InputError."""
    lines = read_lines(root / chosen(split, SPLITS_16, "DAVIS 2016"))
    clips = _clips(root, dict.fromkeys(PurePosixPath(line.split()[0]).parent.name for line in lines))
    return Listed("davis16", (), clips, partial(_foreground, masks=root / MASKS, prompt=prompt or "mask"))


def open_davis17(root: Path, split: str, prompt: PromptKind | None) -> Listed:
    """One request per object of a first mask. Raises InputError."""
    clips = _clips(root, read_lines(root / chosen(split, SPLITS_17, "DAVIS 2017")))
    targets = tuple(Target(clip, value) for clip in clips for value in _values(clip, root / MASKS))
    return Listed("davis17", (), targets, partial(_object, masks=root / MASKS, prompt=prompt or "mask"))


def _clips(root: Path, names: Iterable[str]) -> tuple[Clip, ...]:
    clips = tuple(listed_clip(name, root / PICTURES, name) for name in names)
    check_files(root / MASKS, (file for clip in clips for file in as_png(clip.files)))
    return clips


def _values(clip: Clip, masks: Path) -> list[int]:
    """Objects of the first mask; the data set lists them nowhere else."""
    path = masks / as_png(clip.files)[0]
    values = [int(value) for value in np.unique(read_labels(path, clip.size())) if value]
    if not values:
        raise InputError(f"{path} shows no object: every DAVIS video has one there, download it again", path)
    return values


def _foreground(clip: Clip, masks: Path, prompt: PromptKind) -> Sample:
    size = clip.size()
    read = partial(binary_mask, folder=masks, files=as_png(clip.files), size=size)
    return prompted(clip, clip.name, read, 1, size, prompt)


def _object(target: Target, masks: Path, prompt: PromptKind) -> Sample:
    clip, size = target.clip, target.clip.size()
    read = partial(label_mask, folder=masks, files=as_png(clip.files), value=target.value, size=size)
    return prompted(clip, f"{clip.name}/{target.value}", read, target.value, size, prompt)


# ---- referring --------------------------------------------------------------------------------------------


def open_ref_davis17(root: Path, split: str, prompt: PromptKind | None) -> Listed:
    """One request per phrase, both annotators' and of first frames and full videos alike. Raises InputError."""
    clips = _clips(root, read_lines(root / chosen(split, SPLITS_17, "Ref-DAVIS 2017")))
    phrases = _phrases(root / TEXTS)
    targets = tuple(target for clip in clips for target in _spoken_of(clip, phrases, root / TEXTS))
    return Listed("ref_davis17", (), targets, partial(_referred, masks=root / MASKS))


def _phrases(folder: Path) -> dict[str, list[tuple[int, str]]]:
    """Object and phrase by video, in the order of the files."""
    found: dict[str, list[tuple[int, str]]] = {}
    for name, encoding in TEXT_FILES:
        for line in read_lines(folder / name, encoding):
            words = line.split()
            if len(words) < 3 or not words[1].isdecimal():
                raise InputError(
                    f'{folder / name}: {line!r} is not VIDEO OBJECT "PHRASE": file damaged', folder / name
                )
            phrase = " ".join(words[2:]).removeprefix('"').removesuffix('"')
            found.setdefault(MISSPELT.get(words[0], words[0]), []).append((int(words[1]), phrase))
    return found


def _spoken_of(clip: Clip, phrases: dict[str, list[tuple[int, str]]], folder: Path) -> Iterator[Target]:
    if clip.name not in phrases:
        raise InputError(f"{folder}: no file there has a phrase for video {clip.name}: download them again", folder)
    by_object = sorted(phrases[clip.name], key=lambda phrase: phrase[0])
    for number, (value, text) in enumerate(by_object):
        yield Target(clip, value, text, number)


def _referred(target: Target, masks: Path) -> Sample:
    clip, size = target.clip, target.clip.size()
    read = partial(label_mask, folder=masks, files=as_png(clip.files), value=target.value, size=size)
    truth = partial(object_truth, read=read, identity=target.value, size=size)
    return clip.sample(f"{clip.name}/{target.number}", "refseg", [target.text], truth, size)


# ---- miniatures -------------------------------------------------------------------------------------------


def write_davis16(root: Path, seed: int) -> None:
    """Two videos; all that moves is the foreground."""
    made = scenes(seed)
    for scene in made:
        write_frames(scene, root / PICTURES / scene.name)
        for frame, name in enumerate(scene.names):
            foreground = np.where(scene.masks[:, frame].any(0), 255, 0)
            write_picture(foreground.astype(np.uint8), root / MASKS / scene.name / f"{name}.png")
    lines = [
        f"/{PICTURES}/{scene.name}/{name}.jpg /{MASKS}/{scene.name}/{name}.png"
        for scene in made
        for name in scene.names
    ]
    _write_lines(root / SPLITS_16["val"], lines)


def write_davis17(root: Path, seed: int) -> None:
    """Two videos of three objects; the one that comes late is not asked for, as the data set's own rule has it."""
    made = scenes(seed)
    for scene in made:
        write_frames(scene, root / PICTURES / scene.name)
        write_labels(scene, root / MASKS / scene.name)
    _write_lines(root / SPLITS_17["val"], [scene.name for scene in made])


def write_ref_davis17(root: Path, seed: int) -> None:
    """The same videos with a phrase per object in each of the four files."""
    write_davis17(root, seed)
    made = scenes(seed)
    for name, encoding in TEXT_FILES:
        _write_lines(root / TEXTS / name, [_line(scene, thing) for scene in made for thing in range(3)], encoding)


def _line(scene: Scene, thing: int) -> str:
    return f'{scene.name} {thing + 1}  "a caf\u00e9-brown shape, number {thing + 1}"'


def _write_lines(path: Path, lines: list[str], encoding: str = "utf-8") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding=encoding)
