"""`x2roto train`: a training run from a TOML file, continued where it was left."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from x2roto.train.report import Step, View


def train(
    config: Annotated[str, typer.Argument(help="TOML file of the run, or the name of a training preset.")],
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Folder of the run, in place of the file's.", show_default=False),
    ] = None,
) -> None:
    """Train a model. The same command goes on with a run that was stopped.

    For several devices or machines start it once per device: torchrun --nproc-per-node 8 -m x2roto train CONFIG
    """
    from x2roto.train.config import find_config, load_config

    settings = load_config(find_config(config), out)
    try:
        from x2roto.train.trainer import train as run
    except ModuleNotFoundError as error:
        typer.echo(f"x2roto: training needs {error.name}: pip install 'x2roto[train]'", err=True)
        raise typer.Exit(1) from error
    run(settings, every(settings.run.log_every), tell_views)
    typer.echo(f"{settings.stage} stage done in {settings.out}", err=True)


def every(interval: int) -> Callable[[Step], None]:
    """A line on stderr for each `interval` micro-batches, and for the last; none for 0."""

    def tell(step: Step) -> None:
        if interval and (step.number % interval == 0 or step.number >= step.steps):
            typer.echo(line(step), err=True)

    return tell


def line(step: Step) -> str:
    """A micro-batch in one line."""
    parts = {"language": step.language, "classes": step.classes, "masks": step.masks, "dice": step.dice}
    losses = " ".join(f"{name} {value:.3f}" for name, value in parts.items())
    speed = step.clips / step.seconds
    return f"{step.number}/{step.steps} loss {step.total:.3f} ({losses}) rate {step.rate:.2e} {speed:.2f} clips/s"


def tell_views(views: Sequence[View], step: int) -> None:
    """A line on stderr about a validation."""
    from x2roto.train.report import mean_jaccard

    typer.echo(f"{step} validation J {mean_jaccard(views):.3f} on {len(views)} clips", err=True)
