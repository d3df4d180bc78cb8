"""The table of layouts: names, choices, and which of DAVIS's layouts a folder has."""

from __future__ import annotations

from pathlib import Path

import pytest

from x2roto.data.layouts import LAYOUTS, davis_layout, layout_named
from x2roto.errors import InputError, PromptError


@pytest.mark.parametrize("name", ["footage", "davis16", "davis17"])
def test_a_folder_of_davis_tells_its_layout(name: str, tmp_path: Path) -> None:
    LAYOUTS[name].miniature(tmp_path, 0)
    assert davis_layout(tmp_path) == name


def test_another_folder_is_not_davis(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has none of MANIFEST\.json, ImageSets/2017, ImageSets/480p"):
        davis_layout(tmp_path)


def test_an_unknown_layout_names_the_known() -> None:
    with pytest.raises(PromptError, match="no data set layout is called 'davis18': use one of ade20k_instance"):
        layout_named("davis18")
