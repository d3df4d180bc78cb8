"""What the network is taught with: classes, masks and dice of every decoder layer, and the language model's words.

Mask2Former's criterion with conditions as classes (arXiv 2112.01527, 2605.00891 §3.4; wanghao9610/X2SAM@5b0b106
`segmentors/mask2former/modeling_mask2former.py` `Mask2FormerLoss`). Sums are divided by counts averaged over all
devices, so that the averaged gradient is that of one large batch; the reference does so for masks alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor
from torch.nn import functional as F

from x2roto.train.config import Losses
from x2roto.train.matching import PADDING, Answers, FrameTarget, Matches, match
from x2roto.train.points import Draw, compare, edge_points


@dataclass(frozen=True, slots=True)
class Counts:
    """What sums of losses are divided by, each a number: target masks, the weights of all queries' classes, words.

    All are known before the network runs, so one exchange between devices settles them.
    """

    masks: Tensor
    classes: Tensor
    words: Tensor

    @classmethod
    def of(cls, targets: Sequence[FrameTarget], queries: int, words: int, losses: Losses) -> Self:
        """Of one device's frames, each with `queries` queries, and its supervised words."""
        masks = sum(len(target.labels_n) for target in targets)
        matched = sum(min(queries, len(target.labels_n)) for target in targets)
        others = len(targets) * queries - matched
        classes = matched + losses.background_weight * others
        return cls(*torch.tensor([masks, classes, words], dtype=torch.float32))

    def stacked(self) -> Tensor:
        """The three as one tensor, which `Counts(*tensor)` takes apart."""
        return torch.stack((self.masks, self.classes, self.words))


@dataclass(frozen=True, slots=True)
class LayerLosses:
    """Unweighted losses of one decoder layer, each a number."""

    classes: Tensor
    masks: Tensor
    dice: Tensor

    def weighted(self, losses: Losses) -> Tensor:
        """Their sum, weighted."""
        return losses.class_weight * self.classes + losses.mask_weight * self.masks + losses.dice_weight * self.dice


def set_losses(
    layers: Sequence[Answers],
    targets: Sequence[FrameTarget],
    draws: Sequence[Draw],
    losses: Losses,
    counts: Counts,
) -> list[LayerLosses]:
    """The losses of each decoder layer, matched anew; frames in the order of `targets`, each with its draw."""
    results = []
    for answers in layers:
        matches = match(answers, targets, draws, losses)
        classes = class_loss(answers, targets, matches, losses, counts)
        masks, dice = mask_losses(answers, targets, matches, draws, losses, counts)
        results.append(LayerLosses(classes, masks, dice))
    return results


def class_loss(
    answers: Answers,
    targets: Sequence[FrameTarget],
    matches: Sequence[Matches],
    losses: Losses,
    counts: Counts,
) -> Tensor:
    """How wrong the queries' classes are: matched ones have the target's, others none.

    Softmax cross entropy with the background as a class of weight `background_weight`, a weighted mean; with
    `token_conditions_ik` sigmoid focal loss over the tokens, summed and divided by the number of masks.
    """
    labels = torch.stack([_labels(*frame, answers) for frame in zip(targets, matches, strict=True)])
    held = _held(matches)
    logits = answers.class_logits_iqk.float()
    if answers.token_conditions_ik is not None:
        tokens = answers.token_conditions_ik[:, None]
        wanted = (tokens == labels[..., None]).float()
        known = (tokens != PADDING) & held[..., None]
        total = focal_sum(logits, wanted, known, losses.focal_alpha, losses.focal_gamma)
        return total / _at_least(1, counts.masks, logits)
    background = labels == logits.shape[-1] - 1
    weights = held * torch.where(background, losses.background_weight, 1.0)
    errors = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none")
    return (weights.flatten() * errors).sum() / _at_least(1e-6, counts.classes, logits)


def _at_least(least: float, count: Tensor, like: Tensor) -> Tensor:
    return count.to(like.device).clamp_min(least)


def _labels(target: FrameTarget, matches: Matches, answers: Answers) -> Tensor:
    """The class of every query of a frame; unmatched ones are background, the last class, or no token's."""
    queries, classes = answers.class_logits_iqk.shape[1:]
    nothing = classes - 1 if answers.token_conditions_ik is None else PADDING - 1
    labels = target.labels_n.new_full((queries,), nothing)
    labels[matches.queries_m] = target.labels_n[matches.targets_m]
    return labels


def _held(matches: Sequence[Matches]) -> Tensor:
    """Which queries (I, Q) answer for their class: all but unmatched ones on ignored pixels."""
    held = torch.stack([~frame.excused_q for frame in matches])
    for row, frame in zip(held, matches, strict=True):
        row[frame.queries_m] = True
    return held


def mask_losses(
    answers: Answers,
    targets: Sequence[FrameTarget],
    matches: Sequence[Matches],
    draws: Sequence[Draw],
    losses: Losses,
    counts: Counts,
) -> tuple[Tensor, Tensor]:
    """Cross entropy and dice of matched masks, summed over masks and divided by their number.

    Both on the same points, drawn per mask: mostly where it is least certain.
    """
    # Without any match the losses must still belong to the graph, or devices would disagree on gradients.
    entropy = dice = answers.mask_logits_iqhw.flatten()[0] * 0
    for frame, (target, pairs, draw) in enumerate(zip(targets, matches, draws, strict=True)):
        if not len(pairs.queries_m):
            continue
        logits = answers.mask_logits_iqhw[frame, pairs.queries_m]
        points = _points(logits, draw, losses)
        seen = compare(logits, target.masks_nhw[pairs.targets_m], target.ignored_hw, points, losses.stride)
        entropy = entropy + cross_entropy_sum(seen.logits_mp, seen.wanted_np, seen.known)
        dice = dice + dice_sum(seen.logits_mp, seen.wanted_np, seen.known)
    count = _at_least(1, counts.masks, entropy)
    return entropy / count, dice / count


@torch.no_grad()
def _points(logits_mhw: Tensor, draw: Draw, losses: Losses) -> Tensor | None:
    if not losses.points:
        return None
    return edge_points(
        logits_mhw, draw, points=losses.points, oversample=losses.oversample, uncertain=losses.uncertain
    )


def dense_loss(logits_i1hw: Tensor, targets: Sequence[FrameTarget], losses: Losses) -> Tensor:
    """Cross entropy and dice of all that is asked for as one mask per frame, weighted, the mean over frames.

    Not X2SAM's: from few clips, a network that has seen nothing before learns through the matching alone too slowly.
    """
    total = logits_i1hw.flatten()[0] * 0
    for logits, target in zip(logits_i1hw, targets, strict=True):
        wanted = target.masks_nhw.any(0, keepdim=True)
        seen = compare(logits, wanted, target.ignored_hw, None, losses.stride)
        entropy = cross_entropy_sum(seen.logits_mp, seen.wanted_np, seen.known)
        dice = dice_sum(seen.logits_mp, seen.wanted_np, seen.known)
        total = total + losses.mask_weight * entropy + losses.dice_weight * dice
    return total / max(1, len(targets))


# ---- elementary, over P places of m masks ---------------------------------------------------------------


def cross_entropy_sum(logits_mp: Tensor, wanted_mp: Tensor, known: Tensor) -> Tensor:
    """Binary cross entropy, mean over places, summed over masks; unknown places count as right."""
    errors = F.binary_cross_entropy_with_logits(logits_mp, wanted_mp, reduction="none")
    return (errors * known).mean(1).sum()


def dice_sum(logits_mp: Tensor, wanted_mp: Tensor, known: Tensor) -> Tensor:
    """1 - (2 Σpy + 1) / (Σp + Σy + 1), summed over masks."""
    seen, wanted = logits_mp.sigmoid() * known, wanted_mp * known
    return (1 - (2 * (seen * wanted).sum(1) + 1) / (seen.sum(1) + wanted.sum(1) + 1)).sum()


def focal_sum(logits: Tensor, wanted: Tensor, known: Tensor, alpha: float, gamma: float) -> Tensor:
    """Sigmoid focal loss (arXiv 1708.02002) summed over everything known."""
    errors = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
    p = logits.sigmoid()
    missed = 1 - (p * wanted + (1 - p) * (1 - wanted))
    share = alpha * wanted + (1 - alpha) * (1 - wanted)
    return (share * errors * missed**gamma * known).sum()


def language_loss(logits_nv: Tensor, labels_n: Tensor, counts: Counts) -> Tensor:
    """Cross entropy of n supervised words with vocabulary logits (n, V), divided by the number of words."""
    return F.cross_entropy(logits_nv.float(), labels_n, reduction="sum") / _at_least(1, counts.words, logits_nv)
