"""Resampling, grouped batches and the learning rate against the reference's."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.golden.folder import cases
from x2roto.train.sampling import (
    Source,
    count_micro_batches,
    mega_batches,
    micro_batches,
    rate_factor,
    repeat_factors,
)

FILES = cases("tasks", "sampling")

if not FILES:
    pytest.skip("no golden data for sampling", allow_module_level=True)


def check_repeats(case: dict[str, Any], _: dict[str, Any]) -> None:
    repeats = repeat_factors(case["lengths"], case["t"])
    assert repeats == pytest.approx(case["repeats"], rel=1e-9)
    effective = [int(n * r) for n, r in zip(case["lengths"], repeats, strict=True)]
    assert effective == case["effective_lengths"]


def check_grouped(case: dict[str, Any], _: dict[str, Any]) -> None:
    columns = (case["lengths"], case["group_batch_sizes"], case["batch_mults"], case["sub_lengths"])
    sources = [Source(length, batch * size, 1, counts) for length, size, batch, counts in zip(*columns, strict=True)]
    found = mega_batches(sources, 1, case["seed"], complete=case["round_up"])
    assert [[batch.source, list(batch.indices)] for batch in found] == case["out"]


def check_sampler(case: dict[str, Any], _: dict[str, Any]) -> None:
    sources = [_source(values, case) for values in case["sources"]]
    for world, expected in case["by_world"].items():
        for rank, epochs in enumerate(expected["batches"]):
            for epoch, batches in zip(case["epochs"], epochs, strict=True):
                found = list(micro_batches(sources, int(world), rank, case["seed"] + epoch))
                assert [list(batch.indices) for batch in found] == batches, (world, rank, epoch)
                assert len(found) == count_micro_batches(sources, int(world))
                assert sum(len(batch.indices) for batch in found) == expected["num_samples_per_rank"]


def _source(values: dict[str, Any], case: dict[str, Any]) -> Source:
    accumulation = case["modality_accumulative_counts"][values["task"].partition("_")[0]] * case["mega_batch_mult"]
    length = int(values["length"] * values["repeats"])
    batch = values["batch_mult"] * case["per_device_batch_size"]
    return Source(length, batch, accumulation, values["frame_counts"])


def check_rates(case: dict[str, Any], file: dict[str, Any]) -> None:
    for step, expected in zip(case["at"], case["lr"], strict=True):
        factor = rate_factor(step, case["iters"], file["warmup_ratio"], file["start_factor"])
        assert [factor * 1e-4, factor * 1e-5] == pytest.approx(expected, abs=0, rel=1e-9), step


CHECKS: dict[str, Callable[[dict[str, Any], dict[str, Any]], None]] = {
    "dataset-balanced resampling": check_repeats,
    "get_source_grouped_indices": check_grouped,
    "SourceGroupedSampler": check_sampler,
    "warm-up then cosine": check_rates,
}


def _cases() -> list[Any]:
    files = {path: json.loads(path.read_text()) for path in FILES}
    return [
        pytest.param(path, file, case, id=f"{path.stem}-{number}")
        for path, file in files.items()
        for number, case in enumerate(file["cases"])
    ]


@pytest.mark.parametrize(("path", "file", "case"), _cases())
def test_sampling_equals_the_reference(path: Path, file: dict[str, Any], case: dict[str, Any]) -> None:
    checks = [check for kind, check in CHECKS.items() if file["kind"].startswith(kind)]
    assert len(checks) == 1, f"{path.name} is of unknown kind {file['kind']!r}"
    checks[0](case, file)
