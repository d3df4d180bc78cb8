"""`x2roto models`: one line and exit code 8 for every model that cannot be used, JSON alone on standard output."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.golden.folder import golden_folder
from tests.tiny import TINY
from tests.unit.hub import COMMIT, Hub, serving
from tests.unit.reference_files import ALPHA, FAULTS, reference
from x2roto.cli.app import main
from x2roto.engine import parity


@dataclass(frozen=True, slots=True)
class Outcome:
    code: int
    out: str
    err: str

    def assert_refused(self, code: int, message: str) -> None:
        """One line on standard error with `message` in it, nothing on standard output, that exit code."""
        assert self.code == code, self.err
        assert message in self.err
        assert self.err.startswith("x2roto: ")
        assert self.err.count("\n") == 1
        assert self.out == ""


Run = Callable[..., Outcome]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Run `x2roto models …` in this process, with an empty cache and no model chosen."""
    monkeypatch.setenv("X2ROTO_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("X2ROTO_MODEL", raising=False)

    def run_main(*arguments: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["x2roto", "models", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            main()
        captured = capsys.readouterr()
        assert isinstance(stopped.value.code, int)
        return Outcome(stopped.value.code, captured.out, captured.err)

    return run_main


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path, Path]:
    """Checkpoint, base folder and config file of a small model."""
    config = tmp_path / "tiny.json"
    config.write_text(json.dumps(TINY.to_dict()))
    return (*reference().write(tmp_path), config)


@pytest.fixture
def tiny(run: Run, files: tuple[Path, Path, Path], tmp_path: Path) -> Path:
    """A small model in the cache, named "tiny"."""
    checkpoint, base, config = files
    folder = tmp_path / "cache" / "models" / "tiny"
    outcome = run("convert", checkpoint, base, folder, "--config", config, "--lora-alpha", ALPHA)
    assert outcome.code == 0, outcome.err
    assert outcome.out == ""
    return folder


def test_a_converted_model_is_listed_shown_and_verified(run: Run, tiny: Path) -> None:
    listed = json.loads(run("list", "--json").out)
    assert {"name": "tiny", "path": str(tiny), "origin": "cache"} in listed
    shown = json.loads(run("info", "tiny", "--json").out)
    assert shown["config"]["name"] == "tiny"
    assert shown["path"] == str(tiny)
    assert shown["dtype"] == "bfloat16"
    assert sum(shown["parameters"].values()) == sum(t.numel() for t in reference().merged.values())
    verified = run("verify", "tiny", "--json")
    assert verified.code == 0
    assert json.loads(verified.out) == dict.fromkeys(shown["files"], True)


@pytest.mark.parametrize("verb", ["list", "info", "verify"])
def test_what_people_read_goes_to_standard_error(
    verb: str, run: Run, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("X2ROTO_MODEL", "tiny")
    monkeypatch.setenv("COLUMNS", "300")
    outcome = run(verb)
    assert outcome.code == 0
    assert outcome.out == ""
    assert "tiny" in outcome.err


def test_info_tells_sizes_digests_and_licences(run: Run, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "1000")
    shown = run("info", "tiny").err
    header = json.loads(run("info", "tiny", "--json").out)
    for expected in (*header["files"].values(), "MIT", "Apache-2.0", "[8, 16, 32, 48]", "mask encoder"):
        assert expected in shown


@pytest.mark.parametrize("fault", FAULTS)
def test_a_checkpoint_that_does_not_fit_is_one_line(fault: str, run: Run, tmp_path: Path) -> None:
    change, message = FAULTS[fault]
    checkpoint, base = reference().write(tmp_path, change)
    (tmp_path / "tiny.json").write_text(json.dumps(TINY.to_dict()))
    outcome = run("convert", checkpoint, base, tmp_path / "out", "--config", tmp_path / "tiny.json")
    outcome.assert_refused(8, message)
    assert not (tmp_path / "out").exists()


class _Trap:
    """Unpickling this creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.touch, (self.path,)


def test_code_in_a_checkpoint_does_not_run(run: Run, files: tuple[Path, Path, Path], tmp_path: Path) -> None:
    checkpoint, base, _ = files
    torch.save({"bg_embeds.weight": _Trap(tmp_path / "sprung")}, checkpoint)
    run("convert", checkpoint, base, tmp_path / "out").assert_refused(8, "refused, nothing was run")
    assert not (tmp_path / "sprung").exists()


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda checkpoint, base, config: checkpoint.unlink(), "no file"),
        (
            lambda checkpoint, base, config: _cut(checkpoint),
            "is cut short, damaged or no PyTorch file; fetch it again",
        ),
        (lambda checkpoint, base, config: shutil.rmtree(base), "no base model at"),
        (lambda checkpoint, base, config: (base / "tokenizer.json").unlink(), "no tokenizer at"),
        (lambda checkpoint, base, config: config.write_text("{"), "not valid JSON"),
        (lambda checkpoint, base, config: config.write_text('{"dim": "wide"}'), "config.dim must be of type int"),
    ],
)
def test_files_that_cannot_be_used_are_one_line(
    change: Callable[[Path, Path, Path], object],
    message: str,
    run: Run,
    files: tuple[Path, Path, Path],
    tmp_path: Path,
) -> None:
    checkpoint, base, config = files
    change(checkpoint, base, config)
    run("convert", checkpoint, base, tmp_path / "out", "--config", config).assert_refused(8, message)


def test_the_released_sizes_are_assumed_without_a_config(
    run: Run, files: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    checkpoint, base, _ = files
    outcome = run("convert", checkpoint, base, tmp_path / "out")
    outcome.assert_refused(8, "global_blocks (23, 33, 43) cannot belong to these weights")


def test_an_existing_model_is_kept(run: Run, tiny: Path, files: tuple[Path, Path, Path]) -> None:
    checkpoint, base, config = files
    run("convert", checkpoint, base, tiny, "--config", config).assert_refused(7, "exists already")
    assert run("convert", checkpoint, base, tiny, "--config", config, "--replace").code == 0


@pytest.mark.parametrize("verb", ["info", "verify"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: shutil.rmtree(folder), "no model 'tiny'"),
        (lambda folder: (folder / "x2roto.json").write_text("{"), "x2roto.json is not valid JSON"),
        (lambda folder: (folder / "x2roto.json").write_text('{"schema": 9}'), "is of schema 9"),
    ],
)
def test_a_model_that_cannot_be_read_is_one_line(
    change: Callable[[Path], object], message: str, verb: str, run: Run, tiny: Path
) -> None:
    change(tiny)
    run(verb, "tiny").assert_refused(8, message)


@pytest.mark.parametrize("change", [_cut, Path.unlink])
def test_verify_finds_damage(change: Callable[[Path], object], run: Run, tiny: Path) -> None:
    change(tiny / "model.safetensors")
    run("verify", "tiny").assert_refused(8, f"model.safetensors in {tiny} missing or damaged")


def _boundaries(*passed: bool) -> list[parity.Boundary]:
    return [parity.Boundary("case", f"b{n}", 1e-5, 1e-6, 1e-4, ok) for n, ok in enumerate(passed)]


def test_verify_golden_reports_every_boundary(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parity, "verify", lambda folder: _boundaries(True, False))
    monkeypatch.setenv("COLUMNS", "200")
    read = run("verify", "--golden", tmp_path)
    assert (read.code, read.out) == (8, "")
    assert "FAILED" in read.err
    assert read.err.splitlines()[-1] == f"x2roto: 1 of 2 boundaries of {tmp_path} are outside their tolerance"
    as_json = run("verify", "--golden", tmp_path, "--json")
    assert as_json.code == 8
    assert json.loads(as_json.out) == [asdict(boundary) for boundary in _boundaries(True, False)]


def test_verify_golden_without_golden_data_is_one_line(run: Run, tmp_path: Path) -> None:
    run("verify", "--golden", tmp_path).assert_refused(8, "index.json not found")


def test_the_engine_passes_the_golden_data(run: Run) -> None:
    golden = golden_folder() / "engine"
    if not (golden / "index.json").is_file():
        pytest.skip(f"no golden engine data in {golden}")
    outcome = run("verify", "--golden", golden, "--json")
    failed = [boundary for boundary in json.loads(outcome.out) if not boundary["passed"]]
    assert (outcome.code, failed) == (0, [])


def test_pull_in_a_process_of_its_own_continues_and_refuses(tmp_path: Path) -> None:
    files = {"README.md": b"x", "pytorch_model.bin": bytes(5000)}
    base = {"config.json": b"{}", "tokenizer.json": b"{}", "model.safetensors": bytes(100)}
    repositories = {"hao9610/X2SAM": files, "Qwen/Qwen3-VL-4B-Instruct": base}
    settings = {"HF_HUB_OFFLINE": "0", "HF_HUB_DOWNLOAD_TIMEOUT": "1", "X2ROTO_CACHE": str(tmp_path)}
    with serving(Hub(repositories)) as hub:
        hub.faults["pytorch_model.bin"] += ["cut"]
        hub.faults["config.json"] += ["corrupt", "corrupt"]
        done = subprocess.run(
            [sys.executable, "-m", "x2roto", "models", "pull"],
            env={"HOME": str(tmp_path), "PATH": "", "HF_ENDPOINT": hub.endpoint, **settings},
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 8
    assert done.stdout == ""
    *told, error = done.stderr.splitlines()
    assert [line.split(" (")[0] for line in told] == [
        "1/4 hao9610/X2SAM pytorch_model.bin",
        "2/4 Qwen/Qwen3-VL-4B-Instruct config.json",
    ]
    assert error.startswith("x2roto: config.json of Qwen/Qwen3-VL-4B-Instruct arrived 2 times")
    kept = tmp_path / "downloads" / f"hao9610--X2SAM--{COMMIT}"
    assert {path.name: path.read_bytes() for path in kept.iterdir()} == {"pytorch_model.bin": bytes(5000)}


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; from x2roto.cli.app import main\n"
        "sys.argv = ['x2roto', 'models', '--help']\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'transformers', 'huggingface_hub', 'safetensors', 'numpy'} & sys.modules.keys()\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "verify" in done.stdout
