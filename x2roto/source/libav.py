"""From a picture libav decoded to an upright RGB array, and libav's numbers to names.

libswscale does the colour conversion, told matrix and range explicitly. Two facts measured on libswscale 9.5
decide the settings (`tests/unit/test_source_libav.py` holds both): with 8-bit input only accurate rounding with
full chroma interpolation is free of bias, and with deep 4:2:0 input only bicubic full chroma is right.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar, cast

import av
import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter
from numpy.typing import NDArray

from x2roto.clip import Colour

if TYPE_CHECKING:
    from av.buffer import Buffer

    from x2roto.source.mending import Pixels

RANGES = {1: "tv", 2: "pc"}
MATRICES = {
    0: "gbr", 1: "bt709", 4: "fcc", 5: "bt470bg", 6: "smpte170m", 7: "smpte240m", 8: "ycgco", 9: "bt2020nc",
    10: "bt2020c", 14: "ictcp",
}  # fmt: skip
TRANSFERS = {
    1: "bt709", 4: "gamma22", 5: "gamma28", 6: "smpte170m", 7: "smpte240m", 8: "linear", 9: "log100",
    10: "log316", 11: "iec61966-2-4", 12: "bt1361e", 13: "iec61966-2-1", 14: "bt2020-10", 15: "bt2020-12",
    16: "smpte2084", 17: "smpte428", 18: "arib-std-b67",
}  # fmt: skip
PRIMARIES = {
    1: "bt709", 4: "bt470m", 5: "bt470bg", 6: "smpte170m", 7: "smpte240m", 8: "film", 9: "bt2020",
    10: "smpte428", 11: "smpte431", 12: "smpte432", 22: "ebu3213",
}  # fmt: skip

# libswscale's own numbers of the matrices it knows (SWS_CS_*).
_SWS_MATRICES = {"bt709": 1, "fcc": 4, "bt470bg": 5, "smpte170m": 5, "smpte240m": 7, "bt2020nc": 9, "bt2020c": 9}
_LIMITED, _FULL = 1, 2
_EXACT_8 = Interpolation.BILINEAR | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT
_EXACT_DEEP = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT


def colour_of(frame: av.VideoFrame) -> Colour:
    """The colour facts the frame is tagged with; None where untagged."""
    return Colour(
        range=RANGES.get(int(frame.color_range)),
        matrix=MATRICES.get(int(frame.colorspace)),
        transfer=TRANSFERS.get(int(frame.color_trc)),
        primaries=PRIMARIES.get(int(frame.color_primaries)),
    )


def depth_of(frame: av.VideoFrame) -> int:
    """Bits per component as stored; 8 for formats of fewer."""
    return max(8, *(component.bits for component in frame.format.components))


def display_size(frame: av.VideoFrame) -> tuple[int, int]:
    """Width and height of the picture turned upright."""
    return (frame.height, frame.width) if orientation_of(frame).swap else (frame.width, frame.height)


def dtype_of(frame: av.VideoFrame) -> np.dtype[Any]:
    """The sample type `Converter.rgb` gives."""
    if "f32" in frame.format.name or "f16" in frame.format.name:
        return np.dtype(np.float32)
    return np.dtype(np.uint16 if depth_of(frame) > 8 else np.uint8)


def has_alpha(frame: av.VideoFrame) -> bool:
    """Whether the picture carries an alpha channel (a palette may, and is not counted)."""
    return any(component.is_alpha for component in frame.format.components)


Array = TypeVar("Array", bound=NDArray[Any])


@dataclass(frozen=True, slots=True)
class Orientation:
    """How a stored picture is turned for display: rows and columns swapped first, then mirrored."""

    swap: bool = False
    mirror_x: bool = False
    mirror_y: bool = False

    def upright(self, rgb: Array) -> Array:
        """The picture as it is displayed, contiguous."""
        turned: NDArray[Any] = rgb.swapaxes(0, 1) if self.swap else rgb
        turned = turned[:: -1 if self.mirror_y else 1, :: -1 if self.mirror_x else 1]
        upright: Array = np.ascontiguousarray(turned)  # type: ignore[assignment]
        return upright

    def pixel_aspect(self, stored: Fraction) -> Fraction:
        """Width over height of a displayed pixel."""
        return 1 / stored if self.swap else stored


def orientation_of(frame: av.VideoFrame) -> Orientation:
    """The nearest quarter turn and mirror to the frame's display matrix (ISO/IEC 14496-12, 16.16 fixed point).

    The matrix maps a stored pixel (x, y) to (a x + c y, b x + d y).
    """
    try:
        matrix = frame.side_data.get("DISPLAYMATRIX")
    except ValueError:  # PyAV refuses to list side data of kinds newer than itself, such as EXIF
        return _QUARTER_TURNS.get(round(frame.rotation / 90) % 4, Orientation())
    if matrix is None:
        return Orientation()
    a, b, _, c, d = struct.unpack_from("=5i", cast("Buffer", matrix))
    if abs(b) + abs(c) > abs(a) + abs(d):
        return Orientation(swap=True, mirror_x=c < 0, mirror_y=b < 0)
    return Orientation(mirror_x=a < 0, mirror_y=d < 0)


# By quarter turns counter-clockwise.
_QUARTER_TURNS = {
    1: Orientation(swap=True, mirror_y=True),
    2: Orientation(mirror_x=True, mirror_y=True),
    3: Orientation(swap=True, mirror_x=True),
}


class Converter:
    """Pictures of one stream to RGB arrays; keeps libswscale's context between frames. Not thread-safe."""

    def __init__(self) -> None:
        self._reformatter = VideoReformatter()

    def rgb(self, frame: av.VideoFrame) -> Pixels:
        """(height, width, 3) as displayed, contiguous: uint8, uint16 (full range) or float32 as stored.

        Alpha is left out. Untagged pictures are BT.709 from 720 lines up, else BT.601, and limited range.
        Raises `av.FFmpegError` or `ValueError` when libswscale cannot convert the pixel format.
        """
        if dtype_of(frame) == np.float32:
            return orientation_of(frame).upright(frame.to_ndarray()[..., :3].astype(np.float32))
        return orientation_of(frame).upright(self._integer(frame))

    def _integer(self, frame: av.VideoFrame) -> NDArray[np.uint8] | NDArray[np.uint16]:
        deep = dtype_of(frame) == np.uint16
        full = _is_full_range(frame)
        matrix = _SWS_MATRICES.get(MATRICES.get(int(frame.colorspace), ""), 1 if frame.height >= 720 else 5)
        converted = self._reformatter.reformat(
            frame,
            format="rgb48le" if deep else "rgb24",
            src_colorspace=matrix,
            dst_colorspace=matrix,
            src_color_range=_FULL if full else _LIMITED,
            dst_color_range=_FULL,
            interpolation=_EXACT_DEEP if deep else _EXACT_8,
            threads=0,
        )
        if not deep:
            return _samples(converted, np.dtype(np.uint8))
        widened: NDArray[np.uint16] = _to_full_scale(_white(frame, full))[_samples(converted, np.dtype("<u2"))]
        return widened


def _is_full_range(frame: av.VideoFrame) -> bool:
    return int(frame.color_range) == _FULL or frame.format.is_rgb or frame.format.name.startswith("yuvj")


def _samples(frame: av.VideoFrame, dtype: np.dtype[Any]) -> NDArray[Any]:
    """The packed RGB plane as an array that shares the frame's memory; rows may be padded."""
    plane = frame.planes[0]
    return np.ndarray(
        (frame.height, frame.width, 3),
        dtype,
        buffer=memoryview(plane),
        strides=(plane.line_size, 3 * dtype.itemsize, dtype.itemsize),
    )


def _white(frame: av.VideoFrame, full: bool) -> int:
    """What libswscale makes of white in rgb48: it widens samples by a shift, so white falls short of 65535."""
    if frame.format.is_rgb:
        return 65535
    bits = depth_of(frame)
    return ((1 << bits) - 1) << (16 - bits) if full else 255 << 8


@cache
def _to_full_scale(white: int) -> NDArray[np.uint16]:
    """Table from libswscale's 16-bit samples to ones whose white is 65535."""
    samples = np.arange(65536, dtype=np.float64) * (65535 / white)
    return np.minimum(np.rint(samples), 65535).astype(np.uint16)
