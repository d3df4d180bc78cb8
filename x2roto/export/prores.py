"""ProRes 4444 in QuickTime: straight colour with a 16-bit alpha, one movie per object."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import av

from x2roto.export.colour import planar_frame, yuv_planes
from x2roto.export.movie import Encoding, Movie
from x2roto.export.naming import Template
from x2roto.export.object_movies import ObjectMovies
from x2roto.export.picture import quantised
from x2roto.export.still import straight_colour
from x2roto.export.take import Take
from x2roto.matte import FloatArray, MatteFrame


@dataclass(frozen=True, slots=True)
class ProResOptions:
    """`profile`: 4444, or 4444xq at a higher rate. `foreground`: clean soft edges from the background."""

    profile: Literal["4444", "4444xq"] = "4444"
    foreground: bool = True


class ProResWriter(ObjectMovies):
    """Writes `ap4h` movies with the source's colour tags and a timecode track; alpha is full range."""

    Options = ProResOptions
    kind = "prores"
    ext = "mov"

    def __init__(self, template: Template, take: Take, options: ProResOptions) -> None:
        settings = {"profile": options.profile, "alpha_bits": "16", "vendor": "apl0"}
        tag = {"4444": "ap4h", "4444xq": "ap4x"}[options.profile]
        super().__init__(template, take, Encoding("prores_ks", "mov", "yuva444p10le", settings, tag))
        self._options = options

    def draw(self, result: MatteFrame, alpha: FloatArray, movie: Movie) -> av.VideoFrame:
        """Y'CbCr in limited range, alpha in full range, ten bits each."""
        colour = straight_colour(result, alpha, self.take, clean=self._options.foreground)
        planes = [*yuv_planes(colour, movie.tags, 10), quantised(alpha, 10)]
        return planar_frame("yuva444p10le", alpha.shape[1], alpha.shape[0], planes)
