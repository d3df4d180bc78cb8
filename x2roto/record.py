"""What is written down of a run: the job and every frame in `x2roto.json`, and what resuming needs while it runs.

A running take has `x2roto.json` with status "running" and a hidden work folder with frame records and checkpoints;
a finished one has the whole record and no work folder.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from enum import Enum
from itertools import islice
from pathlib import Path
from typing import Any, Self

from x2roto import __version__
from x2roto.clip import ClipInfo
from x2roto.errors import InputError, OutputError
from x2roto.export.atomic import committed, output_error, output_errors, sweep, write_bytes
from x2roto.export.pool import Pool
from x2roto.job import Job
from x2roto.prompt import MaskPrompt
from x2roto.source import clip_files

SCHEMA = 1
NAME = "x2roto.json"
WORK = ".x2roto.work"
FRAMES = "frames.jsonl"
# Frames between checkpoints, at least: a stop loses no more than a few of these.
CHECKPOINT = 24
# Checkpoints kept: writers may lag behind the newest by a movie segment and a queue.
KEPT = 4
# Rows that may wait to be written.
BEHIND = 64
# Written files that are read back for their digests at once.
HASHED = 64


class Standing(Enum):
    """What a folder holds of a job."""

    NEW = "new"
    STARTED = "running"
    COMPLETE = "complete"


@dataclass(frozen=True, slots=True)
class Record:
    """The record of one run in its output folder. `identity`: what must be equal for a run to be gone on with.

    `clip`, `model`: facts that are only written down.
    """

    folder: Path
    job: Job
    identity: Mapping[str, Any]
    clip: Mapping[str, Any]
    model: Mapping[str, Any]

    @property
    def path(self) -> Path:
        return self.folder / NAME

    @property
    def work(self) -> Path:
        return self.folder / WORK

    def standing(self, first_files: Iterable[Path], *, resume: bool, overwrite: bool) -> Standing:
        """What is there to go on from; writes nothing.

        `first_files`: of the first frame. A run may have been stopped before it left anything, so there need not be
        anything to resume. Raises OutputError when there is another take, or this one and neither flag.
        """
        before = self.before()
        if overwrite:
            return Standing.NEW
        if before is None:
            self._refuse_strangers(first_files)
            return Standing.NEW
        same = before.get("digest") == self.job.digest() and before.get("identity") == dict(self.identity)
        if not resume:
            advice = "--resume to go on or --overwrite" if same else "--overwrite or another -o"
            raise OutputError(f"{self.folder} holds a take already ({before['status']}): give {advice}", self.path)
        if not same:
            raise OutputError(
                f"{self.folder} holds a take of another job, clip or model: resume with the same options or choose "
                "another -o",
                self.path,
            )
        if before.get("status") == Standing.COMPLETE.value and self._whole(before):
            return Standing.COMPLETE
        return Standing.STARTED

    @contextmanager
    def claimed(self, standing: Standing) -> Iterator[None]:
        """The folder taken for this run. An error before the first frame is written down leaves nothing behind."""
        made = not self.folder.exists()
        with output_errors(self.folder):
            if standing is Standing.NEW:
                self._clear()
            sweep([self.path])
            self.work.mkdir(parents=True, exist_ok=True)
            write_bytes(self.path, json.dumps({**self._head(Standing.STARTED), "frames": []}, indent=1).encode())
        try:
            yield
        except Exception:
            if standing is Standing.NEW and next(self.frames(), None) is None:
                self._release(made)
            raise

    def finish(self, summary: Mapping[str, Any], movies: Iterable[Path]) -> None:
        """Write the whole record, frame by frame, and remove the work folder. Raises OutputError."""
        head = json.dumps({**self._head(Standing.COMPLETE), "summary": dict(summary)}, indent=1)
        with committed(self.path) as temporary, temporary.open("w", encoding="utf-8") as out:
            out.write(head.removesuffix("\n}") + ',\n "movies": [')
            out.write(",".join(f"\n  {json.dumps(facts(path, self.folder))}" for path in movies))
            out.write('\n ],\n "frames": [')
            for position, frame in enumerate(self._with_files()):
                out.write(f"{',' if position else ''}\n  {json.dumps(frame)}")
            out.write("\n ]\n}\n")
        self.tidy()

    def tidy(self) -> None:
        """Remove what only a running take needs; a run killed at its very end has left it."""
        sweep([self.path])
        shutil.rmtree(self.work, ignore_errors=True)

    def frames(self) -> Iterator[dict[str, Any]]:
        """The frame records of a running take, in order."""
        path = self.work / FRAMES
        if path.is_file():
            with path.open(encoding="utf-8") as lines:
                # A killed run leaves part of a line.
                yield from (json.loads(line) for line in lines if line.endswith("\n"))

    def before(self) -> dict[str, Any] | None:
        """The record that is there, None when there is none. Raises OutputError when it cannot be read as one."""
        try:
            values = json.loads(self.path.read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValueError) as error:
            reason = f"{self.path} is not a record of a take ({error}): choose another -o"
            raise OutputError(reason, self.path) from error
        if not isinstance(values, dict) or not {"status", "digest", "identity", "frames"} <= values.keys():
            raise OutputError(f"{self.path} is not a record of a take: choose another -o", self.path)
        return values

    def _refuse_strangers(self, first_files: Iterable[Path]) -> None:
        if there := [path for path in first_files if path.exists()]:
            raise OutputError(f"{there[0]} is there already and of no take: give --overwrite or another -o", there[0])

    def _whole(self, before: Mapping[str, Any]) -> bool:
        """Whether all files of a complete take are still there with their sizes."""
        listed = [file for frame in before["frames"] for file in frame["files"]] + before["movies"]
        return all(_size(self.folder / file["file"]) == file["bytes"] for file in listed)

    def _clear(self) -> None:
        """Remove the files of the take that is there, so that none of them is left among the new ones."""
        before = self.before()
        if before is None:
            return
        listed = [*before["frames"], {"files": before.get("movies", [])}, *self.frames()]
        names = [file["file"] if isinstance(file, dict) else file for frame in listed for file in frame["files"]]
        for path in ((self.folder / name).resolve() for name in names):
            if path.is_relative_to(self.folder.resolve()):
                path.unlink(missing_ok=True)
        if self.work.exists():
            shutil.rmtree(self.work)

    def _release(self, made: bool) -> None:
        shutil.rmtree(self.work, ignore_errors=True)
        with suppress(OSError):
            self.path.unlink(missing_ok=True)
            if made:
                self.folder.rmdir()

    def _with_files(self) -> Iterator[dict[str, Any]]:
        """The frame records with size and digest of each file, read back on threads."""
        with ThreadPoolExecutor() as threads:
            block: list[dict[str, Any]] = []
            for frame in self.frames():
                block.append(frame)
                if len(block) == HASHED:
                    yield from threads.map(self._filed, block)
                    block = []
            yield from threads.map(self._filed, block)

    def _filed(self, frame: dict[str, Any]) -> dict[str, Any]:
        return {**frame, "files": [facts(self.folder / name, self.folder) for name in frame["files"]]}

    def _head(self, status: Standing) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "x2roto": __version__,
            "status": status.value,
            "digest": self.job.digest(),
            "identity": dict(self.identity),
            "clip": dict(self.clip),
            "model": dict(self.model),
            "job": self.job.to_dict(),
        }


class Journal:
    """Frame records of a running take, a line each; on a thread, since a disk busy with frames takes them slowly."""

    def __init__(self, record: Record, keep: int) -> None:
        """`keep`: how many records of an earlier run stay."""
        self._path = record.work / FRAMES
        self._thread = Pool(workers=1, depth=BEHIND)
        with output_errors(self._path):
            self._lines = self._path.open("ab")
            with self._path.open("rb") as lines:
                self._lines.truncate(sum(map(len, islice(lines, keep))))

    def append(self, row: Mapping[str, Any]) -> None:
        """Queue a row; once written it survives the end of this process. Raises OutputError for an earlier one."""
        self._last = self._thread.submit(self._write, json.dumps(row).encode() + b"\n")

    def sync(self) -> None:
        """Bring all rows so far to the disk."""
        self._last.result()
        os.fsync(self._lines.fileno())

    def _write(self, line: bytes) -> None:
        with output_errors(self._path):
            self._lines.write(line)
            self._lines.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        # What could not be written before cannot be written on closing either.
        with suppress(OSError) if kind else output_errors(self._path), self._lines:
            self._thread.__exit__(kind)


class Checkpoints:
    """What a run can go on from, a folder per position (frames done). Written on a thread; a few newest stay."""

    def __init__(self, work: Path) -> None:
        self._work = work
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="x2roto-checkpoint")
        self._pending: Future[None] = Future()
        self._pending.set_result(None)

    def newest(self, finished: int) -> int:
        """The newest position not after `finished`, 0 if there is none; later ones are removed."""
        positions = self._positions()
        for stale in (position for position in positions if position > finished):
            shutil.rmtree(self.folder(stale))
        return next((position for position in positions if position <= finished), 0)

    def folder(self, position: int) -> Path:
        """Where the state after `position` frames lies."""
        return self._work / f"at-{position}"

    def offer(self, position: int, save: Callable[[Path], None], sync: Callable[[], None]) -> None:
        """Keep what `save` writes into a folder, after `sync`; passed over while the last one is being written."""
        if self._pending.done():
            self._pending.result()
            self._pending = self._thread.submit(self._write, position, save, sync)

    def _write(self, position: int, save: Callable[[Path], None], sync: Callable[[], None]) -> None:
        folder = self.folder(position)
        partial = folder.with_name(f".{folder.name}")
        with output_errors(partial):
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir()
            sync()
            save(partial)
            partial.replace(folder)
        for old in self._positions()[KEPT:]:
            shutil.rmtree(self.folder(old), ignore_errors=True)

    def _positions(self) -> list[int]:
        """Newest first."""
        found = [path.name.removeprefix("at-") for path in self._work.glob("at-*")]
        return sorted((int(position) for position in found if position.isdigit()), reverse=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._thread.shutdown()
        if kind is None:
            self._pending.result()


def require_writable(folder: Path) -> None:
    """Raise OutputError, before any work is done, when the folder cannot be made or written."""
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    if not there.is_dir():
        raise output_error(folder, errno.ENOTDIR, "")
    if not os.access(there, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids):
        read_only = os.statvfs(there).f_flag & os.ST_RDONLY
        raise output_error(folder, errno.EROFS if read_only else errno.EACCES, "")


def at_checkpoint(position: int, chunk: int) -> bool:
    """Whether state is kept here: at the end of a chunk, so that a resumed run cuts the same chunks."""
    return position % (-(-CHECKPOINT // chunk) * chunk) == 0


def input_identity(job: Job) -> dict[str, Any]:
    """What must not change of a job's input: sizes and times of the clip's files, the pixels of its masks."""
    masks = [prompt.mask for prompt in job.prompts if isinstance(prompt, MaskPrompt)]
    return {
        "clip": _digest(f"{path.name} {stat.st_size} {stat.st_mtime_ns}" for path, stat in _stats(job.clip.path)),
        "masks": [facts(mask, mask.parent)["sha256"] for mask in masks if isinstance(mask, Path)],
    }


def _stats(clip: str) -> Iterator[tuple[Path, os.stat_result]]:
    for path in clip_files(clip):
        try:
            # A gap in a sequence is the source's to judge.
            yield path, path.stat()
        except OSError as error:
            raise InputError(f"{path}: cannot be opened ({error.strerror}): check the path", path) from error


def _digest(lines: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:12]


def clip_facts(info: ClipInfo) -> dict[str, Any]:
    """A clip's facts as JSON has them; exact fractions as text."""
    return {
        **asdict(info),
        "rate": str(info.rate),
        "pixel_aspect": str(info.pixel_aspect),
        "last_frame": None if info.frame_count is None else info.number(info.frame_count - 1),
        "notes": list(info.notes),
        "metadata": {key: str(value) for key, value in info.metadata.items()},
    }


def facts(path: Path, folder: Path) -> dict[str, Any]:
    """Name relative to the folder, bytes and SHA-256 of a written file."""
    with output_errors(path), path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
        size = os.fstat(stream.fileno()).st_size
    return {"file": os.path.relpath(path, folder), "bytes": size, "sha256": digest}


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None
