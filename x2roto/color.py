"""Transfer functions, and the 8-bit display picture the network sees. Pure functions; alpha never comes here.

Linear light is scene or display light relative to diffuse white = 1.0, encoded values are 0..1.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
from numpy.typing import NDArray

from x2roto.clip import Colour

Array = NDArray[np.float32]

PQ, HLG, LINEAR = "smpte2084", "arib-std-b67", "linear"
DIFFUSE_WHITE_NITS = 203.0  # ITU-R BT.2408: HDR reference white
HLG_PEAK_NITS = 1000.0  # ITU-R BT.2100: nominal display of the HLG system gamma 1.2

# Linear RGB of BT.2020 primaries to BT.709 (both D65): ITU-R BT.2087.
BT2020_TO_BT709 = np.array(
    [[1.660491, -0.587641, -0.072850], [-0.124550, 1.132900, -0.008349], [-0.018151, -0.100579, 1.118730]],
    dtype=np.float32,
)
BT2020_LUMA = np.array([0.2627, 0.6780, 0.0593], dtype=np.float32)


def srgb_encode(linear: Array) -> Array:
    """sRGB values 0..1 of linear light 0..1 (IEC 61966-2-1)."""
    curve = 1.055 * np.maximum(linear, 0.0031308) ** (1 / 2.4) - 0.055
    return np.where(linear <= 0.0031308, 12.92 * linear, curve).astype(np.float32)


def srgb_decode(encoded: Array) -> Array:
    """Linear light 0..1 of sRGB values 0..1 (IEC 61966-2-1)."""
    curve = ((np.maximum(encoded, 0.04045) + 0.055) / 1.055) ** 2.4
    return np.where(encoded <= 0.04045, encoded / 12.92, curve).astype(np.float32)


def pq_decode(encoded: Array) -> Array:
    """Display light in nits, 0..10000, of PQ values 0..1 (SMPTE ST 2084)."""
    m1, m2, c1, c2, c3 = 2610 / 16384, 2523 / 32, 3424 / 4096, 2413 / 128, 2392 / 128
    # In double: the curve's exponents amplify the last bits of single precision.
    root = np.maximum(encoded, 0).astype(np.float64) ** (1 / m2)
    return (10000.0 * (np.maximum(root - c1, 0) / (c2 - c3 * root)) ** (1 / m1)).astype(np.float32)


def hlg_decode(encoded: Array) -> Array:
    """Scene light 0..1 of HLG values 0..1 (ARIB STD-B67, ITU-R BT.2100 inverse OETF)."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    upper = (np.exp((np.maximum(encoded, 0.5) - c) / a) + b) / 12
    return np.where(encoded <= 0.5, encoded**2 / 3, upper).astype(np.float32)


def hlg_display(scene: Array) -> Array:
    """Display light in nits on a 1000 nit display of HLG scene light, (…, 3): system gamma 1.2 (BT.2100 OOTF)."""
    luma = np.maximum(scene @ BT2020_LUMA, 1e-9)[..., None]
    nits: Array = HLG_PEAK_NITS * luma**0.2 * scene
    return nits


def roll_off(linear: Array, knee: float = 0.8) -> Array:
    """Light above `knee` bent to stay below 1.0, light below it untouched; continuous and strictly rising."""
    over = np.maximum(linear - knee, 0)
    head = 1 - knee
    bent: Array = np.minimum(linear, knee) + head * over / (over + head)
    return bent


def network_rgb(
    rgb: NDArray[np.uint8] | NDArray[np.uint16] | NDArray[np.float32], colour: Colour
) -> NDArray[np.uint8]:
    """The display-referred sRGB picture the network sees, uint8 of the same shape, for any decoded frame.

    8-bit pictures are returned as they are, deeper ones rounded; PQ and HLG are brought from BT.2020 to BT.709
    and tone-mapped with diffuse white kept white; float pictures are scene-linear, their highlights rolled
    off and NaN or infinity made finite. Only for the network: outputs are made from the untouched frame.
    """
    if rgb.dtype == np.uint8:
        return rgb.astype(np.uint8, copy=False)
    if rgb.dtype == np.float32:
        finite = np.nan_to_num(rgb.astype(np.float32, copy=False), nan=0.0, posinf=65504.0, neginf=0.0)
        return _display(finite)
    deep = rgb.astype(np.uint16, copy=False)
    if colour.transfer in HDR_LIGHT:
        return _display(HDR_LIGHT[colour.transfer](deep) @ BT2020_TO_BT709.T)
    return _bytes_table(_identity)[deep]


def _display(linear: Array) -> NDArray[np.uint8]:
    """sRGB bytes of linear BT.709 light with diffuse white at 1.0."""
    steps = (roll_off(np.maximum(linear, 0)) * 65535).astype(np.uint16)
    return _bytes_table(srgb_encode)[steps]


def _pq_light(rgb: NDArray[np.uint16]) -> Array:
    """Light relative to diffuse white."""
    return _table(pq_decode)[rgb] / np.float32(DIFFUSE_WHITE_NITS)


def _hlg_light(rgb: NDArray[np.uint16]) -> Array:
    """Light relative to diffuse white on a 1000 nit display."""
    return hlg_display(_table(hlg_decode)[rgb]) / np.float32(DIFFUSE_WHITE_NITS)


HDR_LIGHT: dict[str | None, Callable[[NDArray[np.uint16]], Array]] = {PQ: _pq_light, HLG: _hlg_light}


@cache
def _table(function: Callable[[Array], Array]) -> Array:
    """The function at all 65536 values of a 16-bit sample: one look-up per sample instead of a power."""
    return function(np.linspace(0, 1, 65536, dtype=np.float32))


@cache
def _bytes_table(function: Callable[[Array], Array]) -> NDArray[np.uint8]:
    """The same, rounded to 8 bits."""
    return np.rint(_table(function) * 255).astype(np.uint8)


def _identity(encoded: Array) -> Array:
    return encoded
