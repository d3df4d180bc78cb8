"""WebM for browsers: VP9 with an alpha plane, straight colour, 8 bits, one movie per object."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import av

from x2roto.export.colour import yuv420_frame
from x2roto.export.movie import Encoding, Movie
from x2roto.export.naming import Template
from x2roto.export.object_movies import ObjectMovies
from x2roto.export.picture import quantised
from x2roto.export.still import straight_colour
from x2roto.export.take import Take
from x2roto.matte import FloatArray, MatteFrame


@dataclass(frozen=True, slots=True)
class WebmOptions:
    """`crf`: 0 (best) to 63. `speed`: libvpx's cpu-used. `foreground`: clean soft edges from the background."""

    crf: int = 14
    speed: Literal[0, 1, 2, 3, 4, 5, 6] = 4
    foreground: bool = True


class WebmWriter(ObjectMovies):
    """Writes `yuva420p` VP9; readers need a decoder that knows its alpha (browsers, libvpx-vp9).

    PyAV cannot set Matroska's display size, so the pixel aspect of anamorphic plates is not stored.
    """

    Options = WebmOptions
    kind = "webm"
    ext = "webm"

    def __init__(self, template: Template, take: Take, options: WebmOptions) -> None:
        settings = {"crf": str(options.crf), "b": "0", "cpu-used": str(options.speed)}
        # Frames of the alternate reference kind have no place in an alpha stream.
        settings |= {"deadline": "good", "auto-alt-ref": "0", "row-mt": "1"}
        encoding = Encoding("libvpx-vp9", "webm", "yuva420p", settings, metadata={"alpha_mode": "1"})
        super().__init__(template, take, encoding)
        self._options = options

    def draw(self, result: MatteFrame, alpha: FloatArray, movie: Movie) -> av.VideoFrame:
        """4:2:0 colour with full-size, full-range alpha."""
        colour = straight_colour(result, alpha, self.take, clean=self._options.foreground)
        return yuv420_frame(colour, movie.tags, quantised(alpha, 8))
