"""What a training data set gives: one clip, what is asked about it, and the right answer.

Shared by every source of training data (procedural footage, public data sets, generated tests) and by the
trainer, which knows no data set beyond the `ClipDataset` protocol. Needs no torch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from x2roto.engine.tasks import PHRASE_START, TASKS, Media, Style, Task

Modality = Media
Target = str | NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class ClipSample:
    """One clip with a request and its answer; T frames, K conditions, n masks. An image is a clip of one frame.

    `frames`: uint8 (T, H, W, 3), display-encoded RGB. `task`: a key of `engine.tasks.TASKS`.

    `targets`: one entry per condition, in prompt order: for `genseg` and `ovseg` a class name, for `refseg` a
    phrase, for `reaseg` a question, for `vgdseg`, `intseg` and `objseg` a bool region (H, W) on frame
    `prompt_frame`. For `chat` the one question. Empty for `gcgseg`, whose conditions are the phrases of `answer`.

    `masks`: bool (n, T, H, W), one per instance (or per stuff class), empty on frames it is not seen.
    `condition`: int64 (n,), which condition each mask belongs to; a condition may have none or several.
    `ignored`: bool (T, H, W), pixels nothing is known about (255 in label maps); None when all are known.
    `labelled`: bool (T,), frames whose masks are complete; None when all are.

    `answer`: the text of a `chat` answer, the caption of `gcgseg` with its phrases between `<p>` and `</p>`, or
    the explanation that goes before the mask with `style` "explained"; otherwise None and a trained answer is
    drawn. `style`: which family of questions. `glimpse`: uint8 (G, h, w, 3) frames for the language model
    where they differ from `frames`. `rate`: frames per second of the glimpse, told to the model in `chat` only.
    `apart`: every target is asked for in a conversation of its own, which knows nothing of the others, as if
    the clip were as many samples. `windows`: float (T, 4), left, top, right and bottom of what each frame shows of a
    plate, in pixels of that; None where frames are whole. `pointed`: regions only touch what they ask for.

    Raises ValueError, naming the field, when the parts contradict each other.
    """

    frames: NDArray[np.uint8]
    task: str
    targets: tuple[Target, ...] = ()
    masks: NDArray[np.bool_] | None = None
    condition: NDArray[np.int64] | None = None
    ignored: NDArray[np.bool_] | None = None
    labelled: NDArray[np.bool_] | None = None
    answer: str | None = None
    style: Style = "plain"
    prompt_frame: int = 0
    glimpse: NDArray[np.uint8] | None = None
    rate: float | None = None
    apart: bool = False
    windows: NDArray[np.float32] | None = None
    pointed: bool = False

    def __post_init__(self) -> None:
        for field, fault in self._faults():
            raise ValueError(f"{field} of a {self.task} sample: {fault}")

    @property
    def media(self) -> Media:
        return "image" if len(self.frames) == 1 else "video"

    @property
    def row(self) -> Task:
        """The task's row of the task table."""
        return TASKS[self.task]

    @property
    def conditions(self) -> int:
        """How many conditions the masks can belong to."""
        if self.row.conditions == "answer":
            return (self.answer or "").count(PHRASE_START)
        return 0 if self.row.conditions == "none" else len(self.targets)

    def questions(self) -> Iterator[ClipSample]:
        """Itself, or one sample for each target, all on the same array of frames, where they are asked `apart`."""
        if not self.apart:
            yield self
            return
        assert self.masks is not None
        assert self.condition is not None
        for number, target in enumerate(self.targets):
            its = self.condition == number
            condition = np.zeros(int(its.sum()), np.int64)
            yield replace(self, targets=(target,), masks=self.masks[its], condition=condition, apart=False)

    def _faults(self) -> Any:
        if self.task not in TASKS:
            yield "task", f"not one of {', '.join(TASKS)}"
            return
        if self.frames.dtype != np.uint8 or self.frames.ndim != 4 or not len(self.frames):
            yield "frames", f"{self.frames.dtype} {self.frames.shape}, not uint8 (T, H, W, 3)"
        clip, picture = self.frames.shape[:3], self.frames.shape[1:3]
        for target in self.targets:
            if not isinstance(target, str) and (target.shape != picture or not target.any()):
                yield "targets", f"a region of shape {target.shape} on frames {picture}, or an empty one"
        if self.apart and self.row.conditions not in ("prompt", "shared"):
            yield "apart", "there is only one question"
        if self.row.conditions in ("answer", "none") and self.answer is None:
            yield "answer", "missing, and no trained one can stand in for it"
        if self.row.conditions == "none":
            return
        if self.masks is None or self.condition is None or self.masks.shape != (len(self.condition), *clip):
            yield "masks", f"there must be one (T, H, W) = {clip} mask for each entry of condition"
        elif len(self.condition) and not 0 <= self.condition.min() <= self.condition.max() < self.conditions:
            yield "condition", f"numbers outside the {self.conditions} conditions"
        if self.ignored is not None and self.ignored.shape != clip:
            yield "ignored", f"shape {self.ignored.shape}, not {clip}"
        if self.labelled is not None and self.labelled.shape != clip[:1]:
            yield "labelled", f"shape {self.labelled.shape}, not {clip[:1]}"
        if not 0 <= self.prompt_frame < len(self.frames):
            yield "prompt_frame", f"{self.prompt_frame} of {len(self.frames)} frames"


class ClipDataset(Protocol):
    """A source of samples. `frame_count` must be cheap: batches are made of clips of equal length.

    Reading an index twice gives the same sample, so that a resumed run sees what the first one saw.
    """

    @property
    def name(self) -> str: ...

    @property
    def modality(self) -> Literal["image", "video"]: ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> ClipSample: ...

    def frame_count(self, index: int) -> int: ...
