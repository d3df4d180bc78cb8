"""`x2roto presets`: list and show presets."""

from __future__ import annotations

from typing import Annotated

import typer

app = typer.Typer(help="List and show presets.", no_args_is_help=True)


@app.command("list")
def list_all() -> None:
    """List the presets that can be named with --preset."""
    from x2roto.preset import list_presets

    presets = list_presets()
    width = max((len(preset.name) for preset in presets), default=0)
    for preset in presets:
        typer.echo(f"{preset.name:{width}}  {preset.description}")


@app.command()
def show(name: Annotated[str, typer.Argument(help="Name or file of a preset.")]) -> None:
    """Print a preset's file."""
    from x2roto.preset import find_preset

    preset = find_preset(name)
    assert preset.path is not None
    typer.echo(f"# {preset.path}")
    typer.echo(preset.path.read_text(encoding="utf-8"), nl=False)
