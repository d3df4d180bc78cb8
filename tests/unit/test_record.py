"""The record of a take: who may write where, what a stop leaves, what a finished take says."""

from __future__ import annotations

import hashlib
import json
import threading
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.media import pictures, write_pictures
from x2roto.errors import InputError, OutputError
from x2roto.job import ClipSpec, Job
from x2roto.prompt import MaskPrompt, Text
from x2roto.record import Checkpoints, Journal, Record, Standing, at_checkpoint, input_identity, require_writable
from x2roto.tally import Tally

JOB = Job(ClipSpec("a.mov"), (Text("dog", "dog"),))


@pytest.fixture
def record(tmp_path: Path) -> Record:
    return Record(tmp_path / "out", JOB, {"clip": "1", "weights": "2"}, {"width": 96}, {"name": "tiny"})


def row(number: int, *files: str) -> dict[str, Any]:
    return {"number": number, "objects": {"dog": {"score": 0.5}}, "files": list(files)}


def started(record: Record, rows: int = 0) -> None:
    """What a killed run leaves after so many frames."""
    with suppress(KeyboardInterrupt), record.claimed(Standing.NEW), Journal(record, keep=0) as journal:
        for number in range(rows):
            (record.folder / f"{number}.png").write_text(str(number))
            journal.append(row(number, f"{number}.png"))
        raise KeyboardInterrupt


def completed(record: Record, rows: int = 2) -> None:
    started(record, rows)
    (record.folder / "a.mov").write_text("movie")
    record.finish({"frames": rows}, [record.folder / "a.mov"])


def standing(record: Record, *files: Path, resume: bool = False, overwrite: bool = False) -> Standing:
    return record.standing(files, resume=resume, overwrite=overwrite)


# ---- who may write where ----------------------------------------------------------------------------------


def test_an_empty_folder_is_anybodys(record: Record) -> None:
    assert standing(record) is Standing.NEW
    assert not record.folder.exists()


def test_a_run_stopped_before_it_left_anything_begins_anew(record: Record) -> None:
    assert standing(record, resume=True) is Standing.NEW
    record.work.mkdir(parents=True)
    assert standing(record, resume=True) is Standing.NEW


def test_files_of_no_take_are_not_written_over(record: Record) -> None:
    record.folder.mkdir()
    stranger = record.folder / "0.png"
    stranger.write_text("mine")
    with pytest.raises(OutputError, match=r"0\.png is there already and of no take"):
        standing(record, record.folder / "1.png", stranger)
    assert standing(record, stranger, overwrite=True) is Standing.NEW


def test_a_started_take_is_gone_on_with(record: Record) -> None:
    started(record, 1)
    assert standing(record, resume=True) is Standing.STARTED
    with pytest.raises(OutputError, match=r"\(running\): give --resume to go on or --overwrite"):
        standing(record)


@pytest.mark.parametrize(
    "change",
    [
        {"job": replace(JOB, prompts=(Text("cat", "cat"),))},
        {"identity": {"clip": "9", "weights": "2"}},
        {"identity": {"clip": "1", "weights": "9"}},
    ],
)
def test_another_take_is_not_mixed_in(change: dict[str, Any], record: Record) -> None:
    completed(record)
    other = replace(record, **change)
    with pytest.raises(OutputError, match="a take of another job, clip or model"):
        standing(other, resume=True)
    with pytest.raises(OutputError, match="give --overwrite or another -o"):
        standing(other)
    assert standing(other, overwrite=True) is Standing.NEW


def test_a_complete_take_is_complete_while_its_files_are(record: Record) -> None:
    completed(record)
    assert standing(record, resume=True) is Standing.COMPLETE
    (record.folder / "1.png").write_text("longer than before")
    assert standing(record, resume=True) is Standing.STARTED


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"status": "complete"}'])
def test_what_is_no_record_is_left_alone(text: str, record: Record) -> None:
    record.folder.mkdir()
    record.path.write_text(text)
    with pytest.raises(OutputError, match="is not a record of a take"):
        standing(record)
    assert record.path.read_text() == text


def test_a_new_take_clears_the_files_of_the_old_and_no_others(record: Record, tmp_path: Path) -> None:
    completed(record, 3)
    (tmp_path / "outside.png").write_text("mine")
    (record.folder / "notes.txt").write_text("mine")
    written = json.loads(record.path.read_text())
    written["frames"][0]["files"][0]["file"] = "../outside.png"
    record.path.write_text(json.dumps(written))
    started(record)
    assert sorted(path.name for path in record.folder.iterdir()) == [
        ".x2roto.work",
        "0.png",
        "notes.txt",
        "x2roto.json",
    ]
    assert (tmp_path / "outside.png").exists()


def test_a_take_sweeps_what_a_run_killed_at_its_end_left(record: Record) -> None:
    started(record, 1)
    (record.folder / ".x2roto.tmp.1.json").write_text("{")
    with suppress(KeyboardInterrupt), record.claimed(Standing.STARTED):
        assert sorted(path.name for path in record.folder.glob(".*")) == [".x2roto.work"]
        raise KeyboardInterrupt
    (record.folder / ".x2roto.tmp.1.json").write_text("{")
    record.tidy()
    assert sorted(path.name for path in record.folder.iterdir()) == ["0.png", "x2roto.json"]


def test_a_new_take_clears_a_started_one(record: Record) -> None:
    started(record, 3)
    started(record)
    assert sorted(path.name for path in record.folder.iterdir()) == [".x2roto.work", "x2roto.json"]
    assert list(record.frames()) == []


@pytest.mark.parametrize("there", [True, False])
def test_an_error_before_the_first_frame_leaves_nothing(there: bool, record: Record) -> None:
    if there:
        record.folder.mkdir()
    with pytest.raises(OutputError), record.claimed(Standing.NEW):
        raise OutputError("full")
    assert record.folder.exists() is there
    assert not there or list(record.folder.iterdir()) == []


def test_an_error_after_it_leaves_what_resuming_needs(record: Record) -> None:
    with suppress(OutputError), record.claimed(Standing.NEW), Journal(record, keep=0) as journal:
        journal.append(row(0))
        raise OutputError("full")
    assert standing(record, resume=True) is Standing.STARTED
    assert [frame["number"] for frame in record.frames()] == [0]


def test_where_nothing_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="is a file, not a folder"):
        require_writable(tmp_path / "file" / "deep" / "out")
    require_writable(tmp_path / "deep" / "out")
    assert not (tmp_path / "deep").exists()


# ---- frames -----------------------------------------------------------------------------------------------


def test_a_finished_record_has_digests(record: Record) -> None:
    completed(record, 130)
    written = json.loads(record.path.read_text())
    assert (written["status"], written["summary"]["frames"]) == ("complete", 130)
    assert [frame["number"] for frame in written["frames"]] == list(range(130))
    for number, frame in enumerate(written["frames"]):
        digest = hashlib.sha256(str(number).encode()).hexdigest()
        assert frame["files"] == [{"file": f"{number}.png", "bytes": len(str(number)), "sha256": digest}]
    assert written["movies"][0]["file"] == "a.mov"
    assert not record.work.exists()


@pytest.mark.parametrize("keep", [0, 2, 5])
def test_a_journal_goes_on_after_the_rows_kept(keep: int, record: Record) -> None:
    started(record, 5)
    with (record.work / "frames.jsonl").open("a") as lines:
        lines.write('{"number": 5, "obj')
    assert [frame["number"] for frame in record.frames()] == [0, 1, 2, 3, 4], "part of a line is no record"
    with Journal(record, keep) as journal:
        journal.append(row(99))
    assert [frame["number"] for frame in record.frames()] == [*range(keep), 99]


def test_the_tally_of_a_resumed_run_counts_all_frames() -> None:
    rows = [row(1001), {**row(1002), "objects": {"dog": {"score": 0.1}}}, {**row(1003), "warning": "a gap"}]
    tally = Tally(min_score=0.3)
    tally.recall(rows[:2])
    assert tally.add(rows[2]) == {"dog": 0.5}
    assert (tally.frames, tally.matched, tally.below, tally.held) == (3, True, [1002], {1003: "a gap"})
    assert tally.spans == {"dog": (1001, 1003)}


# ---- checkpoints ------------------------------------------------------------------------------------------


def save(folder: Path) -> None:
    (folder / "state").write_text("state")


def nothing() -> None:
    return None


def test_the_newest_few_checkpoints_stay(tmp_path: Path) -> None:
    for position in range(24, 24 * 8, 24):
        with Checkpoints(tmp_path) as checkpoints:
            checkpoints.offer(position, save, nothing)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["at-120", "at-144", "at-168", "at-96"]
    assert Checkpoints(tmp_path).newest(finished=150) == 144
    assert sorted(path.name for path in tmp_path.iterdir()) == ["at-120", "at-144", "at-96"]
    assert Checkpoints(tmp_path).newest(finished=50) == 0


def test_a_slow_checkpoint_is_not_waited_for(tmp_path: Path) -> None:
    go_on = threading.Event()

    def slow(folder: Path) -> None:
        assert go_on.wait(10)
        save(folder)

    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.offer(24, slow, nothing)
        checkpoints.offer(48, save, nothing)
        assert not list(tmp_path.glob("at-*")), "half a checkpoint is none"
        go_on.set()
    assert Checkpoints(tmp_path).newest(finished=100) == 24


def test_a_checkpoint_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    def full(folder: Path) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(OutputError, match="the disk is full"), Checkpoints(tmp_path) as checkpoints:
        checkpoints.offer(24, full, nothing)


@pytest.mark.parametrize(("chunk", "every"), [(1, 24), (8, 24), (5, 25), (64, 64)])
def test_checkpoints_are_at_the_ends_of_chunks(chunk: int, every: int) -> None:
    assert [position for position in range(1, 3 * every) if at_checkpoint(position, chunk)] == [every, 2 * every]


# ---- identity ---------------------------------------------------------------------------------------------


def test_a_changed_input_is_another_one(tmp_path: Path) -> None:
    clip = write_pictures(tmp_path / "in" / "a.%04d.png", pictures(3))
    write_pictures(tmp_path / "mask.%04d.png", pictures(1))
    job = replace(JOB, clip=ClipSpec(str(clip)), prompts=(MaskPrompt("m", tmp_path / "mask.1001.png"),))
    before = input_identity(job)
    assert input_identity(job) == before
    write_pictures(tmp_path / "mask.%04d.png", pictures(2)[1:])
    masked = input_identity(job)
    assert masked["masks"] != before["masks"]
    assert masked["clip"] == before["clip"]
    write_pictures(tmp_path / "in" / "a.%04d.png", pictures(4)[1:2], first=1002)
    assert input_identity(job)["clip"] != before["clip"]
    with pytest.raises(InputError):
        input_identity(replace(job, clip=ClipSpec(str(tmp_path / "nowhere.mov"))))
