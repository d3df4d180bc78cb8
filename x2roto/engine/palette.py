"""The colours of an object and of what surrounds it, learnt from a shot's own mattes.

What a small network has not learnt of the world the shot itself can tell: histograms of the colours inside and around
the matte say of every pixel how likely it is the object's. The same idea as GrabCut's colour models (Rother,
Kolmogorov, Blake, SIGGRAPH 2004), with histograms for mixtures and the network's logits for the smoothness term.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor
from torch.nn import functional as F

BINS = 16  # per axis: lightness, red less lightness, blue less lightness
SURE = 0.7  # coverage from which on, or 1 less it up to which, a pixel teaches
FEWEST = 20  # pixels that can teach
MOST = 3.0  # largest logarithm of a ratio of likelihoods
FLOOR = 1e-4  # likelihood of a colour that was not seen
SPREAD = 5  # pixels of the square over which likelihoods are averaged
# How fast the surroundings follow the camera. The object keeps the colours it was first seen in: learnt from its
# later mattes they drift away with these.
RATE = 0.2
ROUNDS = 3  # of settling what is inside a box
SETTLING = 1.2  # weight of colours while settling, in units of the model's own
SHOWN = 1.6  # weight of colours that were taken from a drawn mask, likewise: they are surely the object's


@dataclass(frozen=True, slots=True)
class Palette:
    """Histograms (BINS³,) float32, each with sum 1: `inside` of the object, `outside` of its surroundings.

    `odds`: logarithm of how many pixels were the object's to each that was not.
    """

    inside: Tensor
    outside: Tensor
    odds: float

    @classmethod
    def of(cls, bins_hw: Tensor, cover_hw: Tensor, sure: float = SURE) -> Self | None:
        """Of a picture (`colour_bins`) that an object covers by `cover_hw` in [0, 1]; None where none is seen."""
        certain = cover_hw > sure
        if int(certain.sum()) < FEWEST:
            return None
        return cls(
            _histogram(bins_hw, cover_hw * certain),
            _histogram(bins_hw, (1 - cover_hw) * (cover_hw < 1 - sure)),
            float(cover_hw.mean().logit(eps=1e-3)),
        )

    def taught(self, newer: Self | None) -> Self:
        """After a frame whose own palette is `newer`."""
        if newer is None:
            return self
        return type(self)(self.inside, torch.lerp(self.outside, newer.outside, RATE), self.odds)

    def logits(self, bins_hw: Tensor, size: tuple[int, int], odds: float = 0.0) -> Tensor:
        """How much more likely every cell of a grid is the object's, by its colours; in [-MOST, MOST]. `odds`: how
        much the numbers of pixels count, from 0 to 1."""
        ratio = ((self.inside + FLOOR) / (self.outside + FLOOR)).log() + odds * self.odds
        ratio = ratio.clamp(-MOST, MOST)
        smooth = F.avg_pool2d(ratio[bins_hw][None, None], SPREAD, 1, SPREAD // 2, count_include_pad=False)
        return F.adaptive_avg_pool2d(smooth, size)[0, 0]


def colour_bins(square_hwc: Tensor) -> Tensor:
    """The bin of each pixel of a uint8 picture (h, w, 3), int64 (h, w)."""
    rgb = square_hwc.float() / 255
    light = rgb.mean(-1)
    red, blue = ((rgb[..., channel] - light) * 0.75 + 0.5 for channel in (0, 2))
    places = [(axis.clamp(0, 0.999) * BINS).long() for axis in (light, red, blue)]
    return (places[0] * BINS + places[1]) * BINS + places[2]


def settled(logits_hw: Tensor, bins_hw: Tensor, bounds_hw: Tensor, weight: float) -> Tensor:
    """What to add to logits of an object inside `bounds_hw`, by colours that are not known yet: in turns, the colours
    are taken from the mask, and the mask from the colours. Zeros where there is no mask to start from."""
    inside = _resized(bounds_hw.float(), bins_hw.shape)
    added, first = torch.zeros_like(logits_hw), None
    for _ in range(ROUNDS):
        cover = _resized((logits_hw + added).sigmoid(), bins_hw.shape) * inside
        palette = Palette.of(bins_hw, cover, sure=0.5)
        if palette is None:
            break
        # What lies outside of a box is known, so a colour that most of lies there is not the object's: numbers count
        # in full. Those of the first round, as a mask that shrinks must not make itself less likely.
        first = palette.odds if first is None else first
        said = replace(palette, odds=first).logits(bins_hw, (logits_hw.shape[0], logits_hw.shape[1]), odds=1.0)
        added = SETTLING * weight * said
    return added.masked_fill(~bounds_hw, 0)


def by_colour(
    logits_hw: Tensor, bins_hw: Tensor, known: Palette | None, bounds_hw: Tensor | None, weight: float
) -> Tensor:
    """What colours add to the logits of an object: those that are known, or those that settle inside of its bounds on
    the frame where it is first seen; nothing where neither is known."""
    if known is not None:
        return weight * known.logits(bins_hw, (logits_hw.shape[0], logits_hw.shape[1]))
    return torch.zeros_like(logits_hw) if bounds_hw is None else settled(logits_hw, bins_hw, bounds_hw, weight)


def taught(before: Sequence[Palette | None], newer: Sequence[Palette | None]) -> tuple[Palette | None, ...]:
    """The palettes of several objects after a frame whose own are `newer`; the first one of each that is known."""
    return tuple(old.taught(new) if old is not None else new for old, new in zip(before, newer, strict=True))


def cover_of(logits_hw: Tensor, bins_hw: Tensor) -> Tensor:
    """Coverage of each pixel of a picture by an object with these logits."""
    return _resized(logits_hw, bins_hw.shape).sigmoid()


def _resized(values_hw: Tensor, size: torch.Size) -> Tensor:
    return F.interpolate(values_hw[None, None], size, mode="bilinear", align_corners=False)[0, 0]


def _histogram(bins_hw: Tensor, weights_hw: Tensor) -> Tensor:
    """Counts with some given to neighbouring bins, of sum 1."""
    counts = torch.zeros(BINS**3, device=bins_hw.device).index_add_(0, bins_hw.flatten(), weights_hw.flatten())
    cube = counts.view(1, 1, BINS, BINS, BINS)
    for axis in range(2, 5):
        shape = [3 if dimension == axis else 1 for dimension in range(5)]
        kernel = torch.tensor([0.25, 0.5, 0.25], device=cube.device).view(shape)
        cube = F.conv3d(cube, kernel, padding=[int(side == 3) for side in shape[2:]])
    return cube.flatten() / cube.sum().clamp_min(1e-6)
