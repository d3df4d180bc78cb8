"""What every writer of one run shares, and what a writer must do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from x2roto.clip import ClipInfo
from x2roto.export.naming import Template, object_names
from x2roto.export.timecode import timecode_at
from x2roto.matte import MatteFrame, Track


@dataclass(frozen=True, slots=True)
class Take:
    """One run's facts, fixed before the first frame.

    `tracks`: every object of the shot, also those that appear late or never. `numbers`: the frame numbers to
    come, in order; None when the length is unknown. `source`: the clip's file, for its sound. `metadata`: text
    that formats with attributes carry as `x2roto/<key>`. `resume`: keep the finished pieces of movies found
    beside the output; the caller has made sure that they belong to the same job.
    """

    shot: str
    clip: ClipInfo
    tracks: tuple[Track, ...]
    numbers: Sequence[int] | None = None
    source: Path | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    resume: bool = False

    def name(self, track: Track) -> str:
        """The track's name in files and layers: unique in the take, `[a-z][a-z0-9_]*`."""
        return object_names(self.tracks)[track.id]

    @property
    def padding(self) -> int:
        """Digits of a frame number in file names: four, or what the last one needs."""
        return max(4, len(str(self.numbers[-1]))) if self.numbers else 4

    @property
    def first_index(self) -> int:
        """The source index of the first frame; the clip's first when the numbers are not known."""
        return self.numbers[0] - self.clip.first_frame if self.numbers else 0

    @property
    def timecode(self) -> str | None:
        """The timecode of the first frame, None when the clip has none."""
        if self.clip.timecode is None:
            return None
        return str(timecode_at(self.clip.timecode, self.first_index, self.clip.rate))

    @property
    def contiguous(self) -> bool:
        """Whether the frames are known to follow each other without a step or gap."""
        return self.numbers is not None and all(b - a == 1 for a, b in pairwise(self.numbers))


class Writer(Protocol):
    """Takes mattes in order. Use it as a context manager.

    Images are committed one by one as they are finished; a movie, a sheet or a list on leaving the block without
    an error. An error inside the block removes everything unfinished. KeyboardInterrupt and SystemExit stop the
    run in good order: the finished pieces of a movie stay beside it, for `Take.resume`. Raises OutputError when
    something cannot be written, at the latest on leaving the block.
    """

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def write(self, result: MatteFrame) -> None:
        """Take one frame; may return before it is on disk, and waits when too many are under way."""

    def paths(self, number: int) -> tuple[Path, ...]:
        """The final files that hold this frame: its own images, or the movie it ends up in; none for a pipe."""

    def finished(self, number: int) -> bool:
        """Whether this frame is safely on disk, from this run or (`Take.resume`) an earlier one."""


class Exporter(Protocol):
    """The class of a format: called with where, what and how, it gives a `Writer`."""

    Options: type[Any]

    def __call__(self, template: Template, take: Take, options: Any) -> Writer: ...
