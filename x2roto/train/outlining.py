"""Stage "outliner": an object's outline on every frame of a clip, after one prompt. Only the outliner learns.

The rest of the network runs as in inference and gives the cues. Now and then it is left out or made unsure, or the
outliner would trust it on footage unlike any that was learnt from as much as on footage it knows. Masks are disturbed
before they are carried to the next frame, so that it learns to find again what was lost.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from x2roto.engine import preprocess
from x2roto.engine.model.segmentor import STRIDE
from x2roto.engine.model.x2sam import X2SAM
from x2roto.engine.outlining import Trace, outlined, palettes_of, traced
from x2roto.engine.palette import Palette, by_colour, colour_bins, taught
from x2roto.engine.segmenter import anchor_masks
from x2roto.engine.window import DRAWN, widened
from x2roto.train.collate import Batch
from x2roto.train.config import Losses
from x2roto.train.losses import dice_sum
from x2roto.train.matching import Answers, FrameTarget
from x2roto.train.network import JointStage, StepLosses, decode_through_time, encode

ALONE = 0.5  # share of the batches in which the network's own masks are left out
UNSURE = 0.4  # least factor of its logits otherwise
# What happens to a mask before it is carried on, by a number drawn from 0 to 1; above all of these nothing does.
SHRUNK, GROWN, CUT, MOVED = 0.15, 0.25, 0.45, 0.55
MOST_CELLS = 4  # by how many it shrinks, grows or moves


class OutlinerStage(JointStage):
    """The outliner on clips that each ask for one object by a region on their first frame."""

    def forward(self, batch: Batch, *, learn: bool = True) -> StepLosses | Answers:
        """The losses of a batch; without `learn`, the logits of all frames, time first."""
        frames = list(self._frames(batch))
        if not learn:
            masks = torch.cat([drawings[-1] for drawings in frames])[:, None]
            classes = torch.tensor([20.0, -20.0], device=masks.device).expand(len(masks), 1, 2)
            return Answers(masks, classes)
        drawn, truth = [], []
        for drawings, row in zip(frames, batch.targets, strict=True):
            for logits in drawings:
                for one, target in zip(logits, row, strict=True):
                    if target is not None:
                        drawn.append(one)
                        truth.append(_truth(target, one))
        return outline_losses(torch.stack(drawn), torch.stack(truth), self.losses)

    def _frames(self, batch: Batch) -> Iterator[list[Tensor]]:
        """Of each frame, what is drawn of every object; more than once on the first."""
        model, text = self.model, batch.text
        assert isinstance(model, X2SAM)
        assert batch.frames is not None
        assert batch.windows is not None
        assert text is not None
        assert model.finder is not None
        assert model.outliner is not None
        regions = [each for sample in batch.decoded if (each := text.regions[sample]) is not None]
        prompt = torch.cat([each.cover_1hw for each in regions if each.cover_1hw is not None]).to(model.device)
        bounds = [
            None if region.pointed else widened(drawn, DRAWN)
            for region, drawn in zip(regions, anchor_masks(prompt), strict=True)
        ]
        generator = torch.Generator().manual_seed(batch.seeds[-1])
        trace: Trace | None = None
        palettes: tuple[Palette | None, ...] = ()
        # The eyes see windows as they are, all else at the mask encoder's side.
        squares = sided(batch.frames, model.config.image_size)
        owns = self._own(replace(batch, frames=squares), len(prompt))
        for own, frame, square, window in zip(owns, batch.frames, squares, batch.windows, strict=True):
            levels = model.finder.eyes(preprocess.normalise(frame))
            sight, bins = model.outliner.look(levels), [colour_bins(each) for each in square]
            known = palettes or (None,) * len(prompt)
            if own.any():
                parts = zip(own, bins, known, bounds, strict=True)
                own = own + torch.stack([by_colour(*part, model.config.palette) for part in parts])
            drawings = outlined(model.outliner, sight, own, bins, trace, palettes, window, prompt)
            cover = drawings[-1].detach().sigmoid()
            if trace is not None:
                cover = disturbed(cover, generator)
            newer = palettes_of(cover, bins)
            trace, palettes = traced(trace, sight, cover, window), taught(known, newer)
            yield drawings

    @torch.no_grad()
    def _own(self, batch: Batch, count: int) -> Tensor:
        """The network's own logits (T, B, h, w), as sure of themselves as is drawn; 0 where it is not asked."""
        assert batch.frames is not None
        generator = torch.Generator().manual_seed(batch.seeds[0])
        side, length = self.model.config.image_size // STRIDE, len(batch.targets)
        if torch.rand((), generator=generator) < ALONE:
            return torch.zeros(length, count, side, side, device=self.model.device)
        sure = UNSURE + (1 - UNSURE) * torch.rand(count, 1, 1, generator=generator)
        if self.model.config.outliner.alone:
            batch = replace(batch, frames=batch.frames[:1])
        asked = torch.stack(list(self._masks(batch))) * sure.to(self.model.device)
        return F.pad(asked, (0, 0, 0, 0, 0, 0, 0, length - len(asked)))

    def _masks(self, batch: Batch) -> Iterator[Tensor]:
        text, frames = batch.text, batch.frames
        assert text is not None
        assert frames is not None
        pyramid = encode(self.model, frames.flatten(0, 1))
        prompt, states = self._think(batch, text, pyramid)
        conditions = self._asked(states, prompt, text, batch.decoded).conditions
        imprint = self._imprint(batch, text, pyramid)
        time = decode_through_time(
            self.model, pyramid.levels_bchw, len(frames), conditions, self.call, prompt=imprint, clips=batch.clips
        )
        for moment in time:
            yield self.model.segmentor.predict(moment.layers[-1], conditions).best()


def sided(frames: Tensor, side: int) -> Tensor:
    """Squares uint8 (T, P, S, S, 3) at another side, the same ones at their own."""
    if frames.shape[2] == side:
        return frames
    squares: Tensor = preprocess.squared(frames.flatten(0, 1), side).unflatten(0, frames.shape[:2])
    return squares


def disturbed(cover_bhw: Tensor, generator: torch.Generator) -> Tensor:
    """Masks on a square grid as they are after many frames: some of them shrunk, grown, cut in two or moved."""
    return torch.stack([_disturbed(cover, generator) for cover in cover_bhw])


def _disturbed(cover_hw: Tensor, generator: torch.Generator) -> Tensor:
    kind, reach, angle = torch.rand(3, generator=generator).tolist()
    cells = 1 + int(reach * MOST_CELLS)
    if kind < SHRUNK:
        return -_grown(-cover_hw, cells)
    if kind < GROWN:
        return _grown(cover_hw, cells)
    if kind < CUT:
        return cover_hw * _half(cover_hw, 2 * math.pi * angle, reach)
    if kind < MOVED:
        return torch.roll(cover_hw, (round(cells * math.sin(7 * angle)), round(cells * math.cos(7 * angle))), (0, 1))
    return cover_hw


def _grown(cover_hw: Tensor, cells: int) -> Tensor:
    return F.max_pool2d(cover_hw[None, None], 2 * cells + 1, 1, cells)[0, 0]


def _half(cover_hw: Tensor, angle: float, reach: float) -> Tensor:
    """1 on the side of a line near the middle of what is covered."""
    places = [torch.arange(size, device=cover_hw.device) / size for size in cover_hw.shape]
    along = places[0][:, None] * math.sin(angle) + places[1] * math.cos(angle)
    total = cover_hw.sum().clamp(min=1e-6)
    middle = (along * cover_hw).sum() / total
    spread = ((along - middle).square() * cover_hw).sum().div(total).sqrt()
    return (along > middle + (reach - 1) * spread).to(cover_hw.dtype)


def outline_losses(drawn_nhw: Tensor, truth_nhw: Tensor, losses: Losses) -> StepLosses:
    """Cross entropy and dice of n masks."""
    masks = F.binary_cross_entropy_with_logits(drawn_nhw, truth_nhw)
    drawn, truth = drawn_nhw.flatten(1), truth_nhw.flatten(1)
    dice = dice_sum(drawn, truth, torch.ones_like(truth)) / len(drawn)
    total = losses.mask_weight * masks + losses.dice_weight * dice
    zero = torch.zeros_like(masks.detach())
    return StepLosses(total, zero, zero, masks.detach(), dice.detach())


def _truth(target: FrameTarget, like_hw: Tensor) -> Tensor:
    """How much of each cell the object covers; nothing where it is not there."""
    mask = target.masks_nhw.any(0).float()
    return F.adaptive_avg_pool2d(mask[None, None], (like_hw.shape[0], like_hw.shape[1]))[0, 0]


def learn_outliner(model: X2SAM) -> None:
    """Stage "outliner": the outliner learns and nothing else."""
    model.requires_grad_(False)
    assert model.outliner is not None
    model.outliner.requires_grad_(True)
