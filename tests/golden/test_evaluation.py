"""Golden cases of parts that are not built yet: shown as skipped, so that nobody takes them for passed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.golden.folder import cases

PENDING = [path for part in ("metrics", "vprompt") for path in cases("tasks", part)]


@pytest.mark.parametrize("path", PENDING, ids=lambda path: f"{path.parent.name}/{path.stem}")
@pytest.mark.skip(reason="evaluation metrics and the V-VGD builder are not built yet")
def test_evaluation_case(path: Path) -> None:
    raise AssertionError(path)
