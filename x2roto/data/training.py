"""Public data sets as training data: any `Dataset` as clips of a few frames, by name in a training config.

[[data]]
open = "x2roto.data.training:open_data"
options = { layout = "coco_panoptic", root = "datas/img_genseg/coco2017" }
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from x2roto.data.annotations import read_rgb
from x2roto.data.layouts import chosen_prompt, chosen_split, layout_named
from x2roto.data.sample import Dataset, FrameTruth, PromptKind, Sample
from x2roto.engine.tasks import PHRASE_END, PHRASE_START, TASKS, Media, Style, full_stop
from x2roto.errors import PromptError
from x2roto.train.samples import ClipSample

# Classes asked for at once in training, of a data set that has more (tasks spec, section 12).
MOST_CLASSES = 128


def open_data(
    *,
    root: str,
    layout: str,
    split: str | None = None,
    prompt: PromptKind | None = None,
    frames: int = 8,
    seed: int = 0,
) -> Clips:
    """The data set in `root`, laid out as `layout`, a name in the tables of layouts, for training.

    `split`: "train" where the layout has it, else its first. `prompt`: how regions were drawn, None for the first
    kind there is. `frames`: of a clip at most. Raises PromptError for an option that cannot be, InputError for
    files that are missing or damaged.
    """
    row = layout_named(layout)
    if frames < 1:
        raise PromptError(f"data set {layout}: frames is {frames}: it must be at least 1")
    by_default = "train" if "train" in row.splits else None
    opened = row.open(Path(root), chosen_split(row, split or by_default), chosen_prompt(row, prompt))
    return Clips(opened, frames, seed)


@dataclass(frozen=True, slots=True, eq=False)
class Clips:
    """A `ClipDataset` over a data set; what is drawn for an index depends on it and `seed` alone.

    `frames`: the longest clip. Samples raise InputError when a file is damaged.
    """

    data: Dataset
    frames: int
    seed: int = 0

    @property
    def name(self) -> str:
        return self.data.name

    @property
    def modality(self) -> Media:
        return self.data[0].media

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> ClipSample:
        return clip_sample(self.data[index], self.frames, np.random.default_rng([self.seed, index]))

    def frame_count(self, index: int) -> int:
        return min(self.frames, len(self.data[index].frames))


# ---- one sample -------------------------------------------------------------------------------------------


def clip_sample(sample: Sample, frames: int, rng: np.random.Generator) -> ClipSample:
    """The request and its answer on at most `frames` frames in a row, drawn so that there is something to learn.

    A clip holds the frame its regions are on, or else an annotated one. Of many classes, those seen and a random
    number of others are asked for, in random order. Crowds count as ignored. Raises InputError.
    """
    start = _start(sample, frames, rng)
    window = range(start, min(start + frames, len(sample.frames)))
    truths = {place: sample.truth(frame) for place, frame in enumerate(window) if sample.annotated[frame]}
    known = _known(sample, truths.values(), rng)
    masks, condition = _tracks(truths, known, (len(window), *sample.size))
    generates = TASKS[sample.task].conditions == "answer"
    return ClipSample(
        frames=np.stack([read_rgb(sample.frames[frame], sample.size) for frame in window]),
        task=sample.task,
        targets=() if generates else tuple(sample.targets[number] for number in known),
        masks=masks,
        condition=condition,
        ignored=_ignored(truths, (len(window), *sample.size)),
        labelled=np.array([place in truths for place in range(len(window))], np.bool_),
        answer=trained_caption(sample.captions[0], sample.media) if generates else None,
        style=_style(sample),
        prompt_frame=sample.prompt_frame - start if sample.prompt else 0,
    )


def _start(sample: Sample, frames: int, rng: np.random.Generator) -> int:
    """Where a clip begins that holds the frame that matters."""
    matters = sample.prompt_frame if sample.prompt else int(rng.choice(np.flatnonzero(sample.annotated)))
    earliest, latest = max(0, matters - frames + 1), max(0, min(matters, len(sample.frames) - frames))
    return int(rng.integers(earliest, latest + 1))


def _known(sample: Sample, truths: Any, rng: np.random.Generator) -> list[int]:
    """The conditions to ask for, in order: all but where classes are drawn from many."""
    if TASKS[sample.task].postprocess == "grounded":
        return list(range(sample.captions[0].count(PHRASE_START)))
    numbers = list(range(len(sample.targets)))
    if TASKS[sample.task].postprocess != "generic":
        return numbers
    seen = {int(number) for truth in truths for number in truth.condition}
    others = [number for number in numbers if number not in seen]
    spare = min(len(others), max(0, MOST_CLASSES - len(seen)))
    absent = rng.permutation(others)[: rng.integers(0 if seen else min(1, spare), spare + 1)].tolist()
    asked: list[int] = rng.permutation([*sorted(seen), *absent]).astype(int).tolist()
    return asked


def _tracks(
    truths: dict[int, FrameTruth], known: Sequence[int], shape: tuple[int, int, int]
) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """One mask over time for each object of a condition that is asked for."""
    places = {number: place for place, number in enumerate(known)}
    tracks: dict[tuple[int, int], NDArray[np.bool_]] = {}
    for frame, condition, identity, mask in _marked(truths):
        if condition in places:
            track = tracks.setdefault((places[condition], identity), np.zeros(shape, np.bool_))
            track[frame] |= mask
    stacked = np.stack(list(tracks.values())) if tracks else np.zeros((0, *shape), np.bool_)
    return stacked, np.array([condition for condition, _ in tracks], np.int64)


def _marked(truths: dict[int, FrameTruth]) -> Iterator[tuple[int, int, int, NDArray[np.bool_]]]:
    for frame, truth in truths.items():
        for condition, identity, crowd, mask in zip(
            truth.condition, truth.identity, truth.crowd, truth.masks, strict=True
        ):
            if not crowd:
                yield frame, int(condition), int(identity), mask


def _ignored(truths: dict[int, FrameTruth], shape: tuple[int, int, int]) -> NDArray[np.bool_] | None:
    ignored = np.zeros(shape, np.bool_)
    for frame, truth in truths.items():
        ignored[frame] = truth.masks[truth.crowd].any(0)
        if truth.ignored is not None:
            ignored[frame] |= truth.ignored
    return ignored if ignored.any() else None


def _style(sample: Sample) -> Style:
    """Reasoning data sets with short requests put them into questions; long ones are questions."""
    return "phrase" if sample.task == "reaseg" and "short" in sample.parts else "plain"


def trained_caption(caption: str, media: Media) -> str:
    """A caption as trained: a full stop, a space after each phrase, and lower case for images."""
    told = caption.lower() if media == "image" else caption
    return full_stop(told).replace(PHRASE_END, f"{PHRASE_END} ").strip()
