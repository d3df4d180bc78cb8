"""TIFF sequences: a grey matte or straight RGBA, 8 or 16 bits, one file per frame and object."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from x2roto.export.still import StillWriter


@dataclass(frozen=True, slots=True)
class TiffOptions:
    """`content`: the matte alone, or RGBA marked as straight (unassociated), encoded as the source is.

    `depth`: bits. `foreground`: clean the colour of soft edges from the background.
    """

    content: Literal["matte", "rgba"] = "matte"
    depth: Literal[8, 16] = 16
    foreground: bool = True
    compression: Literal["deflate", "lzw", "packbits", "raw"] = "deflate"

    @property
    def codec_options(self) -> dict[str, str]:
        """The encoder's options in libav's words."""
        return {"compression_algo": self.compression}


class TiffWriter(StillWriter):
    """Writes TIFF files."""

    Options = TiffOptions
    kind = "tiff"
    ext = "tif"
