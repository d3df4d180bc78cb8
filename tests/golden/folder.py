"""Where the golden data lie: `X2ROTO_GOLDEN`, else `../shared/golden` beside the repository, else the copy here."""

from __future__ import annotations

import os
import tarfile
import tempfile
from functools import cache
from pathlib import Path

HERE = Path(__file__).parent
BESIDE = HERE.parents[2] / "shared" / "golden"
# Two, so that a change to the small one does not cost every clone the large one again.
ARCHIVE = HERE / "data" / "golden.tar.xz"
MEASURES = HERE / "data" / "measures.tar.xz"


@cache
def golden_folder() -> Path:
    """The folder in use: it holds `engine/` and `tasks/`, each possibly incomplete."""
    named = os.environ.get("X2ROTO_GOLDEN")
    if named:
        return Path(named).resolve()
    return BESIDE if BESIDE.is_dir() else _unpacked()


def _unpacked() -> Path:
    # Named after the archives' dates, so parallel test processes share one and a new archive gets a new one.
    stats = [archive.stat() for archive in (ARCHIVE, MEASURES)]
    version = "-".join(f"{stat.st_mtime_ns}-{stat.st_size}" for stat in stats)
    folder = Path(tempfile.gettempdir()) / f"x2roto-golden-{version}-{os.getuid()}"
    if not folder.is_dir():
        with tempfile.TemporaryDirectory() as partial:
            for packed in (ARCHIVE, MEASURES):
                with tarfile.open(packed) as archive:
                    archive.extractall(Path(partial) / "golden", filter="data")
            try:
                (Path(partial) / "golden").rename(folder)
            except OSError:
                assert folder.is_dir()  # another process was first
    return folder


def cases(*parts: str, pattern: str = "*.json") -> list[Path]:
    """The case files below `parts` of the golden folder, sorted; empty when the folder has none."""
    return sorted(golden_folder().joinpath(*parts).glob(pattern))
