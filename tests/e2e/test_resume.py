"""Runs that are killed, stopped or run out of disk, and gone on with: the same files as without the stop."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import av
import pytest
import torch

from tests.media import pictures, write_movie
from x2roto.cli.app import main
from x2roto.pipeline import Progress, segment

COUNT = 72
MOMENTS = int(os.environ.get("X2ROTO_TEST_KILLS", "6"))
FORMATS = ("-f", "png", "-f", "exr", "-f", "prores")
OPTIONS = ("--box", "4,8,30,30", "--presence", "0", "--smooth", "0.3", "--progress", "json")
# Started once with everything heavy loaded; each run is a fork of it, and so a process that can be killed.
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["x2roto.cutter", "x2roto.export.exr", "x2roto.export.prores", "x2roto.source.video"])


def command(argv: Sequence[str], log: Path) -> None:
    """Body of a run's process: the command line with its words in a file."""
    with log.open("w") as words:
        os.dup2(words.fileno(), sys.stderr.fileno())
        sys.argv = ["x2roto", "segment", *argv]
        main()


@dataclass(frozen=True, slots=True)
class Shot:
    """A clip and how it is cut."""

    clip: Path
    model: Path

    def start(self, out: Path, *more: str) -> BaseProcess:
        argv = [str(self.clip), *OPTIONS, *FORMATS, "--model", str(self.model), "-o", str(out), *more]
        process = FORKS.Process(target=command, args=(argv, out.with_suffix(".log")))
        process.start()
        return process

    def run(self, out: Path, *more: str) -> int:
        process = self.start(out, *more)
        process.join()
        assert process.exitcode is not None
        return process.exitcode


@pytest.fixture(scope="module")
def shot(tmp_path_factory: pytest.TempPathFactory, model: Path) -> Shot:
    clip = tmp_path_factory.mktemp("resume") / "clip.mp4"
    return Shot(write_movie(clip, pictures(COUNT), options={"g": "12"}), model)


@dataclass(frozen=True, slots=True)
class Take:
    """What must be equal: digests of frame files by name, of each decoded frame of the movie, facts of the record."""

    files: dict[str, str]
    movie: list[str]
    frames: list[dict[str, object]]

    @classmethod
    def of(cls, out: Path) -> Take:
        """Also checks that nothing unfinished is left."""
        assert sorted(path.name for path in out.iterdir() if path.name.startswith(".")) == []
        record = json.loads((out / "x2roto.json").read_text())
        assert record["status"] == "complete"
        frames = [{key: value for key, value in frame.items() if key != "ms"} for frame in record["frames"]]
        return cls(digests(out), movie_frames(out / "clip_box1.mov"), frames)


def digests(out: Path) -> dict[str, str]:
    images = (path for path in out.iterdir() if path.suffix in (".png", ".exr") and path.name[0] != ".")
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in images}


def movie_frames(path: Path) -> list[str]:
    with av.open(str(path)) as movie:
        return [hashlib.sha256(b"".join(map(bytes, frame.planes))).hexdigest() for frame in movie.decode(video=0)]


@dataclass(frozen=True, slots=True)
class Uninterrupted:
    take: Take
    seconds: float


@pytest.fixture(scope="module")
def whole(shot: Shot, tmp_path_factory: pytest.TempPathFactory) -> Uninterrupted:
    """The take of a run that nothing stops, and how long it took."""
    out = tmp_path_factory.mktemp("whole") / "out"
    shot.run(out.with_name("warm-up"), "--frames", "1001-1002")
    began = time.monotonic()
    assert shot.run(out) == 0
    take = Take.of(out)
    assert len(take.files) == 2 * COUNT
    assert len(set(take.movie)) == len(take.movie) == COUNT
    return Uninterrupted(take, time.monotonic() - began)


@pytest.mark.slow
@pytest.mark.parametrize("moment", range(MOMENTS))
def test_a_killed_run_ends_with_the_same_bytes(moment: int, shot: Shot, whole: Uninterrupted, tmp_path: Path) -> None:
    chance = random.Random(moment)
    out = tmp_path / "out"
    for more in ((), ("--resume",)):
        process = shot.start(out, *more)
        # Spread over the run, its beginning and its end included.
        process.join(whole.seconds * chance.uniform(0.05, 1))
        os.kill(process.pid or 0, signal.SIGKILL) if process.is_alive() else None
        process.join()
    partial = digests(out) if out.exists() else {}
    assert partial.items() <= whole.take.files.items(), "what a killed run leaves is whole"
    assert shot.run(out, "--resume") == 0, out.with_suffix(".log").read_text()
    assert Take.of(out) == whole.take


def steps(log: Path) -> int:
    return log.read_text().count('"done"') if log.exists() else 0


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_after_the_frame(
    number: signal.Signals, code: int, shot: Shot, whole: Uninterrupted, tmp_path: Path
) -> None:
    out, log = tmp_path / "out", tmp_path / "out.log"
    process = shot.start(out)
    wait_for(lambda: steps(log) >= 45)
    before = steps(log)
    os.kill(process.pid or 0, number)
    process.join()
    assert process.exitcode == code
    assert steps(log) <= before + 2
    assert "stopped after frame" in log.read_text().splitlines()[-1]
    assert digests(out).items() <= whole.take.files.items()
    assert len(digests(out)) == 2 * steps(log), "every frame that was cut is on disk"
    assert shot.run(out, "--resume") == 0
    assert steps(log) < COUNT, "it began anew"
    assert Take.of(out) == whole.take


@pytest.mark.slow
def test_resuming_a_complete_take_does_nothing(shot: Shot, whole: Uninterrupted, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert shot.run(out) == 0
    (out / ".x2roto.work").mkdir()
    (out / ".x2roto.tmp.1.json").write_text("{")
    times = {path: path.stat().st_mtime_ns for path in out.iterdir() if path.name[0] != "."}
    assert shot.run(out, "--resume") == 0
    assert {path: path.stat().st_mtime_ns for path in out.iterdir()} == times
    (out / "clip_box1.1030.png").unlink()
    assert shot.run(out, "--resume") == 0
    assert Take.of(out) == whole.take


@pytest.mark.slow
def test_a_run_killed_after_its_movie_was_joined(shot: Shot, whole: Uninterrupted, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert shot.run(out) == 0
    record = json.loads((out / "x2roto.json").read_text())
    (out / "x2roto.json").write_text(json.dumps({**record, "status": "running", "frames": []}))
    (out / ".clip_box1.mov.parts").mkdir()
    (out / ".clip_box1.mov.parts" / "42.mov").write_bytes(b"a piece")
    assert shot.run(out, "--resume") == 0
    assert Take.of(out) == whole.take


@pytest.mark.slow
def test_another_machine_goes_on_in_the_numbers_the_run_began_with(
    shot: Shot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut(name: str, fast: torch.dtype, last: int = 0, **more: Any) -> Path:
        def stop(progress: Progress) -> None:
            if progress.done == last:
                raise KeyboardInterrupt

        monkeypatch.setattr("x2roto.device.fast_dtype", lambda device: fast)
        with suppress(KeyboardInterrupt):
            segment(shot.clip, box=["4,8,30,30"], presence=0.0, model=str(shot.model), device="cpu",
                    output=str(tmp_path / name), on_frame=stop, **more)  # fmt: skip
        return tmp_path / name

    whole, other = cut("whole", torch.float32), cut("other", torch.bfloat16)
    assert digests(whole) != digests(other)
    cut("stopped", torch.float32, last=60)
    out = cut("stopped", torch.bfloat16, resume=True)
    record = json.loads((out / "x2roto.json").read_text())
    assert record["summary"]["resumed"] > 0
    assert (record["model"]["device"], record["model"]["dtype"]) == ("cpu", "float32")
    assert digests(out) == digests(whole)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a disk of 500 kB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=500k", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"no small disk can be mounted here: {mounted.stderr.decode().strip()}")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def remount(disk: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(disk)], check=True)


@pytest.mark.slow
def test_a_full_disk(shot: Shot, whole: Uninterrupted, small_disk: Path) -> None:
    out, log = small_disk / "out", small_disk / "out.log"
    assert shot.run(out) == 7
    assert "the disk is full" in log.read_text().splitlines()[-1]
    left = digests(out)
    assert left
    assert left.items() <= whole.take.files.items()
    assert not [path for path in out.iterdir() if ".tmp." in path.name]
    remount(small_disk, "size=50m")
    assert shot.run(out, "--resume") == 0
    assert Take.of(out) == whole.take


@pytest.mark.slow
def test_a_disk_that_must_not_be_written(shot: Shot, small_disk: Path, tmp_path: Path) -> None:
    remount(small_disk, "ro")
    process = FORKS.Process(
        target=command,
        args=([str(shot.clip), *OPTIONS, "--model", str(shot.model), "-o", str(small_disk)], tmp_path / "log"),
    )
    process.start()
    process.join()
    assert process.exitcode == 7
    (line,) = (tmp_path / "log").read_text().splitlines()
    assert "the file system is read-only" in line
    assert list(small_disk.iterdir()) == []
