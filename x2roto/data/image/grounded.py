"""A description of a picture with a mask for each thing it names: GranD-f. `root` is the folder `grand_f`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from x2roto.data.annotations import (
    decode_mask,
    encode_mask,
    field,
    image_size,
    indexed,
    read_json,
    records,
    write_json,
)
from x2roto.data.image.pictures import Identifier, Picture, by_picture, called, check_pictures, some
from x2roto.data.image.scenes import GRASS, Mask, Scene, coco_box, scenes, write_photographs
from x2roto.data.listed import Listed
from x2roto.data.names import chosen
from x2roto.data.sample import FrameTruth, Layout, PromptKind, Sample
from x2roto.data.truth import Marked, frame_truth
from x2roto.engine.tasks import PHRASE_END, PHRASE_START
from x2roto.errors import InputError

SPLITS = ("val", "test")
PICTURES = Path("images") / "GranDf_HA_images" / "val_test"
ANNOTATIONS = Path("annotations") / "val_test"

Span = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Described:
    """A picture, its captions, the phrases of the first and the masks; mask k belongs to phrase k."""

    picture: Picture
    captions: tuple[str, ...]
    phrases: tuple[str, ...]
    annotations: Sequence[Mapping[str, Any]]


def open_grounded(root: Path, split: str, prompt: PromptKind | None) -> Listed:
    """A sample for each picture; its targets are the phrases in the order of the caption.

    Phrases that the caption does not spell out come after those, untagged; then a "" for each mask beyond the
    phrases. Raises InputError.
    """
    chosen(split, dict.fromkeys(SPLITS), "grandf")
    path = root / ANNOTATIONS / f"{split}_gcg_coco_mask_gt.json"
    table = read_json(path)
    images = indexed(records(table, "images", path), "id", path)
    pictures = {number: _picture(record, path, root) for number, record in images.items()}
    masks = by_picture(records(table, "annotations", path), pictures, path)
    for annotation in chain.from_iterable(masks.values()):
        field(annotation, "segmentation", (list, dict), path, called(annotation))
    items = list(_described(root / ANNOTATIONS / f"{split}_gcg_coco_caption_gt.json", pictures, masks))
    check_pictures(pictures.values(), root / PICTURES)
    return Listed("grandf", (), some(items, path), partial(_sample, path=path))


def _picture(record: Mapping[str, Any], path: Path, root: Path) -> Picture:
    """A picture is called as its id; its size is not always told."""
    name = field(record, "id", str, path, "an image")
    size = None if record.get("height") is None else image_size(record, path, f"image {name}")
    return Picture(name, root / PICTURES, f"{name}.jpg", size)


def _described(
    path: Path, pictures: Mapping[Identifier, Picture], masks: Mapping[Identifier, Sequence[Mapping[str, Any]]]
) -> Iterator[Described]:
    captions = by_picture(records(read_json(path), "annotations", path), pictures, path)
    for number, picture in pictures.items():
        if not captions[number]:
            raise InputError(f"{path}: image {number} has no caption: the two tables are not of the same split", path)
        said = tuple(field(each, "caption", str, path, called(each)) for each in captions[number])
        labels = field(captions[number][0], "labels", list, path, called(captions[number][0]))
        yield Described(picture, said, tuple(map(str, labels)), masks[number])


def _sample(item: Described, path: Path) -> Sample:
    spans = spans_of(item.captions[0], item.phrases)
    order = sorted(range(len(spans)), key=lambda place: spans[place] or (len(item.captions[0]), place))
    condition = {place: number for number, place in enumerate(order)}
    unnamed = max(0, len(item.annotations) - len(order))
    targets = [*(item.phrases[place] for place in order), *[""] * unnamed]
    captions = (tagged(item.captions[0], [span for span in spans if span]), *item.captions[1:])
    truth = partial(_truth, item, condition, path)
    return item.picture.sample("gcgseg", targets, truth, captions=captions)


def _truth(item: Described, condition: Mapping[int, int], path: Path) -> FrameTruth:
    size = item.picture.size
    marked = [
        Marked(decode_mask(each["segmentation"], size, path, called(each)), condition.get(place, place), place)
        for place, each in enumerate(item.annotations)
    ]
    return frame_truth(marked, size)


def spans_of(caption: str, phrases: Sequence[str]) -> list[Span | None]:
    """Where each phrase stands in the caption, as whole words in any case; repeated ones one after the other.

    None for a phrase that is not there, or only inside another one.
    """
    found: list[Span | None] = []
    for phrase in phrases:
        words = re.compile(rf"(?<!\w){re.escape(phrase.strip())}(?!\w)", re.IGNORECASE)
        free = (match.span() for match in words.finditer(caption) if not _taken(match.span(), found))
        found.append(next(free, None) if phrase.strip() else None)
    return found


def _taken(span: Span, found: Sequence[Span | None]) -> bool:
    return any(other is not None and span[0] < other[1] and other[0] < span[1] for other in found)


def tagged(caption: str, spans: Sequence[Span]) -> str:
    """The caption as it is, with `<p>` and `</p>` around each span."""
    for start, stop in sorted(spans, reverse=True):
        caption = f"{caption[:start]}{PHRASE_START}{caption[start:stop]}{PHRASE_END}{caption[stop:]}"
    return caption


# ---- miniature --------------------------------------------------------------------------------------------

PICTURE_NAME = "sa_{}"
CAPTIONS = (
    ("A dog stands between a person and A Person on the grass.", ("A person", "a dog", "a person", "the grass")),
    ("Dogs play in front of a crowd", ("dogs", "a crowd")),
    ("A person walks the dog home.", ("a person", "an animal")),
    ("There is nothing but sky.", ()),
)


def _write_miniature(root: Path, seed: int) -> None:
    """The first picture has every thing and the grass; the third a phrase that its caption says otherwise."""
    drawn = scenes(seed)
    write_photographs(drawn, root / PICTURES, PICTURE_NAME)
    images = [{"id": PICTURE_NAME.format(scene.number)} for scene in drawn]
    for record, scene in zip(images[:2], drawn, strict=False):
        record.update({"height": scene.size[0], "width": scene.size[1]})  # type: ignore[dict-item]
    masks = [(scene, mask) for scene in drawn for mask in masks_of(scene)]
    annotations = [
        {
            "id": number,
            "image_id": PICTURE_NAME.format(scene.number),
            "category_id": 1,
            "iscrowd": 0,
            "area": int(mask.sum()),
            "bbox": coco_box(mask),
            "segmentation": encode_mask(mask),
        }
        for number, (scene, mask) in enumerate(masks, 1)
    ]
    captions = [
        {"id": number, "image_id": PICTURE_NAME.format(number), "caption": caption, "labels": list(labels)}
        for number, (caption, labels) in enumerate(CAPTIONS)
    ]
    for split in SPLITS:
        of_masks = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "object"}]}
        write_json(of_masks, root / ANNOTATIONS / f"{split}_gcg_coco_mask_gt.json")
        of_captions = {"images": images, "annotations": captions}
        write_json(of_captions, root / ANNOTATIONS / f"{split}_gcg_coco_caption_gt.json")


def masks_of(scene: Scene) -> list[Mask]:
    """What the caption of a scene names, in the order of its labels."""
    things = [thing.mask for thing in scene.things]
    return [*things, scene.background(GRASS)] if scene.number == 0 else things


LAYOUTS = (Layout("grandf", "GranD-f grounded conversation", SPLITS, open_grounded, _write_miniature),)
