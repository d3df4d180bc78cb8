"""Every layout of a data set by name: one table of the image and the video layouts."""

from __future__ import annotations

from pathlib import Path

from x2roto.data.image import IMAGE_LAYOUTS
from x2roto.data.sample import Layout, Layouts, PromptKind
from x2roto.data.video import VIDEO_LAYOUTS
from x2roto.errors import InputError, PromptError

LAYOUTS: Layouts = {**IMAGE_LAYOUTS, **VIDEO_LAYOUTS}


def layout_named(name: str) -> Layout:
    """The layout of that name. Raises PromptError listing those there are."""
    if name not in LAYOUTS:
        raise PromptError(f"no data set layout is called {name!r}: use one of {', '.join(sorted(LAYOUTS))}")
    return LAYOUTS[name]


def davis_layout(root: Path) -> str:
    """The name of the layout that a folder of DAVIS has, of either year, or one of clips like its with a manifest.

    Raises InputError when it has none.
    """
    marks = {"MANIFEST.json": "footage", "ImageSets/2017": "davis17", "ImageSets/480p": "davis16"}
    found = next((name for mark, name in marks.items() if (root / mark).exists()), None)
    if found is None:
        raise InputError(f"{root} has none of {', '.join(marks)}: give the folder of DAVIS or of such clips", root)
    return found


def chosen_split(layout: Layout, split: str | None) -> str:
    """The split asked for, or the layout's first. Raises PromptError listing those there are."""
    if split is not None and split not in layout.splits:
        raise PromptError(f"data set {layout.name} has no split {split!r}: use one of {', '.join(layout.splits)}")
    return split or layout.splits[0]


def chosen_prompt(layout: Layout, prompt: PromptKind | None) -> PromptKind | None:
    """The kind of regions asked for, or the layout's first, None where there is none. Raises PromptError."""
    if prompt is not None and prompt not in layout.prompts:
        kinds = f"use one of {', '.join(layout.prompts)}" if layout.prompts else "leave the option out"
        raise PromptError(f"data set {layout.name} has no regions of kind {prompt!r}: {kinds}")
    return prompt or next(iter(layout.prompts), None)
