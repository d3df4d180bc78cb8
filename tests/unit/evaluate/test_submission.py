"""Submissions read back by the data sets' own rules: perfect predictions are the annotations."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from tests.unit.evaluate.conftest import Miniature
from x2roto.data.annotations import decode_mask, read_json, read_labels, read_panoptic
from x2roto.data.sample import Sample
from x2roto.engine.segmenter import Segmenter
from x2roto.errors import PromptError
from x2roto.evaluate.benchmarks import BENCHMARKS, Mode
from x2roto.evaluate.runner import Choices, Work, evaluate, opened
from x2roto.evaluate.store import Whole
from x2roto.evaluate.submission import FORMATS, write_submission
from x2roto.export.davis import palette

pytestmark = pytest.mark.usefixtures("oracle")


@pytest.fixture
def submit(miniature: Miniature, segmenter: Segmenter, tmp_path: Path) -> Any:
    """Write the submission of a benchmark; gives what was run and the folder."""

    def written(name: str, mode: Mode = "standard") -> tuple[Work, Path]:
        work = opened(Choices(name, miniature(name), mode=mode))
        store = evaluate(work, segmenter, tmp_path / name)
        write_submission(Whole.of([store]), work, tmp_path / "files")
        return work, tmp_path / "files"

    return written


def samples(work: Work) -> list[Sample]:
    return [work.dataset[index] for index in range(work.count)]


def rows(folder: Path) -> list[dict[str, Any]]:
    return json.loads((folder / "results.json").read_text())


def united(sample: Sample, frame: int = 0) -> NDArray[np.bool_]:
    return sample.truth(frame).masks.any(0)


def test_every_format_is_used() -> None:
    assert {row.format for row in BENCHMARKS.values()} == FORMATS.keys()


@pytest.mark.parametrize(("name", "inside"), [("davis17", "Annotations/480p"), ("ytvos19", "valid/Annotations")])
def test_objects_are_the_annotations(name: str, inside: str, submit: Any, miniature: Miniature) -> None:
    work, folder = submit(name)
    for sample in samples(work):
        clip, _, number = sample.key.rpartition("/")
        for frame, picture in enumerate(sample.names):
            with Image.open(folder / "Annotations" / clip / f"{picture}.png") as written:
                assert written.getpalette()[: 3 * 256] == palette()
                labels = np.asarray(written)
            if frame >= sample.prompt_frame:
                true = read_labels(miniature(name) / inside / clip / f"{picture}.png", sample.size)
                np.testing.assert_array_equal(labels == int(number), true == int(number))


def test_one_object_a_video_is_number_one(submit: Any) -> None:
    work, folder = submit("davis16")
    for sample in samples(work):
        for frame, picture in enumerate(sample.names):
            labels = read_labels(folder / "Annotations" / sample.key / f"{picture}.png", sample.size)
            np.testing.assert_array_equal(labels, united(sample, frame))


@pytest.mark.parametrize("name", ["ref_ytvos", "ref_davis17", "revos", "sa_v"])
def test_folders_are_the_annotations(name: str, submit: Any) -> None:
    work, folder = submit(name)
    for sample in samples(work):
        for frame in range(sample.prompt_frame, len(sample.names)):
            labels = read_labels(folder / "Annotations" / sample.key / f"{sample.names[frame]}.png", sample.size)
            wanted = united(sample, frame) if sample.annotated[frame] else np.zeros(sample.size)
            np.testing.assert_array_equal(labels, 255 * wanted)


@pytest.mark.parametrize("name", ["coco_semantic", "vspw"])
def test_labels_are_the_classes(name: str, submit: Any) -> None:
    work, folder = submit(name)
    for sample in samples(work):
        for frame, picture in enumerate(sample.names):
            path = folder / f"{picture}.png" if name == "coco_semantic" else folder / sample.key / f"{picture}.png"
            labels, truth = read_labels(path, sample.size), sample.truth(frame)
            for mask, condition in zip(truth.masks, truth.condition, strict=True):
                assert (labels[mask] == condition).all()
            assert (labels[~truth.masks.any(0)] == 255).all()


def test_panoptic_pictures_and_their_table(submit: Any) -> None:
    work, folder = submit("coco_panoptic")
    table = read_json(folder / "panoptic.json")["annotations"]
    ids = [image["id"] for image in read_json(next(work.choices.data.rglob("panoptic_val2017.json")))["images"]]
    assert sorted(each["image_id"] for each in table) == sorted(ids)
    for sample, entry in zip(samples(work), table, strict=True):
        check_panoptic(read_panoptic(folder / entry["file_name"], sample.size), entry["segments_info"], sample)


def test_panoptic_videos_and_their_table(submit: Any) -> None:
    work, folder = submit("vipseg")
    table = read_json(folder / "panoptic.json")["annotations"]
    assert [each["video_id"] for each in table] == [sample.key for sample in samples(work)]
    for sample, video in zip(samples(work), table, strict=True):
        for frame, entry in enumerate(video["annotations"]):
            ids = read_panoptic(folder / sample.key / entry["file_name"], sample.size)
            check_panoptic(ids, entry["segments_info"], sample, frame)


def check_panoptic(ids: NDArray[np.int64], segments: list[dict[str, Any]], sample: Sample, frame: int = 0) -> None:
    truth = sample.truth(frame)
    listed = {segment["id"]: segment for segment in segments}
    assert set(np.unique(ids)) - {0} == set(listed)
    for mask, condition in zip(truth.masks, truth.condition, strict=True):
        (number,) = np.unique(ids[mask])
        assert listed[number]["category_id"] == sample.categories[condition].id
        assert listed[number]["isthing"] == sample.categories[condition].thing


@pytest.mark.parametrize(
    ("name", "table"),
    [
        ("coco_instance", "annotations/instances_val2017.json"),
        ("ade20k_instance", "ade20k_instance_val.json"),
    ],
)
def test_cocos_own_tool_reads_results(name: str, table: str, submit: Any) -> None:
    work, folder = submit(name)
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(work.choices.data / table))
        evaluator = COCOeval(truth, truth.loadRes(str(folder / "results.json")), "segm")
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    assert evaluator.stats[1] == pytest.approx(1.0)


def test_classes_shown_by_regions_have_the_data_sets_numbers(submit: Any) -> None:
    work, folder = submit("coco_vgd")
    table = read_json(work.choices.data / "coco2017/annotations/instances_val2017.json")
    true = {(row["image_id"], row["category_id"]) for row in table["annotations"]}
    assert rows(folder)
    assert {(row["image_id"], row["category_id"]) for row in rows(folder)} <= true


def test_tracks_have_the_data_sets_numbers(submit: Any) -> None:
    work, folder = submit("ytvis19")
    (path,) = work.choices.data.rglob("valid.json")
    table = read_json(path)
    wanted = {(row["video_id"], row["category_id"], str(row["segmentations"])) for row in table["annotations"]}
    assert {(row["video_id"], row["category_id"], str(row["segmentations"])) for row in rows(folder)} == wanted
    assert {row["score"] for row in rows(folder)} == {1.0}


def test_reference_mode_has_no_tracks(submit: Any) -> None:
    with pytest.raises(PromptError, match="reference mode does not link objects over time"):
        submit("ytvis19", "reference")


@pytest.mark.parametrize("name", ["refcoco", "reasonseg", "coco_int"])
def test_requests_have_their_masks(name: str, submit: Any) -> None:
    work, folder = submit(name)
    found = {row["request"]: row["segmentation"] for row in rows(folder)}
    for sample in samples(work):
        mask = decode_mask(found[sample.key], sample.size, folder, sample.key)
        np.testing.assert_array_equal(mask, united(sample))


def test_captions_have_their_phrases(submit: Any) -> None:
    work, folder = submit("vidstg_gcg")
    for sample, row in zip(samples(work), rows(folder), strict=True):
        assert row["request"] == sample.key
        assert row["answers"]["0"]["phrases"] == ["a round shape", "two others"]
        assert [each["frame"] for each in row["frames"]] == list(sample.names)
        assert {mask["condition"] for each in row["frames"] for mask in each["masks"]} == {0, 1}
