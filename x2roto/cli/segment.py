"""`x2roto segment`: a clip and prompts in, mattes out. Builds a `Job`, runs it, reports."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from x2roto.cli import options as o
from x2roto.cli.progress import Style, reporting
from x2roto.cli.report import Exit
from x2roto.errors import ModelError, PromptError

if TYPE_CHECKING:
    from x2roto.job import Job
    from x2roto.pipeline import Progress, Summary

SHOWN = 10


def segment(
    clip: o.Clip,
    text: o.Text = None,
    ask: o.Ask = None,
    classes: o.Classes = None,
    box: o.Box = None,
    point: o.Point = None,
    scribble: o.Scribble = None,
    mask: o.Mask = None,
    describe: o.DescribeIt = False,
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
    smooth: o.Smooth = None,
    invert: o.Invert = None,
    output: Annotated[
        str | None,
        o.option(
            "-o",
            "--output",
            help="Folder, or a name such as '{shot}_{object}.{frame}.{ext}'; - for a pipe.",
            panel=o.OUTPUT,
        ),
    ] = None,
    format: Annotated[
        list[str] | None,
        o.option(
            "--format",
            "-f",
            help="png, exr, cryptomatte, tiff, prores, webm, ffv1, composite, overlay, contact, davis, coco, y4m, "
            "raw; options after a colon: exr:compression=dwaa.",
            panel=o.OUTPUT,
        ),
    ] = None,
    preset: o.PresetName = None,
    shot: o.Shot = None,
    instances: o.Instances = None,
    model: o.Model = None,
    device: o.Device = None,
    dtype: o.DtypeOption = None,
    quality: o.QualityOption = None,
    chunk: o.Chunk = None,
    memory: o.Memory = None,
    max_vram: o.MaxVram = None,
    presence: o.Presence = None,
    seed: o.Seed = None,
    min_score: Annotated[
        float | None, o.option("--min-score", help="Report frames below; exit code 6.", panel=o.RUN)
    ] = None,
    resume: Annotated[
        bool, o.option("--resume", help="Go on with a stopped run, if there is one.", panel=o.RUN)
    ] = False,
    overwrite: Annotated[bool, o.option("--overwrite", help="Replace a take that is there.", panel=o.RUN)] = False,
    dry_run: Annotated[
        bool, o.option("--dry-run", help="Tell what would be done; load no model.", panel=o.RUN)
    ] = False,
    progress: Annotated[
        Style, o.option("--progress", help="auto, rich, plain, openjd, tractor, json or none.", panel=o.RUN)
    ] = Style.AUTO,
    log_json: Annotated[
        Path | None, o.option("--log-json", help="File that gets one JSON line per event; - for stdout.", panel=o.RUN)
    ] = None,
) -> None:
    """Cut objects out of a clip: mattes for every frame, from words, questions, classes or regions."""
    # Every option under its own name, as `x2roto.segment` takes them; these are not the job's.
    options = o.plain(locals())
    for name in ("clip", "preset", "resume", "overwrite", "dry_run", "progress", "log_json"):
        del options[name]

    from x2roto.preset import build_job, find_preset

    if resume and overwrite:
        raise PromptError("--resume and --overwrite contradict each other: give one of them")
    job = build_job(clip, options, preset=find_preset(preset) if preset else None)
    if job.piped and log_json == Path("-"):
        raise PromptError("-o - and --log-json - would both write to standard output: give the log a file")
    if dry_run:
        _tell_plan(job)
    else:
        _run(job, progress, log_json, resume=resume, overwrite=overwrite)


def _run(job: Job, style: Style, log_json: Path | None, *, resume: bool, overwrite: bool) -> None:
    from x2roto import pipeline
    from x2roto.planning import shot_name

    with reporting(style, shot_name(job), log_json) as report, _stoppable(report) as stoppable:
        on_frame = stoppable if style in (Style.JSON, Style.NONE) else _announced(job, stoppable)
        summary = pipeline.run(job, on_frame=on_frame, resume=resume, overwrite=overwrite)
    sys.stderr.write("\n".join(_told(job, summary)) + "\n")
    if not summary.matched:
        raise SystemExit(Exit.NOTHING_MATCHED)
    if summary.below_min_score:
        raise SystemExit(Exit.BELOW_MIN_SCORE)


def _announced(job: Job, report: Callable[[Progress], None]) -> Callable[[Progress], None]:
    """Says which model it is and how it reads the prompts before the first frame; a run that cannot begin has only
    its error to say."""
    from x2roto.engine.model_folder import notice
    from x2roto.engine.wording import notes_on

    def told() -> Iterator[str]:
        yield notice(job.engine.model)
        yield from notes_on(job.engine.model, job.prompts)

    lines = told()

    def announce(progress: Progress) -> None:
        for line in lines:
            # The stream of the moment: a live display puts what is written there above itself.
            sys.stderr.write(f"{line}\n")
        report(progress)

    return announce


@contextmanager
def _stoppable(report: Callable[[Progress], None]) -> Iterator[Callable[[Progress], None]]:
    """SIGINT and SIGTERM end the run after the frame under way, with 130 and 143; a second one at once.

    Before the first frame there is nothing to finish, and the run ends where it is.
    """
    under_way = False
    caught: list[int] = []

    def stop(number: int, _: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)
        caught.append(number)
        if not under_way:
            raise SystemExit(128 + number)

    def on_frame(progress: Progress) -> None:
        nonlocal under_way
        under_way = True
        report(progress)
        if caught:
            sys.stderr.write(f"x2roto: stopped after frame {progress.number}: run again with --resume to go on\n")
            raise SystemExit(128 + caught[0])

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield on_frame
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _tell_plan(job: Job) -> None:
    """JSON on standard output: what would be cut and written, and what it would take."""
    from x2roto.engine.wording import notes_on
    from x2roto.planning import model_facts, plan

    planned = plan(job)
    info, numbers = planned.info, planned.numbers
    read_as: list[str] = []
    try:
        model = model_facts(job.engine.model)
        read_as = notes_on(job.engine.model, job.prompts)
    except ModelError as error:
        # Where a farm job is written there need be no model.
        model = {"missing": str(error)}
    said = {
        "clip": job.clip.path,
        "width": info.width,
        "height": info.height,
        "rate": str(info.rate),
        "frames": len(numbers) if numbers else None,
        "first": numbers[0] if numbers else info.first_frame,
        "last": numbers[-1] if numbers else None,
        "objects": list(planned.objects),
        "files": {name: list(paths) for name, paths in planned.files.items()},
        "estimates": {"files": planned.file_count, "frames_in_memory_mb": round(planned.memory_bytes(job) / 1e6)},
        "model": model,
        "notes": [*info.notes, *read_as],
        "job": job.to_dict(),
    }
    typer.echo(json.dumps(said, indent=1))


def _told(job: Job, summary: Summary) -> Iterator[str]:
    fresh = summary.frames - summary.resumed
    rate = f"{fresh} in {summary.seconds:.1f} s, {fresh / summary.seconds:.1f} fps" if fresh else "made before"
    yield f"{summary.frames} frames ({rate}): {', '.join(summary.objects)}"
    if not job.piped:
        yield f"written to {job.out}"
    yield from (f"caption: {caption}" for caption in summary.captions)
    held = list(summary.held.items())
    yield from (f"frame {number}: a stand-in was used: {reason}" for number, reason in held[:SHOWN])
    if len(held) > SHOWN:
        yield f"and {len(held) - SHOWN} more frames with a stand-in"
    if not summary.matched:
        yield "nothing matched the prompts on any frame: the mattes are empty; try other words or a box"
    elif below := summary.below_min_score:
        more = ", …" if len(below) > SHOWN else ""
        yield f"{len(below)} frames score below {job.min_score}: {', '.join(map(str, below[:SHOWN]))}{more}"
