"""Templates, object names and frame numbers."""

from __future__ import annotations

from pathlib import Path

import pytest

from x2roto.errors import PromptError
from x2roto.export.naming import Template, object_names
from x2roto.matte import Track


def path(output: str, number: int | None = 1001, ext: str = "png", padding: int = 4, shot: str = "ab010") -> str:
    template = Template.parse(output)
    return str(template.path(shot=shot, kind="png", ext=ext, item="man", number=number, padding=padding))


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ("out", "out/ab010_man.1001.png"),
        ("out/{object}/{shot}.{frame}.{ext}", "out/man/ab010.1001.png"),
        ("m.%04d.png", "m.1001.png"),
        ("m.%06d.png", "m.001001.png"),
        ("m.#####.png", "m.01001.png"),
        ("m.@@@@.png", "m.1001.png"),
        ("m.$F4.png", "m.1001.png"),
        ("m.<frame>.png", "m.1001.png"),
        ("{format}/m.{frame:08}.png", "png/m.00001001.png"),
    ],
)
def test_outputs(output: str, expected: str) -> None:
    assert path(output) == expected


def test_a_file_of_all_frames_has_no_number() -> None:
    assert path("out", number=None, ext="mov") == "out/ab010_man.mov"
    assert path("m.####.mov", number=None, ext="mov") == "m.mov"


def test_padding_grows_and_shot_names_are_made_safe() -> None:
    assert path("out", number=10001, padding=5) == "out/ab010_man.10001.png"
    assert path("out", number=999, padding=5) == "out/ab010_man.00999.png"
    assert path("out", shot="my shot: ä/1") == "out/my_shot_1_man.1001.png"


@pytest.mark.parametrize(
    ("output", "reason"),
    [("{name}.png", "unknown field {name}"), ("{frame.png", "broken"), ("x.mov", "does not end in .png")],
)
def test_wrong_outputs(output: str, reason: str) -> None:
    with pytest.raises(PromptError, match=reason.replace("{", r"\{")):
        path(output)


def test_an_existing_folder_is_a_folder_whatever_its_name(tmp_path: Path) -> None:
    (tmp_path / "take.png").mkdir()
    assert Template.parse(str(tmp_path / "take.png")).folder == tmp_path / "take.png"


def test_object_names_are_unique_and_fit_layers() -> None:
    labels = ["The Right Man", "the right man", "равнина", "2nd car", "x" * 60, "x" * 60, "x" * 60]
    names = object_names(tuple(Track(index, label) for index, label in enumerate(labels, start=1)))
    assert names[1] == "the_right_man"
    assert names[2] == "the_right_man_2"
    assert len(set(names.values())) == len(labels)
    assert all(len(f"{name}.A") <= 31 and name[0].isalpha() for name in names.values())
