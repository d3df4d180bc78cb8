"""One phrase about one picture: RefCOCO, RefCOCO+, RefCOCOg and gRefCOCO, as the REFER API lays them out.

`root` is the folder that has `refcoco`, `refcocop`, `refcocog`, `grefcoco` and `images/train2014` in it. A pickle
lists the expressions, `instances.json` pictures and masks.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from x2roto.data.annotations import (
    condition_of,
    decode_mask,
    field,
    indexed,
    known_category,
    listed_records,
    missing,
    read_categories,
    read_json,
    records,
    write_json,
)
from x2roto.data.image.coco import category_records
from x2roto.data.image.pictures import Picture, called, check_pictures, picture_of, read_pictures, some
from x2roto.data.image.scenes import image_records, instance_records, scenes, write_photographs
from x2roto.data.listed import Listed
from x2roto.data.names import chosen
from x2roto.data.sample import FrameTruth, Layout, PromptKind, Sample
from x2roto.data.truth import Marked, frame_truth
from x2roto.errors import InputError

PICTURES = Path("images") / "train2014"
# gRefCOCO's mark of an expression that nothing in the picture answers to.
NO_OBJECT = -1


@dataclass(frozen=True, slots=True)
class Expressions:
    """One of the data sets. `files`: names its list of expressions goes by, all with the same records."""

    layout: str
    title: str
    folder: str
    files: tuple[str, ...]
    splits: tuple[str, ...]


SETS = (
    Expressions("refcoco", "RefCOCO", "refcoco", ("refs(unc).p",), ("val", "testA", "testB", "train")),
    Expressions("refcocop", "RefCOCO+", "refcocop", ("refs(unc).p",), ("val", "testA", "testB", "train")),
    Expressions("refcocog", "RefCOCOg", "refcocog", ("refs(umd).p",), ("val", "test", "train")),
    Expressions(
        "grefcoco", "gRefCOCO", "grefcoco", ("grefs(unc).json", "refs(unc).p"), ("val", "testA", "testB", "train")
    ),
)


@dataclass(frozen=True, slots=True)
class Referred:
    """A phrase and the annotations it means, none or several in gRefCOCO. `request`: unique within the picture."""

    picture: Picture
    request: str
    phrase: str
    annotations: tuple[Mapping[str, Any], ...]


def open_expressions(root: Path, split: str, prompt: PromptKind | None, of: Expressions) -> Listed:
    """A sample for each sentence, repeated ones too. Raises InputError."""
    chosen(split, dict.fromkeys(of.splits), of.layout)
    folder = root / of.folder
    path = folder / "instances.json"
    table = read_json(path)
    conditions = condition_of(read_categories(table, path))
    pictures = read_pictures(table, path, root / PICTURES)
    annotations = indexed(records(table, "annotations", path), "id", path)
    listed, said = _read_expressions(folder, of)
    items: list[Referred] = []
    for ref in said:
        if field(ref, "split", str, listed, _called(ref)) == split:
            items.extend(_referred(ref, listed, pictures, annotations))
    for annotation in (each for item in items for each in item.annotations):
        field(annotation, "segmentation", (list, dict), path, called(annotation))
        known_category(annotation, conditions, path, called(annotation))
    check_pictures((item.picture for item in items), root / PICTURES)
    return Listed(of.layout, (), some(items, listed), partial(_sample, path=path, unions=of.layout == "grefcoco"))


def _read_expressions(folder: Path, of: Expressions) -> tuple[Path, list[dict[str, Any]]]:
    """The file that lists the expressions, and its records."""
    found = [folder / file for file in of.files if (folder / file).is_file()]
    if not found:
        raise missing(folder / of.files[0])
    path = found[0]
    said = read_json(path) if path.suffix == ".json" else read_pickle(path)
    return path, listed_records(said, path)


def _referred(
    ref: Mapping[str, Any], path: Path, pictures: Mapping[Any, Picture], annotations: Mapping[Any, Any]
) -> Iterator[Referred]:
    number = field(ref, "ref_id", int, path, _called(ref))
    picture = picture_of(ref, pictures, path, _called(ref))
    meant = tuple(_annotations(ref, path, annotations))
    for place, sentence in enumerate(records(ref, "sentences", path)):
        yield Referred(picture, f"{number}_{place}", field(sentence, "sent", str, path, _called(ref)), meant)


def _annotations(ref: Mapping[str, Any], path: Path, annotations: Mapping[Any, Any]) -> Iterator[Mapping[str, Any]]:
    ids = field(ref, "ann_id", (int, list), path, _called(ref))
    for each in ids if isinstance(ids, list) else [ids]:
        if each == NO_OBJECT:
            continue
        if each not in annotations:
            raise InputError(f"{path}: {_called(ref)} is of annotation {each}, which instances.json lacks", path)
        yield annotations[each]


def _called(ref: Mapping[str, Any]) -> str:
    return f"expression {ref.get('ref_id', 'without ref_id')}"


def _sample(item: Referred, path: Path, unions: bool) -> Sample:
    """`unions`: phrases may mean nothing or several things, and the data set counts the former apart."""
    parts = ("target" if item.annotations else "no_target",) if unions else ()
    return item.picture.sample("refseg", [item.phrase], partial(_truth, item, path), item.request, parts=parts)


def _truth(item: Referred, path: Path) -> FrameTruth:
    size = item.picture.size
    marked = (
        Marked(decode_mask(each["segmentation"], size, path, called(each)), identity=each["id"])
        for each in item.annotations
    )
    return frame_truth(marked, size)


# ---- pickles ----------------------------------------------------------------------------------------------


class _PlainUnpickler(pickle.Unpickler):
    """Reads numbers, text, lists, tuples and dicts; a pickle that asks for any class or function is refused."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, which could run code")


def read_pickle(path: Path) -> Any:
    """The value of a pickle made of plain containers. Raises InputError when it is missing, damaged or holds more."""
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise missing(path) from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}", path) from error
    try:
        return _PlainUnpickler(io.BytesIO(data), encoding="utf-8").load()
    except (
        pickle.UnpicklingError,
        EOFError,
        ValueError,
        TypeError,
        LookupError,
        AttributeError,
        OverflowError,
        MemoryError,
    ) as error:
        raise InputError(f"{path} is no pickle of plain lists ({error}): download it again", path) from error


# ---- miniatures -------------------------------------------------------------------------------------------

IDS = {"person": 1, "dog": 18}
PICTURE_NAME = "COCO_train2014_{:012d}"
# Number of the picture, split, places of the things meant, sentences.
SAID: tuple[tuple[int, str, tuple[int, ...], tuple[str, ...]], ...] = (
    (0, "val", (0,), ("Left person", "the one on the left")),
    (0, "val", (1,), ("the dog between them",)),
    (0, "val", (0, 2), ("both people",)),
    (1, "val", (), ("a red kite",)),
    (2, "test", (1,), ("dog", "the animal")),
    (1, "train", (0,), ("the dog",)),
)


def _write_miniature(root: Path, seed: int, of: Expressions) -> None:
    drawn = scenes(seed)
    write_photographs(drawn, root / PICTURES, PICTURE_NAME)
    annotations = instance_records(drawn, IDS)
    table = {
        "images": image_records(drawn, PICTURE_NAME),
        "annotations": annotations,
        "categories": category_records(IDS),
    }
    write_json(table, root / of.folder / "instances.json")
    refs = list(_refs(annotations, of))
    path = root / of.folder / of.files[0]
    if path.suffix == ".json":
        write_json(refs, path)
    else:
        path.write_bytes(pickle.dumps(refs, protocol=2))


def _refs(annotations: Iterable[Mapping[str, Any]], of: Expressions) -> Iterator[dict[str, Any]]:
    """The expressions the data set can hold: only gRefCOCO's may mean nothing or several things."""
    several = of.layout == "grefcoco"
    for number, (scene, split, places, sentences) in enumerate(SAID):
        if not several and len(places) != 1:
            continue
        things = [each for each in annotations if each["image_id"] == scene + 1]
        meant = [things[place]["id"] for place in places]
        classes = [things[place]["category_id"] for place in places]
        yield {
            "ref_id": number,
            "image_id": scene + 1,
            "file_name": f"{PICTURE_NAME.format(scene)}.jpg",
            "split": next(each for each in of.splits if each.startswith(split)),
            "ann_id": (meant or [NO_OBJECT]) if several else meant[0],
            "category_id": classes if several else classes[0],
            "sentences": [
                {"sent_id": 10 * number + place, "raw": said, "sent": said.lower(), "tokens": said.lower().split()}
                for place, said in enumerate(sentences)
            ],
        }


LAYOUTS = tuple(
    Layout(
        each.layout,
        f"{each.title} referring segmentation",
        each.splits,
        partial(open_expressions, of=each),
        partial(_write_miniature, of=each),
    )
    for each in SETS
)
