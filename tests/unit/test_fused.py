"""Triton's kernels against the plain versions, on a GPU or, where there is none, in Triton's interpreter."""

# ruff: noqa: E402  (whether kernels are interpreted is read when they are imported)
from __future__ import annotations

import os

import pytest
import torch
from torch.nn import functional as F

pytest.importorskip("triton", reason="needs Triton, which torch brings along on GPUs")
GPU = torch.cuda.is_available()
if not GPU:
    os.environ["TRITON_INTERPRET"] = "1"

from x2roto.engine.model import fused
from x2roto.engine.model.encodings import rotate, turns_on
from x2roto.engine.model.mask_decoder import attend, attention_mask
from x2roto.engine.model.pixel_decoder import sample_on_grids

DEVICE = torch.device("cuda" if GPU else "cpu")
# The interpreter has no products in bfloat16.
HALF = torch.bfloat16 if GPU else torch.float16


def noise(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(DEVICE, dtype)


@pytest.mark.parametrize(("heads", "width", "points"), [(2, 24, 3), (4, 16, 2), (8, 32, 4)])
def test_samples_are_those_of_grids(heads: int, width: int, points: int) -> None:
    sizes = ((3, 5), (6, 10), (12, 20))
    tokens = sum(height * across for height, across in sizes)
    values = noise(2, tokens, heads * width)
    offsets, logits = 4 * noise(2, tokens, heads, 3, points, 2, seed=1), noise(2, tokens, heads, 3 * points, seed=2)
    offsets[0, 0], offsets[0, 1] = 1e9, -1e9  # far out of every map
    weights = logits.softmax(-1).view(2, tokens, heads, 3, points)
    plain = sample_on_grids(values, offsets, weights, sizes)
    torch.testing.assert_close(fused.sample_levels(values, offsets, logits, sizes), plain, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("shape", [(2, 60, 32), (1, 60, 64), (60, 16)])
def test_rotation_is_the_complex_product(shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("x2roto.engine.model.encodings.fuses", lambda _: False)
    turns, x = turns_on(shape[-1], 6, 10, DEVICE), noise(*shape)
    torch.testing.assert_close(fused.rotate(x, turns), rotate(x, turns))


@pytest.mark.parametrize("width", [40, 144, 256, 5000])
def test_norms_are_torch_s_with_and_without_a_sum(width: int) -> None:
    x, added, weight, bias = (
        noise(3, 5, width),
        noise(3, 5, width, seed=1),
        noise(width, seed=2),
        noise(width, seed=3),
    )
    for given, total in ((None, x), (added, x + added)):
        plain = F.layer_norm(total, (width,), weight, bias, 1e-6)
        torch.testing.assert_close(fused.layer_norm(x, weight, bias, 1e-6, given), plain, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("size", "stride"), [((16, 24), 1), ((8, 12), 2), ((4, 6), 4), ((40, 48), 2)])
def test_queries_read_where_their_masks_are_and_everywhere_for_an_empty_one(
    size: tuple[int, int], stride: int
) -> None:
    batch, queries, heads, width = 2, 70, 2, 16
    masks = noise(batch, queries, size[0] * stride, size[1] * stride, dtype=HALF)
    masks[0, 3] = -5
    masks[1, 0] = 5
    q, k, v = (
        noise(batch, count, heads * width, seed=seed, dtype=HALF)
        for seed, count in enumerate((queries, size[0] * size[1], size[0] * size[1]))
    )
    plain = attend(q.float(), k.float(), v.float(), heads, attention_mask(masks, size))
    found = fused.attend_where(q, k, v, heads, masks, size)
    torch.testing.assert_close(found.float(), plain, atol=2e-2 if GPU else 2e-3, rtol=1e-2)
