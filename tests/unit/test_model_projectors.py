"""The bridges: folding order and the two-layer projection."""

from __future__ import annotations

from itertools import product

import torch

from tests.unit.model_parts import noise, randomised
from x2roto.engine.model.projectors import Projector, fold


def test_fold_stacks_each_patch_row_by_row_whole_pixels_at_a_time() -> None:
    batch, height, width, channels = 2, 4, 6, 3
    features = torch.arange(batch * height * width * channels).float().view(batch, height, width, channels)
    folded = fold(features)
    assert folded.shape == (batch, height // 2, width // 2, channels * 4)
    for b, row, column in product(range(batch), range(height // 2), range(width // 2)):
        patch = [features[b, 2 * row + dy, 2 * column + dx] for dy in (0, 1) for dx in (0, 1)]
        assert torch.equal(folded[b, row, column], torch.cat(patch))


def test_fold_takes_other_factors() -> None:
    features = noise(1, 6, 6, 2)
    assert torch.equal(fold(features, 3)[0, 1, 0], features[0, 3:, :3].flatten())


def test_projector_is_linear_gelu_linear() -> None:
    projector, x = randomised(Projector(5, 4)), noise(3, 5)
    first, _, last = projector.model
    hidden = x @ first.weight.T + first.bias
    hidden = hidden * (1 + torch.erf(hidden / 2**0.5)) / 2
    torch.testing.assert_close(projector(x), hidden @ last.weight.T + last.bias)
