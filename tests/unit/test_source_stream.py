"""Frames from a pipe: y4m and raw, whole and broken."""

from __future__ import annotations

import io
import os
import threading
from contextlib import suppress
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from tests import media
from x2roto.clip import FrameRange
from x2roto.errors import InputError
from x2roto.source import open_source
from x2roto.source.stream import BUFFERED, RawFormat

RAW = RawFormat(media.WIDTH, media.HEIGHT, Fraction(25))


def raw_bytes(count: int) -> bytes:
    return b"".join(picture.tobytes() for picture in media.pictures(count))


def test_raw_frames_are_exact() -> None:
    with open_source("-", raw=RAW, pipe=io.BytesIO(raw_bytes(40)), start_frame=7) as source:
        assert (source.info.rate, source.info.first_frame, source.info.frame_count) == (25, 7, None)
        for frame in source.frames():
            np.testing.assert_array_equal(frame.rgb, media.picture(frame.index))
            assert frame.pts == Fraction(frame.index, 25)
    assert frame.index == 39


def test_a_real_pipe_is_read_while_it_is_written() -> None:
    reading, writing = os.pipe()

    def write() -> None:
        with suppress(BrokenPipeError), os.fdopen(writing, "wb") as out:
            for picture in media.pictures(60):
                out.write(picture.tobytes())

    writer = threading.Thread(target=write)
    writer.start()
    with os.fdopen(reading, "rb") as pipe, open_source("-", raw=RAW, pipe=pipe) as source:
        assert len(source.sample(4)) == 4
        assert [frame.index for frame in source.frames((FrameRange(2, 50, 3),))] == list(range(2, 50, 3))
    writer.join()


def test_sampling_looks_at_the_first_frames_and_loses_none() -> None:
    with open_source("-", raw=RAW, pipe=io.BytesIO(raw_bytes(BUFFERED + 8))) as source:
        assert [frame.index for frame in source.sample(2)] == [0, BUFFERED - 1]
        assert [frame.index for frame in source.sample(3, (FrameRange(4, 9),))] == [4, 6, 8]
        assert [frame.index for frame in source.frames()] == list(range(BUFFERED + 8))
        with pytest.raises(InputError, match="only once"):
            source.frames()
        with pytest.raises(InputError, match="already being read"):
            source.sample(2)


@pytest.mark.parametrize("kind", ["raw", "y4m"])
def test_a_broken_pipe_is_a_bad_frame(kind: str, tmp_path: Path) -> None:
    y4m = media.write_y4m(tmp_path / "a.y4m", media.pictures(5)).read_bytes()
    data, raw = (raw_bytes(5), RAW) if kind == "raw" else (y4m, None)
    message = "frame 1005 cannot be used: the pipe ended 100 bytes too early"
    with open_source("-", raw=raw, pipe=io.BytesIO(data[:-100])) as source, pytest.raises(InputError, match=message):
        list(source.frames())
    with open_source("-", raw=raw, pipe=io.BytesIO(data[:-100]), on_bad_frame="hold") as source:
        frames = list(source.frames())
    assert [frame.held for frame in frames] == [False] * 4 + [True]
    np.testing.assert_array_equal(frames[4].rgb, frames[3].rgb)


@pytest.mark.parametrize(
    ("raw", "data", "message"),
    [
        (None, b"", "cannot be read|ended before"),
        (None, b"hello, not y4m" * 100, "cannot be read"),
        (RAW, b"", "ended before its first frame|cannot be read"),
        (RAW, b"abc", "ended before its first frame|cannot be read"),
        (RawFormat(0, 8, Fraction(24)), b"x" * 999, "cannot be: check size"),
        (RawFormat(-4, -8, Fraction(24)), b"x" * 999, "cannot be: check size"),
        (RawFormat(8, 8, Fraction(0)), b"x" * 999, "cannot be: check size"),
        (RawFormat(8, 8, Fraction(24), "rgb25"), b"x" * 999, "pixel format 'rgb25' is not known"),
        (RawFormat(10**6, 10**6, Fraction(24)), b"x" * 999, "cannot be: check size"),
    ],
)
def test_what_is_no_stream_is_refused(raw: RawFormat | None, data: bytes, message: str) -> None:
    with pytest.raises(InputError, match=message):
        open_source("-", raw=raw, pipe=io.BytesIO(data))


@pytest.mark.parametrize(
    ("pix_fmt", "expected"),
    [
        ("rgb24", 3 * 15),
        ("gray", 15),
        ("yuv420p", 15 + 2 * 6),
        ("yuv422p10le", 2 * (15 + 18)),
        ("rgba64le", 8 * 15),
        ("nv12", 15 + 2 * 6),
        ("gbrpf32le", 12 * 15),
    ],
)
def test_bytes_of_a_frame(pix_fmt: str, expected: int) -> None:
    assert RawFormat(5, 3, Fraction(24), pix_fmt).frame_bytes == expected
