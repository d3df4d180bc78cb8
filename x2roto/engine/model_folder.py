"""Model folders: what one holds, where they are looked for, how one is written. Needs no torch.

A folder holds `x2roto.json` (the header), `model*.safetensors` (the parameters), the tokenizer's files and, for small
models, `lexicon.json`, the words they know.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from importlib.resources import files
from pathlib import Path
from typing import Any

from x2roto import __version__
from x2roto.engine.model.config import ModelConfig
from x2roto.errors import ModelError, OutputError, RotoError

HEADER = "x2roto.json"
SCHEMA = 1
PACKAGED_MODEL = "x2sam-nano"
RELEASED_MODEL = "x2sam-4b"


@dataclass(frozen=True, slots=True)
class Licence:
    """Under which licence one part of a model comes, and from where."""

    part: str
    licence: str
    source: str


@dataclass(frozen=True, slots=True)
class ModelHeader:
    """What `x2roto.json` says about a model.

    `dtype`: of the stored parameters. `parameters`: their number per part. `files`: SHA-256 of every other
    file of the folder. `sources`: SHA-256 of every file it was made from. `revisions`: the commit of
    each repository these came from, where known. `x2roto`: the version that wrote the folder.
    """

    config: ModelConfig
    dtype: str
    tensors: int
    parameters: dict[str, int]
    files: dict[str, str]
    sources: dict[str, str]
    revisions: dict[str, str]
    licences: tuple[Licence, ...]
    x2roto: str = __version__
    schema: int = SCHEMA

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-ready dictionary."""
        return asdict(self)


_HEADER_EXAMPLE: dict[str, Any] = {
    "config": {},
    "dtype": "",
    "tensors": 0,
    "parameters": {},
    "files": {},
    "sources": {},
    "revisions": {},
    "x2roto": "",
}


@dataclass(frozen=True, slots=True)
class InstalledModel:
    """A model folder that can be named. `origin`: "cache" (pulled or converted) or "package" (shipped)."""

    name: str
    path: Path
    origin: str


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file. Raises ModelError when it is missing, unreadable or not an object."""
    try:
        value = json.loads(path.read_bytes())
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror}", path) from error
    except ValueError as error:
        raise ModelError(f"{path} is not valid JSON: {error}", path) from error
    if not isinstance(value, dict):
        raise ModelError(f"{path} holds no JSON object", path)
    return value


def read_config(values: Mapping[str, Any], path: Path) -> ModelConfig:
    """The `ModelConfig` written by `to_dict`, every value's type checked. `path`: named in the ModelError."""
    _check_kind(dict(values), ModelConfig().to_dict(), "config", path)
    return ModelConfig.from_dict(dict(values))


def _check_kind(value: object, example: object, where: str, path: Path) -> None:
    """Raise ModelError unless `value` has the type and keys of `example`; an empty one allows any keys."""
    if isinstance(example, dict):
        if not isinstance(value, dict) or (example and not value.keys() <= example.keys()):
            raise ModelError(f"{path}: {where} must be an object with keys of {sorted(example)}", path)
        for key in value.keys() & example.keys():
            _check_kind(value[key], example[key], f"{where}.{key}", path)
    elif isinstance(example, tuple):
        if not isinstance(value, list) or any(type(item) is not int for item in value):
            raise ModelError(f"{path}: {where} must be a list of whole numbers, not {value!r}", path)
    elif type(value) is not type(example) and not (type(example) is float and type(value) is int):
        raise ModelError(f"{path}: {where} must be of type {type(example).__name__}, not {value!r}", path)


def read_header(folder: Path) -> ModelHeader:
    """The header of a model folder. Raises ModelError when it is missing, damaged or of another schema."""
    path = folder / HEADER
    values = read_json(path)
    if values.get("schema") != SCHEMA:
        raise ModelError(
            f"{path} is of schema {values.get('schema')!r}, not {SCHEMA}; convert the model again",
            path,
        )
    expected = {field.name for field in fields(ModelHeader)}
    if values.keys() != expected:
        raise ModelError(f"{path} must have exactly the keys {sorted(expected)}", path)
    for key, example in _HEADER_EXAMPLE.items():
        _check_kind(values[key], example, key, path)
    try:
        licences = tuple(Licence(**licence) for licence in values["licences"])
    except TypeError as error:
        raise ModelError(f"{path} has damaged licences: {error}", path) from error
    return ModelHeader(**{**values, "config": read_config(values["config"], path), "licences": licences})


def write_header(folder: Path, header: ModelHeader) -> None:
    """Write `x2roto.json` into the folder."""
    (folder / HEADER).write_text(json.dumps(header.to_dict(), indent=1) + "\n")


def cache_folder() -> Path:
    """Where pulled models live: `$X2ROTO_CACHE`, else `x2roto` in `$XDG_CACHE_HOME` or `~/.cache`."""
    if named := os.environ.get("X2ROTO_CACHE"):
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "x2roto"


def installed_models() -> list[InstalledModel]:
    """Every model that can be named, sorted; one in the user cache hides its namesake in the package."""
    found: dict[str, InstalledModel] = {}
    for origin, root in _roots():
        # Where nothing may be read nothing is installed.
        if not os.access(root, os.R_OK | os.X_OK):
            continue
        for header in sorted(root.glob(f"[!.]*/{HEADER}")):
            name = header.parent.name
            found.setdefault(name, InstalledModel(name, header.parent, origin))
    return sorted(found.values(), key=lambda model: model.name)


def _roots() -> list[tuple[str, Path]]:
    return [("cache", cache_folder() / "models"), ("package", Path(str(files("x2roto.engine"))) / "models")]


def find_model(name_or_path: str | Path | None = None) -> Path:
    """The folder of a model given by path or name; None: `$X2ROTO_MODEL`, else the small one if it is there, else the
    released one.

    A name is looked up in the user cache, then in the package. Raises ModelError naming the models there are.
    """
    wanted = str(name_or_path or os.environ.get("X2ROTO_MODEL") or _default_model())
    if (Path(wanted) / HEADER).is_file():
        return Path(wanted)
    if Path(wanted).exists():
        raise ModelError(f"{wanted} is no model folder: it has no {HEADER}; make one with 'x2roto models convert'")
    installed = {model.name: model.path for model in installed_models()}
    if wanted not in installed:
        known = f"installed: {', '.join(installed)}" if installed else "none is installed"
        raise ModelError(f"no model {wanted!r} ({known}); get the released one with 'x2roto models pull'")
    return installed[wanted]


def _default_model() -> str:
    return PACKAGED_MODEL if PACKAGED_MODEL in {model.name for model in installed_models()} else RELEASED_MODEL


def notice(name_or_path: str | Path | None = None) -> str:
    """One line on which model a run uses and, for the small one of the package, how to get the full one.

    Raises ModelError as `find_model` does.
    """
    folder = find_model(name_or_path)
    if folder.name != PACKAGED_MODEL:
        return f"model {folder.name}"
    there = any(model.name == RELEASED_MODEL for model in installed_models())
    full = f"--model {RELEASED_MODEL}" if there else f"x2roto models pull, then --model {RELEASED_MODEL}"
    return f"model {PACKAGED_MODEL}, the small one; the full one: {full}"


def sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal. Raises ModelError when it cannot be read."""
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror}", path) from error


def damaged_files(folder: Path) -> list[str]:
    """Names of the files that are missing or no longer have the digest in the header. Reads every byte."""
    digests = read_header(folder).files
    return [name for name, digest in digests.items() if not _has_digest(folder / name, digest)]


def _has_digest(path: Path, digest: str) -> bool:
    return path.is_file() and sha256(path) == digest


@contextmanager
def new_folder(out: Path, *, replace: bool = False) -> Iterator[Path]:
    """A folder to fill beside `out`; it takes the name `out` on a clean exit, and is removed otherwise.

    With `replace` an older model of that name is kept until then. Raises OutputError when `out` exists and is
    not to be replaced, is no model folder, or cannot be written.
    """
    check_free(out, replace=replace)
    partial = out.with_name(f".{out.name}.{os.getpid()}.partial")
    try:
        partial.mkdir(parents=True)
        yield partial
        _sync(partial)
        _move(partial, out)
    except RotoError:
        raise
    except OSError as error:
        raise OutputError(f"cannot write {out}: {error.strerror or error}", out) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def check_free(out: Path, *, replace: bool = False) -> None:
    """Raise OutputError unless a model can take the name `out`."""
    if out.exists() and not replace:
        raise OutputError(f"{out} exists already; choose another name, or say --replace", out)
    if out.exists() and not (out / HEADER).is_file():
        raise OutputError(f"{out} is no model folder and is not replaced; choose another name", out)


def _move(partial: Path, out: Path) -> None:
    """Give `partial` the name `out`; a folder that had it comes back if that fails, and goes if it works."""
    retired = partial.with_suffix(".old")
    if not out.exists():
        partial.rename(out)
        return
    out.rename(retired)
    try:
        partial.rename(out)
    except OSError:
        retired.rename(out)
        raise
    shutil.rmtree(retired)


def _sync(folder: Path) -> None:
    """Flush a folder and its files to the disk, so that its final name never stands for half a model."""
    for path in (*folder.iterdir(), folder):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
