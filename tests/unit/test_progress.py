"""How a run tells where it is: every style, the log, what goes where."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from x2roto.cli import progress as module
from x2roto.cli.progress import Style, reporting, row, stages
from x2roto.errors import InputError, OutputError
from x2roto.pipeline import Progress
from x2roto.timing import Timing

TIMING = Timing(decode_s=1.0, network_s=6.0, alpha_s=2.0, write_s=1.0)


def steps(count: int, total: int | None) -> list[Progress]:
    return [Progress(done, total, 1000 + done, TIMING, {"dog": 0.5}) for done in range(1, count + 1)]


@pytest.fixture
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "EVERY_S", 0.0)


def told(style: Style, progress: list[Progress], capsys: pytest.CaptureFixture[str]) -> list[str]:
    with reporting(style, "shot") as report:
        for each in progress:
            report(each)
    captured = capsys.readouterr()
    assert captured.out == ""
    return captured.err.splitlines()


@pytest.mark.usefixtures("no_pause")
@pytest.mark.parametrize(
    ("style", "lines"),
    [
        (Style.PLAIN, ["Progress: 33%", "Progress: 66%", "Progress: 100%"]),
        (Style.AUTO, ["Progress: 33%", "Progress: 66%", "Progress: 100%"]),
        (Style.OPENJD, ["openjd_progress: 33", "openjd_progress: 66", "openjd_progress: 100"]),
        (Style.TRACTOR, ["TR_PROGRESS 33%", "TR_PROGRESS 66%", "TR_PROGRESS 100%"]),
        (Style.NONE, []),
    ],
)
def test_lines_for_people_and_farms(style: Style, lines: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert told(style, steps(3, 3), capsys) == lines


@pytest.mark.usefixtures("no_pause")
def test_a_percentage_is_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    lines = told(Style.PLAIN, steps(1000, 1000), capsys)
    assert lines == [f"Progress: {percent}%" for percent in range(101)]


def test_at_most_one_line_a_second_and_always_the_last(capsys: pytest.CaptureFixture[str]) -> None:
    assert told(Style.PLAIN, steps(500, 500), capsys)[-1:] == ["Progress: 100%"]
    assert len(told(Style.PLAIN, steps(500, 500), capsys)) <= 3


@pytest.mark.usefixtures("no_pause")
def test_without_a_length_frames_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert told(Style.PLAIN, steps(2, None), capsys) == ["Frame 1001", "Frame 1002"]


def test_json_is_a_row_per_step(capsys: pytest.CaptureFixture[str]) -> None:
    lines = told(Style.JSON, steps(2, 2), capsys)
    assert [json.loads(line) for line in lines] == [row(each) for each in steps(2, 2)]
    assert json.loads(lines[1])["frame"] == 1002
    assert json.loads(lines[1])["network_s"] == 6.0


def test_a_bar_shows_frames_speed_and_where_time_goes(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    text = "\n".join(told(Style.RICH, steps(4, 4), capsys))
    for expected in ("shot", "4/4", "fps", "frame 1004", "decode 10% network 60% alpha 20% write 10%", "MB"):
        assert expected in text


def test_stages_of_a_run_that_took_no_time() -> None:
    assert stages(Progress(1, 1, 1001, Timing())) == "decode 0% network 0% alpha 0% write 0%"


# ---- the log ----------------------------------------------------------------------------------------------


def events(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_log_has_time_level_and_event(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with reporting(Style.NONE, "shot", path) as report:
        report(steps(1, 2)[0])
        report(Progress(2, 2, 1002, TIMING, held="a gap"))
    assert [(line["event"], line["level"]) for line in events(path)] == [
        ("start", "info"),
        ("frame", "info"),
        ("frame", "warning"),
        ("end", "info"),
    ]
    assert all(isinstance(line["t"], float) for line in events(path))
    assert events(path)[2]["held"] == "a gap"


def test_an_error_is_logged_and_stays_the_same_error(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with pytest.raises(InputError, match="no such file"), reporting(Style.NONE, "shot", path):
        raise InputError("no such file")
    assert events(path)[-1] | {"t": 0} == {"t": 0, "level": "error", "event": "error", "message": "no such file"}
    with pytest.raises(SystemExit), reporting(Style.NONE, "shot", path):
        raise SystemExit(143)
    assert events(path)[-1]["code"] == 143


def test_a_log_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot write"), reporting(Style.NONE, "shot", tmp_path):
        pass
