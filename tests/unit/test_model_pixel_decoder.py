"""The pixel decoder against `transformers`' own, and its sampling against one point at a time."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from transformers import Mask2FormerConfig
from transformers.models.mask2former.modeling_mask2former import Mask2FormerPixelDecoder

from tests.unit.model_parts import levels, noise, randomised
from x2roto.engine.model.config import PixelDecoderConfig
from x2roto.engine.model.pixel_decoder import PixelDecoder, Sizes, sample_in_bags, sample_levels, sample_on_grids

DIM = 64
CONFIG = PixelDecoderConfig(layers=2, heads=4, points=4, feedforward=48)
FINE_TO_COARSE = ((12, 20), (6, 10), (3, 5))
DECODER = randomised(PixelDecoder(CONFIG, DIM))


def bilinear(map_chw: Tensor, x: float, y: float) -> Tensor:
    """The map at a place in pixels, centres at .5, zero outside."""
    value = torch.zeros(len(map_chw))
    left, top = math.floor(x - 0.5), math.floor(y - 0.5)
    for row in (top, top + 1):
        for column in (left, left + 1):
            if 0 <= row < map_chw.shape[1] and 0 <= column < map_chw.shape[2]:
                share = (1 - abs(x - 0.5 - column)) * (1 - abs(y - 0.5 - row))
                value = value + share * map_chw[:, row, column]
    return value


def sample_one_by_one(values: Tensor, offsets: Tensor, weights: Tensor, sizes: Sizes) -> Tensor:
    """Deformable sampling as its definition reads: for every token, head, level and point."""
    batch, tokens, heads, depth, points = weights.shape
    maps = [
        part.unflatten(1, size).unflatten(-1, (heads, -1))  # b h w heads d
        for part, size in zip(values.split([h * w for h, w in sizes], dim=1), sizes, strict=True)
    ]
    places = [((column + 0.5) / w, (row + 0.5) / h) for h, w in sizes for row in range(h) for column in range(w)]
    out = torch.zeros(batch, tokens, heads, values.shape[-1] // heads)
    for b in range(batch):
        for token, (x, y) in enumerate(places):
            for head in range(heads):
                for level in range(depth):
                    height, width = sizes[level]
                    for point in range(points):
                        dx, dy = offsets[b, token, head, level, point].tolist()
                        read = bilinear(maps[level][b, :, :, head].permute(2, 0, 1), x * width + dx, y * height + dy)
                        out[b, token, head] += weights[b, token, head, level, point] * read
    return out.flatten(2)


@pytest.mark.parametrize("sample", [sample_levels, sample_in_bags, sample_on_grids])
def test_sampling_reads_every_point_bilinearly_and_zero_outside(sample: Callable[..., Tensor]) -> None:
    sizes: Sizes = ((2, 2), (2, 4), (4, 3))
    tokens, heads, points = sum(h * w for h, w in sizes), 2, 2
    values = noise(2, tokens, heads * 3)
    offsets = 2 * noise(2, tokens, heads, 3, points, 2, seed=1)
    weights = noise(2, tokens, heads, 3 * points, seed=2).softmax(-1).unflatten(-1, (3, points))
    expected = sample_one_by_one(values, offsets, weights, sizes)
    torch.testing.assert_close(sample(values, offsets, weights, sizes), expected, atol=1e-4, rtol=1e-4)


def test_no_offset_reads_the_token_s_own_pixel() -> None:
    sizes: Sizes = ((3, 4),)
    values = noise(1, 12, 6)
    offsets, weights = torch.zeros(1, 12, 2, 1, 1, 2), torch.ones(1, 12, 2, 1, 1)
    torch.testing.assert_close(sample_levels(values, offsets, weights, sizes), values)


@pytest.fixture(scope="module")
def stock() -> Mask2FormerPixelDecoder:
    config = Mask2FormerConfig(
        feature_size=DIM,
        mask_feature_size=DIM,
        encoder_layers=CONFIG.layers,
        encoder_feedforward_dim=CONFIG.feedforward,
        num_attention_heads=CONFIG.heads,
        feature_strides=[4, 8, 16, 32],
        common_stride=4,
        dropout=0.0,
    )
    decoder = Mask2FormerPixelDecoder(config, feature_channels=[DIM] * 3)
    decoder.load_state_dict(DECODER.state_dict(), strict=True)
    return decoder.eval().requires_grad_(False)


@pytest.mark.parametrize("sizes", [FINE_TO_COARSE, ((16, 16), (8, 8), (4, 4))])
def test_equals_the_stock_decoder(stock: Mask2FormerPixelDecoder, sizes: Sizes) -> None:
    pyramid = levels(sizes, 2, DIM)
    ours, theirs = DECODER(pyramid), stock(list(pyramid), return_dict=True)
    assert len(ours.levels_bchw) == len(theirs.multi_scale_features) == 3
    for mine, other in zip(ours.levels_bchw, theirs.multi_scale_features, strict=True):
        torch.testing.assert_close(mine, other, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(ours.masks_bchw, theirs.mask_features, atol=1e-4, rtol=1e-4)


def test_a_batch_equals_its_frames_one_by_one() -> None:
    pyramid = levels(FINE_TO_COARSE, 3, DIM)
    together = DECODER(pyramid)
    for index in range(3):
        alone = DECODER(tuple(level[index : index + 1] for level in pyramid))
        for ours, theirs in zip(
            (*together.levels_bchw, together.masks_bchw), (*alone.levels_bchw, alone.masks_bchw), strict=True
        ):
            torch.testing.assert_close(ours[index], theirs[0], atol=1e-4, rtol=1e-4)
