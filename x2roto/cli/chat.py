"""`x2roto chat`: a question about a clip, answered in words."""

from __future__ import annotations

from typing import Annotated

import typer

from x2roto.cli import options as o


def chat(
    clip: o.Clip,
    question: Annotated[str, typer.Argument(help="What to ask about the clip.", show_default=False)],
    frames: o.Frames = None,
    glimpse: Annotated[int, typer.Option(help="Frames the model looks at.", min=1)] = 64,
    model: o.Model = None,
    device: o.Device = None,
    dtype: o.DtypeOption = None,
) -> None:
    """Ask a question about a clip; the answer goes to standard output."""
    from x2roto.color import network_rgb
    from x2roto.device import load
    from x2roto.engine.model_folder import notice
    from x2roto.planning import open_clip, ranges_of
    from x2roto.preset import build_job

    job = build_job(clip, o.plain({"frames": frames, "model": model, "device": device, "dtype": dtype}))
    with open_clip(job.clip) as source:
        looked = source.sample(glimpse, ranges_of(job.clip, source.info))
        pictures = [network_rgb(frame.rgb, source.info.colour) for frame in looked]
    answer = load(job.engine).chat(question, pictures)
    typer.echo(notice(job.engine.model), err=True)
    typer.echo(answer)
