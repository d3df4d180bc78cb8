"""Presets: which file a name means, and that a wrong one says what is wrong with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from x2roto.errors import PromptError
from x2roto.job import ExportSpec, Job
from x2roto.preset import build_job, find_preset, list_presets, preset_files, read_preset

SHIPPED = ["after-effects", "dataset", "flame", "fusion", "nuke", "resolve", "review", "web"]


@pytest.fixture
def mine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The user's own folder, empty."""
    monkeypatch.delenv("X2ROTO_PRESETS", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    folder = tmp_path / "x2roto" / "presets"
    folder.mkdir(parents=True)
    return folder


def test_the_shipped_ones_are_right_and_described(mine: Path) -> None:
    presets = list_presets()
    assert [preset.name for preset in presets] == SHIPPED
    for preset in presets:
        assert preset.description
        assert preset.exports
        assert build_job("a.mov", {"text": "dog"}, preset=preset).exports == preset.exports


def test_the_users_hides_ours_and_the_environment_hides_both(
    mine: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (mine / "nuke.toml").write_text('description = "ours"\n')
    (mine / "house.toml").write_text('description = "house"\n')
    assert find_preset("nuke").description == "ours"
    assert list(preset_files()) == sorted([*SHIPPED, "house"])
    monkeypatch.setenv("X2ROTO_PRESETS", str(tmp_path / "show"))
    (tmp_path / "show").mkdir()
    (tmp_path / "show" / "nuke.toml").write_text('description = "show"\n')
    assert find_preset("nuke").description == "show"


def test_a_preset_by_its_file(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text('min_score = 0.5\nout = "there"\n[clip]\nstart_frame = 1\n')
    job = build_job("a.mov", {"text": "dog"}, preset=find_preset(str(tmp_path / "a.toml")))
    assert (job.min_score, job.out, job.clip.start_frame, job.preset) == (0.5, "there", 1, "a")
    assert job.exports == (ExportSpec("png"),)


def test_export_tables_become_options(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text('[[exports]]\nformat = "png"\ndepth = 8\n[[exports]]\nformat = "coco"\n')
    assert read_preset(tmp_path / "a.toml").exports == (ExportSpec("png", (("depth", "8"),)), ExportSpec("coco"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[refine", "cannot be read"),
        ("\xff", "cannot be read"),
        ("sharpness = 1", "unknown key 'sharpness': use one of clip, description, engine, exports, min_score"),
        ("[refine]\nsharpness = 1", r"\[refine\]: unknown key 'sharpness'"),
        ("[refine]\ngrow = 'much'", r"\[refine\]: grow is 'much': use a number"),
        ("[refine]\nsmooth = 2", r"\[refine\]: smooth is 2"),
        ("[refine]\nedge = 'fuzzy'", "edge is 'fuzzy': use auto, soft, hard, refined"),
        ("[engine]\nchunk = 0", r"\[engine\]: --chunk is 0"),
        ("[engine]\nchunk = true", "chunk is True: use a whole number"),
        ("[clip]\npath = 'a.mov'", r"\[clip\]: must be a table of options that names no clip"),
        ("refine = 3", "must be a table of options"),
        ("exports = 'png'", "exports must be tables"),
        ("[[exports]]\ndepth = 8", "format None is not one of png"),
        ("[[exports]]\nformat = 'gif'", "format 'gif' is not one of png"),
        ("min_score = 'high'", "min_score is 'high': use a number"),
        ("description = 3", "description is 3: use text"),
    ],
)
def test_a_wrong_preset_says_what_is_wrong(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "wrong.toml"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(PromptError, match=message) as told:
        read_preset(path)
    assert str(path) in str(told.value)
    assert "\n" not in str(told.value)


def test_no_preset_of_that_name(mine: Path) -> None:
    with pytest.raises(PromptError, match="no preset is called 'vhs': use one of after-effects, dataset, flame"):
        find_preset("vhs")


def test_a_broken_preset_does_not_hide_the_others(mine: Path) -> None:
    (mine / "broken.toml").write_text("[")
    assert find_preset("nuke").name == "nuke"


def test_defaults_without_a_preset() -> None:
    job = build_job("a.mov", {"text": "dog", "edge": None})
    assert job == Job(job.clip, job.prompts)
