"""One still picture, chosen by what the file holds and not by its name: PNG, JPEG, TIFF, DPX, EXR and others."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from x2roto.clip import Colour
from x2roto.errors import InputError
from x2roto.source import exr

if TYPE_CHECKING:
    from PIL.Image import Image

    from x2roto.source.mending import Pixels

MAX_PIXELS = 1 << 27

RAW_SUFFIXES = frozenset(
    {".r3d", ".braw", ".ari", ".arx", ".arw", ".cr2", ".cr3", ".crw", ".nef", ".nrw", ".dng", ".raf", ".orf"}
    | {".rw2", ".pef", ".srw", ".x3f", ".iiq", ".3fr", ".fff", ".cine", ".crm"}
)


@dataclass(frozen=True, slots=True)
class Still:
    """A picture and the facts beside its pixels."""

    rgb: Pixels
    depth: int
    colour: Colour = field(default_factory=Colour)
    pixel_aspect: Fraction = Fraction(1)
    rate: Fraction | None = None
    notes: tuple[str, ...] = ()


def refuse_raw(path: Path) -> None:
    """Raise `InputError` for a camera's RAW file, which no decoder here develops."""
    if path.suffix.lower() in RAW_SUFFIXES:
        raise InputError(f"{path}: is a camera RAW file: transcode it to EXR, DPX or ProRes first", path)


def reader_of(path: Path) -> Callable[[Path, str | None], Still] | None:
    """What reads this file as one picture; None when it is not a still (a movie, an animation, anything else)."""
    with path.open("rb") as file:
        head = file.read(4096)
    if head.startswith(exr.MAGIC):
        return _read_exr
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return _png_reader(head)
    if head.startswith(b"\xff\xd8\xff"):
        return None if path.suffix.lower() in {".mjpeg", ".mjpg"} else _read_pillow
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return None if is_animated_webp(head) else _read_pillow
    if head[4:8] == b"ftyp" and re.search(rb"avif|heic|heix|hevx|mif1", head[8:32]):
        return _read_pillow if b"avif" in head[8:32] else _refuse_heic
    if head.startswith((b"BM", b"P1\n", b"P2\n", b"P3\n")):
        return _read_pillow
    return _read_libav if head.startswith(_LIBAV_STARTS) else None


_LIBAV_STARTS = (
    b"II*\0", b"MM\0*", b"SDPX", b"XPDS", b"P4", b"P5", b"P6", b"P7", b"PF\n", b"Pf\n", b"#?RADIANCE", b"#?RGBE",
    b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51",
)  # fmt: skip


def is_animated_webp(head: bytes) -> bool:
    """Whether a WebP file's first bytes announce an animation (VP8X flags, bit 1)."""
    return head[12:16] == b"VP8X" and bool(head[20] & 0x02)


def _png_reader(head: bytes) -> Callable[[Path, str | None], Still] | None:
    if b"acTL" in head[: head.find(b"IDAT") if b"IDAT" in head else None]:
        return None
    return _read_libav if head[24:25] == b"\x10" else _read_pillow


def _no_layers(path: Path, layer: str | None) -> None:
    if layer is not None:
        raise InputError(f"{path}: has no layers, only OpenEXR has: leave out layer {layer!r}", path)


def _refuse_heic(path: Path, layer: str | None) -> Still:
    raise InputError(f"{path}: is a HEIC photo: save it as PNG, TIFF or JPEG first", path)


def _read_exr(path: Path, layer: str | None) -> Still:
    plate = exr.find_plate(path, layer)
    rgb, depth = exr.read_plate(path, plate)
    colour = Colour(range="pc", transfer="linear")
    return Still(rgb, depth, colour, plate.pixel_aspect, plate.rate)


def _read_pillow(path: Path, layer: str | None) -> Still:
    from PIL import ImageOps

    _no_layers(path, layer)
    with pillow(path) as image:
        alpha = image.has_transparency_data
        upright = ImageOps.exif_transpose(image)
        notes = _pillow_notes(alpha, upright.size != image.size)
        return Still(np.asarray(upright.convert("RGB")), 8, Colour(range="pc"), notes=notes)


def _pillow_notes(alpha: bool, turned: bool) -> tuple[str, ...]:
    turned_note = ("turned upright as its EXIF orientation says",) if turned else ()
    return (*turned_note, "its alpha channel is not used") if alpha else turned_note


@contextmanager
def pillow(path: Path) -> Iterator[Image]:
    """The picture opened by Pillow; what Pillow raises inside becomes `InputError`, its warnings too."""
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path) as image:
                _check_size(path, *image.size)
                yield image
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: cannot be read as a picture ({_first_line(error)}): check it", path) from error


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _check_size(path: Path, width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise InputError(f"{path}: its size of {width}x{height} is not plausible: check the file", path)


def _read_libav(path: Path, layer: str | None) -> Still:
    """Deep pictures, which Pillow would cut to 8 bits."""
    import av

    from x2roto.source.libav import Converter, depth_of, has_alpha

    _no_layers(path, layer)
    try:
        frame = _first_frame(path)
        rgb = Converter().rgb(frame)
    except (av.FFmpegError, ValueError, NotImplementedError) as error:
        raise InputError(
            f"{path}: cannot be read as a picture: its data is damaged or of a rare kind", path
        ) from error
    linear = rgb.dtype == np.float32
    notes = ("its alpha channel is not used",) if has_alpha(frame) else ()
    colour = Colour(range="pc", transfer="linear" if linear else None)
    return Still(rgb, 32 if linear else depth_of(frame), colour, notes=(*notes, *_dpx_notes(path)))


def _first_frame(path: Path) -> Any:
    import av

    # A file object keeps libav from taking the name for a sequence pattern or a URL.
    with path.open("rb") as file, av.open(file, "r", options={"max_pixels": str(MAX_PIXELS)}) as container:
        video = container.streams.video[0]
        if video.codec_context.name == "png":
            video.codec_context.options = {"err_detect": "crccheck+explode"}
        for frame in container.decode(video):
            if frame.is_corrupt:
                raise ValueError("damaged")
            return frame
    raise ValueError("no picture")


def _dpx_notes(path: Path) -> tuple[str, ...]:
    with path.open("rb") as file:
        head = file.read(804)
    logarithmic = head[:4] in {b"SDPX", b"XPDS"} and head[801:802] in {b"\x01", b"\x03"}
    return ("its header says logarithmic: state its colour space for linear outputs",) if logarithmic else ()
