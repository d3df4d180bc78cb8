"""Loading and checking what data sets are written in: JSON, label pictures, RLE and polygons; and writing the same.

Opening a data set checks its tables with `read_json`, `field`, `indexed`, `read_categories` and `check_files`; masks
are read later, one at a time, with `read_labels`, `read_panoptic` and `decode_mask`. Whatever is missing or broken
raises InputError with one line that names the file. The `write_*` functions make miniatures, always the same bytes.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

from x2roto.data.sample import Category
from x2roto.errors import InputError

T = TypeVar("T")
Size = tuple[int, int]  # (height, width)

# Larger than any data set's picture; more is a damaged table, not a picture.
LARGEST_SIDE = 32768


# ---- files ------------------------------------------------------------------------------------------------


def read_json(path: Path, legacy: str | None = None) -> Any:
    """The value of a JSON file in UTF-8, or else in the encoding `legacy`. Raises InputError: missing or damaged."""
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise missing(path) from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}", path) from error
    try:
        return json.loads(_text(data, legacy))
    except ValueError as error:
        raise InputError(f"{path} is not valid JSON ({error}): download it again", path) from error


def _text(data: bytes, legacy: str | None) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        if legacy is None:
            raise
        return data.decode(legacy)


def missing(path: Path) -> InputError:
    """The error of a file that is not there."""
    return InputError(f"{path} is missing: put it there as the data set's own download has it", path)


def list_folder(folder: Path) -> frozenset[str]:
    """Names of everything directly inside `folder`, by one listing. Raises InputError when it is no folder."""
    try:
        return frozenset(os.listdir(folder))
    except OSError as error:
        raise InputError(f"{folder} is not a folder that can be listed: unpack the data set there", folder) from error


def check_files(folder: Path, names: Iterable[str]) -> None:
    """Raises InputError naming the first of `names` that is not in `folder`; names may have sub-folders.

    Each folder is listed once and no file is touched, so that a hundred thousand pictures take a second.
    """
    listings: dict[str, frozenset[str]] = {}
    lost = []
    for name in dict.fromkeys(names):
        inside, _, last = name.rpartition("/")
        if inside not in listings:
            listings[inside] = list_folder(folder / inside)
        if last not in listings[inside]:
            lost.append(name)
    if lost:
        rest = f", and {len(lost) - 1} more in {folder}" if len(lost) > 1 else ""
        path = folder / lost[0]
        raise InputError(f"{path} is missing{rest}: unpack the data set's download again", path)


# ---- tables -----------------------------------------------------------------------------------------------


@overload
def field(record: Any, key: str, kind: type[T], path: Path, what: str = ...) -> T: ...
@overload
def field(record: Any, key: str, kind: tuple[type, ...], path: Path, what: str = ...) -> Any: ...
def field(record: Any, key: str, kind: type | tuple[type, ...], path: Path, what: str = "an entry") -> Any:
    """`record[key]`, of type `kind`. Raises InputError naming the file, `what` the record is, and the key.

    A bool is no int; an int is a float where a float is asked for.
    """
    kinds = kind if isinstance(kind, tuple) else (kind,)
    if not isinstance(record, Mapping) or key not in record:
        raise InputError(
            f"{path}: {what} has no {key!r}: this is not the file this layout has, or it is damaged", path
        )
    value = record[key]
    if isinstance(value, bool) and bool not in kinds:
        fits = False
    else:
        fits = isinstance(value, kinds) or (float in kinds and isinstance(value, int))
    if not fits:
        names = " or ".join(each.__name__ for each in kinds)
        raise InputError(f"{path}: {key!r} of {what} is {_short(value)}, not {names}: the file is damaged", path)
    return value


def records(table: Any, key: str, path: Path) -> list[dict[str, Any]]:
    """The list of records under `key` of a table. Raises InputError when it is something else."""
    return listed_records(field(table, key, list, path, "the file"), path, repr(key))


def listed_records(value: Any, path: Path, what: str = "the file") -> list[dict[str, Any]]:
    """`value` as a list of records. Raises InputError when it is something else."""
    if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
        raise InputError(f"{path}: {what} is no list of records: not the file of this layout, or damaged", path)
    return value


def indexed(items: Iterable[Mapping[str, Any]], key: str, path: Path) -> dict[Any, Mapping[str, Any]]:
    """The records by the value of `key`, in order. Raises InputError where one lacks it or two share it."""
    found: dict[Any, Mapping[str, Any]] = {}
    for item in items:
        value = field(item, key, (int, str), path)
        if value in found:
            raise InputError(f"{path}: {key} {value!r} is there twice: the file is damaged", path)
        found[value] = item
    return found


def image_size(record: Any, path: Path, what: str = "an image") -> Size:
    """`height` and `width` of a record. Raises InputError unless both are positive whole numbers."""
    height, width = field(record, "height", int, path, what), field(record, "width", int, path, what)
    return checked_size((height, width), path, what)


def checked_size(size: Sequence[int], path: Path, what: str = "an image") -> Size:
    """`size` as (height, width). Raises InputError when a picture cannot have it."""
    if len(size) != 2 or not all(type(side) is int and 0 < side <= LARGEST_SIDE for side in size):
        raise InputError(f"{path}: {what} has the size {_short(size)} (height, width): the file is damaged", path)
    return size[0], size[1]


def read_categories(table: Any, path: Path) -> tuple[Category, ...]:
    """The `categories` of a COCO table by rising id; all are things where `isthing` is not given."""
    found = [
        Category(
            field(each, "id", int, path, "a category"),
            field(each, "name", str, path, "a category"),
            bool(each.get("isthing", 1)),
        )
        for each in indexed(records(table, "categories", path), "id", path).values()
    ]
    if not found:
        raise InputError(f"{path}: 'categories' is empty: the file is damaged", path)
    return tuple(sorted(found, key=lambda category: category.id))


def condition_of(categories: Sequence[Category]) -> dict[int, int]:
    """The place of each category id in `categories`."""
    return {category.id: place for place, category in enumerate(categories)}


def known_category(record: Any, conditions: Mapping[int, int], path: Path, what: str = "an annotation") -> int:
    """The place of a record's `category_id`. Raises InputError when the data set has no such class."""
    number = field(record, "category_id", int, path, what)
    if number not in conditions:
        raise InputError(
            f"{path}: {what} has category {number}, which 'categories' does not list: file damaged", path
        )
    return conditions[number]


# ---- masks ------------------------------------------------------------------------------------------------


def picture_size(path: Path) -> Size:
    """(height, width) of a picture, from its header. Raises InputError."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as picture:
            return picture.height, picture.width
    except FileNotFoundError as error:
        raise missing(path) from error
    except (UnidentifiedImageError, OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as a picture: download it again", path) from error


def read_rgb(path: Path, size: Size) -> NDArray[np.uint8]:
    """A picture as uint8 (H, W, 3), display-encoded RGB. Raises InputError, also when it is not of `size`."""
    return _pixels(path, size, "RGB")


def read_labels(path: Path, size: Size) -> NDArray[np.int64]:
    """A map of numbers, int64 (H, W): palette indices or grey values. Raises InputError, also when not of `size`."""
    labels = _pixels(path, size, None)
    if labels.ndim != 2:
        raise InputError(f"{path} has {labels.shape[2]} channels, a label map has one: is it a colour picture?", path)
    return labels.astype(np.int64)


def read_panoptic(path: Path, size: Size) -> NDArray[np.int64]:
    """The segment ids of a panoptic PNG, int64 (H, W): R + 256 G + 65536 B; 0 is void. Raises InputError as above."""
    ids: NDArray[np.int64] = _pixels(path, size, "RGB").astype(np.int64) @ np.array([1, 256, 65536])
    return ids


def decode_mask(segmentation: Any, size: Size, path: Path, what: str = "an annotation") -> NDArray[np.bool_]:
    """A COCO segmentation as bool (H, W): an RLE, compressed or not, or a list of RLEs or of polygons, joined.

    None and an empty list give an empty mask, as do polygons of less than three corners. Raises InputError when
    it is none of these or of another size than `size`. `path`, `what`: the file and record it stands in.
    """
    mask = np.zeros(size, np.bool_)
    for runs in _runs(segmentation, size, path, what):
        mask |= np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(size, order="F")
    return mask


def mask_area(segmentation: Any, size: Size, path: Path, what: str = "an annotation") -> int:
    """Pixels inside a segmentation; of a single RLE without decoding it. Raises InputError as `decode_mask` does."""
    if isinstance(segmentation, dict):
        return sum(sum(runs[1::2]) for runs in _runs(segmentation, size, path, what))
    return int(decode_mask(segmentation, size, path, what).sum())


def encode_mask(mask: NDArray[np.bool_]) -> dict[str, Any]:
    """A mask (H, W) as compressed RLE that JSON can hold."""
    from pycocotools import mask as coco

    runs = coco.encode(np.asfortranarray(mask, np.uint8))
    return {"size": list(runs["size"]), "counts": runs["counts"].decode("ascii")}


def _runs(segmentation: Any, size: Size, path: Path, what: str) -> Iterator[list[int]]:
    """The runs of each part: lengths down the columns, outside and inside in turn, that fill the picture."""
    parts = segmentation if isinstance(segmentation, list) else [segmentation] if segmentation else []
    try:
        for part in parts:
            if not isinstance(part, list):
                yield _rle_runs(part, size)
            elif len(part) >= 6:
                yield _polygon_runs(part, size)
    except (ValueError, TypeError, KeyError, OverflowError) as error:
        raise InputError(f"{path}: the mask of {what} cannot be used ({error}): the file is damaged", path) from error


def _polygon_runs(corners: list[float], size: Size) -> list[int]:
    from pycocotools import mask as coco

    if len(corners) % 2:
        raise ValueError("a polygon of an odd number of coordinates")
    return _run_lengths(coco.frPyObjects([corners], *size)[0]["counts"])


def _rle_runs(part: Any, size: Size) -> list[int]:
    shape: tuple[int, ...] = tuple(part["size"])
    if shape != size:
        raise ValueError(f"it is {_by(shape)} and its picture {_by(size)}")
    counts = part["counts"]
    text = counts.encode() if isinstance(counts, str) else counts
    runs: list[int] = text if isinstance(text, list) else _run_lengths(text)
    if sum(runs) != size[0] * size[1] or not all(isinstance(run, int) and run >= 0 for run in runs):
        raise ValueError("its runs do not fill the picture")
    return runs


def _run_lengths(counts: bytes) -> list[int]:
    """The runs of a compressed RLE: base 32 with a continuation bit, from the third on as a step from two before."""
    runs: list[int] = []
    value, shift = 0, 0
    for byte in counts:
        digit = byte - 48
        if not 0 <= digit < 64:
            raise ValueError(f"byte {byte} is not of an RLE")
        value |= (digit & 31) << shift
        shift += 5
        if digit & 32:
            continue
        if digit & 16:
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value, shift = 0, 0
    if shift:
        raise ValueError("it ends in the middle of a run")
    return runs


def _pixels(path: Path, size: Size, mode: str | None) -> NDArray[Any]:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as picture:
            pixels = np.asarray(picture if mode is None else picture.convert(mode))
    except FileNotFoundError as error:
        raise missing(path) from error
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError) as error:
        raise InputError(f"{path} cannot be read as a picture: download it again", path) from error
    if pixels.shape[:2] != size:
        raise InputError(
            f"{path} is {_by(pixels.shape)}, the annotations say {_by(size)}: the pictures and the annotations "
            "are not of the same data set",
            path,
        )
    return pixels


def _by(size: Sequence[int]) -> str:
    return "x".join(str(side) for side in reversed(size[:2]))


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


# ---- writing ----------------------------------------------------------------------------------------------


def write_json(value: Any, path: Path) -> None:
    """`value` as JSON; folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


def write_picture(pixels: NDArray[np.uint8], path: Path) -> None:
    """Grey (H, W) or RGB (H, W, 3) pixels as the suffix of `path` says, PNG or JPEG; folders are made."""
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def write_panoptic(ids: NDArray[np.int64], path: Path) -> None:
    """Segment ids (H, W) below 2^24 as a panoptic PNG."""
    write_picture(np.stack([ids % 256, ids // 256 % 256, ids // 65536], -1).astype(np.uint8), path)
