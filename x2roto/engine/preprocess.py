"""Decoded frames as the network's inputs: squares for the mask encoder, patches for the language model.

Pixels stay uint8 until they are on the device (`normalise`, `patch_values`): a quarter of the bytes travel.
uint8, uint16 and float pictures are taken; floats must be display values in 0..1, so scene-linear EXR has to
be tone-mapped by the caller. Source: wanghao9610/X2SAM@5b0b106 x2sam/x2sam/dataset/processors/ and
dataset/utils/{load,video}.py.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional

from x2roto.engine.tasks import Media
from x2roto.errors import InputError, PromptError

Rgb = NDArray[Any]
Colour = tuple[float, float, float]

SEGMENTOR_MEAN: Colour = (0.485, 0.456, 0.406)
SEGMENTOR_STD: Colour = (0.229, 0.224, 0.225)
MAX_ASPECT = 200


@dataclass(frozen=True, slots=True)
class PatchConfig:
    """How the language model's vision encoder cuts pictures up. Sides in pixels, `temporal` in frames.

    `image_pixels` bound height · width, `video_pixels` bound frames · height · width. The image bounds are
    those the reference's code applies; its published processor file states others, which it ignores.
    """

    patch: int = 16
    temporal: int = 2
    merge: int = 2
    image_pixels: tuple[int, int] = (3136, 1003520)
    video_pixels: tuple[int, int] = (4096, 25165824)
    mean: Colour = (0.5, 0.5, 0.5)
    std: Colour = (0.5, 0.5, 0.5)

    @property
    def factor(self) -> int:
        """What both sides of a resized picture are multiples of."""
        return self.patch * self.merge


@dataclass(frozen=True, slots=True)
class Patches:
    """`rows`: uint8 (t·h·w, 3·temporal·patch²), each laid out (channel, time, y, x). `grid`: t, h, w."""

    rows: Tensor
    grid: tuple[int, int, int]
    media: Media


# ---- pixels -----------------------------------------------------------------------------------------------


def to_uint8(rgb: Rgb) -> NDArray[np.uint8]:
    """8-bit values of a picture: uint8 as it is, uint16 rounded, floats clipped to 0..1 (NaN is 0)."""
    if rgb.dtype == np.uint8:
        return rgb
    if rgb.dtype == np.uint16:
        # round(value / 257) without leaving 16 bits: 65407 is the first value that rounds to 255.
        return np.asarray((np.minimum(rgb, 65407) + 128) // 257, dtype=np.uint8)
    scaled = np.nan_to_num(np.clip(rgb, 0, 1), copy=False)
    scaled *= 255
    scaled += 0.5
    return np.asarray(scaled, dtype=np.uint8)


def segmentor_frames(frames: Iterable[Rgb], size: int = 1024) -> Tensor:
    """Frames squashed to squares, aspect ignored: uint8 (T, size, size, 3). PIL's bilinear filter."""
    return torch.stack([_resized(rgb, size, size, Image.Resampling.BILINEAR) for rgb in frames])


def segmentor_frames_on(device: torch.device, frames: Iterable[Rgb], size: int = 1024) -> Tensor:
    """As `segmentor_frames`, resized on a device: one code value off where a sum lies between two."""
    return torch.stack([_resized_on(device, to_uint8(rgb), size) for rgb in frames])


def squared(frames_thwc: Tensor, size: int) -> Tensor:
    """Pictures uint8 (T, H, W, 3) squashed to squares where they are: uint8 (T, size, size, 3)."""
    pixels = frames_thwc.permute(0, 3, 1, 2).float()
    # Across, then down, each rounded to a code value, as PIL does.
    for shape in ((pixels.shape[2], size), (size, size)):
        pixels = functional.interpolate(pixels, shape, mode="bilinear", align_corners=False, antialias=True)
        pixels = pixels.add_(0.5).floor_().clamp_(0, 255)
    return pixels.permute(0, 2, 3, 1).byte()


def normalise(frames: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """The mask encoder's input from `segmentor_frames`: (T, 3, size, size) on the same device."""
    pixels = frames.permute(0, 3, 1, 2).contiguous()
    return _standardised(pixels, SEGMENTOR_MEAN, SEGMENTOR_STD).to(dtype)


def prompt_masks(masks: Iterable[NDArray[np.bool_]], size: int = 1024) -> Tensor:
    """Region masks of frame size as squares: bool (N, size, size), nearest neighbour.

    Raises PromptError when nothing of a mask is left, as the network cannot sample from an empty region.
    """
    squares = torch.stack([_square_mask(mask, size) for mask in masks])
    if not squares.flatten(1).any(dim=1).all():
        raise PromptError(f"a region is too thin to survive at {size}x{size}: draw it wider")
    return squares


def _resized(rgb: Rgb, width: int, height: int, method: Image.Resampling) -> Tensor:
    return torch.from_numpy(np.array(Image.fromarray(to_uint8(rgb)).resize((width, height), method)))


def _resized_on(device: torch.device, rgb: NDArray[np.uint8], size: int) -> Tensor:
    shown = torch.from_numpy(np.ascontiguousarray(rgb))
    if device.type == "cuda":
        shown = shown.pin_memory()
    return squared(shown.to(device, non_blocking=True)[None], size)[0]


def _square_mask(mask: NDArray[np.bool_], size: int) -> Tensor:
    resized = Image.fromarray(mask.astype(np.uint8)).resize((size, size), Image.Resampling.NEAREST)
    return torch.from_numpy(np.array(resized, dtype=np.bool_))


def _standardised(pixels: Tensor, mean: Colour, std: Colour) -> Tensor:
    """float32 (pixel / 255 - mean) / std; channels are dimension 1."""
    shape = (1, 3, *(1,) * (pixels.ndim - 2))
    centre, spread = (torch.tensor(values, device=pixels.device).view(shape) for values in (mean, std))
    return pixels.to(torch.float32).div_(255).sub_(centre).div_(spread)


# ---- patches ----------------------------------------------------------------------------------------------


def vision_patches(frames: Sequence[Rgb], config: PatchConfig = PatchConfig()) -> Patches:
    """What the language model sees of a clip. A single frame goes in as an image, since no video is so short.

    Raises InputError for no frame, a side below 32 pixels in a video, or an aspect ratio above 200.
    """
    return image_patches(frames[0], config) if len(frames) == 1 else video_patches(frames, config)


def image_patches(rgb: Rgb, config: PatchConfig = PatchConfig()) -> Patches:
    """One picture, PIL's bicubic filter; repeated in time to fill a patch. Raises InputError."""
    height, width = image_size(rgb.shape[0], rgb.shape[1], config)
    pixels = _resized(rgb, width, height, Image.Resampling.BICUBIC).permute(2, 0, 1)
    return _cut(pixels[None], config, "image")


def video_patches(frames: Sequence[Rgb], config: PatchConfig = PatchConfig()) -> Patches:
    """Two frames or more of one size, torch's antialiased bicubic, as in training. Raises InputError."""
    if not frames:
        raise InputError("no frame to look at: the frame range is empty")
    height, width = video_size(len(frames), frames[0].shape[0], frames[0].shape[1], config)
    resized = [_bicubic(to_uint8(rgb), height, width) for rgb in frames]
    return _cut(torch.cat(resized), config, "video")


def patch_values(rows: Tensor, config: PatchConfig = PatchConfig(), dtype: torch.dtype = torch.float32) -> Tensor:
    """The vision encoder's input from `Patches.rows`: the same shape and device, standardised."""
    return _standardised(rows.unflatten(1, (3, -1)), config.mean, config.std).flatten(1).to(dtype)


def image_size(height: int, width: int, config: PatchConfig = PatchConfig()) -> tuple[int, int]:
    """(height, width) an image is resized to. Raises InputError for an aspect ratio above 200."""
    _check_aspect(height, width)
    return _fitted(1, 1, height, width, config.factor, config.image_pixels)


def video_size(frames: int, height: int, width: int, config: PatchConfig = PatchConfig()) -> tuple[int, int]:
    """(height, width) the frames of a clip are resized to; their number counts against the bound.

    Raises InputError for fewer frames than one patch in time, a side below `factor` or an aspect above 200.
    """
    if frames < config.temporal:
        raise InputError(f"a clip of {frames} frame is too short for a video: give it as an image")
    if min(height, width) < config.factor:
        raise InputError(f"frames of {width}x{height} are too small: the model needs {config.factor} pixels a side")
    _check_aspect(height, width)
    padded = round(frames / config.temporal) * config.temporal
    return _fitted(frames, padded, height, width, config.factor, config.video_pixels)


def _check_aspect(height: int, width: int) -> None:
    if max(height, width) > MAX_ASPECT * min(height, width):
        raise InputError(f"frames of {width}x{height} are too narrow: the aspect ratio must stay below {MAX_ASPECT}")


def _fitted(
    frames: int, padded: int, height: int, width: int, factor: int, pixels: tuple[int, int]
) -> tuple[int, int]:
    """Sides as multiples of `factor`, near the given ones, with the product inside `pixels`."""
    least, most = pixels
    rounded = round(height / factor) * factor, round(width / factor) * factor
    area = padded * rounded[0] * rounded[1]
    if area > most:
        shrink = math.sqrt(frames * height * width / most)
        return (
            max(factor, math.floor(height / shrink / factor) * factor),
            max(factor, math.floor(width / shrink / factor) * factor),
        )
    if area < least:
        grow = math.sqrt(least / (frames * height * width))
        return math.ceil(height * grow / factor) * factor, math.ceil(width * grow / factor) * factor
    return rounded


def _bicubic(rgb: NDArray[np.uint8], height: int, width: int) -> Tensor:
    pixels = torch.from_numpy(np.array(rgb)).permute(2, 0, 1)[None]
    return functional.interpolate(pixels, size=(height, width), mode="bicubic", antialias=True)


def _cut(pixels: Tensor, config: PatchConfig, media: Media) -> Patches:
    """uint8 (T, 3, H, W) in patch rows: steps in time, block rows, block columns, then inside each block."""
    missing = -len(pixels) % config.temporal
    pixels = torch.cat([pixels, pixels[-1:].expand(missing, -1, -1, -1)])
    steps, rows, columns = (
        len(pixels) // config.temporal,
        pixels.shape[2] // config.patch,
        pixels.shape[3] // config.patch,
    )
    blocks = pixels.reshape(
        steps, config.temporal, 3,
        rows // config.merge, config.merge, config.patch,
        columns // config.merge, config.merge, config.patch,
    )  # fmt: skip
    ordered = blocks.permute(0, 3, 6, 4, 7, 2, 1, 5, 8)
    return Patches(ordered.reshape(steps * rows * columns, -1), (steps, rows, columns), media)


# ---- which frames -----------------------------------------------------------------------------------------


def sample_indices(total: int, count: int) -> list[int]:
    """`count` indices over the whole of `total` frames, first and last included; all when there are fewer.

    Spacing is computed in float32 and truncated, as torch does it: exact arithmetic differs now and then.
    """
    count = min(count, total)
    return [int(index) for index in torch.linspace(0, total - 1, steps=count).long()]


def count_at_rate(total: int, source_rate: float, rate: float) -> int:
    """How many frames to sample for `rate` frames per second. Raises InputError when that is none."""
    count = int(total / source_rate * rate)
    if count <= 0:
        raise InputError(f"{total} frames at {source_rate:g} fps give none at {rate:g} fps: sample by number")
    return count


def span_chunks(total: int, count: int) -> list[list[int]]:
    """Chunks of up to `count` indices spread over the clip, the k-th starting at frame k."""
    step = max(1, total // count)
    return [list(range(start, total, step))[:count] for start in range(math.ceil(total / count))]


def stride_chunks(total: int, count: int, stride: int = 1) -> list[list[int]]:
    """Runs of up to `count` indices `stride` apart, ordered by first index; runs of one frame are dropped."""
    runs = (
        list(range(first, min(first + count * stride, total), stride))
        for start in range(stride)
        for first in range(start, total, count * stride)
    )
    return sorted(run for run in runs if len(run) > 1)


def resampled_indices(
    total: int, count: int | None = None, source_rate: float = 24.0, rate: float = 2.0
) -> list[int]:
    """Indices the video processor keeps when it samples by itself: spaced evenly and rounded.

    `count` None: `rate` frames per second, 4 to 768 and no more than there are. Training on regions went
    through this unasked, so its language model saw 4 of the 8 frames of a chunk.
    """
    if count is None:
        count = min(max(int(total / source_rate * rate), 4), 768, total)
    return [int(index) for index in np.linspace(0, total - 1, count).round()]


def step_seconds(indices: Sequence[int], rate: float, temporal: int = 2) -> list[float]:
    """Seconds of each step in time: the mean of its first and last frame, the last index repeated to fill."""
    filled = [*indices, *[indices[-1]] * (-len(indices) % temporal)]
    seconds = [index / rate for index in filled]
    return [(seconds[i] + seconds[i + temporal - 1]) / 2 for i in range(0, len(seconds), temporal)]
