"""What can be measured of a filmed scene: how large, where and how covered everything is in every frame."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from x2roto.train.footage.render import Rendered

Measure = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Survey:
    """Measures of n actors in T frames; shares of the picture.

    `area` and `whole` (n, T): seen, and seen if nothing covered it. `x`, `y` (n, T): middle of what is seen, 0..1
    from the top left, NaN where nothing is. `covered` (n, n, T): [i, j] is the share of i that j hides.
    """

    area: Measure
    whole: Measure
    x: Measure
    y: Measure
    covered: Measure

    @property
    def seen(self) -> NDArray[np.bool_]:
        return self.area > 0


def survey(rendered: Rendered) -> Survey:
    """The measures of what was rendered."""
    masks, whole = rendered.masks, rendered.whole > 0.5
    pixels = masks.shape[2] * masks.shape[3]
    columns, rows = masks.sum(2, dtype=np.float32), masks.sum(3, dtype=np.float32)
    counts = columns.sum(2)
    total = np.maximum(counts, 1)
    x = columns @ ((np.arange(masks.shape[3], dtype=np.float32) + 0.5) / masks.shape[3]) / total
    y = rows @ ((np.arange(masks.shape[2], dtype=np.float32) + 0.5) / masks.shape[2]) / total
    unseen = counts == 0
    x[unseen] = y[unseen] = np.nan
    full = whole.sum((2, 3))
    return Survey(
        area=(counts / pixels).astype(np.float32),
        whole=(full / pixels).astype(np.float32),
        x=x.astype(np.float32),
        y=y.astype(np.float32),
        covered=_covered(masks, whole) / np.maximum(full, 1)[:, None],
    )


def _covered(masks: NDArray[np.bool_], whole: NDArray[np.bool_]) -> Measure:
    """[i, j, t]: pixels in which i would be seen and j is."""
    hidden = (whole & ~masks).reshape(*masks.shape[:2], -1).astype(np.float32)
    shown = masks.reshape(*masks.shape[:2], -1).astype(np.float32)
    return np.asarray(np.einsum("itp,jtp->ijt", hidden, shown), np.float32)
