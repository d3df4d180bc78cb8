"""x2roto: mattes for every frame of a clip, from a sentence, a question, a class list or a region.

`x2roto.segment("clip.mp4", text="the right man", output="mattes")` is the command line in one call; `Job` with
`run` says the same in types. Importing this package loads neither torch nor transformers nor av.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

# Public names by the module they live in, which is imported when one is first used.
_PUBLIC = {
    "x2roto.pipeline": ("Progress", "Summary", "run", "segment"),
    "x2roto.still": ("preview",),
    "x2roto.planning": ("Plan", "plan"),
    "x2roto.job": ("ClipSpec", "EngineSpec", "ExportSpec", "Job"),
    "x2roto.matte": ("Matte", "MatteFrame", "Refine", "Track"),
    "x2roto.prompt": ("Box", "Classes", "Describe", "MaskPrompt", "Points", "Question", "Scribble", "Text"),
    "x2roto.clip": ("ClipInfo", "Frame", "FrameRange"),
    "x2roto.source": ("FrameSource", "open_source"),
    "x2roto.engine.segmenter": ("Segmenter", "load_segmenter"),
    "x2roto.errors": (
        "DeviceMemoryError",
        "InputError",
        "ModelError",
        "OutputError",
        "PromptError",
        "RotoError",
    ),
}
_HOME = {name: module for module, names in _PUBLIC.items() for name in names}
__all__ = sorted([*_HOME, "__version__"])


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'x2roto' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return __all__
