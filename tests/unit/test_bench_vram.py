"""The account of device memory: what lives at the same time is summed, what is gone or was there before is not."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch.nn import functional as F


@pytest.fixture
def vram(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "bench"))
    import vram

    return vram


def meta(*shape: int) -> torch.Tensor:
    return torch.empty(shape, device="meta", dtype=torch.bfloat16)


def test_only_what_lives_at_once_counts(vram: ModuleType) -> None:
    held = meta(100, 100)

    def one_after_the_other() -> None:
        for _ in range(5):
            held + 1

    def all_at_once() -> list[torch.Tensor]:
        return [held + 1 for _ in range(5)]

    def in_place_and_views() -> torch.Tensor:
        copy = held.clone()
        return copy.add_(1).T[:7]

    once = 2 * 100 * 100
    assert vram.peak_of(one_after_the_other, [held]) == once
    assert vram.peak_of(all_at_once, [held]) == 5 * once
    assert vram.peak_of(in_place_and_views, [held]) == once
    assert vram.peak_of(lambda: held.T, [held]) == 0


def test_attention_keeps_no_table_of_scores(vram: ModuleType) -> None:
    q = meta(1, 1, 4096, 64)
    assert vram.peak_of(lambda: F.scaled_dot_product_attention(q, q, q), [q]) == 2 * 4096 * 64


def test_text_layers_are_told_from_the_rest(vram: ModuleType) -> None:
    from tests.tiny import tiny_model

    model = tiny_model()
    parts = vram.weights(model)
    layers = model.vlm.model.language_model.layers
    assert parts["text layers"] == 4 * sum(p.numel() for p in layers.parameters())
    assert parts["one text layer"] == parts["text layers"] // len(layers)
    assert sum(parts.values()) - parts["one text layer"] == 4 * sum(p.numel() for p in model.parameters())
