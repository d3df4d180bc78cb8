"""Cryptomatte 1.2: all mattes of a frame in one EXR, ranked by coverage, with an embedded manifest.

Source: Friedman & Jones, "Fully Automatic ID Mattes with Support for Motion Blur and Transparency", 2015, and the
Cryptomatte 1.2.0 specification (github.com/Psyop/Cryptomatte, specification/cryptomatte_specification.pdf).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from x2roto.errors import PromptError
from x2roto.export.exr import exr_header, save_exr, track_attributes
from x2roto.export.images import ImageWriter, Save
from x2roto.export.naming import Template
from x2roto.export.take import Take
from x2roto.matte import FloatArray, MatteFrame

LAYER = "CryptoObject"
RANKS = 6


@dataclass(frozen=True, slots=True)
class CryptomatteOptions:
    """`compression`: the lossless ones only; ids would not survive another."""

    compression: Literal["none", "rle", "zips", "zip", "piz"] = "zip"


class CryptomatteWriter(ImageWriter):
    """Writes one file per frame. Where mattes overlap their sum is scaled down to 1, as the format demands."""

    Options = CryptomatteOptions
    kind = "cryptomatte"
    ext = "exr"

    def __init__(self, template: Template, take: Take, options: CryptomatteOptions) -> None:
        super().__init__(template, take, ("cryptomatte",))
        self._options = options
        self._manifest = manifest([take.name(track) for track in take.tracks])
        bits = [int(digits, 16) for digits in self._manifest.values()]
        self._ids = np.array(bits, np.uint32).view(np.float32)

    def saves(self, result: MatteFrame) -> Iterator[tuple[str, Save]]:
        """The one file of the frame."""
        yield self.items[0], partial(self._save, result)

    def _save(self, result: MatteFrame, path: Path) -> None:
        header = exr_header(self.take, result, self._options.compression)
        header |= track_attributes(self.take, result, self.take.tracks) | self._attributes()
        alphas = np.array([result.alpha(track) for track in self.take.tracks], np.float32)
        save_exr(path, [(header, ranked_channels(alphas, self._ids), None)])

    def _attributes(self) -> dict[str, str]:
        key = f"cryptomatte/{murmur3(LAYER.encode()):08x}"[: len("cryptomatte/") + 7]
        return {
            f"{key}/name": LAYER,
            f"{key}/hash": "MurmurHash3_32",
            f"{key}/conversion": "uint32_to_float32",
            f"{key}/manifest": json.dumps(self._manifest, separators=(",", ":")),
        }


def manifest(names: Sequence[str]) -> dict[str, str]:
    """Each name with the eight hex digits of its id. Raises PromptError when two names share an id."""
    ids = {name: f"{id_bits(name):08x}" for name in names}
    if len(set(ids.values())) < len(ids):
        raise PromptError("two object names have the same Cryptomatte id: rename one of the objects")
    return ids


def ranked_channels(alphas: FloatArray, ids: FloatArray) -> dict[str, NDArray[Any]]:
    """The float channels of `RANKS` (id, coverage) pairs, by falling coverage. `alphas` (n, height, width)."""
    coverage = np.clip(alphas, 0, 1)
    coverage = coverage / np.maximum(coverage.sum(0), 1)
    order = np.argsort(-coverage, axis=0, kind="stable")[:RANKS]
    ranked = np.zeros((RANKS, 2, *alphas.shape[1:]), np.float32)
    ranked[: len(order), 1] = np.take_along_axis(coverage, order, axis=0)
    ranked[: len(order), 0] = np.where(ranked[: len(order), 1] > 0, ids[order], 0)
    planes = ranked.reshape(RANKS * 2, *alphas.shape[1:])
    return {f"{LAYER}{index // 4:02}.{'RGBA'[index % 4]}": plane for index, plane in enumerate(planes)}


def id_bits(name: str) -> int:
    """The 32 bits of a name's id: its hash, with one exponent bit flipped where it would be no normal float."""
    hashed = murmur3(name.encode())
    return hashed ^ (1 << 23) if (hashed >> 23) & 255 in (0, 255) else hashed


def murmur3(data: bytes) -> int:
    """MurmurHash3_x86_32 with seed 0. Source: Austin Appleby's public-domain MurmurHash3.cpp."""
    state, whole = 0, len(data) // 4 * 4
    for start in range(0, whole, 4):
        state = _rotated(state ^ _scrambled(data[start : start + 4]), 13)
        state = (state * 5 + 0xE6546B64) & 0xFFFFFFFF
    state ^= _scrambled(data[whole:]) ^ len(data)
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35), (16, 1)):
        state = ((state ^ (state >> shift)) * factor) & 0xFFFFFFFF
    return state


def _scrambled(block: bytes) -> int:
    mixed = int.from_bytes(block, "little") * 0xCC9E2D51 & 0xFFFFFFFF
    return _rotated(mixed, 15) * 0x1B873593 & 0xFFFFFFFF


def _rotated(value: int, by: int) -> int:
    return ((value << by) | (value >> (32 - by))) & 0xFFFFFFFF
