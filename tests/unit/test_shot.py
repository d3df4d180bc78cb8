"""A shot on disk: everything comes back, nothing wrong is taken, nothing half-written stays."""

from __future__ import annotations

import json
import os
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from tests.unit.model_parts import noise
from x2roto.engine import shot
from x2roto.engine.assembly import Conditions
from x2roto.engine.identity import Identity, Kind, Target
from x2roto.engine.memory import Memory
from x2roto.engine.shot import Query, Shot, ShotState
from x2roto.errors import ModelError, OutputError

CPU = torch.device("cpu")
MODEL = "0123456789ab"


def assert_equal(ours: Any, theirs: Any) -> None:
    """Equal types and values all the way down."""
    assert type(ours) is type(theirs)
    if isinstance(ours, Tensor):
        assert ours.dtype == theirs.dtype
        assert torch.equal(ours, theirs)
    elif is_dataclass(ours):
        for field in fields(ours):
            assert_equal(getattr(ours, field.name), getattr(theirs, field.name))
    elif isinstance(ours, tuple):
        assert len(ours) == len(theirs)
        for mine, other in zip(ours, theirs, strict=True):
            assert_equal(mine, other)
    else:
        assert ours == theirs


def full_shot() -> Shot:
    """Two sets, every kind of target, every optional field both set and unset; views and shared storage too."""
    mask = noise(4, 6).mT > 0
    conditions = Conditions(
        cond_embeds=noise(2, 4, 8).bfloat16(),
        token_embeds=noise(1, 5, 8).expand(2, -1, -1),
        seg_embeds=noise(2, 1, 8),
        embed_mask=torch.tensor([[True, True, True, True], [True, False, False, True]]),
        token_mask=torch.ones(2, 5, dtype=torch.bool),
    )
    targets = (
        (Target("person", Kind.THINGS), Target("road", Kind.STUFF), Target("left", anchor=mask)),
        (Target("größe"),),
    )
    seen = Identity("person", 2, (mask, ~mask), (0.1, 0.7300000190734863), noise(8))
    known = (((Identity("person", 1), seen), (), (Identity("left"),)), ((),))
    memory = Memory(3).remember((noise(2, 8, 2, 2),) * 3).pass_over().remember((noise(2, 8, 2, 2, seed=1),) * 3)
    return Shot(Query(targets, conditions, 17, ("a person on a road", "")), ShotState(memory, known))


def test_everything_comes_back(tmp_path: Path) -> None:
    before = full_shot()
    shot.save(tmp_path / "shot", before, MODEL)
    assert_equal(shot.load(tmp_path / "shot", MODEL, CPU), before)


def test_a_shot_not_begun_comes_back(tmp_path: Path) -> None:
    conditions = full_shot().query.conditions
    before = Shot(Query(((), ()), conditions, None, ("", "")), ShotState(Memory(1), ((), ())))
    shot.save(tmp_path / "shot", before, MODEL)
    assert_equal(shot.load(tmp_path / "shot", MODEL, CPU), before)


def test_tensors_arrive_on_the_device_asked_for(tmp_path: Path) -> None:
    shot.save(tmp_path / "shot", full_shot(), MODEL)
    loaded = shot.load(tmp_path / "shot", MODEL, torch.device("meta"))
    assert loaded.query.conditions.cond_embeds.device.type == "meta"
    assert loaded.state.memory.entries[1].maps_bchw[2].device.type == "meta"


def test_saving_replaces_and_leaves_one_file(tmp_path: Path) -> None:
    path = tmp_path / "shot"
    path.write_bytes(b"something older")
    shot.save(path, full_shot(), MODEL)
    assert os.listdir(tmp_path) == ["shot"]
    assert_equal(shot.load(path, MODEL, CPU), full_shot())


# ---- what is refused --------------------------------------------------------------------------------------


def refused(path: Path, message: str, model: str = MODEL) -> None:
    with pytest.raises(ModelError, match=message) as error:
        shot.load(path, model, CPU)
    assert error.value.path == path
    assert "\n" not in str(error.value)


def test_another_model_s_shot_is_refused(tmp_path: Path) -> None:
    shot.save(tmp_path / "shot", full_shot(), MODEL)
    refused(tmp_path / "shot", f"saved by model {MODEL}, not other", model="other")


def test_a_newer_schema_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as newer:
        newer.setattr(shot, "SCHEMA", shot.SCHEMA + 1)
        shot.save(tmp_path / "shot", full_shot(), MODEL)
    refused(tmp_path / "shot", f"schema {shot.SCHEMA + 1}, this version reads {shot.SCHEMA}")


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
def test_a_truncated_file_is_refused(tmp_path: Path, share: float) -> None:
    path = tmp_path / "shot"
    shot.save(path, full_shot(), MODEL)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    refused(path, "is not a saved shot")


def test_what_is_no_shot_is_refused(tmp_path: Path) -> None:
    refused(tmp_path / "missing", "is not a saved shot")
    refused(tmp_path, "is not a saved shot")
    save_file({"weight": noise(2)}, tmp_path / "weights")
    refused(tmp_path / "weights", "is not a saved shot")
    save_file({"weight": noise(2)}, tmp_path / "other", metadata={"x2roto": "not json"})
    refused(tmp_path / "other", "is not a saved shot")


@pytest.mark.parametrize(
    "header", ["{}", "7", f'{{"schema": {shot.SCHEMA}}}', f'{{"schema": {shot.SCHEMA}, "model": "{MODEL}"}}']
)
def test_a_header_that_lacks_something_is_refused(tmp_path: Path, header: str) -> None:
    save_file({"weight": noise(2)}, tmp_path / "shot", metadata={"x2roto": header})
    refused(tmp_path / "shot", "is not a saved shot")


def test_a_tree_that_lacks_a_tensor_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "shot"
    shot.save(path, full_shot(), MODEL)
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys() if name != "0"}  # noqa: SIM118
    save_file(tensors, path, metadata=metadata)
    refused(path, "is not a saved shot")


# ---- what cannot be written -------------------------------------------------------------------------------


def unwritable(path: Path) -> None:
    with pytest.raises(OutputError, match="cannot save the shot to") as error:
        shot.save(path, full_shot(), MODEL)
    assert error.value.path == path


def test_no_folder_to_write_to(tmp_path: Path) -> None:
    unwritable(tmp_path / "missing" / "shot")
    (tmp_path / "file").write_bytes(b"")
    unwritable(tmp_path / "file" / "shot")
    assert os.listdir(tmp_path) == ["file"]


def test_a_folder_in_its_place(tmp_path: Path) -> None:
    (tmp_path / "shot").mkdir()
    unwritable(tmp_path / "shot")
    assert os.listdir(tmp_path) == ["shot"]


@pytest.mark.parametrize("failure", [OSError("no space left"), KeyboardInterrupt()])
def test_a_failure_at_the_last_moment_keeps_the_older_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: BaseException
) -> None:
    path = tmp_path / "shot"
    shot.save(path, full_shot(), MODEL)
    before = path.read_bytes()

    def fail(*_: object) -> None:
        raise failure

    with monkeypatch.context() as broken:
        broken.setattr(shot.os, "replace", fail)
        with pytest.raises(OutputError if isinstance(failure, OSError) else KeyboardInterrupt):
            shot.save(path, full_shot(), "another")
    assert os.listdir(tmp_path) == ["shot"]
    assert path.read_bytes() == before


# ---- fingerprints -----------------------------------------------------------------------------------------


def test_a_digest_tells_weights_apart_whatever_their_order_and_storage() -> None:
    weights = {"a": noise(3, 4).bfloat16(), "b": noise(5)}
    digest = shot.digest(weights)
    assert len(digest) == 12
    assert int(digest, 16) >= 0
    assert shot.digest({"b": weights["b"], "a": weights["a"].float()}) == digest
    assert shot.digest({"a": weights["a"].mT.contiguous().mT, "b": weights["b"]}) == digest
    assert shot.digest({**weights, "b": weights["b"] + 1e-6}) != digest
    assert shot.digest({"a": weights["a"], "c": weights["b"]}) != digest


def test_the_header_is_readable_without_us(tmp_path: Path) -> None:
    shot.save(tmp_path / "shot", full_shot(), MODEL)
    with safe_open(tmp_path / "shot", framework="pt") as file:
        header = json.loads(file.metadata()["x2roto"])
    assert header["model"] == MODEL
    assert header["shot"]["Shot"]["query"]["Query"]["captions"] == ["a person on a road", ""]
