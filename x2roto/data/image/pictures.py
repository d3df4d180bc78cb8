"""What the image readers share: pictures as tables list them, and a request about one of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

import numpy as np

from x2roto.data.annotations import Size, check_files, field, image_size, indexed, picture_size, records
from x2roto.data.sample import FrameTruth, Sample
from x2roto.data.truth import Mask
from x2roto.errors import InputError

T = TypeVar("T")
Identifier = int | str


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture of a data set. `file`: its path below `folder`. `known_size`: None where the table tells none."""

    id: Identifier
    folder: Path
    file: str
    known_size: Size | None

    @property
    def path(self) -> Path:
        return self.folder / self.file

    @property
    def name(self) -> str:
        return PurePosixPath(self.file).stem

    @property
    def png(self) -> str:
        """The name of the label map that goes with the picture."""
        return str(PurePosixPath(self.file).with_suffix(".png"))

    @property
    def size(self) -> Size:
        """(height, width), from the header of the file where the table tells none. Raises InputError."""
        return self.known_size or picture_size(self.path)

    def sample(
        self,
        task: str,
        targets: Sequence[str | Mask],
        truth: Callable[[], FrameTruth],
        request: str | None = None,
        **more: Any,
    ) -> Sample:
        """What is asked about this picture. `request`: tells it from others about the same picture."""
        return Sample(
            key=self.name if request is None else f"{self.name}/{request}",
            task=task,
            frames=(self.path,),
            names=(self.name,),
            size=self.size,
            targets=tuple(targets),
            truth=partial(_only_frame, read=truth),
            annotated=np.ones(1, np.bool_),
            **more,
        )


def _only_frame(frame: int, read: Callable[[], FrameTruth]) -> FrameTruth:
    if frame:
        raise IndexError(f"frame {frame} of a picture")
    return read()


def read_pictures(table: Any, path: Path, folder: Path) -> dict[Identifier, Picture]:
    """The `images` of a COCO table, by id in rising order; their files are not looked for. Raises InputError."""
    found = indexed(records(table, "images", path), "id", path)
    if len({type(number) for number in found}) > 1:
        raise InputError(f"{path}: some ids of 'images' are numbers and some are text: the file is damaged", path)
    return {number: _picture(found[number], path, folder) for number in sorted(found)}


def _picture(record: Mapping[str, Any], path: Path, folder: Path) -> Picture:
    what = f"image {record['id']}"
    return Picture(record["id"], folder, field(record, "file_name", str, path, what), image_size(record, path, what))


def picture_of(
    record: Any, pictures: Mapping[Identifier, Picture], path: Path, what: str = "an annotation"
) -> Picture:
    """The picture a record's `image_id` names. Raises InputError when the table lists no such picture."""
    number = field(record, "image_id", (int, str), path, what)
    if number not in pictures:
        raise InputError(f"{path}: {what} is of image {number}, which is not in 'images': file damaged", path)
    return pictures[number]


def by_picture(
    annotations: Iterable[dict[str, Any]], pictures: Mapping[Identifier, Picture], path: Path
) -> dict[Identifier, list[dict[str, Any]]]:
    """The annotations of each picture, all pictures, in the order of both. Raises InputError for unknown pictures."""
    found: dict[Identifier, list[dict[str, Any]]] = {number: [] for number in pictures}
    for annotation in annotations:
        found[picture_of(annotation, pictures, path, called(annotation)).id].append(annotation)
    return found


def called(annotation: Mapping[str, Any]) -> str:
    """How an error names an annotation."""
    return f"annotation {annotation.get('id', 'without id')}"


def check_pictures(pictures: Iterable[Picture], folder: Path) -> None:
    """Raises InputError unless the files of all pictures are in `folder`."""
    check_files(folder, (picture.file for picture in pictures))


def some(items: Sequence[T], path: Path) -> Sequence[T]:
    """The items. Raises InputError when there are none: an empty data set is a wrong one."""
    if not items:
        raise InputError(f"{path} asks for nothing in this split: choose another split or download it again", path)
    return items
