"""Splicing, generated answers and pooling against the reference's own arrays; tolerance 1e-6."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F

from tests.golden.folder import cases
from x2roto.engine.assembly import Conditions, decodable, generated_ids, pool, splice

close = partial(torch.testing.assert_close, rtol=1e-6, atol=1e-6)
FILES = cases("tasks", "assembly")
RUNS = cases("engine", pattern="x2sam_*.safetensors")


def is_shared(task: str) -> bool:
    return task.split("_", 1)[1] in {"refseg", "reaseg"}


def arrays(path: Path) -> dict[str, Tensor]:
    with np.load(path.with_suffix(".npz")) as stored:
        return {name: torch.from_numpy(stored[name]) for name in stored.files}


def compare_conditions(got: Conditions, want: dict[str, Tensor]) -> None:
    close(got.cond_embeds, want["cond"])
    close(got.token_embeds, want["token"])
    close(got.seg_embeds, want["seg"])
    close(got.embed_mask.float(), want["embed_mask"])
    close(got.token_mask.float(), want["token_mask"])


def check_sequence(case: dict[str, Any], data: dict[str, Tensor]) -> None:
    def whole_batch(name: str) -> Tensor:
        return torch.cat([data[f"{name}{sample}"] for sample in range(len(data["input_ids"]))])

    got = splice(
        lambda ids: F.embedding(ids, data["embedding"]),
        data["input_ids"],
        whole_batch("vision"),
        whole_batch("region")[: int((data["input_ids"] == case["placeholders"]["region"]).sum())],
        attention_mask=data.get("attention_mask"),
        cond_ids=data["cond_ids"],
        seg_ids=data["seg_ids"],
        labels=data["labels"],
    )
    real = data["out_attention"]
    close(got.embeds_bld, data["out_embeds"])
    close(got.attention_mask, real)
    close(got.visual_mask, data["out_image_mask"])
    close(got.cond_ids, data["out_cond"])
    close(got.seg_ids, data["out_seg"])
    close(got.labels, data["out_labels"])
    # The reference leaves 0 in the padding here; the language model then receives 1, as ours has.
    close(got.position_ids[real], data["out_position"][real])


def check_pooling(case: dict[str, Any], data: dict[str, Tensor]) -> None:
    assert case["results"]
    for task in case["results"]:
        got = pool(data["hidden"], data["cond_ids"], data["seg_ids"], data["bg"], shared=is_shared(task))
        compare_conditions(
            got,
            {name: data[f"{task}_{name}"] for name in ("cond", "token", "seg", "embed_mask", "token_mask")},
        )


def check_generated(case: dict[str, Any], data: dict[str, Tensor]) -> None:
    tokens = case["tokens"]
    assert case["cases"]
    for item in case["cases"]:
        number = item["case"]
        prompt = data["prompt_cond_ids"] if item["prompt_has_conditions"] else None
        hidden = data[f"prompt_hidden_{number}"]
        states = torch.cat((hidden, data[f"step_hidden_{number}"]), 1)
        cond, seg = generated_ids(
            prompt,
            hidden.shape[1],
            torch.tensor(item["generated"]),
            p_start=tokens["p_start"],
            p_end=tokens["p_end"],
            seg=tokens["seg"],
        )
        assert decodable(cond, seg) == item["decoder_called"], item
        if not item["decoder_called"]:
            continue
        stored = {"cond": "cond_embeds", "token": "token_embeds", "seg": "seg_embeds"}
        stored |= {"embed_mask": "embed_masks", "token_mask": "token_masks"}
        got = pool(states, cond, seg, data["bg"], shared=is_shared(item["task"]))
        compare_conditions(got, {ours: data[f"{theirs}_{number}"] for ours, theirs in stored.items()})


CHECKS = {
    "placing vision and region features": check_sequence,
    "condition / SEG embeddings": check_pooling,
    "predict path": check_generated,
}


@pytest.mark.skipif(not FILES, reason="the golden folder has no tasks/assembly")
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_as_the_reference(path: Path) -> None:
    case = json.loads(path.read_text())
    (check,) = [check for start, check in CHECKS.items() if case["kind"].startswith(start)]
    check(case, arrays(path))


@pytest.mark.skipif(not RUNS, reason="the golden folder has no engine/x2sam_* runs")
@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.stem)
def test_conditions_of_a_whole_run(path: Path) -> None:
    """From the prompt's ids and the language model's recorded states to the decoder's conditions."""
    index = json.loads(path.with_name("index.json").read_text())
    weights = {k: v.float() for k, v in load_file(path.with_name("checkpoint.safetensors")).items()}
    run, tokens = load_file(path), index["token_ids"]

    ids = run["in.input_ids"]
    regions = len(run.get("in.vprompt_masks", ()))
    dim = run["out.hidden_last"].shape[-1]
    spliced = splice(
        lambda ids: torch.zeros(len(ids), dim),
        ids,
        torch.zeros(int((ids == -1000).sum()), dim),
        torch.zeros(regions, index["sampler"]["num_points"] // index["sampler"]["pool"], dim),
        attention_mask=run["in.attention_mask"],
        cond_ids=run["in.cond_ids"],
        seg_ids=run["in.seg_ids"],
    )
    length = run["out.inputs_embeds"].shape[1]
    close(spliced.position_ids, run["out.position_ids"][0])
    cond, seg = spliced.cond_ids, spliced.seg_ids
    if path.stem.endswith("_predict"):
        answer = torch.tensor(index["predict_vs_tensor"]["sequences"][0])
        names = {"p_start": tokens["p"], "p_end": tokens["pe"], "seg": tokens["SEG"]}
        cond, seg = generated_ids(cond, length, answer, **names)
    assert decodable(cond, seg)

    hidden = F.linear(run["out.hidden_last"], *layer(weights, "mlm_projector", 0))
    states = F.linear(F.gelu(hidden), *layer(weights, "mlm_projector", 2))
    task = "_".join(path.stem.split("_")[1:3])
    got = pool(states, cond, seg, weights["bg_embeds.weight"], shared=is_shared(task))
    stored = {"cond": "cond_embeds", "token": "token_embeds", "seg": "seg_embeds"}
    stored |= {"embed_mask": "embed_masks", "token_mask": "token_masks"}
    compare_conditions(got, {ours: run[f"out.{theirs}"] for ours, theirs in stored.items()})


def layer(weights: dict[str, Tensor], name: str, number: int) -> tuple[Tensor, Tensor]:
    return weights[f"{name}.model.{number}.weight"], weights[f"{name}.model.{number}.bias"]
