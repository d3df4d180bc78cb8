"""PNG sequences: a grey matte or straight RGBA, 8 or 16 bits, one file per frame and object."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from x2roto.export.still import StillWriter


@dataclass(frozen=True, slots=True)
class PngOptions:
    """`content`: the matte alone, or straight RGBA encoded as the source is. `depth`: bits.

    `foreground`: clean the colour of soft edges from the background. `level`: zlib's, 1 fast to 9 small.
    """

    content: Literal["matte", "rgba"] = "matte"
    depth: Literal[8, 16] = 16
    foreground: bool = True
    level: Literal[1, 2, 3, 4, 5, 6, 7, 8, 9] = 1

    @property
    def codec_options(self) -> dict[str, str]:
        """The encoder's options in libav's words."""
        return {"compression_level": str(self.level)}


class PngWriter(StillWriter):
    """Writes PNG files."""

    Options = PngOptions
    kind = "png"
    ext = "png"
