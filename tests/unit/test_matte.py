"""Types of mattes and the pure functions on them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from x2roto.clip import Frame
from x2roto.errors import PromptError
from x2roto.matte import (
    Matte,
    MatteFrame,
    Refine,
    Track,
    bounds,
    foreground,
    invert,
    premultiply,
    unpremultiply,
)

unit = st.floats(0, 1, width=32)


@given(
    arrays(np.float32, (4, 5, 3), elements=unit), arrays(np.float32, (4, 5), elements=st.floats(1 / 64, 1, width=32))
)
def test_premultiply_is_undone(rgb: np.ndarray, alpha: np.ndarray) -> None:
    assert np.allclose(unpremultiply(premultiply(rgb, alpha), alpha), rgb, rtol=1e-5)


def test_unpremultiply_is_black_without_coverage() -> None:
    assert np.array_equal(
        unpremultiply(np.ones((2, 2, 3), np.float32), np.zeros((2, 2), np.float32)), np.zeros((2, 2, 3))
    )


def test_invert() -> None:
    assert np.array_equal(invert(np.array([[0, 0.25, 1]], np.float32)), np.array([[1, 0.75, 0]], np.float32))


def test_bounds_are_tight_and_the_margin_stays_inside() -> None:
    alpha = np.zeros((10, 20), np.float32)
    alpha[2:5, 7:9] = 0.01
    assert bounds(alpha) == (slice(2, 5), slice(7, 9))
    assert bounds(alpha, margin=4) == (slice(0, 9), slice(3, 13))
    assert bounds(np.zeros((3, 3), np.float32)) is None


def test_a_frame_without_a_track_gives_black() -> None:
    man, ball = Track(1, "man"), Track(2, "ball")
    alpha = np.full((2, 3), 0.5, np.float32)
    result = MatteFrame(Frame(0, None, np.zeros((2, 3, 3), np.uint8)), 1001, (Matte(man, alpha, 0.8),))
    assert result.alpha(man) is alpha
    assert not result.alpha(ball).any()
    assert (result.score(man), result.score(ball)) == (0.8, 0)
    assert np.array_equal(result.union(), alpha)


@pytest.mark.parametrize("white", [1.0, 8.0])
def test_foreground_removes_the_background_from_soft_edges(white: float) -> None:
    rows, columns = np.mgrid[0:64, 0:64]
    alpha = np.clip((20 - np.hypot(rows - 32, columns - 32)) / 8 + 0.5, 0, 1).astype(np.float32)
    red, green = np.array([white, 0, 0], np.float32), np.array([0, white, 0], np.float32)
    plate = alpha[..., None] * red + (1 - alpha[..., None]) * green
    colour = foreground(plate, alpha, margin=4)
    soft = (alpha > 0.1) & (alpha < 1)
    assert np.abs(plate[soft] - red).max() > 0.5 * white
    assert np.abs(colour[soft] - red).mean() < 0.06 * white
    assert np.array_equal(colour[alpha == 1], plate[alpha == 1])
    assert not colour[0, 0].any()


def test_foreground_of_an_empty_matte_is_black() -> None:
    assert not foreground(np.ones((4, 4, 3), np.float32), np.zeros((4, 4), np.float32)).any()


@pytest.mark.parametrize("wrong", [{"edge": "crisp"}, {"temperature": 0}, {"feather": -1}, {"smooth": 1.5}])
def test_refine_refuses_nonsense(wrong: dict[str, object]) -> None:
    with pytest.raises(PromptError, match=next(iter(wrong))):
        Refine(**wrong)
