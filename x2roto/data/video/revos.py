"""ReVOS: questions that need reasoning, and plain phrases, for one or several objects of a video.

    annotations/meta_expressions_valid_.json    frames of each video, its expressions and their masks
    annotations/mask_dict.json                  of each mask: RLE or null per frame
    JPEGImages/VIDEO/FRAME.jpg

Source: wanghao9610/X2SAM@5b0b106 x2sam/x2sam/dataset/vid_reaseg_dataset.py; the table's `type_id` is wrong there too,
so a question is what ends in a question mark.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from x2roto.data.annotations import Size, check_files, decode_mask, field, read_json, write_json
from x2roto.data.listed import Listed
from x2roto.data.names import chosen, spoken, whole_numbers
from x2roto.data.sample import FrameTruth, PromptKind, Sample
from x2roto.data.truth import Marked, frame_truth
from x2roto.data.video.clips import Clip
from x2roto.data.video.miniature import runs_of, scenes, write_frames
from x2roto.errors import InputError

SPLITS = {
    split: f"annotations/meta_expressions_{part}_.json" for split, part in (("val", "valid"), ("train", "train"))
}
MASKS = "annotations/mask_dict.json"


@dataclass(frozen=True, slots=True)
class Expression:
    """A question or phrase. `masks`: by number, the RLE or None of each frame; together they are the answer."""

    clip: Clip
    number: str
    text: str
    masks: Mapping[int, Sequence[Any]]


def open_revos(root: Path, split: str, prompt: PromptKind | None) -> Listed:
    """One request per expression; `parts` says whether it is reasoning or referring. Raises InputError."""
    path = root / chosen(split, SPLITS, "ReVOS")
    videos = field(read_json(path), "videos", dict, path, "the file")
    masks = read_json(root / MASKS)
    items = tuple(item for name in sorted(videos) for item in _expressions(name, videos[name], masks, root, path))
    check_files(root / "JPEGImages", (file for item in items for file in item.clip.files))
    return Listed("revos", (), items, partial(_sample, path=root / MASKS))


def _expressions(name: str, video: Any, masks: Any, root: Path, path: Path) -> Iterator[Expression]:
    frames = sorted(str(frame) for frame in field(video, "frames", list, path, f"video {name}"))
    if not frames:
        raise InputError(f"{path}: video {name} has no frames: the file is damaged", path)
    clip = Clip(name, root / "JPEGImages", tuple(f"{name}/{frame}.jpg" for frame in frames))
    for number, record in field(video, "expressions", dict, path, f"video {name}").items():
        what = f"expression {number} of {name}"
        ids = whole_numbers(field(record, "anno_id", list, path, what), path, what)
        found = {each: masks_of(each, masks, len(clip), root / MASKS, what) for each in ids}
        yield Expression(clip, number, field(record, "exp", str, path, what), found)


def masks_of(number: int, masks: Any, frames: int, path: Path, what: str) -> list[Any]:
    """The RLE or None per frame of a mask. Raises InputError when the table has none or another number of frames."""
    found = field(masks, str(number), list, path, f"the file, which {what} needs,")
    if len(found) != frames:
        raise InputError(f"{path}: mask {number} has {len(found)} frames, {what} has {frames}: file damaged", path)
    return found


def _sample(item: Expression, path: Path) -> Sample:
    size = item.clip.size()
    part = "reasoning" if item.text.endswith("?") else "referring"
    key = f"{item.clip.name}/{item.number}"
    truth = partial(_truth, masks=item.masks, size=size, path=path)
    return item.clip.sample(key, "reaseg", [spoken(item.text)], truth, size, parts=(part,))


def _truth(frame: int, masks: Mapping[int, Sequence[Any]], size: Size, path: Path) -> FrameTruth:
    return frame_truth(
        (
            Marked(decode_mask(runs[frame], size, path, f"mask {number}, frame {frame}"), identity=number)
            for number, runs in masks.items()
        ),
        size,
    )


# ---- miniature --------------------------------------------------------------------------------------------


def write_revos(root: Path, seed: int) -> None:
    """Two videos with a question about one object each, and one phrase for two."""
    made = scenes(seed)
    videos: dict[str, Any] = {}
    masks: dict[str, Any] = {}
    for place, scene in enumerate(made):
        write_frames(scene, root / "JPEGImages" / scene.name)
        numbers = [10 * place + thing for thing in range(len(scene.masks))]
        masks |= {str(number): runs_of(scene, thing) for thing, number in enumerate(numbers)}
        expressions = {
            "0": {"exp": "Which shape stays all along?", "obj_id": [0], "anno_id": numbers[:1], "type_id": 1},
            "1": {"exp": "Which one comes late?", "obj_id": [1], "anno_id": numbers[1:2], "type_id": 1},
            "2": {"exp": "the round shapes", "obj_id": [0, 2], "anno_id": [numbers[0], numbers[2]], "type_id": 0},
        }
        videos[scene.name] = {"frames": list(scene.names), "expressions": expressions}
    write_json({"videos": videos}, root / SPLITS["val"])
    write_json(masks, root / MASKS)
