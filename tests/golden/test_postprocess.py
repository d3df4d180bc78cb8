"""Every task's masks, scores and ids against the reference's; masks may differ in one pixel of a thousand."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.golden.folder import cases
from x2roto.engine.postprocess import (
    ColourIds,
    Geometry,
    Instances,
    LinkMemory,
    ObjectMemory,
    Panoptic,
    Segment,
    Selected,
    anchor_of,
    condition_average,
    flat_scores,
    fuse,
    generalised_referring,
    instances,
    interactive,
    label_map,
    link,
    panoptic,
    phrases,
    referring,
    resize_back,
    semantic,
    softmax_scores,
    video_object,
)

FILES = cases("tasks", "postprocess")
FLIPS = 1e-3
close = partial(torch.testing.assert_close, rtol=1e-5, atol=1e-5)

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Case:
    """A case file, its arrays, and the frames it holds, an image being one."""

    json: Row
    data: dict[str, Tensor]

    @property
    def is_video(self) -> bool:
        return str(self.json["kind"]).startswith("vid")

    @property
    def geometry(self) -> Geometry:
        given = self.json["inputs"]
        height, width = self.data["masks_queries_logits"].shape[-2:]
        return Geometry(tuple(given["image_size"]), tuple(given["scaled_size"]), (height, width))

    def frames(self) -> list[tuple[Tensor, Tensor]]:
        """Scores and mask logits of each frame."""
        pairs = zip(self.data["class_queries_logits"], self.data["masks_queries_logits"], strict=True)
        return [(softmax_scores(classes), logits) for classes, logits in pairs]

    def of_frames(self, stored: Any) -> list[Any]:
        """What is stored of a video frame by frame; of an image it is stored bare."""
        return list(stored) if self.is_video else [stored]

    def maps(self, name: str) -> list[Tensor]:
        stored = self.data[name]
        return list(stored if self.is_video else stored[None])


def same_map(got: Tensor, want: Tensor) -> None:
    assert got.shape == want.shape
    assert (got.long() != want.long()).float().mean() <= FLIPS


def same_selected(got: Selected, want: Tensor, score: float) -> None:
    same_map(torch.where(got.mask, 1, 255), want)
    assert got.score == pytest.approx(score, abs=1e-5)


def same_instances(got: Instances, want: Row, size: tuple[int, int]) -> None:
    slack = FLIPS * size[0] * size[1]
    areas = got.masks.flatten(1).sum(1)
    assert (got.scores.diff() <= 0).all()
    # Equal scores are stored by class and area.
    order = np.lexsort((areas, got.classes, -got.scores))
    assert len(order) == want["n"]
    assert got.classes[order].tolist() == want["classes"]
    close(got.scores[order], torch.tensor(want["scores"]))
    torch.testing.assert_close(areas[order], torch.tensor(want["areas"]).long(), rtol=0, atol=slack)
    torch.testing.assert_close(got.boxes[order].float(), torch.tensor(want["boxes"]).reshape(-1, 4), rtol=0, atol=1)


def same_segments(got: Sequence[Segment], want: list[Row], size: tuple[int, int]) -> None:
    slack = FLIPS * size[0] * size[1]
    assert [(s.id, s.category, s.is_thing) for s in got] == [
        (row["id"], row["category_id"], row["isthing"]) for row in want
    ]
    assert [s.score for s in got] == pytest.approx([row["score"] for row in want], abs=1e-5)
    assert [s.area for s in got] == pytest.approx([row["area"] for row in want], abs=slack)


def same_but_for_ids(got: Panoptic, want: list[Row], size: tuple[int, int]) -> None:
    """The segments of the reference, stuff joined, each with an id and pixels of its own."""
    slack = FLIPS * size[0] * size[1]
    assert len({s.id for s in got.segments}) == len(got.segments)
    assert all(int((got.id_map == s.id).sum()) == s.area for s in got.segments)
    ours = sorted((s.category, s.score, s.area) for s in got.segments if s.is_thing)
    theirs = sorted((row["category_id"], row["score"], row["area"]) for row in want if row["isthing"])
    for index, tolerance in enumerate((0, 1e-5, slack)):
        assert [s[index] for s in ours] == pytest.approx([row[index] for row in theirs], abs=tolerance)
    areas: Counter[int] = Counter()
    for row in want:
        areas.update({} if row["isthing"] else {row["category_id"]: row["area"]})
    stuff = {s.category: s.area for s in got.segments if not s.is_thing}
    assert stuff == pytest.approx(dict(areas), abs=slack)


def thresholds(case: Case, prefix: str) -> dict[str, float]:
    """Key to threshold of all results whose key is `prefix` and a number."""
    keys = [key for key in case.json if key.startswith(prefix) and not key.endswith("_count")]
    assert keys
    return {key: float(key.removeprefix(prefix)) for key in keys}


def in_a_shot(case: Case, segmented: Iterable[Panoptic], threshold: float, *, reference: bool) -> list[Panoptic]:
    """Linked through the shot, if it is one. The reference skips frames without candidates."""
    memory, linked = LinkMemory(), []
    for (scores, _), frame in zip(case.frames(), segmented, strict=True):
        if case.is_video and (not reference or (scores > threshold).any()):
            frame, memory = link(frame, memory, reference=reference)
        linked.append(frame)
    return linked


def segmented(case: Case, threshold: float, **how: Any) -> list[Panoptic]:
    return [
        panoptic(scores, logits, case.geometry, stuff=case.json["stuff_ids"], threshold=threshold, **how)
        for scores, logits in case.frames()
    ]


def check_generic(case: Case) -> None:
    size, geometry = case.geometry.frame, case.geometry
    for (scores, logits), want in zip(case.frames(), case.maps("sem_seg"), strict=True):
        same_map(semantic(scores, logits, geometry), want)
    for key, threshold in thresholds(case, "ins_instances_thr").items():
        things = case.json["thing_ids"]
        for (scores, logits), want in zip(case.frames(), case.of_frames(case.json[key]), strict=True):
            same_instances(instances(scores, logits, geometry, threshold=threshold, things=things), want, size)
    for key, threshold in thresholds(case, "pan_segments_thr").items():
        check_panoptic(case, threshold, case.of_frames(case.json[key]), case.maps(key.replace("segments", "seg")))
    if "id_generator" in case.json:
        check_generated_ids(case)


def check_panoptic(case: Case, threshold: float, segments: list[list[Row]], maps: list[Tensor]) -> None:
    size = case.geometry.frame
    theirs = in_a_shot(case, segmented(case, threshold, reference=True), threshold, reference=True)
    ours = in_a_shot(case, segmented(case, threshold), threshold, reference=False)
    for parity, correct, rows, want in zip(theirs, ours, segments, maps, strict=True):
        same_segments(parity.segments, rows, size)
        same_map(parity.id_map, want)
        same_but_for_ids(correct, rows, size)


def colour_ids(categories: dict[str, Row]) -> ColourIds:
    colours = {int(category): tuple(row["color"]) for category, row in categories.items()}
    return ColourIds(colours, {int(c) for c, row in categories.items() if not row["isthing"]})


def check_generated_ids(case: Case) -> None:
    stored = case.json["id_generator"]
    threshold = stored.get("threshold", 0.0)
    frames = segmented(case, threshold, new_id=colour_ids(stored["categories"]), reference=True)
    linked = in_a_shot(case, frames, threshold, reference=True)
    wanted = zip(linked, stored["segments"], case.maps("pan_seg_idgen"), strict=True)
    for frame, rows, want in wanted:
        same_segments(frame.segments, rows, case.geometry.frame)
        same_map(frame.id_map, want)


def check_flat_sigmoid(case: Case) -> None:
    (logits,), (masks,) = case.data["class_queries_logits"], case.data["masks_queries_logits"]
    (cond_ids,) = case.data["cond_ids"]
    same_map(semantic(flat_scores(logits, cond_ids, root=False), masks, case.geometry), case.data["sem_seg"])
    scores = flat_scores(logits, cond_ids, root=True)
    how = {"stuff": case.json["stuff_ids"], "threshold": case.json["threshold"]}
    got = panoptic(scores, masks, case.geometry, **how, reference=True)
    same_segments(got.segments, case.json["segments"], case.geometry.frame)
    same_map(got.id_map, case.data["pan_seg"])
    same_but_for_ids(panoptic(scores, masks, case.geometry, **how), case.json["segments"], case.geometry.frame)


def check_visually_prompted(case: Case) -> None:
    for key, threshold in thresholds(case, "instances_thr").items():
        for (scores, logits), want in zip(case.frames(), case.of_frames(case.json[key]), strict=True):
            got = instances(scores, logits, case.geometry, threshold=threshold)
            same_instances(got, want, case.geometry.frame)
            if not case.is_video:
                painted = case.json[f"n_segments_thr{threshold}"]
                assert int(got.masks.flatten(1).any(1).sum()) == painted
    if "contiguous" in case.json:
        check_dataset_classes(case, case.json["contiguous"])


def check_dataset_classes(case: Case, stored: Row) -> None:
    """Region numbers to places in the dataset's class list, an index into one tensor."""
    lookup = torch.tensor([stored["dataset_ids"].index(label) for label in stored["sampled_labels"]])
    assert lookup.tolist() == stored["sampled_label_out"]
    (scores, logits), *_ = case.frames()
    got = instances(scores, logits, case.geometry, threshold=0.0)
    renamed = Instances(got.masks, got.scores, lookup[got.classes], got.boxes, got.queries)
    same_instances(renamed, stored["instances"], case.geometry.frame)


def check_referring(case: Case) -> None:
    if case.is_video:
        infos, maps = case.json["info"], case.maps("seg")
    else:
        infos, maps = [case.json["ref_info"]], case.maps("ref_seg")
    for (scores, logits), info, want in zip(case.frames(), infos, maps, strict=True):
        same_selected(referring(scores, logits, case.geometry), want, info["score"])
    if "gref_info" in case.json:
        (scores, logits), *_ = case.frames()
        limit = case.json["gref_cls_threshold"]
        got = generalised_referring(scores, logits, case.geometry, threshold=limit)
        same_selected(got, case.data["gref_seg"], case.json["gref_info"]["score"])


def check_phrases(case: Case) -> None:
    rows_of_frames = case.of_frames(case.json["segments"])
    for (scores, logits), rows, want in zip(case.frames(), rows_of_frames, case.maps("seg"), strict=True):
        got = phrases(scores, logits, case.geometry)
        assert [row["category_id"] for row in rows] == got.classes.tolist()
        close(got.scores, torch.tensor([row["score"] for row in rows]))
        same_map(label_map(got.masks, [row["id"] for row in rows], 255, case.geometry.frame), want)


def check_interactive(case: Case) -> None:
    ((scores, logits),) = case.frames()
    prompt = resize_back(case.data["vprompt_masks"], case.geometry, "nearest")[0] > 0
    got = interactive(scores, logits, case.geometry, prompt, threshold=case.json["threshold"])
    same_selected(got, case.data["seg"], case.json["info"]["score"])


def check_video_object(case: Case) -> None:
    prompt = resize_back(case.data["vprompt_masks"], case.geometry, "nearest")[0]
    memory = ObjectMemory(anchor_of(prompt, reference=True))
    assert case.json["memory_size"] == 4
    assert case.json["alpha"] == 0.2
    for (scores, logits), info, want in zip(case.frames(), case.json["info"], case.maps("seg"), strict=True):
        found, memory = video_object(scores, logits, case.geometry, memory, threshold=case.json["threshold"])
        same_selected(found, want, info["score"])


def check_fusing(case: Case) -> None:
    probs = [(slice(0, None), case.data["mask_probs"])]
    size = tuple(case.json["target_size"])
    inputs = (probs, case.data["scores"], case.data["labels"], size)
    got = fuse(*inputs, stuff=case.json["label_ids_to_fuse"], reference=True)
    same_segments(got.segments, case.json["segments"], size)
    assert torch.equal(got.id_map, case.data["segmentation"])
    same_but_for_ids(fuse(*inputs, stuff=case.json["label_ids_to_fuse"]), case.json["segments"], size)


def check_tracker(case: Case) -> None:
    stuff, threshold = case.json["stuff_ids"], case.json["iou_threshold"]
    theirs, ours = LinkMemory(), LinkMemory()
    inputs = zip(case.data["segmentation_in"], case.json["segments_in"], strict=True)
    wanted = zip(case.data["segmentation_out"], case.json["segments_out"], strict=True)
    for (id_map, rows), (want, rows_out) in zip(inputs, wanted, strict=True):
        frame = Panoptic(
            id_map,
            tuple(Segment(r["id"], r["category_id"], r["category_id"] not in stuff, 1.0, 0) for r in rows),
        )
        got, theirs = link(frame, theirs, threshold=threshold, reference=True)
        assert torch.equal(got.id_map, want)
        assert [(s.id, s.category) for s in got.segments] == [(r["id"], r["category_id"]) for r in rows_out]
        linked, ours = link(frame, ours, threshold=threshold)
        assert len({s.id for s in linked.segments}) == len(rows)
        for before, after in zip(frame.segments, linked.segments, strict=True):
            assert torch.equal(id_map == before.id, linked.id_map == after.id)


def check_colour_ids(case: Case) -> None:
    give = colour_ids(case.json["categories"])
    assert [give(category) for category in case.json["sequence"]] == case.json["ids"]


def check_condition_average(case: Case) -> None:
    assert case.json["cases"]
    for row in case.json["cases"]:
        got = condition_average(torch.tensor(row["cond_id"]), training=row["training"])
        close(got, torch.tensor(row["out"]).reshape(len(row["out"]), len(row["cond_id"])))


def check_resizing(case: Case) -> None:
    logits, frame = case.data["x"], tuple(case.json["image_size"])
    height, width = logits.shape[-2:]
    full = Geometry(frame, tuple(case.json["scaled_full"]), (height, width))
    cropped = Geometry(frame, tuple(case.json["scaled_cropped"]), (height, width))
    close(resize_back(logits, full), case.data["full"])
    close(resize_back(logits, cropped), case.data["cropped"])
    assert torch.equal(resize_back(logits > 0, full, "nearest").byte(), case.data["nearest"])


CHECKS = {
    "alternative scoring path": check_flat_sigmoid,
    "compute_segments": check_fusing,
    "VideoInstanceTracker": check_tracker,
    "IdGenerator": check_colour_ids,
    "cond_id_postprocess": check_condition_average,
    "sem_seg_postprocess": check_resizing,
    "img_genseg": check_generic,
    "vid_genseg": check_generic,
    "img_ovseg": check_generic,
    "vid_ovseg": check_generic,
    "img_vgdseg": check_visually_prompted,
    "vid_vgdseg": check_visually_prompted,
    "img_refseg": check_referring,
    "vid_refseg": check_referring,
    "img_reaseg": check_referring,
    "vid_reaseg": check_referring,
    "img_gcgseg": check_phrases,
    "vid_gcgseg": check_phrases,
    "img_intseg": check_interactive,
    "vid_objseg": check_video_object,
}


@pytest.mark.skipif(not FILES, reason="the golden folder has no tasks/postprocess")
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_as_the_reference(path: Path) -> None:
    data: dict[str, Tensor] = {}
    if path.with_suffix(".npz").exists():
        with np.load(path.with_suffix(".npz")) as stored:
            data = {name: torch.from_numpy(stored[name]) for name in stored.files}
    case = json.loads(path.read_text())
    (check,) = [check for start, check in CHECKS.items() if case["kind"].startswith(start)]
    check(Case(case, data))
