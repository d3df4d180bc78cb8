"""What a run leaves to look at: a line per step, curves for TensorBoard, pictures of what is seen by now.

`losses.jsonl` holds every micro-batch; after a resumption both it and the curves go on where the checkpoint was.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

# Distinct on any plate; one per condition, in turn.
COLOURS = np.array([(230, 60, 50), (40, 140, 240), (60, 200, 90), (245, 190, 40), (190, 80, 220), (30, 210, 210)])
SHOWN_FRAMES = 4


@dataclass(frozen=True, slots=True)
class Step:
    """Micro-batch `number` of `steps`, of all devices together, with its losses as in `network.StepLosses`.

    `gradient_norm`: before clipping, None when the optimiser did not step. `seconds`: loading included.
    """

    number: int
    steps: int
    epoch: int
    source: str
    clips: int
    rate: float
    gradient_norm: float | None
    seconds: float
    total: float
    language: float
    classes: float
    masks: float
    dice: float


@dataclass(frozen=True, slots=True)
class View:
    """A validation sample as seen by now: uint8 frames (T, H, W, 3); bool masks (K, T, H, W), one per condition, as
    they should be and as they are; `jaccard`: their mean overlap."""

    name: str
    frames: NDArray[np.uint8]
    wanted: NDArray[np.bool_]
    seen: NDArray[np.bool_]
    jaccard: float


class Journal:
    """Writes to a run's folder; a context manager. `step`: micro-batches already done, later lines are dropped."""

    def __init__(self, out: Path, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.pictures = out / "pictures"
        self.path = out / "losses.jsonl"
        out.mkdir(parents=True, exist_ok=True)
        kept = _lines_until(self.path, step)
        self.path.write_text("".join(kept))
        self.lines = self.path.open("a")
        self.curves: SummaryWriter = SummaryWriter(str(out / "curves"), purge_step=step + 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.lines.close()
        self.curves.close()

    def step(self, step: Step) -> None:
        """Note a micro-batch."""
        values = asdict(step)
        self.lines.write(json.dumps(values) + "\n")
        self.lines.flush()
        for name in ("rate", "total", "language", "classes", "masks", "dice", "gradient_norm"):
            if values[name] is not None:
                self.curves.add_scalar(f"train/{name}", values[name], step.number)

    def views(self, views: Sequence[View], step: int) -> None:
        """Note a validation: the mean overlap, and a picture of each sample."""
        self.pictures.mkdir(exist_ok=True)
        self.curves.add_scalar("validation/jaccard", mean_jaccard(views), step)
        for view in views:
            picture = contact(view)
            Image.fromarray(picture).save(self.pictures / f"{view.name}-step-{step:08}.png")
            self.curves.add_image(f"validation/{view.name}", picture, step, dataformats="HWC")


def _lines_until(path: Path, step: int) -> list[str]:
    if not path.is_file():
        return []
    # A killed run may leave half a line at the end.
    complete = [line for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]
    return [line for line in complete if json.loads(line)["number"] <= step]


def mean_jaccard(views: Sequence[View]) -> float:
    """Mean overlap of all samples, each counting alike."""
    return float(np.mean([view.jaccard for view in views])) if views else 0.0


def jaccard(wanted: NDArray[np.bool_], seen: NDArray[np.bool_]) -> float:
    """Mean over masks and frames of intersection over union; 1 where both are empty. Shapes (K, T, H, W)."""
    both = (wanted & seen).sum((2, 3))
    either = (wanted | seen).sum((2, 3))
    return float(np.where(either > 0, both / np.maximum(either, 1), 1.0).mean())


def contact(view: View) -> NDArray[np.uint8]:
    """A few frames side by side, uint8 (2 H, n W, 3): above as it should be, below as it is."""
    chosen = np.unique(np.linspace(0, len(view.frames) - 1, SHOWN_FRAMES).astype(int))
    rows = [
        np.concatenate([tinted(view.frames[i], masks[:, i]) for i in chosen], axis=1)
        for masks in (view.wanted, view.seen)
    ]
    return np.concatenate(rows)


def tinted(frame: NDArray[np.uint8], masks: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """A frame (H, W, 3) with each of the masks (K, H, W) in a colour of its own."""
    picture: NDArray[Any] = frame.astype(np.float32)
    for number, mask in enumerate(masks):
        picture[mask] = 0.45 * picture[mask] + 0.55 * COLOURS[number % len(COLOURS)]
    return picture.astype(np.uint8)
