"""FFV1 in Matroska: lossless 16-bit mattes or straight RGBA, one movie per object."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import av

from x2roto.export.colour import DATA_TAGS, Tags, planar_frame, rgb_format, rgb_frame, rgb_tags
from x2roto.export.movie import Encoding, Movie
from x2roto.export.naming import Template
from x2roto.export.object_movies import ObjectMovies
from x2roto.export.picture import quantised
from x2roto.export.still import straight_rgba
from x2roto.export.take import Take
from x2roto.matte import FloatArray, MatteFrame


@dataclass(frozen=True, slots=True)
class Ffv1Options:
    """`content`: the matte alone, or straight RGBA. `foreground`: clean soft edges from the background."""

    content: Literal["matte", "rgba"] = "matte"
    foreground: bool = True


class Ffv1Writer(ObjectMovies):
    """Writes level 3, every frame a key frame: alpha comes back exactly, to 1/65535.

    PyAV cannot set Matroska's display size, so the pixel aspect of anamorphic plates is not stored.
    """

    Options = Ffv1Options
    kind = "ffv1"
    ext = "mkv"

    def __init__(self, template: Template, take: Take, options: Ffv1Options) -> None:
        if options.content == "matte":
            encoding = ffv1_encoding("gray16le", DATA_TAGS)
        else:
            encoding = ffv1_encoding(rgb_format(4, 16), rgb_tags(take.clip))
        super().__init__(template, take, encoding)
        self._options = options

    def draw(self, result: MatteFrame, alpha: FloatArray, movie: Movie) -> av.VideoFrame:
        """Integers over the full range; there is no Y'CbCr in the file."""
        if self._options.content == "matte":
            height, width = alpha.shape
            return planar_frame("gray16le", width, height, [quantised(alpha, 16)])
        return rgb_frame(quantised(straight_rgba(result, alpha, self.take, self._options.foreground), 16))


def ffv1_encoding(pix_fmt: str, tags: Tags, container: str = "matroska") -> Encoding:
    """Lossless intra-only FFV1 of a pixel format, with a checksum per slice."""
    options = {"level": "3", "g": "1", "slices": "4", "slicecrc": "1"}
    return Encoding("ffv1", container, pix_fmt, options, tags=tags)
