"""Where in a clip words fit best, for models that follow single objects in windows.

Words are looked for on whole frames, where a small network sees little of a thing but its place. What they find is
then followed as if a person had drawn a box around it there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from x2roto.engine.identity import Candidates, Following, Seen, follow
from x2roto.engine.memory import Memory
from x2roto.engine.shot import Query
from x2roto.prompt import Box

if TYPE_CHECKING:
    from x2roto.engine.segmenter import Segmenter

# Parts of a matte smaller than this share of its largest are specks.
SPECK = 0.1


@torch.inference_mode()
def find(
    segmenter: Segmenter, query: Query, looked: Mapping[int | None, NDArray[Any]], presence: float
) -> Box | None:
    """A box around the one object a query asks for, on the frame where it is seen best; None if it is on none.

    `looked`: frames (H, W, 3) by source index, None the first of the range. `presence`: least class score.
    """
    best: tuple[Seen, int | None] | None = None
    for index, rgb in looked.items():
        seen = _seen(segmenter, query, rgb, presence)
        if seen.present and (best is None or seen.score > best[0].score):
            best = seen, index
    if best is None:
        return None
    seen, index = best
    height, width = looked[index].shape[:2]
    return replace(around(seen.logits.cpu().numpy() > 0, width, height), name=seen.name, frame=index)


def _seen(segmenter: Segmenter, query: Query, rgb: NDArray[Any], presence: float) -> Seen:
    """The object on a frame by itself."""
    segmentor, config = segmenter.model.segmentor, segmenter.model.config.memory
    pyramid = segmentor.encoder(segmenter.pixels([rgb])).levels_bchw
    decoded = segmentor.decode(
        segmentor.features(pyramid, first=True), Memory(config.capacity, anchored=config.anchored), query.conditions
    )
    prediction = segmentor.predict(decoded, query.conditions)
    candidates = Candidates.of(prediction.class_logits_bqc[0], prediction.mask_logits_bqhw[0], decoded.queries_bqc[0])
    ((target,),) = query.targets
    ((seen,), _) = follow(candidates, 0, target, (), replace(Following(), presence=presence))
    return seen


def around(mask_hw: NDArray[np.bool_], width: int, height: int) -> Box:
    """The box, in pixels of a frame, of a mask (h, w) over it that is not empty, specks left out. Without a name."""
    parts, count = ndimage.label(mask_hw)
    areas = ndimage.sum_labels(mask_hw, parts, range(1, count + 1))
    large = np.isin(parts, 1 + np.flatnonzero(areas >= SPECK * areas.max()))
    rows, columns = np.flatnonzero(large.any(1)), np.flatnonzero(large.any(0))
    across, down = width / mask_hw.shape[1], height / mask_hw.shape[0]
    return Box("", columns[0] * across, rows[0] * down, (columns[-1] + 1) * across, (rows[-1] + 1) * down)
