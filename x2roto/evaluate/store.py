"""A run on disk: what was run, and per sample its scores and its predictions; written whole or not at all.

    run.json                   what is evaluated and how; another run is not mixed in
    samples/000012.json.gz     scores of sample 12
    predictions/000012.json.gz its masks as run lengths; there before its scores are

Samples are independent, so a killed run goes on with those that are missing, and several processes or machines may
fill one folder or one each.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from x2roto.data.annotations import decode_mask, encode_mask
from x2roto.data.sample import PromptKind, Sample
from x2roto.errors import InputError, OutputError
from x2roto.evaluate.benchmarks import Mode
from x2roto.evaluate.metrics import State
from x2roto.evaluate.predict import Found
from x2roto.export.atomic import write_bytes

SCHEMA = "x2roto.evaluation"
VERSION = 1


@dataclass(frozen=True, slots=True)
class Facts:
    """What is evaluated and how; equal facts give equal scores. `count`: how many samples, from the first.

    `data`: the folder. `model`: the digest of its weights, in numbers of `dtype`. `text_model`:
    what compares phrases. `tokens`: of the longest description.
    """

    benchmark: str
    data: str
    split: str
    prompt: PromptKind | None
    mode: Mode
    count: int
    model: str
    dtype: str
    template: int
    seed: int
    tokens: int
    text_model: str | None = None


@dataclass(frozen=True, slots=True)
class Bad:
    """A frame worth a look. `value`: how well it agrees. `condition`: what is wrong, None for all together."""

    value: float
    frame: int
    condition: int | None


@dataclass(frozen=True, slots=True)
class Scored:
    """One sample. `state`: of a scorer that has seen it alone. `lines`: measures of single frames, by name.

    `frames`: the frames that count, in the order of `lines`. `worst`: the worst few.
    `answered`: whether the model gave any masks. `failures`: why it gave none, a line for each time. `left_out`:
    annotated frames that do not count.
    """

    key: str
    parts: tuple[str, ...]
    state: State
    frames: tuple[int, ...]
    lines: Mapping[str, Sequence[float]]
    worst: tuple[Bad, ...] = ()
    answered: bool = True
    failures: tuple[str, ...] = ()
    left_out: int = 0


@dataclass(slots=True)
class Predictions:
    """What was found on each frame of a sample, by run lengths; in the order of the protocol.

    `answers`: by chunk, the caption and the phrases of the conditions.
    """

    answers: dict[str, dict[str, Any]] = field(default_factory=dict)
    frames: list[dict[str, Any]] = field(default_factory=list)

    def add(self, found: Found) -> None:
        columns = found.condition.tolist(), found.identity.tolist(), found.scores.tolist(), found.masks
        masks = [
            {"condition": condition, "identity": identity, "score": score, "rle": encode_mask(mask)}
            for condition, identity, score, mask in zip(*columns, strict=True)
        ]
        self.frames.append({"frame": found.frame, "chunk": found.chunk, "masks": masks})
        if found.answer.phrases:
            self.answers.setdefault(str(found.chunk), asdict(found.answer))

    def on(self, frame: int) -> list[dict[str, Any]]:
        """The masks of a frame, none where there is none; of one that comes twice, those of the first time."""
        return next((each["masks"] for each in self.frames if each["frame"] == frame), [])

    def mask(self, sample: Sample, frame: int, condition: int | None = None, least: float = 0.0) -> NDArray[np.bool_]:
        """All masks of a condition on a frame together, or of all conditions; those that score at least `least`."""
        joined = np.zeros(sample.size, np.bool_)
        for each in self.on(frame):
            if condition in (None, each["condition"]) and each["score"] >= least:
                joined |= decoded(each, sample)
        return joined


def decoded(mask: Mapping[str, Any], sample: Sample) -> NDArray[np.bool_]:
    """One of the masks of a frame, bool (H, W)."""
    return decode_mask(mask["rle"], sample.size, Path("predictions"), sample.key)


@dataclass(frozen=True, slots=True)
class Store:
    """The folder of a run."""

    folder: Path
    facts: Facts

    @classmethod
    def create(cls, folder: Path, facts: Facts) -> Self:
        """A new run, or the same one again. Raises OutputError when another is there."""
        path = folder / "run.json"
        if path.exists():
            there = _read_facts(path)
            if differing := [name for name, value in asdict(facts).items() if asdict(there)[name] != value]:
                name = differing[0]
                raise OutputError(
                    f"{folder} holds another run, with {name} {asdict(there)[name]!r}, not {asdict(facts)[name]!r}: "
                    "choose another --out",
                    folder,
                )
        else:
            said = {"schema": SCHEMA, "version": VERSION, **asdict(facts)}
            write_bytes(path, json.dumps(said, indent=1).encode())
        return cls(folder, facts)

    @classmethod
    def open(cls, folder: Path) -> Self:
        """A run that is there. Raises InputError when there is none."""
        return cls(folder, _read_facts(folder / "run.json"))

    def has(self, index: int) -> bool:
        """Whether a sample is done."""
        return self._scores(index).is_file()

    def write(self, index: int, scored: Scored, predictions: Predictions) -> None:
        """Keep a sample. Raises OutputError."""
        for path, value in ((self._masks(index), predictions), (self._scores(index), scored)):
            data = json.dumps(asdict(value), separators=(",", ":")).encode()
            # Time stamps would make equal runs differ.
            write_bytes(path, gzip.compress(data, compresslevel=6, mtime=0))

    def scored(self, index: int) -> Scored:
        """The scores of a sample. Raises InputError when they are not there or damaged."""
        path = self._scores(index)
        value = _unpacked(path)
        try:
            lists = {name: tuple(value[name]) for name in ("parts", "frames", "failures")}
            worst = tuple(Bad(**each) for each in value["worst"])
            return Scored(**{**value, **lists, "worst": worst})
        except (TypeError, KeyError) as error:
            raise _damaged(path) from error

    def predictions(self, index: int) -> Predictions:
        """The masks of a sample. Raises InputError when they are not there or damaged."""
        path = self._masks(index)
        try:
            return Predictions(**_unpacked(path))
        except TypeError as error:
            raise _damaged(path) from error

    def _scores(self, index: int) -> Path:
        return self.folder / "samples" / f"{index:06d}.json.gz"

    def _masks(self, index: int) -> Path:
        return self.folder / "predictions" / f"{index:06d}.json.gz"


def _unpacked(path: Path) -> Any:
    try:
        return json.loads(gzip.decompress(path.read_bytes()))
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise _damaged(path) from error


def _damaged(path: Path) -> InputError:
    return InputError(f"{path} is missing or damaged: remove it and run the evaluation again", path)


def _read_facts(path: Path) -> Facts:
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise InputError(
            f"{path.parent} holds no evaluation: give a folder that x2roto evaluate wrote", path
        ) from error
    except (OSError, ValueError) as error:
        raise _damaged(path) from error
    if not isinstance(value, dict) or (value.pop("schema", None), value.pop("version", None)) != (SCHEMA, VERSION):
        raise InputError(f"{path} is of another version of x2roto: evaluate again", path)
    try:
        return Facts(**value)
    except TypeError as error:
        raise _damaged(path) from error


@dataclass(frozen=True, slots=True)
class Whole:
    """All samples of a run, from one folder or several; at least one has each."""

    stores: tuple[Store, ...]

    @classmethod
    def of(cls, stores: Sequence[Store]) -> Self:
        """Raises InputError when the folders are of different runs, or samples are in none of them."""
        facts = stores[0].facts
        for store in stores[1:]:
            if differing := [name for name in asdict(facts) if getattr(store.facts, name) != getattr(facts, name)]:
                raise InputError(
                    f"{store.folder} and {stores[0].folder} are of different runs, their {differing[0]} differs: "
                    "merge the shards of one run",
                    store.folder,
                )
        missing = [index for index in range(facts.count) if not any(store.has(index) for store in stores)]
        if missing:
            raise InputError(
                f"{len(missing)} of {facts.count} samples are not done, the first is {missing[0]}: run the "
                "evaluation again, or give the folders of all shards",
                stores[0].folder,
            )
        return cls(tuple(stores))

    @property
    def facts(self) -> Facts:
        return self.stores[0].facts

    def at(self, index: int) -> Store:
        """The folder that has a sample."""
        return next(store for store in self.stores if store.has(index))

    def scored(self) -> Iterator[Scored]:
        """The scores of all samples in order."""
        for index in range(self.facts.count):
            yield self.at(index).scored(index)


def indices(count: int, shard: tuple[int, int]) -> range:
    """The samples of shard i of n, i from 1."""
    number, of = shard
    return range(number - 1, count, of)
