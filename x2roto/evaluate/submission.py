"""Predictions in the files that the data sets' own tools and servers read, made from what a run has kept.

panoptic   FRAME.png with ids as R + 256 G + 65536 B, and panoptic.json
labels     FRAME.png with the place of the class, 255 for none
coco       results.json: a list of masks with image, class and score
tracks     results.json: a list of tracks with video, class, score and a mask or null per frame
requests   results.json: a list of masks, one per request
objects    Annotations/VIDEO/FRAME.png with a palette: the number of the object
folders    Annotations/VIDEO/REQUEST/FRAME.png, black and white
captions   results.json: a list of captions with phrases and masks
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from math import fsum
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from x2roto.data.image.classes import Annotated, Segmented
from x2roto.data.image.pictures import Picture
from x2roto.data.listed import Listed
from x2roto.data.sample import Sample
from x2roto.data.video.ytvis import TrackedVideo
from x2roto.data.vvgd import write as write_list
from x2roto.errors import PromptError
from x2roto.evaluate.benchmarks import Format
from x2roto.evaluate.runner import Work
from x2roto.evaluate.store import Predictions, Whole, decoded
from x2roto.export.atomic import write_bytes
from x2roto.export.davis import palette

VOID_LABEL = 255


@dataclass(frozen=True, slots=True, eq=False)
class Entry:
    """A sample and what was found. `number`: what its picture or video is called in the data set's own table."""

    sample: Sample
    number: int | str
    predictions: Predictions

    @property
    def clip(self) -> str:
        """The picture's or video's part of the key."""
        return self.sample.key.rpartition("/")[0] or self.sample.key

    @property
    def request(self) -> str:
        """The rest of the key, "1" where there is one request only."""
        clip, _, request = self.sample.key.rpartition("/")
        return request if clip else "1"

    def place(self, frame: int) -> Path:
        """Where the picture of a frame goes."""
        name = f"{self.sample.names[frame]}.png"
        return Path(name) if self.sample.media == "image" else Path(self.clip, name)

    def category(self, condition: int) -> int:
        """The number of a class in the data set's files."""
        return self.sample.categories[condition].id


def write_submission(whole: Whole, work: Work, folder: Path) -> None:
    """All files of the benchmark's format. Raises OutputError, and PromptError when reference mode has none."""
    form = work.benchmark.format
    if form == "tracks" and whole.facts.mode == "reference":
        raise PromptError("reference mode does not link objects over time: make the submission in standard mode")
    FORMATS[form](_entries(whole, work), folder)


def _entries(whole: Whole, work: Work) -> Iterator[Entry]:
    for index in range(whole.facts.count):
        sample = work.dataset[index]
        items = work.dataset.items if isinstance(work.dataset, Listed) else ()
        number = number_of(items[index], sample) if items else sample.key
        yield Entry(sample, number, whole.at(index).predictions(index))


def number_of(item: Any, sample: Sample) -> int | str:
    """The id of a picture or video in its data set's table, its name where the table has none."""
    match item:
        case Annotated() | Segmented():
            return item.picture.id
        case Picture() | TrackedVideo():
            return item.id
    return sample.key


# ---- pictures ---------------------------------------------------------------------------------------------


def write_panoptic(entries: Iterable[Entry], folder: Path) -> None:
    """One annotation per frame, of videos grouped by video."""
    table = []
    for entry in entries:
        frames = [_panoptic_frame(entry, each, folder) for each in entry.predictions.frames]
        if entry.sample.media == "image":
            table += [{"image_id": entry.number, **frame} for frame in frames]
        else:
            table.append({"video_id": entry.number, "annotations": frames})
    write_bytes(folder / "panoptic.json", json.dumps({"annotations": table}).encode())


def _panoptic_frame(entry: Entry, found: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    ids = np.zeros(entry.sample.size, np.int64)
    segments = []
    for mask in found["masks"]:
        ids[decoded(mask, entry.sample)] = mask["identity"]
        category = entry.sample.categories[mask["condition"]]
        segments.append({"id": mask["identity"], "category_id": category.id, "isthing": int(category.thing)})
    path = entry.place(found["frame"])
    _write_png(np.stack([ids % 256, ids // 256 % 256, ids // 65536], -1).astype(np.uint8), folder / path)
    return {"file_name": path.name, "segments_info": segments}


def write_labels(entries: Iterable[Entry], folder: Path) -> None:
    """One picture per frame."""
    for entry in entries:
        for found in entry.predictions.frames:
            labels = np.full(entry.sample.size, VOID_LABEL, np.uint8)
            for mask in found["masks"]:
                labels[decoded(mask, entry.sample)] = mask["condition"]
            _write_png(labels, folder / entry.place(found["frame"]))


def write_folders(entries: Iterable[Entry], folder: Path) -> None:
    """One picture per frame and request, blank where nothing was found or looked for."""
    for entry in entries:
        for frame, name in enumerate(entry.sample.names):
            mask = entry.predictions.mask(entry.sample, frame)
            _write_png(
                mask.astype(np.uint8) * 255, folder / "Annotations" / entry.clip / entry.request / f"{name}.png"
            )


def write_objects(entries: Iterable[Entry], folder: Path) -> None:
    """One picture per frame; where objects overlap the one that scores more wins."""
    for clip, group in groupby(entries, key=lambda entry: entry.clip):
        objects = list(group)
        for frame, name in enumerate(objects[0].sample.names):
            _write_png(_numbers(objects, frame), folder / "Annotations" / clip / f"{name}.png", palette())


def _numbers(objects: Sequence[Entry], frame: int) -> NDArray[np.uint8]:
    numbers = np.zeros(objects[0].sample.size, np.uint8)
    found = [(mask["score"], entry, mask) for entry in objects for mask in entry.predictions.on(frame)]
    for _, entry, mask in sorted(found, key=lambda each: each[0]):
        numbers[decoded(mask, entry.sample)] = int(entry.request)
    return numbers


# ---- tables -----------------------------------------------------------------------------------------------


def write_coco(entries: Iterable[Entry], folder: Path) -> None:
    """All masks of all pictures."""
    write_list((row for entry in entries for row in _coco_rows(entry)), folder / "results.json")


def _coco_rows(entry: Entry) -> Iterator[dict[str, Any]]:
    for mask in entry.predictions.on(0):
        yield {
            "image_id": entry.number,
            "category_id": entry.category(mask["condition"]),
            "segmentation": mask["rle"],
            "score": mask["score"],
        }


def write_tracks(entries: Iterable[Entry], folder: Path) -> None:
    """All tracks of all videos; the score of one is the mean of its frames'."""
    write_list((row for entry in entries for row in _track_rows(entry)), folder / "results.json")


def _track_rows(entry: Entry) -> Iterator[dict[str, Any]]:
    tracks: dict[tuple[int, int], dict[int, Mapping[str, Any]]] = {}
    for found in entry.predictions.frames:
        for mask in found["masks"]:
            tracks.setdefault((mask["condition"], mask["identity"]), {})[found["frame"]] = mask
    for (condition, _), masks in tracks.items():
        yield {
            "video_id": entry.number,
            "category_id": entry.category(condition),
            "score": fsum(mask["score"] for mask in masks.values()) / len(masks),
            "segmentations": [
                masks[frame]["rle"] if frame in masks else None for frame in range(len(entry.sample.frames))
            ],
        }


def write_requests(entries: Iterable[Entry], folder: Path) -> None:
    """The mask of each request about a picture."""
    rows = (
        {"request": entry.sample.key, "segmentation": mask["rle"], "score": mask["score"]}
        for entry in entries
        for mask in entry.predictions.on(0)
    )
    write_list(rows, folder / "results.json")


def write_captions(entries: Iterable[Entry], folder: Path) -> None:
    """What was said of each picture or video, and the masks of its phrases by frame."""
    rows = (
        {
            "request": entry.sample.key,
            "answers": entry.predictions.answers,
            "frames": [{**found, "frame": entry.sample.names[found["frame"]]} for found in entry.predictions.frames],
        }
        for entry in entries
    )
    write_list(rows, folder / "results.json")


def _write_png(pixels: NDArray[np.uint8], path: Path, colours: list[int] | None = None) -> None:
    from PIL import Image

    picture = Image.fromarray(pixels)
    if colours:
        picture.putpalette(colours)
    picture.save(buffer := io.BytesIO(), format="PNG")
    write_bytes(path, buffer.getvalue())


FORMATS: Mapping[Format, Callable[[Iterable[Entry], Path], None]] = {
    "panoptic": write_panoptic,
    "labels": write_labels,
    "coco": write_coco,
    "tracks": write_tracks,
    "requests": write_requests,
    "objects": write_objects,
    "folders": write_folders,
    "captions": write_captions,
}
