"""All writers of a run as one."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from itertools import takewhile
from pathlib import Path
from types import TracebackType
from typing import Self

from x2roto.export import Take
from x2roto.job import Job
from x2roto.matte import MatteFrame
from x2roto.planning import open_writers, per_frame
from x2roto.timing import Clock


class Outputs:
    """Use it as a context manager: leaving it commits what holds more than a frame. Raises OutputError."""

    def __init__(self, job: Job, take: Take, clock: Clock) -> None:
        """`clock`: counts the time spent waiting for writers."""
        opened = open_writers(job, take)
        self._writers = [writer for _, writer in opened]
        self._images = [writer for spec, writer in opened if per_frame(spec)]
        self._others = [writer for spec, writer in opened if not per_frame(spec)]
        self._first = take.clip.number(take.first_index)
        self._clock = clock
        self._stack = ExitStack()

    def write(self, result: MatteFrame) -> None:
        """Hand a frame to every writer; waits when their queues are full."""
        with self._clock.on("write"):
            for writer in self._writers:
                writer.write(result)

    def finished(self, numbers: Iterable[int]) -> int:
        """How many of the frames, from the first on, every writer has safely on disk."""

        def everywhere(number: int) -> bool:
            return all(writer.finished(number) for writer in self._writers)

        return sum(1 for _ in takewhile(everywhere, numbers))

    def images(self, number: int) -> list[Path]:
        """The files of one frame alone."""
        return [path for writer in self._images for path in writer.paths(number)]

    def others(self) -> list[Path]:
        """The files that hold more than a frame."""
        return sorted({path for writer in self._others for path in writer.paths(self._first)})

    def __enter__(self) -> Self:
        with ExitStack() as opened:
            for writer in self._writers:
                opened.enter_context(writer)
            self._stack = opened.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._clock.on("write"):
            self._stack.__exit__(kind, error, trace)
