"""Measures of masks: boxes, overlap, confidence, and label maps painted from them."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor


def boxes_of(masks_nhw: Tensor) -> Tensor:
    """Tight boxes (N, 4) int64 as left, top, right, bottom; right and bottom exclusive, empty masks all 0."""
    spans = [_span(masks_nhw.any(axis)) for axis in (1, 2)]
    (left, right), (top, bottom) = spans
    return torch.stack((left, top, right, bottom), 1)


def _span(occupied_nl: Tensor) -> tuple[Tensor, Tensor]:
    """First occupied place and the one after the last, of each row; 0 and 0 if there is none."""
    place = torch.arange(occupied_nl.shape[1], device=occupied_nl.device)
    stop = torch.where(occupied_nl, place + 1, 0).amax(1)
    start = torch.where(occupied_nl, place, occupied_nl.shape[1]).amin(1)
    return start.minimum(stop), stop


def mask_iou(masks_nhw: Tensor, others_mhw: Tensor) -> Tensor:
    """Intersection over union (N, M) float32 of every pair; 0 for two empty masks."""
    masks, others = masks_nhw.flatten(1).float(), others_mhw.flatten(1).float()
    shared = masks @ others.T
    union = masks.sum(1)[:, None] + others.sum(1) - shared
    return shared / union.clamp(min=1)


def confidence(logits_nhw: Tensor) -> Tensor:
    """Mean probability (N,) inside each mask, that is where the logit is positive; 0 for an empty mask."""
    inside = logits_nhw > 0
    total = (logits_nhw.sigmoid() * inside).flatten(1).sum(1)
    return total / (inside.flatten(1).sum(1) + 1e-6)


def label_map(masks_nhw: Iterable[Tensor], values: Iterable[int], empty: int, size: tuple[int, int]) -> Tensor:
    """(H, W) int64 holding each mask's value and `empty` elsewhere; later masks overwrite earlier ones."""
    masks = list(masks_nhw)
    painted = torch.full(size, empty, device=masks[0].device if masks else None)
    for mask, value in zip(masks, values, strict=True):
        painted[mask] = value
    return painted
