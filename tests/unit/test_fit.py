"""The score that is fitted to a shot: what it tells apart, from what, and that it stays a number."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from x2roto.engine.fit import score, sums

CELLS, FEATURES = 400, 12
GENERATOR = torch.Generator().manual_seed(9)


def cells(batch: int = 1) -> Tensor:
    """Noise and a one."""
    noise = torch.randn(batch, CELLS, FEATURES - 1, generator=GENERATOR)
    return torch.cat([noise, torch.ones(batch, CELLS, 1)], dim=-1)


def test_an_object_is_told_from_its_surroundings_on_a_later_frame() -> None:
    first, later = cells(), cells()
    truth = [(each[..., 0] - each[..., 3] > 0.5).float() for each in (first, later)]
    told = score(sums(first, truth[0]), later)
    assert told.shape == (1, CELLS)
    assert ((told > 0).float() == truth[1]).float().mean() > 0.9
    assert told.min() >= -1
    assert told.max() <= 1


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5])
def test_an_object_counts_as_much_as_its_surroundings_however_small(share: float) -> None:
    seen = cells()
    order = seen[0, :, 0].argsort(descending=True)
    cover = torch.zeros(1, CELLS)
    cover[0, order[: round(share * CELLS)]] = 1
    told = score(sums(seen, cover), seen)[0]
    inside, outside = told[cover[0] > 0], told[cover[0] == 0]
    assert (inside > 0).float().mean() > 0.9
    assert (outside < 0).float().mean() > 0.7


def test_what_several_frames_say_is_added_up() -> None:
    seen, cover = cells(), (cells()[..., 1] > 0).float()
    one = sums(seen, cover)
    torch.testing.assert_close(score(one + one, seen), score(one, seen), atol=1e-4, rtol=1e-4)
    other = sums(seen, 1 - cover)
    assert score(0.9 * one + 0.1 * other, seen).sub(score(one, seen)).abs().max() > 0.01


def test_each_object_has_a_score_of_its_own() -> None:
    seen, cover = cells(3), (cells(3)[..., 1] > 0).float()
    told = score(sums(seen, cover), seen)
    for row in range(3):
        part = slice(row, row + 1)
        torch.testing.assert_close(score(sums(seen[part], cover[part]), seen[part]), told[part], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("cover", [0.0, 1.0, 0.5])
def test_where_nothing_or_everything_is_the_object_it_is_a_number(cover: float) -> None:
    seen = cells()
    seen[..., 2] = 0
    told = score(sums(seen, torch.full((1, CELLS), cover)), seen)
    assert told.isfinite().all()
    assert told.mean() == pytest.approx(2 * cover - 1, abs=0.1)


def test_features_that_say_the_same_and_fewer_bits_do_no_harm() -> None:
    seen = cells()
    seen[..., 4] = seen[..., 3]
    cover = (seen[..., 3] > 0).float()
    exact = score(sums(seen, cover), seen)
    assert ((exact > 0) == (cover > 0)).float().mean() > 0.95
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(score(sums(seen, cover), seen), exact)
    fewer = score(sums(seen.bfloat16(), cover.bfloat16()), seen.bfloat16())
    assert fewer.dtype == torch.float32
    assert (fewer - exact).abs().mean() < 0.05


def test_nothing_is_learnt_through_it() -> None:
    seen = cells().requires_grad_()
    assert not score(sums(seen, torch.ones(1, CELLS)), seen).requires_grad
