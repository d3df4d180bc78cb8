"""ADE20K panoptic, semantic and instances: layouts and miniatures. `root` is the folder `ade20k`."""

from __future__ import annotations

from pathlib import Path

from x2roto.data.annotations import write_json
from x2roto.data.image.classes import ClassFiles, open_instances, open_panoptic, open_semantic
from x2roto.data.image.coco import category_records, write_labels, write_segments
from x2roto.data.image.scenes import image_records, instance_records, scenes, write_photographs
from x2roto.data.listed import Listed
from x2roto.data.names import chosen
from x2roto.data.sample import Layout, PromptKind

SPLITS = {"val": "validation", "train": "training"}
# The classes of the miniatures: numbered from 0 in the panoptic table, things alone in the other.
PANOPTIC = {"person": 0, "dog": 1, "kite, toy": 2, "sky": 3, "grass": 4}
INSTANCES = {"person": 0, "dog": 1, "kite, toy": 2}
PICTURE_NAME = "ADE_val_{:08d}"


def _open_panoptic(root: Path, split: str, prompt: PromptKind | None) -> Listed:
    return open_panoptic(_files(root, split, "ade20k_panoptic", "panoptic", f"ade20k_panoptic_{split}"))


def _open_semantic(root: Path, split: str, prompt: PromptKind | None) -> Listed:
    folder = f"annotations_detectron2/{chosen(split, SPLITS, 'ade20k_semantic')}"
    return open_semantic(_files(root, split, "ade20k_semantic", "panoptic", folder))


def _open_instances(root: Path, split: str, prompt: PromptKind | None) -> Listed:
    return open_instances(_files(root, split, "ade20k_instance", "instance", None))


def _files(root: Path, split: str, name: str, table: str, maps: str | None) -> ClassFiles:
    pictures = root / "images" / chosen(split, SPLITS, name)
    folder = None if maps is None else root / maps
    return ClassFiles(name, "ovseg", root / f"ade20k_{table}_{split}.json", pictures, folder)


# ---- miniatures -------------------------------------------------------------------------------------------


def _write_panoptic(root: Path, seed: int) -> None:
    """Photographs, the panoptic table, and both kinds of PNG; here pictures are known by name."""
    drawn = scenes(seed)
    categories = [{**each, "isthing": int(each["id"] < 3)} for each in category_records(PANOPTIC)]
    write_photographs(drawn, root / "images" / "validation", PICTURE_NAME)
    annotations = [write_segments(scene, PANOPTIC, root / "ade20k_panoptic_val", PICTURE_NAME) for scene in drawn]
    write_labels(drawn, list(PANOPTIC), root / "annotations_detectron2" / "validation", PICTURE_NAME)
    pictures = image_records(drawn, PICTURE_NAME)
    for record in (*pictures, *annotations):
        record["id" if "id" in record else "image_id"] = record["file_name"].partition(".")[0]
    write_json(
        {"images": pictures, "annotations": annotations, "categories": categories}, root / "ade20k_panoptic_val.json"
    )


def _write_instances(root: Path, seed: int) -> None:
    drawn = scenes(seed)
    write_photographs(drawn, root / "images" / "validation", PICTURE_NAME)
    table = {
        "images": image_records(drawn, PICTURE_NAME),
        "annotations": instance_records(drawn, INSTANCES),
        "categories": [{"id": number, "name": name} for name, number in INSTANCES.items()],
    }
    write_json(table, root / "ade20k_instance_val.json")


_BOTH = tuple(SPLITS)
LAYOUTS = (
    Layout("ade20k_panoptic", "ADE20K panoptic segmentation", _BOTH, _open_panoptic, _write_panoptic),
    Layout("ade20k_semantic", "ADE20K semantic segmentation", _BOTH, _open_semantic, _write_panoptic),
    Layout("ade20k_instance", "ADE20K instance segmentation", _BOTH, _open_instances, _write_instances),
)
