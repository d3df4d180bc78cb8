"""Checkpoints: all a run needs to go on to the same numbers, written whole or not at all; and the finished model.

A checkpoint folder holds `model.safetensors` (what learns, and the rest of the network but for the language model,
by the reference's names, as `x2roto models convert` takes it), `optimiser.pt`, one `random-<process>.pt` each, and
`state.json`. Samplers and schedules are functions of the step, so the step is all their state.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from accelerate import Accelerator
from safetensors.torch import save_file
from torch import Tensor
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.nn import Module
from torch.optim import Optimizer

from x2roto.engine.convert import LICENCES, Provenance, write_model
from x2roto.engine.model.config import ModelConfig
from x2roto.engine.model_folder import read_json
from x2roto.engine.sizes import infer_sizes
from x2roto.engine.weights import DTYPES, Blueprint, blank_model, read_tensors, recipes, shapes_of
from x2roto.errors import ModelError, OutputError
from x2roto.train.config import TrainConfig

WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True)
STEP = re.compile(r"step-(\d+)")
WEIGHTS, OPTIMISER, STATE = "model.safetensors", "optimiser.pt", "state.json"


@dataclass(frozen=True, slots=True)
class Position:
    """How far a run is: the epoch, its micro-batches done, and those of the whole run. `config`: its digest."""

    epoch: int
    batch: int
    step: int
    config: str


@dataclass(frozen=True, slots=True)
class Learner:
    """What changes in training. `stage` may be wrapped for several devices; `optimiser` is the plain one."""

    stage: Module
    optimiser: Optimizer
    accelerator: Accelerator


def checkpoints(out: Path) -> list[Path]:
    """The complete checkpoints of a run, oldest first."""
    return sorted(path for path in (out / "checkpoints").glob("step-*") if STEP.fullmatch(path.name))


def save(out: Path, learner: Learner, position: Position, keep: int) -> Path:
    """Write a checkpoint and drop all but the newest `keep`; every process must call. Raises OutputError."""
    accelerator = learner.accelerator
    final = out / "checkpoints" / f"step-{position.step:08}"
    partial = final.with_name(f".{final.name}.partial")
    weights = stored_weights(learner)
    optimiser = get_optimizer_state_dict(learner.stage, learner.optimiser, options=WHOLE)
    try:
        if accelerator.is_main_process:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            save_file(weights, partial / WEIGHTS, metadata={"format": "pt"})
            torch.save(optimiser, partial / OPTIMISER)
            (partial / STATE).write_text(json.dumps(asdict(position)))
        accelerator.wait_for_everyone()
        torch.save(random_state(accelerator.device), partial / _random_file(accelerator))
        accelerator.wait_for_everyone()
        if accelerator.is_main_process:
            _commit(partial, final)
            for old in checkpoints(out)[:-keep]:
                shutil.rmtree(old)
    except OSError as error:
        raise OutputError(f"cannot write {final}: {error.strerror or error}", final) from error
    accelerator.wait_for_everyone()
    return final


def restore(out: Path, learner: Learner, digest: str) -> Position | None:
    """Continue from the newest checkpoint; gives its position, None when there is none.

    Raises ModelError when it belongs to another config or number of processes, or is damaged.
    """
    found = checkpoints(out)
    if not found:
        return None
    folder = found[-1]
    position = Position(**read_json(folder / STATE))
    if position.config != digest:
        raise ModelError(f"{folder} was made with another config: use that one, or another folder with --out", folder)
    weights: dict[str, Any] = {_own_name(name): tensor for name, tensor in read_tensors(folder / WEIGHTS).items()}
    set_model_state_dict(learner.stage, weights, options=replace(WHOLE, strict=False))
    optimiser = _load(folder / OPTIMISER)
    set_optimizer_state_dict(learner.stage, learner.optimiser, optimiser, options=WHOLE)
    set_random_state(_load(folder / _random_file(learner.accelerator)), learner.accelerator.device)
    return position


def stored_weights(learner: Learner) -> dict[str, Tensor]:
    """What a checkpoint stores, on the CPU of the main process, by the reference's names."""
    parameters = learner.accelerator.unwrap_model(learner.stage).named_parameters()
    wanted = {name for name, p in parameters if p.requires_grad or not name.startswith("model.vlm.")}
    state = _whole_state(learner.stage)
    return {name.removeprefix("model."): tensor for name, tensor in state.items() if name in wanted}


def _whole_state(stage: Module) -> dict[str, Tensor]:
    return cast(dict[str, Tensor], get_model_state_dict(stage, options=WHOLE))


def _own_name(stored: str) -> str:
    return stored if stored.startswith("head.") else f"model.{stored}"


def export(learner: Learner, config: TrainConfig, model: ModelConfig, tokenizer: Path) -> Path:
    """Write the trained network as a model folder, low-rank updates merged; every process must call.

    Raises OutputError when it cannot be written.
    """
    out, accelerator = config.out / "model", learner.accelerator
    state = _whole_state(learner.stage)
    if accelerator.is_main_process:
        # The names peft gives the layers it wraps.
        plain = {name.removeprefix("model.").replace(".base_layer.", "."): tensor for name, tensor in state.items()}
        made = recipes(plain, {})
        sizes = infer_sizes(replace(model, name=config.out.name), shapes_of({k: r.weight for k, r in made.items()}))
        dtype = config.run.store or ("float32" if config.run.precision == "fp32" else "bfloat16")
        write_model(
            out,
            sizes,
            Blueprint.of(blank_model(sizes)).shapes,
            lambda name: made[name].make(DTYPES[dtype], config.language.alpha),
            tokenizer=tokenizer,
            dtype=dtype,
            provenance=Provenance({}, {}, (*config.licences, *(LICENCES if config.initial.language else ()))),
            replace=True,
        )
    accelerator.wait_for_everyone()
    return out


def write_segmentor(learner: Learner, out: Path) -> Path:
    """Write what stage "segmentor" learned for [initial] of stage "joint"; every process must call."""
    path = out / "segmentor.safetensors"
    weights = stored_weights(learner)
    if learner.accelerator.is_main_process:
        kept = {name: tensor for name, tensor in weights.items() if name.startswith("segmentor.")}
        partial = path.with_name(f".{path.name}.partial")
        save_file(kept, partial, metadata={"format": "pt"})
        partial.replace(path)
    learner.accelerator.wait_for_everyone()
    return path


# ---- random state ---------------------------------------------------------------------------------------


def random_state(device: torch.device) -> dict[str, Tensor]:
    """State of torch's generators, the only global ones training draws from (dropout)."""
    states = {"cpu": torch.get_rng_state()}
    if device.type != "cpu":
        states[device.type] = torch.get_device_module(device).get_rng_state()
    return states


def set_random_state(states: dict[str, Tensor], device: torch.device) -> None:
    """Undo of `random_state`."""
    torch.set_rng_state(states["cpu"])
    if device.type in states and device.type != "cpu":
        torch.get_device_module(device).set_rng_state(states[device.type])


# ---- files ----------------------------------------------------------------------------------------------


def _random_file(accelerator: Accelerator) -> str:
    return f"random-{accelerator.process_index}.pt"


def _load(path: Path) -> Any:
    if not path.is_file():
        raise ModelError(f"no {path}: go on with as many processes as wrote the checkpoint, or choose another --out")
    return torch.load(path, map_location="cpu", weights_only=True)


def _commit(partial: Path, final: Path) -> None:
    """Give a filled folder its name once its files are on the disk, so that the name never stands for a part."""
    for path in (*partial.iterdir(), partial):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    shutil.rmtree(final, ignore_errors=True)
    partial.rename(final)
