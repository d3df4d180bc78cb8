"""The mattes a path holds, by object and frame number: one sequence, a folder of them, label maps, layers, movies."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from operator import eq
from pathlib import Path
from typing import Protocol

import numpy as np

from x2roto.clip import FrameRange
from x2roto.errors import InputError
from x2roto.evaluate.alpha import (
    alpha_channel,
    exr_layers,
    grey,
    has_alpha_channel,
    is_exr,
    is_ids,
    read_alpha,
    read_ids,
)
from x2roto.matte import FloatArray
from x2roto.source.sequence import IMAGE_SUFFIXES, ImageSequence, by_member, by_pattern, is_pattern

MOVIE_SUFFIXES = frozenset({".mov", ".mkv", ".mp4", ".webm", ".avi", ".mxf"})
STILL = 1001  # the frame number of a picture without one

_Endings = Mapping[str, list[str]]
_NAME_IT = "say which name means which object"


class Mattes(Protocol):
    """Some objects' mattes; all of them on the same frames."""

    @property
    def where(self) -> str:
        """How a person would write the path, for messages."""

    @property
    def objects(self) -> tuple[str, ...]: ...

    @property
    def numbers(self) -> frozenset[int]:
        """The frame numbers there are."""

    def read(self, number: int) -> dict[str, FloatArray]:
        """The mattes of a frame by object; fastest in ascending order. Raises InputError for an unreadable file."""


@dataclass(frozen=True, slots=True)
class PictureMattes:
    """Numbered pictures with alpha. `layers`: the OpenEXR layer of each object, None for the picture itself."""

    sequence: ImageSequence
    layers: Mapping[str, str | None]

    @property
    def where(self) -> str:
        return self.sequence.pattern

    @property
    def objects(self) -> tuple[str, ...]:
        return tuple(self.layers)

    @property
    def numbers(self) -> frozenset[int]:
        return frozenset(self.sequence.files)

    def read(self, number: int) -> dict[str, FloatArray]:
        path = self.sequence.files[number]
        return {name: read_alpha(path, layer) for name, layer in self.layers.items()}


@dataclass(frozen=True, slots=True)
class LabelMaps:
    """Numbered label maps. `ids`: of each object."""

    sequence: ImageSequence
    ids: Mapping[str, int]

    @property
    def where(self) -> str:
        return self.sequence.pattern

    @property
    def objects(self) -> tuple[str, ...]:
        return tuple(self.ids)

    @property
    def numbers(self) -> frozenset[int]:
        return frozenset(self.sequence.files)

    def read(self, number: int) -> dict[str, FloatArray]:
        labels = read_ids(self.sequence.files[number])
        return {name: (labels == id).astype(np.float32) for name, id in self.ids.items()}

    def knowing(self, objects: Iterable[str]) -> LabelMaps:
        """The same with those of `objects` that are ids but on no frame: empty there, not missing."""
        more = {name: int(name) for name in objects if name.isdigit() and 1 <= int(name) <= 255}
        return replace(self, ids={**more, **self.ids})


class MovieMattes:
    """One movie of one object's mattes: its alpha, or its grey picture."""

    def __init__(self, path: Path, name: str) -> None:
        from x2roto.source.video import VideoSource

        self.path, self.where, self.objects = path, str(path), (name,)
        self._source = VideoSource(path)
        self._first = self._source.info.first_frame
        count = self._source.info.frame_count
        count = sum(1 for _ in self._source.frames()) if count is None else count
        self.numbers = frozenset(range(self._first, self._first + count))
        self._next, self._ahead = self._first, self._frames(self._first)

    def read(self, number: int) -> dict[str, FloatArray]:
        if number != self._next:
            self._ahead = self._frames(number)
        self._next = number + 1
        return {self.objects[0]: next(self._ahead)}

    def _frames(self, number: int) -> Iterator[FloatArray]:
        """The mattes from a frame on."""
        index = number - self._first
        if has_alpha_channel(self._source.info.metadata["pixel_format"]):
            return self._alphas(index)
        return (grey(frame.rgb, self.path) for frame in self._source.frames((FrameRange(index),)))

    def _alphas(self, start: int) -> Iterator[FloatArray]:
        from x2roto.source.libav import orientation_of
        from x2roto.source.timeline import before_zero
        from x2roto.source.video import opened, pictures

        with opened(self.path) as video:
            shown = (picture for picture in pictures(video, self.path) if not before_zero(picture.stamp))
            for index, picture in enumerate(shown):
                if picture.frame is None or picture.problem is not None:
                    raise InputError(f"{self.path}: frame {index + self._first}: {picture.problem}", self.path)
                if index >= start:
                    yield orientation_of(picture.frame).upright(alpha_channel(picture.frame))


@dataclass(frozen=True, slots=True)
class Take:
    """Everything a path holds; `sources`: no two hold the same object."""

    path: Path
    sources: tuple[Mattes, ...]

    @property
    def objects(self) -> tuple[str, ...]:
        return tuple(name for source in self.sources for name in source.objects)

    def source(self, name: str) -> Mattes:
        """What holds an object."""
        return next(source for source in self.sources if name in source.objects)

    def read(self, number: int) -> dict[str, FloatArray]:
        """The mattes of all objects that have this frame."""
        there = (source.read(number) for source in self.sources if number in source.numbers)
        return {name: alpha for mattes in there for name, alpha in mattes.items()}

    def knowing(self, objects: Iterable[str]) -> Take:
        """The same, where label maps have those of `objects` that are ids, if only as nothing."""
        wanted = [name for name in objects if name not in self.objects]
        known = [each.knowing(wanted) if isinstance(each, LabelMaps) else each for each in self.sources]
        return replace(self, sources=tuple(known))


def open_take(path: Path) -> Take:
    """What a path holds: a sequence (pattern or one of its files), a still, a movie, or a folder of sequences, of
    folders with one each, or of movies.

    An object is named by its OpenEXR layer, its id in a label map (a picture with a palette), its file's name before
    the number, or its folder. Raises InputError when there is nothing, or an object twice.
    """
    take = Take(path, tuple(_sources(path)))
    if not take.sources:
        raise InputError(f"{path}: holds no mattes: give a folder with numbered pictures, a pattern or a movie", path)
    if twice := [name for name, count in Counter(take.objects).items() if count > 1]:
        places = " and ".join(source.where for source in take.sources if twice[0] in source.objects)
        raise InputError(
            f"{path}: holds object {twice[0]!r} more than once, in {places}: give one by its pattern", path
        )
    return take


def _sources(path: Path) -> Iterator[Mattes]:
    if path.is_dir():
        yield from _in_folder(path)
    elif path.suffix.lower() in MOVIE_SUFFIXES and path.is_file():
        yield MovieMattes(path, path.stem)
    elif path.is_file():
        yield _mattes(by_member(path) if by_member(path).files else ImageSequence(str(path), {STILL: path}))
    elif is_pattern(path):
        yield _mattes(by_pattern(path))
    else:
        raise InputError(f"{path}: no such file or folder: check the path", path)


def _in_folder(folder: Path) -> Iterator[Mattes]:
    """Sequences, else what each folder inside holds, else movies."""
    entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    if sequences := _sequences(entries):
        yield from map(_mattes, sequences)
    elif folders := [entry for entry in entries if entry.is_dir()]:
        yield from (_mattes(sequence, name=each.name) for each in folders for sequence in _sequences(each.iterdir()))
    else:
        yield from (MovieMattes(each, each.stem) for each in entries if each.suffix.lower() in MOVIE_SUFFIXES)


def _sequences(entries: Iterable[Path]) -> list[ImageSequence]:
    """The sequences of numbered pictures among files of one folder."""
    left = sorted(entry for entry in entries if entry.suffix.lower() in IMAGE_SUFFIXES and entry.is_file())
    found = []
    while left:
        sequence = by_member(left.pop(0))
        members = set(sequence.files.values())
        left = [entry for entry in left if entry not in members]
        found += [sequence] if sequence.files else []
    return found


def _mattes(sequence: ImageSequence, name: str = "") -> Mattes:
    """The mattes of a sequence. `name`: of the object, by default the files' before the number, or their folder's."""
    first = next(iter(sequence.files.values()))
    if is_ids(first):
        ids = sorted(set().union(*(np.unique(read_ids(path)).tolist() for path in sequence.files.values())) - {0})
        return LabelMaps(sequence, {str(id): id for id in ids})
    stem = first.stem if sequence.pattern == str(first) else re.sub(r"[._ -]*\d+$", "", first.stem)
    own = name or stem or first.parent.name
    layers = exr_layers(first) if is_exr(first) else (None,)
    return PictureMattes(sequence, {layer or own: layer for layer in layers})


def paired(wanted: Sequence[str], found: Sequence[str], names: Mapping[str, str]) -> dict[str, str | None]:
    """For each object of the truth the one of the prediction that means the same, None for none.

    `names`: the truth's name of an object of the prediction, where they differ. One object on either side is a pair.
    Else names must be equal, but for leading words that all of a side have, and further leading words of one (a
    shot's name). Raises InputError for a name in `names` that is not there, and when two would do.
    """
    if unknown := [*(set(names) - set(found)), *(set(names.values()) - set(wanted))]:
        raise InputError(f"no object {unknown[0]!r}: the prediction has {listed(found)}, the truth {listed(wanted)}")
    if len(wanted) == len(found) == 1 and not names:
        return {wanted[0]: found[0]}
    pairs: dict[str, str | None] = {truth: prediction for prediction, truth in names.items()}
    ends = _endings(wanted), _endings(found)
    for same in (eq, _same_end):
        left = [name for name in found if name not in pairs.values()]
        for name in wanted:
            matches = [each for each in left if same(ends[0][name], ends[1][each])]
            if name not in pairs and matches:
                pairs[name] = _only(name, matches)
    if twice := [name for name, count in Counter(pairs.values()).items() if count > 1]:
        raise InputError(
            f"{twice[0]!r} of the prediction could be several of the truth's {listed(wanted)}: {_NAME_IT}"
        )
    return {name: pairs.get(name) for name in wanted}


def _only(name: str, matches: Sequence[str]) -> str:
    if len(matches) > 1:
        raise InputError(f"object {name!r} of the truth could be the prediction's {listed(matches)}: {_NAME_IT}")
    return matches[0]


def _endings(names: Sequence[str]) -> _Endings:
    """The words of each name, without those all begin with."""
    words = {name: re.findall(r"[^\W_]+", name.casefold()) or [name] for name in names}
    places = takewhile(lambda place: len(set(place)) == 1, zip(*words.values(), strict=False))
    shared = sum(1 for _ in places) if len(words) > 1 else 0
    return {name: each[min(shared, len(each) - 1) :] for name, each in words.items()}


def _same_end(one: list[str], other: list[str]) -> bool:
    count = min(len(one), len(other))
    return one[-count:] == other[-count:]


def listed(names: Iterable[str]) -> str:
    """Names as a message shows them."""
    return ", ".join(map(repr, names)) or "none"
