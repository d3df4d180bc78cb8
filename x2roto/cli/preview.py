"""`x2roto preview`: one labelled still, before the long run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from x2roto.cli import options as o


def preview(
    clip: o.Clip,
    text: o.Text = None,
    ask: o.Ask = None,
    classes: o.Classes = None,
    box: o.Box = None,
    point: o.Point = None,
    scribble: o.Scribble = None,
    mask: o.Mask = None,
    describe: o.DescribeIt = False,
    frame: Annotated[
        int | None, o.option("--frame", help="Which frame, in the clip's numbers; else the first.", panel=o.CLIP)
    ] = None,
    frames: o.Frames = None,
    source_frames: o.SourceFrames = None,
    start_frame: o.StartFrame = None,
    on_bad_frame: o.BadFrame = None,
    stream: o.Stream = None,
    layer: o.Layer = None,
    size: o.Size = None,
    rate: o.Rate = None,
    pix_fmt: o.PixFmt = None,
    edge: o.EdgeKind = None,
    grow: o.Grow = None,
    feather: o.Feather = None,
    invert: o.Invert = None,
    output: Annotated[
        Path | None,
        o.option("-o", "--output", help="PNG to write; else '{shot}_preview.{frame}.png' here.", panel=o.OUTPUT),
    ] = None,
    preset: o.PresetName = None,
    shot: o.Shot = None,
    instances: o.Instances = None,
    model: o.Model = None,
    device: o.Device = None,
    dtype: o.DtypeOption = None,
    presence: o.Presence = None,
    seed: o.Seed = None,
) -> None:
    """Write one labelled still of what the prompts find on a frame. It replaces an earlier one."""
    options = o.plain(locals())
    for name in ("clip", "preset", "frame", "output"):
        del options[name]

    from x2roto.engine.model_folder import notice
    from x2roto.engine.wording import notes_on
    from x2roto.preset import build_job, find_preset
    from x2roto.still import preview as write_preview

    job = build_job(clip, options, preset=find_preset(preset) if preset else None)
    path, cut = write_preview(job, output, frame)
    for line in (notice(job.engine.model), *notes_on(job.engine.model, job.prompts)):
        typer.echo(line, err=True)
    for label, facts in cut.facts.items():
        found = f"score {facts.score:.2f}, {100 * facts.area:.1f} % of the plate" if facts.score else "not found"
        typer.echo(f"{label}: {found}", err=True)
    typer.echo(f"written to {path}", err=True)
