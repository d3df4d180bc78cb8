"""Frames in on standard input, mattes out on standard output, and nothing else there."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
from PIL import Image

from tests.e2e.conftest import COUNT, Run
from tests.media import HEIGHT, WIDTH, pictures, write_y4m

BOX = ("--box", "4,8,30,30")
HEADER = f"YUV4MPEG2 W{WIDTH} H{HEIGHT} F24:1 Ip A1:1 Cmono XCOLORRANGE=FULL\n".encode()
FFMPEG = imageio_ffmpeg.get_ffmpeg_exe()


def y4m_frames(stream: bytes) -> list[bytes]:
    """The frames of a grey stream, which holds nothing else."""
    assert stream.startswith(HEADER)
    body, size = stream[len(HEADER) :], len(b"FRAME\n") + WIDTH * HEIGHT
    assert len(body) % size == 0
    pieces = [body[at : at + size] for at in range(0, len(body), size)]
    assert all(piece.startswith(b"FRAME\n") for piece in pieces)
    return [piece[len(b"FRAME\n") :] for piece in pieces]


@pytest.fixture
def stream(tmp_path: Path) -> bytes:
    path = write_y4m(tmp_path / "clip.y4m", pictures(COUNT))
    data = path.read_bytes()
    path.unlink()
    return data


def test_y4m_in_and_out(cut: Run, stream: bytes, tmp_path: Path) -> None:
    outcome = cut(*BOX, "-o", "-", clip="-", stdin=stream)
    assert outcome.code == 0
    assert len(y4m_frames(outcome.out)) == COUNT
    assert list(tmp_path.iterdir()) == []


def test_a_pipe_carries_what_files_hold(cut: Run, stream: bytes, tmp_path: Path) -> None:
    frames = y4m_frames(cut(*BOX, "-o", "-", clip="-", stdin=stream).out)
    assert cut(*BOX, "-o", "out", "-f", "png:depth=8", clip="-", stdin=stream).code == 0
    for number, frame in enumerate(frames, start=1001):
        written = np.asarray(Image.open(tmp_path / "out" / f"stdin_box1.{number}.png"))
        assert written.tobytes() == frame


def test_a_range_of_a_pipe(cut: Run, stream: bytes) -> None:
    whole = y4m_frames(cut(*BOX, "-o", "-", clip="-", stdin=stream).out)
    part = y4m_frames(cut(*BOX, "-o", "-", "--frames", "1001-1009x4", clip="-", stdin=stream).out)
    assert len(part) == 3
    assert len(whole) == COUNT


def test_raw_frames_in_and_out(cut: Run) -> None:
    raw = b"".join(rgb.tobytes() for rgb in pictures(5))
    stated = ("--size", f"{WIDTH}x{HEIGHT}", "--rate", "24000/1001", "--pix-fmt", "rgb24")
    outcome = cut(*BOX, *stated, "-o", "-", "-f", "raw:depth=16", clip="-", stdin=raw)
    assert outcome.code == 0
    assert len(outcome.out) == 5 * WIDTH * HEIGHT * 2


def test_a_movie_into_a_pipe_leaves_nothing_behind(cut: Run, tmp_path: Path) -> None:
    """Also with a prompt in the middle, whose way back needs a folder."""
    outcome = cut("--box", "4,8,30,30@1007", "-o", "-")
    assert outcome.code == 0
    assert len(y4m_frames(outcome.out)) == COUNT
    assert list(tmp_path.iterdir()) == []


def test_a_range_too_late_in_a_pipe(cut: Run, tmp_path: Path) -> None:
    stream = write_y4m(tmp_path / "long.y4m", pictures(40)).read_bytes()
    outcome = cut(*BOX, "-o", "-", "--frames", "1036-1040", clip="-", stdin=stream)
    outcome.assert_refused(2, "begin too late in the pipe")


def processes(model: Path, clip: Path, *last: Sequence[str]) -> list[subprocess.Popen[bytes]]:
    """`ffmpeg | x2roto segment | last …`, connected."""
    commands: list[Sequence[str]] = [
        [FFMPEG, "-v", "error", "-i", str(clip), "-pix_fmt", "yuv444p", "-f", "yuv4mpegpipe", "-"],
        [
            *(sys.executable, "-m", "x2roto", "segment", "-", *BOX, "--presence", "0", "--progress", "none"),
            *("--model", str(model), "-o", "-"),
        ],
        *last,
    ]
    started: list[subprocess.Popen[bytes]] = []
    for command in commands:
        before = started[-1].stdout if started else subprocess.DEVNULL
        started.append(subprocess.Popen(command, stdin=before, stdout=subprocess.PIPE, stderr=subprocess.PIPE))
        if len(started) > 1 and started[-2].stdout:
            started[-2].stdout.close()
    return started


@pytest.mark.slow
def test_between_two_ffmpegs(model: Path, media: Path, tmp_path: Path) -> None:
    check = [FFMPEG, "-v", "error", "-f", "yuv4mpegpipe", "-i", "-", "-pix_fmt", "gray", "-f", "rawvideo", "-"]
    reader, middle, writer = processes(model, media / "clip.mp4", check)
    raw, complaints = writer.communicate()
    said = middle.stderr.read() if middle.stderr else b""
    assert (reader.wait(), middle.wait(), writer.returncode) == (0, 0, 0), (said, complaints)
    assert complaints == b""
    assert len(raw) == COUNT * WIDTH * HEIGHT
    for each in (reader, middle):
        assert each.stderr is not None
        each.stderr.close()


@pytest.mark.slow
def test_a_reader_that_goes_away(model: Path, media: Path) -> None:
    reader, middle, head = processes(model, media / "clip.mp4", ["head", "-c", "10"])
    assert head.communicate()[0] == HEADER[:10]
    assert middle.stderr is not None
    said = middle.stderr.read().decode()
    assert middle.wait() == 7
    assert said == "x2roto: cannot write to standard output: Broken pipe; is the reader still there?\n"
    reader.wait()
    for each in (reader, middle):
        assert each.stderr is not None
        each.stderr.close()
