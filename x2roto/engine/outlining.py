"""An object's outline from frame to frame, for models with an outliner (`model/outliner.py`).

Inference and training draw by this one function, so both give the outliner the same cues.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor
from torch.nn import functional as F

from x2roto.engine.fit import score, sums
from x2roto.engine.model.outliner import INSIDE, Outliner, Places, Sight
from x2roto.engine.palette import MOST, Palette, cover_of
from x2roto.engine.window import seen_from

# How much is known: at first only the prompt, then a first drawing of the same frame, then frames before.
PROMPT, SKETCH, BEFORE = 1.0, 0.5, 0.0
# How like the object's first tokens those of a drawing are (mean cosine of the likest), less what it is less sure
# than usual: below this it is something else; the same where the frame before did not show it, since other things
# are drawn over and over. Found on procedural clips and the real ones (`docs/nano.md`).
ITSELF, BACK = 0.66, 0.75
# Share of the union of two masks that is in both, above which the earlier one still tells where the object is: what
# is drawn by a drawing of a drawing drifts.
FRESH = 0.5
# How fast what is usual follows, and how much less sure a drawing is that does not count for it.
RATE = 0.2
UNUSUAL = 0.08
# How fast frames before the last are forgotten in what is fitted, beside the first, which counts as much as they.
RECENT = 0.1
# What is added to logits where the fitted score is sure: it decides where the outliner does not. And how often a
# first frame is drawn again from its last drawing. Both found on procedural clips and the real ones (`docs/nano.md`).
FITTED = 1.0
SKETCHES = 3


@dataclass(frozen=True, slots=True)
class Trace:
    """What is kept of B objects: tokens (B, n, D) where each was first and last seen with how much of each it
    covered (B, n), what the first have in common (B, 1, D), sums (B, F, F + 1) of the first frame and of later ones
    (`fit.sums`), the last mask (B, h, w) in [0, 1] and the window it is of, `window_b4` (left, top, right, bottom in
    pixels of the plate), how sure its masks usually are, `sure` (B,) in [0, 1], and whether the last frame did not
    show it, `gone` (B,) bool. What was last seen is kept as long as later frames do not show the object, or where it
    was."""

    centre: Tensor
    first: Tensor
    first_cover: Tensor
    last: Tensor
    last_cover: Tensor
    first_sums: Tensor
    later_sums: Tensor
    mask: Tensor
    window_b4: Tensor
    sure: Tensor
    gone: Tensor

    @classmethod
    def begin(cls, sight: Sight, cover_bhw: Tensor, window_b4: Tensor) -> Self:
        """Objects that cover the windows by `cover_bhw` on the frame where they are first seen."""
        tokens, cover = sight.tokens.detach(), _by_token(sight, cover_bhw)
        centre, sure = tokens.mean(1, keepdim=True), sureness(cover_bhw)
        gone, told = torch.zeros_like(sure, dtype=torch.bool), _sums(sight, cover_bhw)
        return cls(centre, tokens, cover, tokens, cover, told, told, cover_bhw, window_b4, sure, gone)

    def after(self, sight: Sight, cover_bhw: Tensor, window_b4: Tensor) -> Self:
        """After one more frame."""
        cover, sure = _by_token(sight, cover_bhw), sureness(cover_bhw)
        usual = torch.where(sure > self.sure - UNUSUAL, torch.lerp(self.sure, sure, RATE), self.sure)
        gone = sure == 0
        kept = gone | (self._shared(cover_bhw, window_b4) > FRESH)
        return replace(
            self,
            last=chosen(kept, self.last, sight.tokens.detach()),
            last_cover=chosen(kept, self.last_cover, cover),
            later_sums=chosen(gone, self.later_sums, self.later_sums.lerp(_sums(sight, cover_bhw), RECENT)),
            mask=chosen(kept, self.mask, cover_bhw),
            window_b4=chosen(kept, self.window_b4, window_b4),
            sure=usual,
            gone=gone,
        )

    def _shared(self, cover_bhw: Tensor, window_b4: Tensor) -> Tensor:
        """How much of their union the last masks and what covers windows by `cover_bhw` share, (B,) in [0, 1]."""
        before = seen_from(self.mask[:, None], self.window_b4, window_b4)[:, 0] > INSIDE
        now = cover_bhw > INSIDE
        both, either = (each.sum((-2, -1)) for each in (before & now, before | now))
        return both / either.clamp(min=1)

    def itself(self, sight: Sight, cover_bhw: Tensor) -> Tensor:
        """Whether what covers windows by `cover_bhw`, if anything, is each object itself: (B,) bool."""
        least = torch.where(self.gone, BACK, ITSELF)
        return (sureness(cover_bhw) == 0) | (self.sameness(sight, cover_bhw) - self.sure >= least)

    def sameness(self, sight: Sight, cover_bhw: Tensor) -> Tensor:
        """How much what covers windows by `cover_bhw` is each object: how like its first tokens it is (1 where there
        are none) and how sure, (B,) in [-1, 2]."""
        cover = _by_token(sight, cover_bhw)
        # What is thinner than tokens are covers none by half.
        inside = cover >= cover.amax(1, keepdim=True).clamp(max=INSIDE)
        known = self.first_cover > INSIDE
        mine, its = (F.normalize(each - self.centre, dim=-1) for each in (sight.tokens, self.first))
        like = [_likeness(*each) for each in zip(mine, inside, its, known, strict=True)]
        return torch.stack(like) + sureness(cover_bhw)


def chosen(first_b: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """Of two tensors with a row per object, the row of the first where `first_b`, else that of the second."""
    return torch.where(first_b.view(-1, *[1] * (first.dim() - 1)), first, second)


def _likeness(one_nd: Tensor, inside_n: Tensor, other_md: Tensor, known_m: Tensor) -> Tensor:
    """Mean cosine of unit tokens with the likest of others, of both those that are marked; 1 where no other is."""
    if not known_m.any():
        return one_nd.new_ones(())
    return (one_nd[inside_n] @ other_md[known_m].mT).amax(-1).mean()


def sureness(cover_bhw: Tensor) -> Tensor:
    """Mean coverage inside of masks (B, h, w) in [0, 1], 0 for empty ones: (B,)."""
    inside = (cover_bhw > INSIDE).to(cover_bhw.dtype)
    return (cover_bhw * inside).sum((-2, -1)) / inside.sum((-2, -1)).clamp(min=1)


def traced(trace: Trace | None, sight: Sight, cover_bhw: Tensor, window_b4: Tensor) -> Trace:
    """What is kept after a frame, the first one or one more."""
    if trace is None:
        return Trace.begin(sight, cover_bhw, window_b4)
    return trace.after(sight, cover_bhw, window_b4)


Palettes = Sequence[Palette | None]


def outlined(
    outliner: Outliner,
    sight: Sight,
    own_bhw: Tensor,
    bins: Sequence[Tensor],
    trace: Trace | None,
    palettes: Palettes,
    window_b4: Tensor,
    prompt_bhw: Tensor,
) -> list[Tensor]:
    """Logits (B, h, w) of B objects, as fine as `sight.fine`; on their first frame, where there is no `trace`,
    sketches before them.

    `own_bhw`: the network's logits. `bins`: colours of each window (`colour_bins`). `prompt_bhw`: how much of each
    cell of the first frame the prompt covers. Both on any grid.
    """
    own_bhw, prompt_bhw = (on_grid(each, sight.fine.shape[-2:]) for each in (own_bhw, prompt_bhw))
    if trace is not None:
        return [_drawn(outliner, sight, own_bhw, bins, trace, palettes, window_b4, None, BEFORE)]
    drawings: list[Tensor] = []
    cover = prompt_bhw
    for known in (PROMPT, *[SKETCH] * SKETCHES):
        trace, palettes = Trace.begin(sight, cover, window_b4), palettes_of(cover, bins)
        drawings.append(_drawn(outliner, sight, own_bhw, bins, trace, palettes, window_b4, prompt_bhw, known))
        cover = drawings[-1].detach().sigmoid()
    return drawings


def on_grid(maps_bhw: Tensor, size: torch.Size) -> Tensor:
    """Maps on a grid (h, w) of that size, the same ones where they are."""
    if maps_bhw.shape[-2:] == size:
        return maps_bhw
    return F.interpolate(maps_bhw[:, None], size, mode="bilinear", align_corners=False)[:, 0]


def palettes_of(cover_bhw: Tensor, bins: Sequence[Tensor]) -> list[Palette | None]:
    """Colours of objects that cover windows so far."""
    logits = cover_bhw.logit(eps=1e-4)
    return [Palette.of(each, cover_of(one, each)) for one, each in zip(logits, bins, strict=True)]


def _drawn(
    outliner: Outliner,
    sight: Sight,
    own_bhw: Tensor,
    bins: Sequence[Tensor],
    trace: Trace,
    palettes: Palettes,
    window_b4: Tensor,
    prompt_bhw: Tensor | None,
    known: float,
) -> Tensor:
    height, width = own_bhw.shape[-2:]
    colours = [
        torch.zeros_like(own) if palette is None else palette.logits(each, (height, width)) / MOST
        for palette, each, own in zip(palettes, bins, own_bhw, strict=True)
    ]
    before = seen_from(trace.mask[:, None], trace.window_b4, window_b4)[:, 0]
    prompt = torch.zeros_like(before) if prompt_bhw is None else prompt_bhw
    fields = [torch.stack(colours), 2 * before - 1, prompt, torch.full_like(before, known)]
    places = places_of(sight.grid, window_b4, trace.window_b4)
    likeness = [
        outliner.compare(sight, trace.first, trace.first_cover, trace.centre),
        outliner.compare(sight, trace.last, trace.last_cover, trace.centre, places),
    ]
    drawn: Tensor = outliner(sight, own_bhw, torch.stack(fields, dim=1), torch.cat(likeness, dim=1))
    if known == PROMPT:
        return drawn
    return drawn + FITTED * score(trace.first_sums + trace.later_sums, sight.cells).view_as(drawn)


def places_of(grid: tuple[int, int], now_b4: Tensor, before_b4: Tensor) -> Places:
    """Where on the plate the places of a window's grid lie, and those of another window's: from the corner of the
    first on, in its sides."""
    rows, columns = ((torch.arange(size, device=now_b4.device) + 0.5) / size for size in grid)
    places = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), dim=-1).flatten(0, 1)
    corner, side = now_b4[:, None, :2], (now_b4[:, 2:] - now_b4[:, :2]).amax(-1)[:, None, None]
    one, other = (
        (edges[:, None, :2] - corner + places * (edges[:, None, 2:] - edges[:, None, :2])) / side
        for edges in (now_b4, before_b4)
    )
    return Places(one, other)


def _sums(sight: Sight, cover_bhw: Tensor) -> Tensor:
    return sums(sight.cells, on_grid(cover_bhw, sight.fine.shape[-2:]).flatten(1))


def _by_token(sight: Sight, cover_bhw: Tensor) -> Tensor:
    return F.adaptive_avg_pool2d(cover_bhw[:, None], sight.grid).flatten(1)
