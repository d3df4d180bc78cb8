"""Where in a clip words fit best, for models with a finder (`model/finder.py`).

Each phrase is looked for on some frames, each by itself. What is found on the best of them is then followed, both
ways in time, as if a person had drawn a box around it there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from x2roto.engine.identity import EMPTY
from x2roto.engine.model.finder import padded
from x2roto.engine.outlining import on_grid
from x2roto.engine.postprocess.masks import confidence
from x2roto.engine.tasks import PHRASE_END, PHRASE_START
from x2roto.matte import edges_of
from x2roto.prompt import Box

if TYPE_CHECKING:
    from x2roto.engine.segmenter import Rgb, Segmenter

# Parts of a mask of which less than this share of its largest is seen are specks.
SPECK = 0.1
# A cell is in where it is so sure, as a share of the surest; found on clips of seeds that nothing else uses.
SURE = 0.3
# Taken from the logit of presence, which is learnt on single pictures: of several frames the surest counts, and one
# of them often shows what looks like another thing. Found on the same clips and on the real ones.
DOUBT = 0.6
# Squares that a frame is looked at in, in sides of the mask encoder's: in a larger one what is small is known more
# often, what is large less.
SIZES = (1.0, 4 / 3)
GRAIN = 32  # pixels: what these sides are multiples of, the eyes' coarsest stride
# Phrases looked for at once; each takes some megabytes.
TOGETHER = 16
# Of all names that a model knows, those that are looked for on a frame: what the likest cells are most like.
LIKELY = 24
LIKEST = 20


@dataclass(frozen=True, slots=True)
class Sighting:
    """What a phrase means on one frame. `mask_hw`: logits over the frame; `presence`: whether it is there, in [0, 1],
    the mean of all looks at the frame; `score`: presence times the mean coverage inside the mask, 0 for none, of the
    look that is surest, whose mask it is."""

    index: int | None
    mask_hw: Tensor
    presence: float
    score: float


@dataclass(frozen=True, slots=True)
class Thing:
    """What words could mean: a box in sides of its frame, and how sure that is, in [0, 1]."""

    box: Box
    score: float


@dataclass(frozen=True, slots=True)
class Named:
    """A thing under a name that fits it; `cells_hw`: where it is on its frame, bool."""

    name: str
    thing: Thing
    cells_hw: NDArray[np.bool_]


def sightings(
    segmenter: Segmenter,
    phrases: Sequence[str],
    looked: Mapping[int | None, Rgb],
    *,
    apart: bool = False,
    sizes: Sequence[float] = SIZES,
) -> list[list[Sighting]]:
    """Each phrase on every frame `looked` at, by source index. `apart`: they are classes, and what is of one is of no
    other. `sizes`: a look at each frame in a square of each."""
    if not phrases:
        return []
    ids, valid = _spelt(segmenter, phrases)
    seen: list[list[Sighting]] = [[] for _ in phrases]
    for index, rgb in looked.items():
        looks = zip(*(_look(segmenter, ids, valid, index, rgb, size) for size in sizes), strict=True)
        found = [replace(best(each), presence=fmean(one.presence for one in each)) for each in looks]
        for each, one in zip(seen, _exclusive(found) if apart else found, strict=True):
            each.append(one)
    return seen


def best(seen: Sequence[Sighting]) -> Sighting:
    """The frame, or the look at one, in which a phrase is seen best, the first of equals."""
    return max(seen, key=lambda one: one.score)


def things(seen: Sequence[Sighting]) -> list[Thing]:
    """All that could be meant on any of the frames, the surest first."""
    found = [thing for one in seen for thing, _ in _things(one)]
    return sorted(found, key=lambda thing: -thing.score)


def nameable(segmenter: Segmenter, names: Sequence[str], looked: Mapping[int | None, Rgb]) -> list[Named]:
    """What there is on any of the frames that one of all the `names` fits, the surest first: a thing comes under
    every name and on every frame on which it was looked for."""
    ids, valid = _spelt(segmenter, names)
    found: list[Named] = []
    for index, rgb in looked.items():
        alike = segmenter.model.liken(segmenter.pixels([rgb]), ids, valid)[0].flatten(1)
        best_cells = alike.topk(min(LIKEST, alike.shape[1])).values.mean(1)
        likely = [names[place] for place in best_cells.topk(min(LIKELY, len(names))).indices.tolist()]
        for name, (one,) in zip(likely, sightings(segmenter, likely, {index: rgb}, sizes=(1,)), strict=True):
            found.extend(Named(name, thing, cells) for thing, cells in _things(one))
    return sorted(found, key=lambda named: -named.thing.score)


def _spelt(segmenter: Segmenter, phrases: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Token ids (P, L) of phrases as conversations have them, and which of them are real."""
    marked = [f"{PHRASE_START}{phrase}{PHRASE_END}" for phrase in phrases]
    rows = [torch.tensor(segmenter.tokenizer.encode(text, add_special_tokens=False).ids) for text in marked]
    ids, valid = padded(rows)
    return ids.to(segmenter.device), valid.to(segmenter.device)


def _look(
    segmenter: Segmenter, ids: Tensor, valid: Tensor, index: int | None, rgb: Rgb, size: float
) -> list[Sighting]:
    """Each phrase in one look at a frame, in a square of that size."""
    side = GRAIN * round(size * segmenter.model.config.image_size / GRAIN)
    pixels = segmenter.normalised(segmenter.squares([rgb], side))
    picture = torch.zeros(len(ids), dtype=torch.long, device=ids.device)
    found = segmenter.model.find(pixels, ids, valid, picture, together=TOGETHER)
    masks, presence = found.mask_phw.float(), (found.presence_p.float() - DOUBT).sigmoid()
    scores = presence * confidence(masks)
    rows = zip(masks, presence.tolist(), scores.tolist(), strict=True)
    return [Sighting(index, mask, there, score) for mask, there, score in rows]


def _exclusive(found: Sequence[Sighting]) -> list[Sighting]:
    """What is seen of each on a frame without the cells of which another is surer, all on the finest grid of them."""
    size = max((one.mask_hw.shape for one in found), key=torch.Size.numel)
    masks = torch.stack([on_grid(one.mask_hw[None], size)[0] for one in found])
    presence = masks.new_tensor([one.presence for one in found])
    sure = masks.sigmoid() * presence[:, None, None]
    masks = masks.masked_fill(sure < sure.amax(0), EMPTY)
    scores = (presence * confidence(masks)).tolist()
    return [replace(one, mask_hw=mask, score=score) for one, mask, score in zip(found, masks, scores, strict=True)]


def boxes(seen: Sighting, *, apart: bool) -> list[Box]:
    """Boxes, in sides of the frame, around what is seen: one for each part that touches no other, what is seen most
    first, specks left out, where things are told `apart`, or around the first part alone. Without names.
    """
    found = [_around(part, seen.index) for part, _ in _parts(seen)]
    return found if apart else found[:1]


def _things(seen: Sighting) -> Iterator[tuple[Thing, NDArray[np.bool_]]]:
    """What is seen, part by part, each with its cells (h, w)."""
    for part, sure in _parts(seen):
        yield Thing(_around(part, seen.index), seen.presence * sure), part


def _parts(seen: Sighting) -> list[tuple[NDArray[np.bool_], float]]:
    """Each part (h, w) with its mean coverage, that of which most is seen first, specks left out."""
    sure = seen.mask_hw.sigmoid().cpu().numpy()
    parts, count = ndimage.label(sure >= SURE * sure.max())
    numbers = range(1, count + 1)
    seen_of, mean_of = ndimage.sum_labels(sure, parts, numbers), ndimage.mean(sure, parts, numbers)
    order = np.argsort(-seen_of, kind="stable")
    kept = [number for number in order if seen_of[number] >= SPECK * seen_of.max()]
    return [(parts == number + 1, float(mean_of[number])) for number in kept]


def _around(mask_hw: NDArray[np.bool_], frame: int | None) -> Box:
    edges = edges_of(mask_hw)
    assert edges is not None
    return Box("", *edges, frame, relative=True)
