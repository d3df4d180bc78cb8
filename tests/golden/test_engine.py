"""Every engine case of the golden folder: our network against tensors of the reference, boundary by boundary."""

from __future__ import annotations

import json
from functools import cache

import pytest

from tests.golden.folder import golden_folder
from x2roto.engine.parity import Golden

FOLDER = golden_folder() / "engine"
INDEX = FOLDER / "index.json"
CASES = (
    [name.removesuffix(".safetensors") for name, facts in json.loads(INDEX.read_text())["files"].items()
     if isinstance(facts, dict)]
    if INDEX.is_file()
    else []
)  # fmt: skip


@cache
def golden() -> Golden:
    return Golden.open(FOLDER)


@pytest.mark.skipif(not CASES, reason=f"no golden engine cases in {FOLDER}")
@pytest.mark.parametrize("case", CASES)
def test_network_equals_the_reference(case: str) -> None:
    boundaries = list(golden().run(case))
    assert boundaries, "a case that compares nothing proves nothing"
    failed = [f"{b.boundary}: {b.max_abs:.2e} > {b.tolerance:.0e}" for b in boundaries if not b.passed]
    assert not failed, f"{case}: {failed}"
