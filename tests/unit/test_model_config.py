"""Sizes as a value that survives JSON."""

from __future__ import annotations

import json

import pytest

from tests.tiny import TINY
from x2roto.engine.model.config import ModelConfig


@pytest.mark.parametrize("config", [TINY, ModelConfig()])
def test_a_config_comes_back_from_json(config: ModelConfig) -> None:
    assert ModelConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize("values", [{"sise": 1}, {"memory": {"kapacity": 5}}])
def test_an_unknown_key_is_an_error(values: dict[str, object]) -> None:
    with pytest.raises(TypeError, match="unexpected keyword"):
        ModelConfig.from_dict(values)


def test_defaults_are_the_released_model_s() -> None:
    config = ModelConfig()
    assert (config.image_size, config.dim, config.memory.capacity) == (1024, 256, 5)
    assert (config.decoder.queries, config.decoder.layers, config.region.points) == (200, 9, 256)
    assert sum(config.encoder.blocks) == 48
