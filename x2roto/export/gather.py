"""What one-file formats share: pieces made per frame on threads, kept in a work folder, joined at the end."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from x2roto.export.atomic import WorkFolder, sweep
from x2roto.export.pool import Pool
from x2roto.export.take import Take
from x2roto.matte import MatteFrame


class GatheringWriter(ABC):
    """Base of writers whose one file is joined from a piece per frame; a piece is written whole or not at all.

    A killed run leaves its pieces in a hidden folder beside the output; with `Take.resume` they are used again.
    """

    def __init__(self, path: Path, take: Take, suffix: str) -> None:
        self.take = take
        self.path = path
        self._suffix = suffix
        self._complete = take.resume and path.is_file()
        self._work = WorkFolder(path, take.resume)
        self._pool = Pool()
        self._stack = ExitStack()

    @abstractmethod
    def save(self, result: MatteFrame, piece: Path) -> None:
        """Write the piece of one frame; runs on a thread."""

    @abstractmethod
    def join(self, pieces: dict[int, Path]) -> None:
        """Write the output from all pieces, by frame number in order."""

    def paths(self, number: int) -> tuple[Path, ...]:
        """The one file of all frames."""
        return (self.path,)

    def finished(self, number: int) -> bool:
        """Whether the frame's piece, or the whole file, is there."""
        return self._complete or self._piece(number).is_file()

    def write(self, result: MatteFrame) -> None:
        """Queue one frame; nothing to do when its piece is there already."""
        if not self.finished(result.number):
            self._pool.submit(self.save, result, self._piece(result.number))

    def __enter__(self) -> Self:
        if self._complete:
            self._work.discard()
        else:
            sweep([self.path])
            self._stack.enter_context(self._work)
            self._stack.push(self._join)
        self._stack.enter_context(self._pool)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def _piece(self, number: int) -> Path:
        return self._work.path / f"{number}{self._suffix}"

    def _join(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            pieces = {int(path.stem): path for path in self._work.path.glob(f"*{self._suffix}")}
            self.join(dict(sorted(pieces.items())))
