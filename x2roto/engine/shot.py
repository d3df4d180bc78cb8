"""All that one shot carries from frame to frame, as a value: what is followed, the memory, the identities.

One file holds it, so a run can go on after a stop or on another machine.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from x2roto.engine.assembly import Conditions
from x2roto.engine.identity import Identity, Kind, Target
from x2roto.engine.memory import Memory, MemoryEntry
from x2roto.engine.outlining import Trace
from x2roto.engine.palette import Palette
from x2roto.engine.window import Window
from x2roto.errors import ModelError, OutputError

SCHEMA = 6


@dataclass(frozen=True, slots=True)
class Query:
    """What to follow, all starting on one frame: G sets of conditions that decode as one batch.

    `targets`: per set, one target per condition. `conditions`: batch G. `start`: source index of the frame the
    prompts belong to, None for the first of the range. `captions`: per set, what the model wrote, "" if forced.
    `prompt`: memory maps (G, C, h, w) of the regions that ask, for models that remember them. `windows`: per set,
    where the object it asks for is looked at first, for models that look at windows; () for the whole frame.
    """

    targets: tuple[tuple[Target, ...], ...]
    conditions: Conditions
    start: int | None
    captions: tuple[str, ...]
    prompt: tuple[Tensor, ...] = ()
    windows: tuple[Window, ...] = ()

    @property
    def absent(self) -> bool:
        """Whether it asks for something, and nothing of that is anywhere in the shot."""
        kinds = {target.kind for targets in self.targets for target in targets}
        return kinds == {Kind.ABSENT}


# Per set, per target: the identities followed so far.
Known = tuple[tuple[tuple[Identity, ...], ...], ...]


@dataclass(frozen=True, slots=True)
class ShotState:
    """What changes from frame to frame. `windows`: where each set looks next; `palettes`: the colours of what it
    follows, once they are known; `trace`: what an outliner keeps of all sets. `index`: the frame seen last."""

    memory: Memory
    known: Known
    windows: tuple[Window, ...] = ()
    palettes: tuple[Palette | None, ...] = ()
    trace: Trace | None = None
    index: int | None = None


@dataclass(frozen=True, slots=True)
class Shot:
    """A query and how far it has been followed."""

    query: Query
    state: ShotState


TYPES = {
    kind.__name__: kind
    for kind in (Shot, Query, ShotState, Target, Identity, Memory, MemoryEntry, Conditions, Window, Palette, Trace)
}


def digest(tensors: Mapping[str, Tensor]) -> str:
    """Twelve hexadecimal digits that tell one set of weights from another."""
    sums = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        sums.update(name.encode())
        sums.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
    return sums.hexdigest()[:12]


def save(path: Path, shot: Shot, fingerprint: str) -> None:
    """Write a shot atomically as one safetensors file. Raises OutputError when that fails."""
    tensors: dict[str, Tensor] = {}
    tree = _pack(shot, tensors)
    header = {"x2roto": json.dumps({"schema": SCHEMA, "model": fingerprint, "shot": tree})}
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        save_file(tensors, partial, metadata=header)
        with partial.open("rb") as written:
            os.fsync(written.fileno())
        os.replace(partial, path)
    except (OSError, SafetensorError) as error:
        raise OutputError(f"cannot save the shot to {path}: {error}", path) from error
    finally:
        # Gone after the rename. Where nothing could be written there may be nothing to remove it from.
        with suppress(OSError):
            partial.unlink()


def load(path: Path, fingerprint: str, device: torch.device) -> Shot:
    """The shot a file holds. Raises ModelError when it is missing, damaged or belongs to another model."""
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads(file.metadata()["x2roto"])
            tensors = {name: file.get_tensor(name).to(device) for name in file.keys()}  # noqa: SIM118
        if header["schema"] != SCHEMA:
            raise ModelError(f"{path} has schema {header['schema']}, this version reads {SCHEMA}", path)
        if header["model"] != fingerprint:
            raise ModelError(f"{path} was saved by model {header['model']}, not {fingerprint}: use that one", path)
        shot = _unpack(header["shot"], tensors)
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise ModelError(f"{path} is not a saved shot: {error}", path) from error
    assert isinstance(shot, Shot)
    return shot


def _pack(value: Any, tensors: dict[str, Tensor]) -> Any:
    """A value as JSON, its tensors moved aside under running numbers."""
    if isinstance(value, Tensor):
        name = str(len(tensors))
        tensors[name] = value.detach().cpu().clone().contiguous()
        return {"tensor": name}
    if is_dataclass(value) and not isinstance(value, type):
        return {type(value).__name__: {f.name: _pack(getattr(value, f.name), tensors) for f in fields(value)}}
    if isinstance(value, tuple):
        return [_pack(item, tensors) for item in value]
    return value


def _unpack(tree: Any, tensors: Mapping[str, Tensor]) -> Any:
    if isinstance(tree, list):
        return tuple(_unpack(item, tensors) for item in tree)
    if not isinstance(tree, dict):
        return tree
    ((name, content),) = tree.items()
    if name == "tensor":
        return tensors[content]
    values = {key: _unpack(item, tensors) for key, item in content.items()}
    if "kind" in values:
        values["kind"] = Kind(values["kind"])
    return TYPES[name](**values)
