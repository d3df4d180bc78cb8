"""COCO 2017 panoptic, semantic and instances: layouts and miniatures. `root` is the folder `coco2017`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from x2roto.data.annotations import write_json, write_panoptic, write_picture
from x2roto.data.image.classes import VOID_LABEL, ClassFiles, open_instances, open_panoptic, open_semantic
from x2roto.data.image.scenes import (
    GRASS,
    SKY,
    Scene,
    coco_box,
    image_records,
    instance_records,
    scenes,
    write_photographs,
)
from x2roto.data.listed import Listed
from x2roto.data.names import chosen
from x2roto.data.sample import Layout, PromptKind

SPLITS = {"val": "val2017", "train": "train2017"}
# The classes of the miniature by their real ids; the kite is never seen.
THINGS = {"person": 1, "dog": 18, "kite": 38}
STUFF = {"sky-other-merged": 187, "grass-merged": 193}
PICTURE_NAME = "{:012d}"


def _open_panoptic(root: Path, split: str, prompt: PromptKind | None) -> Listed:
    return open_panoptic(_files(root, split, "coco_panoptic", "panoptic", "panoptic"))


def _open_semantic(root: Path, split: str, prompt: PromptKind | None) -> Listed:
    return open_semantic(_files(root, split, "coco_semantic", "panoptic", "panoptic_semseg"))


def _open_instances(root: Path, split: str, prompt: PromptKind | None) -> Listed:
    return open_instances(_files(root, split, "coco_instance", "instances", None))


def _files(root: Path, split: str, name: str, table: str, maps: str | None) -> ClassFiles:
    part = chosen(split, SPLITS, name)
    folder = None if maps is None else root / f"{maps}_{part}"
    return ClassFiles(name, "genseg", root / "annotations" / f"{table}_{part}.json", root / part, folder)


# ---- miniatures -------------------------------------------------------------------------------------------


def write_instances(root: Path, seed: int) -> None:
    """`val2017` and `annotations/instances_val2017.json`."""
    drawn = scenes(seed)
    write_photographs(drawn, root / "val2017", PICTURE_NAME)
    table = {
        "images": image_records(drawn, PICTURE_NAME),
        "annotations": instance_records(drawn, THINGS),
        "categories": category_records(THINGS),
    }
    write_json(table, root / "annotations" / "instances_val2017.json")


def _write_panoptic(root: Path, seed: int) -> None:
    """Photographs, the panoptic table, and both kinds of PNG, as they come together."""
    drawn = scenes(seed)
    categories = [*category_records(THINGS), *category_records(STUFF, thing=False)]
    ids = {**THINGS, **STUFF}
    write_photographs(drawn, root / "val2017", PICTURE_NAME)
    annotations = [write_segments(scene, ids, root / "panoptic_val2017", PICTURE_NAME) for scene in drawn]
    write_labels(drawn, list(ids), root / "panoptic_semseg_val2017", PICTURE_NAME)
    table = {
        "images": image_records(drawn, PICTURE_NAME),
        "annotations": annotations,
        "categories": categories,
    }
    write_json(table, root / "annotations" / "panoptic_val2017.json")


def category_records(ids: Mapping[str, int], thing: bool = True) -> list[dict[str, Any]]:
    """The `categories` of a COCO table."""
    return [{"id": number, "name": name, "isthing": int(thing)} for name, number in ids.items()]


def write_segments(scene: Scene, ids: Mapping[str, int], folder: Path, name: str) -> dict[str, Any]:
    """The panoptic PNG of a scene; gives its record. `ids`: of the classes by noun, the last two sky and grass."""
    sky, grass = list(ids.values())[-2:]
    regions = [(scene.background(SKY), sky, False), (scene.background(GRASS), grass, False)]
    for number, thing in enumerate(scene.things):
        regions.append((scene.visible(number), ids[thing.noun], thing.crowd))
    file = f"{name.format(scene.number)}.png"
    painted = np.zeros(scene.size, np.int64)
    segments = []
    for place, (mask, category, crowd) in enumerate(regions, 1):
        # All three channels of the PNG hold something.
        segment = place + 256 * (40 + place) + 65536 * (90 + scene.number)
        painted[mask] = segment
        segments.append(
            {
                "id": segment,
                "category_id": category,
                "iscrowd": int(crowd),
                "area": int(mask.sum()),
                "bbox": coco_box(mask),
            }
        )
    write_panoptic(painted, folder / file)
    return {"image_id": scene.number + 1, "file_name": file, "segments_info": segments}


def write_labels(drawn: Iterable[Scene], nouns: Sequence[str], folder: Path, name: str) -> None:
    """The label PNG of each scene: places of the classes in `nouns`, the last two sky and grass, 255 for void."""
    sky, grass = len(nouns) - 2, len(nouns) - 1
    for scene in drawn:
        labels = np.select([scene.stuff == SKY, scene.stuff == GRASS], [sky, grass], VOID_LABEL)
        for thing in scene.things:
            labels[thing.mask] = nouns.index(thing.noun)
        write_picture(labels.astype(np.uint8), folder / f"{name.format(scene.number)}.png")


_BOTH = tuple(SPLITS)
LAYOUTS = (
    Layout("coco_panoptic", "COCO 2017 panoptic segmentation", _BOTH, _open_panoptic, _write_panoptic),
    Layout("coco_semantic", "COCO 2017 semantic segmentation", _BOTH, _open_semantic, _write_panoptic),
    Layout("coco_instance", "COCO 2017 instance segmentation", _BOTH, _open_instances, write_instances),
)
