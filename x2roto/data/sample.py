"""What a data set asks and the truth, one sample at a time; no picture is read before it is wanted.

Every reader gives these, whatever its files look like; evaluation scores them and `training.clip_sample` makes
training samples of them. Needs no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from x2roto.engine.tasks import Media

PromptKind = Literal["point", "scribble", "box", "mask"]
PROMPT_KINDS: tuple[PromptKind, ...] = ("point", "scribble", "box", "mask")


@dataclass(frozen=True, slots=True, eq=False)
class FrameTruth:
    """Everything annotated on one frame: n masks, which may overlap (instances) or not (panoptic, semantic).

    `masks`: bool (n, H, W). `condition`: int64 (n,), the target of the sample each belongs to. `identity`: int64
    (n,), equal for the same object on all frames; the class itself for stuff. `crowd`: bool (n,), regions of many
    objects that may be missed. `ignored`: bool (H, W), pixels that do not count; None when all do.
    """

    masks: NDArray[np.bool_]
    condition: NDArray[np.int64]
    identity: NDArray[np.int64]
    crowd: NDArray[np.bool_]
    ignored: NDArray[np.bool_] | None = None


@dataclass(frozen=True, slots=True)
class Category:
    """A class of a data set. `id`: the number in its files. `thing`: countable."""

    id: int
    name: str
    thing: bool = True


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """One request about one image or clip of T frames.

    `key`: unique within the data set, usable as a file name but for `/` between clip and request. `task`: a key of
    `engine.tasks.TASKS`. `frames`: files of the pictures, in order. `names`: their names, as predictions are filed.
    `size`: (height, width) of every frame.

    `targets`: one per condition, in prompt order: class names, phrases, questions, or bool regions (H, W) on frame
    `prompt_frame`. `categories`: the class of each target where the data set has classes, else empty.
    `prompt`: how regions were drawn, None for text.

    `truth`: reads the annotation of a frame; raises InputError when a file is missing or of another size.
    `annotated`: bool (T,), frames that have one. `captions`: reference captions of grounded description, phrases
    between `<p>` and `</p>`, one per condition in order. `parts`: parts of the data set that it counts in besides
    the whole, such as "unseen" or "long".
    """

    key: str
    task: str
    frames: tuple[Path, ...]
    names: tuple[str, ...]
    size: tuple[int, int]
    targets: tuple[str | NDArray[np.bool_], ...]
    truth: Callable[[int], FrameTruth]
    annotated: NDArray[np.bool_]
    categories: tuple[Category, ...] = ()
    prompt: PromptKind | None = None
    prompt_frame: int = 0
    captions: tuple[str, ...] = ()
    parts: tuple[str, ...] = ()

    @property
    def media(self) -> Media:
        return "image" if len(self.frames) == 1 else "video"


class Dataset(Protocol):
    """An opened data set; opening checks that its files are there and fit together. Samples are made when asked."""

    @property
    def name(self) -> str: ...

    @property
    def categories(self) -> tuple[Category, ...]: ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample: ...


@dataclass(frozen=True, slots=True)
class Layout:
    """One row of the table of layouts.

    `open`: (root, split, prompt) -> Dataset; `root` is the data set's own folder (the one `evaluation.md` §2 names),
    `prompt` chooses how regions are drawn where the data set has several, else it is ignored. Raises InputError
    naming the missing or broken file. `splits`: the first is the default. `miniature`: (root, seed) -> None writes a
    tiny but complete data set in this layout, the same bytes for a seed.
    """

    name: str
    title: str
    splits: tuple[str, ...]
    open: Callable[[Path, str, PromptKind | None], Dataset]
    miniature: Callable[[Path, int], None]
    prompts: tuple[PromptKind, ...] = ()


Layouts = Mapping[str, Layout]
