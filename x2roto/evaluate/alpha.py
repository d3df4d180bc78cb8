"""The alpha a file holds, whoever wrote it: its alpha channel, or the picture itself where that is grey."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from x2roto.errors import InputError
from x2roto.matte import FloatArray
from x2roto.source import exr
from x2roto.source.picture import pillow
from x2roto.source.sequence import read_still

if TYPE_CHECKING:
    import av

# White of Pillow's grey pixel formats.
_WHITE = {"1": 1, "L": 255, "I;16": 65535, "I;16B": 65535, "F": 1}
# Channels of a grey picture may differ by what lossy chroma does to it.
_GREY = 0.02
_CRYPTOMATTE = "Crypto"


def read_alpha(path: Path, layer: str | None = None) -> FloatArray:
    """Coverage (H, W) float32 in [0, 1]: the alpha channel, or the grey of a file without one.

    Grey with an alpha channel that is opaque throughout is a matte too, as some programs save it. `layer`: of an
    OpenEXR file. Raises InputError for a file that cannot be read, a picture in colour without alpha, and a mask of
    0 and 1 of 255.
    """
    if is_exr(path):
        return _read_exr(path, layer)
    mode = _pillow_mode(path)
    if mode in _WHITE:
        return _read_grey(path, mode)
    if mode in ("LA", "RGBA"):
        alpha = _read_channel(path)
        return alpha if alpha.min() < 1 else _opaque(read_still(path).rgb, alpha, path)
    return grey(read_still(path).rgb, path)


def read_ids(path: Path) -> NDArray[np.uint8]:
    """The label map (H, W) of a picture with a palette: the index of each pixel, 0 for nothing."""
    with pillow(path) as image:
        return np.array(image, np.uint8)


def is_ids(path: Path) -> bool:
    """Whether the picture has a palette, which makes it a label map."""
    return _pillow_mode(path) == "P"


def is_exr(path: Path) -> bool:
    """Whether the file is OpenEXR; raises InputError when it cannot be opened."""
    try:
        with path.open("rb") as file:
            return file.read(4) == exr.MAGIC
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}): check it and its permissions", path) from error


def exr_layers(path: Path) -> tuple[str | None, ...]:
    """What holds a matte in an OpenEXR file: its parts if several, else its layers with alpha; (None,) for itself."""
    headers = exr.read_headers(path)
    if len(headers) > 1:
        return tuple(header["name"] for header in headers if not header["name"].startswith(_CRYPTOMATTE))
    names = [channel.name for channel in headers[0]["channels"]]
    layers = [name.removesuffix(".A") for name in names if name.endswith(".A")]
    return tuple(layer for layer in layers if not layer.startswith(_CRYPTOMATTE)) or (None,)


def _read_exr(path: Path, layer: str | None) -> FloatArray:
    plate = exr.find_plate(path, layer)
    names = {channel.name for channel in plate.header["channels"]}
    channel = next((name for name in (f"{layer}.A", "A") if name in names), None)
    if channel is None:
        return grey(exr.read_plate(path, plate)[0], path)
    alpha = _coverage(exr.read_plate(path, replace(plate, channels=(channel,) * 3))[0][..., 0])
    return alpha if alpha.min() < 1 else _opaque(exr.read_plate(path, plate)[0], alpha, path)


def _opaque(rgb: NDArray[Any], alpha: FloatArray, path: Path) -> FloatArray:
    """The grey of a picture whose alpha says nothing; of one in colour, that it is all there."""
    return grey(rgb, path) if _is_grey(rgb) else alpha


def _pillow_mode(path: Path) -> str | None:
    """Pillow's name of the pixel format; None for a file it cannot open, which another reader may."""
    from PIL import Image

    try:
        with warnings.catch_warnings(action="ignore"), Image.open(path) as image:
            return image.mode
    except (OSError, SyntaxError, ValueError):
        return None


def _read_grey(path: Path, mode: str) -> FloatArray:
    with pillow(path) as image:
        samples = np.array(image)
    if mode == "L" and samples.max() == 1:
        raise InputError(f"{path}: holds 0 and 1 of 255: save masks as 0 and 255, label maps with a palette", path)
    return _coverage(samples / np.float32(_WHITE[mode]))


def _coverage(values: NDArray[Any]) -> FloatArray:
    known = np.nan_to_num(values, nan=0, posinf=1, neginf=0)
    return np.asarray(np.clip(known, 0, 1), np.float32)


def grey(rgb: NDArray[Any], path: Path) -> FloatArray:
    """The coverage (H, W) that a grey picture (H, W, 3) of integers or floats means.

    Raises InputError for a picture in colour.
    """
    if not _is_grey(rgb):
        raise InputError(f"{path}: is a picture in colour without alpha: give the folder of mattes", path)
    return _coverage(rgb[..., 1] / _white(rgb))


def _is_grey(rgb: NDArray[Any]) -> bool:
    return bool(np.ptp(rgb, axis=2).max() <= _GREY * _white(rgb))


def _white(rgb: NDArray[Any]) -> np.float32:
    return np.float32(np.iinfo(rgb.dtype).max if rgb.dtype.kind == "u" else 1)


def _read_channel(path: Path) -> FloatArray:
    import av

    from x2roto.source.video import libav_errors

    with libav_errors(path), path.open("rb") as file, av.open(file, "r") as container:
        return alpha_channel(next(container.decode(video=0)))


def has_alpha_channel(pixel_format: str) -> bool:
    """Whether pictures of this format, by libav's name, carry alpha."""
    import av

    return any(component.is_alpha for component in av.VideoFormat(pixel_format).components)


def alpha_channel(frame: av.VideoFrame) -> FloatArray:
    """The alpha (H, W) of a decoded picture that has one, as stored: no conversion, full range."""
    components = frame.format.components
    channel = next(component for component in components if component.is_alpha)
    plane = frame.planes[channel.plane]
    dtype = np.dtype("u1" if channel.bits <= 8 else ">u2" if frame.format.is_big_endian else "<u2")
    samples = np.frombuffer(memoryview(plane), dtype).reshape(plane.height, -1)
    step = sum(component.plane == channel.plane for component in components)
    first = 0 if frame.format.name.startswith("a") else step - 1
    return _coverage(samples[:, first : first + step * frame.width : step] / np.float32((1 << channel.bits) - 1))
