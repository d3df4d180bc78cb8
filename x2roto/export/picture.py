"""The plate as arrays for writing: display-encoded, scene-linear, eight bits; alpha and colour as integers.

Alpha is never touched by any of this but for quantising.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from x2roto.clip import ClipInfo, Frame
from x2roto.color import hlg_decode, hlg_display, network_rgb, pq_decode, srgb_decode
from x2roto.matte import FloatArray

# Scene values beyond this do not fit half floats.
HALF_MAX = 65504.0
# Scene-linear 1 in PQ and HLG pictures, cd/m².
NITS = 100.0


def quantised(values: FloatArray, bits: int) -> NDArray[Any]:
    """Values in [0, 1] as full-range integers, rounded; uint8 up to 8 bits, else uint16."""
    scaled = np.clip(values, 0, 1) * np.float32(2**bits - 1) + np.float32(0.5)
    return scaled.astype(np.uint8 if bits <= 8 else np.uint16)


def is_scene_linear(frame: Frame, clip: ClipInfo) -> bool:
    """Whether the decoded values are linear light, as in OpenEXR."""
    return frame.rgb.dtype == np.float32 and clip.colour.transfer in (None, "linear")


def encoded(frame: Frame, clip: ClipInfo) -> FloatArray:
    """The plate in [0, 1] as the source encodes it; linear scene values get the BT.709 curve."""
    if frame.rgb.dtype != np.float32:
        return (frame.rgb * np.float32(1 / _top(frame.rgb))).astype(np.float32, copy=False)
    clean = _finite(frame.rgb)
    return _bt709_encoded(clean) if is_scene_linear(frame, clip) else np.clip(clean, 0, 1)


def scene_linear(frame: Frame, clip: ClipInfo) -> FloatArray:
    """The plate in linear light, in its own primaries: 1 is white (for PQ and HLG 100 cd/m²), no NaN, not negative.

    BT.709 and untagged pictures are taken through the inverse camera curve, as Nuke's rec709 does.
    """
    if frame.rgb.dtype == np.float32:
        clean = _finite(frame.rgb)
        return clean if is_scene_linear(frame, clip) else _decoded(clean, clip.colour.transfer)
    return _curve(_top(frame.rgb), clip.colour.transfer)[frame.rgb]


def eight_bit(frame: Frame, clip: ClipInfo) -> NDArray[np.uint8]:
    """The plate for people to look at, uint8: what the network sees; HDR pictures are tone-mapped."""
    return network_rgb(frame.rgb, clip.colour)


def _finite(rgb: NDArray[Any]) -> FloatArray:
    known = np.nan_to_num(rgb, nan=0, posinf=HALF_MAX, neginf=0)
    return np.asarray(np.clip(known, 0, HALF_MAX), np.float32)


def _top(rgb: NDArray[Any]) -> int:
    """The code of white: the largest of an integer type."""
    return int(np.iinfo(rgb.dtype).max)


@lru_cache(maxsize=8)
def _curve(top: int, transfer: str | None) -> FloatArray:
    """Linear light of every code from 0 to `top`."""
    return _decoded(np.linspace(0, 1, top + 1), transfer)


def _decoded(signal: NDArray[Any], transfer: str | None) -> FloatArray:
    """Linear light of an encoded signal in [0, 1], by ffmpeg's transfer name; BT.709 for the rest."""
    signal = np.clip(np.asarray(signal, np.float64), 0, 1)
    curves = {
        "linear": lambda v: v,
        "iec61966-2-1": srgb_decode,
        "gamma22": lambda v: v**2.2,
        "bt470m": lambda v: v**2.2,
        "gamma28": lambda v: v**2.8,
        "bt470bg": lambda v: v**2.8,
        "smpte2084": lambda v: pq_decode(v) / NITS,
        "arib-std-b67": _hlg_linear,
    }
    return np.asarray(curves.get(transfer or "", _bt709_linear)(signal), np.float32)


def _bt709_linear(v: NDArray[Any]) -> NDArray[Any]:
    """ITU-R BT.709-6, item 1.2, inverted."""
    return np.where(v < 0.081, v / 4.5, ((v + 0.099) / 1.099) ** (1 / 0.45))


def _bt709_encoded(linear: FloatArray) -> FloatArray:
    """ITU-R BT.709-6, item 1.2."""
    light = np.clip(linear, 0, 1)
    return np.where(light < 0.018, 4.5 * light, 1.099 * light**0.45 - 0.099).astype(np.float32)


def _hlg_linear(v: NDArray[Any]) -> NDArray[Any]:
    """Light of a neutral signal on a 1000 cd/m² display: the system gamma per channel."""
    neutral = np.repeat(hlg_decode(v)[..., None], 3, axis=-1)
    return hlg_display(neutral)[..., 0] / NITS
