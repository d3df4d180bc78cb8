"""What `--quality` changes: sizes and how cells are read, never the weights; and that `exact` changes nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.tiny import FINDER, TINY, tiny_model, write_tiny_model
from x2roto.clip import Frame
from x2roto.engine.model.config import ModelConfig, OutlinerConfig
from x2roto.engine.model.encodings import rope
from x2roto.engine.model.memory_attention import MemoryAttention
from x2roto.engine.quality import at_quality, lightened
from x2roto.engine.segmenter import load_segmenter
from x2roto.prompt import Text

NOISE = np.random.default_rng(4).integers(0, 255, (4, 48, 64, 3), np.uint8)


def test_exact_is_the_network_as_trained_and_draft_sees_less() -> None:
    full = ModelConfig()
    assert at_quality(full, "exact") == full
    assert at_quality(full, "fast") == replace(full, memory=replace(full.memory, pooled=2))
    assert at_quality(full, "draft").image_size == 640
    assert at_quality(replace(full, image_size=192), "draft").image_size == 128
    assert at_quality(replace(full, image_size=64), "draft").image_size == 64
    finer = replace(full, outliner=OutlinerConfig(dim=8, side=256))
    assert [at_quality(finer, quality).outliner.side for quality in ("exact", "fast", "draft")] == [256, 0, 0]


def test_a_pooled_cell_turns_as_the_middle_of_its_cells() -> None:
    fine = torch.complex(*rope(16, 8, 12)).unflatten(0, (8, 12))
    pooled = torch.complex(*rope(16, 4, 6, 2)).unflatten(0, (4, 6))
    # Turns are unit numbers: those of opposite corners, multiplied, are the middle's twice.
    torch.testing.assert_close(fine[0::2, 0::2] * fine[1::2, 1::2], pooled**2, atol=1e-5, rtol=1e-5)


@torch.inference_mode()
def test_only_scales_finer_than_the_coarsest_read_four_cells_as_one() -> None:
    attention = tiny_model().segmentor.memory_attention
    pooled = MemoryAttention(replace(TINY.memory, pooled=2), TINY.dim)
    pooled.load_state_dict(attention.state_dict())
    level = torch.randn(1, TINY.dim, 8, 8, generator=torch.Generator().manual_seed(2))
    assert torch.equal(pooled.prepare(level), attention.prepare(level))
    assert torch.equal(attention.prepare(level, fine=True), attention.prepare(level))
    near, exact = pooled.prepare(level, fine=True), attention.prepare(level)
    assert near.shape == exact.shape
    assert not torch.equal(near, exact)


def test_only_a_network_with_a_finder_leaves_its_reading_out() -> None:
    reading = replace(TINY, decoder=replace(TINY.decoder, reading=1))
    for config, left in ((reading, True), (replace(reading, finder=FINDER), False)):
        assert (lightened(tiny_model(config=config), "fast").segmentor.reading is not None) == left
        assert lightened(tiny_model(config=config), "exact").segmentor.reading is not None


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


def test_every_quality_gives_mattes_and_does_not_go_on_with_anothers_shot(folder: Path) -> None:
    prints = set()
    for quality in ("exact", "fast", "draft"):
        segmenter = load_segmenter(folder, quality=quality)
        (query,) = segmenter.read([Text("it", "the thing")], list(NOISE))
        frames = [Frame(index, None, rgb) for index, rgb in enumerate(NOISE)]
        results = list(segmenter.track(query).step(frames))
        assert len(results) == 4
        assert all(torch.isfinite(result.prediction.mask_logits_bqhw).all() for result in results)
        prints.add(segmenter.fingerprint)
    # A draft of a network that is so small already sees as much as its fast one.
    assert len(prints) == 2
