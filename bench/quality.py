"""What `--quality` costs and saves: `python bench/quality.py --footage ../shared/footage`.

Every clip is followed at each quality from the same prompt, in the same run, in turns. The mattes are held against
those of `exact`, and against the truth where there is one. `--plain` instead holds them as a device makes them, in
its numbers and by its kernels, against those of the plain network in float32 on the CPU. `--random` holds the masks
of a network of random weights, with all three scales of memory, at `fast` against the same at `exact`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean
from typing import Annotated, get_args

import engine
import numpy as np
import torch
import typer
from engine import Setting
from nano import Masks, matte, trackers
from nano import clips as real_clips
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from x2roto.device import load
from x2roto.engine.segmenter import Segmenter
from x2roto.evaluate.metrics.boundary import boundary_accuracy, region_similarity
from x2roto.job import EngineSpec, Quality
from x2roto.prompt import Box, Prompt
from x2roto.train.footage import Material, Shape, film
from x2roto.train.footage.language import TARGET_AREA

HELD_BACK = 20_270  # seeds that no training preset and no other bench uses
QUALITIES: tuple[Quality, ...] = get_args(Quality)


@dataclass(frozen=True, slots=True)
class Take:
    """A clip, its prompt, and the true mask of the frames that have one."""

    frames: NDArray[np.uint8]
    prompt: Prompt
    truth: dict[int, Masks]


@dataclass(slots=True)
class Tally:
    """Of one quality, by clip: seconds, J and F against exact mattes, the worst J, J&F against the truth."""

    seconds: list[float] = field(default_factory=list)
    j: list[float] = field(default_factory=list)
    f: list[float] = field(default_factory=list)
    worst: float = 1.0
    true: list[float] = field(default_factory=list)


def takes(footage: Path | None, clips: int, frames: int) -> Iterator[Take]:
    """The real clips of a footage folder, or drawn ones, each with a box around one thing on its first frame."""
    if footage is not None:
        for clip in real_clips(footage, frames):
            yield Take(clip.frames, Box("it", *clip.box), dict(clip.masks))
        return
    for number in range(clips):
        drawn = film(Material.open(None), (HELD_BACK, number), Shape(240, 416, (frames,)), frames)
        masks, rgb = drawn.rendered.masks, drawn.rendered.frames
        assert rgb is not None
        shown = np.flatnonzero(masks[:, 0].mean((1, 2)) >= TARGET_AREA)
        if len(shown):
            rows, columns = (np.flatnonzero(masks[shown[0], 0].any(axis)) for axis in (1, 0))
            box = Box("it", float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1))
            yield Take(rgb, box, dict(enumerate(masks[shown[0]])))


def followed(segmenter: Segmenter, take: Take) -> tuple[list[Masks], float]:
    """The mattes of a clip, and how long it took."""
    started = time.perf_counter()
    results = [result for (result,) in zip(*trackers(segmenter, take.frames, [take.prompt]), strict=True)]
    seconds = time.perf_counter() - started
    logits = [torch.stack([seen.logits for seen in result.seen]).amax(0) for result in results]
    return [matte(each, rgb, "soft") for each, rgb in zip(logits, take.frames, strict=True)], seconds


@torch.inference_mode()
def random_agreement(networks: int, frames: int) -> list[float]:
    """The lowest IoU of a query's mask on the last of some frames, for each of so many random networks."""
    setting = Setting(torch.device("cpu"), torch.float32, 0, 1)
    lowest = []
    for number in range(networks):
        logits = []
        for quality in (engine.Quality.EXACT, engine.Quality.FAST):
            work = engine.workload(
                engine.Size.SMALL, language=False, frames=frames, chunk=4, memory=5, quality=quality
            )
            scene = replace(setting, seed=number).scene(work)
            logits.append(engine.ours_in_order(scene, frames)[-1][0].flatten(1) > 0)
        exact, fast = logits
        either = (exact | fast).sum(1)
        shares = ((exact & fast).sum(1) / either)[either > 0]
        lowest.append(float(shares.min()))
    return lowest


def add(tally: Tally, take: Take, found: list[Masks], exact: list[Masks], seconds: float) -> None:
    tally.seconds.append(seconds)
    j = [region_similarity(a, b) for a, b in zip(exact, found, strict=True)]
    tally.j.append(fmean(j))
    tally.f.append(fmean(boundary_accuracy(a, b) for a, b in zip(exact, found, strict=True)))
    tally.worst = min(tally.worst, tally.j[-1])
    scored = [
        (region_similarity(truth, found[index]) + boundary_accuracy(truth, found[index])) / 2
        for index, truth in take.truth.items()
        if index < len(found)
    ]
    tally.true.append(fmean(scored))


def main(
    footage: Annotated[Path | None, typer.Option(help="Folder with MANIFEST.json and gt/, or drawn clips.")] = None,
    model: Annotated[str | None, typer.Option(help="Name or folder of a model.")] = None,
    clips: Annotated[int, typer.Option(min=1, help="Drawn clips.")] = 50,
    frames: Annotated[int, typer.Option(min=2, help="Frames of a clip, at most.")] = 12,
    device: Annotated[str, typer.Option(help="Device.")] = "cpu",
    threads: Annotated[int, typer.Option(min=1, help="Threads of torch.")] = 1,
    plain: Annotated[bool, typer.Option(help="The device's way against plain float32 instead.")] = False,
    random: Annotated[int, typer.Option(help="Networks of random weights to measure instead.")] = 0,
) -> None:
    """Agreement with exact mattes, with the truth, and time, for each quality."""
    torch.set_num_threads(threads)
    if random:
        shares = random_agreement(random, frames)
        typer.echo(
            f"fast against exact, {random} random networks, IoU of the worst of 100 queries: "
            f"mean {fmean(shares):.3f}, least {min(shares):.3f}"
        )
        return
    if plain:
        segmenters = {"plain": load(EngineSpec(model, "cpu")), f"on {device}": load(EngineSpec(model, device))}
    else:
        segmenters = {quality: load(EngineSpec(model, device, quality=quality)) for quality in QUALITIES}
    tallies = {name: Tally() for name in segmenters}
    for take in takes(footage, clips, frames):
        exact: list[Masks] = []
        for name, segmenter in segmenters.items():
            found, seconds = followed(segmenter, take)
            exact = exact or found
            add(tallies[name], take, found, exact, seconds)
    show(tallies)


def show(tallies: dict[str, Tally]) -> None:
    """A table of them; all are held against the first."""
    first, *_ = tallies
    table = Table(title=f"Against {first}, {len(tallies[first].seconds)} clips")
    for column in ("way", "time", "mean IoU", "worst clip", "boundary F", "J&F against the truth"):
        table.add_column(column, justify="left" if column == "way" else "right")
    for name, tally in tallies.items():
        share = sum(tally.seconds) / sum(tallies[first].seconds)
        numbers = (share, fmean(tally.j), tally.worst, fmean(tally.f), fmean(tally.true))
        table.add_row(name, *(f"{number:.3f}" for number in numbers))
    Console(width=110).print(table)


if __name__ == "__main__":
    typer.run(main)
