"""The command line `x2roto`: the verbs, each in a file of its own. Nothing heavy is imported here."""

from __future__ import annotations

from typing import Annotated

import typer

from x2roto import __version__
from x2roto.cli import evaluate, footage, models, presets, vvgd
from x2roto.cli.chat import chat
from x2roto.cli.info import info
from x2roto.cli.preview import preview
from x2roto.cli.report import errors_reported
from x2roto.cli.segment import segment
from x2roto.cli.train import train

app = typer.Typer(
    name="x2roto",
    help="Mattes for every frame of a clip, from a sentence, a question, a class list or a region.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(segment)
app.command()(preview)
app.command()(info)
app.command()(chat)
app.command()(train)
app.add_typer(presets.app, name="presets")
app.add_typer(models.app, name="models")
app.add_typer(footage.app, name="footage")
app.add_typer(vvgd.app, name="vvgd")
app.add_typer(evaluate.app, name="evaluate")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"x2roto {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Mattes for every frame of a clip, from a sentence, a question, a class list or a region."""


def main() -> None:
    """Run the command line; errors become one line and a documented exit code."""
    with errors_reported():
        # Not standalone: typer would print its own errors, in several lines.
        raise SystemExit(app(standalone_mode=False) or 0)
