"""Movies that survive a stop: short segments encoded as frames arrive, joined without re-encoding at the end.

Each segment is a closed movie of up to `SEGMENT` frames in a hidden folder beside the output, committed whole.
Its borders depend on frame numbers only, so after any kind of stop the missing segments are encoded again from
the same frames and the joined movie has the same packets as that of an uninterrupted run.
"""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import av
from av.codec.codec import UnknownCodecError

from x2roto.errors import OutputError
from x2roto.export.atomic import WorkFolder, committed, output_error, sweep
from x2roto.export.colour import Tags, movie_tags
from x2roto.export.pool import WORKERS, Pool
from x2roto.export.take import Take

SEGMENT = 24
# Fixed, since the number of encoder threads shows in some codecs' output.
ENCODER_THREADS = 4

Draw = Callable[[], av.VideoFrame]


@dataclass(frozen=True, slots=True)
class Encoding:
    """How frames become a stream: libav's names. `tag`: the codec's four characters in the container, if not
    the container's usual ones. `tags`: colour, the source's if None. `metadata`: text on the stream.
    """

    codec: str
    container: str
    pix_fmt: str
    options: Mapping[str, str] = field(default_factory=dict)
    tag: str = ""
    tags: Tags | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Drawn:
    number: int
    frame: Future[av.VideoFrame]


class _AbandonedError(Exception):
    """Ends the encoding thread without committing the segment under way."""


class Movie:
    """One movie file. Drawing runs on threads, encoding in order on one; both queues are bounded."""

    def __init__(self, path: Path, take: Take, encoding: Encoding, size: tuple[int, int] | None = None) -> None:
        require_encoder(encoding.codec)
        self.path = path
        self.take = take
        self.tags = encoding.tags or movie_tags(take.clip)
        self._encoding = encoding
        self._width, self._height = size or (take.clip.width, take.clip.height)
        self._complete = take.resume and path.is_file()
        self._work = WorkFolder(path, take.resume)
        self._drawing = Pool()
        self._queue: queue.Queue[_Drawn | _AbandonedError | None] = queue.Queue(2 * WORKERS)
        self._stack = ExitStack()
        self._encoder: Future[None] = Future()

    def finished(self, number: int) -> bool:
        """Whether the frame's segment, or the whole movie, is there."""
        return self._complete or self._segment(number // SEGMENT).is_file()

    def write(self, number: int, draw: Draw) -> None:
        """Queue one frame; nothing to do when it is finished already."""
        if not self.finished(number):
            self._put(_Drawn(number, self._drawing.submit(draw)))

    def __enter__(self) -> Self:
        if self._complete:
            self._work.discard()
        else:
            sweep([self.path])
            self._stack.enter_context(self._work)
            self._stack.push(self._join)
            self._stack.enter_context(self._encoding_thread())
            self._stack.enter_context(self._drawing)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def _segment(self, index: int) -> Path:
        return self._work.path / f"{index}{self.path.suffix}"

    @contextmanager
    def _encoding_thread(self) -> Iterator[None]:
        with ThreadPoolExecutor(1, thread_name_prefix="x2roto-encode") as thread:
            self._encoder = thread.submit(self._encode)
            try:
                yield
                self._put(None)
                self._encoder.result()
            finally:
                if not self._encoder.done():
                    self._abandon()

    def _abandon(self) -> None:
        while not self._queue.empty():
            self._queue.get_nowait()
        self._queue.put(_AbandonedError())

    def _put(self, item: _Drawn | None) -> None:
        while True:
            if self._encoder.done():
                self._encoder.result()
            try:
                return self._queue.put(item, timeout=0.1)
            except queue.Full:
                continue

    def _encode(self) -> None:
        for index, drawn in groupby(self._queued(), key=lambda item: item.number // SEGMENT):
            with committed(self._segment(index)) as temporary, libav_errors(self.path):
                self._encode_segment(temporary, drawn)

    def _queued(self) -> Iterator[_Drawn]:
        while (item := self._queue.get()) is not None:
            if isinstance(item, _AbandonedError):
                raise item
            yield item

    def _encode_segment(self, path: Path, drawn: Iterable[_Drawn]) -> None:
        with av.open(str(path), "w", format=self._encoding.container) as out:
            stream = self._add_stream(out)
            for position, item in enumerate(drawn):
                frame = item.frame.result()
                self.tags.mark(frame)
                frame.pts, frame.time_base = position, 1 / self.take.clip.rate
                out.mux(stream.encode(frame))
            out.mux(stream.encode(None))

    def _add_stream(self, out: Any) -> Any:
        clip, encoding = self.take.clip, self._encoding
        stream = out.add_stream(encoding.codec, rate=clip.rate, options=dict(encoding.options))
        context = stream.codec_context
        context.width, context.height, context.pix_fmt = self._width, self._height, encoding.pix_fmt
        context.time_base = 1 / clip.rate
        context.sample_aspect_ratio = clip.pixel_aspect
        context.thread_type, context.thread_count = "AUTO", ENCODER_THREADS
        self.tags.mark(context)
        self._tag(context)
        stream.metadata.update(encoding.metadata)
        return stream

    def _tag(self, context: Any) -> None:
        if self._encoding.tag:
            context.codec_tag = self._encoding.tag

    def _join(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            found = self._work.path.glob(f"*{self.path.suffix}")
            with committed(self.path) as temporary, libav_errors(self.path):
                self._mux(sorted(found, key=lambda path: int(path.stem)), temporary)

    def _mux(self, segments: list[Path], path: Path) -> None:
        if not segments:
            raise OutputError(f"cannot write {self.path}: a movie needs at least one frame", self.path)
        # Without the flag Matroska files carry a random number, and equal runs would not give equal bytes.
        options = {"fflags": "+bitexact"}
        with av.open(str(path), "w", format=self._encoding.container, options=options) as out:
            stream: Any = None
            for count, (packet, part) in enumerate(_packets(segments)):
                stream = stream or self._add_copy(out, part)
                packet.time_base = 1 / self.take.clip.rate
                packet.pts = packet.dts = count
                packet.duration = 1
                packet.stream = stream
                out.mux(packet)

    def _add_copy(self, out: Any, part: Any) -> Any:
        stream = out.add_stream_from_template(part.streams.video[0])
        context = stream.codec_context
        # Not copied with the rest; the timecode track and the pixel aspect depend on them.
        context.framerate = self.take.clip.rate
        context.sample_aspect_ratio = self.take.clip.pixel_aspect
        self._tag(context)
        stream.time_base = 1 / self.take.clip.rate
        stream.metadata.update(self._encoding.metadata)
        if self.take.timecode is not None:
            stream.metadata["timecode"] = self.take.timecode
        return stream


def _packets(segments: Iterable[Path]) -> Iterator[tuple[Any, Any]]:
    """The packets of all segments in order, each with the container it is from."""
    for segment in segments:
        with av.open(str(segment)) as part:
            for packet in part.demux(part.streams.video[0]):
                if packet.size:
                    yield packet, part


def require_encoder(codec: str) -> None:
    """Raises OutputError when this libav cannot encode `codec`, before any work is done."""
    try:
        av.Codec(codec, "w")
    except UnknownCodecError:
        raise OutputError(
            f"the installed PyAV has no encoder {codec!r}: choose another format or run pip install -U av"
        ) from None


@contextmanager
def libav_errors(path: Path) -> Iterator[None]:
    """libav's errors as an OutputError that names `path`."""
    try:
        yield
    except av.FFmpegError as error:
        raise output_error(path, error.errno, str(error)) from error
