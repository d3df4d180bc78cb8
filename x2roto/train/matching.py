"""Which query answers for which target: the cheapest assignment, by class, cross entropy and dice.

Mask2Former's matcher (arXiv 2112.01527; wanghao9610/X2SAM@5b0b106 `segmentors/mask2former/modeling_mask2former.py`
`Mask2FormerHungarianMatcher`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn import functional as F

from x2roto.train.config import Losses
from x2roto.train.points import Compared, Draw, compare

PADDING = -100
LARGEST_COST = 1e10


@dataclass(frozen=True, slots=True)
class FrameTarget:
    """What one frame of one clip should give: n instances.

    `masks_nhw`: bool. `labels_n`: int64, the condition of each. `ignored_hw`: bool, pixels nothing is known
    about; None when all are known.
    """

    masks_nhw: Tensor
    labels_n: Tensor
    ignored_hw: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Answers:
    """Logits of one decoder layer for I frames: masks (I, Q, h, w), classes (I, Q, K).

    Classes are the conditions with the background last; or, with `token_conditions_ik` (I, K), the tokens of
    the conditions, each by the number of its condition (-100: padding).
    """

    mask_logits_iqhw: Tensor
    class_logits_iqk: Tensor
    token_conditions_ik: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Matches:
    """For one frame: query `queries_m` answers for target `targets_m`, int64.

    `excused_q`: bool, queries whose mask lies mostly on ignored pixels; unmatched, nothing can be held against them.
    """

    queries_m: Tensor
    targets_m: Tensor
    excused_q: Tensor


@torch.no_grad()
def match(answers: Answers, targets: Sequence[FrameTarget], draws: Sequence[Draw], losses: Losses) -> list[Matches]:
    """The assignment of every frame, min(Q, n) pairs ordered by query. Each frame draws one set of points."""
    costs: list[Tensor] = []
    excused: list[Tensor] = []
    for frame, (target, draw) in enumerate(zip(targets, draws, strict=True)):
        points = draw((1, losses.points, 2)) if losses.points else None
        seen = compare(answers.mask_logits_iqhw[frame], target.masks_nhw, target.ignored_hw, points, losses.stride)
        costs.append(_cost(answers, frame, target, seen, losses))
        excused.append(_on_ignored(seen))
    pairs = _assign(costs)
    return [
        Matches(queries.to(spared.device), chosen.to(spared.device), spared)
        for (queries, chosen), spared in zip(pairs, excused, strict=True)
    ]


def _cost(answers: Answers, frame: int, target: FrameTarget, seen: Compared, losses: Losses) -> Tensor:
    cost = losses.mask_weight * pair_cross_entropy(seen.logits_mp, seen.wanted_np, seen.known)
    cost = cost + losses.dice_weight * pair_dice(seen.logits_mp, seen.wanted_np, seen.known)
    logits, tokens = answers.class_logits_iqk[frame].float(), answers.token_conditions_ik
    if tokens is None:
        classes = -logits.softmax(-1)[:, target.labels_n]
    else:
        classes = focal_cost(logits, tokens[frame], target.labels_n, losses)
    cost = cost + losses.class_weight * classes
    return cost.nan_to_num(nan=0.0).clamp(-LARGEST_COST, LARGEST_COST)


def _assign(costs: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
    # One transfer for all frames: each would wait for the device.
    flat = torch.cat([cost.flatten() for cost in costs]).cpu()
    for cost, part in zip(costs, flat.split([cost.numel() for cost in costs]), strict=True):
        queries, targets = linear_sum_assignment(part.view(cost.shape).numpy())
        yield torch.from_numpy(queries), torch.from_numpy(targets)


def _on_ignored(seen: Compared) -> Tensor:
    inside = (seen.logits_mp > 0).float()
    return (inside * (1 - seen.known)).sum(1) > 0.5 * inside.sum(1)


def pair_cross_entropy(logits_qp: Tensor, wanted_np: Tensor, known_1p: Tensor) -> Tensor:
    """Mean binary cross entropy of every query with every target, (Q, n); unknown places count as right."""
    positive = F.softplus(-logits_qp) @ (wanted_np * known_1p).mT
    negative = F.softplus(logits_qp) @ ((1 - wanted_np) * known_1p).mT
    return (positive + negative) / logits_qp.shape[1]


def pair_dice(logits_qp: Tensor, wanted_np: Tensor, known_1p: Tensor) -> Tensor:
    """Dice loss of every query with every target, (Q, n)."""
    seen, wanted = logits_qp.sigmoid() * known_1p, wanted_np * known_1p
    both = 2 * (seen @ wanted.mT)
    return 1 - (both + 1) / (seen.sum(1)[:, None] + wanted.sum(1) + 1)


def focal_cost(logits_qk: Tensor, tokens_k: Tensor, labels_n: Tensor, losses: Losses) -> Tensor:
    """Focal cost of every query for every target, the mean over the tokens of the target's condition, (Q, n)."""
    alpha, gamma, p = losses.focal_alpha, losses.focal_gamma, logits_qk.sigmoid()
    positive = -alpha * (1 - p) ** gamma * (p + 1e-6).log()
    negative = -(1 - alpha) * p**gamma * (1 - p + 1e-6).log()
    own = (tokens_k == labels_n[:, None]).float()
    return (positive - negative) @ (own / (own.sum(1, keepdim=True) + 1e-6)).mT
