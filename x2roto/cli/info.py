"""`x2roto info`: what will be read of a clip."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from x2roto.cli import options as o


def info(
    clip: o.Clip,
    start_frame: o.StartFrame = None,
    stream: o.Stream = None,
    layer: o.Layer = None,
    size: o.Size = None,
    rate: o.Rate = None,
    pix_fmt: o.PixFmt = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON on standard output.")] = False,
) -> None:
    """Show what will be read of a clip: size, frames, rate, depth, colour, and what to know about it."""
    from x2roto.job import ClipSpec
    from x2roto.planning import open_clip
    from x2roto.record import clip_facts

    spec = ClipSpec(clip, start_frame=start_frame, stream=stream, layer=layer, size=size, rate=rate, pix_fmt=pix_fmt)
    with open_clip(spec) as source:
        facts = clip_facts(source.info)
    if as_json:
        typer.echo(json.dumps({"clip": clip, **facts}, indent=1))
    else:
        _show(clip, facts)


def _show(clip: str, facts: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table("Fact", "Value", title=escape(clip), title_justify="left")
    for key, value in facts.items():
        if isinstance(value, dict):
            value = ", ".join(f"{k} {v}" for k, v in value.items() if v is not None)
        elif isinstance(value, list):
            value = "\n".join(value)
        table.add_row(key.replace("_", " "), escape("" if value is None else str(value)))
    Console(stderr=True).print(table)
