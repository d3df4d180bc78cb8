"""A long clip takes no more memory than a short one."""

from __future__ import annotations

import multiprocessing
import re
import sys
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from tests.media import pictures, write_movie
from x2roto.cli.app import main

SHORT, LONG = 200, 2000


def measured(argv: list[str], answer: Connection) -> None:
    """Body of a run's process: sends its exit code and its peak resident memory in kB."""
    sys.argv = ["x2roto", "segment", *argv]
    try:
        main()
    except SystemExit as ended:
        peak = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
        assert peak
        answer.send((ended.code, int(peak[1])))


def peak_memory(clip: Path, model: Path, out: Path) -> int:
    forks = multiprocessing.get_context("spawn")
    answer, question = forks.Pipe(duplex=False)
    argv = [
        *(str(clip), "--box", "4,8,30,30", "--text", "late=dog@1100", "--presence", "0", "--smooth", "0.3"),
        *("-f", "png", "-f", "exr", "-f", "prores", "--progress", "none", "--model", str(model), "-o", str(out)),
    ]
    process = forks.Process(target=measured, args=(argv, question))
    process.start()
    question.close()
    code, peak = answer.recv()
    process.join()
    assert code == 0
    assert len(list(out.glob("*.png"))) == len(list(out.glob("*.exr")))
    return int(peak)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_does_not_grow_with_the_clip(tmp_path: Path, model: Path) -> None:
    every = pictures(72)
    peaks = {}
    for count in (SHORT, LONG):
        clip = write_movie(tmp_path / f"{count}.mp4", [every[index % 72] for index in range(count)])
        peaks[count] = peak_memory(clip, model, tmp_path / str(count))
    assert peaks[LONG] <= 1.05 * peaks[SHORT], peaks
