"""Where the golden data lie: `X2ROTO_GOLDEN`, else `../shared/golden` beside the repository, else the copy here."""

from __future__ import annotations

import os
import tarfile
import tempfile
from functools import cache
from pathlib import Path

HERE = Path(__file__).parent
BESIDE = HERE.parents[2] / "shared" / "golden"
ARCHIVE = HERE / "data" / "golden.tar.xz"


@cache
def golden_folder() -> Path:
    """The folder in use: it holds `engine/` and `tasks/`, each possibly incomplete."""
    named = os.environ.get("X2ROTO_GOLDEN")
    if named:
        return Path(named).resolve()
    return BESIDE if BESIDE.is_dir() else _unpacked()


def _unpacked() -> Path:
    # Named after the archive's date, so parallel test processes share one and a new archive gets a new one.
    stat = ARCHIVE.stat()
    folder = Path(tempfile.gettempdir()) / f"x2roto-golden-{stat.st_mtime_ns}-{stat.st_size}-{os.getuid()}"
    if not folder.is_dir():
        with tempfile.TemporaryDirectory() as partial, tarfile.open(ARCHIVE) as archive:
            archive.extractall(Path(partial) / "golden", filter="data")
            try:
                (Path(partial) / "golden").rename(folder)
            except OSError:
                assert folder.is_dir()  # another process was first
    return folder


def cases(*parts: str, pattern: str = "*.json") -> list[Path]:
    """The case files below `parts` of the golden folder, sorted; empty when the folder has none."""
    return sorted(golden_folder().joinpath(*parts).glob(pattern))
