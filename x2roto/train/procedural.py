"""Procedural footage as a training config names it: plain options in, data sets out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from x2roto.train.footage import Shape, footage_datasets
from x2roto.train.footage.close import Close
from x2roto.train.footage.dataset import MOST_PHRASES
from x2roto.train.footage.material import opened
from x2roto.train.samples import ClipDataset


def open_footage(
    *,
    height: int,
    width: int,
    frames: Sequence[int],
    folder: str | None = None,
    tasks: Sequence[str] | None = None,
    sources: Sequence[str] | None = None,
    length: int = 100_000,
    seed: int = 0,
    room: float = 0.0,
    side: int = 0,
    phrases: int = MOST_PHRASES,
    apart: int = 0,
    every: bool = False,
    kept: int = 0,
) -> tuple[ClipDataset, ...]:
    """One data set per task and medium, each of `length` clips of `frames` lengths, `height` x `width` pixels.

    `folder`: of material with its manifest, None for drawn shapes and figures. `tasks`: keys of
    `engine.tasks.TASKS`, None for all there are. `sources`: "footage" (procedural), "photo" and "clip" (labelled
    ones brought to life), "scatter" (things strewn about a square of `height`; with `every`), None for all. `room`:
    of the model, which sees single objects in windows of `side` pixels; 0 for whole frames. `phrases`: most that one
    sample asks for. `apart`: how many phrases or questions of a clip are asked, each in a conversation of its own;
    0: `phrases` in one. `every`: class lists have all names of which it is clear whether they fit. `kept`: frames
    that samples keep of a procedural clip that is asked about by words, 0 for all. Raises InputError for a folder
    without a manifest.
    """
    material = opened(None if folder is None else Path(folder))
    close = Close(room, side) if room else None
    shape = Shape(height, width, tuple(frames), close, phrases, apart, every, kept)
    sets = footage_datasets(material, shape, seed=seed, length=length)
    # Where clips are of one frame, clips and stills are the same.
    named: dict[str, ClipDataset] = {data.name: data for data in sets}
    return tuple(data for name, data in named.items() if _wanted(name, sources, tasks))


def _wanted(name: str, sources: Sequence[str] | None, tasks: Sequence[str] | None) -> bool:
    source, _, task = name.split("-")
    return (sources is None or source in sources) and (tasks is None or task in tasks)
