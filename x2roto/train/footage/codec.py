"""What a lossy codec leaves of pictures: 8x8 cosine transform, coarse colour, differences to the last picture.

Not a codec, only its damage: blocks, ringing, smeared colour and detail that freezes until it is sent anew.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

_KEY_INTERVAL = 8
# Annex K of ITU-T T.81 (JPEG): quantisation of luminance and chrominance at quality 50.
_LUMINANCE = (
    16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55, 14, 13, 16, 24, 40, 57, 69, 56,
    14, 17, 22, 29, 51, 87, 80, 62, 18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92,
    49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99,
)  # fmt: skip
_CHROMINANCE = (
    17, 18, 24, 47, 99, 99, 99, 99, 18, 21, 26, 66, 99, 99, 99, 99, 24, 26, 56, 99, 99, 99, 99, 99,
    47, 66, 99, 99, 99, 99, 99, 99, *[99] * 32,
)  # fmt: skip


def compressed(pictures: Tensor, quality: int) -> Tensor:
    """`pictures` (T, 3, H, W) in 0..1 after coding at `quality` 1..99 (as in JPEG), same shape."""
    height, width = pictures.shape[-2:]
    padded = F.pad(pictures, (0, -width % 16, 0, -height % 16), mode="replicate")
    luma, chroma = _planes(padded)
    luma = _coded(luma, _table(_LUMINANCE, quality, pictures.device))
    chroma = _coded(F.avg_pool2d(chroma, 2), _table(_CHROMINANCE, quality, pictures.device))
    chroma = F.interpolate(chroma, scale_factor=2, mode="bilinear")
    restored = _rgb(luma, chroma)[..., :height, :width]
    return restored.clamp(0, 1)


def _planes(rgb: Tensor) -> tuple[Tensor, Tensor]:
    """Luma (T, 1, H, W) and colour differences (T, 2, H, W), ITU-R BT.601."""
    r, g, b = rgb.unbind(1)
    luma = 0.299 * r + 0.587 * g + 0.114 * b
    return luma.unsqueeze(1), torch.stack([(b - luma) / 1.772, (r - luma) / 1.402], 1)


def _rgb(luma: Tensor, chroma: Tensor) -> Tensor:
    y, (cb, cr) = luma.squeeze(1), chroma.unbind(1)
    return torch.stack([y + 1.402 * cr, y - 0.344136 * cb - 0.714136 * cr, y + 1.772 * cb], 1)


def _coded(planes: Tensor, table: Tensor) -> Tensor:
    """Each picture as the last one plus a quantised difference; every few pictures from nothing."""
    shown: list[Tensor] = []
    blocks = _blocks(planes)
    for number, block in enumerate(blocks):
        # Differences are quantised more coarsely than whole pictures, as in video.
        guess, step = (0.0, table) if number % _KEY_INTERVAL == 0 else (shown[-1], table * 1.5)
        shown.append(guess + torch.round((block - guess) / step) * step)
    return _joined(torch.stack(shown), planes.shape)


def _blocks(planes: Tensor) -> Tensor:
    """Cosine coefficients (T, C, H/8, W/8, 8, 8)."""
    tiles = planes.unflatten(3, (-1, 8)).unflatten(2, (-1, 8)).transpose(3, 4)
    basis = _basis(planes.device)
    coefficients: Tensor = basis @ tiles @ basis.T
    return coefficients


def _joined(blocks: Tensor, shape: torch.Size) -> Tensor:
    basis = _basis(blocks.device)
    tiles: Tensor = basis.T @ blocks @ basis
    return tiles.transpose(3, 4).reshape(shape)


@cache
def _basis(device: torch.device) -> Tensor:
    """The orthonormal DCT-II matrix of size 8."""
    k, n = np.mgrid[:8, :8]
    basis = np.cos(np.pi * (2 * n + 1) * k / 16) * np.where(k == 0, np.sqrt(1 / 8), 0.5)
    return torch.as_tensor(basis, dtype=torch.float32, device=device)


def _table(values: tuple[int, ...], quality: int, device: torch.device) -> Tensor:
    """The quantisation steps of a quality, for pictures in 0..1."""
    scale = 5000 / quality if quality < 50 else 200 - 2 * quality
    steps = np.clip((np.array(values).reshape(8, 8) * scale + 50) // 100, 1, 255)
    return torch.as_tensor(steps / 255, dtype=torch.float32, device=device)
