"""COCO annotations: run-length encoded hard masks of all frames in one JSON file."""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from x2roto.export.atomic import write_bytes
from x2roto.export.gather import GatheringWriter
from x2roto.export.naming import Template, safe
from x2roto.export.take import Take
from x2roto.matte import Matte, MatteFrame, bounds


@dataclass(frozen=True, slots=True)
class CocoOptions:
    """No choices: masks are alpha of at least one half."""


class CocoWriter(GatheringWriter):
    """Writes image ids that are frame numbers, category ids that are track ids, and compressed run lengths."""

    Options = CocoOptions

    def __init__(self, template: Template, take: Take, options: CocoOptions) -> None:
        path = template.path(shot=take.shot, kind="coco", ext="json", item="coco")
        super().__init__(path, take, ".json")

    def save(self, result: MatteFrame, piece: Path) -> None:
        """The annotations of one frame, without those of empty masks."""
        annotations = [annotation(matte, result.number) for matte in result.mattes]
        write_bytes(piece, json.dumps([entry for entry in annotations if entry["area"]]).encode())

    def join(self, pieces: dict[int, Path]) -> None:
        """All annotations, numbered from 1."""
        clip, shot = self.take.clip, safe(self.take.shot)
        entries = chain.from_iterable(json.loads(piece.read_bytes()) for piece in pieces.values())
        document = {
            "images": [
                {"id": number, "width": clip.width, "height": clip.height, "file_name": f"{shot}.{number:04}"}
                for number in pieces
            ],
            "categories": [{"id": track.id, "name": track.label} for track in self.take.tracks],
            "annotations": [{"id": index, **entry} for index, entry in enumerate(entries, start=1)],
        }
        write_bytes(self.path, json.dumps(document, ensure_ascii=False).encode())


def annotation(matte: Matte, number: int) -> dict[str, Any]:
    """One COCO annotation, without its id. `bbox` is x, y, width, height in pixels."""
    mask = matte.alpha >= 0.5
    rows, columns = bounds(mask) or (slice(0, 0), slice(0, 0))
    box = (columns.start, rows.start, columns.stop - columns.start, rows.stop - rows.start)
    return {
        "image_id": number,
        "category_id": matte.track.id,
        "track_id": matte.track.id,
        "iscrowd": 0,
        "area": int(mask.sum()),
        "bbox": [int(edge) for edge in box],
        "segmentation": {"size": list(mask.shape), "counts": compressed(run_lengths(mask))},
        "score": round(matte.score, 6),
    }


def run_lengths(mask: NDArray[np.bool_]) -> list[int]:
    """Lengths of the runs of a mask read column by column, beginning with zeros."""
    flat = mask.ravel(order="F")
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    starts = [0] if not flat[0] else [0, 0]
    return [int(length) for length in np.diff([*starts, *changes, flat.size])]


def compressed(counts: list[int]) -> str:
    """Run lengths as COCO's text: differences to the run two before, five bits a letter, from "0" on.

    Source: cocodataset/cocoapi common/maskApi.c `rleToString`.
    """
    letters = []
    for index, count in enumerate(counts):
        value = count - counts[index - 2] if index > 2 else count
        more = True
        while more:
            bits, value = value & 31, value >> 5
            # The text ends where only copies of the sign bit are left.
            more = value != (-1 if bits & 16 else 0)
            letters.append(chr(48 + bits + (32 if more else 0)))
    return "".join(letters)
