"""The engine benchmark: its counts, its arithmetic, and that the reference's order gives our results."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
from typer import Typer
from typer.testing import CliRunner

from bench import engine as bench
from tests.tiny import TINY

CPU = torch.device("cpu")
SETTING = bench.Setting(CPU, torch.float32, seed=0, repeats=1)


def tiny_workload(**changes: object) -> bench.Workload:
    small = bench.workload(bench.Size.SMALL, language=True, frames=3, chunk=2, memory=2)
    return replace(small, config=TINY, plate=(96, 64), glimpse=4, text=8, **changes)


def app() -> Typer:
    typed = Typer()
    typed.command()(bench.main)
    return typed


def test_every_stage_is_counted_and_timed() -> None:
    report = bench.run(tiny_workload(), SETTING, shot=6)
    tracked = [stage.name for stage in report.stages if stage.gflop is None]
    assert tracked == ["whole frame, through the tracker"]
    assert all(stage.timing is not None and stage.timing.seconds > 0 for stage in report.stages)
    assert all(stage.gflop != 0 for stage in report.stages)
    assert len(report.comparisons) == 5
    assert report.shot is not None
    assert report.shot.first > 0 < report.shot.rate
    json.dumps(bench.asdict(report))


@cache
def counted(chunk: int) -> dict[str, float]:
    return bench.count_flops(tiny_workload(language=False, chunk=chunk), torch.float32)


def test_whole_frame_costs_what_its_stages_cost() -> None:
    """All that a frame multiplies is in some stage, except the class logits."""
    parts = sum(gflop for name, gflop in counted(2).items() if name != "whole frame")
    assert parts == pytest.approx(counted(2)["whole frame"], rel=1e-3)


def test_count_does_not_depend_on_the_chunk() -> None:
    assert counted(2) == pytest.approx(counted(3))


def test_counts_of_a_matrix_product() -> None:
    a = torch.empty(3, 5, device="meta")
    assert bench._flops(bench.Stage("product", lambda: a @ a.mT)) == 2 * 3 * 5 * 3


def test_a_wrong_result_is_refused() -> None:
    wrong = bench.Comparison("pair", lambda: [torch.ones(3)], lambda: [torch.tensor([1.0, 1.0, 2.0])])
    assert bench.compare(wrong, wrong, CPU, repeats=1).difference > bench.SAME


def test_reference_order_and_ours_agree_frame_by_frame() -> None:
    with torch.inference_mode():
        scene = SETTING.scene(tiny_workload(language=False))
        stock = bench.stock_pixel_decoder(scene.segmentor, scene.workload.config)
        frames = zip(bench.reference_in_order(scene, stock, 3), bench.ours_in_order(scene, 3), strict=True)
        for reference, ours in frames:
            torch.testing.assert_close(ours, reference, atol=1e-4, rtol=1e-4)


def test_agreement_of_equal_and_of_opposite_logits() -> None:
    logits = torch.tensor([1.0, -2.0, 3.0])
    same = bench.agreement("case", bench.EXACT, logits, logits)
    opposite = bench.agreement("case", bench.ROUNDED, -logits, logits)
    assert (same.rms, same.signs, same.passed) == (0.0, 0.0, True)
    assert (opposite.rms, opposite.signs, opposite.passed) == (2.0, 1.0, False)


def test_counting_alone_from_the_command_line(tmp_path: Path) -> None:
    target = tmp_path / "report.json"
    options = ["--device", "meta", "--size", "small", "--no-language", "--json", str(target)]
    result = CliRunner().invoke(app(), options, catch_exceptions=False)
    assert result.exit_code == 0
    report = json.loads(target.read_text())
    assert report["ceiling"] is None
    assert report["comparisons"] == []
    assert all(stage["gflop"] > 0 and stage["timing"] is None for stage in report["stages"])
