"""Who is who: which queries of a frame are which objects, and whether an object is there at all.

The reference links nothing over time but the one object of its video-object task; its ranking (0.8 class score,
0.2 overlap with the prompt and the last accepted masks; wanghao9610/X2SAM@5b0b106
`postprocess_fns/vid_objseg_process_fn.py`) follows every single object here. Instances of a class are linked by
optimal assignment on overlap and on the likeness of their queries. An object whose score stays below the
threshold is absent: its logits are empty, never those of the best wrong query.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import torch
from torch import Tensor
from torch.nn import functional as F

from x2roto.engine.postprocess.masks import confidence

# Logit of a pixel that certainly is not the object: its coverage is 0 in half precision.
EMPTY = -20.0


class Kind(StrEnum):
    """How a condition becomes objects: one object, every instance of a class, one region of stuff, or nothing at all,
    where it is known to be nowhere in the shot."""

    OBJECT = "object"
    THINGS = "things"
    STUFF = "stuff"
    ABSENT = "absent"


@dataclass(frozen=True, slots=True)
class Target:
    """What one condition asks for. `anchor`: the prompt's own mask (h, w) bool at the logits' size, if it has one.
    `drawn`: how much of each cell (h, w) that covers, in [0, 1]. `bounds`: cells (h, w) outside of which nothing of
    it is on the frame it is drawn on; `cover`: how much it covers of each cell (h, w) there, where that is known and
    need not be found. `number`: of an object that is one of several of that name, from 1."""

    name: str
    kind: Kind = Kind.OBJECT
    anchor: Tensor | None = None
    drawn: Tensor | None = None
    bounds: Tensor | None = None
    cover: Tensor | None = None
    number: int = 0


@dataclass(frozen=True, slots=True)
class Identity:
    """What is remembered of one object: its last accepted masks (h, w) bool with their ranks, newest last, and its
    query (C,). `label` is the target's name, `number` counts the instances of a class from 1 (0: no instance)."""

    label: str
    number: int = 0
    masks: tuple[Tensor, ...] = ()
    ranks: tuple[float, ...] = ()
    query: Tensor | None = None

    @property
    def name(self) -> str:
        return f"{self.label}_{self.number}" if self.number else self.label


@dataclass(frozen=True, slots=True)
class Following:
    """Choices of the linker. `presence`: least class score of an object that is there. `geometry`: share of overlap
    in the rank. `depth`: accepted masks remembered. `same`: least likeness of two frames' views of an instance.
    `overlap`: masks of one class that overlap more are one instance. `instances`: most instances per class."""

    presence: float = 0.5
    geometry: float = 0.2
    depth: int = 4
    same: float = 0.3
    overlap: float = 0.7
    instances: int = 64


@dataclass(frozen=True, slots=True)
class Seen:
    """One object on one frame: `logits` (h, w) float32, positive inside, `EMPTY` everywhere when absent;
    `presence` its class score in [0, 1]; `score` presence times the mean coverage inside the mask."""

    name: str
    label: str
    logits: Tensor
    presence: float
    score: float

    @property
    def present(self) -> bool:
        return bool(self.score)


@dataclass(frozen=True, slots=True)
class Candidates:
    """The queries of one frame under one set of conditions.

    `scores` (Q, conditions) in [0, 1]: each condition among all of them and the background, which is dropped.
    `alone`: each condition against the background only, so that two prompts for one object do not halve each
    other; with one condition both are equal. `logits` (Q, h, w); `queries` (Q, C).
    """

    scores: Tensor
    alone: Tensor
    logits: Tensor
    queries: Tensor

    @classmethod
    def of(cls, class_logits_qc: Tensor, mask_logits_qhw: Tensor, queries_qc: Tensor) -> Candidates:
        classes = class_logits_qc.float()
        return cls(
            scores=classes.softmax(-1)[:, :-1],
            alone=(classes[:, :-1] - classes[:, -1:]).sigmoid(),
            logits=mask_logits_qhw.float(),
            queries=F.normalize(queries_qc.float(), dim=-1),
        )

    def quality(self, index: int) -> float:
        """Mean coverage inside a query's mask, 0 for an empty one."""
        return float(confidence(self.logits[index][None]))


Followed = tuple[list[Seen], list[Identity]]


def follow(
    candidates: Candidates, condition: int, target: Target, known: Sequence[Identity], choices: Following
) -> Followed:
    """Objects of one target on this frame and what to remember of them."""
    if target.kind is Kind.OBJECT:
        identity = known[0] if known else Identity(target.name, target.number)
        seen, identity = _follow_object(candidates, condition, target, identity, choices)
        return [seen], [identity]
    if target.kind is Kind.ABSENT:
        return [nowhere(target, candidates.logits[0])], []
    if target.kind is Kind.STUFF:
        return [_stuff(candidates, condition, target, choices)], []
    return _follow_instances(candidates, condition, target, known, choices)


def nowhere(target: Target, like_hw: Tensor) -> Seen:
    """What is seen of something that is not there."""
    return Seen(Identity(target.name, target.number).name, target.name, _empty(like_hw), 0.0, 0.0)


def _follow_object(
    candidates: Candidates, condition: int, target: Target, identity: Identity, choices: Following
) -> tuple[Seen, Identity]:
    scores = candidates.alone[:, condition]
    rank = scores
    if (overlap := _geometry(candidates.logits > 0, target, identity)) is not None:
        rank = choices.geometry * overlap + (1 - choices.geometry) * scores
    best = int(rank.argmax())
    seen = _seen(candidates, best, float(scores[best]), identity, choices)
    return seen, _remember(candidates, best, float(rank[best]), identity, choices) if seen.present else identity


def _geometry(masks_qhw: Tensor, target: Target, identity: Identity) -> Tensor | None:
    """Weighted mean overlap of every query's mask with the prompt (weight 1) and the accepted masks (their ranks)."""
    anchors = ((target.anchor, 1.0),) if target.anchor is not None else ()
    past = (*anchors, *zip(identity.masks, identity.ranks, strict=True))
    if not past:
        return None
    weights = torch.tensor([weight for _, weight in past], device=masks_qhw.device)
    overlaps = pairwise_iou(masks_qhw, torch.stack([mask for mask, _ in past]))
    return overlaps @ weights / weights.sum()


def _stuff(candidates: Candidates, condition: int, target: Target, choices: Following) -> Seen:
    scores = candidates.scores[:, condition]
    presence = float(scores.max())
    coverage = torch.einsum("q,qhw->hw", scores, candidates.logits.sigmoid()).clamp(1e-6, 1 - 1e-6)
    logits = coverage.logit()
    there = presence >= choices.presence and bool((logits > 0).any())
    return Seen(target.name, target.name, logits if there else _empty(logits), presence, presence * there)


def _follow_instances(
    candidates: Candidates, condition: int, target: Target, known: Sequence[Identity], choices: Following
) -> Followed:
    found = distinct_instances(candidates, condition, choices)
    likeness = torch.stack([_likeness(candidates, found, identity) for identity in known]) if known else None
    pairs = assign(likeness, choices.same) if likeness is not None and found else {}
    seen, kept = [], []
    for row, identity in enumerate(known):
        if row in pairs:
            best = found[pairs[row]]
            score = float(candidates.scores[best, condition])
            seen.append(_seen(candidates, best, score, identity, choices))
            kept.append(_remember(candidates, best, score, identity, choices))
        else:
            seen.append(Seen(identity.name, identity.label, _empty(candidates.logits[0]), 0.0, 0.0))
            kept.append(identity)
    new = [best for column, best in enumerate(found) if column not in pairs.values()]
    for best in new[: max(0, choices.instances - len(known))]:
        identity = Identity(target.name, len(kept) + 1)
        score = float(candidates.scores[best, condition])
        seen.append(_seen(candidates, best, score, identity, choices))
        kept.append(_remember(candidates, best, score, identity, choices))
    return seen, kept


def distinct_instances(candidates: Candidates, condition: int, choices: Following) -> list[int]:
    """Queries that show different instances of a class, best first."""
    scores = candidates.scores[:, condition]
    masks = candidates.logits > 0
    likely = (scores >= choices.presence) & (candidates.scores.argmax(1) == condition) & masks.flatten(1).any(1)
    order = [index for index in scores.argsort(descending=True).tolist() if likely[index]]
    overlaps = pairwise_iou(masks[order], masks[order]) if order else torch.empty(0, 0)
    kept: list[int] = []
    for row in range(len(order)):
        if not any(overlaps[row, other] > choices.overlap for other in kept):
            kept.append(row)
    return [order[row] for row in kept]


def _likeness(candidates: Candidates, found: Sequence[int], identity: Identity) -> Tensor:
    """Half overlap with the last accepted mask, half cosine of the queries; one value per found query."""
    assert identity.query is not None
    overlap = pairwise_iou(candidates.logits[list(found)] > 0, identity.masks[-1][None])[:, 0]
    return (overlap + (candidates.queries[list(found)] @ identity.query).clamp_min(0)) / 2


def assign(likeness: Tensor, least: float) -> dict[int, int]:
    """Pairs row -> column of the assignment with the largest total, those below `least` left out."""
    # A third of a second, which only classes need.
    from scipy.optimize import linear_sum_assignment

    rows, columns = linear_sum_assignment(likeness.cpu().numpy(), maximize=True)
    return {
        int(row): int(column) for row, column in zip(rows, columns, strict=True) if likeness[row, column] >= least
    }


def pairwise_iou(first_nhw: Tensor, second_mhw: Tensor) -> Tensor:
    """Overlap over union of every pair of masks, (n, m) float32; 0 where both are empty."""
    first, second = first_nhw.flatten(1).float(), second_mhw.flatten(1).float()
    inner = first @ second.T
    union = first.sum(1)[:, None] + second.sum(1)[None] - inner
    return inner / union.clamp_min(1)


def _seen(candidates: Candidates, best: int, presence: float, identity: Identity, choices: Following) -> Seen:
    logits, quality = candidates.logits[best], candidates.quality(best)
    there = presence >= choices.presence and quality > 0
    shown = logits if there else _empty(logits)
    return Seen(identity.name, identity.label, shown, presence, presence * quality * there)


def _remember(candidates: Candidates, best: int, rank: float, identity: Identity, choices: Following) -> Identity:
    return replace(
        identity,
        masks=(*identity.masks, candidates.logits[best] > 0)[-choices.depth :],
        ranks=(*identity.ranks, rank)[-choices.depth :],
        query=candidates.queries[best],
    )


def _empty(logits_hw: Tensor) -> Tensor:
    return torch.full_like(logits_hw, EMPTY)
