"""Training configs: presets load, wrong ones say where, the digest ignores how a run reports."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.shapes import run_values, toml
from tests.tiny import TINY
from x2roto.errors import ModelError, PromptError
from x2roto.train.config import Losses, find_config, load_config, parse_config

HERE = Path("run.toml")
PRESETS = sorted((Path(__file__).parents[2] / "presets" / "train").glob("*.toml"))


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_shipped_presets_load_by_name(path: Path) -> None:
    assert load_config(find_config(path.stem)) == load_config(path)


def test_full_size_presets_have_the_papers_numbers() -> None:
    first, joint = (load_config(find_config(name)) for name in ("segmentor", "joint"))
    assert (first.stage, joint.stage) == ("segmentor", "joint")
    for config in (first, joint):
        settings = config.optimiser
        assert (settings.rate, settings.beta1, settings.beta2) == (1e-4, 0.9, 0.999)
        assert (settings.weight_decay, settings.warmup, settings.warmup_start) == (0.05, 0.03, 1e-5)
        assert config.losses == Losses()
        assert config.model.image_size == 1024
        assert config.run.precision == "bf16"
    assert (first.optimiser.clip_norm, joint.optimiser.clip_norm) == (0.01, 1.0)
    assert (first.run.checkpointing, joint.run.checkpointing) == (False, True)
    assert (joint.language.rank, joint.language.alpha, joint.language.dropout) == (128, 256, 0.05)
    assert joint.model.memory.capacity == 5
    batches = joint.batches
    assert (batches.image_batch, batches.video_batch, batches.video_accumulation, batches.resample) == (4, 1, 4, 0.1)


def test_toml_gives_back_what_was_written() -> None:
    config = parse_config(tomllib.loads(toml(run_values("joint"))), HERE)
    assert config.model == TINY
    assert config.data[0].open == "tests.shapes:Shapes"


def test_the_file_names_the_folder_of_a_run_unless_told() -> None:
    values = run_values("joint")
    assert parse_config(values, HERE).out == Path("runs/run")
    assert parse_config({**values, "out": "elsewhere"}, HERE).out == Path("elsewhere")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"stages": "joint"}, "unknown key 'stages'"),
        ({"stage": "third"}, "stage is 'third'"),
        ({"data": []}, "no [[data]]"),
        ({"data": [{"opens": "a:b"}]}, "each needs open"),
        ({"losses": {"dice": 5.0}}, "[losses]: unknown key 'dice'"),
        ({"losses": {"classes": "hinge"}}, "cross_entropy"),
        ({"batches": {"video_batch": 0}}, "video_batch is 0"),
        ({"run": {"keep": 0}}, "keep is 0"),
        ({"run": {"blend": 1.5}}, "blend is 1.5: it must be at most 1"),
        ({"run": {"blend": 0.5, "blend_with": "x2sam-nano", "sharding": "fsdp"}}, "set sharding to none"),
        ({"optimiser": {"muon": True}, "run": {"sharding": "fsdp"}}, "set sharding to none"),
        ({"optimiser": {"epochs": 1.5}}, "epochs is 1.5"),
    ],
)
def test_wrong_configs_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(PromptError, match=r"run\.toml") as error:
        parse_config({**run_values("joint"), **change}, HERE)
    assert message in str(error.value)


def test_unknown_sizes_of_the_network_are_refused() -> None:
    with pytest.raises(ModelError, match=r"run\.toml"):
        parse_config({**run_values("joint"), "model": {"depth": 3}}, HERE)


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    with pytest.raises(PromptError, match=r"nothing\.toml"):
        load_config(tmp_path / "nothing.toml")
    with pytest.raises(PromptError, match="no training preset is called 'nothing'"):
        find_config("nothing")


def test_the_digest_tells_trainings_apart_not_reports() -> None:
    config = parse_config(run_values("joint"), HERE)
    digest = config.digest()
    assert replace(config, out=Path("b"), run=replace(config.run, save_every=7, log_every=3)).digest() == digest
    assert replace(config, batches=replace(config.batches, workers=3)).digest() == digest
    assert replace(config, losses=Losses(points=1)).digest() != digest
    assert replace(config, run=replace(config.run, seed=1)).digest() != digest
