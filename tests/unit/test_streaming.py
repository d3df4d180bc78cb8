"""A language model whose layers wait on the host says the same, and holds one layer at a time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.tiny import tiny_segmenter, write_tiny_model
from x2roto.engine import streaming, weights
from x2roto.engine.segmenter import Segmenter, load_segmenter
from x2roto.prompt import Text

FRAMES = [np.full((48, 64, 3), 40 * index, np.uint8) for index in range(3)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


def states(segmenter: Segmenter) -> torch.Tensor:
    (query,) = segmenter.read([Text("it", "the thing")], FRAMES)
    return query.conditions.token_embeds


def test_layers_are_placed_when_they_run_and_taken_back(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    placed: list[bool] = []
    place = streaming._place

    def watching(host: dict[torch.nn.Parameter, torch.Tensor], device: torch.device | None) -> None:
        placed.append(device is not None)
        place(host, device)

    monkeypatch.setattr(streaming, "_place", watching)
    streamed = load_segmenter(folder, max_vram=0.001)
    layers = len(streamed.model.vlm.model.language_model.layers)
    assert placed == []
    assert torch.equal(states(streamed), states(load_segmenter(folder)))
    assert placed == [True, False] * layers


def test_only_too_little_room_sends_layers_to_the_host(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[object] = []
    monkeypatch.setattr(weights, "stream", lambda layers, device: sent.append(device))
    for limit in (None, 100.0):
        load_segmenter(folder, max_vram=limit)
    assert sent == []
    load_segmenter(folder, max_vram=3.0)
    assert sent == [torch.device("cpu")]


def test_the_released_weights_need_twelve_gigabytes_and_a_half() -> None:
    released = 9.48e9
    assert not streaming.too_large(released, None)
    assert not streaming.too_large(released, 12.5)
    assert streaming.too_large(released, 12)
    assert streaming.too_large(released, 8)


def test_a_layer_leaves_the_device_even_when_it_fails() -> None:
    layer = torch.nn.Linear(3, 3)
    kept = layer.weight.data
    streaming.stream([layer], torch.device("meta"))
    with pytest.raises(RuntimeError):
        layer(torch.zeros(2, 4))
    assert layer.weight.data.device.type == "cpu"
    assert torch.equal(layer.weight.data, kept)


def test_words_are_read_the_same_by_the_whole_path() -> None:
    segmenter = tiny_segmenter()
    expected = states(segmenter)
    streaming.stream(segmenter.model.vlm.model.language_model.layers, torch.device("cpu"))
    assert torch.equal(states(segmenter), expected)
