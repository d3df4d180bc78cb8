"""What movie formats of mattes share: one movie per object."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

import av

from x2roto.errors import PromptError
from x2roto.export.movie import Encoding, Movie
from x2roto.export.naming import Template
from x2roto.export.take import Take
from x2roto.matte import FloatArray, MatteFrame


class ObjectMovies(ABC):
    """Base of the writers of one movie per object. A format gives `kind`, `ext`, its encoding and `draw`."""

    kind: str
    ext: str

    def __init__(self, template: Template, take: Take, encoding: Encoding) -> None:
        if not template.has("object") and len(take.tracks) > 1:
            raise PromptError(f"{len(take.tracks)} objects would share one movie: add {{object}} to the output name")
        self.take = take
        self._stack = ExitStack()
        self._movies = [
            (
                track,
                Movie(
                    template.path(shot=take.shot, kind=self.kind, ext=self.ext, item=take.name(track)),
                    take,
                    encoding,
                ),
            )
            for track in take.tracks
        ]

    @abstractmethod
    def draw(self, result: MatteFrame, alpha: FloatArray, movie: Movie) -> av.VideoFrame:
        """The frame of one object, in the encoding's pixel format; runs on a thread."""

    def paths(self, number: int) -> tuple[Path, ...]:
        """The movies, one per object."""
        return tuple(movie.path for _, movie in self._movies)

    def finished(self, number: int) -> bool:
        """Whether every movie has the frame."""
        return all(movie.finished(number) for _, movie in self._movies)

    def write(self, result: MatteFrame) -> None:
        """Queue one frame of every movie."""
        for track, movie in self._movies:
            movie.write(result.number, partial(self.draw, result, result.alpha(track), movie))

    def __enter__(self) -> Self:
        with ExitStack() as opened:
            for _, movie in self._movies:
                opened.enter_context(movie)
            self._stack = opened.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)
