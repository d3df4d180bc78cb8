"""Visual prompts and the choice of their frame against the reference's.

The data hold no input masks, only their components and the prompts drawn from them. Boxes and scribbles need no more.
For points a pixel is taken to be in the mask when its whole disc is in the recorded prompt, which is true of just the
pixels that the reference chose. For masks the input is estimated from the prompt, its boxes and its areas.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt, gaussian_filter

from tests.golden.folder import cases
from x2roto.data.vprompt import DRAWERS, SMALLEST_AREA, Component, prompt_frame, visual_prompt
from x2roto.prompt import POINT_RADIUS, SCRIBBLE_RADIUS

FILES = cases("tasks", "vprompt")

if not FILES:
    pytest.skip("no golden data for visual prompts", allow_module_level=True)

Arrays = dict[str, NDArray[Any]]


def check_prompts(facts: dict[str, Any], arrays: Arrays) -> None:
    params = facts["params"]
    assert (params["point_radius"], params["scribble_radius"]) == (POINT_RADIUS, SCRIBBLE_RADIUS)
    assert params["min_area"] == SMALLEST_AREA
    for case in facts["cases"]:
        components = [component(each) for each in case["components"]]
        wanted = {kind: arrays[f"{kind}{case['i']}"] > 0 for kind in DRAWERS}
        for kind in ("point", "scribble", "box"):
            inside = chosen_pixels(wanted["point"], params["point_radius"])
            found = DRAWERS[kind](inside, components, random.Random(case["seed"]), 1.0)
            np.testing.assert_array_equal(found, wanted[kind], err_msg=f"{kind} of case {case['i']}")
            assert found.sum() == case[f"{kind}_area"]
        estimate = estimated_input(wanted["mask"], case["components"])
        off = visual_prompt(estimate, "mask", random.Random(0), reference=True) ^ wanted["mask"]
        assert off.sum() < 0.02 * case["mask_area"], f"mask of case {case['i']}: {off.sum()} pixels differ"


def component(facts: dict[str, Any]) -> Component:
    top, left, bottom, right = facts["bbox"]
    down, across = facts["centroid"]
    return Component(top, left, bottom, right, (down, across))


def chosen_pixels(prompt: NDArray[np.bool_], radius: float) -> NDArray[np.bool_]:
    """Pixels whose whole disc, as far as it is in the picture, is in `prompt`."""
    margin = int(radius) + 2
    depth = distance_transform_edt(np.pad(prompt, margin, constant_values=True))
    return np.asarray(depth[margin:-margin, margin:-margin] > radius)


def estimated_input(prompt: NDArray[np.bool_], components: list[dict[str, Any]]) -> NDArray[np.bool_]:
    """In the box of each component, as many pixels as it has, those deepest in the prompt."""
    depth = gaussian_filter(prompt.astype(float), 2) + 1e-3 * np.minimum(distance_transform_edt(prompt), 5)
    found = np.zeros_like(prompt)
    for each in components:
        top, left, bottom, right = each["bbox"]
        inside = np.where(prompt, depth, -1)[top:bottom, left:right]
        found[top:bottom, left:right] |= inside >= np.sort(inside.ravel())[-each["area"]]
    return found


def check_prompt_frame(facts: dict[str, Any], _: Arrays) -> None:
    for case in facts["cases"]:
        assert prompt_frame(case["frame_categories"]) == case["index"], case["frame_categories"]


CHECKS: dict[str, Callable[[dict[str, Any], Arrays], None]] = {
    "point / scribble / box / mask prompts": check_prompts,
    "prompt frame choice": check_prompt_frame,
}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_vprompt_case(path: Path) -> None:
    facts = json.loads(path.read_text())
    check = next(check for kind, check in CHECKS.items() if facts["kind"].startswith(kind))
    stored = path.with_suffix(".npz")
    check(facts, dict(np.load(stored)) if stored.exists() else {})
