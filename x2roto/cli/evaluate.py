"""`x2roto evaluate`: benchmarks on public data sets, and mattes against true ones."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from x2roto.cli import options as o
from x2roto.cli.report import Exit
from x2roto.errors import PromptError

if TYPE_CHECKING:
    from x2roto.data.sample import PromptKind
    from x2roto.evaluate.metrics.grounded import Similarity
    from x2roto.evaluate.runner import Totals, Work
    from x2roto.evaluate.store import Facts, Scored, Store

RUN = "run"
DAVIS = "davis"  # whichever of its layouts the folder has


class BenchmarkGroup(TyperGroup):
    """A group of verbs where what is no verb is the name of a benchmark to run."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in {*self.commands, *ctx.help_option_names}:
            args = [RUN, *args]
        return list(super().parse_args(ctx, args))


app = typer.Typer(
    cls=BenchmarkGroup,
    help="Score a model on a data set: x2roto evaluate BENCHMARK --data DIR. Or score mattes.",
    no_args_is_help=True,
)


class Mode(StrEnum):
    """Which protocol: the data set's own, or that of the paper's numbers."""

    STANDARD = "standard"
    REFERENCE = "reference"


class Region(StrEnum):
    """How regions are drawn."""

    POINT = "point"
    SCRIBBLE = "scribble"
    BOX = "box"
    MASK = "mask"


class Missing(StrEnum):
    """What a matte without prediction is."""

    ERROR = "error"
    ZERO = "zero"


Out = Annotated[Path | None, typer.Option("--out", "-o", help="Folder of the results.", show_default=False)]
Submit = Annotated[bool, typer.Option("--submit", help="Also write predictions in the data set's own format.")]


@app.command(RUN)
def run(
    benchmark: Annotated[str, typer.Argument(help="A name 'x2roto evaluate list' gives.", show_default=False)],
    data: Annotated[Path, typer.Option(metavar="DIR", help="Folder of the data set.", show_default=False)],
    split: Annotated[str | None, typer.Option(help="Part of the data set; default: its first.")] = None,
    prompt: Annotated[Region | None, typer.Option(help="How regions are drawn; default: the first there is.")] = None,
    mode: Annotated[Mode, typer.Option(help="The data set's own protocol, or that of the paper.")] = Mode.STANDARD,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first samples.")] = None,
    shard: Annotated[str, typer.Option(help="I/N: every N-th sample from the I-th on; merge the folders.")] = "1/1",
    out: Out = None,
    submit: Submit = False,
    text_model: Annotated[
        str | None, typer.Option(help="BERT, a folder or bert-base-uncased, for the recall of phrases.")
    ] = None,
    template: Annotated[int, typer.Option(min=0, help="Which of the trained questions is asked.")] = 0,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the points that stand for regions.")] = 0,
    tokens: Annotated[int, typer.Option(min=1, help="Longest description, in tokens.")] = 2048,
    model: o.Model = None,
    device: o.Device = None,
    dtype: o.DtypeOption = None,
) -> None:
    """Run a benchmark. The same command goes on with a run that was stopped."""
    with _installed():
        from x2roto.data.layouts import davis_layout
        from x2roto.device import load
        from x2roto.engine.segmenter import Reading
        from x2roto.evaluate.runner import Choices, evaluate, opened
        from x2roto.job import EngineSpec

    part = _shard(shard)
    benchmark = davis_layout(data) if benchmark == DAVIS else benchmark
    reading = Reading(template=template, limit=tokens, seed=seed)
    region: PromptKind | None = prompt.value if prompt else None
    choices = Choices(benchmark, data, split, region, mode.value, limit, reading, text_model)
    # What is wrong with the data is said before a model is loaded.
    work = opened(choices)
    spec = EngineSpec(model=model, device=device or "auto", dtype=dtype.value if dtype else "auto")
    folder = out or Path("evaluation", f"{benchmark}-{mode.value}")
    similarity = _similarity(text_model)
    store = evaluate(work, load(spec), folder, shard=part, similarity=similarity, on_sample=_progress())
    if part[1] > 1 and not all(store.has(index) for index in range(work.count)):
        typer.echo(f"shard {shard} is done in {folder}: x2roto evaluate merge puts all together", err=True)
        return
    _finish([store], work, folder, similarity, submit=submit)


@app.command()
def merge(
    folders: Annotated[list[Path], typer.Argument(metavar="DIR...", help="Folders of all shards of one run.")],
    out: Out = None,
    submit: Submit = False,
) -> None:
    """Put the shards of a run together; the scores are those of a single run."""
    with _installed():
        from x2roto.evaluate.runner import reopened
        from x2roto.evaluate.store import Store

    stores = [Store.open(folder) for folder in folders]
    facts = stores[0].facts
    _finish(stores, reopened(facts), out or folders[0], _similarity(facts.text_model), submit=submit)


@app.command()
def mattes(
    pred: Annotated[Path, typer.Option(metavar="DIR", help="Mattes to score: a take, a sequence, a movie.")],
    truth: Annotated[Path, typer.Option(metavar="DIR", help="The true ones.")],
    plate: Annotated[str | None, typer.Option(metavar="CLIP", help="The clip, to draw the worst frames on.")] = None,
    offset: Annotated[int, typer.Option(help="Added to the prediction's frame numbers.")] = 0,
    missing: Annotated[Missing, typer.Option(help="What no prediction is: an error, or empty.")] = Missing.ERROR,
    name: Annotated[
        list[str] | None, typer.Option(help="PREDICTED=TRUE: names of one object, where they differ.")
    ] = None,
    out: Out = None,
) -> None:
    """Score mattes, ours or another tool's, against true ones."""
    from x2roto.evaluate.mattes import compare, matte_report
    from x2roto.evaluate.report import write_report

    result = compare(pred, truth, offset=offset, missing=missing.value, names=_names(name or []))
    page = write_report(matte_report(result, plate), out or Path("evaluation", "mattes"))
    for key, value in result.overall.items():
        typer.echo(f"{key} {value:.4g}")
    typer.echo(f"report: {page}", err=True)


@app.command("list")
def list_benchmarks() -> None:
    """Name the benchmarks, their splits and kinds of regions. "davis" is the one of its layouts a folder has."""
    from x2roto.data.layouts import layout_named
    from x2roto.evaluate.benchmarks import BENCHMARKS

    for name, benchmark in BENCHMARKS.items():
        layout = layout_named(name)
        regions = f"; regions: {', '.join(layout.prompts)}" if layout.prompts else ""
        typer.echo(f"{name:16} {layout.title} ({benchmark.kind}; splits: {', '.join(layout.splits)}{regions})")


@contextmanager
def _installed() -> Iterator[None]:
    """Says what to install where a package is missing."""
    try:
        yield
    except ModuleNotFoundError as error:
        typer.echo(f"x2roto: evaluation needs {error.name}: pip install 'x2roto[evaluate]'", err=True)
        raise typer.Exit(1) from error


def _shard(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d+)/(\d+)", text)
    if not found or not 1 <= int(found[1]) <= int(found[2]):
        raise PromptError(f"cannot read the shard {text!r}: write I/N, I from 1 to N, for example 2/8")
    return int(found[1]), int(found[2])


def _names(pairs: list[str]) -> dict[str, str]:
    wrong = [pair for pair in pairs if pair.count("=") != 1]
    if wrong:
        raise PromptError(f"cannot read the names {wrong[0]!r}: write PREDICTED=TRUE")
    return dict(pair.split("=") for pair in pairs)


def _similarity(text_model: str | None) -> Similarity | None:
    from x2roto.evaluate.metrics.similarity import bert_similarity

    return bert_similarity(text_model) if text_model else None


def _progress(lines: int = 100) -> Callable[[int, int, Scored], None]:
    """A line on stderr for every sample, of many about `lines`, and for each without an answer."""

    def tell(done: int, count: int, scored: Scored) -> None:
        for reason in scored.failures:
            typer.echo(f"{scored.key}: no answer: {reason}", err=True)
        if done == count or done % max(1, count // lines) == 0:
            typer.echo(f"{done}/{count} {scored.key}", err=True)

    return tell


def _finish(stores: list[Store], work: Work, folder: Path, similarity: Similarity | None, *, submit: bool) -> None:
    """The scores on standard output, and the report."""
    from x2roto.evaluate.report import write_report
    from x2roto.evaluate.runner import total
    from x2roto.evaluate.store import Whole
    from x2roto.evaluate.submission import write_submission
    from x2roto.evaluate.summary import run_report

    whole = Whole.of(stores)
    totals = total(whole, work, similarity)
    for part, scores in totals.scores.items():
        for name, value in scores.items():
            typer.echo(f"{f'{part}: ' if part else ''}{name} {100 * value:.2f}")
    for name, reason in totals.absent.items():
        typer.echo(f"{name} is missing: {reason}", err=True)
    typer.echo(_told(whole.facts, totals), err=True)
    typer.echo(f"report: {write_report(run_report(whole, work, totals), folder)}", err=True)
    if submit:
        write_submission(whole, work, folder / "submission")
    if not totals.answered:
        raise SystemExit(Exit.NOTHING_MATCHED)


def _told(facts: Facts, totals: Totals) -> str:
    how = "left out" if facts.mode == "reference" else "scored as empty"
    missing = f", {len(totals.failures)} times no answer ({how})" if totals.failures else ""
    return f"{facts.benchmark}, {facts.mode} mode: {facts.count} samples, {totals.frames} frames{missing}"
