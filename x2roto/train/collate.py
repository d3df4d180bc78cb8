"""Samples as the network's input: squares and patches, tokens of the drawn wording, targets; then batches of them.

Runs in the loader's processes, on the CPU. All that is drawn for a sample (wording, region points, and on the
device the points of the mask losses) comes from its own seed, so a batch is the same on any number of devices
and after a resumption.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from random import Random
from typing import Self, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset

from x2roto.engine import preprocess, tasks
from x2roto.engine.model.region_sampler import cell_cover, draw_points
from x2roto.engine.prompting import SpecialIds, Tokenizer, TokenStream, Turn, conversation, tokenise, vision_text
from x2roto.train.matching import PADDING, FrameTarget
from x2roto.train.samples import ClipDataset, ClipSample

T = TypeVar("T")

# Stage "segmentor" learns from at most this many masks of a picture, as the reference reads of SA-1B.
MOST_MASKS = 100
TAKES_APART = 1_000_003  # between the seeds of a sample that is learnt from again


@dataclass(frozen=True, slots=True)
class Pick:
    """A sample to load: which data set, which of its samples, and the seed of all that is drawn for it."""

    source: int
    index: int
    seed: int


@dataclass(frozen=True, slots=True)
class Regions:
    """Region prompts of a sample: points (R, P, 2) as `draw_points` gives them, on frame `frame`.

    `cover_1hw`: how much of each cell of the mask logits' grid the region covers, in [0, 1], where a single one asks
    for a single object. `pointed`: regions only touch what they ask for.
    """

    points_rp2: Tensor
    frame: int
    cover_1hw: Tensor | None
    pointed: bool = False


@dataclass(frozen=True, slots=True)
class Words:
    """What the language model gets of one sample. `shared`: its conditions are joined with those of others."""

    stream: TokenStream
    patches: preprocess.Patches
    regions: Regions | None
    shared: bool


@dataclass(frozen=True, slots=True)
class Prepared:
    """One sample. `frames`: uint8 (T, S, S, 3), None when nothing is to be segmented. `targets`: per frame, None
    where it has no labels. `windows`: (T, 4), as `ClipSample` has them."""

    frames: Tensor | None
    targets: tuple[FrameTarget | None, ...]
    words: Words | None
    seed: int
    windows: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Text:
    """The language side of a batch of B samples, padded right: ids (B, L).

    `patch_rows` uint8 and `grids` (G, 3): of G glimpses; `glimpses`: which of them each sample is about. `regions`
    and `shared` are per sample.
    """

    input_ids: Tensor
    attention_mask: Tensor
    cond_ids: Tensor
    seg_ids: Tensor
    labels: Tensor
    patch_rows: Tensor
    grids: Tensor
    glimpses: tuple[int, ...]
    regions: tuple[Regions | None, ...]
    shared: tuple[bool, ...]

    def to(self, device: torch.device) -> Self:
        names = ("input_ids", "attention_mask", "cond_ids", "seg_ids", "labels", "patch_rows", "grids")
        return replace(self, **{name: getattr(self, name).to(device, non_blocking=True) for name in names})


@dataclass(frozen=True, slots=True)
class Batch:
    """What one device computes at once.

    `frames`: uint8 (T, P, S, S, 3), P clips, time first; shorter ones repeat their last frame. `clips`: which of them
    each of the D samples to segment is about. `targets`: T rows of D, None where there is nothing to learn.
    `decoded`: which samples of `text` these are. `seeds`: of the D samples. `windows`: (T, P, 4), as `ClipSample` has
    them, None unless all clips do. `take`: how often it was learnt from before.
    """

    frames: Tensor | None
    clips: tuple[int, ...]
    targets: tuple[tuple[FrameTarget | None, ...], ...]
    decoded: tuple[int, ...]
    seeds: tuple[int, ...]
    text: Text | None
    windows: Tensor | None = None
    take: int = 0

    def again(self, take: int) -> Self:
        """To be learnt from once more, with other draws."""
        return replace(self, take=take, seeds=tuple(seed + take * TAKES_APART for seed in self.seeds))

    def to(self, device: torch.device) -> Self:
        """The same on a device."""
        frames = None if self.frames is None else self.frames.to(device, non_blocking=True)
        targets = tuple(tuple(_moved(target, device) for target in row) for row in self.targets)
        text = None if self.text is None else self.text.to(device)
        windows = None if self.windows is None else self.windows.to(device)
        return replace(self, frames=frames, targets=targets, text=text, windows=windows)


def _moved(target: FrameTarget | None, device: torch.device) -> FrameTarget | None:
    if target is None:
        return None
    ignored = None if target.ignored_hw is None else target.ignored_hw.to(device)
    return FrameTarget(target.masks_nhw.to(device), target.labels_n.to(device), ignored)


# ---- one sample -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Preparer:
    """Makes `Prepared` of `ClipSample`. `size`: side of the squares; `close`: of those of windows, 0 for the same.
    Regions are read at `size`. `reader` None: no words, masks of one class."""

    size: int
    reader: Reader | None
    close: int = 0

    def __call__(self, sample: ClipSample, seed: int) -> list[Prepared]:
        """One for each of its questions; those of one clip share its frames and patches."""
        frames = None
        if sample.masks is not None and (self.reader is None or sample.row.conditions != "none"):
            frames = preprocess.segmentor_frames(sample.frames, self._side(sample))
        patches = None if self.reader is None else self.reader.look(sample)
        return [
            self._asked(question, frames, patches, seed + number, alone=sample.apart)
            for number, question in enumerate(sample.questions())
        ]

    def _asked(
        self, sample: ClipSample, frames: Tensor | None, patches: preprocess.Patches | None, seed: int, *, alone: bool
    ) -> Prepared:
        words = None
        if self.reader is not None and patches is not None:
            words = self.reader(sample, patches, self.size, seed)
            words = replace(words, shared=words.shared and not alone)
        windows = None if sample.windows is None else torch.from_numpy(sample.windows)
        return Prepared(frames, () if frames is None else tuple(self._targets(sample)), words, seed, windows)

    def _side(self, sample: ClipSample) -> int:
        return self.size if sample.windows is None else self.close or self.size

    def _targets(self, sample: ClipSample) -> Iterator[FrameTarget | None]:
        assert sample.masks is not None
        assert sample.condition is not None
        masks, labels = sample.masks, torch.from_numpy(sample.condition)
        if self.reader is None:
            masks, labels = masks[:MOST_MASKS], torch.zeros_like(labels[:MOST_MASKS])
        for frame in range(len(sample.frames)):
            known = sample.labelled is None or sample.labelled[frame]
            yield self._target(masks[:, frame], labels, sample, frame) if known else None

    def _target(self, masks: NDArray[np.bool_], labels: Tensor, sample: ClipSample, frame: int) -> FrameTarget:
        """What is to be seen on a frame; instances that are not there have no target."""
        side = self._side(sample)
        squares = torch.from_numpy(squared(masks, side))
        seen = squares.flatten(1).any(1)
        ignored = None
        if sample.ignored is not None and sample.ignored[frame].any():
            ignored = torch.from_numpy(squared(sample.ignored[frame : frame + 1], side)[0])
        return FrameTarget(squares[seen], labels[seen], ignored)


@dataclass(frozen=True, slots=True)
class Reader:
    """Makes `Words` of `ClipSample`. `points`: how many are drawn in a region. `region_glimpse`: frames of a clip the
    language model sees in region tasks, 0 for all."""

    tokenizer: Tokenizer
    special: SpecialIds
    patches: preprocess.PatchConfig
    points: int
    region_glimpse: int

    def look(self, sample: ClipSample) -> preprocess.Patches:
        """What the language model sees of a sample."""
        return preprocess.vision_patches(list(self._glimpse(sample)), self.patches)

    def __call__(self, sample: ClipSample, patches: preprocess.Patches, size: int, seed: int) -> Words:
        vision = vision_text(patches.media, patches.grid, merge=self.patches.merge, seconds=self._seconds(sample))
        stream = tokenise(conversation(turns(sample, Random(seed)), vision), self.tokenizer, self.special)
        return Words(stream, patches, self._regions(sample, size, seed), sample.row.conditions == "shared")

    def _glimpse(self, sample: ClipSample) -> NDArray[np.uint8]:
        if sample.glimpse is not None:
            return sample.glimpse
        count = len(sample.frames)
        if _regions_of(sample) and 0 < self.region_glimpse < count:
            return sample.frames[preprocess.resampled_indices(count, self.region_glimpse)]
        return sample.frames

    def _seconds(self, sample: ClipSample) -> list[float] | None:
        """Time stamps of a clip to chat about; None where the model counts, as in every other task."""
        if sample.task != "chat" or sample.rate is None or (shown := len(self._glimpse(sample))) == 1:
            return None
        return preprocess.step_seconds(range(shown), sample.rate, self.patches.temporal)

    def _regions(self, sample: ClipSample, size: int, seed: int) -> Regions | None:
        masks = _regions_of(sample)
        if not masks:
            return None
        generator = torch.Generator().manual_seed(seed)
        squares = preprocess.prompt_masks(masks, size)
        points = torch.stack([draw_points(square, self.points, generator) for square in squares])
        cover = cell_cover(squares)[0] if sample.row.single else None
        return Regions(points, sample.prompt_frame, cover, sample.pointed)


def turns(sample: ClipSample, random: Random) -> list[Turn]:
    """The conversation about a sample, in a wording drawn at random; one turn for each phrase or question."""
    task, wording = sample.row, sample.row.wordings[sample.style]
    targets = [target if isinstance(target, str) else "" for target in sample.targets]
    groups = [[target] for target in targets] if task.conditions == "shared" else [targets]
    return [
        Turn(
            tasks.question(
                task,
                sample.media,
                group,
                index=random.randrange(len(wording.questions)),
                style=sample.style,
            ),
            tasks.answer(
                task,
                text=sample.answer or "",
                index=random.randrange(len(wording.answers)),
                style=sample.style,
            ),
        )
        for group in groups
    ]


def squared(masks_nhw: NDArray[np.bool_], size: int) -> NDArray[np.bool_]:
    """Masks (n, H, W) as (n, size, size), the nearest pixel's value, as PIL takes it."""
    rows, columns = (((np.arange(size) + 0.5) * side / size).astype(np.int64) for side in masks_nhw.shape[1:])
    return masks_nhw[:, rows[:, None], columns].astype(np.bool_)


def _regions_of(sample: ClipSample) -> list[NDArray[np.bool_]]:
    return [target for target in sample.targets if not isinstance(target, str)]


class PickedSamples(Dataset[list[Prepared]]):
    """The samples of several data sets by `Pick`, prepared."""

    def __init__(self, sources: Sequence[ClipDataset], prepare: Callable[[ClipSample, int], list[Prepared]]) -> None:
        self.sources = sources
        self.prepare = prepare

    def __getitem__(self, pick: Pick) -> list[Prepared]:
        return self.prepare(self.sources[pick.source][pick.index], pick.seed)


# ---- batches --------------------------------------------------------------------------------------------


def collate(picked: Sequence[Sequence[Prepared]]) -> Batch:
    """Samples as one batch; clips may differ in length. What questions share is there once."""
    samples = list(chain.from_iterable(picked))
    decoded = [number for number, sample in enumerate(samples) if sample.frames is not None]
    chosen = [samples[number] for number in decoded]
    length = max((len(sample.targets) for sample in chosen), default=0)
    clips, which = _distinct([sample.frames for sample in chosen if sample.frames is not None])
    windows = [sample.windows for sample in (chosen[which.index(clip)] for clip in range(len(clips)))]
    shown = [_lengthened(each, length) for each in windows if each is not None]
    rows = [[*sample.targets, *[None] * (length - len(sample.targets))] for sample in chosen]
    return Batch(
        frames=torch.stack([_lengthened(frames, length) for frames in clips], dim=1) if clips else None,
        clips=which,
        targets=tuple(zip(*rows, strict=True)),
        decoded=tuple(decoded),
        seeds=tuple(sample.seed for sample in chosen),
        text=_text([sample.words for sample in samples if sample.words is not None]),
        windows=torch.stack(shown, dim=1) if clips and len(shown) == len(clips) else None,
    )


def _distinct(things: Sequence[T]) -> tuple[list[T], tuple[int, ...]]:
    """Each object once, and for each place which of them stood there."""
    numbers: dict[int, int] = {}
    which = tuple(numbers.setdefault(id(thing), len(numbers)) for thing in things)
    return [things[which.index(number)] for number in range(len(numbers))], which


def _lengthened(frames: Tensor, length: int) -> Tensor:
    return torch.cat((frames, frames[-1:].expand(length - len(frames), *frames.shape[1:])))


def _text(words: Sequence[Words]) -> Text | None:
    if not words:
        return None
    streams = [word.stream for word in words]
    patches, glimpses = _distinct([word.patches for word in words])
    return Text(
        input_ids=_padded([stream.input_ids for stream in streams], 0),
        attention_mask=_padded([np.ones_like(stream.input_ids) for stream in streams], 0),
        cond_ids=_padded([_conditions(stream) for stream in streams], -1),
        seg_ids=_padded([stream.seg_ids for stream in streams], -1),
        labels=_padded([stream.labels for stream in streams], PADDING),
        patch_rows=torch.cat([each.rows for each in patches]),
        grids=torch.tensor([each.grid for each in patches]),
        glimpses=glimpses,
        regions=tuple(word.regions for word in words),
        shared=tuple(word.shared for word in words),
    )


def _conditions(stream: TokenStream) -> NDArray[np.int64]:
    return np.full_like(stream.input_ids, -1) if stream.cond_ids is None else stream.cond_ids


def _padded(rows: Sequence[NDArray[np.int64]], value: int) -> Tensor:
    return pad_sequence([torch.from_numpy(row) for row in rows], batch_first=True, padding_value=value)
