"""What PNG and TIFF share: a grey matte or straight RGBA per frame and object, encoded through libav."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any, Literal, Protocol

import av
import numpy as np
from numpy.typing import NDArray

from x2roto.export.images import ImageWriter, Save
from x2roto.export.naming import Template
from x2roto.export.picture import encoded, quantised
from x2roto.export.take import Take
from x2roto.matte import FloatArray, MatteFrame, foreground

# Channels and bits as libav names them; PNG is big-endian by specification.
_FORMATS = {
    ("png", 1, 8): "gray",
    ("png", 1, 16): "gray16be",
    ("png", 4, 8): "rgba",
    ("png", 4, 16): "rgba64be",
    ("tiff", 1, 8): "gray",
    ("tiff", 1, 16): "gray16le",
    ("tiff", 4, 8): "rgba",
    ("tiff", 4, 16): "rgba64le",
}


class StillOptions(Protocol):
    """What the options of PNG and TIFF have in common."""

    @property
    def content(self) -> Literal["matte", "rgba"]: ...
    @property
    def depth(self) -> Literal[8, 16]: ...
    @property
    def foreground(self) -> bool: ...
    @property
    def codec_options(self) -> Mapping[str, str]: ...


class StillWriter(ImageWriter):
    """Base of the PNG and TIFF writers; `kind` is also libav's codec name."""

    def __init__(self, template: Template, take: Take, options: StillOptions) -> None:
        super().__init__(template, take, tuple(take.name(track) for track in take.tracks))
        self._options = options

    def saves(self, result: MatteFrame) -> Iterator[tuple[str, Save]]:
        """One file per track; a black one where the frame lacks it."""
        for track in self.take.tracks:
            yield self.take.name(track), partial(self._save, result, result.alpha(track))

    def _save(self, result: MatteFrame, alpha: FloatArray, path: Path) -> None:
        options = self._options
        if options.content == "matte":
            values = alpha
        else:
            values = straight_rgba(result, alpha, self.take, clean=options.foreground)
        pixels = quantised(values, options.depth)
        path.write_bytes(encode_still(self.kind, pixels, options.codec_options))


def straight_rgba(result: MatteFrame, alpha: FloatArray, take: Take, clean: bool) -> FloatArray:
    """Straight display-encoded colour with alpha (height, width, 4) in [0, 1]; `clean` removes the fringe."""
    return np.dstack([straight_colour(result, alpha, take, clean), alpha])


def straight_colour(result: MatteFrame, alpha: FloatArray, take: Take, clean: bool) -> FloatArray:
    """Straight display-encoded colour (height, width, 3) in [0, 1]; `clean` removes the background's fringe."""
    plate = encoded(result.frame, take.clip)
    return foreground(plate, alpha) if clean else plate


def encode_still(codec: str, pixels: NDArray[Any], options: Mapping[str, str]) -> bytes:
    """`pixels` (height, width) or (height, width, 4), uint8 or uint16, as a PNG or TIFF file.

    No colour or gamma tags are written: mattes are data.
    """
    channels = 1 if pixels.ndim == 2 else pixels.shape[2]
    name = _FORMATS[codec, channels, pixels.dtype.itemsize * 8]
    context: Any = av.CodecContext.create(codec, "w")
    context.width, context.height, context.pix_fmt = pixels.shape[1], pixels.shape[0], name
    context.time_base = Fraction(1, 25)
    context.options = dict(options)
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format=name)
    return b"".join(bytes(packet) for packet in (*context.encode(frame), *context.encode(None)))
