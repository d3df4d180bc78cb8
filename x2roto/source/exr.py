"""OpenEXR pictures: which part and channels hold the plate, and its pixels on the display window.

The reader for single channels raises on damage; the whole-file reader of the same package prints a warning
and returns what it has, so it is used only for headers and for plates that are not in a file's first part.
"""

from __future__ import annotations

import os
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, TextIO, cast

import numpy as np
from numpy.typing import NDArray

from x2roto.errors import InputError

MAGIC = b"\x76\x2f\x31\x01"
MAX_PIXELS = 1 << 27


@dataclass(frozen=True, slots=True)
class Plate:
    """Where a plate lies in a file. `channels`: the names of red, green, blue; one name three times if gray."""

    part: int
    channels: tuple[str, str, str]
    header: dict[str, Any]
    part_count: int

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the display window."""
        low, high = self.header["displayWindow"]
        return int(high[1] - low[1]) + 1, int(high[0] - low[0]) + 1

    @property
    def pixel_aspect(self) -> Fraction:
        """Width over height of a pixel."""
        return Fraction(float(self.header.get("pixelAspectRatio", 1.0)) or 1.0).limit_denominator(4096)

    @property
    def rate(self) -> Fraction | None:
        """Frames per second, if stated."""
        rate = self.header.get("framesPerSecond")
        return Fraction(rate) if rate else None


def find_plate(path: Path, layer: str | None = None) -> Plate:
    """The part and channels of `layer`, by default of the first part with R, G and B, else of the first picture.

    A gray picture (Y, or a layer with one channel) serves as all three. Raises `InputError` for deep data,
    luminance-chroma files, files without such channels and files that are not EXR.
    """
    headers = read_headers(path)
    plates = [
        Plate(part, channels, header, len(headers))
        for part, header in enumerate(headers)
        if (channels := _channels(header, layer)) is not None
    ]
    if not plates:
        raise InputError(f"{path}: {_no_plate(headers, layer)}", path)
    plate = min(plates, key=lambda plate: len(set(plate.channels)) == 1)
    height, width = plate.size
    if height < 1 or width < 1 or height * width > MAX_PIXELS:
        raise InputError(f"{path}: its display window of {width}x{height} is not plausible: check the file", path)
    return plate


def read_headers(path: Path) -> list[dict[str, Any]]:
    """The header of each part. Raises InputError for what is not EXR."""
    import OpenEXR

    with _one_line(path):
        parts = OpenEXR.File(str(path), header_only=True).parts
        if not parts:
            raise InputError(f"{path}: has no picture", path)
        return [part.header for part in parts]


def _names(header: dict[str, Any]) -> list[str]:
    return [channel.name for channel in header.get("channels", ())]


def _channels(header: dict[str, Any], layer: str | None) -> tuple[str, str, str] | None:
    if "deep" in str(header.get("type", "")):
        return None
    names = _names(header)
    if {"RY", "BY"} & set(names) and "R" not in names:
        return None
    prefixes = [f"{layer}."] if layer is not None else _prefixes(names)
    if layer is not None and header.get("name") == layer:
        prefixes.append("")
    for prefix in prefixes:
        rgb = (f"{prefix}R", f"{prefix}G", f"{prefix}B")
        if set(rgb) <= set(names):
            return rgb
    return _single(names, prefixes)


def _prefixes(names: Sequence[str]) -> list[str]:
    """The bare layer first, then the named ones that hold R, G and B, in the file's order."""
    return ["", *(name[:-1] for name in names if name.endswith(".R"))]


def _single(names: Sequence[str], prefixes: Sequence[str]) -> tuple[str, str, str] | None:
    for prefix in prefixes:
        own = [name for name in names if name.startswith(prefix) and "." not in name.removeprefix(prefix)]
        gray = f"{prefix}Y" if f"{prefix}Y" in own else own[0] if len(own) == 1 else None
        if gray is not None:
            return gray, gray, gray
    return None


def _no_plate(headers: Sequence[dict[str, Any]], layer: str | None) -> str:
    if all("deep" in str(header.get("type", "")) for header in headers):
        return "holds deep data: flatten it to a scanline EXR"
    names = [name for header in headers for name in _names(header)]
    if {"RY", "BY"} <= set(names):
        return "holds luminance and chroma channels: save it with R, G and B"
    wanted = f"layer {layer!r}" if layer is not None else "channels R, G, B or Y"
    return f"has no {wanted}: its channels are {', '.join(names[:12])}{' …' * (len(names) > 12)}"


def read_plate(path: Path, plate: Plate) -> tuple[NDArray[np.float32], int]:
    """(height, width, 3) float32 of the display window, black where the file has no data, and the bits stored.

    Raises `InputError` when any of it is damaged or missing.
    """
    with _one_line(path):
        planes, bits = _first_part(path, plate) if plate.part == 0 else _later_part(path, plate)
    canvas = np.zeros((*plate.size, 3), np.float32)
    (x, y), (left, top) = plate.header["displayWindow"][0], plate.header["dataWindow"][0]
    _paste(canvas, np.stack(planes, axis=-1), int(left - x), int(top - y))
    return canvas, bits


def _paste(canvas: NDArray[np.float32], data: NDArray[np.float32], left: int, top: int) -> None:
    """Put `data` at (left, top), cutting what falls outside."""
    height, width = canvas.shape[:2]
    shown = data[max(0, -top) : max(0, height - top), max(0, -left) : max(0, width - left)]
    rows, columns = shown.shape[:2]
    canvas[max(0, top) : max(0, top) + rows, max(0, left) : max(0, left) + columns] = shown


def _data_shape(plate: Plate) -> tuple[int, int]:
    low, high = plate.header["dataWindow"]
    return int(high[1] - low[1]) + 1, int(high[0] - low[0]) + 1


def _first_part(path: Path, plate: Plate) -> tuple[list[NDArray[np.float32]], int]:
    import Imath  # type: ignore[import-untyped]
    import OpenEXR

    with closing_exr(OpenEXR.InputFile(str(path))) as file:
        if not file.isComplete():
            raise InputError(f"{path}: is cut short: render or copy it again", path)
        names = list(dict.fromkeys(plate.channels))
        data = file.channels(names, Imath.PixelType(Imath.PixelType.FLOAT))
        half = file.header()["channels"][names[0]].type == Imath.PixelType(Imath.PixelType.HALF)
    planes = {
        name: np.frombuffer(plane, np.float32).reshape(_data_shape(plate))
        for name, plane in zip(names, data, strict=True)
    }
    return [planes[name] for name in plate.channels], 16 if half else 32


@contextmanager
def closing_exr(file: Any) -> Iterator[Any]:
    """The reader, closed at the end."""
    try:
        yield file
    finally:
        file.close()


def _later_part(path: Path, plate: Plate) -> tuple[list[NDArray[np.float32]], int]:
    import OpenEXR

    with redirect_stdout(cast("TextIO", _WithoutWarnings(sys.stdout))):
        parts = OpenEXR.File(str(path), separate_channels=True).parts
    if len(parts) != plate.part_count:
        raise InputError(f"{path}: a part of it is damaged: render or copy it again", path)
    stored = [parts[plate.part].channels[name].pixels for name in plate.channels]
    return [np.asarray(pixels, np.float32) for pixels in stored], 8 * stored[0].dtype.itemsize


class _WithoutWarnings:
    """Standard output without the warnings OpenEXR prints there; all else goes through."""

    def __init__(self, stdout: TextIO) -> None:
        self._stdout = stdout
        self._in_warning = False

    def write(self, text: str) -> int:
        warning = self._in_warning or text.startswith("Warning: Exception raised reading pixel data")
        self._in_warning = warning and not text.endswith("\n")
        return len(text) if warning else self._stdout.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stdout, name)


_stderr = threading.Lock()


@contextmanager
def _one_line(path: Path) -> Iterator[None]:
    """Errors of OpenEXR inside become one `InputError`; the lines its C code writes of them are dropped.

    What others write to the standard error stream meanwhile is passed on afterwards.
    """
    with _stderr, tempfile.TemporaryFile() as caught:
        kept = os.dup(2)
        os.dup2(caught.fileno(), 2)
        try:
            yield
        except (RuntimeError, OSError, ValueError, KeyError, TypeError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"{path}: cannot be read as OpenEXR: render or copy it again", path) from error
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            _pass_on(caught)


def _pass_on(caught: Any) -> None:
    caught.seek(0)
    lines = [line for line in caught.read().splitlines(keepends=True) if b"(EXR_ERR_" not in line]
    if lines:
        os.write(2, b"".join(lines))
