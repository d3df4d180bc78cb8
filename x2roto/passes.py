"""One query followed over a clip in frame order: forward from the frame it starts on, backward before it.

Frames go by once, in order, whatever the prompts: what lies before a prompt's frame is followed backward first, and
its logits wait on disk. Nothing grows with the clip but that spool.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from x2roto.clip import ALL_FRAMES, Frame, FrameRange
from x2roto.color import network_rgb
from x2roto.engine.identity import EMPTY, Following, Kind, Seen
from x2roto.engine.model.segmentor import STRIDE
from x2roto.engine.segmenter import Segmenter
from x2roto.engine.shot import Query
from x2roto.engine.tracker import placed_side
from x2roto.job import EngineSpec
from x2roto.source import FrameSource

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True, eq=False)
class Plate:
    """A frame as decoded, and as the network sees it: 8 bit, display-referred."""

    frame: Frame
    shown: Frame

    @property
    def index(self) -> int:
        return self.frame.index


@dataclass(frozen=True, slots=True, eq=False)
class Observed:
    """Every object of a query on one frame, in the order of `Pass.labels`: `logits` (n, h, w), scores in [0, 1]."""

    logits: Tensor
    presence: tuple[float, ...]
    scores: tuple[float, ...]


def plates(source: FrameSource, ranges: Sequence[FrameRange] = ALL_FRAMES) -> Iterator[Plate]:
    """The source's frames in order, also as the network sees them."""
    for frame in source.frames(ranges):
        yield Plate(frame, replace(frame, rgb=network_rgb(frame.rgb, source.info.colour)))


def chunked(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Lists of `size` items in order, the last one shorter."""
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk


class Pass:
    """One query over the clip. `tracker` is its state; frames before `start` come from the spool."""

    def __init__(self, segmenter: Segmenter, query: Query, first: int, spec: EngineSpec, spool: Path) -> None:
        """`first`: source index of the first frame of the range. `spool`: a folder of its own, made when needed."""
        following = replace(Following(), presence=spec.presence, instances=spec.instances or Following().instances)
        self._options = {"chunk": spec.chunk, "memory": spec.memory, "following": following}
        self._segmenter = segmenter
        self._chunk = spec.chunk
        self._spool = spool
        self.query = query
        self.start = first if query.start is None else query.start
        self.tracker = segmenter.track(query, **self._options)
        self.labels = tuple(_labels(query, spec.instances))

    @property
    def anchored(self) -> bool:
        """Whether the query is about regions drawn on the start frame."""
        return any(target.anchor is not None for targets in self.query.targets for target in targets)

    def before(self, indices: Sequence[int]) -> list[int]:
        """Those of the indices that are still to be followed backward."""
        return [] if (self._spool / "done").exists() else [index for index in indices if index < self.start]

    def look_back(self, source: FrameSource, indices: Sequence[int]) -> Iterator[int]:
        """Follow the query backward over the indices before its start, into the spool; yields each once done."""
        before = self.before(indices)
        if not before:
            return
        self._spool.mkdir(parents=True, exist_ok=True)
        backward = self._segmenter.track(self.query, **self._options)
        # The start frame is seen first, so that memory begins where the prompt is true.
        for block in chunked([self.start, *reversed(before)], self._chunk):
            ranges = [FrameRange(index, index + 1) for index in reversed(block)]
            frames = [plate.shown for plate in plates(source, ranges)]
            for result in backward.step(frames[::-1]):
                if result.frame.index < self.start:
                    self._store(result.frame.index, self._observed(result.seen))
                    yield result.frame.index
        (self._spool / "done").touch()

    def follow(self, blocks: Iterable[Sequence[Frame]]) -> Iterator[Observed]:
        """The objects on the frames of one block after the other, in frame order."""
        blocks = iter(blocks)
        for block in blocks:
            early = [frame for frame in block if frame.index < self.start]
            yield from (self._restored(frame.index) for frame in early)
            if late := block[len(early) :]:
                yield from self.step(chain((late,), blocks))

    def step(self, blocks: Iterable[Sequence[Frame]]) -> Iterator[Observed]:
        """The objects on frames the tracker is given next, whatever their index."""
        for result in self.tracker.run(blocks):
            yield self._observed(result.seen)

    def _observed(self, seen: Sequence[Seen]) -> Observed:
        # A class that is one matte is the union of its instances.
        groups = [[each for each in seen if label in (each.name, each.label)] for label in self.labels]
        return Observed(
            torch.stack([self._union(group) for group in groups]),
            tuple(max((each.presence for each in group), default=0.0) for group in groups),
            tuple(max((each.score for each in group), default=0.0) for group in groups),
        )

    def _union(self, group: Sequence[Seen]) -> Tensor:
        if group:
            return torch.stack([each.logits for each in group]).amax(0)
        config = self._segmenter.model.config
        side = placed_side(config) if config.room else config.image_size // STRIDE
        return torch.full((side, side), EMPTY, device=self._segmenter.device)

    def _store(self, index: int, observed: Observed) -> None:
        np.savez(
            self._spool / f"{index}.npz",
            logits=observed.logits.to(torch.float16).cpu().numpy(),
            presence=observed.presence,
            scores=observed.scores,
        )

    def _restored(self, index: int) -> Observed:
        with np.load(self._spool / f"{index}.npz") as stored:
            logits = torch.from_numpy(stored["logits"]).float().to(self._segmenter.device)
            return Observed(logits, tuple(map(float, stored["presence"])), tuple(map(float, stored["scores"])))


def _labels(query: Query, instances: int) -> Iterator[str]:
    """The names of a query's mattes; things are `instances` numbered ones each, or a single one for 0."""
    for target in (target for targets in query.targets for target in targets):
        if target.kind is Kind.THINGS and instances:
            yield from (f"{target.name}_{number}" for number in range(1, instances + 1))
        elif target.number and instances:
            yield f"{target.name}_{target.number}"
        else:
            yield target.name
