"""What the finder guarantees with any weights: phrases and pictures do not disturb each other."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests.tiny import FINDER, TINY, tiny_model
from x2roto.engine.model.config import FinderConfig
from x2roto.engine.model.finder import MOST_WORDS, Found
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


def test_its_sizes_are_told_by_its_weights() -> None:
    unknown = replace(MODEL.config, finder=FinderConfig(heads=2, widths=(1, 1, 1, 1)))
    assert infer_sizes(unknown, shapes_of(MODEL.state_dict())).finder == FINDER
    without = {name: shape for name, shape in shapes_of(MODEL.state_dict()).items() if "finder" not in name}
    assert infer_sizes(MODEL.config, without).finder.dim == 0
