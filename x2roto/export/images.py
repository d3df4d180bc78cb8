"""What image formats share: one or more files per frame, encoded on threads, committed one by one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from x2roto.errors import PromptError
from x2roto.export.atomic import committed, sweep
from x2roto.export.naming import Template
from x2roto.export.pool import Pool
from x2roto.export.take import Take
from x2roto.matte import MatteFrame

Save = Callable[[Path], None]


class ImageWriter(ABC):
    """Base of the image writers. A format gives its `kind`, `ext` and `saves`.

    `items`: the object names, or the one name of what a frame's single file holds.
    """

    kind: str
    ext: str

    def __init__(self, template: Template, take: Take, items: tuple[str, ...]) -> None:
        self.take = take
        self.items = items
        self._template = template
        self._pool = Pool()
        self._check(template)

    @abstractmethod
    def saves(self, result: MatteFrame) -> Iterator[tuple[str, Save]]:
        """For each item its name and a call that writes the finished file to a given path; runs on a thread."""

    def path(self, number: int, item: str) -> Path:
        """The file of one item of one frame."""
        where = self._template.path
        padding = self.take.padding
        return where(shot=self.take.shot, kind=self.kind, ext=self.ext, item=item, number=number, padding=padding)

    def paths(self, number: int) -> tuple[Path, ...]:
        """The files of a frame, one per item."""
        return tuple(self.path(number, item) for item in self.items)

    def finished(self, number: int) -> bool:
        """Whether all files of a frame exist; they are never there in part."""
        return all(path.is_file() for path in self.paths(number))

    def write(self, result: MatteFrame) -> None:
        """Queue the files of one frame."""
        for item, save in self.saves(result):
            self._pool.submit(_commit, self.path(result.number, item), save)

    def __enter__(self) -> Self:
        sweep(path for number in self.take.numbers or () for path in self.paths(number))
        self._pool.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.__exit__(kind, error, trace)

    def _check(self, template: Template) -> None:
        numbers = self.take.numbers
        if not template.has("frame") and (numbers is None or len(numbers) > 1):
            raise PromptError(f"format {self.kind!r} writes one image per frame: add {{frame}} to the output name")
        if not template.has("object") and len(self.items) > 1:
            raise PromptError(f"{len(self.items)} objects would share one file: add {{object}} to the output name")
        self.path(0, self.items[0] if self.items else "object")


def _commit(path: Path, save: Save) -> None:
    with committed(path) as temporary:
        save(temporary)
