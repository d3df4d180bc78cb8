"""Simple clips for training tests: textured shapes that move over a textured ground, with every kind of request."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.tiny import TINY
from x2roto.train.samples import ClipSample

SIZE = 64
KINDS = ("disc", "square")
COLOURS = {"red": (220, 40, 40), "blue": (50, 70, 230), "green": (40, 190, 70), "yellow": (230, 210, 40)}
TASKS = ("refseg", "objseg", "genseg", "refseg")


class Shapes:
    """`count` clips of `length` frames; a disc and a square of different colours each. `tasks` take turns."""

    def __init__(
        self, count: int = 4, length: int = 4, tasks: tuple[str, ...] | list[str] = TASKS, seed: int = 0
    ) -> None:
        self.name = "shapes"
        self.modality = "image" if length == 1 else "video"
        self.count, self.length, self.tasks, self.seed = count, length, tuple(tasks), seed

    def __len__(self) -> int:
        return self.count

    def frame_count(self, index: int) -> int:
        return self.length

    def __getitem__(self, index: int) -> ClipSample:
        random = np.random.default_rng((self.seed, index))
        frames = np.repeat(texture(random, (110, 110, 110))[None], self.length, axis=0)
        colours = random.choice(list(COLOURS), 2, replace=False)
        masks = np.stack([self._shape(random, kind) for kind in KINDS])
        masks[0] &= ~masks[1]
        for mask, colour in zip(masks, colours, strict=True):
            frames[mask] = np.repeat(texture(random, COLOURS[colour])[None], self.length, axis=0)[mask]
        return request(self.tasks[index % len(self.tasks)], frames, masks, colours)

    def _shape(self, random: np.random.Generator, kind: str) -> NDArray[np.bool_]:
        left = kind == "disc"
        start = random.uniform((20, 12 if left else 40), (44, 24 if left else 52))
        speed, radius = random.uniform(-2, 2, 2), random.uniform(9, 12)
        y, x = np.mgrid[:SIZE, :SIZE]
        centres = [start + speed * step for step in range(self.length)]
        if kind == "disc":
            return np.stack([(y - cy) ** 2 + (x - cx) ** 2 <= radius**2 for cy, cx in centres])
        return np.stack([np.maximum(abs(y - cy), abs(x - cx)) <= radius for cy, cx in centres])


def texture(random: np.random.Generator, colour: tuple[int, int, int]) -> NDArray[np.uint8]:
    """A grainy surface of a colour (SIZE, SIZE, 3)."""
    return np.clip(np.array(colour) + random.normal(0, 12, (SIZE, SIZE, 3)), 0, 255).astype(np.uint8)


def request(task: str, frames: NDArray[np.uint8], masks: NDArray[np.bool_], colours: list[str]) -> ClipSample:
    """One request about a disc and a square of those colours; the disc alone where one thing is asked for."""
    disc, both = np.array([0]), np.array([0, 1])
    match task:
        case "refseg":
            return ClipSample(frames, task, (f"the {colours[0]} disc",), masks[:1], disc)
        case "reaseg":
            return ClipSample(frames, task, ("Which thing has no corner?",), masks[:1], disc)
        case "genseg":
            return ClipSample(frames, task, KINDS, masks, both)
        case "gcgseg":
            caption = f"A <p>{colours[0]} disc</p> and a <p>{colours[1]} square</p>."
            return ClipSample(frames, task, (), masks, both, answer=caption)
        case "chat":
            return ClipSample(frames, task, ("What is there?",), answer=f"A {colours[0]} disc.", rate=24.0)
    rows, columns = np.nonzero(masks[0, 0])
    box = np.zeros_like(masks[0, 0])
    box[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1] = True
    return ClipSample(frames, task, (box,), masks[:1], disc)


def toml(values: Mapping[str, Any], at: str = "") -> str:
    """Plain values as TOML; empty tables are left out, lists of dictionaries are arrays of tables."""
    plain = {k: v for k, v in values.items() if not isinstance(v, Mapping) and not _tables(v)}
    lines = [f"{key} = {json.dumps(value)}" for key, value in plain.items()]
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            lines += [f"[{at}{key}]", toml(value, f"{at}{key}.")]
        for table in value if _tables(value) else ():
            lines += [f"[[{at}{key}]]", toml(table, f"{at}{key}.")]
    return "\n".join(lines) + "\n"


def _tables(value: object) -> bool:
    return isinstance(value, list | tuple) and bool(value) and isinstance(value[0], Mapping)


def shapes(**options: Any) -> dict[str, Any]:
    """`Shapes` as a data set of a training config."""
    return {"open": "tests.shapes:Shapes", "options": options}


def run_values(stage: str, **changes: Mapping[str, Any] | list[Any]) -> dict[str, Any]:
    """A tiny run from scratch in float32 without loader processes; `changes` add to its sections."""
    values: dict[str, Any] = {
        "stage": stage,
        "data": [shapes()],
        "model": json.loads(json.dumps(TINY.to_dict())),
        "initial": {"tokenizer": "bytes"},
        "language": {"rank": 4, "alpha": 8},
        "batches": {"workers": 0, "image_batch": 2, "image_accumulation": 2, "video_accumulation": 2},
        "optimiser": {"rate": 1e-3, "steps": 4},
        "losses": {"points": 64},
        "run": {"precision": "fp32", "save_every": 2, "log_every": 1, "validate_every": 0},
    }
    for section, change in changes.items():
        values[section] = {**values.get(section, {}), **change} if isinstance(change, Mapping) else change
    return values
