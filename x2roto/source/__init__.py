"""Frames of a clip, from whatever holds them: `open_source` picks the reader, all readers are `FrameSource`.

Readers know nothing of prompts, models or outputs. Read first: `mending.py` (what happens to bad frames), then
`video.py` (movies), `sequence.py` (pictures), `stream.py` (pipes). `prefetch` runs any of them ahead on a thread.
"""

from __future__ import annotations

import stat
import sys
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Protocol, Self

from x2roto.clip import ALL_FRAMES, ClipInfo, Frame, FrameRange
from x2roto.errors import InputError
from x2roto.source.mending import OnBadFrame
from x2roto.source.picture import is_animated_webp, reader_of, refuse_raw
from x2roto.source.prefetch import overlapped, prefetch
from x2roto.source.sequence import ImageSequence, SequenceSource, by_folder, by_member, by_pattern, is_pattern

if TYPE_CHECKING:
    from x2roto.source.stream import RawFormat

__all__ = ["FrameSource", "OnBadFrame", "clip_files", "open_source", "overlapped", "prefetch"]

FIRST_MOVIE_FRAME = 1001


class FrameSource(Protocol):
    """A clip that is open. Leaving the context closes it."""

    @property
    def info(self) -> ClipInfo:
        """The clip's facts."""

    @property
    def bad_frames(self) -> dict[int, str]:
        """Why, by source index, for each frame read so far that a held or black frame stands in for."""

    def frames(self, ranges: Sequence[FrameRange] = ALL_FRAMES) -> Iterator[Frame]:
        """The frames of the ranges in order, each once; callable again (a pipe: once).

        Raises `InputError` at a bad frame when the policy is "error".
        """

    def sample(self, count: int, ranges: Sequence[FrameRange] = ALL_FRAMES) -> list[Frame]:
        """`count` of those frames evenly from first to last (a pipe: of its first 32), fewer when fewer are there."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...


def open_source(
    clip: str | Path,
    *,
    on_bad_frame: OnBadFrame = "error",
    start_frame: int | None = None,
    rate: Fraction | None = None,
    stream: int | None = None,
    layer: str | None = None,
    raw: RawFormat | None = None,
    pipe: BinaryIO | None = None,
) -> FrameSource:
    """The reader of a clip: a movie, a sequence (pattern, folder or one of its frames), a still, or `-` (a pipe).

    `start_frame`: the number of index 0; movies and pipes default to 1001, sequences keep their numbers. `rate`
    overrides what the clip states (pictures that state none: 24). `stream`: which video stream of a movie,
    counted from 0. `layer`: an EXR layer or part. `raw`: the pipe holds headerless frames; without it, y4m.
    `pipe`: read instead of standard input. Raises `InputError` when the clip cannot be read.
    """
    first_frame = FIRST_MOVIE_FRAME if start_frame is None else start_frame
    if str(clip) == "-":
        from x2roto.source.stream import StreamSource

        return StreamSource(
            pipe or sys.stdin.buffer, raw=raw, on_bad_frame=on_bad_frame, start_frame=first_frame, rate=rate
        )
    path = Path(clip)
    sequence = _sequence(path)
    if sequence is not None:
        return SequenceSource(sequence, on_bad_frame=on_bad_frame, start_frame=start_frame, rate=rate, layer=layer)
    if layer is not None:
        raise InputError(f"{path}: has no layers, only OpenEXR has: leave out layer {layer!r}", path)
    if _is_animation(path):
        from x2roto.source.animation import AnimationSource

        return AnimationSource(path, on_bad_frame=on_bad_frame, start_frame=first_frame, rate=rate)
    from x2roto.source.video import VideoSource

    return VideoSource(path, stream=stream, on_bad_frame=on_bad_frame, start_frame=first_frame, rate=rate)


def clip_files(clip: str | Path) -> tuple[Path, ...]:
    """The files a clip is read from: its pictures in order, or the one movie; none for a pipe.

    Raises `InputError` when there are none.
    """
    if str(clip) == "-":
        return ()
    sequence = _sequence(Path(clip))
    return (Path(clip),) if sequence is None else tuple(sequence.files.values())


def _sequence(path: Path) -> ImageSequence | None:
    """The pictures a path stands for; None when it is a file of another kind. Raises `InputError` otherwise."""
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        if is_pattern(path):
            return by_pattern(path)
        raise InputError(f"{path}: no such file: check the path", path) from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be opened ({error}): check the path and its permissions", path) from error
    if stat.S_ISDIR(mode):
        return by_folder(path)
    if not stat.S_ISREG(mode):
        raise InputError(f"{path}: is not a file: pipe frames to - instead", path)
    return _pictures(path)


def _pictures(path: Path) -> ImageSequence | None:
    refuse_raw(path)
    try:
        if path.stat().st_size == 0:
            raise InputError(f"{path}: is empty (0 bytes): copy or render it again", path)
        if reader_of(path) is None:
            return None
    except PermissionError as error:
        raise InputError(f"{path}: cannot be opened (permission denied): check its permissions", path) from error
    sequence = by_member(path)
    return sequence if sequence.files else ImageSequence(str(path), {FIRST_MOVIE_FRAME: path})


def _is_animation(path: Path) -> bool:
    with path.open("rb") as file:
        head = file.read(32)
    return head[:4] == b"RIFF" and head[8:12] == b"WEBP" and is_animated_webp(head)
