"""Frames as network inputs: layouts, depths, limits and the choice of frames."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from x2roto.engine.preprocess import (
    PatchConfig,
    count_at_rate,
    image_patches,
    image_size,
    normalise,
    patch_values,
    prompt_masks,
    resampled_indices,
    sample_indices,
    segmentor_frames,
    segmentor_frames_on,
    span_chunks,
    step_seconds,
    stride_chunks,
    to_uint8,
    video_patches,
    video_size,
    vision_patches,
)
from x2roto.errors import InputError, PromptError

SMALL = PatchConfig(patch=4, image_pixels=(64, 4096), video_pixels=(64, 65536))


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_sixteen_bits_round_to_eight() -> None:
    deep = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    assert np.array_equal(to_uint8(deep), np.round(deep / 257).astype(np.uint8))


def test_floats_are_clipped_and_not_numbers_are_black() -> None:
    values = np.array([-1, 0, 0.5, 1, 7, np.nan, np.inf], dtype=np.float32)
    assert to_uint8(values).tolist() == [0, 0, 128, 255, 255, 0, 255]


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_every_depth_gives_the_same_square(dtype: type) -> None:
    rgb = picture(20, 30)
    deep = rgb.astype(np.uint16) * 257 if dtype == np.uint16 else (rgb / 255).astype(np.float32)
    assert torch.equal(segmentor_frames([deep], 32), segmentor_frames([rgb], 32))


def test_segmentor_frames_squash_and_keep_the_order() -> None:
    frames = [np.full((9, 40, 3), (level, 0, 255 - level), dtype=np.uint8) for level in (10, 200)]
    squares = segmentor_frames(iter(frames), 16)
    assert squares.dtype == torch.uint8
    assert squares.shape == (2, 16, 16, 3)
    assert squares[:, 5, 5].tolist() == [[10, 0, 245], [200, 0, 55]]


@pytest.mark.parametrize("shape", [(270, 480), (64, 48), (100, 100), (101, 37), (400, 300)])
def test_frames_resized_on_a_device_are_pil_s_but_for_what_lies_between_two_values(shape: tuple[int, int]) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (2, *shape, 3), dtype=np.uint8)
    plain, ours = segmentor_frames(frames, 100), segmentor_frames_on(torch.device("cpu"), frames, 100)
    assert ours.dtype == torch.uint8
    apart = (plain.int() - ours.int()).abs()
    assert apart.max() <= 1


def test_normalise_is_the_stated_formula() -> None:
    squares = segmentor_frames([picture(8, 8)], 8)
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    wanted = ((squares.numpy() / 255 - mean) / std).transpose(0, 3, 1, 2)
    values = normalise(squares)
    assert values.dtype == torch.float32
    assert values.is_contiguous()
    assert np.abs(values.numpy() - wanted).max() < 1e-6
    assert normalise(squares, torch.bfloat16).dtype == torch.bfloat16


def test_read_only_frames_are_taken() -> None:
    frozen = picture(64, 64)
    frozen.flags.writeable = False
    assert video_patches([frozen, frozen]).grid == (1, 4, 4)
    assert segmentor_frames([frozen], 8).shape == (1, 8, 8, 3)


def test_prompt_masks_keep_their_place() -> None:
    masks = [np.zeros((30, 60), dtype=bool) for _ in range(2)]
    masks[0][:15] = True
    masks[1][:, 30:] = True
    squares = prompt_masks(masks, 10)
    assert squares.dtype == torch.bool
    assert squares[0].nonzero().amax(0).tolist() == [4, 9]
    assert squares[1].nonzero().amin(0).tolist() == [0, 5]


def test_a_mask_that_vanishes_is_refused() -> None:
    thin = np.zeros((100, 100), dtype=bool)
    thin[0] = True
    with pytest.raises(PromptError, match="too thin"):
        prompt_masks([np.ones((100, 100), dtype=bool), thin], 10)


def test_patch_rows_read_back_as_the_picture() -> None:
    """Inverse by loops: step, block row, block column, row and column in the block; channel, time, y, x."""
    frames = [picture(16, 24, seed) for seed in range(4)]
    patches = video_patches(frames, SMALL)
    assert patches.grid == (2, 4, 6)
    assert patches.media == "video"
    assert patches.rows.dtype == torch.uint8
    rebuilt = np.zeros((4, 16, 24, 3), dtype=np.uint8)
    rows = iter(patches.rows.numpy().reshape(-1, 3, 2, 4, 4))
    for step in range(2):
        for top in range(0, 16, 8):
            for left in range(0, 24, 8):
                for y in (top, top + 4):
                    for x in (left, left + 4):
                        cube = next(rows).transpose(1, 2, 3, 0)
                        rebuilt[2 * step : 2 * step + 2, y : y + 4, x : x + 4] = cube
    assert np.array_equal(rebuilt, np.stack(frames))


def test_an_image_fills_a_step_by_repeating() -> None:
    patches = image_patches(picture(16, 16), SMALL)
    cubes = patches.rows.reshape(-1, 3, 2, 4, 4)
    assert patches.grid == (1, 4, 4)
    assert torch.equal(cubes[:, :, 0], cubes[:, :, 1])


def test_an_odd_clip_repeats_its_last_frame() -> None:
    frames = [picture(16, 16, seed) for seed in range(3)]
    assert torch.equal(video_patches(frames, SMALL).rows, video_patches([*frames, frames[-1]], SMALL).rows)


def test_one_frame_is_an_image() -> None:
    rgb = picture(16, 16)
    patches = vision_patches([rgb], SMALL)
    assert patches.media == "image"
    assert torch.equal(patches.rows, image_patches(rgb, SMALL).rows)
    assert vision_patches([rgb, rgb], SMALL).media == "video"


def test_patch_values_are_standardised_per_channel() -> None:
    config = PatchConfig(patch=4, image_pixels=(64, 4096), mean=(0.0, 0.5, 1.0), std=(1.0, 0.5, 0.25))
    rows = image_patches(np.full((16, 16, 3), 255, dtype=np.uint8), config).rows
    values = patch_values(rows, config).reshape(-1, 3, 2 * 4 * 4)
    assert values.unique(dim=2).flatten(1).unique(dim=0).tolist() == [[1.0, 1.0, 0.0]]


@pytest.mark.parametrize("size", [(37, 53), (1080, 1920), (4000, 30), (5, 5)])
def test_image_sizes_are_multiples_inside_the_bounds(size: tuple[int, int]) -> None:
    height, width = image_size(*size)
    assert height % 32 == width % 32 == 0
    assert 3136 <= height * width <= 1003520


def test_what_the_model_cannot_look_at() -> None:
    with pytest.raises(InputError, match="too narrow"):
        image_size(10, 2001)
    with pytest.raises(InputError, match="too small"):
        video_size(4, 31, 100)
    with pytest.raises(InputError, match="too narrow"):
        video_size(4, 32, 6401)
    with pytest.raises(InputError, match="as an image"):
        video_size(1, 64, 64)
    with pytest.raises(InputError, match="frame range is empty"):
        vision_patches([])


def test_samples_span_the_clip() -> None:
    assert sample_indices(200, 4) == [0, 66, 132, 199]
    assert sample_indices(3, 16) == [0, 1, 2]
    assert sample_indices(10, 1) == [0]


def test_sampling_by_rate() -> None:
    assert count_at_rate(200, 30.0, 2) == 13
    with pytest.raises(InputError, match="give none at 1 fps"):
        count_at_rate(20, 24.0, 1)


@pytest.mark.parametrize("total", [2, 7, 8, 25])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_stride_chunks_partition_the_clip(total: int, stride: int) -> None:
    chunks = stride_chunks(total, 4, stride)
    flat = [index for chunk in chunks for index in chunk]
    assert len(flat) == len(set(flat))
    assert all(2 <= len(chunk) <= 4 for chunk in chunks)
    assert all(np.diff(chunk).tolist() == [stride] * (len(chunk) - 1) for chunk in chunks)
    assert [chunk[0] for chunk in chunks] == sorted(chunk[0] for chunk in chunks)


def test_span_chunks_start_one_after_the_other() -> None:
    assert span_chunks(9, 4) == [[0, 2, 4, 6], [1, 3, 5, 7], [2, 4, 6, 8]]


def test_the_video_processor_keeps_four_of_eight() -> None:
    assert resampled_indices(8) == [0, 2, 5, 7]
    assert resampled_indices(3) == [0, 1, 2]
    assert resampled_indices(8, 3) == [0, 4, 7]


def test_step_seconds_average_pairs() -> None:
    assert step_seconds([0, 10, 20], 10.0) == [0.5, 2.0]
