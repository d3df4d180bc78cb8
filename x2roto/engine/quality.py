"""What `--quality` gives up for speed: the same weights in a cheaper network.

`exact` is the network as trained. `fast` lets self-attention in memory attention read four cells as one on the scales
finer than the coarsest, where nearly all of a large network's arithmetic is; a small one, which finds words with a
finder, no longer lets the picture read them and draws outlines no finer than its own masks. `draft` does that too and
sees smaller frames. `bench/quality.py` measures what each costs and saves.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from x2roto.engine.model.config import ModelConfig
from x2roto.job import Quality

if TYPE_CHECKING:
    from x2roto.engine.model.x2sam import X2SAM

POOLED = 2
DRAFT = 0.65  # of the side
STEP = 64  # what sides are a multiple of, so that windows and strides fit


def at_quality(config: ModelConfig, quality: Quality) -> ModelConfig:
    """The sizes of a network that runs at that quality."""
    if quality == "exact":
        return config
    memory, outliner = replace(config.memory, pooled=POOLED), replace(config.outliner, side=0)
    config = replace(config, memory=memory, outliner=outliner)
    if quality == "fast":
        return config
    return replace(config, image_size=max(STEP, round(config.image_size * DRAFT / STEP) * STEP))


def lightened(model: X2SAM, quality: Quality) -> X2SAM:
    """The network without the parts that a quality leaves out."""
    if quality != "exact" and model.finder is not None:
        model.segmentor.reading = None
    return model
