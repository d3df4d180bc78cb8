"""Which samples, in which batches, at which learning rate: pure functions of seeds and sizes.

Source: arXiv 2605.00891 appendix C; wanghao9610/X2SAM@5b0b106 `x2sam/x2sam/dataset/samplers/source_grouped.py`,
`x2sam/x2sam/dataset/concat_dataset.py`. The draws are Python's, in the reference's order, so that equal seeds give
equal batches.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from random import Random


def repeat_factors(lengths: Sequence[int], threshold: float) -> list[float]:
    """How often each data set is gone through in an epoch: max(1, sqrt(t / f)), f its share of all samples."""
    total = sum(lengths)
    return [max(1.0, math.sqrt(threshold / (length / total))) for length in lengths]


@dataclass(frozen=True, slots=True)
class Source:
    """A data set as the sampler sees it. `length`: samples per epoch, repeats counted.

    `batch`: samples per device and micro-batch. `accumulation`: micro-batches per optimiser step.
    `frame_counts`: of every sample, to group clips of equal length; None for images. `echo`: how often a micro-batch
    is learnt from before the next, where one is a step.
    """

    length: int
    batch: int = 1
    accumulation: int = 1
    frame_counts: Sequence[int] | None = None
    echo: int = 1

    def mega(self, world: int) -> int:
        """Samples all devices take for one optimiser step."""
        return self.batch * self.accumulation * world


@dataclass(frozen=True, slots=True)
class MegaBatch:
    """The samples of one optimiser step, all of one source; indices into all sources laid end to end."""

    source: int
    indices: tuple[int, ...]


def mega_batches(sources: Sequence[Source], world: int, seed: int, *, complete: bool = True) -> list[MegaBatch]:
    """An epoch's optimiser steps in random order, clips of a step of nearly equal length.

    Per source the samples are shuffled and, for clips, sorted by length; sources then take turns at random. What
    is left over is completed with samples seen just before, or dropped without `complete`.
    """
    random = Random(seed)
    starts = [0, *accumulate(source.length for source in sources)]
    orders = [_order(source, start, random) for source, start in zip(sources, starts, strict=False)]
    sizes = [source.mega(world) for source in sources]
    taken = [0] * len(sources)
    batches: list[MegaBatch] = []
    while ready := [i for i, order in enumerate(orders) if taken[i] + sizes[i] <= len(order)]:
        i = random.choice(ready)
        batches.append(MegaBatch(i, tuple(orders[i][taken[i] : taken[i] + sizes[i]])))
        taken[i] += sizes[i]
    if complete:
        batches += [
            MegaBatch(i, _completed(order, taken[i], sizes[i]))
            for i, order in enumerate(orders)
            if taken[i] < len(order)
        ]
    random.shuffle(batches)
    return batches


def _order(source: Source, start: int, random: Random) -> list[int]:
    order = list(range(start, start + source.length))
    random.shuffle(order)
    if source.frame_counts is not None:
        counts = source.frame_counts
        order.sort(key=lambda index: counts[(index - start) % len(counts)])
    return order


def _completed(order: Sequence[int], taken: int, size: int) -> tuple[int, ...]:
    left = order[taken:]
    pool = order[max(0, taken - size) : taken] or left
    missing = size - len(left)
    return (*left, *(pool[i % len(pool)] for i in range(missing)))


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """What one device computes at once. `steps`: whether the optimiser steps after it. `take`: how often it was
    learnt from before."""

    source: int
    indices: tuple[int, ...]
    steps: bool
    take: int = 0


def micro_batches(sources: Sequence[Source], world: int, rank: int, seed: int) -> Iterator[MicroBatch]:
    """An epoch as one of `world` devices sees it; all devices see the same sources at the same time."""
    for batch in mega_batches(sources, world, seed):
        count = sources[batch.source].accumulation
        size = len(batch.indices) // count
        for number in range(count):
            part = batch.indices[number * size : (number + 1) * size]
            for take in range(sources[batch.source].echo):
                yield MicroBatch(batch.source, part[rank::world], number == count - 1, take)


def count_micro_batches(sources: Sequence[Source], world: int) -> int:
    """Micro-batches of an epoch, equal on every device."""
    return sum(
        math.ceil(source.length / source.mega(world)) * source.accumulation * source.echo for source in sources
    )


def rate_factor(step: int, total: int, warmup: float, start: float) -> float:
    """The learning rate at micro-batch `step` of `total`, as a share of its peak.

    Linear from `start` to 1 over the first `warmup` of the run, then half a cosine towards 0, which it would
    reach one micro-batch after the last.
    """
    rising = int(warmup * total)
    if step < rising:
        return start + (1 - start) * step / max(1, rising - 1)
    return (1 + math.cos(math.pi * (step - rising) / (total - rising))) / 2
