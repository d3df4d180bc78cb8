"""Files that appear whole or not at all."""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from x2roto.errors import OutputError

_REASONS = {
    errno.ENOSPC: "the disk is full; free some space and run again with --resume",
    errno.EDQUOT: "the disk quota is used up; free some space and run again with --resume",
    errno.EACCES: "no permission to write there; choose another folder",
    errno.EPERM: "no permission to write there; choose another folder",
    errno.EROFS: "the file system is read-only; choose another folder",
    errno.ENOTDIR: "a part of the path is a file, not a folder; choose another folder",
    errno.EEXIST: "a part of the path is a file, not a folder; choose another folder",
    errno.EISDIR: "a folder has that name; choose another name",
    errno.ENAMETOOLONG: "the name is too long; choose a shorter one",
}
_TEMPORARY = re.compile(r"\.(?P<stem>.+)\.tmp\.\d+(?P<suffix>\.[^.]+)?")


@contextmanager
def output_errors(path: Path) -> Iterator[None]:
    """Operating-system errors raised inside, libav's included, as one OutputError that names `path`."""
    try:
        yield
    except OutputError:
        raise
    except OSError as error:
        raise output_error(path, error.errno, str(error)) from error


def output_error(path: Path, code: int | None, text: str) -> OutputError:
    """The OutputError of an error code; `text` is used where only a library's words tell the reason."""
    if code not in _REASONS:
        code = next((known for known in _REASONS if os.strerror(known).lower() in text.lower()), None)
    reason = text.splitlines()[0] if code is None else _REASONS[code]
    return OutputError(f"cannot write {path}: {reason}", path)


@contextmanager
def committed(path: Path) -> Iterator[Path]:
    """A temporary name in the folder of `path`, made if needed: synced and moved onto `path`, or removed.

    Raises OutputError when the file cannot be written.
    """
    temporary = path.with_name(f".{path.stem}.tmp.{os.getpid()}{path.suffix}")
    with output_errors(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            _sync(temporary)
            os.replace(temporary, path)
        finally:
            with suppress(FileNotFoundError, NotADirectoryError, PermissionError):
                temporary.unlink()


def write_bytes(path: Path, data: bytes) -> None:
    """`data` under `path`, whole or not at all."""
    with committed(path) as temporary:
        temporary.write_bytes(data)


def sweep(paths: Iterable[Path]) -> None:
    """Remove temporary files that a killed run left for any of `paths`."""
    wanted = set(paths)
    for folder in {path.parent for path in wanted}:
        if not folder.is_dir():
            continue
        for entry in folder.iterdir():
            name = _TEMPORARY.fullmatch(entry.name)
            if name and folder / f"{name['stem']}{name['suffix'] or ''}" in wanted:
                entry.unlink(missing_ok=True)


class WorkFolder:
    """A hidden folder beside `path` with the finished pieces of a file that is committed at the end.

    Removed when the block is left, except on KeyboardInterrupt and SystemExit: an orderly stop keeps the pieces
    for a later run. `resume` False clears what an earlier run left.
    """

    def __init__(self, path: Path, resume: bool) -> None:
        self.path = path.with_name(f".{path.name}.parts")
        self._resume = resume

    def __enter__(self) -> Path:
        with output_errors(self.path):
            if not self._resume:
                shutil.rmtree(self.path, ignore_errors=True)
            self.path.mkdir(parents=True, exist_ok=True)
        for leftover in self.path.glob(".*.tmp.*"):
            leftover.unlink()
        return self.path

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None or issubclass(kind, Exception):
            self.discard()

    def discard(self) -> None:
        """Remove the pieces, also those left by a run that was killed after it had joined them."""
        shutil.rmtree(self.path, ignore_errors=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
