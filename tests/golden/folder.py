"""Where the golden data lie: `X2ROTO_GOLDEN`, else `../shared/golden` beside the repository, else the copy here."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

HERE = Path(__file__).parent
BESIDE = HERE.parents[2] / "shared" / "golden"
COMPACT = HERE / "data"


@cache
def golden_folder() -> Path:
    """The folder in use: it holds `engine/` and `tasks/`, each possibly incomplete."""
    named = os.environ.get("X2ROTO_GOLDEN")
    if named:
        return Path(named).resolve()
    return BESIDE if BESIDE.is_dir() else COMPACT


def cases(*parts: str, pattern: str = "*.json") -> list[Path]:
    """The case files below `parts` of the golden folder, sorted; empty when the folder has none."""
    return sorted(golden_folder().joinpath(*parts).glob(pattern))
