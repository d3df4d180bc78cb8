"""`x2roto footage`: make, show and check procedural training clips."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from x2roto.errors import InputError, PromptError

if TYPE_CHECKING:
    from x2roto.train.footage.judging import Judgement

app = typer.Typer(help="Make, show and check procedural training clips.", no_args_is_help=True)


# How made clips lie on disk; other names are of data sets.
FOLDERS: dict[str, Literal["clips", "davis"]] = {"clips": "clips", "davis": "davis"}

Count = Annotated[int, typer.Option(min=1, help="How many clips.")]
Seed = Annotated[int, typer.Option(min=0, help="Clip k is made from this seed and k; equal seeds give equal bytes.")]
Size = Annotated[str, typer.Option(help="Width and height, as WxH.")]
Frames = Annotated[int, typer.Option(min=1, help="Frames of a clip.")]
MaterialFolder = Annotated[
    Path | None, typer.Option("--material", help="Folder with a MANIFEST.json; without one, everything is drawn.")
]


@app.command()
def make(
    out: Annotated[Path, typer.Option(help="Folder to write to.")],
    count: Count = 10,
    seed: Seed = 0,
    size: Size = "384x216",
    frames: Frames = 24,
    material: MaterialFolder = None,
    layout: Annotated[
        str,
        typer.Option(
            help="clips: a folder each. davis: the folders of DAVIS. Any data set that 'x2roto evaluate list' names: "
            "a tiny one of a few drawn pictures, which depends on --seed alone."
        ),
    ] = "clips",
) -> None:
    """Write clips: pictures, mattes, label maps, regions and what can be said of them."""
    if layout not in FOLDERS:
        _miniature(layout, out, seed)
        return
    from x2roto.train.footage.dataset import Shape, film
    from x2roto.train.footage.material import Material
    from x2roto.train.footage.writing import list_clips, write_clip

    width, height = _size(size)
    stock, shape = Material.open(material), Shape(height, width, (frames,))
    for number in range(count):
        write_clip(film(stock, (seed, number), shape, frames), f"{number:06d}", out, FOLDERS[layout])
    if layout == "davis":
        list_clips(out)
    typer.echo(f"{count} clips in {out}", err=True)


def _miniature(layout: str, out: Path, seed: int) -> None:
    from x2roto.data.layouts import layout_named
    from x2roto.export.atomic import output_errors

    row = layout_named(layout)
    with output_errors(out):
        out.mkdir(parents=True, exist_ok=True)
        row.miniature(out, seed)
    typer.echo(f"a tiny {row.title} in {out}", err=True)


@app.command()
def sheet(
    out: Annotated[Path, typer.Option(help="Picture to write, .png or .jpg.")],
    count: Count = 50,
    seed: Seed = 0,
    size: Size = "192x128",
    frames: Frames = 8,
    material: MaterialFolder = None,
) -> None:
    """Draw a contact sheet: three frames of each clip, and what one expression means."""
    from x2roto.train.footage.dataset import Shape, film
    from x2roto.train.footage.material import Material
    from x2roto.train.footage.writing import contact_sheet

    width, height = _size(size)
    stock, shape = Material.open(material), Shape(height, width, (frames,))
    contact_sheet([film(stock, (seed, number), shape, frames) for number in range(count)], out)
    typer.echo(f"{count} clips on {out}", err=True)


@app.command()
def check(
    count: Count = 10_000,
    seed: Seed = 0,
    frames: Frames = 8,
    material: MaterialFolder = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes to share the work.")] = 1,
) -> None:
    """Have an independent judge look for words that are false or fit more than one thing."""
    statements, faults = 0, 0
    for number, judgement in enumerate(_judgements(count, seed, frames, material, workers)):
        statements += judgement.statements
        faults += len(judgement.faults)
        for fault in judgement.faults:
            typer.echo(f"clip {number}: {fault}")
    typer.echo(f"{count} clips, {statements} statements, {faults} faults")
    if faults:
        raise typer.Exit(1)


def _judgements(count: int, seed: int, frames: int, folder: Path | None, workers: int) -> Iterator[Judgement]:
    from concurrent.futures import ProcessPoolExecutor
    from functools import partial
    from multiprocessing import get_context

    if folder is not None and not (folder / "MANIFEST.json").is_file():
        raise InputError(f"{folder} has no MANIFEST.json: give a folder of training material", folder)
    work = partial(_judged, folder=folder, seed=seed, frames=frames)
    if workers == 1:
        yield from map(work, range(count))
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        yield from pool.map(work, range(count), chunksize=16)


def _judged(number: int, *, folder: Path | None, seed: int, frames: int) -> Judgement:
    import torch

    from x2roto.train.footage.judging import judge
    from x2roto.train.footage.material import opened

    torch.set_num_threads(1)
    return judge(opened(folder), (seed, number), frames=frames, aspect=3 / 2)


def _size(text: str) -> tuple[int, int]:
    width, _, height = text.partition("x")
    if not (width.isdigit() and height.isdigit() and int(width) >= 16 and int(height) >= 16):
        raise PromptError(f"cannot read the size {text!r}: write WxH, at least 16x16, for example 384x216")
    return int(width), int(height)
