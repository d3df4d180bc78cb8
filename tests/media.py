"""Media made in code: every clip a test reads is written here, frame by frame known.

The picture of frame `i` is `picture(i)`: a ramp with a bright square that moves 4 pixels a frame, so that each
frame differs from every other and from its mirror and turns.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter
from numpy.typing import NDArray

WIDTH, HEIGHT, COUNT = 96, 64, 24


def picture(index: int, width: int = WIDTH, height: int = HEIGHT) -> NDArray[np.uint8]:
    """(height, width, 3) uint8 of frame `index`."""
    y, x = np.mgrid[0:height, 0:width]
    rgb = np.stack([40 + x * 120 // width, 60 + y * 120 // height, np.full_like(x, 90)], axis=-1)
    left = 4 + index * 4 % (width - 24)
    rgb[8:24, left : left + 16] = (230, 200, 40 + index * 5 % 200)
    return rgb.astype(np.uint8)


def deep_picture(index: int, width: int = WIDTH, height: int = HEIGHT) -> NDArray[np.uint16]:
    """The same at 16 bits, with values no 8-bit picture holds."""
    return (picture(index, width, height).astype(np.uint16) * 257) ^ 0x55


def pictures(count: int = COUNT, width: int = WIDTH, height: int = HEIGHT) -> list[NDArray[np.uint8]]:
    """The first `count` frames."""
    return [picture(index, width, height) for index in range(count)]


def write_movie(
    path: Path,
    frames: Sequence[NDArray[np.generic]],
    *,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    rate: Fraction = Fraction(24),
    options: dict[str, str] | None = None,
    pts: Sequence[int] | None = None,
    pixel_aspect: Fraction | None = None,
    tags: tuple[int, int, int, int] = (1, 1, 1, 1),
    timecode: str | None = None,
    format: str | None = None,
) -> Path:
    """A movie of RGB frames (uint8 or uint16). `pts`: in frames, default 0, 1, 2, …; `tags`: primaries,
    transfer, matrix, range as libav numbers them."""
    height, width = frames[0].shape[:2]
    primaries, transfer, matrix, span = tags
    if av.VideoFormat(pix_fmt).is_rgb:
        matrix, span = 0, 2
    reformatter = VideoReformatter()
    with av.open(str(path), "w", format=format) as container:
        stream = container.add_stream(codec, rate=rate, options=options or {})
        stream.width, stream.height, stream.pix_fmt = width, height, pix_fmt
        stream.codec_context.time_base = 1 / rate
        stream.codec_context.color_primaries, stream.codec_context.color_trc = primaries, transfer
        stream.codec_context.colorspace, stream.codec_context.color_range = matrix, span
        if pixel_aspect is not None:
            stream.codec_context.sample_aspect_ratio = pixel_aspect
        if timecode is not None:
            stream.metadata["timecode"] = timecode
        for number, rgb in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(
                np.ascontiguousarray(rgb), format="rgb24" if rgb.dtype == np.uint8 else "rgb48le"
            )
            frame = reformatter.reformat(
                frame,
                format=pix_fmt,
                dst_colorspace={1: 1, 5: 5, 6: 5, 9: 9}.get(matrix, 5),
                dst_color_range=span,
                interpolation=Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INP,
            )
            frame.pts, frame.time_base = number if pts is None else pts[number], 1 / rate
            frame.color_primaries, frame.color_trc, frame.colorspace, frame.color_range = (
                primaries,
                transfer,
                matrix,
                span,
            )
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def set_display_matrix(path: Path, matrix: tuple[int, int, int, int]) -> Path:
    """Write (a, b, c, d), each -1, 0 or 1, into the movie's track header."""
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4
    at += 4 + (32 if data[at] == 1 else 20) + 16  # version and flags, times and ids, layer to reserved
    a, b, c, d = (value << 16 for value in matrix)
    struct.pack_into(">9i", data, at, a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    return path


def write_y4m(path: Path, frames: Sequence[NDArray[np.uint8]], rate: str = "24:1") -> Path:
    """4:4:4 limited-range BT.601 frames as YUV4MPEG2."""
    height, width = frames[0].shape[:2]
    with path.open("wb") as file:
        file.write(f"YUV4MPEG2 W{width} H{height} F{rate} Ip A1:1 C444\n".encode())
        for rgb in frames:
            frame = av.VideoFrame.from_ndarray(rgb, format="rgb24").reformat(format="yuv444p", dst_colorspace=5)
            file.write(b"FRAME\n" + frame.to_ndarray().tobytes())
    return path


def write_pictures(pattern: Path, frames: Sequence[NDArray[np.generic]], first: int = 1001) -> Path:
    """Numbered pictures by `pattern` (`%04d`), kind by suffix: uint8 by Pillow, uint16 by libav, EXR as half."""
    pattern.parent.mkdir(parents=True, exist_ok=True)
    for number, rgb in enumerate(frames, start=first):
        write_picture(pattern.with_name(pattern.name % number), rgb)
    return pattern


def write_picture(path: Path, rgb: NDArray[np.generic]) -> Path:
    """One picture, kind by suffix."""
    suffix = path.suffix.lower()
    if suffix == ".exr":
        return write_exr(path, {name: rgb[..., i] for i, name in enumerate("RGB")})
    if rgb.dtype == np.uint8 and suffix != ".dpx":
        from PIL import Image

        Image.fromarray(rgb).save(path, quality=95)
        return path
    codec, pix_fmt = {".png": ("png", "rgb48be"), ".tif": ("tiff", "rgb48le"), ".dpx": ("dpx", "gbrp10le")}[suffix]
    context = av.CodecContext.create(codec, "w")
    context.width, context.height, context.pix_fmt = rgb.shape[1], rgb.shape[0], pix_fmt
    context.time_base = Fraction(1, 24)
    source = av.VideoFrame.from_ndarray(rgb, format="rgb48le" if rgb.dtype == np.uint16 else "rgb24")
    path.write_bytes(b"".join(bytes(packet) for packet in context.encode(source.reformat(format=pix_fmt))))
    return path


def write_exr(path: Path, channels: dict[str, NDArray[np.generic]], **header: object) -> Path:
    """A scanline EXR; float arrays keep their type, integers become half values 0..1."""
    import OpenEXR

    stored = {
        name: plane if plane.dtype.kind == "f" else (plane / np.iinfo(plane.dtype).max).astype(np.float16)
        for name, plane in channels.items()
    }
    stored = {name: np.ascontiguousarray(plane) for name, plane in stored.items()}
    attributes = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage, **header}
    OpenEXR.File(attributes, stored).write(str(path))
    return path
