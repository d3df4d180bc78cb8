"""DAVIS label maps: one indexed PNG per frame, the palette index being the object's id."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from x2roto.errors import PromptError
from x2roto.export.images import ImageWriter, Save
from x2roto.export.naming import Template
from x2roto.export.take import Take
from x2roto.matte import MatteFrame


@dataclass(frozen=True, slots=True)
class DavisOptions:
    """No choices: the layout is the data set's."""


class DavisWriter(ImageWriter):
    """Writes hard masks: each pixel goes to the object with the greatest alpha of at least one half."""

    Options = DavisOptions
    kind = "davis"
    ext = "png"

    def __init__(self, template: Template, take: Take, options: DavisOptions) -> None:
        super().__init__(template, take, ("ids",))
        wrong = [track.id for track in take.tracks if not 1 <= track.id <= 255]
        if wrong:
            raise PromptError(f"a DAVIS label map holds ids 1 to 255, not {wrong[0]}: cut fewer objects at once")

    def saves(self, result: MatteFrame) -> Iterator[tuple[str, Save]]:
        """The one file of the frame."""
        yield self.items[0], partial(_save, result)


def _save(result: MatteFrame, path: Path) -> None:
    picture = Image.fromarray(id_map(result))
    picture.putpalette(palette())
    picture.save(path, format="PNG", compress_level=1)


def id_map(result: MatteFrame) -> NDArray[np.uint8]:
    """The id of the object on each pixel, 0 for none; of equal alphas the first object wins."""
    best = np.full(result.frame.rgb.shape[:2], 0.5, np.float32)
    ids = np.zeros(best.shape, np.uint8)
    for matte in reversed(result.mattes):
        wins = matte.alpha >= best
        np.copyto(best, matte.alpha, where=wins)
        np.copyto(ids, matte.track.id, where=wins)
    return ids


def palette() -> list[int]:
    """The Pascal VOC colour map that DAVIS uses: 256 RGB triples, the bits of the index spread over the channels.

    Source: PASCAL VOC development kit, VOClabelcolormap.m.
    """
    return [
        sum(((index >> (3 * bit + channel)) & 1) << (7 - bit) for bit in range(8))
        for index in range(256)
        for channel in range(3)
    ]
