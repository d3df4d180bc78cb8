"""Everything one run needs, frozen: what to cut, out of which clip, how, into what. Defaults < preset < flags.

A job is plain data. It is saved beside its output, so a take can be repeated, and two jobs with the same digest
make the same frames. Imports neither torch nor av.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from fractions import Fraction
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from x2roto.errors import PromptError
from x2roto.matte import Refine
from x2roto.prompt import MaskPrompt, Prompt

OnBadFrame = Literal["error", "hold", "black"]
Dtype = Literal["auto", "float32", "bfloat16", "float16"]
Quality = Literal["exact", "fast", "draft"]

# In place of a path: standard input, standard output.
PIPE = "-"
PIPE_FORMATS = ("y4m", "raw")


@dataclass(frozen=True, slots=True)
class ClipSpec:
    """The clip and which of its frames. `frames`: in the artist's numbers; `source_frames`: 0-based decode order.

    `size` ("1920x1080"), `rate`, `pix_fmt`: of headerless frames on standard input; `rate` also overrides what a
    sequence states. `layer`: of OpenEXR files. `stream`: which video stream.
    """

    path: str
    frames: str | None = None
    source_frames: str | None = None
    start_frame: int | None = None
    on_bad_frame: OnBadFrame = "error"
    stream: int | None = None
    layer: str | None = None
    size: str | None = None
    rate: str | None = None
    pix_fmt: str | None = None

    def __post_init__(self) -> None:
        if self.frames and self.source_frames:
            raise PromptError("--frames and --source-frames contradict each other: give one of them")
        if self.size and self.path != PIPE:
            raise PromptError("--size describes frames on standard input: use it with the clip '-'")
        if (self.size is None) != (self.pix_fmt is None):
            raise PromptError("headerless frames need --size and --pix-fmt together (and --rate)")
        if self.size and not self.rate:
            raise PromptError("headerless frames need --rate, for example --rate 24")
        if self.stream is not None and self.stream < 0:
            raise PromptError(f"--stream is {self.stream}: streams count from 0")
        self.exact_rate()
        self.frame_size()

    def exact_rate(self) -> Fraction | None:
        """The rate as a fraction. Raises PromptError when it is none."""
        if self.rate is None:
            return None
        try:
            rate = Fraction(self.rate)
        except (ValueError, ZeroDivisionError):
            rate = Fraction(0)
        if rate <= 0:
            raise PromptError(f"--rate {self.rate!r} is not understood: write 24, 23.976 or 24000/1001")
        return rate

    def frame_size(self) -> tuple[int, int] | None:
        """Width and height of headerless frames. Raises PromptError when `size` is none."""
        if self.size is None:
            return None
        width, _, height = self.size.lower().partition("x")
        if not (width.isdecimal() and height.isdecimal() and int(width) and int(height)):
            raise PromptError(f"--size {self.size!r} is not understood: write 1920x1080")
        return int(width), int(height)


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """How the network runs. `model`: name or folder. `chunk`: frames encoded at once. `memory`: past frames
    remembered, None for the model's own number. `max_vram`: GB of device memory to stay below. `presence`: least
    score of an object that is there. `instances`: mattes per thing class told apart, 0 for one matte per class.
    `quality`: what is given up for speed (`engine/quality.py`).
    """

    model: str | None = None
    device: str = "auto"
    dtype: Dtype = "auto"
    chunk: int = 8
    memory: int | None = None
    max_vram: float | None = None
    seed: int = 0
    presence: float = 0.5
    instances: int = 0
    quality: Quality = "exact"

    def __post_init__(self) -> None:
        if self.chunk < 1:
            raise PromptError(f"--chunk is {self.chunk}: at least 1 frame must be encoded at once")
        if self.memory is not None and self.memory < 1:
            raise PromptError(f"--memory is {self.memory}: at least 1 past frame must be remembered")
        if self.max_vram is not None and self.max_vram <= 0:
            raise PromptError(f"--max-vram is {self.max_vram}: give GB above 0")
        if not 0 <= self.presence <= 1:
            raise PromptError(f"--presence is {self.presence}: it must lie in 0 to 1")
        if self.instances < 0:
            raise PromptError(f"--instances is {self.instances}: it must be 0 or more")
        if not 0 <= self.seed < 2**63:
            raise PromptError(f"--seed is {self.seed}: it must lie in 0 to 2^63 - 1")


@dataclass(frozen=True, slots=True)
class ExportSpec:
    """One output format and its options as written, checked by the exporter."""

    format: str
    options: tuple[tuple[str, str], ...] = ()

    @classmethod
    def parse(cls, spelling: str) -> ExportSpec:
        """`exr` or `exr:compression=dwaa,layout=single`. Raises PromptError."""
        name, _, rest = spelling.partition(":")
        pairs = [part.partition("=") for part in rest.split(",")] if rest else []
        if not name or not all(key and equals for key, equals, _ in pairs):
            raise PromptError(
                f"format {spelling!r} is not understood: write exr or exr:compression=dwaa,layout=single"
            )
        return cls(name, tuple((key.strip(), value.strip()) for key, _, value in pairs))


@dataclass(frozen=True, slots=True)
class Job:
    """One run. `out`: folder or name template, `-` for standard output. `shot`: its name in files, None for the
    clip's own. `min_score`: frames whose best object scores less are reported. `preset`: the one it came from.
    """

    clip: ClipSpec
    prompts: tuple[Prompt, ...]
    out: str = "."
    exports: tuple[ExportSpec, ...] = (ExportSpec("png"),)
    refine: Refine = field(default_factory=Refine)
    engine: EngineSpec = field(default_factory=EngineSpec)
    shot: str | None = None
    min_score: float = 0.0
    preset: str | None = None

    def __post_init__(self) -> None:
        formats = [export.format for export in self.exports]
        if not formats:
            raise PromptError("no output format: give at least one --format")
        if len(set(self.exports)) < len(formats):
            raise PromptError("the same format is asked for twice: drop one --format")
        if not 0 <= self.min_score <= 1:
            raise PromptError(f"--min-score is {self.min_score}: it must lie in 0 to 1")
        if self.piped and (len(formats) > 1 or formats[0] not in PIPE_FORMATS):
            raise PromptError(f"a pipe takes one format: use -o - with --format {' or '.join(PIPE_FORMATS)}")
        if not self.piped and (pipe_only := [name for name in formats if name in PIPE_FORMATS]):
            raise PromptError(f"format {pipe_only[0]!r} goes to a pipe: use -o -")

    @property
    def piped(self) -> bool:
        """Whether the mattes go to standard output."""
        return self.out == PIPE

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; each prompt carries its kind."""
        values = asdict(replace(self, prompts=()))
        values["prompts"] = [_prompt_dict(prompt) for prompt in self.prompts]
        return values

    def digest(self) -> str:
        """Twelve hexadecimal digits; equal for jobs that make the same frames, wherever they go."""
        made = {key: value for key, value in self.to_dict().items() if key not in ("out", "preset")}
        return hashlib.sha256(json.dumps(made, sort_keys=True).encode()).hexdigest()[:12]


def _prompt_dict(prompt: Prompt) -> dict[str, Any]:
    values = {f.name: getattr(prompt, f.name) for f in fields(prompt)}
    if isinstance(prompt, MaskPrompt):
        mask = prompt.mask
        values["mask"] = str(mask) if isinstance(mask, Path) else hashlib.sha256(mask.tobytes()).hexdigest()
    return {"kind": type(prompt).__name__.lower(), **values}


def from_values(kind: type[Any], values: Mapping[str, Any], where: str = "") -> Any:
    """A dataclass from plain values. Raises PromptError for an unknown key or a value of the wrong kind, after
    `where`: what the values are from.
    """
    hints = get_type_hints(kind)
    try:
        if unknown := sorted(values.keys() - hints.keys()):
            raise PromptError(f"unknown key {unknown[0]!r}: use one of {', '.join(hints)}")
        for key, value in values.items():
            _check(key, value, hints[key])
        return kind(**values)
    except ValueError as error:
        raise PromptError(f"{where}: {error}" if where else str(error)) from error


def _check(key: str, value: Any, hint: Any) -> None:
    choices = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    if not any(_fits(value, choice) for choice in choices):
        wanted = [_spelled(choice) for choice in choices if choice is not NoneType]
        raise PromptError(f"{key} is {value!r}: use {' or '.join(wanted)}")


def _fits(value: Any, choice: Any) -> bool:
    if get_origin(choice) is Literal:
        return value in get_args(choice)
    if choice is float:
        return type(value) in (int, float) and math.isfinite(value)
    return type(value) is choice


def _spelled(choice: Any) -> str:
    if get_origin(choice) is Literal:
        return ", ".join(map(str, get_args(choice)))
    return {bool: "true or false", int: "a whole number", float: "a number", str: "text"}.get(choice, str(choice))
