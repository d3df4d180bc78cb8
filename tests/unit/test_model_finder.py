"""What the finder guarantees with any weights: phrases and pictures do not disturb each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch

from tests.tiny import FINDER, TINY, tiny_model
from x2roto.engine.model.config import FinderConfig
from x2roto.engine.model.finder import GAP, MOST_WORDS, PACE, SWIFTEST, Found, movement
from x2roto.engine.model.x2sam import X2SAM
from x2roto.engine.sizes import infer_sizes
from x2roto.engine.weights import shapes_of

MODEL = tiny_model(config=replace(TINY, finder=FINDER))
GENERATOR = torch.Generator().manual_seed(5)
PIXELS = torch.randn(3, 3, 64, 64, generator=GENERATOR)
IDS = torch.randint(0, 200, (4, 7), generator=GENERATOR)
LENGTHS = (7, 3, 5, 4)
VALID = torch.arange(7) < torch.tensor(LENGTHS)[:, None]
PICTURES = torch.tensor([0, 2, 1, 1])


@torch.inference_mode()
def find(pixels: torch.Tensor, ids: torch.Tensor, valid: torch.Tensor, pictures: torch.Tensor) -> Found:
    return MODEL.find(pixels, ids, valid, pictures)


def test_likeness_is_given_at_stride_8_and_masks_at_stride_4() -> None:
    found = find(PIXELS, IDS, VALID, PICTURES)
    assert found.match_phw.shape == (4, 8, 8)
    assert found.mask_phw.shape == (4, 16, 16)
    assert found.presence_p.shape == (4,)
    smaller = find(PIXELS[..., :32, :32], IDS, VALID, PICTURES)
    assert smaller.mask_phw.shape == (4, 8, 8)


@pytest.mark.parametrize("number", range(4))
def test_a_phrase_means_the_same_alone(number: int) -> None:
    every = find(PIXELS, IDS, VALID, PICTURES)
    length, picture = LENGTHS[number], int(PICTURES[number])
    alone = find(
        PIXELS[picture : picture + 1],
        IDS[number : number + 1, :length],
        torch.ones(1, length, dtype=torch.bool),
        torch.zeros(1, dtype=torch.long),
    )
    torch.testing.assert_close(alone.mask_phw[0], every.mask_phw[number], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(alone.match_phw[0], every.match_phw[number], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(alone.presence_p[0], every.presence_p[number], atol=1e-4, rtol=1e-4)


def test_what_is_padded_does_not_matter_and_what_is_said_does() -> None:
    before = find(PIXELS, IDS, VALID, PICTURES)
    other = torch.where(VALID, IDS, 199 - IDS)
    torch.testing.assert_close(find(PIXELS, other, VALID, PICTURES).mask_phw, before.mask_phw)
    said = find(PIXELS, 199 - IDS, VALID, PICTURES)
    assert ((said.match_phw - before.match_phw).abs().amax((1, 2)) > 0.1).all()


def test_a_long_phrase_loses_its_end() -> None:
    ids = torch.randint(0, 200, (1, MOST_WORDS + 9), generator=GENERATOR)
    valid, picture = torch.ones_like(ids, dtype=torch.bool), torch.zeros(1, dtype=torch.long)
    whole = find(PIXELS, ids, valid, picture)
    cut = find(PIXELS, ids[:, :MOST_WORDS], valid[:, :MOST_WORDS], picture)
    torch.testing.assert_close(whole.mask_phw, cut.mask_phw)


def shifted(picture: torch.Tensor, right: int, down: int) -> torch.Tensor:
    return picture.roll((down, right), (-2, -1))


def moved(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """What is told of each cell of maps (C, h, w), (2, 10, h, w)."""
    size = (first.shape[-2], first.shape[-1])
    return movement(torch.stack([first, second])[:, None], (0, 1), size).mT.unflatten(-1, size)


def test_a_thing_that_moves_is_seen_to_move_and_what_stays_to_stay() -> None:
    background, thing = (torch.randn(48, 24, 24, generator=GENERATOR) for _ in range(2))
    here = torch.zeros(24, 24)
    here[8:14, 6:12] = 1
    there = shifted(here, 3, -2)
    first = background * (1 - here) + thing * here
    second = background * (1 - there) + shifted(thing, 3, -2) * there
    told = moved(first, second)
    across, down = 3 / 24 * PACE, -2 / 24 * PACE
    before, after = (mask.bool() for mask in (here, there))
    to, back = told[0, :5], told[1, 5:]
    for cells, mask in ((to, before), (back, after)):
        # Clamped; most of the picture stays, so that the thing's own move is its whole move.
        torch.testing.assert_close(cells[0][mask], torch.full((36,), min(across, SWIFTEST)), atol=0.1, rtol=0)
        torch.testing.assert_close(cells[1][mask], torch.full((36,), down), atol=0.1, rtol=0)
        torch.testing.assert_close(cells[2:4], cells[:2])
        torch.testing.assert_close(cells[4][mask], torch.ones(36), atol=0.05, rtol=0)
    still = ~(before | after)
    assert told[0, :4][:, still].abs().max() < 0.1
    assert not told[0, 5:].any()  # no moment before the first
    assert not told[1, :5].any()


def test_a_move_of_the_whole_picture_is_no_move_of_its_things() -> None:
    first = torch.randn(48, 24, 24, generator=GENERATOR)
    inner = moved(first, shifted(first, 1, 0))[0, :, 4:-4, 4:-4]
    torch.testing.assert_close(inner[0], torch.full((16, 16), PACE / 24), atol=0.05, rtol=0)
    assert inner[2].abs().max() < 0.1


def find_moving(model: X2SAM, pixels: torch.Tensor, times: Sequence[int], picture: int) -> Found:
    with torch.inference_mode():
        return model.find(pixels, IDS[:1], VALID[:1], torch.tensor([picture]), times=times)


def test_moments_far_apart_and_those_of_other_clips_tell_nothing() -> None:
    model = tiny_model(config=replace(TINY, finder=replace(FINDER, motion=True)))
    assert infer_sizes(model.config, shapes_of(model.state_dict())).finder.motion
    others = PIXELS[[2, 1, 0]]
    for step, told in ((GAP, True), (GAP + 1, False)):
        times = (0, step, 2 * step)
        one, other = (find_moving(model, pixels, times, 1).mask_phw for pixels in (PIXELS, others))
        assert torch.allclose(one, other, atol=1e-5) != told
    # Two clips of two moments: the pictures of one are 0 and 2, of the other 1 and 3.
    both = find_moving(model, PIXELS[[0, 1, 2, 0]], (0, 1), 2)
    one = find_moving(model, PIXELS[[0, 2]], (0, 1), 1)
    torch.testing.assert_close(both.mask_phw, one.mask_phw, atol=1e-4, rtol=1e-4)


def test_its_sizes_are_told_by_its_weights() -> None:
    unknown = replace(MODEL.config, finder=FinderConfig(heads=2, widths=(1, 1, 1, 1)))
    assert infer_sizes(unknown, shapes_of(MODEL.state_dict())).finder == FINDER
    without = {name: shape for name, shape in shapes_of(MODEL.state_dict()).items() if "finder" not in name}
    assert infer_sizes(MODEL.config, without).finder.dim == 0
