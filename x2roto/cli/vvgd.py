"""`x2roto vvgd`: make and check the prompts of grounded video segmentation, V-VGD."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Make and check V-VGD annotations: visual prompts for video objects.", no_args_is_help=True)


class Layout(StrEnum):
    """The data set that prompts are made for."""

    YTVIS19 = "ytvis19"
    VIPSEG = "vipseg"


@app.command()
def build(
    sources: Annotated[
        list[Path],
        typer.Argument(
            metavar="SOURCE...", help="ytvis19: valid.json. vipseg: panoptic_gt_VIPSeg_val.json and panomasksRGB."
        ),
    ],
    out: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="JSON file to write.")],
    layout: Annotated[Layout, typer.Option(help="Which data set SOURCE is.")],
    seed: Annotated[int, typer.Option(min=0, help="Prompts are drawn from it; equal seeds give equal bytes.")] = 0,
) -> None:
    """Draw a point, a scribble, a box and a mask for each thing on each frame it is seen on."""
    from x2roto.data import vvgd

    count = vvgd.write(vvgd.build(layout.value, sources, seed), out)
    typer.echo(f"{count} videos in {out}", err=True)


@app.command()
def check(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="JSON file to look through.")],
    data: Annotated[Path, typer.Option(metavar="DIR", help="Folder of the pictures, JPEGImages or images.")],
) -> None:
    """List what is wrong with a file, one line each; the exit code is 1 when anything is."""
    from x2roto.data import vvgd

    faults = 0
    for fault in vvgd.check(file, data):
        faults += 1
        typer.echo(fault)
    typer.echo(f"{file}: {faults} faults", err=True)
    if faults:
        raise typer.Exit(1)
