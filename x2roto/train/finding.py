"""Stage "finder": what names and phrases mean in a picture, each by itself. Only the finder learns.

Three signals: which cells look like the phrase among all cells of the picture (a softmax over space, which asks for
the right choice and not for the area), the mask of what is meant, and whether it is there at all.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from x2roto.engine import preprocess
from x2roto.engine.model.finder import Found, padded
from x2roto.engine.model.segmentor import STRIDE
from x2roto.engine.model.x2sam import X2SAM
from x2roto.train.collate import Batch
from x2roto.train.config import Losses
from x2roto.train.losses import dice_sum
from x2roto.train.matching import Answers, FrameTarget
from x2roto.train.network import StepLosses

CLOSEST = 0.75  # least side of the part of a picture that is seen when it is learnt from again
CONTRAST, BRIGHTNESS = 0.25, 0.35  # how much its light changes then, in its logarithm and in standard deviations
LEAST = 1.0  # cells that things of a name cover where it is learnt
SHARED = 0.05  # of a name's cells, of which another name may be right and still count as wrong there
FOUND = 0.65  # weight of names that are there, as phrases have it that are asked one by one
NAME_WEIGHT = 2.0  # of the choice among names
CHOICE_WEIGHT = 0.5  # of the softmax over space, of the cells' likeness and of the masks each


@dataclass(frozen=True, slots=True)
class Asked:
    """P phrases: token ids (P, L) as far as `valid_pl` says, the picture and the target each is about.

    `truth_phw`: how much of each cell at stride 4 it covers, in [0, 1]; `known_phw`: 0 where nothing is known.
    """

    ids_pl: Tensor
    valid_pl: Tensor
    pictures_p: Tensor
    truth_phw: Tensor
    known_phw: Tensor


class FinderStage(nn.Module):
    """The finder on pictures and all that is asked about them; a clip is so many pictures."""

    def __init__(self, model: X2SAM, losses: Losses) -> None:
        super().__init__()
        self.model, self.losses = model, losses

    def forward(self, batch: Batch, *, learn: bool = True) -> StepLosses | Answers:
        """The losses of a batch; without `learn`, what is found of one clip's conditions on each of its frames."""
        return sought(self.model, batch, self.losses, learn=learn)


def sought(model: X2SAM, batch: Batch, losses: Losses, *, learn: bool) -> StepLosses | Answers:
    """The losses of a batch of pictures and phrases; without `learn`, what is found."""
    assert batch.frames is not None
    pixels, views = preprocess.normalise(batch.frames.flatten(0, 1)), None
    if batch.take:
        views = Views.drawn(len(pixels), batch.seeds[0], pixels.device)
        pixels = views.lit(views.cropped(pixels))
    if learn and _listed(batch):
        names = listed(batch, views)
        return naming_losses(model.liken(pixels, names.ids_nl, names.valid_nl), names, losses)
    asked = phrases(batch, views)
    found = model.find(pixels, asked.ids_pl, asked.valid_pl, asked.pictures_p)
    return found_losses(found, asked, losses) if learn else _answers(found, len(batch.targets))


@dataclass(frozen=True, slots=True)
class Views:
    """Other views of n pictures: `edges` (n, 3), left and top of a square part and its side, in sides of the picture;
    `light` (n, 2), a factor and a sum of normalised values. Colours stay what they are called."""

    edges: Tensor
    light: Tensor

    @classmethod
    def drawn(cls, count: int, seed: int, device: torch.device) -> Self:
        generator = torch.Generator().manual_seed(seed)
        sides = 1 - (1 - CLOSEST) * torch.rand(count, 1, generator=generator)
        corners = (1 - sides) * torch.rand(count, 2, generator=generator)
        light = 2 * torch.rand(count, 2, generator=generator) - 1
        light = torch.stack([(CONTRAST * light[:, 0]).exp(), BRIGHTNESS * light[:, 1]], dim=1)
        return cls(torch.cat([corners, sides], dim=1).to(device), light.to(device))

    def of(self, pictures: Tensor) -> Self:
        """The views of some of the pictures, by their numbers."""
        return type(self)(self.edges[pictures], self.light[pictures])

    def cropped(self, pictures_nchw: Tensor) -> Tensor:
        """The parts, as large as the pictures were."""
        left, top, side = self.edges.unbind(1)
        zero = torch.zeros_like(side)
        rows = [torch.stack([side, zero, 2 * left + side - 1], 1), torch.stack([zero, side, 2 * top + side - 1], 1)]
        grid = F.affine_grid(torch.stack(rows, dim=1), list(pictures_nchw.shape), align_corners=False)
        return F.grid_sample(pictures_nchw, grid, padding_mode="border", align_corners=False)

    def lit(self, pixels_nchw: Tensor) -> Tensor:
        """Normalised pixels in other light."""
        factor, added = self.light[..., None, None, None].unbind(1)
        return pixels_nchw * factor + added


def phrases(batch: Batch, views: Views | None = None) -> Asked:
    """Every condition of every conversation on every frame, but for frames without labels; `views`: as the pictures
    are seen."""
    assert batch.frames is not None
    ids, numbers, truth = zip(*_phrases(batch), strict=True)
    device = batch.frames.device
    pictures, covers = torch.tensor(numbers, device=device), torch.stack(truth).float()
    if views is not None:
        covers = views.of(pictures).cropped(covers)
    covers = F.avg_pool2d(covers, STRIDE)
    rows, valid = padded(ids)
    return Asked(
        rows.to(device),
        valid.to(device),
        pictures,
        covers[:, 0],
        (covers[:, 1] < 0.5).float(),
    )


def _phrases(batch: Batch) -> Iterator[tuple[Tensor, int, Tensor]]:
    text, clips = batch.text, len(set(batch.clips))
    assert text is not None
    # Asked one by one where they are, the words would hold the device up hundreds of times.
    ids, numbers = text.input_ids.cpu(), text.cond_ids.cpu()
    for time, row in enumerate(batch.targets):
        for clip, sample, target in zip(batch.clips, batch.decoded, row, strict=True):
            if target is None:
                continue
            for number in range(int(numbers[sample].max()) + 1):
                yield ids[sample][numbers[sample] == number], time * clips + clip, _truth(target, number)


def _truth(target: FrameTarget, number: int) -> Tensor:
    """Pixels that are meant, and those of which nothing is known, (2, H, W)."""
    meant = (target.masks_nhw & (target.labels_n == number)[:, None, None]).any(0)
    return torch.stack([meant, _unknown(target)])


def _unknown(target: FrameTarget) -> Tensor:
    """Pixels (H, W) of which nothing is known."""
    if target.ignored_hw is None:
        return target.masks_nhw.new_zeros(target.masks_nhw.shape[1:])
    return target.ignored_hw


# ---- names that are listed ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Names:
    """N names on B pictures: token ids (N, L) as far as `valid_nl` says.

    `truth_bnhw`: how much of each cell at stride 8 things of that name cover, in [0, 1]; `listed_bn`: whether a
    picture's list has the name; `known_bhw`: 0 where nothing is known.
    """

    ids_nl: Tensor
    valid_nl: Tensor
    truth_bnhw: Tensor
    listed_bn: Tensor
    known_bhw: Tensor


def _listed(batch: Batch) -> bool:
    """Whether conversations list several names, of which only likeness is learnt: a list costs no more than a
    phrase."""
    assert batch.text is not None
    return bool((batch.text.cond_ids > 0).any())


def listed(batch: Batch, views: Views | None = None) -> Names:
    """The names on the lists of a batch, each once, and where they are right; every picture has one list."""
    assert batch.frames is not None
    assert batch.text is not None
    ids, numbers = batch.text.input_ids.cpu().numpy(), batch.text.cond_ids.cpu().numpy()
    known: dict[tuple[int, ...], int] = {}
    lists = [
        [known.setdefault(name, len(known)) for name in _names(ids[sample], numbers[sample])]
        for sample in batch.decoded
    ]
    rows, valid = padded([torch.tensor(name) for name in known])
    side, device = batch.frames.shape[2] // (2 * STRIDE), batch.frames.device
    truth = torch.zeros(len(batch.targets) * len(lists), len(known), side, side, device=device)
    on_list, sure = torch.zeros(truth.shape[:2], dtype=torch.bool, device=device), torch.zeros_like(truth[:, 0])
    shown = [(target, names) for row in batch.targets for target, names in zip(row, lists, strict=True)]
    for picture, (target, names) in enumerate(shown):
        if target is None:
            continue
        seen = torch.cat([target.masks_nhw, _unknown(target)[None]])[:, None].float()
        seen = F.avg_pool2d(seen, STRIDE)
        if views is not None:
            seen = views.of(torch.full((len(seen),), picture, device=device)).cropped(seen)
        *covers, unknown = F.avg_pool2d(seen, 2)[:, 0]
        for label, cover in zip(target.labels_n.tolist(), covers, strict=True):
            truth[picture, names[label]] = truth[picture, names[label]].maximum(cover)
        on_list[picture, names] = True
        sure[picture] = (unknown < 0.5).float()
    return Names(rows.to(device), valid.to(device), truth, on_list, sure)


def _names(ids_l: NDArray[np.int64], numbers_l: NDArray[np.int64]) -> Iterator[tuple[int, ...]]:
    """The tokens of each condition of a conversation, in their order."""
    starts = np.flatnonzero(np.diff(numbers_l, prepend=-1))
    for start, stop in pairwise([*starts.tolist(), len(numbers_l)]):
        if numbers_l[start] >= 0:
            yield tuple(ids_l[start:stop].tolist())


def naming_losses(likeness_bnhw: Tensor, names: Names, losses: Losses) -> StepLosses:
    """Three signals for every name that is there: the choice among cells and, of the cells it is on, among names
    (the two sides of CLIP's loss, arXiv 2103.00020); and for all names on the list which cells are like them. Parts
    for reading as `found_losses`; `classes` is the choice among names."""
    logits, truth = likeness_bnhw.float(), names.truth_bnhw * names.known_bhw[:, None]
    on_list = names.listed_bn
    there = on_list & (truth.flatten(2).sum(2) >= LEAST)
    known = names.known_bhw[:, None].expand_as(truth)

    def alike(which_bn: Tensor) -> Tensor:
        return _cross_entropy(logits[which_bn], truth[which_bn], known[which_bn])

    space = _choice(logits[there], truth[there], known[there], there[there])
    among = _named(logits, truth, on_list, there)
    likeness = FOUND * alike(there) + (1 - FOUND) * alike(on_list & ~there)
    total = CHOICE_WEIGHT * space + NAME_WEIGHT * among + losses.mask_weight * likeness
    return StepLosses(total, space.detach(), among.detach(), likeness.detach(), torch.zeros_like(space.detach()))


def _named(logits_bnhw: Tensor, truth_bnhw: Tensor, listed_bn: Tensor, there_bn: Tensor) -> Tensor:
    """Cross entropy of each name that is there against those that are wrong on its cells."""
    if not there_bn.any():
        return logits_bnhw.sum() * 0
    truth = truth_bnhw.flatten(2)
    share = truth / truth.sum(2, keepdim=True).clamp(min=1e-6)
    own = (share @ logits_bnhw.flatten(2).mT)[there_bn]
    name = there_bn.nonzero()[:, 1]
    wrong = listed_bn[:, None].expand(-1, len(listed_bn[0]), -1) & (share @ truth.mT < SHARED)
    kept = wrong[there_bn].scatter(1, name[:, None], True)
    return F.cross_entropy(own.masked_fill(~kept, -1e4), name)


def found_losses(found: Found, asked: Asked, losses: Losses) -> StepLosses:
    """The weighted sum, and its parts for reading: `classes` is presence, `language` the choice among cells."""
    truth, known = asked.truth_phw, asked.known_phw
    coarse_truth, coarse_known = (F.avg_pool2d(x[:, None], 2)[:, 0] for x in (truth, known))
    coarse_known = (coarse_known > 0.5).float()
    seen = truth.flatten(1).sum(1) >= 1
    # That something is not there is only known as far as the picture is.
    certain = torch.where(seen, 1.0, known.flatten(1).mean(1))
    presence = F.binary_cross_entropy_with_logits(found.presence_p, seen.float(), certain)
    choice = _choice(found.match_phw, coarse_truth, coarse_known, seen) + _choice(found.mask_phw, truth, known, seen)
    masks = _cross_entropy(found.mask_phw, truth, known)
    likeness = _cross_entropy(found.match_phw, coarse_truth, coarse_known)
    dice = _dice(found.mask_phw, truth, known, seen)
    total = (
        losses.class_weight * presence
        + CHOICE_WEIGHT * choice
        + losses.mask_weight * (masks + likeness)
        + losses.dice_weight * dice
    )
    return StepLosses(total, choice.detach(), presence.detach(), masks.detach(), dice.detach())


def _choice(logits_phw: Tensor, truth_phw: Tensor, known_phw: Tensor, seen_p: Tensor) -> Tensor:
    """Cross entropy of a softmax over all cells with the share of the mask that each holds."""
    if not seen_p.any():
        return logits_phw.sum() * 0
    logits = logits_phw[seen_p].flatten(1).masked_fill(known_phw[seen_p].flatten(1) == 0, -1e4)
    share = (truth_phw * known_phw)[seen_p].flatten(1)
    share = share / share.sum(1, keepdim=True).clamp(min=1e-6)
    return -(share * logits.log_softmax(1)).sum(1).mean()


def _cross_entropy(logits_phw: Tensor, truth_phw: Tensor, known_phw: Tensor) -> Tensor:
    each = F.binary_cross_entropy_with_logits(logits_phw, truth_phw, reduction="none")
    return (each * known_phw).sum() / known_phw.sum().clamp(min=1)


def _dice(logits_phw: Tensor, truth_phw: Tensor, known_phw: Tensor, seen_p: Tensor) -> Tensor:
    """Of what is there."""
    if not seen_p.any():
        return logits_phw.sum() * 0
    logits, truth, known = (each[seen_p].flatten(1) for each in (logits_phw, truth_phw, known_phw))
    return dice_sum(logits, truth, known) / len(logits)


def _answers(found: Found, length: int) -> Answers:
    """One query for each of K conditions, as sure of itself as the condition is of being there."""
    masks = found.mask_phw.unflatten(0, (length, -1))
    presence = found.presence_p.unflatten(0, (length, -1))
    own = torch.diag_embed(presence).masked_fill(~torch.eye(presence.shape[1], dtype=torch.bool), -1e6)
    return Answers(masks, F.pad(own, (0, 1)))


def learn_finder(model: X2SAM, *, eyes: bool = True) -> None:
    """Stage "finder": the finder learns, its eyes if `eyes`, and nothing else."""
    model.requires_grad_(False)
    assert model.finder is not None
    model.finder.requires_grad_(True)
    model.finder.eyes.requires_grad_(eyes)
