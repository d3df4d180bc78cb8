"""Transfer functions against published values, and the picture the network sees."""

from __future__ import annotations

import numpy as np
import pytest

from x2roto.clip import Colour
from x2roto.color import (
    BT2020_TO_BT709,
    hlg_decode,
    hlg_display,
    network_rgb,
    pq_decode,
    roll_off,
    srgb_decode,
    srgb_encode,
)


def f32(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


def test_srgb_matches_the_standard_and_inverts() -> None:
    np.testing.assert_allclose(srgb_decode(f32(0, 0.04045, 0.5, 1)), [0, 0.0031308, 0.214041, 1], atol=1e-6)
    ramp = np.linspace(0, 1, 1001, dtype=np.float32)
    np.testing.assert_allclose(srgb_encode(srgb_decode(ramp)), ramp, atol=1e-6)


def test_pq_matches_the_standard() -> None:
    """ST 2084: code 0.5081 is 100 nits, 0.5807 is 203 nits (BT.2408), 0.7518 is 1000 nits, 1 is 10000 nits."""
    nits = pq_decode(f32(0, 0.508078, 0.580689, 0.751827, 1))
    np.testing.assert_allclose(nits, [0, 100, 203, 1000, 10000], rtol=2e-3, atol=1e-6)


def test_hlg_matches_the_standard() -> None:
    """BT.2100: half signal is 1/12 scene light; BT.2408: 75 % signal is 203 nits on a 1000 nit display."""
    np.testing.assert_allclose(hlg_decode(f32(0, 0.5, 1)), [0, 1 / 12, 1], atol=1e-5)
    white = hlg_display(np.repeat(hlg_decode(f32(0.75)), 3)[None])
    np.testing.assert_allclose(white, 203, rtol=5e-3)


def test_gamut_matrix_keeps_white() -> None:
    np.testing.assert_allclose(BT2020_TO_BT709.sum(axis=1), 1, atol=1e-5)


def test_roll_off_bends_only_highlights() -> None:
    light = np.linspace(0, 10, 1001, dtype=np.float32)
    bent = roll_off(light)
    np.testing.assert_array_equal(bent[light <= 0.8], light[light <= 0.8])
    assert (np.diff(bent) > 0).all()
    assert bent.max() < 1


@pytest.mark.parametrize("transfer", [None, "bt709", "smpte2084", "linear"])
def test_8_bit_pictures_are_not_touched(transfer: str | None) -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    assert network_rgb(rgb, Colour(transfer=transfer)) is rgb


def test_deep_display_pictures_are_rounded() -> None:
    rgb = np.arange(256, dtype=np.uint16).repeat(3).reshape(16, 16, 3) * 257
    np.testing.assert_array_equal(network_rgb(rgb, Colour(transfer="bt709")), rgb // 257)
    assert network_rgb(np.full((1, 1, 3), 65535, np.uint16), Colour())[0, 0, 0] == 255
    assert network_rgb(np.full((1, 1, 3), 386, np.uint16), Colour())[0, 0, 0] == 2


@pytest.mark.parametrize(("transfer", "white"), [("smpte2084", 0.580689), ("arib-std-b67", 0.75)])
def test_hdr_white_stays_near_white_and_gray_stays_gray(transfer: str, white: float) -> None:
    codes = np.linspace(0, 1, 33)[:, None, None].repeat(3, axis=2)
    seen = network_rgb(np.rint(codes * 65535).astype(np.uint16), Colour(transfer=transfer)).astype(int)
    assert np.ptp(seen, axis=2).max() <= 1
    assert (np.diff(seen[:, 0, 1]) >= 0).all()
    at_white = network_rgb(np.full((1, 1, 3), round(white * 65535), np.uint16), Colour(transfer=transfer))
    assert 235 <= at_white.min() <= 252


def test_hdr_is_not_taken_for_its_bit_depth() -> None:
    rgb = np.full((2, 2, 3), 32768, np.uint16)
    assert network_rgb(rgb, Colour(transfer="bt2020-10"))[0, 0, 0] == 128
    assert network_rgb(rgb, Colour(transfer="smpte2084"))[0, 0, 0] > 150


def test_scene_linear_is_encoded_and_made_finite() -> None:
    rgb = np.array([[[0.18, 0.18, 0.18], [np.nan, np.inf, -np.inf], [-1, 60000, 0.5]]], np.float32)
    seen = network_rgb(rgb, Colour(transfer="linear"))
    assert seen.dtype == np.uint8
    np.testing.assert_array_equal(seen[0, 0], [118, 118, 118])
    assert seen[0, 1].tolist() == [0, 255, 0]
    assert seen[0, 2].tolist() == [0, 255, 188]
