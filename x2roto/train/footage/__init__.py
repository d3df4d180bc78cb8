"""Procedural footage: endless seeded clips with exact masks, soft alpha and true words, to train on.

From material to sample, one way: `material` (cut-outs, backdrops, labelled pictures) and `drawn` (what needs no
file) are cast into a `scene` (numbers only), which `render` films in torch; `survey` measures the result, `language`
finds words that are true and unique, `dataset` asks for one thing by them. `evaluator` judges the words on its own.
Read first: `scene.py`, then `dataset.py`.
"""

from __future__ import annotations

from x2roto.train.footage.dataset import (
    FootageTask,
    LabelledFootage,
    ProceduralFootage,
    Shape,
    film,
    footage_datasets,
)
from x2roto.train.footage.material import Material

__all__ = ["FootageTask", "LabelledFootage", "Material", "ProceduralFootage", "Shape", "film", "footage_datasets"]
