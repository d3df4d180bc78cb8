"""`x2roto segment` and `x2roto preview`, from a command line to files, with a tiny model of random weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import x2roto
from tests.e2e.conftest import COUNT, Outcome, Run
from tests.media import HEIGHT, WIDTH, pictures, write_pictures
from x2roto.preset import list_presets

BOX = ("--box", "4,8,30,30")
NUMBERS = range(1001, 1001 + COUNT)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def matte(path: Path) -> np.ndarray[Any, Any]:
    """16-bit values (height, width)."""
    return np.asarray(Image.open(path)).astype(np.int64)


def record(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "x2roto.json").read_text()))


# ---- frames and names -------------------------------------------------------------------------------------


def test_a_movie_becomes_a_matte_per_frame_and_a_record(cut: Run, tmp_path: Path) -> None:
    outcome = cut("--box", "ball=4,8,30,30", "-o", "out")
    assert (outcome.code, outcome.out) == (0, b"")
    assert names(tmp_path / "out") == [*(f"clip_ball.{number}.png" for number in NUMBERS), "x2roto.json"]
    written = record(tmp_path / "out")
    assert written["status"] == "complete"
    assert [frame["number"] for frame in written["frames"]] == list(NUMBERS)
    for frame in written["frames"]:
        (file,), facts = frame["files"], frame["objects"]["ball"]
        values = matte(tmp_path / "out" / file["file"])
        assert values.shape == (HEIGHT, WIDTH)
        assert facts["area"] == pytest.approx(values.mean() / 65535, abs=1e-4)
        rows, columns = np.nonzero(values > 32768)
        assert facts["box"] == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        assert file["bytes"] == (tmp_path / "out" / file["file"]).stat().st_size


@pytest.mark.parametrize(
    ("spelling", "numbers"),
    [
        (("--frames", "1003-1005"), [1003, 1004, 1005]),
        (("--frames", "1002-1010x4"), [1002, 1006, 1010]),
        (("--frames", "1009,1002-1003"), [1002, 1003, 1009]),
        (("--frames", "1011-"), [1011, 1012]),
        (("--source-frames", "0,11"), [1001, 1012]),
        (("--start-frame", "87", "--frames", "90-91"), [90, 91]),
        (("--start-frame", "9998", "--frames", "9999-10000"), [9999, 10000]),
    ],
)
def test_frame_ranges_are_in_the_artists_numbers(
    spelling: tuple[str, ...], numbers: list[int], cut: Run, tmp_path: Path
) -> None:
    assert cut(*BOX, *spelling, "-o", "out").code == 0
    digits = max(4, len(str(numbers[-1])))
    assert names(tmp_path / "out")[:-1] == sorted(f"clip_box1.{number:0{digits}d}.png" for number in numbers)


def test_a_sequence_keeps_its_numbers(cut: Run, tmp_path: Path) -> None:
    write_pictures(tmp_path / "in" / "plate.%04d.png", pictures(3), first=55)
    assert cut(*BOX, "-o", "out", clip=str(tmp_path / "in")).code == 0
    assert names(tmp_path / "out")[:-1] == [f"in_box1.{number:04d}.png" for number in (55, 56, 57)]


def test_part_of_a_clip_is_as_in_the_whole_shot_name(cut: Run, tmp_path: Path) -> None:
    assert cut(*BOX, "-o", "out/{shot}/v1_{object}.####.png", "--shot", "ab_010", "--frames", "1001").code == 0
    assert names(tmp_path / "out" / "ab_010") == ["v1_box1.1001.png"]
    assert record(tmp_path / "out")["frames"][0]["files"][0]["file"] == "ab_010/v1_box1.1001.png"


def test_every_kind_of_prompt_in_one_run(cut: Run, tmp_path: Path) -> None:
    drawn = np.zeros((HEIGHT, WIDTH), np.uint8)
    drawn[10:30, 10:40] = 255
    Image.fromarray(drawn).save(tmp_path / "drawn.png")
    prompts = (
        *("--text", "the bright ball", "--ask", "what=What moves?", "--classes", "dog; sky"),
        *("--box", "10%,10%,50%,50%", "--point", "20,20;30,30", "--scribble", "5,5;40,40", "--mask", "drawn.png"),
    )
    assert cut(*prompts, "--frames", "1001-1002", "-o", "out").code == 0
    objects = ["the_bright_ball", "what", "dog", "sky", "box1", "points1", "scribble1", "drawn"]
    assert [each["name"] for each in record(tmp_path / "out")["summary"]["objects"]] == objects
    assert len(names(tmp_path / "out")) == 2 * len(objects) + 1


def test_instances_are_mattes_of_their_own(cut: Run, tmp_path: Path) -> None:
    assert cut("--classes", "dog; sky", "--instances", 3, "--frames", "1001-1002", "-o", "out").code == 0
    expected = [f"clip_{name}.{number}.png" for name in ("dog_1", "dog_2", "dog_3", "sky") for number in (1001, 1002)]
    assert names(tmp_path / "out")[:-1] == expected


def test_a_holdout_is_the_rest_of_the_matte(cut: Run, tmp_path: Path) -> None:
    for out, more in (("matte", ()), ("holdout", ("--invert",))):
        assert cut(*BOX, "--frames", "1001-1003", "-o", out, *more).code == 0
    for number in (1001, 1002, 1003):
        name = f"clip_box1.{number}.png"
        total = matte(tmp_path / "matte" / name) + matte(tmp_path / "holdout" / name)
        assert np.abs(total - 65535).max() <= 1


def test_the_chunk_size_changes_no_matte(cut: Run, tmp_path: Path) -> None:
    for chunk in (1, 5):
        assert cut(*BOX, "--text", "dog", "--chunk", chunk, "-o", f"out{chunk}").code == 0
    for path in (tmp_path / "out1").glob("*.png"):
        assert np.abs(matte(path) - matte(tmp_path / "out5" / path.name)).max() <= 4


def test_prompts_on_a_later_frame_reach_the_frames_before(cut: Run, tmp_path: Path) -> None:
    outcome = cut("--box", "late=4,8,30,30@1007", "--text", "early=dog", "-o", "out", "--progress", "json")
    assert outcome.code == 0
    frames = record(tmp_path / "out")["frames"]
    assert len(frames) == COUNT
    assert all(frame["objects"]["late"]["score"] > 0 for frame in frames)
    steps = [json.loads(line) for line in outcome.err.splitlines() if line.startswith("{")]
    assert [step["frame"] for step in steps] == [*range(1006, 1000, -1), *NUMBERS]
    assert [step["done"] for step in steps] == list(range(1, COUNT + 7))
    assert {step["total"] for step in steps} == {COUNT + 6}


# ---- what the run tells -----------------------------------------------------------------------------------


def test_nothing_matched_is_exit_4_with_all_frames_written(cut: Run, tmp_path: Path) -> None:
    outcome = cut(*BOX, "--presence", 1, "-o", "out", "--frames", "1001-1003")
    assert outcome.code == 4
    assert "nothing matched" in outcome.err
    assert not any(matte(path).any() for path in (tmp_path / "out").glob("*.png"))
    assert len(names(tmp_path / "out")) == 4


def test_low_scores_are_exit_6_and_named(cut: Run, tmp_path: Path) -> None:
    outcome = cut(*BOX, "--min-score", 1, "-o", "out", "--frames", "1001-1003")
    assert outcome.code == 6
    assert "3 frames score below 1.0: 1001, 1002, 1003" in outcome.err
    assert record(tmp_path / "out")["summary"]["below_min_score"] == [1001, 1002, 1003]
    again = cut(*BOX, "--min-score", 1, "-o", "out", "--frames", "1001-1003", "--resume")
    assert again.code == 6, "a complete take is judged the same"


@pytest.mark.parametrize(
    ("style", "last"),
    [("plain", "Progress: 100%"), ("openjd", "openjd_progress: 100"), ("tractor", "TR_PROGRESS 100%")],
)
def test_progress_in_the_words_of_farms(style: str, last: str, cut: Run) -> None:
    outcome = cut(*BOX, "--progress", style, "-o", "out", "--frames", "1001-1004")
    lines = outcome.err.splitlines()
    assert outcome.out == b""
    assert last in lines
    assert lines.index(last) == len(lines) - 3, "followed by the summary"


def test_auto_progress_is_plain_without_a_terminal(cut: Run) -> None:
    assert "Progress: 100%" in cut(*BOX, "--progress", "auto", "-o", "out", "--frames", "1001").err.splitlines()


def test_rich_progress_draws_on_stderr(cut: Run) -> None:
    outcome = cut(*BOX, "--progress", "rich", "-o", "out", "--frames", "1001-1004")
    assert outcome.out == b""
    assert "4/4" in outcome.err
    assert "frame 1004   decode" in outcome.err


def test_the_log_is_one_event_per_line(cut: Run, tmp_path: Path) -> None:
    assert cut(*BOX, "-o", "out", "--frames", "1001-1002", "--log-json", "run.log").code == 0
    assert cut(*BOX, "-o", "out", "--frames", "1001-1002", "--log-json", "run.log").code == 7
    events = [json.loads(line) for line in (tmp_path / "run.log").read_text().splitlines()]
    assert [event["event"] for event in events] == ["start", "frame", "frame", "end", "start", "error"]
    assert [event.get("frame") for event in events[1:3]] == [1001, 1002]
    assert set(events[1]["scores"]) == {"box1"}
    assert "holds a take already" in events[-1]["message"]
    piped = cut(*BOX, "-o", "out2", "--frames", "1001-1002", "--log-json", "-")
    assert [json.loads(line)["event"] for line in piped.out.splitlines()] == ["start", "frame", "frame", "end"]


def test_a_dry_run_tells_and_writes_nothing(cut: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def loaded(*_: object) -> None:
        raise AssertionError("a dry run loads no model")

    monkeypatch.setattr("x2roto.device.load", loaded)
    outcome = cut(*BOX, "-f", "exr", "-f", "prores", "-o", "out", "--frames", "1003-1008x2", "--dry-run")
    assert (outcome.code, outcome.err) == (0, "")
    said = json.loads(outcome.out)
    assert (said["frames"], said["first"], said["last"]) == (3, 1003, 1007)
    assert said["files"] == {"exr": ["out/clip_box1.1003.exr"], "prores": ["out/clip_box1.mov"]}
    assert said["estimates"]["files"] == 4
    assert said["model"]["name"] == "tiny"
    assert list(tmp_path.iterdir()) == []
    assert "missing" in json.loads(cut(*BOX, "--model", "nonesuch", "--dry-run").out)["model"]


def test_stand_ins_for_bad_frames_are_reported(cut: Run, tmp_path: Path) -> None:
    write_pictures(tmp_path / "in" / "a.%04d.png", pictures(6))
    (tmp_path / "in" / "a.1004.png").unlink()
    outcome = cut(*BOX, "-o", "out", "--on-bad-frame", "hold", clip=str(tmp_path / "in"))
    assert outcome.code == 0
    assert "frame 1004: a stand-in was used" in outcome.err
    written = record(tmp_path / "out")
    assert [frame["number"] for frame in written["frames"] if "warning" in frame] == [1004]
    assert list(written["summary"]["held"]) == ["1004"]


# ---- presets, overwriting, Python -------------------------------------------------------------------------


@pytest.mark.parametrize("preset", [preset.name for preset in list_presets()])
def test_each_shipped_preset_runs(preset: str, cut: Run, tmp_path: Path) -> None:
    outcome = cut(*BOX, "--preset", preset, "-o", "out", "--frames", "1001-1003")
    assert outcome.code == 0, outcome.err
    written = record(tmp_path / "out")
    assert written["job"]["preset"] == preset
    listed = [file["file"] for frame in written["frames"] for file in frame["files"]]
    listed += [movie["file"] for movie in written["movies"]]
    assert names(tmp_path / "out") == sorted([*listed, "x2roto.json"])


def test_flags_win_over_the_users_preset(cut: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "house.toml").write_text('out = "there"\n[refine]\nedge = "hard"\ngrow = 2.0\n')
    monkeypatch.setenv("X2ROTO_PRESETS", str(tmp_path / "mine"))
    assert cut(*BOX, "-p", "house", "--grow", 1, "--frames", "1001").code == 0
    refine = record(tmp_path / "there")["job"]["refine"]
    assert (refine["edge"], refine["grow"]) == ("hard", 1.0)


def test_overwriting_leaves_nothing_of_the_old_take(cut: Run, tmp_path: Path) -> None:
    assert cut(*BOX, "-o", "out", "-f", "png", "-f", "prores").code == 0
    (tmp_path / "out" / "notes.txt").write_text("mine")
    assert cut(*BOX, "-o", "out", "--frames", "1001-1002", "--overwrite").code == 0
    assert names(tmp_path / "out") == ["clip_box1.1001.png", "clip_box1.1002.png", "notes.txt", "x2roto.json"]


def test_a_failure_before_the_first_frame_leaves_nothing(
    cut: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise x2roto.DeviceMemoryError("too small")

    monkeypatch.setattr("x2roto.cutter.Cutter.cut", broken)
    cut(*BOX, "-o", "deep/out", "-f", "png", "-f", "prores", "-f", "contact").assert_refused(5, "too small")
    assert not (tmp_path / "deep" / "out").exists()


def test_python_says_the_same_as_the_command_line(cut: Run, tmp_path: Path, media: Path, model: Path) -> None:
    assert cut(*BOX, "-o", "cli", "--frames", "1001-1004").code == 0
    seen: list[int] = []
    summary = x2roto.segment(
        media / "clip.mp4",
        box="4,8,30,30",
        frames="1001-1004",
        output=tmp_path / "api",
        presence=0,
        model=str(model),
        on_frame=lambda progress: seen.append(progress.number),
    )
    assert (summary.frames, summary.objects, summary.matched) == (4, ("box1",), True)
    assert seen == [1001, 1002, 1003, 1004]
    for path in (tmp_path / "cli").glob("*.png"):
        assert path.read_bytes() == (tmp_path / "api" / path.name).read_bytes()


def test_python_can_stop_a_run_and_go_on(media: Path, model: Path, tmp_path: Path) -> None:
    def stop(progress: x2roto.Progress) -> None:
        if progress.number == 1006:
            raise KeyboardInterrupt

    options: dict[str, Any] = {"box": "4,8,30,30", "output": tmp_path, "presence": 0, "model": str(model)}
    with pytest.raises(KeyboardInterrupt):
        x2roto.segment(media / "clip.mp4", **options, on_frame=stop)
    assert len(list(tmp_path.glob("*.png"))) == 6
    assert x2roto.segment(media / "clip.mp4", **options, resume=True).frames == COUNT
    assert len(list(tmp_path.glob("*.png"))) == COUNT


# ---- preview ----------------------------------------------------------------------------------------------


def preview(run: Run, media: Path, *arguments: object) -> Outcome:
    return run("preview", media / "clip.mp4", "--presence", 0, *arguments)


def test_a_preview_is_one_labelled_still(run: Run, media: Path, tmp_path: Path) -> None:
    outcome = preview(run, media, "--box", "ball=4,8,30,30")
    assert (outcome.code, outcome.out) == (0, b"")
    assert "ball: score" in outcome.err
    assert names(tmp_path) == ["clip_preview.1001.png"]
    drawn = np.asarray(Image.open(tmp_path / "clip_preview.1001.png")).astype(int)
    assert drawn.shape == (HEIGHT, WIDTH, 3)
    assert (np.abs(drawn - pictures(1)[0]) > 20).any()


def test_a_preview_shows_what_the_run_will_cut(run: Run, cut: Run, media: Path, model: Path, tmp_path: Path) -> None:
    assert cut(*BOX, "--text", "dog", "-o", "out").code == 0
    from x2roto.job import EngineSpec
    from x2roto.preset import build_job

    options = {"box": "4,8,30,30", "text": "dog", "model": str(model), "presence": 0}
    job = build_job(media / "clip.mp4", options)
    assert job.engine == EngineSpec(str(model), presence=0)
    _, still = x2roto.preview(job, tmp_path / "still.png")
    for each in still.result.mattes:
        written = matte(tmp_path / "out" / f"clip_{each.track.label}.1001.png")
        assert np.abs(each.alpha * 65535 - written).max() <= 1


@pytest.mark.parametrize(
    "arguments",
    [
        ("--frame", 1009, *BOX, "--text", "dog"),
        ("--frame", 1009, "--box", "4,8,30,30@1003", "--ask", "which?"),
        ("--frame", 1001, "--box", "4,8,30,30@1003"),
        ("--frame", 1012, "--box", "4,8,30,30@1001", "--frames", "1001-1005", "--edge", "refined"),
    ],
)
def test_a_preview_of_any_frame(arguments: tuple[object, ...], run: Run, media: Path, tmp_path: Path) -> None:
    assert preview(run, media, *arguments, "-o", "still.png").code == 0
    first = (tmp_path / "still.png").read_bytes()
    assert preview(run, media, *arguments, "-o", "still.png").code == 0
    assert (tmp_path / "still.png").read_bytes() == first
    assert names(tmp_path) == ["still.png"]
