"""Colour: conversions against their standards' numbers."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from x2roto.clip import ClipInfo, Colour, Frame
from x2roto.export.colour import Tags, half_size, movie_tags, yuv_planes
from x2roto.export.picture import eight_bit, encoded, quantised, scene_linear


def clip(height: int = 1080, **colour: str) -> ClipInfo:
    return ClipInfo(16, height, Fraction(24), 1, 1001, colour=Colour(**colour))


def grey(value: float, kind: type = np.uint16) -> Frame:
    top = 1 if kind is np.float32 else np.iinfo(kind).max
    return Frame(0, None, np.full((2, 2, 3), round(value * top) if top > 1 else value, kind))


@pytest.mark.parametrize(
    ("transfer", "expected", "tolerance"),
    [
        (None, 0.259585, 1e-4),
        ("bt709", 0.259585, 1e-4),
        ("iec61966-2-1", 0.214037, 1e-4),
        ("linear", 0.5, 1e-4),
        # 92.2 and 50.7 cd/m² by ST 2084 and BT.2100.
        ("smpte2084", 0.9225, 1e-3),
        ("arib-std-b67", 0.507, 1e-3),
    ],
)
def test_neutral_half_in_linear_light(transfer: str | None, expected: float, tolerance: float) -> None:
    info = clip(**({"transfer": transfer} if transfer else {}))
    assert scene_linear(grey(0.5), info) == pytest.approx(expected, abs=tolerance)


def test_scene_values_pass_and_nonsense_is_cleaned() -> None:
    rgb = np.array([[[np.nan, -1, np.inf], [0.25, 4, 1]]], np.float32)
    found = scene_linear(Frame(0, None, rgb), clip())
    assert np.array_equal(found, np.array([[[0, 0, 65504], [0.25, 4, 1]]], np.float32))


def test_eight_bits_pass_untouched_through_encoding() -> None:
    codes = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, axis=2)
    frame = Frame(0, None, codes)
    assert np.array_equal(quantised(encoded(frame, clip()), 8), codes)
    assert np.array_equal(eight_bit(frame, clip()), codes)


@pytest.mark.parametrize(("bits", "white", "black", "middle"), [(8, 235, 16, 128), (10, 940, 64, 512)])
def test_luma_and_chroma_codes(bits: int, white: int, black: int, middle: int) -> None:
    tags = Tags(1, 1, 1)
    rgb = np.array([[[1, 1, 1], [0, 0, 0], [0, 0, 1]]], np.float32)
    luma, cb, cr = yuv_planes(rgb, tags, bits)
    assert luma[0, :2].tolist() == [white, black]
    assert cb[0, :2].tolist() == cr[0, :2].tolist() == [middle, middle]
    assert cb[0, 2] == (240 << (bits - 8))
    assert luma[0, 2] == round((16 + 219 * 0.0722) * (1 << (bits - 8)))


def test_half_size_rounds_up_and_keeps_flat_colour() -> None:
    small = half_size(np.full((5, 7), 77, np.uint8))
    assert small.shape == (3, 4)
    assert np.all(small == 77)


def test_tags_come_from_the_source_or_the_size() -> None:
    assert movie_tags(clip(1080)) == Tags(1, 1, 1)
    assert movie_tags(clip(480)) == Tags(6, 6, 6)
    assert movie_tags(clip(480, primaries="bt2020", transfer="smpte2084", matrix="bt2020nc")) == Tags(9, 16, 9)
    assert movie_tags(clip(480, transfer="linear")).transfer == 1
