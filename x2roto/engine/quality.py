"""What `--quality` gives up for speed: the same weights in a cheaper network.

`exact` is the network as trained. `fast` lets self-attention in memory attention read four cells as one on the scales
finer than the coarsest, where nearly all of a large network's arithmetic is. `draft` does that too and sees smaller
frames. `bench/quality.py` measures what each costs and saves.
"""

from __future__ import annotations

from dataclasses import replace

from x2roto.engine.model.config import ModelConfig
from x2roto.job import Quality

POOLED = 2
DRAFT = 0.65  # of the side
STEP = 64  # what sides are a multiple of, so that windows and strides fit


def at_quality(config: ModelConfig, quality: Quality) -> ModelConfig:
    """The sizes of a network that runs at that quality."""
    if quality == "exact":
        return config
    config = replace(config, memory=replace(config.memory, pooled=POOLED))
    if quality == "fast":
        return config
    return replace(config, image_size=max(STEP, round(config.image_size * DRAFT / STEP) * STEP))
