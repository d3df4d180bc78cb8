"""`x2roto evaluate`: every data set in both modes on a tiny model, shards, stops, mattes, and what goes wrong."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.e2e.conftest import Run
from x2roto.data.layouts import LAYOUTS
from x2roto.evaluate.benchmarks import BENCHMARKS, MODES, Mode
from x2roto.export.davis import palette

REPOSITORY = Path(__file__).parents[2]
FOOTAGE = REPOSITORY / ".." / "shared" / "footage"
Miniature = Callable[[str], Path]


@pytest.fixture(scope="session")
def miniature(tmp_path_factory: pytest.TempPathFactory) -> Miniature:
    """The folder of a layout's miniature; not to be written to."""
    made: dict[str, Path] = {}

    def write(name: str) -> Path:
        if name not in made:
            # MeViS writes beside its folder.
            made[name] = tmp_path_factory.mktemp(name) / "data"
            made[name].mkdir()
            LAYOUTS[name].miniature(made[name], 3)
        return made[name]

    return write


@pytest.fixture(autouse=True)
def no_java(monkeypatch: pytest.MonkeyPatch) -> None:
    """METEOR takes long to start, and has tests of its own."""
    which = shutil.which
    monkeypatch.setattr(shutil, "which", lambda name, *rest, **more: None if name == "java" else which(name))


@pytest.fixture
def evaluate(run: Run) -> Run:
    """`x2roto evaluate …` on the CPU, with short descriptions."""

    def run_evaluate(*arguments: object) -> object:
        return run("evaluate", *arguments, "--device", "cpu", "--tokens", 6)

    return run_evaluate  # type: ignore[return-value]


# ---- every data set ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_benchmark_runs(name: str, mode: Mode, evaluate: Run, miniature: Miniature, tmp_path: Path) -> None:
    out = tmp_path / "out"
    linked = BENCHMARKS[name].format != "tracks" or mode == "standard"
    submit = ["--submit"] if linked else []
    done = evaluate(name, "--data", miniature(name), "--mode", mode, "--limit", 6, "--out", out, *submit)
    # The tiny model cannot describe anything.
    grounded = BENCHMARKS[name].kind == "grounded"
    assert done.code == (4 if grounded else 0), done.err
    assert ("no answer" in done.err) == grounded
    scores = dict(line.rsplit(" ", 1) for line in done.out.decode().splitlines())
    page = json.loads((out / "report.json").read_text())
    assert page["facts"]["mode"] == mode
    rows = {row[0]: row[1] for row in page["tables"][0]["rows"]}
    assert {key: value for key, value in scores.items() if ": " not in key}.keys() == rows.keys()
    for measure, value in rows.items():
        assert scores[measure] == ("nan" if value is None else f"{value:.2f}")
    assert (out / "report.html").stat().st_size > 2000
    assert (out / "submission").is_dir() == bool(submit)


def test_the_list_names_them_all(run: Run) -> None:
    listed = run("evaluate", "list")
    assert listed.code == 0
    assert [line.split()[0] for line in listed.out.decode().splitlines()] == list(BENCHMARKS)
    assert b"Footage (objects; splits: region, text; regions: box, point, mask)" in listed.out


def test_miniatures_are_made_by_name(run: Run, evaluate: Run, tmp_path: Path) -> None:
    made = run("footage", "make", "--layout", "davis17", "--out", tmp_path / "davis", "--seed", 4)
    assert (made.code, made.err) == (0, f"a tiny DAVIS 2017 in {tmp_path / 'davis'}\n")
    assert evaluate("davis17", "--data", tmp_path / "davis").code == 0
    assert (tmp_path / "evaluation" / "davis17-standard" / "report.html").is_file()
    run("footage", "make", "--layout", "davis18", "--out", tmp_path / "x").assert_refused(
        2, "no data set layout is called 'davis18': use one of ade20k_instance"
    )


def test_footage_by_its_words(evaluate: Run, miniature: Miniature, tmp_path: Path) -> None:
    done = evaluate("footage", "--data", miniature("footage"), "--split", "text", "--out", tmp_path / "out")
    assert done.code == 0, done.err
    page = json.loads((tmp_path / "out" / "report.json").read_text())
    assert page["title"] == "Footage, text"
    assert "regions" not in page["facts"]
    evaluate("footage", "--data", miniature("footage"), "--split", "text", "--prompt", "box").assert_refused(
        2, "footage has no regions in split 'text': leave --prompt out"
    )


@pytest.mark.skipif(not FOOTAGE.exists(), reason="the shared footage is not here")
def test_real_clips_by_their_boxes(evaluate: Run, tmp_path: Path) -> None:
    done = evaluate("footage", "--data", FOOTAGE, "--prompt", "box", "--limit", 1, "--out", tmp_path)
    assert done.code == 0, done.err
    page = json.loads((tmp_path / "report.json").read_text())
    (row,) = page["tables"][1]["rows"]
    assert row[:2] == ["davis-tennis/1", 70]
    assert len(page["series"][0]["frames"]) == 70


# ---- stops and shards -------------------------------------------------------------------------------------


def same_files(first: Path, second: Path) -> bool:
    files = [
        {path.relative_to(each): path.read_bytes() for path in each.rglob("*") if path.is_file()}
        for each in (first, second)
    ]
    return files[0] == files[1]


def test_killed_and_started_again_is_one_run(
    evaluate: Run, miniature: Miniature, model: Path, tmp_path: Path
) -> None:
    data, whole, parts = miniature("ref_davis17"), tmp_path / "whole", tmp_path / "parts"
    assert evaluate("ref_davis17", "--data", data, "--out", whole).code == 0
    command = [sys.executable, "-m", "x2roto", "evaluate", "ref_davis17", "--data", str(data), "--out", str(parts)]
    command += ["--device", "cpu", "--tokens", "6"]
    environment = {**os.environ, "X2ROTO_MODEL": str(model), "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
    silent = subprocess.DEVNULL
    process = subprocess.Popen(command, env=environment, stdout=silent, stderr=silent)
    deadline = time.monotonic() + 120
    while not list(parts.glob("samples/*.json.gz")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = len(list(parts.glob("samples/*.json.gz")))
    assert 0 < done < 24
    assert not (parts / "report.json").exists()
    again = evaluate("ref_davis17", "--data", data, "--out", parts)
    assert again.code == 0
    assert again.err.startswith(f"{done + 1}/24 ")
    for leftover in parts.rglob(".*"):
        leftover.unlink()
    assert same_files(whole, parts)


def test_shards_in_folders_of_their_own_are_merged(
    evaluate: Run, run: Run, miniature: Miniature, tmp_path: Path
) -> None:
    data = miniature("vspw")
    whole = evaluate("vspw", "--data", data, "--out", tmp_path / "whole")
    for shard in (1, 2):
        part = evaluate("vspw", "--data", data, "--out", tmp_path / str(shard), "--shard", f"{shard}/2")
        assert (part.code, part.out) == (0, b"")
        assert f"shard {shard}/2 is done" in part.err
        assert not (tmp_path / str(shard) / "report.html").exists()
    merged = run("evaluate", "merge", tmp_path / "2", tmp_path / "1", "--out", tmp_path / "merged")
    assert (merged.code, merged.out) == (0, whole.out)
    assert (tmp_path / "merged" / "report.json").read_bytes() == (tmp_path / "whole" / "report.json").read_bytes()
    run("evaluate", "merge", tmp_path / "2").assert_refused(3, "1 of 2 samples are not done, the first is 0")


def test_the_last_of_shards_in_one_folder_reports(evaluate: Run, miniature: Miniature, tmp_path: Path) -> None:
    for shard, code in (("2/2", b""), ("1/2", b"J ")):
        done = evaluate("davis16", "--data", miniature("davis16"), "--out", tmp_path / "out", "--shard", shard)
        assert done.code == 0
        assert done.out[:2] == code
    assert (tmp_path / "out" / "report.html").is_file()


# ---- mattes -----------------------------------------------------------------------------------------------


def write_mattes(folder: Path, left: int, name: str = "{:04d}.png") -> Path:
    folder.mkdir()
    for number in range(1001, 1004):
        alpha = np.zeros((32, 40), np.uint8)
        alpha[8:24, left : left + 12] = 255
        Image.fromarray(alpha).save(folder / name.format(number))
    return folder


def test_mattes_are_scored(run: Run, tmp_path: Path) -> None:
    truth, pred = write_mattes(tmp_path / "truth", 10), write_mattes(tmp_path / "pred", 14)
    done = run("evaluate", "mattes", "--pred", pred, "--truth", truth, "--out", tmp_path / "out")
    assert done.code == 0, done.err
    scores = dict(line.split() for line in done.out.decode().splitlines())
    assert float(scores["J"]) == pytest.approx(0.5)
    assert float(scores["sad_thousands"]) == pytest.approx(0.128)
    assert (tmp_path / "out" / "report.html").is_file()


def test_label_maps_of_a_submission_are_mattes(evaluate: Run, run: Run, miniature: Miniature, tmp_path: Path) -> None:
    evaluate("davis17", "--data", miniature("davis17"), "--out", tmp_path / "out", "--submit")
    pred = tmp_path / "out" / "submission" / "Annotations" / "clip0"
    with Image.open(pred / "00000.png") as picture:
        assert picture.getpalette()[: 3 * 256] == palette()
    done = run("evaluate", "mattes", "--pred", pred, "--truth", pred, "--out", tmp_path / "mattes")
    assert done.code == 0, done.err
    assert b"J 1\n" in done.out


# ---- what goes wrong --------------------------------------------------------------------------------------


def test_wrong_choices_are_one_line(run: Run, evaluate: Run, miniature: Miniature, tmp_path: Path) -> None:
    data = miniature("davis17")
    evaluate("davis9", "--data", data).assert_refused(
        2, "no benchmark is called 'davis9': use one of ade20k_instance"
    )
    evaluate("davis", "--data", tmp_path).assert_refused(3, "has none of MANIFEST.json, ImageSets/2017")
    evaluate("davis17", "--data", data, "--split", "x").assert_refused(2, "davis17 has no split 'x': use one of val")
    evaluate("vspw", "--data", data, "--prompt", "box").assert_refused(2, "vspw has no regions of kind 'box'")
    evaluate("davis17", "--data", data, "--shard", "3/2").assert_refused(2, "cannot read the shard '3/2': write I/N")
    evaluate("davis17", "--data", data, "--template", 9).assert_refused(2, "davis17 has templates 0 to 5, not 9")
    evaluate("davis17", "--data", tmp_path).assert_refused(3, "val.txt is missing")
    evaluate("davis17", "--data", data, "--model", tmp_path / "no").assert_refused(8, "no")
    run("evaluate", "merge", tmp_path).assert_refused(
        3, "holds no evaluation: give a folder that x2roto evaluate wrote"
    )
    pair = "--pred", tmp_path, "--truth", tmp_path
    run("evaluate", "mattes", *pair, "--name", "a").assert_refused(
        2, "cannot read the names 'a': write PREDICTED=TRUE"
    )


def test_results_are_not_mixed(evaluate: Run, miniature: Miniature, tmp_path: Path) -> None:
    data, out = miniature("davis16"), tmp_path / "out"
    assert evaluate("davis16", "--data", data, "--out", out).code == 0
    evaluate("davis16", "--data", data, "--out", out, "--mode", "reference").assert_refused(
        7, "holds another run, with mode 'standard', not 'reference': choose another --out"
    )
    evaluate("davis16", "--data", data, "--out", data / "ImageSets" / "480p" / "val.txt").assert_refused(
        7, "a part of the path is a file, not a folder"
    )


def test_a_damaged_picture_names_itself(evaluate: Run, miniature: Miniature, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(miniature("davis16"), data)
    (data / "JPEGImages" / "480p" / "clip0" / "00002.jpg").write_bytes(b"no picture")
    done = evaluate("davis16", "--data", data, "--out", tmp_path / "out")
    assert done.code == 3
    assert done.err.splitlines()[-1].startswith("x2roto: ")
    assert "00002.jpg cannot be read as a picture: download it again" in done.err


def test_a_missing_package_is_named(miniature: Miniature) -> None:
    code = (
        "import sys; sys.modules['pycocotools'] = None\n"
        f"sys.argv = ['x2roto', 'evaluate', 'davis16', '--data', {str(miniature('davis16'))!r}]\n"
        "from x2roto.cli.app import main\n"
        "main()"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, cwd=REPOSITORY, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (
        1,
        "x2roto: evaluation needs pycocotools: pip install 'x2roto[evaluate]'\n",
    )


def test_help_is_quick_and_loads_no_torch() -> None:
    code = (
        "import sys; sys.argv = ['x2roto', 'evaluate', '--help']\n"
        "from x2roto.cli.app import main\n"
        "try: main()\n"
        "except SystemExit as stop: assert not stop.code\n"
        "assert not {'torch', 'numpy', 'av', 'PIL'} & sys.modules.keys(), sorted(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=REPOSITORY, stdout=subprocess.DEVNULL)
