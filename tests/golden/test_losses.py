"""Losses, matching and point sampling against the reference's, on recorded random points."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.golden.folder import cases
from x2roto.engine.assembly import Conditions
from x2roto.engine.model.mask_decoder import ClassPredictor
from x2roto.train.config import Losses
from x2roto.train.losses import Counts, class_loss, cross_entropy_sum, dice_sum, focal_sum, set_losses
from x2roto.train.matching import Answers, FrameTarget, Matches, match, pair_cross_entropy, pair_dice
from x2roto.train.points import edge_points

FILES = cases("tasks", "losses")
close = partial(pytest.approx, rel=1e-4)

if not FILES:
    pytest.skip("no golden data for losses", allow_module_level=True)


def arrays(path: Path) -> dict[str, Tensor]:
    with np.load(path) as stored:
        return {name: torch.from_numpy(stored[name]) for name in stored.files}


class Recorded:
    """Hands out recorded draws of the wanted kind in order; frames that share one get its rows in turn."""

    def __init__(self, draws: Sequence[Tensor]) -> None:
        self.left = list(draws)

    def __call__(self, shape: Sequence[int]) -> Tensor:
        index = next(i for i, draw in enumerate(self.left) if draw.shape[1:] == tuple(shape[1:]))
        draw, rest = self.left[index][: shape[0]], self.left[index][shape[0] :]
        assert len(draw) == shape[0]
        self.left[index : index + 1] = [rest] if len(rest) else []
        return draw


def in_order(stored: dict[str, Tensor], stem: str) -> list[Tensor]:
    names = sorted((n for n in stored if n.startswith(stem)), key=lambda name: int(name.removeprefix(stem)))
    return [stored[name] for name in names]


def numbered(stored: dict[str, Tensor], stem: str) -> list[Tensor]:
    return in_order(stored, f"{stem}_")


def targets_of(stored: dict[str, Tensor]) -> list[FrameTarget]:
    masks, labels = (numbered(stored, stem) for stem in ("mask_labels", "class_labels"))
    return [FrameTarget(mask.bool(), label) for mask, label in zip(masks, labels, strict=True)]


def layers_of(stored: dict[str, Tensor]) -> list[Answers]:
    last = Answers(stored["masks_queries_logits"].float(), stored["class_queries_logits"])
    count = sum(name.startswith("aux") and name.endswith("_masks") for name in stored)
    return [last, *(Answers(stored[f"aux{i}_masks"].float(), stored[f"aux{i}_class"]) for i in range(count))]


def matches_of(pairs: Sequence[Any], queries: int) -> list[Matches]:
    held = torch.zeros(queries, dtype=torch.bool)
    return [Matches(torch.tensor(q), torch.tensor(t), held) for q, t in pairs]


def check_elementary(path: Path, case: dict[str, Any]) -> None:
    stored = arrays(path.with_suffix(".npz"))
    logits, wanted = stored["inputs"], stored["labels"].float()
    everywhere, valid = torch.ones(1, logits.shape[1]), stored["valid"].float()
    alpha, gamma = case["focal"]["alpha"], case["focal"]["gamma"]
    n = len(logits)
    found = {
        "dice": dice_sum(logits, wanted, everywhere) / n,
        "dice_n4": dice_sum(logits, wanted, everywhere) / 4,
        "bce": cross_entropy_sum(logits, wanted, everywhere) / n,
        "bce_valid": cross_entropy_sum(logits, wanted, valid) / n,
        "focal": focal_sum(logits, wanted, everywhere, alpha, gamma) / n,
        "focal_valid": focal_sum(logits, wanted, valid, alpha, gamma) / n,
    }
    assert {name: float(value) for name, value in found.items()} == close(case["values"])
    torch.testing.assert_close(pair_dice(logits, wanted, everywhere), stored["pair_dice"], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(
        pair_cross_entropy(logits, wanted, everywhere), stored["pair_bce"], rtol=1e-4, atol=1e-6
    )


def check_set(path: Path, case: dict[str, Any]) -> None:
    stored, random = arrays(path.with_name("set_inputs.npz")), arrays(path.with_name("set_random_points.npz"))
    for mode, expected in case["results"].items():
        losses = losses_of(case["config"], mode)
        targets, layers = targets_of(stored), layers_of(stored)
        draws = [Recorded(in_order(random, f"match_{mode}_rand"))] * len(targets)
        found = match(layers[0], targets, draws, losses)
        assert [[m.queries_m.tolist(), m.targets_m.tolist()] for m in found] == expected["indices"]
        draws = [Recorded(in_order(random, f"loss_{mode}_rand"))] * len(targets)
        counts = Counts.of(targets, layers[0].mask_logits_iqhw.shape[1], 0, losses)
        results = set_losses(layers, targets, draws, losses, counts)
        for suffix, layer in zip(["", *(f"_{i}" for i in range(len(layers)))], results, strict=False):
            numbers = {"loss_mask": layer.masks, "loss_dice": layer.dice, "loss_cls": layer.classes}
            for name, value in numbers.items():
                assert float(value) == close(expected["losses"][name + suffix]), (mode, name + suffix)
        assert float(sum(layer.weighted(losses) for layer in results)) == close(expected["total"])


def losses_of(config: dict[str, Any], mode: str) -> Losses:
    losses = Losses(
        class_weight=config["class_weight"],
        mask_weight=config["mask_weight"],
        dice_weight=config["dice_weight"],
        background_weight=config["no_object_weight"],
        points=config["train_num_points"],
        oversample=config["oversample_ratio"],
        uncertain=config["importance_sample_ratio"],
    )
    return losses if mode == "points" else replace(losses, points=0)


def check_points(path: Path, case: dict[str, Any]) -> None:
    stored = arrays(path.with_suffix(".npz"))
    points, share = case["num_points"], case["importance_sample_ratio"]
    recorded = Recorded([stored["candidates"], stored["topup"]])
    logits = stored["logits"][:, 0].float()
    found = edge_points(logits, recorded, points=points, oversample=case["oversample_ratio"], uncertain=share)
    kept = int(share * points)
    for rows, expected in zip(found.tolist(), stored["points"].tolist(), strict=True):
        assert sorted(rows[:kept]) == sorted(expected[:kept])
        assert rows[kept:] == expected[kept:]


def check_focal(path: Path, case: dict[str, Any]) -> None:
    stored, masks = arrays(path.with_suffix(".npz")), arrays(path.with_name("set_inputs.npz"))
    losses = Losses(classes="focal", points=0)
    labels = numbered(stored, "class_labels")
    wanted = [FrameTarget(m.bool(), n) for m, n in zip(numbered(masks, "mask_labels"), labels, strict=True)]
    logits = stored["class_queries_logits"]
    answers = Answers(masks["masks_queries_logits"].float(), logits, stored["cond_ids"])
    found = match(answers, wanted, [Recorded([])] * len(wanted), losses)
    assert [[m.queries_m.tolist(), m.targets_m.tolist()] for m in found] == case["indices"]
    counts = Counts.of(wanted, logits.shape[1], 0, losses)
    loss = class_loss(answers, wanted, matches_of(case["indices"], logits.shape[1]), losses, counts)
    assert float(loss) == close(case["loss_cls"])


def check_classes(path: Path, _: dict[str, Any]) -> None:
    stored = arrays(path.with_suffix(".npz"))
    nothing = torch.zeros(0)
    conditions = Conditions(stored["cond"], nothing, nothing, stored["mask"], nothing)
    found = ClassPredictor()(stored["query"], conditions)
    torch.testing.assert_close(found, stored["logits"], rtol=1e-4, atol=1e-5)


CHECKS: dict[str, Callable[[Path, dict[str, Any]], None]] = {
    "elementary losses": check_elementary,
    "Hungarian matcher and set criterion": check_set,
    "importance point sampling": check_points,
    "binary focal class loss": check_focal,
    "cosine class head": check_classes,
}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_losses_equal_the_reference(path: Path) -> None:
    case = json.loads(path.read_text())
    checks = [check for kind, check in CHECKS.items() if case["kind"].startswith(kind)]
    assert len(checks) == 1, f"{path.name} is of unknown kind {case['kind']!r}"
    checks[0](path, case)
