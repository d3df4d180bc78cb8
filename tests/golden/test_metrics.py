"""The measures of evaluation against the reference's values, in its own protocol where that differs."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.golden.folder import cases
from x2roto.data.sample import Category
from x2roto.evaluate.metrics.boundary import RegionBoundary, boundary, boundary_radius
from x2roto.evaluate.metrics.caption import CaptionScores, answered_caption, cider, meteor, tokens
from x2roto.evaluate.metrics.grounded import PairedIoU, phrase_pairs
from x2roto.evaluate.metrics.panoptic import PanopticQuality, Segment, Segments, VideoPanopticQuality
from x2roto.evaluate.metrics.region import MaskIoU, pairwise_iou
from x2roto.evaluate.metrics.semantic import IGNORE, SemanticIoU, VideoConsistency
from x2roto.evaluate.metrics.tracking import SegmentationTrackingQuality

FILES = cases("tasks", "metrics")
close = partial(pytest.approx, abs=1e-6)

if not FILES:
    pytest.skip("no golden data for metrics", allow_module_level=True)


def arrays(path: Path) -> dict[str, NDArray[Any]]:
    with np.load(path) as stored:
        return {name: stored[name] for name in stored.files}


def masks(path: Path, *names: str) -> tuple[NDArray[np.bool_], ...]:
    stored = arrays(path)
    return tuple(stored[name].astype(bool) for name in names)


# ---- masks


def check_ciou(path: Path, case: dict[str, Any]) -> None:
    truth, found = masks(path.with_name("jf.npz"), "gt", "pred")
    check_region(case, truth, found, np.zeros(truth.shape[1:], bool))
    (ignored,) = masks(path.with_suffix(".npz"), "ignore")
    check_region(case["with_ignore"], truth, found, ignored)


def check_region(
    case: dict[str, Any], truth: NDArray[np.bool_], found: NDArray[np.bool_], ignored: NDArray[np.bool_]
) -> None:
    # The reference counts what is not the object as a class as well, the first.
    for label, flip in enumerate((True, False)):
        metric = MaskIoU()
        for pair in zip(truth ^ flip, found ^ flip, case["inter_union"], strict=False):
            metric.add(*pair[:2], ignored)
            shared, wanted, given = metric.counts[-1]
            assert [shared, wanted + given - shared] == [pair[2][0][label], pair[2][1][label]]
        assert len(metric.counts) == len(case["inter_union"])
        result = metric.result()
        assert (result["cIoU"] * 100, result["gIoU"] * 100) == close((case["cIoU"][label], case["gIoU"][label]))


def check_boundary(path: Path, case: dict[str, Any]) -> None:
    names = "gt", "pred", "boundary_gt", "big_gt", "big_pred"
    truth, found, edges, big_truth, big_found = masks(path.with_suffix(".npz"), *names)
    assert [boundary_radius(mask.shape) for mask in (truth[0], big_truth)] == case["tolerance_px"]
    metric = RegionBoundary(reference=True)
    for index, (wanted, given, edge) in enumerate(zip(truth, found, edges, strict=True)):
        np.testing.assert_array_equal(boundary(wanted), edge)
        metric.add(str(index), wanted, given)
    values = np.array([pairs[0] for pairs in metric.values.values()])
    np.testing.assert_allclose(values, np.stack([case["J"], case["F"]], 1), atol=1e-6)
    pooled = case["pooled"]
    assert metric.result() == close({"J": pooled["J"], "F": pooled["F"], "J&F": pooled["JF"]})
    assert len(metric.values) == pooled["n"]
    single = RegionBoundary()
    single.add("big", big_truth, big_found)
    assert {name: single.result()[name] for name in "JF"} == close(case["big"])


# ---- class maps


def check_semantic(path: Path, case: dict[str, Any]) -> None:
    stored = arrays(path.with_suffix(".npz"))
    metric = SemanticIoU(case["num_classes"], reference=True)
    for truth, found in zip(stored["gt"], stored["pred"], strict=True):
        metric.add(truth, found)
    np.testing.assert_array_equal(metric.confusion, stored["confusion"])
    assert {name: f"{value * 100:.2f}" for name, value in metric.result().items()} == case["printed"]


def check_consistency(path: Path, case: dict[str, Any]) -> None:
    stored = arrays(path.with_suffix(".npz"))
    metric = VideoConsistency([int(length) for length in case["mVC"]], reference=True)
    for clip in range(sum(name.startswith("gt") for name in stored)):
        for truth, found in zip(stored[f"gt{clip}"], stored[f"pred{clip}"], strict=True):
            metric.add(str(clip), truth, found)
    for length, values in case["per_window"].items():
        assert len(values) == case["n_windows"][length]
        assert metric.values[int(length)] == close(values)
    assert metric.result() == close({f"mVC{length}": value for length, value in case["mVC"].items()})


# ---- panoptic


def check_panoptic(path: Path, case: dict[str, Any]) -> None:
    stored = arrays(path.with_suffix(".npz"))
    categories = [Category(row["id"], row["name"], bool(row["isthing"])) for row in case["categories"]]
    rows = case["STQ_args"]
    assert rows["ignore_value"] == IGNORE
    image = PanopticQuality(categories, reference=True)
    lengths = [int(name.removeprefix("VPQ")) for name in case["VPQ"]]
    video = VideoPanopticQuality(categories, lengths, reference=True)
    tracking = SegmentationTrackingQuality(categories, reference=True, classes=rows["num_classes"])
    for clip, truth, found in panoptic_frames(case, stored):
        image.add(truth, found)
        video.add(clip, truth, found)
        tracking.add(clip, truth, found)
    check_quality(image, case["PQ_per_frame"])
    for length in lengths:
        check_quality(video.qualities[length], case["VPQ"][f"VPQ{length}"])
    means = {"VPQ": "All", "VPQ_th": "Things", "VPQ_st": "Stuff"}
    result = video.result()
    assert {group: result[name] for name, group in means.items()} == close(case["VPQ_avg"])
    check_tracking(tracking, case["STQ"])


def panoptic_frames(
    case: dict[str, Any], stored: dict[str, NDArray[Any]]
) -> Iterator[tuple[str, Segments, Segments]]:
    for row in case["videos"]:
        clip = row["video"]
        for index, sides in enumerate(zip(row["gt"], row["pred"], strict=True)):
            truth, found = (
                Segments.of_ids(
                    stored[f"{side}_{clip}_{index}"],
                    [Segment(one["id"], one["category_id"], bool(one["iscrowd"])) for one in listed],
                )
                for side, listed in zip(("gt", "pred"), sides, strict=True)
            )
            yield clip, truth, found


def check_quality(metric: PanopticQuality, expected: dict[str, Any]) -> None:
    result, classes = metric.result(), metric.per_class()
    for group, suffix in {"All": "", "Things": "_th", "Stuff": "_st"}.items():
        found = {name: result[name.upper() + suffix] for name in ("pq", "sq", "rq")}
        number = sum(group == "All" or metric.things[id] == (group == "Things") for id in classes)
        assert {**found, "n": number} == close(expected[group])
    for id, row in expected.get("per_class", {}).items():
        tally = metric.tallies[int(id)]
        assert (tally.hits, tally.false, tally.missed) == (row["tp"], row["fp"], row["fn"])
        assert tally.iou == close(row["iou"])


def check_tracking(metric: SegmentationTrackingQuality, expected: dict[str, Any]) -> None:
    result, clips = metric.result(), metric.per_clip()
    for name, other in {"STQ": "STQ", "AQ": "AQ", "SQ": "IoU"}.items():
        assert result[name] == close(expected[other])
        assert [clips[clip][name] for clip in expected["ID_per_seq"]] == close(expected[f"{other}_per_seq"])


# ---- average precision


def check_precision(path: Path, case: dict[str, Any]) -> None:
    rle = pytest.importorskip("pycocotools.mask", reason="average precision needs pycocotools")
    from x2roto.evaluate.metrics.average_precision import FoundInstances, FramePrecision, TrueInstances

    metric = FramePrecision([row["id"] for row in case["gt"]["categories"]], reference=True)
    for image in case["gt"]["images"]:
        truth, found = (
            [row for row in rows if row["image_id"] == image["id"]]
            for rows in (case["gt"]["annotations"], case["predictions"])
        )
        shapes = [
            rle.decode([row["segmentation"] for row in rows]).transpose(2, 0, 1) > 0
            if rows
            else np.zeros((0, image["height"], image["width"]), bool)
            for rows in (truth, found)
        ]
        classes = [np.array([row["category_id"] for row in rows], np.int64) for rows in (truth, found)]
        crowd = np.array([bool(row["iscrowd"]) for row in truth])
        sizes = np.array([float(row["area"]) for row in truth])
        scores = np.array([row["score"] for row in found])
        metric.add(
            image["id"],
            TrueInstances(shapes[0], classes[0], crowd, np.arange(len(truth)), sizes),
            FoundInstances(shapes[1], classes[1], scores, np.arange(len(found))),
        )
    result = metric.result()
    assert list(result) == [name.replace("@", "") for name in case["stats_order"]]
    expected = [value if value >= 0 else float("nan") for value in case["stats"]]
    assert list(result.values()) == pytest.approx(expected, abs=1e-6, nan_ok=True)


def check_frames(path: Path, case: dict[str, Any]) -> None:
    pytest.importorskip("pycocotools.mask", reason="average precision needs pycocotools")
    from x2roto.evaluate.metrics.average_precision import FoundInstances, FramePrecision, TrueInstances

    stored = arrays(path.with_suffix(".npz"))
    high, wide = case["mask_hw"]
    named = {label for clip in case["classes"] for frame in clip for side in ("gt", "pred") for label in frame[side]}
    unit: dict[str, Callable[[int, int], str | int]] = {
        "restarting_ids": lambda clip, index: index,
        "unique_ids": lambda clip, index: 1000 * clip + index,
    }
    for mode, expected in case["percent"].items():
        metric = FramePrecision(sorted(named), reference=True)
        for clip, frames in enumerate(case["classes"]):
            for index, frame in enumerate(frames):
                truth, found = (
                    np.unpackbits(stored[f"{side}_{clip}_{index}"], axis=1)[:, : high * wide]
                    .reshape(-1, high, wide)
                    .astype(bool)
                    for side in ("gt", "pred")
                )
                classes, guesses = (np.array(frame[side], np.int64) for side in ("gt", "pred"))
                order = np.arange(len(truth))
                metric.add(
                    unit[mode](clip, index),
                    TrueInstances(truth, classes, np.zeros(len(truth), bool), order),
                    FoundInstances(found, guesses, np.array(frame["score"]), np.arange(len(found))),
                )
        result = metric.result()
        assert {name: f"{result[name] * 100:.2f}" for name in expected} == expected


# ---- grounded description


def check_grounded(path: Path, case: dict[str, Any]) -> None:
    truth, found = masks(path.with_suffix(".npz"), "gt", "pred")
    iou = pairwise_iou(truth, found)
    np.testing.assert_allclose(iou, case["iou_matrix"], atol=1e-6)
    for prediction, expected in ((found, case["miou"]), (found[:0], case["miou_empty_pred"])):
        metric = PairedIoU()
        metric.add(truth, prediction)
        assert metric.result() == close({"mIoU": expected})
    for row in case["recall_matching"]["cases"]:
        pairs = phrase_pairs(iou, np.array(row["text_sims"]), reference=True)
        assert [list(pair) for pair in pairs] == row["matches"]


def check_clean(path: Path, case: dict[str, Any]) -> None:
    for row in case["cases"]:
        assert answered_caption(row["text"]) == row["caption"]


def check_caption(path: Path, case: dict[str, Any]) -> None:
    pytest.importorskip("pycocoevalcap", reason="METEOR and CIDEr need pycocoevalcap")
    texts, middle = [*case["references"], *case["hypotheses"]], len(case["references"])
    plain = [" ".join(re.findall(r"\w+", text.lower())) for text in texts]
    simple = all(re.fullmatch(r"[\w ]*[.]?", text) for text in texts)
    if simple:
        # Of such texts the tokens are known without Java, so that CIDEr is checked everywhere.
        check_scores(case, "CIDEr", cider(plain[:middle], plain[middle:]))
    if shutil.which("java") is None:
        pytest.skip("METEOR, and tokens in general, need Java")
    split = tokens(texts)
    assert not simple or split == plain
    check_scores(case, "CIDEr", cider(split[:middle], split[middle:]))
    check_scores(case, "METEOR", meteor(split[:middle], split[middle:]))
    assert not CaptionScores().absent()


def check_scores(case: dict[str, Any], name: str, scores: tuple[float, list[float]]) -> None:
    assert scores[0] == close(case[name])
    assert scores[1] == close([row[name] for row in case["per_item"]])


CHECKS: dict[str, Callable[[Path, dict[str, Any]], None]] = {
    "cIoU": check_ciou,
    "J, F": check_boundary,
    "semantic mIoU": check_semantic,
    "mVC": check_consistency,
    "PQ, VPQ": check_panoptic,
    "COCO mask AP": check_precision,
    "video instance AP": check_frames,
    "GCG mask": check_grounded,
    "caption clean-up": check_clean,
    "METEOR": check_caption,
}


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools' decode
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_metrics_equal_the_reference(path: Path) -> None:
    case = json.loads(path.read_text())
    checks = [check for kind, check in CHECKS.items() if case["kind"].startswith(kind)]
    assert len(checks) == 1, f"{path.name} is of unknown kind {case['kind']!r}"
    checks[0](path, case)
