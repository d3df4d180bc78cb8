"""`x2roto models`: list, pull, info, convert and verify models."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from x2roto.errors import ModelError

if TYPE_CHECKING:
    from x2roto.engine.model_folder import ModelHeader
    from x2roto.engine.parity import Boundary

app = typer.Typer(help="List, pull, inspect, convert and verify models.", no_args_is_help=True)


class Dtype(StrEnum):
    """Number formats a model can be stored in."""

    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"
    FLOAT32 = "float32"


AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on standard output.")]
DtypeOption = Annotated[Dtype, typer.Option(help="Number format of the stored parameters.")]
Replace = Annotated[bool, typer.Option("--replace", help="Replace a model of the same name.")]
Model = Annotated[
    str | None,
    typer.Argument(help="Name or folder of a model; without it, $X2ROTO_MODEL, else the released model."),
]


def _print_json(value: object) -> None:
    typer.echo(json.dumps(value, indent=1))


def _print_table(title: str, columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=escape(title), title_justify="left")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(escape(cell) for cell in row))
    Console(stderr=True).print(table)


def _tell(line: str) -> None:
    typer.echo(line, err=True)


@app.command("list")
def list_models(as_json: AsJson = False) -> None:
    """List the models that can be named with --model."""
    from x2roto.engine.model_folder import installed_models

    models = installed_models()
    if as_json:
        _print_json([{"name": m.name, "path": str(m.path), "origin": m.origin} for m in models])
    elif models:
        _print_table("Models", ("Name", "Origin", "Folder"), [(m.name, m.origin, str(m.path)) for m in models])
    else:
        _tell("No model is installed; get the released one with 'x2roto models pull'.")


@app.command()
def pull(
    name: Annotated[str, typer.Option(help="Name to give the model in the cache.")] = "x2sam-4b",
    revision: Annotated[str, typer.Option(help="Branch, tag or commit of hao9610/X2SAM.")] = "main",
    base_revision: Annotated[str, typer.Option(help="Branch, tag or commit of Qwen/Qwen3-VL-4B-Instruct.")] = "main",
    checkpoint_file: Annotated[
        str | None, typer.Option(help="Path of the checkpoint in hao9610/X2SAM, if it holds several.")
    ] = None,
    dtype: DtypeOption = Dtype.BFLOAT16,
    replace: Replace = False,
) -> None:
    """Download the released model and convert it; an interrupted download is continued.

    The revisions are resolved to commits first; the model's header records these.
    """
    from huggingface_hub.utils import logging

    from x2roto.engine import pull as puller

    # Its warnings about each retry would stand beside our one line about the outcome.
    logging.set_verbosity_error()
    folder = puller.pull(
        name=name,
        revision=revision,
        base_revision=base_revision,
        checkpoint_file=checkpoint_file,
        dtype=dtype.value,
        replace=replace,
        tell=_tell,
    )
    _tell(f"{name} is ready in {folder}")


@app.command()
def convert(
    checkpoint: Annotated[Path, typer.Argument(help="X2SAM's pytorch_model.bin, or a .safetensors file.")],
    base: Annotated[Path, typer.Argument(help="Folder of Qwen3-VL-4B-Instruct, or its one weight file.")],
    out: Annotated[Path, typer.Argument(help="Model folder to write; must not exist.")],
    config: Annotated[Path | None, typer.Option(help="JSON file with the network's sizes.")] = None,
    dtype: DtypeOption = Dtype.BFLOAT16,
    lora_alpha: Annotated[float, typer.Option(help="Alpha of the checkpoint's low-rank updates.")] = 256.0,
    replace: Replace = False,
) -> None:
    """Merge files at hand into a model folder."""
    from x2roto.engine.convert import convert as convert_files
    from x2roto.engine.model_folder import read_config, read_json

    header = convert_files(
        checkpoint,
        base,
        out,
        config=read_config(read_json(config), config) if config else None,
        dtype=dtype.value,
        lora_alpha=lora_alpha,
        replace=replace,
    )
    _tell(f"{header.tensors} tensors, {sum(header.parameters.values()):,} parameters in {out}")


@app.command()
def info(model: Model = None, as_json: AsJson = False) -> None:
    """Show a model's config, parts, digests and licences."""
    from x2roto.engine.model_folder import find_model, read_header

    folder = find_model(model)
    header = read_header(folder)
    if as_json:
        _print_json({"path": str(folder), **header.to_dict()})
    else:
        _show(folder, header)


def _show(folder: Path, header: ModelHeader) -> None:
    parameters = {"total": sum(header.parameters.values()), **header.parameters}
    config = header.config.to_dict()
    facts = {
        "name": config.pop("name"),
        "dtype": header.dtype,
        "tensors": header.tensors,
        "x2roto": header.x2roto,
    }
    _print_table(str(folder), ("Fact", "Value"), [(key, str(value)) for key, value in facts.items()])
    _print_table("Parameters", ("Part", "Number"), [(part, f"{n:,}") for part, n in parameters.items()])
    _print_table("Config", ("Part", "Values"), [(part, json.dumps(sizes)) for part, sizes in config.items()])
    _print_table("Files", ("File", "SHA-256"), list(header.files.items()))
    _print_table("Made from", ("File", "SHA-256"), list(header.sources.items()))
    if header.revisions:
        _print_table("Repositories", ("Repository", "Commit"), list(header.revisions.items()))
    _print_table("Licences", ("Part", "Licence", "From"), [(x.part, x.licence, x.source) for x in header.licences])


@app.command()
def verify(
    model: Model = None,
    golden: Annotated[
        Path | None, typer.Option(help="Folder of golden tensors to compare the engine with instead.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check a model's files against their digests, or the engine against golden tensors."""
    if golden is not None:
        _verify_engine(golden, as_json)
    else:
        _verify_files(model, as_json)


def _verify_files(model: str | None, as_json: bool) -> None:
    from x2roto.engine.model_folder import damaged_files, find_model, read_header

    folder = find_model(model)
    names, damaged = list(read_header(folder).files), damaged_files(folder)
    if as_json:
        _print_json({name: name not in damaged for name in names})
    if damaged:
        raise ModelError(f"{', '.join(damaged)} in {folder} missing or damaged; pull or convert the model again")
    _tell(f"{len(names)} files of {folder} have the digests of the header.")


def _verify_engine(golden: Path, as_json: bool) -> None:
    from dataclasses import asdict

    from x2roto.engine.parity import verify as compare

    boundaries = compare(golden)
    if as_json:
        _print_json([asdict(boundary) for boundary in boundaries])
    else:
        _print_table(
            str(golden),
            ("Case", "Boundary", "Max abs", "Max rel", "Tolerance", ""),
            [_row(boundary) for boundary in boundaries],
        )
    failed = sum(not boundary.passed for boundary in boundaries)
    if failed:
        raise ModelError(f"{failed} of {len(boundaries)} boundaries of {golden} are outside their tolerance")
    _tell(f"{len(boundaries)} boundaries are within their tolerance.")


def _row(boundary: Boundary) -> tuple[str, ...]:
    errors = (f"{value:.2e}" for value in (boundary.max_abs, boundary.max_rel, boundary.tolerance))
    return (boundary.case, boundary.boundary, *errors, "passed" if boundary.passed else "FAILED")
