"""`x2roto train` on tiny networks: both stages, killed and continued, two processes as one, learning by heart."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch.nn import functional as F

from tests.shapes import Shapes, run_values, shapes, toml
from tests.tiny import write_tiny_model
from x2roto.cli.app import main
from x2roto.clip import Frame
from x2roto.engine.model_folder import find_model
from x2roto.engine.segmenter import Segmenter, load_segmenter
from x2roto.engine.wording import Lexicon
from x2roto.prompt import Box, Classes, Prompt, Text, slug
from x2roto.train.config import load_config
from x2roto.train.initial import LEARNT_ALONE
from x2roto.train.report import jaccard
from x2roto.train.samples import ClipSample
from x2roto.train.trainer import Trainer
from x2roto.train.words import footage_lexicon

REPOSITORY = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Outcome:
    code: int
    err: str


Train = Callable[..., Outcome]


@pytest.fixture
def train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Train:
    """`x2roto train` in this process on values written as TOML; `out` names its folder under `tmp_path`."""

    def run(out: str, values: dict[str, Any]) -> Outcome:
        config = write_config(tmp_path, out, values)
        monkeypatch.setattr(sys, "argv", ["x2roto", "train", str(config), "--out", str(tmp_path / out)])
        with pytest.raises(SystemExit) as exit:
            main()
        return Outcome(int(exit.value.code or 0), capsys.readouterr().err)

    return run


def write_config(folder: Path, name: str, values: dict[str, Any]) -> Path:
    path = folder / f"{name}.toml"
    path.write_text(toml(values))
    return path


def command(config: Path, out: Path, *, processes: int = 1) -> subprocess.Popen[bytes]:
    """`x2roto train` in processes of its own, each with one thread."""
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    module = ["-m", "x2roto", "train", str(config), "--out", str(out)]
    # Kernels for newer processors round otherwise for other batches, by more than what is compared here may differ.
    plain = {"OMP_NUM_THREADS": "1", "ONEDNN_MAX_CPU_ISA": "AVX2"}
    environment = {**os.environ, **plain, "PYTHONPATH": str(REPOSITORY)}
    return subprocess.Popen(
        [sys.executable, *(launcher if processes > 1 else []), *module],
        cwd=REPOSITORY,
        env=environment,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def finished(process: subprocess.Popen[bytes]) -> None:
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err.decode()


def lines(out: Path) -> list[dict[str, Any]]:
    """What a run noted of every micro-batch, but for its time."""
    noted = [json.loads(line) for line in (out / "losses.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "seconds"} for line in noted]


def test_both_stages_run_from_one_command(train: Train, tmp_path: Path) -> None:
    views = {"validation": [shapes(count=2)], "run": {"validate_every": 2}}
    first = train("first", run_values("segmentor", data=[shapes(length=1), shapes(length=2)], **views))
    assert first.code == 0, first.err
    learned = tmp_path / "first" / "segmentor.safetensors"
    names = set(load_file(learned))
    assert {name.split(".")[1] for name in names} >= {"pixel_decoder", "decoder"}

    tasks = ["genseg", "refseg", "objseg", "gcgseg", "reaseg", "vgdseg", "chat"]
    data = [shapes(count=7, tasks=tasks), shapes(count=2, length=1, tasks=["genseg"])]
    second = train("second", run_values("joint", data=data, initial={"segmentor": str(learned)}, **views))
    assert second.code == 0, second.err
    out = tmp_path / "second"
    assert [line["number"] for line in lines(out)] == [1, 2, 3, 4]
    assert "4/4 loss" in second.err
    assert "validation J" in second.err
    assert {path.name for path in (out / "pictures").iterdir()} >= {"shapes-0-step-00000004.png"}
    assert any((out / "curves").iterdir())
    segmenter = load_segmenter(out / "model")
    assert seen_on(segmenter, Shapes()[0]).shape[1:] == (4, 64, 64)


def test_stage_two_starts_from_what_stage_one_learned(train: Train, tmp_path: Path) -> None:
    assert train("first", run_values("segmentor", data=[shapes(length=1)])).code == 0
    learned = load_file(tmp_path / "first" / "segmentor.safetensors")
    initial = {"segmentor": str(tmp_path / "first" / "segmentor.safetensors")}
    values = run_values("joint", initial=initial, optimiser={"rate": 0.0, "steps": 2})
    assert train("second", values).code == 0
    started = load_file(tmp_path / "second" / "model" / "model.safetensors")
    known = {name: tensor for name, tensor in learned.items() if name.startswith(LEARNT_ALONE)}
    assert len(known) > 50
    assert all(torch.equal(started[name], tensor) for name, tensor in known.items())


def drawn_footage(**options: Any) -> dict[str, Any]:
    """Procedural clips of drawn things, in windows."""
    usual = {"height": 48, "width": 72, "frames": [2], "sources": ["footage"], "tasks": ["objseg"], "room": 1.8}
    return {"open": "x2roto.train.procedural:open_footage", "options": {**usual, "side": 192, "length": 4, **options}}


def test_an_outliner_run_changes_the_small_models_outlines_and_nothing_else(train: Train, tmp_path: Path) -> None:
    values = {
        "stage": "outliner",
        "data": [drawn_footage()],
        "validation": [drawn_footage(length=1)],
        "initial": {"model": "x2sam-nano"},
        "batches": {"workers": 0, "video_batch": 2, "video_accumulation": 1, "region_glimpse": 1},
        "optimiser": {"rate": 1e-3, "steps": 2},
        "run": {"precision": "fp32", "store": "float16", "validate_every": 2},
    }
    result = train("outlines", values)
    assert result.code == 0, result.err
    assert "validation J" in result.err
    before = load_file(find_model("x2sam-nano") / "model.safetensors")
    after = load_file(tmp_path / "outlines" / "model" / "model.safetensors")
    assert before.keys() == after.keys()
    changed = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"outliner"}
    segmenter = load_segmenter(tmp_path / "outlines" / "model")
    assert segmenter.model.config == replace(load_segmenter().model.config, name="outlines")


def test_a_sight_run_changes_finder_and_outliner_and_nothing_else(train: Train, tmp_path: Path) -> None:
    words = {"tasks": ["refseg"], "frames": [1], "apart": 3, "room": 0, "side": 0}
    names = {"tasks": ["genseg"], "frames": [1], "sources": ["scatter"], "every": True, "room": 0, "side": 0}
    values = {
        "stage": "sight",
        "data": [drawn_footage(), drawn_footage(**words), drawn_footage(**names)],
        "initial": {"model": "x2sam-nano"},
        "batches": {"workers": 0, "image_batch": 2, "image_echo": 2, "video_batch": 2, "video_accumulation": 1},
        "optimiser": {"rate": 1e-3},
        "run": {"precision": "fp32", "store": "float16"},
    }
    result = train("sight", values)
    assert result.code == 0, result.err
    sources = {line["source"] for line in lines(tmp_path / "sight")}
    assert sources == {"footage-image-refseg", "footage-video-objseg", "scatter-image-genseg"}
    before = load_file(find_model("x2sam-nano") / "model.safetensors")
    after = load_file(tmp_path / "sight" / "model" / "model.safetensors")
    changed = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"finder", "outliner"}
    assert any(not torch.equal(before[name], after[name]) for name in before if name.startswith("finder.eyes."))
    assert Lexicon.read(tmp_path / "sight" / "model") == footage_lexicon()


@pytest.mark.parametrize(("stopped", "muon"), [(1, False), (2, False), (3, False), (2, True)])
def test_a_run_goes_on_in_the_middle_of_an_echo(tmp_path: Path, stopped: int, muon: bool) -> None:
    words = {"tasks": ["refseg"], "frames": [1], "apart": 3, "room": 0, "side": 0, "length": 40}
    values = {
        "stage": "finder",
        "data": [drawn_footage(**words)],
        "initial": {"model": "x2sam-nano"},
        "batches": {"workers": 0, "image_batch": 2, "image_echo": 3},
        "optimiser": {"rate": 1e-3, "steps": 5, "muon": muon},
        "run": {"precision": "fp32"},
    }
    config = load_config(write_config(tmp_path, "echo", values), tmp_path / "stopped")
    trainer = Trainer(config)
    next(step for step in trainer.steps() if step.number == stopped)
    trainer.save()
    whole = [step.total for step in Trainer(replace(config, out=tmp_path / "whole")).steps()]
    assert len(set(whole)) == 5
    assert [step.total for step in Trainer(config).steps()] == whole[stopped:]


@pytest.mark.slow
def test_a_killed_run_goes_on_to_the_same_numbers(tmp_path: Path) -> None:
    values = run_values("joint", optimiser={"steps": 8})
    config = write_config(tmp_path, "run", values)
    finished(command(config, tmp_path / "whole"))

    killed = tmp_path / "killed"
    process = command(config, killed)
    wait_for(lambda: (killed / "losses.jsonl").is_file() and len(lines(killed)) >= 5)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert len(lines(killed)) < 8
    finished(command(config, killed))

    assert lines(killed) == lines(tmp_path / "whole")
    ends = [load_file(tmp_path / run / "model" / "model.safetensors") for run in ("whole", "killed")]
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


def wait_for(done: Callable[[], bool], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.slow
@pytest.mark.parametrize("sharding", ["none", "fsdp"])
def test_two_processes_equal_one_with_the_doubled_batch(tmp_path: Path, sharding: str) -> None:
    """Losses and gradient norms of three optimiser steps. Adam makes full steps of gradients that are rounding
    alone, so the rate is small; nothing else chooses among near equals: the network's queries differ, and every
    pixel counts."""
    model = write_tiny_model(tmp_path / "model")
    noted = []
    for processes, batch in ((1, 2), (2, 1)):
        values = run_values(
            "joint",
            data=[shapes(tasks=["genseg", "objseg", "gcgseg", "chat"])],
            initial={"model": str(model), "tokenizer": str(model)},
            language={"learn": "full"},
            batches={"video_batch": batch},
            optimiser={"rate": 1e-5, "steps": 6},
            losses={"points": 0},
            run={"sharding": "none" if processes == 1 else sharding},
        )
        out = tmp_path / f"{processes}"
        finished(command(write_config(tmp_path, f"of-{processes}", values), out, processes=processes))
        noted.append(lines(out))
    assert len(noted[0]) == 6
    for one, two in zip(*noted, strict=True):
        numbers = {name for name, value in one.items() if isinstance(value, float)}
        # Sums over a batch round otherwise where it is cut in two.
        assert {name: two[name] for name in numbers} == pytest.approx({name: one[name] for name in numbers}, rel=5e-4)


@pytest.mark.slow
def test_four_clips_are_learned_by_heart(train: Train, tmp_path: Path) -> None:
    """Text, box and class list, measured on the exported model as anyone would use it."""
    values = run_values(
        "joint",
        language={"learn": "full"},
        batches={"video_batch": 4, "video_accumulation": 1},
        optimiser={"rate": 1e-3, "encoder_rate": 1.0, "weight_decay": 0.0, "steps": 240},
        losses={"points": 256},
        run={"save_every": 0, "log_every": 0},
    )
    assert train("heart", values).code == 0
    segmenter = load_segmenter(tmp_path / "heart" / "model")
    overlaps = [overlap(segmenter, sample) for sample in map(Shapes().__getitem__, range(4))]
    assert np.mean(overlaps) > 0.9, overlaps


def overlap(segmenter: Segmenter, sample: ClipSample) -> float:
    assert sample.masks is not None
    wanted = np.stack([sample.masks[sample.condition == k].any(0) for k in range(sample.conditions)])
    return jaccard(wanted, seen_on(segmenter, sample))


def seen_on(segmenter: Segmenter, sample: ClipSample) -> NDArray[np.bool_]:
    """Masks (K, T, H, W) of what a sample asks for, through the engine."""
    prompts, labels = prompts_of(sample)
    (query,) = segmenter.read(prompts, list(sample.frames))
    tracker = segmenter.track(query)
    found = np.zeros((len(labels), *sample.frames.shape[:3]), dtype=np.bool_)
    frames = [Frame(index, None, rgb) for index, rgb in enumerate(sample.frames)]
    for result in tracker.step(frames):
        for seen in result.seen:
            logits = F.interpolate(seen.logits[None, None], size=sample.frames.shape[1:3], mode="bilinear")
            found[labels.index(seen.label), result.frame.index] |= (logits[0, 0] > 0).numpy()
    return found


def prompts_of(sample: ClipSample) -> tuple[list[Prompt], list[str]]:
    (first, *_) = sample.targets
    if sample.task == "genseg":
        names = [str(target) for target in sample.targets]
        return [Classes("classes", tuple(names))], [slug(name) for name in names]
    if isinstance(first, str):
        return [Text("target", first)], ["target"]
    rows, columns = np.nonzero(first)
    edges = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    return [Box("target", *map(float, edges))], ["target"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"optimiser": {"rates": 1.0}}, "[optimiser]: unknown key 'rates'"),
        ({"data": [{"open": "tests.shapes:Nothing"}]}, "no data set 'tests.shapes:Nothing'"),
        ({"data": [shapes(colour="red")]}, "does not take these options"),
        ({"data": [shapes(count=0)]}, "is empty"),
        ({"optimiser": {"muon": True}}, "optimiser.muon is for finder and outliner"),
        ({"initial": {"tokenizer": "nowhere"}}, "nowhere"),
        ({"initial": {"segmentor": "nowhere.safetensors"}}, "no file nowhere.safetensors"),
    ],
)
def test_a_run_that_cannot_start_says_why_in_one_line(train: Train, change: dict[str, Any], message: str) -> None:
    outcome = train("wrong", run_values("joint", **change))
    assert outcome.code in (2, 8)
    assert message in outcome.err
    assert outcome.err.count("\n") == 1
    assert outcome.err.startswith("x2roto: ")


@pytest.mark.parametrize("stage", ["finder", "outliner"])
def test_a_part_that_is_not_there_does_not_learn(train: Train, stage: str) -> None:
    outcome = train("wrong", run_values(stage))
    assert outcome.code == 2
    assert outcome.err.startswith(f"x2roto: stage {stage} needs a network that has one")
    assert outcome.err.count("\n") == 1


def test_another_config_does_not_go_on_with_a_run(train: Train) -> None:
    assert train("run", run_values("joint", optimiser={"steps": 2})).code == 0
    outcome = train("run", run_values("joint", optimiser={"steps": 4}))
    assert outcome.code == 8
    assert "another config" in outcome.err


@pytest.mark.parametrize("stage", ["segmentor", "joint"])
def test_bfloat16_and_recomputation_run(train: Train, tmp_path: Path, stage: str) -> None:
    values = run_values(stage, run={"precision": "bf16", "checkpointing": True}, optimiser={"steps": 2})
    assert train("half", values).code == 0
    assert all(np.isfinite(line["total"]) for line in lines(tmp_path / "half"))
