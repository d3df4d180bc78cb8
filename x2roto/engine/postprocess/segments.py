"""Panoptic segments of one frame: every pixel to one query, weak ones dropped, stuff joined.

Follows wanghao9610/X2SAM@5b0b106 `x2sam/x2sam/dataset/utils/process.py` (`compute_segments`) and
`panoptic.py`, except that ids are never given twice.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from x2roto.engine.postprocess.geometry import Geometry, resized

# A segment survives if it won more than this part of what it would have covered alone.
OVERLAP = 0.8
VOID = 0


@dataclass(frozen=True, slots=True)
class Segment:
    """One object, or all of one stuff class. `area` in pixels, `score` in [0, 1] of its best query."""

    id: int
    category: int
    is_thing: bool
    score: float
    area: int
    queries: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Panoptic:
    """`id_map` (H, W) int32 with 0 where nothing is, and the segments its ids name."""

    id_map: Tensor
    segments: tuple[Segment, ...]


def panoptic(
    scores_qc: Tensor,
    logits_qhw: Tensor,
    geometry: Geometry,
    *,
    stuff: Collection[int],
    threshold: float = 0.5,
    new_id: Callable[[int], int] | None = None,
    reference: bool = False,
) -> Panoptic:
    """Segments of the queries whose best class scores above `threshold`; see `fuse` for the rest."""
    scores, categories = scores_qc.max(1)
    kept = (scores > threshold).nonzero().flatten()
    probs = ((part, logits.sigmoid()) for part, logits in resized(logits_qhw[kept], geometry))
    fused = fuse(
        probs,
        scores[kept],
        categories[kept],
        geometry.frame,
        stuff=stuff,
        new_id=new_id,
        reference=reference,
    )
    queries = kept.tolist()
    named = (replace(s, queries=tuple(queries[place] for place in s.queries)) for s in fused.segments)
    return replace(fused, segments=tuple(named))


def fuse(
    probs: Iterable[tuple[slice, Tensor]],
    scores_n: Tensor,
    categories_n: Tensor,
    frame: tuple[int, int],
    *,
    stuff: Collection[int],
    new_id: Callable[[int], int] | None = None,
    reference: bool = False,
) -> Panoptic:
    """Segments of N candidates, from chunks of their mask probabilities (n, H, W).

    Each pixel goes to the candidate with the highest probability times score. Candidates of one `stuff` class
    share a segment. Ids count from 1, or come from `new_id(category)`. With `reference` each part of a stuff
    class is listed alone, and the count goes on from the id given last, even a shared one: ids collide.
    """
    winner, won, alone = _contest(probs, scores_n, frame)
    # The reference compares in double what it divided in single precision: exactly 8 of 10 survives.
    survives = (alone > 0) & ((won / alone).double() > OVERLAP)
    places = survives.nonzero().flatten()
    categories = categories_n[places].tolist()
    ids = _ids(categories, stuff, new_id, reference)
    lookup = torch.full((max(1, len(scores_n)),), VOID, dtype=torch.int32, device=winner.device)
    lookup[places] = torch.tensor(ids, dtype=torch.int32, device=winner.device)
    rows = zip(ids, categories, scores_n[places].tolist(), won[places].tolist(), places.tolist(), strict=True)
    parts = [Segment(id, kind, kind not in stuff, score, area, (q,)) for id, kind, score, area, q in rows]
    return Panoptic(lookup[winner], tuple(parts if reference else _joined(parts)))


def _contest(
    probs: Iterable[tuple[slice, Tensor]], scores_n: Tensor, frame: tuple[int, int]
) -> tuple[Tensor, Tensor, Tensor]:
    """The winning candidate of each pixel (H, W), how many pixels each won, and how many it claims alone."""
    best = scores_n.new_full(frame, -1)
    winner = best.new_zeros(frame, dtype=torch.long)
    alone = torch.zeros_like(scores_n, dtype=torch.long)
    for part, probs_nhw in probs:
        weighted = probs_nhw * scores_n[part, None, None]
        alone[part] = (weighted >= 0.5).flatten(1).sum(1)
        value, place = weighted.max(0)
        winner = torch.where(value > best, place + part.start, winner)
        best = value.maximum(best)
    return winner, winner.flatten().bincount(minlength=len(scores_n))[: len(scores_n)], alone


def _ids(
    categories: list[int], stuff: Collection[int], new_id: Callable[[int], int] | None, reference: bool
) -> list[int]:
    ids: list[int] = []
    shared: dict[int, int] = {}
    for category in categories:
        if category in shared:
            ids.append(shared[category])
            continue
        if new_id is not None:
            ids.append(new_id(category))
        else:
            ids.append(1 + (ids[-1] if reference and ids else max(ids, default=VOID)))
        if category in stuff:
            shared[category] = ids[-1]
    return ids


def _joined(parts: list[Segment]) -> Iterable[Segment]:
    joined: dict[int, Segment] = {}
    for part in parts:
        first = joined.get(part.id)
        joined[part.id] = part if first is None else _union(first, part)
    return joined.values()


def _union(first: Segment, second: Segment) -> Segment:
    return replace(
        first,
        score=max(first.score, second.score),
        area=first.area + second.area,
        queries=first.queries + second.queries,
    )


class ColourIds:
    """Ids that read as colours, R + 256 G + 65536 B: a class's own colour, things later varied at random.

    `colours` and `stuff` name categories; the same seed and order of calls give the same ids. A stuff class
    always has the same id, a thing never one given before, and no id is 0, the void.
    """

    def __init__(self, colours: Mapping[int, tuple[int, int, int]], stuff: Collection[int], seed: int = 42) -> None:
        self._colours = colours
        self._stuff = stuff
        self._random = np.random.default_rng(seed)
        self._taken = {(0, 0, 0), *(colours[category] for category in stuff)}

    def __call__(self, category: int) -> int:
        """The id of the next segment of `category`."""
        red, green, blue = self._colour(category)
        return red + 256 * green + 65536 * blue

    def _colour(self, category: int) -> tuple[int, int, int]:
        base = colour = self._colours[category]
        if category in self._stuff:
            return base
        while colour in self._taken:
            offset = self._random.integers(-30, 31, size=3)
            red, green, blue = np.clip(base + offset, 0, 255).tolist()
            colour = (red, green, blue)
        self._taken.add(colour)
        return colour
