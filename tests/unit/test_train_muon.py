"""Muon's steps: orthogonal, as long whatever the gradient, and AdamW's where it is not asked for."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from x2roto.train.muon import ADAMW_RMS, Muon, orthogonalised

RATE = 0.01


def optimiser(*parameters: nn.Parameter, orthogonal: bool, **options: Any) -> Muon:
    return Muon([{"params": list(parameters), "orthogonal": orthogonal}], lr=RATE, **{"weight_decay": 0.0, **options})


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [(16, 16), (8, 72), (72, 8)])
def test_singular_values_come_near_one_and_directions_stay(shape: tuple[int, int]) -> None:
    matrix = drawn(*shape)
    (turned,) = orthogonalised(matrix[None])
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    brought = torch.diagonal(left.mT @ turned @ right.mT)
    assert (brought[values > 0.1 * values[0]] - 1).abs().max() < 0.45
    aside = left.mT @ turned @ right.mT - torch.diag(brought)
    assert aside.abs().max() < 0.05


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_a_step_is_as_long_as_adamws_whatever_the_gradient(scale: float) -> None:
    kernel = nn.Parameter(torch.zeros(16, 8, 3, 3))
    kernel.grad = scale * drawn(16, 8, 3, 3)
    optimiser(kernel, orthogonal=True).step()
    assert kernel.grad is None
    assert float(kernel.detach().square().mean().sqrt()) == pytest.approx(ADAMW_RMS * RATE, rel=0.2)


def test_a_square_sum_falls_to_where_it_is_least() -> None:
    goal, matrix = drawn(12, 20), nn.Parameter(torch.zeros(12, 20))
    learning = optimiser(matrix, orthogonal=True)
    for step in range(400):
        for group in learning.param_groups:
            group["lr"] = 0.2 * (1 - step / 400)
        matrix.grad = matrix.detach() - goal
        learning.step()
    assert float((matrix.detach() - goal).abs().max()) < 0.05


def test_decay_draws_towards_zero_where_there_is_no_gradient_to_follow() -> None:
    matrix = nn.Parameter(torch.ones(4, 4))
    matrix.grad = torch.zeros(4, 4)
    optimiser(matrix, orthogonal=True, weight_decay=0.5).step()
    assert torch.allclose(matrix, torch.tensor(1 - 0.5 * RATE))


def test_other_groups_are_adamws() -> None:
    ours, theirs = nn.Parameter(drawn(6, 6)), nn.Parameter(drawn(6, 6))
    usual = torch.optim.AdamW([theirs], lr=RATE, weight_decay=0.1)
    mixed = optimiser(ours, orthogonal=False, weight_decay=0.1)
    for seed in range(3):
        ours.grad, theirs.grad = drawn(6, 6, seed=seed), drawn(6, 6, seed=seed)
        usual.step()
        mixed.step()
    assert torch.equal(ours, theirs)
