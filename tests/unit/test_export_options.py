"""The table of formats and their options."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import pytest

from x2roto.clip import ClipInfo
from x2roto.errors import OutputError, PromptError
from x2roto.export import EXPORTERS, Take, Template, load_exporter, make_options, open_writer
from x2roto.matte import Track


def take(count: int | None = 3, labels: tuple[str, ...] = ("man", "ball")) -> Take:
    info = ClipInfo(16, 16, Fraction(24), count, 1001)
    tracks = tuple(Track(index, label) for index, label in enumerate(labels, start=1))
    return Take("shot", info, tracks, None if count is None else range(1001, 1001 + count))


@pytest.mark.parametrize("name", EXPORTERS)
def test_options_are_frozen_and_every_default_is_allowed(name: str) -> None:
    defaults = load_exporter(name).Options()
    given = {field.name: getattr(defaults, field.name) for field in dataclasses.fields(defaults)}
    assert make_options(name, {key: str(value) for key, value in given.items()}) == defaults
    assert type(defaults).__dataclass_params__.frozen


@pytest.mark.parametrize(
    ("name", "values", "words"),
    [
        ("jpeg", {}, "unknown format 'jpeg'"),
        ("png", {"bits": 8}, "no option 'bits': use one of content, depth"),
        ("png", {"depth": 12}, "use one of 8, 16"),
        ("exr", {"compression": "jpeg"}, "use one of none, rle"),
        ("exr", {"crop": "maybe"}, "use true or false"),
        ("contact", {"columns": "many"}, "whole number"),
        ("cryptomatte", {"compression": "dwaa"}, "use one of none"),
    ],
)
def test_wrong_options(name: str, values: dict[str, object], words: str) -> None:
    with pytest.raises(PromptError, match=words):
        make_options(name, values)


@pytest.mark.parametrize(
    ("name", "output", "words"),
    [
        ("png", "m_{object}.png", "add {frame}"),
        ("png", "m.{frame}.png", "add {object}"),
        ("prores", "m.mov", "add {object}"),
        ("prores", "{object}.mkv", "does not end in .mov"),
    ],
)
def test_names_that_would_collide(name: str, output: str, words: str) -> None:
    with pytest.raises(PromptError, match=words.replace("{", r"\{")):
        open_writer(name, Template.parse(output), take())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"background": "no-such-colour"}, "neither a file"),
        ({"background": "blur:-3"}, "no blur"),
        ({"filter": "[fg]negate"}, r"end in \[out\]"),
        ({"codec_args": "crf"}, "name=value"),
    ],
)
def test_composites_that_cannot_work(options: dict[str, str], words: str, tmp_path: Path) -> None:
    with pytest.raises(PromptError, match=words):
        open_writer("composite", Template(tmp_path), take(), make_options("composite", options))


def test_an_object_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(PromptError, match="use one of man, ball"):
        open_writer("y4m", Template(tmp_path), take(), make_options("y4m", {"object": "dog"}))


def test_davis_ids_must_fit(tmp_path: Path) -> None:
    with pytest.raises(PromptError, match="1 to 255"):
        open_writer("davis", Template(tmp_path), take(labels=tuple(f"thing{index}" for index in range(256))))


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "x2roto.export.exr", raising=False)
    monkeypatch.setitem(sys.modules, "OpenEXR", None)
    with pytest.raises(OutputError, match="'exr' needs the Python package OpenEXR"):
        load_exporter("exr")


def test_paths_are_known_before_anything_is_written(tmp_path: Path) -> None:
    writer = open_writer("png", Template(tmp_path), take())
    assert writer.paths(1002) == (tmp_path / "shot_man.1002.png", tmp_path / "shot_ball.1002.png")
    assert not writer.finished(1002)
    assert open_writer("overlay", Template(tmp_path), take()).paths(1002) == (tmp_path / "shot_overlay.mp4",)


def test_padding_follows_the_last_number() -> None:
    assert take(3).padding == 4
    assert take(9000).padding == 5
    assert take(None).padding == 4


def test_importing_the_table_loads_no_encoder() -> None:
    heavy = ("torch", "av", "OpenEXR", "PIL", "scipy", "pymatting")
    script = f"import sys, x2roto.export, x2roto.matte; print([name for name in {heavy!r} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
