"""Presets: named defaults in TOML files, ours and the user's. Defaults < preset < flags; unknown keys are errors."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from x2roto.errors import PromptError
from x2roto.job import PIPE, PIPE_FORMATS, ClipSpec, EngineSpec, ExportSpec, Job, from_values
from x2roto.matte import Refine
from x2roto.prompt import Describe, Kind, Prompt, parse_prompt

HERE = Path(__file__).parent
# Options that are prompts, with what they spell.
PROMPTS: dict[str, Kind] = {
    "text": "text",
    "ask": "question",
    "classes": "classes",
    "box": "box",
    "point": "points",
    "scribble": "scribble",
    "mask": "mask",
}
# Sections of a preset file, each the plain form of a part of the job.
SECTIONS: dict[str, type] = {"clip": ClipSpec, "refine": Refine, "engine": EngineSpec}


@dataclass(frozen=True, slots=True)
class Preset:
    """What a preset states; the rest stays at its defaults. `path`: the file it comes from."""

    name: str
    path: Path | None = None
    description: str = ""
    clip: Mapping[str, Any] = field(default_factory=dict)
    refine: Mapping[str, Any] = field(default_factory=dict)
    engine: Mapping[str, Any] = field(default_factory=dict)
    exports: tuple[ExportSpec, ...] = ()
    min_score: float | None = None
    out: str | None = None


def folders() -> list[Path]:
    """Where presets are looked for: the user's folder first, then ours (in the wheel, or beside the package)."""
    config = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    named = os.environ.get("X2ROTO_PRESETS")
    own = [Path(named)] if named else []
    return [*own, config / "x2roto" / "presets", HERE / "presets", HERE.parent / "presets"]


def preset_files() -> dict[str, Path]:
    """The file of every preset that can be named; the user's hide ours of the same name."""
    found: dict[str, Path] = {}
    for folder in folders():
        for path in sorted(folder.glob("*.toml")):
            found.setdefault(path.stem, path)
    return dict(sorted(found.items()))


def list_presets() -> list[Preset]:
    """Every preset that can be named. Raises PromptError for a wrong one."""
    return [read_preset(path) for path in preset_files().values()]


def find_preset(name: str) -> Preset:
    """The preset of that name, or of that file. Raises PromptError when there is none or it is wrong."""
    if name.endswith(".toml") or os.sep in name:
        return read_preset(Path(name))
    named = preset_files()
    if name not in named:
        raise PromptError(f"no preset is called {name!r}: use one of {', '.join(named)}")
    return read_preset(named[name])


def read_preset(path: Path) -> Preset:
    """A preset file, checked. Raises PromptError for what it must not hold, naming file and key."""
    where = f"preset {path}"
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise PromptError(f"{where} cannot be read: {reason}") from error
    plain = {field.name for field in fields(_Plain)}
    if unknown := sorted(values.keys() - plain - {*SECTIONS, "exports"}):
        known = ", ".join(sorted({*SECTIONS, "exports", *plain}))
        raise PromptError(f"{where}: unknown key {unknown[0]!r}: use one of {known}")
    stated = from_values(_Plain, {key: values[key] for key in plain & values.keys()}, where)
    sections: dict[str, Any] = {
        name: _section(values.get(name, {}), kind, f"{where} [{name}]") for name, kind in SECTIONS.items()
    }
    exports = _exports_of(values.get("exports", []), where)
    return Preset(path.stem, path, exports=exports, **asdict(stated), **sections)


@dataclass(frozen=True, slots=True)
class _Plain:
    """What a preset file states outside its sections."""

    description: str = ""
    min_score: float | None = None
    out: str | None = None


def _section(values: Any, kind: type, where: str) -> Mapping[str, Any]:
    if not isinstance(values, dict) or "path" in values:
        raise PromptError(f"{where}: must be a table of options that names no clip")
    from_values(kind, {**values, "path": PIPE} if kind is ClipSpec else values, where)
    return values


def _exports_of(tables: Any, where: str) -> tuple[ExportSpec, ...]:
    from x2roto.export import EXPORTERS

    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise PromptError(f"{where}: exports must be tables, written [[exports]]")
    if wrong := [table.get("format") for table in tables if table.get("format") not in EXPORTERS]:
        raise PromptError(f"{where}: format {wrong[0]!r} is not one of {', '.join(EXPORTERS)}")
    return tuple(
        ExportSpec(table["format"], tuple((key, str(value)) for key, value in table.items() if key != "format"))
        for table in tables
    )


def build_job(
    clip: str | Path, options: Mapping[str, Any], prompts: Sequence[Prompt] = (), preset: Preset | None = None
) -> Job:
    """The job of a command line, or of `x2roto.segment`: defaults, then the preset, then the options given.

    `options`: by their names on the command line, None where not given; what can be repeated there is one value or
    several. Raises PromptError.
    """
    preset = preset or Preset("")
    given = {key: value for key, value in options.items() if value is not None}
    spelled = _spelled_prompts(given)
    parts = {
        section: {field.name: given.pop(field.name) for field in fields(kind) if field.name in given}
        for section, kind in SECTIONS.items()
    }
    if unknown := sorted(given.keys() - {"output", "format", "shot", "min_score"}):
        raise PromptError(f"unknown option {unknown[0]!r}: the options are those of 'x2roto segment --help'")
    out = given.get("output", preset.out)
    rest: dict[str, Any] = {
        "out": out if out is None else str(out),
        "exports": _exports(given.get("format"), preset, piped=out == PIPE),
        "shot": given.get("shot"),
        "min_score": given.get("min_score", preset.min_score),
    }
    return Job(
        clip=from_values(ClipSpec, {**preset.clip, **parts["clip"], "path": str(clip)}),
        prompts=(*prompts, *spelled),
        refine=from_values(Refine, {**preset.refine, **parts["refine"]}),
        engine=from_values(EngineSpec, {**preset.engine, **parts["engine"]}),
        preset=preset.name or None,
        **{key: value for key, value in rest.items() if value is not None},
    )


def _exports(given: str | Sequence[str] | None, preset: Preset, *, piped: bool) -> tuple[ExportSpec, ...] | None:
    """What is asked for, else what fits a pipe, else what the preset says; None: the job's own default."""
    if given:
        return tuple(ExportSpec.parse(spelling) for spelling in _several(given))
    if piped:
        return (ExportSpec(PIPE_FORMATS[0]),)
    return preset.exports or None


def _spelled_prompts(given: dict[str, Any]) -> tuple[Prompt, ...]:
    """The prompts among the options, which are taken out of them, kind by kind."""
    parsed = [
        parse_prompt(kind, spelling, number)
        for name, kind in PROMPTS.items()
        for number, spelling in enumerate(_several(given.pop(name, ())), start=1)
    ]
    return (*parsed, *((Describe(),) if given.pop("describe", False) else ()))


def _several(value: str | Sequence[str]) -> Sequence[str]:
    return (value,) if isinstance(value, str) else value
