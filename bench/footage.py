"""How fast procedural footage is made, stage by stage and as samples: `python bench/footage.py --help`."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.table import Table

from x2roto.train.footage import Material, Shape, footage_datasets
from x2roto.train.footage.language import describe
from x2roto.train.footage.render import render
from x2roto.train.footage.scene import compose
from x2roto.train.footage.survey import survey


def main(
    material: Annotated[Path | None, typer.Option(help="Folder of training material; none: all drawn.")] = None,
    size: Annotated[str, typer.Option(help="Width and height, as WxH.")] = "192x128",
    frames: Annotated[int, typer.Option(min=1, help="Frames of a clip.")] = 8,
    count: Annotated[int, typer.Option(min=1, help="Clips to time.")] = 40,
    device: Annotated[str, typer.Option(help="Where to render.")] = "cpu",
    threads: Annotated[int, typer.Option(min=1, help="Threads of torch.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Times clips whose material has been decoded: each is made twice and the second time counts."""
    torch.set_num_threads(threads)
    width, height = (int(side) for side in size.split("x"))
    stock, shape = Material.open(material), Shape(height, width, (frames,))
    times = {
        **stage_times(stock, shape, frames, count, device),
        **sample_times(stock, shape, max(4, count // 4), device),
    }
    if as_json:
        typer.echo(json.dumps({"size": size, "frames": frames, "device": device, "threads": threads, "ms": times}))
        return
    table = Table(title=f"{width}x{height}, {frames} frames, {device}, {threads} thread(s)", title_justify="left")
    for column in ("", "ms per clip (median)", "clips/s"):
        table.add_column(column, justify="left" if not column else "right")
    for name, milliseconds in times.items():
        table.add_row(name, f"{milliseconds:.1f}", f"{1000 / milliseconds:.0f}")
    Console().print(table)


def stage_times(stock: Material, shape: Shape, frames: int, count: int, device: str) -> dict[str, float]:
    """Median processor milliseconds (wall time on a GPU) of composing, rendering and describing a clip."""
    spent: dict[str, list[float]] = {"compose": [], "render": [], "survey and describe": []}
    for number in range(count):
        make = partial(compose, stock, (1, number), frames=frames, aspect=shape.aspect)
        scene = make()
        film = partial(render, scene, shape.height, shape.width, device)
        rendered = film()
        spent["compose"].append(_timed(make, device))
        spent["render"].append(_timed(film, device))
        spent["survey and describe"].append(_timed(lambda s=scene, r=rendered: describe(s, survey(r)), device))
    return {name: statistics.median(values) for name, values in spent.items()}


def sample_times(stock: Material, shape: Shape, count: int, device: str) -> dict[str, float]:
    """Median milliseconds of one sample of every data set."""
    times = {}
    for data in footage_datasets(stock, shape, seed=1, device=device):
        values = []
        for index in range(count):
            data[index]
            values.append(_timed(lambda d=data, k=index: d[k], device))
        times[data.name] = statistics.median(values)
    return times


def _timed(call: Callable[[], object], device: str) -> float:
    clock = time.process_time if device == "cpu" else time.perf_counter
    started = clock()
    call()
    if device != "cpu":
        torch.cuda.synchronize()
    return (clock() - started) * 1000


if __name__ == "__main__":
    typer.run(main)
