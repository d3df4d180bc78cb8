"""SA-V: masklets of SAM 2's data set, annotated at 6 frames a second of videos of 24.

    sav_val/sav_val.txt                                  names of videos; `sav_test` alike
    sav_val/JPEGImages_24fps/VIDEO/FRAME.jpg
    sav_val/Annotations_6fps/VIDEO/OBJECT/FRAME.png      0 outside, every fourth frame

    sav_train/sav_NNN/VIDEO_manual.json                  and VIDEO_auto.json: masklets as RLE
    sav_train/JPEGImages_24fps/VIDEO/FRAME.jpg           all frames of VIDEO.mp4, extracted

Source: the data set's own description, facebookresearch/sam2 `sav_dataset/README.md`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from x2roto.data.annotations import (
    Size,
    checked_size,
    decode_mask,
    encode_mask,
    field,
    list_folder,
    read_json,
    read_labels,
    write_json,
    write_picture,
)
from x2roto.data.listed import Listed
from x2roto.data.names import chosen, whole_numbers
from x2roto.data.sample import PromptKind, Sample
from x2roto.data.truth import Mask
from x2roto.data.video.clips import Clip, listed_clip, prompted, read_lines
from x2roto.data.video.miniature import Scene, scenes, write_thing
from x2roto.errors import InputError

STEP = 4  # 24 frames a second shown, 6 annotated
PICTURES = "JPEGImages_24fps"
FOLDERS = {"val": "sav_val", "test": "sav_test", "manual": "sav_train", "auto": "sav_train"}


@dataclass(frozen=True, slots=True)
class Masklet:
    """An object of a video. `masks`: of each annotated frame, the file of a picture or an RLE in `path`."""

    clip: Clip
    number: int
    masks: dict[int, Any]
    path: Path
    size: Size | None

    @property
    def key(self) -> str:
        return f"{self.clip.name}/{self.number:03d}"


def open_sa_v(root: Path, split: str, prompt: PromptKind | None) -> Listed:
    """One request per masklet, on all frames of its video. Raises InputError."""
    folder = root / chosen(split, FOLDERS, "SA-V")
    masklets = _tabled(folder, split) if folder.name == "sav_train" else _pictured(folder)
    return Listed("sa_v", (), tuple(masklets), partial(_sample, prompt=prompt or "mask"))


def _pictured(folder: Path) -> Iterator[Masklet]:
    for name in read_lines(folder / f"{folder.name}.txt"):
        clip = listed_clip(name, folder / PICTURES, name)
        objects = sorted(list_folder(folder / "Annotations_6fps" / name))
        if not objects:
            raise InputError(f"{folder / 'Annotations_6fps' / name} holds no objects: unpack it again", folder)
        for number in objects:
            yield _masklet_of(clip, folder / "Annotations_6fps" / name / number)


def _masklet_of(clip: Clip, folder: Path) -> Masklet:
    wanted = {frame: f"{name}.png" for frame, name in enumerate(clip.names) if frame % STEP == 0}
    lost = sorted(set(wanted.values()) - list_folder(folder))
    if lost:
        path = folder / lost[0]
        raise InputError(f"{path} is missing: unpack the data set's download again", path)
    return Masklet(clip, int(folder.name), wanted, folder, None)


def _tabled(folder: Path, kind: str) -> Iterator[Masklet]:
    suffix = f"_{kind}.json"
    parts = sorted(name for name in list_folder(folder) if name.startswith("sav_"))
    paths = [folder / part / name for part in parts for name in sorted(list_folder(folder / part))]
    tables = [path for path in paths if path.name.endswith(suffix)]
    if not tables:
        raise InputError(f"{folder} holds no sav_NNN/VIDEO{suffix}: unpack the data set there", folder)
    for path in tables:
        yield from _masklets(path, path.name.removesuffix(suffix), folder)


def _masklets(path: Path, name: str, folder: Path) -> Iterator[Masklet]:
    table = read_json(path)
    size = checked_size(
        tuple(int(field(table, key, float, path, "the file")) for key in ("video_height", "video_width")), path
    )
    clip = _extracted(name, folder, int(field(table, "video_frame_count", float, path, "the file")))
    frames = field(table, "masklet", list, path, "the file")
    numbers = whole_numbers(field(table, "masklet_id", list, path, "the file"), path, "'masklet_id'")
    fitting = all(isinstance(masks, list) and len(masks) == len(numbers) for masks in frames)
    if not fitting or len(frames) > -(-len(clip) // STEP):
        raise InputError(f"{path}: 'masklet' does not fit the frames and objects: the file is damaged", path)
    for place, number in enumerate(numbers):
        yield Masklet(clip, number, {STEP * at: masks[place] for at, masks in enumerate(frames)}, path, size)


def _extracted(name: str, folder: Path, count: int) -> Clip:
    pictures = folder / PICTURES / name
    if not pictures.is_dir():
        raise InputError(
            f"{pictures} is missing: extract all frames of {name}.mp4 there as 00000.jpg and on", pictures
        )
    clip = listed_clip(name, folder / PICTURES, name)
    if len(clip) != count:
        raise InputError(f"{pictures} holds {len(clip)} of the {count} frames of {name}.mp4: extract all", pictures)
    return clip


def _sample(masklet: Masklet, prompt: PromptKind) -> Sample:
    size = masklet.size or masklet.clip.size()
    read = partial(_mask, masklet=masklet, size=size)
    annotated = np.isin(np.arange(len(masklet.clip)), list(masklet.masks))
    return prompted(masklet.clip, masklet.key, read, masklet.number, size, prompt, annotated)


def _mask(frame: int, masklet: Masklet, size: Size) -> Mask:
    mask = masklet.masks[frame]
    if masklet.size is None:
        return read_labels(masklet.path / mask, size) > 0
    return decode_mask(mask, size, masklet.path, f"masklet {masklet.number}, frame {frame}")


# ---- miniature --------------------------------------------------------------------------------------------


def write_sa_v(root: Path, seed: int) -> None:
    """Two validation videos as pictures and the same two for training as tables, three objects each.

    The shapes move on annotated frames only, so there are four pictures of each.
    """
    made = scenes(seed, step=STEP)
    for scene in made:
        for folder in ("sav_val", "sav_train"):
            _write_pictures(scene, root / folder / PICTURES / scene.name)
        for thing in range(len(scene.masks)):
            write_thing(scene, thing, root / "sav_val" / "Annotations_6fps" / scene.name / f"{thing:03d}")
        write_json(_table(scene), root / "sav_train" / "sav_000" / f"{scene.name}_manual.json")
    (root / "sav_val" / "sav_val.txt").write_text("".join(f"{scene.name}\n" for scene in made))


def _write_pictures(scene: Scene, folder: Path) -> None:
    for number in range(STEP * len(scene.names)):
        write_picture(scene.frames[number // STEP], folder / f"{number:05d}.jpg")


def _table(scene: Scene) -> dict[str, Any]:
    height, width = scene.size
    return {
        "video_id": scene.name,
        "video_height": float(height),
        "video_width": float(width),
        "video_frame_count": float(STEP * len(scene.names)),
        "masklet_id": list(range(len(scene.masks))),
        "masklet": [[encode_mask(mask) for mask in scene.masks[:, frame]] for frame in range(len(scene.names))],
    }
