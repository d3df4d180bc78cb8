"""Movies through PyAV: what one is (`probe`), its pictures in display order, and `VideoSource`.

A frame's index is its place in display order from the start of the clip, counting frames that are damaged.
Seeking is used only where the packets alone prove which index it lands on, and is checked by timestamp.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self, cast

import av
from av.codec.context import ThreadType
from av.stream import Disposition

from x2roto.clip import ALL_FRAMES, ClipInfo, Frame, FrameRange, frame_indices, frames_end, spread, within
from x2roto.errors import InputError
from x2roto.source.container import is_fragmented, missing_bytes
from x2roto.source.ledger import NOT_DECODABLE, Ledger, Picture, Stamp, Stamper
from x2roto.source.libav import (
    Converter,
    Orientation,
    colour_of,
    depth_of,
    display_size,
    dtype_of,
    has_alpha,
    orientation_of,
)
from x2roto.source.mending import Mender, OnBadFrame, Pixels, odd_one_out
from x2roto.source.timeline import ONE_TO_ONE, Rate, Timeline, before_zero, rate_of, timeline

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream

MAX_PIXELS = 1 << 27  # 16384 x 8192: larger is a damaged header, not footage
LISTED_BYTES = 256 << 20  # files up to here have all packets listed on opening: well under a second
LISTED_PACKETS = 512  # of larger files, enough to know the rate

# Playlists reach for other files and wait for them, and libav makes pictures of any text: neither is a clip.
_FORMATS = (
    "mov,matroska,avi,mpegts,mpeg,mxf,mxf_opatom,flv,live_flv,asf,nut,ogg,rm,dv,gxf,wtv,ivf,swf,gif,apng,yuv4mpegpipe,"
    "mjpeg,mjpeg_2000,h264,hevc,vvc,obu,av1,mpegvideo,m4v,h263,vc1,dirac,cavsvideo,apv,evc,cine,lxf,bink,smk,flic,"
    "wav,mp3,aac,flac,w64,aiff,ac3,eac3,caf,dts,amr"  # so that sound is refused for having no pictures
)
_SEEKABLE_FORMATS: dict[str, Literal["pts", "dts"]] = {"mov,mp4,m4a,3gp,3g2,mj2": "dts", "matroska,webm": "pts"}

Threads = Literal["AUTO", "NONE"]


@contextmanager
def libav_errors(path: Path) -> Iterator[None]:
    """Errors of libav inside become `InputError` about `path`."""
    try:
        yield
    except (av.FFmpegError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path}: cannot be read as a movie ({_reason(error)}): check or re-export it", path
        ) from error


def _reason(error: Exception) -> str:
    if isinstance(error, av.error.ArgumentError):  # what libav says of a format that is not on the list
        return "not a movie format"
    return error.strerror.lower() if isinstance(error, av.FFmpegError) and error.strerror else str(error)


@contextmanager
def opened(path: Path, stream: int | None = None, threads: Threads = "AUTO") -> Iterator[VideoStream]:
    """The chosen video stream of a file, ready to decode; `stream` counts video streams, covers left out."""
    # The prefix and the whitelist keep names and playlists from reaching anything but this file.
    options = {"protocol_whitelist": "file", "format_whitelist": _FORMATS, "max_pixels": str(MAX_PIXELS)}
    with libav_errors(path), av.open(f"file:{path}", options=options) as container:
        yield prepared(container, path, stream, threads)


def prepared(container: InputContainer, path: Path, stream: int | None, threads: Threads) -> VideoStream:
    """The chosen video stream with its decoder set up; raises `InputError` when there is none to decode."""
    videos = [video for video in container.streams.video if not video.disposition & Disposition.attached_pic]
    if not videos:
        what = "only a cover picture" if container.streams.video else "no video stream"
        raise InputError(f"{path}: has {what}: give a movie with pictures", path)
    if not 0 <= (stream or 0) < len(videos):
        raise InputError(f"{path}: has no video stream {stream}: it has 0 to {len(videos) - 1}", path)
    video = videos[stream or 0]
    if video.codec_context is None:
        raise InputError(f"{path}: no decoder here for its video: transcode it to ProRes or H.264", path)
    video.codec_context.thread_type = threads
    video.codec_context.copy_opaque = True
    return video


def input_of(video: VideoStream) -> InputContainer:
    """The container a stream is read from."""
    return cast("InputContainer", video.container)


def _stamper(video: VideoStream) -> Stamper:
    # Transport streams call a packet damaged where two were joined cleanly; their decoders know better.
    return Stamper(trusting=video.container.format.name != "mpegts")


def pictures(video: VideoStream, path: Path) -> Generator[Picture, None, None]:
    """Every position of the stream from where it stands, in display order, damage marked.

    With threads it ends at the first error of the decoder, since threads blur which packet that is about.
    """
    stamper, ledger = _stamper(video), Ledger()
    threaded = video.codec_context.thread_type != ThreadType.NONE
    for packet in _packets(video, path):
        stamp = stamper.stamp(packet)
        packet.opaque = stamp
        if packet.size and not packet.is_discard:
            ledger.sent(stamp)
        try:
            frames = packet.decode()
        except av.FFmpegError:
            if threaded:
                yield Picture(stamp, None, NOT_DECODABLE)
                return
            ledger.refused(stamp)
            continue
        for frame in frames:
            yield from ledger.shown(cast("Stamp", frame.opaque or stamp), frame)
    yield from ledger.ended()


def _packets(video: VideoStream, path: Path) -> Iterator[av.Packet[VideoStream]]:
    with libav_errors(path):
        yield from input_of(video).demux(video)


def list_packets(video: VideoStream, path: Path, cut: bool) -> Timeline:
    """The stream's packets in time: all of a small file, the first of a large one. `cut`: its end is missing."""
    stamper = _stamper(video)
    packets = _packets(video, path)
    kept = (packet for packet in packets if packet.size and not packet.is_discard)
    limit = None if path.stat().st_size <= LISTED_BYTES else LISTED_PACKETS
    stamps = [stamper.stamp(packet) for packet in islice(kept, limit)]
    return timeline(stamps, complete=not cut and (limit is None or len(stamps) < limit))


@dataclass(frozen=True, slots=True)
class Probe:
    """What opening a movie learns: facts for the user, and how to read it."""

    info: ClipInfo
    first: Pixels
    line: Timeline
    tick: Fraction
    seek_by: Literal["pts", "dts"] | None
    cut: bool


def first_picture(video: VideoStream, path: Path) -> tuple[Stamp, av.VideoFrame]:
    """The first picture to trust; raises `InputError` when there is none."""
    for picture in pictures(video, path):
        if picture.frame is not None and picture.problem is None and not before_zero(picture.stamp):
            return picture.stamp, picture.frame
    raise InputError(f"{path}: no frame of its video can be decoded: check or re-export it", path)


def describe(video: VideoStream, frame: av.VideoFrame, line: Timeline, rate: Fraction | None) -> ClipInfo:
    """The facts of a clip that starts with `frame`; its count and first number are the caller's."""
    found = _rate(video, line)
    stored = video.sample_aspect_ratio or video.codec_context.sample_aspect_ratio or Fraction(1)
    turn = orientation_of(frame)
    width, height = display_size(frame)
    return ClipInfo(
        width=width,
        height=height,
        rate=rate or found.rate,
        frame_count=None,
        first_frame=0,
        pixel_aspect=turn.pixel_aspect(stored if stored > 0 else Fraction(1)),
        depth=depth_of(frame),
        colour=colour_of(frame),
        timecode=_timecode(video),
        has_audio=bool(video.container.streams.audio),
        notes=tuple(_notes(video, frame, line, found, turn)),
        metadata={
            "container": video.container.format.name,
            "codec": video.codec_context.name,
            "pixel_format": frame.format.name,
        },
    )


def _rate(video: VideoStream, line: Timeline) -> Rate:
    tick = video.time_base or Fraction(1, 1000)
    kept = (stamp for stamp in line.stamps if line.settled(stamp) and not stamp.time[0])
    times = [stamp.pts * tick for stamp in kept if stamp.pts is not None]
    return rate_of(times, tick, video.average_rate or video.guessed_rate)


def _timecode(video: VideoStream) -> str | None:
    places = [video.metadata, *(data.metadata for data in video.container.streams.data), video.container.metadata]
    return next((place["timecode"] for place in places if "timecode" in place), None)


def _notes(video: VideoStream, frame: av.VideoFrame, line: Timeline, rate: Rate, turn: Orientation) -> Iterator[str]:
    if not rate.constant:
        yield f"variable frame rate: frames are numbered in display order, {rate.rate} is the mean"
    if rate.rate > 240:
        yield f"frame rate {rate.rate} is not plausible: give the true one"
    if frame.interlaced_frame:
        yield "interlaced: fields are not separated, deinterlace it first"
    if line.negative:
        yield f"{line.negative} frames before time zero are not shown"
    if turn != Orientation():
        yield "turned upright as its display matrix says"
    if has_alpha(frame):
        yield "its alpha channel is not used"
    others = sum(not other.disposition & Disposition.attached_pic for other in video.container.streams.video) - 1
    if others:
        yield f"has {others} more video stream{'s' * (others > 1)}: choose with stream"


def probe(path: Path, stream: int | None, start_frame: int, rate: Fraction | None, missing: int) -> Probe:
    """Open a movie, decode its first good frame and list its packets."""
    with opened(path, stream, "NONE") as video:
        stamp, frame = first_picture(video, path)
        first = Converter().rgb(frame)
    with opened(path, stream) as video:
        line = list_packets(video, path, bool(missing)).from_first(stamp)
        info = describe(video, frame, line, rate)
        count = _frame_count(video, path, line)
        seek_by = _SEEKABLE_FORMATS.get(video.container.format.name)
        notes = (*info.notes, f"cut short: {missing} bytes are missing at its end") if missing else info.notes
        info = replace(info, frame_count=count, first_frame=start_frame, notes=notes)
        exact = line.seekable and video.codec_context.name in ONE_TO_ONE
        return Probe(info, first, line, video.time_base or Fraction(1), seek_by if exact else None, bool(missing))


def _frame_count(video: VideoStream, path: Path, line: Timeline) -> int | None:
    """The number of frames where packets or the main index prove it, else None."""
    if video.codec_context.name not in ONE_TO_ONE:
        return None
    if line.complete:
        return len(line.stamps)
    if video.container.format.name.startswith("mov") and not is_fragmented(path):
        return sum(not entry.is_discard for entry in video.index_entries) - line.negative
    return None


class VideoSource:
    """A movie file. `frames` may be called any number of times, each decodes on its own."""

    def __init__(
        self,
        path: Path,
        *,
        stream: int | None = None,
        on_bad_frame: OnBadFrame = "error",
        start_frame: int = 1001,
        rate: Fraction | None = None,
    ) -> None:
        missing = missing_bytes(path)
        if missing and on_bad_frame == "error":
            raise InputError(
                f"{path}: is cut short, at least {missing} bytes are missing "
                "(--on-bad-frame hold or black reads what is there)",
                path,
            )
        self._path, self._stream = path, stream
        self._probe = probe(path, stream, start_frame, rate, missing)
        self._mender = Mender(on_bad_frame, path, start_frame)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is held open between readings."""

    @property
    def info(self) -> ClipInfo:
        """The clip's facts."""
        return self._probe.info

    @property
    def bad_frames(self) -> dict[int, str]:
        """Why, for each index read so far that a held frame stands in for."""
        return self._mender.bad_frames

    def frames(self, ranges: Sequence[FrameRange] = ALL_FRAMES) -> Iterator[Frame]:
        """The frames of the ranges in order; raises `InputError` at a bad one when the policy is "error"."""
        end = frames_end(ranges)
        start = min((span.start for span in ranges), default=0)
        good: av.VideoFrame | None = None
        converter = Converter()
        with closing(self._positions(max(0, start))) as positions:
            for index, picture in positions:
                if end is not None and index >= end:
                    return
                problem = self._problem(picture)
                if problem is None:
                    good = picture.frame
                if within(ranges, index):
                    rgb = None if good is None else self._rgb(converter, good)
                    yield self._frame(index, picture, problem, rgb)

    def sample(self, count: int, ranges: Sequence[FrameRange] = ALL_FRAMES) -> list[Frame]:
        """`count` frames evenly over the ranges (fewer when they hold fewer), by seeking where that is exact."""
        wanted = spread(count, frame_indices(ranges, self._count))
        if self._sought_cost(wanted) < (wanted[-1] + 1 if wanted else 0):
            return [next(self.frames((FrameRange(index, index + 1),))) for index in wanted]
        return list(self.frames([FrameRange(index, index + 1) for index in wanted]))

    @cached_property
    def _count(self) -> int:
        """Frames in the clip; decodes it once where only that can tell."""
        if self.info.frame_count is not None:
            return self.info.frame_count
        return sum(1 for _ in self._decoded(0))

    def _problem(self, picture: Picture) -> str | None:
        """Why the picture cannot be used, if so: damage, or another size than the clip's."""
        if picture.frame is None or picture.problem is not None:
            return picture.problem
        return odd_one_out(*display_size(picture.frame), dtype_of(picture.frame), self._probe.first)

    def _frame(self, index: int, picture: Picture, problem: str | None, rgb: Pixels | None) -> Frame:
        """The frame of a picture; `rgb`: of the last good one up to here, this one if it has no problem."""
        pts = None if picture.stamp.pts is None else picture.stamp.pts * self._probe.tick
        if problem is None and rgb is not None:
            return Frame(index, pts, rgb)
        return self._mender.stand_in(index, pts, problem or NOT_DECODABLE, lambda: rgb, self._probe.first)

    def _rgb(self, converter: Converter, frame: av.VideoFrame) -> Pixels:
        try:
            return converter.rgb(frame)
        except (av.FFmpegError, ValueError) as error:
            raise InputError(
                f"{self._path}: pixel format {frame.format.name} cannot be converted to RGB: transcode it", self._path
            ) from error

    def _positions(self, start: int) -> Generator[tuple[int, Picture], None, None]:
        """(index, picture) from `start` on, or from earlier where a held frame may need what comes before."""
        if self._mender.policy != "error":
            yield from self._decoded(0)
            return
        reached = start
        for reached, picture in self._sought(start):
            yield reached, picture
            reached += 1
        yield from self._decoded(reached)

    def _sought(self, start: int) -> Iterator[tuple[int, Picture]]:
        """From `start` by seeking, as long as every picture is the one the timeline has there."""
        stamps = self._probe.line.stamps
        key = self._probe.line.key_before(start) if start < len(stamps) else None
        if not key or self._probe.seek_by is None:
            return
        with opened(self._path, self._stream) as video:
            input_of(video).seek(_seek_time(stamps[key], self._probe.seek_by), stream=video)
            index = start
            for picture in pictures(video, self._path):
                if index == start and picture.stamp.pts is not None and picture.stamp.pts < (stamps[start].pts or 0):
                    continue
                if picture.problem or index >= len(stamps) or picture.stamp.pts != stamps[index].pts:
                    return
                yield index, picture
                index += 1

    def _decoded(self, start: int) -> Iterator[tuple[int, Picture]]:
        """From `start` by decoding from the beginning; threads blur which packet failed, so damage is read again
        with one. A cut file's missing end is filled up to its stated count."""
        index = 0
        for index, picture in enumerate(self._whole(), start=1):
            if index > start:
                yield index - 1, picture
        for missing in range(max(index, start), self.info.frame_count or 0):
            yield missing, Picture(Stamp((0, missing), missing, None, None, False, True), None, "the file ends early")

    def _whole(self) -> Iterator[Picture]:
        shown = 0
        with closing(self._pass("AUTO")) as whole:
            for picture in whole:
                if picture.problem:
                    break
                yield picture
                shown += 1
            else:
                return
        yield from islice(self._pass("NONE"), shown, None)

    def _pass(self, threads: Threads) -> Generator[Picture, None, None]:
        first = self._probe.line.stamps[0].time if self._probe.line.stamps else None
        with opened(self._path, self._stream, threads) as video:
            for picture in pictures(video, self._path):
                if self._probe.cut and not self._probe.line.settled(picture.stamp):
                    return  # its place is not known: frames shown before it may be in the missing part
                lead_in = picture.problem and first and picture.stamp.time < first
                if not lead_in and not before_zero(picture.stamp):
                    yield picture

    def _sought_cost(self, wanted: Sequence[int]) -> int:
        """Frames to decode when each wanted one is sought; more than any clip where seeking is not exact."""
        keys = [self._probe.line.key_before(index) for index in wanted if index < len(self._probe.line.stamps)]
        if self._probe.seek_by is None or self._mender.policy != "error" or len(keys) < len(wanted):
            return 1 << 62
        return sum(index - (key or 0) + 1 for index, key in zip(wanted, keys, strict=True))


def _seek_time(key: Stamp, seek_by: Literal["pts", "dts"]) -> int:
    time = key.dts if seek_by == "dts" and key.dts is not None else key.pts
    return time or 0
