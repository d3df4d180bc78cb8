"""The memory encoder against its definition, one scale and one pixel at a time."""

from __future__ import annotations

import math
from itertools import product

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from tests.unit.model_parts import levels, noise, randomised
from x2roto.engine.model.config import MemoryConfig
from x2roto.engine.model.layers import ChannelNorm
from x2roto.engine.model.memory_encoder import MemoryEncoder, guide

DIM = 8
ENCODER = randomised(MemoryEncoder(MemoryConfig(fuser_feedforward=24), DIM))
COARSE_TO_FINE = ((4, 6), (8, 12), (16, 24))
LEVELS = levels(COARSE_TO_FINE, 3, DIM)
MASKS = 3 * noise(3, 5, 16, 24)
CLASSES = 2 * noise(3, 5, 4, seed=1)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def test_guidance_is_the_masks_mean_weighted_by_class_score_and_its_own_strength() -> None:
    masks, classes = 3 * noise(2, 3, 2, 3), 2 * noise(2, 3, 4, seed=1)
    guidance = guide(masks, classes)
    assert guidance.shape == (2, 1, 2, 3)
    for b, row, column in product(range(2), range(2), range(3)):
        scores = []
        for query in range(3):
            odds = [math.exp(value) for value in classes[b, query].tolist()]
            scores.append(max(odds[:-1]) / sum(odds))
        values = masks[b, :, row, column].tolist()
        weights = [score * math.exp(value) for score, value in zip(scores, values, strict=True)]
        expected = sum(w * sigmoid(m) for w, m in zip(weights, values, strict=True)) / sum(weights)
        assert guidance[b, 0, row, column].item() == pytest.approx(expected, abs=1e-6)


def test_a_query_of_the_background_guides_nothing() -> None:
    masks = torch.cat((torch.full((1, 1, 2, 2), -2.0), torch.full((1, 1, 2, 2), 2.0)), dim=1)
    background, something = [-100.0, 100.0], [100.0, -100.0]
    guidance = guide(masks, torch.tensor([[something, background]]))
    torch.testing.assert_close(guidance, torch.full_like(guidance, sigmoid(-2)), atol=1e-4, rtol=0)


def channel_norm(x: Tensor, norm: ChannelNorm) -> Tensor:
    mean, variance = x.mean(1, keepdim=True), x.var(1, unbiased=False, keepdim=True)
    return (x - mean) / (variance + 1e-6).sqrt() * norm.weight[:, None, None] + norm.bias[:, None, None]


def test_channel_norm_is_over_channels_at_each_pixel() -> None:
    norm = randomised(ChannelNorm(DIM))
    torch.testing.assert_close(norm(LEVELS[0]), channel_norm(LEVELS[0], norm), atol=1e-4, rtol=1e-4)


def naive(level: Tensor, scale: int) -> Tensor:
    """One scale's memory of one frame, guidance and all, from the weights."""
    for layer in ENCODER.vision_downsampler[scale].layers:
        convolved = F.conv2d(level, layer.conv.weight, layer.conv.bias, stride=2, padding=1)
        level = F.gelu(channel_norm(convolved, layer.layer_norm))
    level = ENCODER.vision_downsampler[scale].final_conv(level)
    guidance = 20 * guide(MASKS, CLASSES) - 10
    for layer in ENCODER.mask_downsampler.layers:
        convolved = F.conv2d(guidance, layer.conv.weight, layer.conv.bias, stride=2, padding=1)
        guidance = F.gelu(channel_norm(convolved, layer.layer_norm))
    fused = level + ENCODER.mask_downsampler.final_conv(guidance)
    for block in ENCODER.memory_fuser.layers:
        depthwise = block.depthwise_conv
        mixed = F.conv2d(fused, depthwise.weight, depthwise.bias, padding=3, groups=DIM)
        mixed = channel_norm(mixed, block.layer_norm)
        wide = F.gelu(
            torch.einsum("bchw,dc->bdhw", mixed, block.pointwise_conv1.weight)
            + block.pointwise_conv1.bias[:, None, None]
        )
        mixed = torch.einsum("bchw,dc->bdhw", wide, block.pointwise_conv2.weight)
        mixed = mixed + block.pointwise_conv2.bias[:, None, None]
        fused = fused + block.scale[:, None, None] * mixed
    return ENCODER.projection(fused)


def test_each_scale_s_memory_follows_the_definition() -> None:
    memory = ENCODER(ENCODER.downsample(LEVELS), MASKS, CLASSES)
    assert len(memory) == 3
    for scale, level in enumerate(LEVELS):
        assert memory[scale].shape == (3, DIM, *COARSE_TO_FINE[0])
        torch.testing.assert_close(memory[scale], naive(level, scale), atol=1e-4, rtol=1e-4)


def test_channels_grow_fourfold_with_every_halving() -> None:
    widths = [[layer.conv.out_channels for layer in down.layers] for down in ENCODER.vision_downsampler]
    assert widths == [[], [4 * DIM], [4 * DIM, 16 * DIM]]
    assert [layer.conv.out_channels for layer in ENCODER.mask_downsampler.layers] == [4, 16]


def test_a_batch_equals_its_frames_one_by_one() -> None:
    downsampled = ENCODER.downsample(LEVELS)
    together = ENCODER(downsampled, MASKS, CLASSES)
    for index in range(3):
        one = slice(index, index + 1)
        alone = ENCODER.downsample(tuple(level[one] for level in LEVELS))
        for ours, theirs in zip(downsampled, alone, strict=True):
            torch.testing.assert_close(ours[one], theirs, atol=1e-4, rtol=1e-4)
        for ours, theirs in zip(together, ENCODER(alone, MASKS[one], CLASSES[one]), strict=True):
            torch.testing.assert_close(ours[one], theirs, atol=1e-4, rtol=1e-4)
