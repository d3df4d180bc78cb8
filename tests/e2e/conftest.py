"""What the end-to-end tests share: a tiny model, short clips made in code, the command line run in this process."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.media import pictures, write_movie, write_pictures
from tests.tiny import write_tiny_model
from x2roto.cli.app import main

COUNT = 12


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a command ended, and what it said."""

    code: int
    out: bytes
    err: str

    def assert_refused(self, code: int, message: str) -> None:
        """One line on standard error with `message` in it, nothing on standard output, that exit code."""
        assert (self.code, self.out) == (code, b""), self.err
        assert self.err.startswith("x2roto: "), self.err
        assert self.err.count("\n") == 1, self.err
        assert self.err.endswith("\n")
        assert message in self.err


Run = Callable[..., Outcome]


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder of tiny random weights."""
    return write_tiny_model(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="session")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `clip.mp4` and `shot/shot.%04d.png`: the same 12 frames from 1001 on."""
    folder = tmp_path_factory.mktemp("media")
    write_movie(folder / "clip.mp4", pictures(COUNT), options={"g": "4"})
    write_pictures(folder / "shot" / "shot.%04d.png", pictures(COUNT))
    return folder


@pytest.fixture
def run(
    capsysbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, model: Path
) -> Run:
    """Run `x2roto …` in this process and in an empty folder, with the tiny model and no user settings."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("X2ROTO_MODEL", str(model))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv("X2ROTO_PRESETS", raising=False)
    monkeypatch.delenv("X2ROTO_DEBUG", raising=False)

    def run_main(*arguments: object, stdin: bytes = b"") -> Outcome:
        monkeypatch.setattr(sys, "argv", ["x2roto", *map(str, arguments)])
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=BytesIO(stdin)))
        with pytest.raises(SystemExit) as stopped:
            main()
        captured = capsysbinary.readouterr()
        assert isinstance(stopped.value.code, int)
        return Outcome(stopped.value.code, captured.out, captured.err.decode())

    return run_main


@pytest.fixture
def cut(run: Run, media: Path) -> Run:
    """Run `x2roto segment` on the movie; the tiny model is unsure of everything, so nothing is left out."""

    def run_segment(*arguments: object, clip: str = "clip.mp4", stdin: bytes = b"") -> Outcome:
        source = clip if clip == "-" else media / clip
        return run("segment", source, "--presence", 0, "--progress", "none", *arguments, stdin=stdin)

    return run_segment
