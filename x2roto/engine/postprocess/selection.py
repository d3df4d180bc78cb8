"""Which queries answer, and their masks: every task but panoptic.

Follows wanghao9610/X2SAM@5b0b106 `x2sam/x2sam/dataset/process_fns/postprocess_fns/`; each function names its
file. A mask is where the logit is positive, that is where the probability is above one half.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass

import torch
from torch import Tensor

from x2roto.engine.postprocess.geometry import Geometry, planes_at_once, resize_back, resized
from x2roto.engine.postprocess.masks import boxes_of, confidence, label_map, mask_iou

# Frames the video-object memory holds besides the prompt, and the weight of overlap in its ranking.
ACCEPTED_FRAMES = 4
OVERLAP_WEIGHT = 0.2


@dataclass(frozen=True, slots=True)
class Selected:
    """One answer: `mask` (H, W) bool, `score` in [0, 1], and the queries it is the union of."""

    mask: Tensor
    score: float
    queries: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Instances:
    """N masks (N, H, W) bool with `scores` (N,), `classes` (N,), `boxes` (N, 4) and their `queries` (N,).

    Boxes are left, top, right, bottom in pixels, right and bottom exclusive.
    """

    masks: Tensor
    scores: Tensor
    classes: Tensor
    boxes: Tensor
    queries: Tensor


@dataclass(frozen=True, slots=True)
class ObjectMemory:
    """What `video_object` knows of the object: the prompt's mask, and the last accepted masks with scores."""

    anchor: Tensor
    accepted: tuple[tuple[Tensor, float], ...] = ()


def semantic(scores_qc: Tensor, logits_qhw: Tensor, geometry: Geometry) -> Tensor:
    """The class of every pixel, (H, W) int64; there is no void. Source: `img_genseg_process_fn.py`."""
    best = scores_qc.new_full(geometry.frame, -math.inf)
    classes = torch.zeros_like(best, dtype=torch.long)
    # Votes for all classes of a large frame do not fit; a group at a time does.
    group = planes_at_once(geometry)
    for first in range(0, scores_qc.shape[1], group):
        weights_cq = scores_qc[:, first : first + group].T
        votes = best.new_zeros(len(weights_cq), *geometry.frame)
        for part, logits in resized(logits_qhw, geometry):
            votes += torch.einsum("cq,qhw->chw", weights_cq[:, part], logits.sigmoid())
        value, index = votes.max(0)
        classes = torch.where(value > best, index + first, classes)
        best = value.maximum(best)
    return classes


def instances(
    scores_qc: Tensor,
    logits_qhw: Tensor,
    geometry: Geometry,
    *,
    threshold: float = 0.5,
    things: Collection[int] | None = None,
) -> Instances:
    """The Q best pairs of query and class, best first, for instance and visually prompted segmentation.

    The score is the class score times the mask's mean probability; at least `threshold`. Only classes among
    `things`, if given. Equal scores keep the order of queries; a query may appear under several classes. An
    empty mask scores 0. Sources: `img_genseg_process_fn.py`, `img_vgdseg_process_fn.py`.
    """
    ranked, order = scores_qc.flatten().sort(descending=True, stable=True)
    ranked, order = ranked[: len(scores_qc)], order[: len(scores_qc)]
    queries, classes = order // scores_qc.shape[1], order % scores_qc.shape[1]
    # Confidence only lowers a score, so what is below the threshold already need not be upsampled.
    wanted = ranked >= threshold
    if things is not None:
        wanted &= torch.isin(classes, torch.tensor(list(things), dtype=torch.long, device=classes.device))
    queries, place = queries[wanted].unique(return_inverse=True)
    masks, confidences = _masks(logits_qhw[queries], geometry)
    scores, order = (ranked[wanted] * confidences[place]).sort(descending=True, stable=True)
    order = order[scores >= threshold]
    place = place[order]
    masks = masks[place]
    return Instances(masks, scores[: len(order)], classes[wanted][order], boxes_of(masks), queries[place])


def instance_map(found: Instances, empty: int = -1) -> Tensor:
    """(H, W) int64 holding the place in the list of the best instance at each pixel, else `empty`."""
    count, height, width = found.masks.shape
    return label_map(reversed(found.masks.unbind()), reversed(range(count)), empty, (height, width))


def _masks(logits_qhw: Tensor, geometry: Geometry) -> tuple[Tensor, Tensor]:
    """Masks (Q, H, W) bool and confidences (Q,) of all queries given."""
    masks = torch.zeros(len(logits_qhw), *geometry.frame, dtype=torch.bool, device=logits_qhw.device)
    confidences = torch.zeros(len(logits_qhw), device=logits_qhw.device)
    for part, logits in resized(logits_qhw, geometry):
        masks[part] = logits > 0
        confidences[part] = confidence(logits)
    return masks, confidences


def referring(scores_q1: Tensor, logits_qhw: Tensor, geometry: Geometry) -> Selected:
    """The best query, however low its score, for referring and reasoning. Source: `img_refseg_process_fn.py`.

    A score near 0 is the only sign that there is nothing to find.
    """
    score, query = _single(scores_q1).max(0)
    return _selected(logits_qhw, geometry, query, float(score))


def generalised_referring(
    scores_q1: Tensor, logits_qhw: Tensor, geometry: Geometry, *, threshold: float = 0.6
) -> Selected:
    """The union of all queries of at least `threshold`, or the best one; the score is their mean.

    Source: `img_refseg_process_fn.py`.
    """
    scores = _single(scores_q1)
    queries = _at_least(scores, threshold)
    mask = torch.zeros(geometry.frame, dtype=torch.bool, device=logits_qhw.device)
    for _, logits in resized(logits_qhw[queries], geometry):
        mask |= (logits > 0).any(0)
    return Selected(mask, float(scores[queries].mean()), tuple(queries.tolist()))


def phrases(scores_qc: Tensor, logits_qhw: Tensor, geometry: Geometry) -> Instances:
    """The best query of each phrase, in the order of phrases. Source: `img_gcgseg_process_fn.py`.

    The reference's id map is `label_map(masks, range(1, N + 1), 255, size)`: later phrases on top.
    """
    scores, queries = scores_qc.max(0)
    masks, _ = _masks(logits_qhw[queries], geometry)
    classes = torch.arange(len(scores), device=scores.device)
    return Instances(masks, scores, classes, boxes_of(masks), queries)


def interactive(
    scores_q1: Tensor, logits_qhw: Tensor, geometry: Geometry, prompt_hw: Tensor, *, threshold: float = 0.5
) -> Selected:
    """The query whose mask overlaps the prompt most, of those that score at least `threshold` or best.

    `prompt_hw` (H, W) bool at frame size. Scores as for `instances`. Source: `img_intseg_process_fn.py`.
    """
    measured = [(confidence(x), mask_iou(x > 0, prompt_hw[None])[:, 0]) for _, x in resized(logits_qhw, geometry)]
    confidences, overlap = (torch.cat(parts) for parts in zip(*measured, strict=True))
    scores = _single(scores_q1) * confidences
    queries = _at_least(scores, threshold)
    query = queries[overlap[queries].argmax()]
    return _selected(logits_qhw, geometry, query, float(scores[query]))


def anchor_of(prompt_hw: Tensor, *, reference: bool = False) -> Tensor:
    """The prompt's mask (H, W) bool. The `reference` counts only the value 255, so 0/1 masks are empty."""
    return prompt_hw == 255 if reference else prompt_hw != 0


def video_object(
    scores_q1: Tensor,
    logits_qhw: Tensor,
    geometry: Geometry,
    memory: ObjectMemory,
    *,
    threshold: float = 0.5,
) -> tuple[Selected, ObjectMemory]:
    """The prompted object in this frame, and the memory for the next one.

    Of the queries scoring at least `threshold`, or the best, the one ranked highest by class score and by
    its weighted mean overlap with the prompt (weight 1) and the accepted masks (weights their scores). The
    mask is accepted if its rank is above `threshold`. Source: `vid_objseg_process_fn.py`.
    """
    scores = _single(scores_q1)
    queries = _at_least(scores, threshold)
    known = torch.stack([memory.anchor, *(mask for mask, _ in memory.accepted)])
    weights = torch.tensor([1.0, *(score for _, score in memory.accepted)], device=scores.device)
    overlap = torch.cat([mask_iou(x > 0, known) for _, x in resized(logits_qhw[queries], geometry)])
    rank = OVERLAP_WEIGHT * (overlap @ weights) / weights.sum() + (1 - OVERLAP_WEIGHT) * scores[queries]
    score, place = rank.max(0)
    found = _selected(logits_qhw, geometry, queries[place], float(score))
    if found.score > threshold:
        accepted = (*memory.accepted, (found.mask, found.score))[-ACCEPTED_FRAMES:]
        memory = ObjectMemory(memory.anchor, accepted)
    return found, memory


def _single(scores_q1: Tensor) -> Tensor:
    if scores_q1.shape[1] != 1:
        raise ValueError(f"this task answers one condition, but there are {scores_q1.shape[1]}; ask one at a time")
    return scores_q1[:, 0]


def _at_least(scores_q: Tensor, threshold: float) -> Tensor:
    """The queries of at least `threshold`, or the best if none is."""
    return ((scores_q >= threshold) | (scores_q == scores_q.max())).nonzero().flatten()


def _selected(logits_qhw: Tensor, geometry: Geometry, query: Tensor, score: float) -> Selected:
    mask = resize_back(logits_qhw[query][None], geometry)[0] > 0
    return Selected(mask, score, (int(query),))
