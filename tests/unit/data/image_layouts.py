"""Opening miniatures of the image layouts, and reading everything in them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from x2roto.data.annotations import read_json, read_rgb, write_json
from x2roto.data.image import IMAGE_LAYOUTS
from x2roto.data.sample import Dataset, FrameTruth, PromptKind, Sample

SEED = 5
NAMES = tuple(IMAGE_LAYOUTS)
Read = tuple[Sample, FrameTruth]


def miniature(name: str, root: Path, seed: int = SEED) -> Path:
    """The folder, filled."""
    IMAGE_LAYOUTS[name].miniature(root, seed)
    return root


def opened(name: str, root: Path, split: str | None = None, prompt: PromptKind | None = None) -> Dataset:
    layout = IMAGE_LAYOUTS[name]
    return layout.open(root, split or layout.splits[0], prompt)


def read_all(name: str, root: Path, split: str | None = None, prompt: PromptKind | None = None) -> list[Read]:
    """Every sample with its truth; pictures are read too."""
    data = opened(name, root, split, prompt)
    samples = [data[index] for index in range(len(data))]
    for sample in samples:
        read_rgb(sample.frames[0], sample.size)
    return [(sample, sample.truth(0)) for sample in samples]


def masks_of(truth: FrameTruth, condition: int) -> list[NDArray[np.bool_]]:
    return [mask for mask, number in zip(truth.masks, truth.condition, strict=True) if number == condition]


def tables(root: Path) -> list[Path]:
    return sorted(root.rglob("*.json"))


def rewrite(path: Path, change: Any) -> bool:
    """Apply `change` to every record of a JSON file; it says whether it changed one. Whether the file is another."""
    value = read_json(path, legacy="cp1252")
    changed = [change(record) for record in _records(value)]
    if any(changed):
        write_json(value, path)
    return any(changed)


def _records(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
    for each in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _records(each)
