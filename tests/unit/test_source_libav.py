"""Conversion to RGB against the formulas of BT.601, BT.709 and BT.2020, and every display matrix."""

from __future__ import annotations

from itertools import product

import av
import numpy as np
import pytest

from x2roto.source.libav import Converter, Orientation, depth_of

WEIGHTS = {1: (0.2126, 0.0722), 6: (0.299, 0.114), 9: (0.2627, 0.0593)}  # by libav's number of the matrix: Kr, Kb


def frame_of(pix_fmt: str, planes: list[np.ndarray], matrix: int, full: bool) -> av.VideoFrame:
    height, width = planes[0].shape
    frame = av.VideoFrame(width, height, pix_fmt)
    for plane, samples in zip(frame.planes, planes, strict=False):
        dtype = np.uint8 if depth_of(frame) == 8 else np.uint16
        rows = np.zeros((plane.buffer_size // plane.line_size, plane.line_size // dtype().itemsize), dtype)
        rows[: samples.shape[0], : samples.shape[1]] = samples
        plane.update(rows.tobytes())
    frame.colorspace, frame.color_range = matrix, 2 if full else 1
    return frame


def expected(y: np.ndarray, u: np.ndarray, v: np.ndarray, matrix: int, full: bool, bits: int) -> np.ndarray:
    """Display RGB 0..1 (ITU-R BT.601, BT.709, BT.2020 and BT.2100 quantisation)."""
    kr, kb = WEIGHTS[matrix]
    unit, top = 1 << (bits - 8), (1 << bits) - 1
    luma = y / top if full else (y - 16 * unit) / (219 * unit)
    blue, red = ((c - 128 * unit) / (top if full else 224 * unit) for c in (u, v))
    r, b = luma + 2 * (1 - kr) * red, luma + 2 * (1 - kb) * blue
    g = (luma - kr * r - kb * b) / (1 - kr - kb)
    return np.clip(np.stack([r, g, b], -1), 0, 1)


@pytest.mark.parametrize(("matrix", "full"), list(product(WEIGHTS, [False, True])))
@pytest.mark.parametrize(
    ("pix_fmt", "bits"),
    [
        ("yuv444p", 8),
        ("yuv444p10le", 10),
        ("yuv444p12le", 12),
        ("yuv420p", 8),
        ("yuv420p10le", 10),
        ("yuv422p10le", 10),
    ],
)
@pytest.mark.parametrize("size", [(64, 48), (61, 47)])
def test_conversion_is_exact(pix_fmt: str, bits: int, matrix: int, full: bool, size: tuple[int, int]) -> None:
    width, height = size
    rng = np.random.default_rng(bits + matrix)
    unit = 1 << (bits - 8)
    samples = [rng.integers(16 * unit, 235 * unit, (height, width)) for _ in range(3)]
    if "444" not in pix_fmt:  # flat chroma, so that its filter does not matter
        samples[1:] = [np.full((height, width), value * unit) for value in (100, 150)]
    rows = -(-height // 2) if "420" in pix_fmt else height
    stored = samples if "444" in pix_fmt else [samples[0], *(c[:rows, : -(-width // 2)] for c in samples[1:])]
    rgb = Converter().rgb(frame_of(pix_fmt, stored, matrix, full))
    top = np.iinfo(rgb.dtype).max
    off = rgb / top - expected(*samples, matrix, full, bits)
    allowed = 0.52 / 255 if bits == 8 else 40 / 65535
    assert np.abs(off).max() <= allowed, f"off by {np.abs(off).max() * 255:.3f} of 255, mean {off.mean() * 255:.3f}"


@pytest.mark.parametrize(
    ("pix_fmt", "bits", "full"),
    [("yuv420p10le", 10, True), ("yuv422p10le", 10, False), ("yuv444p16le", 16, False), ("gray10le", 10, True)],
)
def test_white_is_white_at_every_depth(pix_fmt: str, bits: int, full: bool) -> None:
    white = (1 << bits) - 1 if full else 235 << (bits - 8)
    neutral = 128 << (bits - 8)
    frame = av.VideoFrame(16, 16, pix_fmt)
    planes = [np.full((p.height, p.width), white if n == 0 else neutral) for n, p in enumerate(frame.planes)]
    rgb = Converter().rgb(frame_of(pix_fmt, planes, 1, full))
    assert rgb.min() >= 65531


@pytest.mark.parametrize(("height", "matrix"), [(480, 6), (720, 1)])
def test_untagged_pictures_follow_their_height(height: int, matrix: int) -> None:
    planes = [np.full((height, 16), 100), np.full((height, 16), 90), np.full((height, 16), 170)]
    untagged = Converter().rgb(frame_of("yuv444p", planes, 2, False))
    tagged = Converter().rgb(frame_of("yuv444p", planes, matrix, False))
    np.testing.assert_array_equal(untagged, tagged)


@pytest.mark.parametrize(
    "pix_fmt",
    [
        "rgb24",
        "bgra",
        "gbrp",
        "gray",
        "pal8",
        "rgb48le",
        "gbrp10le",
        "rgba64le",
        "yuv411p",
        "yuv410p",
        "nv12",
        "yuyv422",
        "monob",
        "rgb565le",
        "yuva420p",
        "p010le",
        "yuvj444p",
        "gbrpf32le",
    ],
)
def test_every_common_pixel_format_converts(pix_fmt: str) -> None:
    rgb = Converter().rgb(av.VideoFrame(32, 24, pix_fmt))
    assert rgb.shape == (24, 32, 3)


@pytest.mark.parametrize("orientation", [Orientation(*flags) for flags in product([False, True], repeat=3)])
def test_upright_is_what_the_display_matrix_maps(orientation: Orientation) -> None:
    stored = np.arange(2 * 3 * 3).reshape(2, 3, 3)
    upright = orientation.upright(stored)
    height, width = upright.shape[:2]
    assert upright.flags.c_contiguous
    for y, x in product(range(2), range(3)):
        column, row = (y, x) if orientation.swap else (x, y)
        column = width - 1 - column if orientation.mirror_x else column
        row = height - 1 - row if orientation.mirror_y else row
        np.testing.assert_array_equal(upright[row, column], stored[y, x])
