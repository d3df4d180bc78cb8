"""Colour for movie encoders: the tags of a stream, and Y'CbCr from RGB at full precision.

libswscale is not used: its RGB to 10-bit conversion is off by up to 4 codes, this one by half a code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from x2roto.clip import ClipInfo
from x2roto.matte import FloatArray

# Code points of ITU-T H.273 by ffmpeg's names.
PRIMARIES = {
    "bt709": 1, "bt470m": 4, "bt470bg": 5, "smpte170m": 6, "smpte240m": 7, "film": 8, "bt2020": 9,
    "smpte431": 11, "smpte432": 12,
}  # fmt: skip
TRANSFERS = {
    "bt709": 1, "gamma22": 4, "bt470m": 4, "gamma28": 5, "bt470bg": 5, "smpte170m": 6, "smpte240m": 7,
    "iec61966-2-1": 13, "bt2020-10": 14, "bt2020-12": 15, "smpte2084": 16, "arib-std-b67": 18,
}  # fmt: skip
MATRICES = {"bt709": 1, "bt470bg": 5, "smpte170m": 6, "smpte240m": 7, "bt2020nc": 9}
# Weights of red and blue in luma, ITU-T H.273 table 4.
_WEIGHTS = {1: (0.2126, 0.0722), 5: (0.299, 0.114), 6: (0.299, 0.114), 7: (0.212, 0.087), 9: (0.2627, 0.0593)}
UNSPECIFIED, RGB_MATRIX = 2, 0
LIMITED_RANGE, FULL_RANGE = 1, 2


@dataclass(frozen=True, slots=True)
class Tags:
    """Colour code points of a stream, ITU-T H.273, and its range."""

    primaries: int
    transfer: int
    matrix: int
    range: int = LIMITED_RANGE

    def mark(self, target: Any) -> None:
        """Set the tags on an encoder or, as some encoders read only there, on a frame."""
        target.color_primaries, target.color_trc = self.primaries, self.transfer
        target.colorspace, target.color_range = self.matrix, self.range


def movie_tags(clip: ClipInfo) -> Tags:
    """The source's tags; what it leaves open is BT.709, or BT.601 below 720 lines, as players assume."""
    fallback = "bt709" if clip.height >= 720 else "smpte170m"
    colour = clip.colour
    return Tags(
        PRIMARIES.get(colour.primaries or "", PRIMARIES[fallback]),
        # Scene-linear sources reach movies through the BT.709 curve.
        TRANSFERS.get(colour.transfer or "", TRANSFERS["bt709" if colour.transfer == "linear" else fallback]),
        MATRICES.get(colour.matrix or "", MATRICES[fallback]),
    )


def rgb_tags(clip: ClipInfo) -> Tags:
    """The tags of full-range RGB without a luma matrix."""
    return replace(movie_tags(clip), matrix=RGB_MATRIX, range=FULL_RANGE)


# A matte is data: full range, no colour.
DATA_TAGS = Tags(UNSPECIFIED, UNSPECIFIED, UNSPECIFIED, FULL_RANGE)


def yuv_planes(rgb: FloatArray, tags: Tags, bits: int) -> list[NDArray[Any]]:
    """Limited-range Y', Cb, Cr of encoded `rgb` (height, width, 3) in [0, 1], rounded to `bits`.

    Source: ITU-T H.273 equations 26 to 44.
    """
    red, blue = _WEIGHTS[tags.matrix]
    luma = np.array([red, 1 - red - blue, blue])
    cb = (np.array([0, 0, 1]) - luma) / (2 * (1 - blue))
    cr = (np.array([1, 0, 0]) - luma) / (2 * (1 - red))
    step = 1 << (bits - 8)
    matrix = np.array([219 * luma, 224 * cb, 224 * cr]) * step
    offset = np.array([16, 128, 128]) * step + 0.5
    codes = matrix.astype(np.float32) @ rgb.reshape(-1, 3).T
    codes += offset.astype(np.float32)[:, None]
    kind = np.uint8 if bits <= 8 else np.uint16
    return list(codes.astype(kind).reshape(3, *rgb.shape[:2]))


def half_size(plane: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A chroma plane for 4:2:0, sited left as MPEG-2 and H.264 place it: 1-2-1 across, mean of two lines down."""
    wide = np.pad(plane, ((0, plane.shape[0] % 2), (1, 1 + plane.shape[1] % 2)), mode="edge").astype(np.uint16)
    lines = wide[0::2] + wide[1::2]
    across = lines[:, 0:-2:2] + 2 * lines[:, 1:-1:2] + lines[:, 2::2]
    return np.asarray((across + 4) >> 3, np.uint8)


def planar_frame(pix_fmt: str, width: int, height: int, planes: Sequence[NDArray[Any]]) -> av.VideoFrame:
    """A libav frame of planes in libav's order, uint8 or little-endian uint16."""
    frame = av.VideoFrame(width, height, pix_fmt)
    for target, plane in zip(frame.planes, planes, strict=True):
        lines = np.frombuffer(memoryview(target), plane.dtype).reshape(target.height, -1)
        lines[:, : plane.shape[1]] = plane
    return frame


def rgb_frame(pixels: NDArray[Any]) -> av.VideoFrame:
    """A libav frame of RGB or RGBA `pixels` (height, width, 3 or 4) uint8 or uint16, as `rgb_format` says."""
    height, width, channels = pixels.shape
    name = rgb_format(channels, pixels.dtype.itemsize * 8)
    if pixels.dtype == np.uint16:
        order = (1, 2, 0, 3)[:channels]
        return planar_frame(name, width, height, [pixels[..., index] for index in order])
    opaque = pixels if channels == 4 else np.dstack([pixels, np.full((height, width), 255, np.uint8)])
    return av.VideoFrame.from_ndarray(np.ascontiguousarray(opaque[..., [2, 1, 0, 3]]), format="bgra").reformat(
        format=name
    )


def rgb_format(channels: int, bits: int) -> str:
    """libav's lossless RGB format of 3 or 4 channels that FFV1 takes."""
    return {(3, 8): "bgr0", (4, 8): "bgra", (3, 16): "gbrp16le", (4, 16): "gbrap16le"}[channels, bits]


def yuv420_frame(rgb: FloatArray, tags: Tags, alpha: NDArray[np.uint8] | None = None) -> av.VideoFrame:
    """An 8-bit 4:2:0 frame of encoded `rgb` in [0, 1], with a full-range alpha plane where one is given."""
    luma, cb, cr = yuv_planes(rgb, tags, 8)
    planes = [luma, half_size(cb), half_size(cr), *([] if alpha is None else [alpha])]
    return planar_frame("yuv420p" if alpha is None else "yuva420p", rgb.shape[1], rgb.shape[0], planes)
