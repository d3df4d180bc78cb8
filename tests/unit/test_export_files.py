"""Atomic files, work folders and the thread pool."""

from __future__ import annotations

import errno
import os
import threading
import time
from pathlib import Path

import pytest

from x2roto.errors import OutputError
from x2roto.export.atomic import WorkFolder, committed, output_error, sweep, write_bytes
from x2roto.export.pool import Pool


def test_a_file_appears_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.bin"
    with committed(path) as temporary:
        temporary.write_bytes(b"half")
        assert not path.exists()
        assert temporary.parent == path.parent
    assert path.read_bytes() == b"half"
    assert list(path.parent.iterdir()) == [path]


def test_a_failure_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    write_bytes(path, b"old")

    def fail() -> None:
        with committed(path) as temporary:
            temporary.write_bytes(b"new")
            raise KeyError("stop")

    with pytest.raises(KeyError):
        fail()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("code", "text", "words"),
    [
        (errno.ENOSPC, "", "disk is full"),
        (errno.EACCES, "", "no permission"),
        (errno.EROFS, "", "read-only"),
        (None, "Failed to write pixel data. No space left on device.", "disk is full"),
        (None, "odd\nthing", "odd$"),
    ],
)
def test_errors_say_what_to_do(code: int | None, text: str, words: str) -> None:
    with pytest.raises(OutputError, match=words) as caught:
        raise output_error(Path("x.png"), code, text)
    assert caught.value.path == Path("x.png")


def test_sweep_takes_only_leftovers_of_the_named_files(tmp_path: Path) -> None:
    for name in (".a.1001.tmp.77.png", ".b.1001.tmp.77.png", "a.1001.png", ".a.1001.png"):
        (tmp_path / name).touch()
    sweep([tmp_path / "a.1001.png", tmp_path / "missing" / "a.png"])
    assert {path.name for path in tmp_path.iterdir()} == {".b.1001.tmp.77.png", "a.1001.png", ".a.1001.png"}


@pytest.mark.parametrize(("stop", "kept"), [(KeyboardInterrupt, True), (SystemExit, True), (ValueError, False)])
def test_a_work_folder_survives_an_orderly_stop_only(stop: type[BaseException], kept: bool, tmp_path: Path) -> None:
    def run(resume: bool) -> None:
        with WorkFolder(tmp_path / "a.mov", resume) as folder:
            (folder / "1.mov").touch()
            raise stop

    with pytest.raises(stop):
        run(resume=False)
    assert (tmp_path / ".a.mov.parts" / "1.mov").exists() == kept
    with WorkFolder(tmp_path / "a.mov", resume=True) as folder:
        assert (folder / "1.mov").exists() == kept
    assert not list(tmp_path.iterdir())


def test_without_resume_old_pieces_are_cleared(tmp_path: Path) -> None:
    (tmp_path / ".a.mov.parts").mkdir()
    (tmp_path / ".a.mov.parts" / "1.mov").touch()
    with WorkFolder(tmp_path / "a.mov", resume=False) as folder:
        assert not list(folder.iterdir())


def test_the_pool_bounds_what_is_under_way() -> None:
    lock, running, most = threading.Lock(), 0, 0

    def work() -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.002)
        with lock:
            running -= 1

    with Pool(workers=2, depth=3) as pool:
        for _ in range(20):
            pool.submit(work)
    assert 1 <= most <= 2


def test_the_pool_returns_the_first_failure() -> None:
    def fail() -> None:
        raise OSError("no")

    def run() -> None:
        with Pool(workers=1, depth=1) as pool:
            for _ in range(5):
                pool.submit(fail)

    with pytest.raises(OSError, match="no"):
        run()


def test_an_orderly_stop_finishes_what_was_queued() -> None:
    done: list[int] = []

    def run() -> None:
        with Pool(workers=1, depth=8) as pool:
            for index in range(4):
                pool.submit(done.append, index)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run()
    assert done == [0, 1, 2, 3]


def test_temporary_names_carry_the_process(tmp_path: Path) -> None:
    with committed(tmp_path / "a.0001.exr") as temporary:
        assert temporary.name == f".a.0001.tmp.{os.getpid()}.exr"
        temporary.touch()
