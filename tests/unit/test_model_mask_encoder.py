"""The mask encoder: which maps it gives, in which order, and that no frame sees another."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint
from transformers import Sam2VisionModel

from tests.tiny import TINY
from tests.unit.model_parts import noise, randomised
from x2roto.engine.model.mask_encoder import MaskEncoder, _stages

ENCODER = randomised(MaskEncoder(TINY.encoder, TINY.image_size), std=0.2)
PIXELS = noise(2, 3, TINY.image_size, TINY.image_size)


def test_levels_run_from_fine_to_coarse_and_the_region_map_has_stride_16() -> None:
    side, dims = TINY.image_size, TINY.encoder.embed_dims
    pyramid = ENCODER(PIXELS)
    assert [tuple(level.shape) for level in pyramid.levels_bchw] == [
        (2, TINY.encoder.fpn_dim, side // stride, side // stride) for stride in (4, 8, 16)
    ]
    assert pyramid.region_bhwc.shape == (2, side // 16, side // 16, dims[2])


def test_levels_are_those_of_the_stock_model() -> None:
    stock = Sam2VisionModel.forward(ENCODER, PIXELS).fpn_hidden_states
    pyramid = ENCODER(PIXELS)
    for ours, theirs in zip(pyramid.levels_bchw, stock, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_only_the_coarsest_level_hears_from_the_stage_above() -> None:
    stages = ENCODER.backbone(PIXELS).intermediate_hidden_states
    maps = [stage.permute(0, 3, 1, 2) for stage in stages]
    convs = ENCODER.neck.convs
    above = F.interpolate(convs[0](maps[3]), scale_factor=2, mode="nearest")
    expected = (convs[3](maps[0]), convs[2](maps[1]), convs[1](maps[2]) + above)
    for ours, theirs in zip(ENCODER(PIXELS).levels_bchw, expected, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(ENCODER(PIXELS).region_bhwc, stages[2])


@pytest.mark.parametrize("side", [64, 96])
@pytest.mark.parametrize("windows", [(8, 4, 4, 2), (4, 4, 8, 4), (8, 8, 2, 8)])
def test_windows_that_fit_and_that_do_not_give_the_stock_model_s_maps(side: int, windows: tuple[int, ...]) -> None:
    encoder = randomised(MaskEncoder(replace(TINY.encoder, windows=windows), side), std=0.2)
    pixels = noise(2, 3, side, side)
    stock = encoder.backbone(pixels).intermediate_hidden_states
    for ours, theirs in zip(_stages(encoder.backbone, pixels), stock, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_a_batch_equals_its_frames_one_by_one() -> None:
    together = ENCODER(PIXELS)
    for index in range(len(PIXELS)):
        alone = ENCODER(PIXELS[index : index + 1])
        for ours, theirs in zip(together.levels_bchw, alone.levels_bchw, strict=True):
            torch.testing.assert_close(ours[index : index + 1], theirs, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(together.region_bhwc[index], alone.region_bhwc[0], atol=1e-4, rtol=1e-4)


def test_activations_can_be_computed_again() -> None:
    encoder = randomised(MaskEncoder(TINY.encoder, TINY.image_size), std=0.2).train().requires_grad_()
    calls: list[object] = []

    def again(function: Callable[..., object], *args: object) -> object:
        calls.append(args)
        return checkpoint(function, *args, use_reentrant=False)

    def gradient() -> torch.Tensor:
        encoder.zero_grad()
        encoder(PIXELS).levels_bchw[2].sum().backward()
        return encoder.backbone.blocks[0].attn.qkv.weight.grad.clone()

    kept = gradient()
    for block in encoder.backbone.blocks:
        block.gradient_checkpointing, block._gradient_checkpointing_func = True, again
    torch.testing.assert_close(gradient(), kept)
    assert len(calls) == len(encoder.backbone.blocks)
