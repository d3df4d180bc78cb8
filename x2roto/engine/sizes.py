"""Sizes read from the weights, so that no config file can disagree with them.

Works on names and shapes alone: no tensor is touched and torch is not needed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

from x2roto.engine.model.config import (
    FinderConfig,
    MaskDecoderConfig,
    MaskEncoderConfig,
    MemoryConfig,
    ModelConfig,
    OutlinerConfig,
    PixelDecoderConfig,
)
from x2roto.errors import ModelError

Shape = tuple[int, ...]

_BACKBONE = "segmentor.encoder.backbone"
_PIXEL_DECODER = "segmentor.pixel_decoder"
_MEMORY_ENCODER = "segmentor.memory_encoder"
_MEMORY_ATTENTION = "segmentor.memory_attention"
_DECODER = "segmentor.decoder"
_TEXT = "vlm.model.language_model"
_VISION = "vlm.model.visual"


def infer_sizes(config: ModelConfig, shapes: Mapping[str, Shape]) -> ModelConfig:
    """`config` with every size that a weight's shape tells replaced by what the weights say.

    `shapes` maps our parameter names to shapes. What no shape tells (heads, windows, global blocks, image
    size, capacity) is kept. Raises ModelError when a needed weight is missing or has too few axes, and when
    a kept value cannot belong to these weights (heads that do not divide a width, another number of stages).
    """
    weights = _Weights(shapes)
    dim = weights.size("bg_embeds.weight", 1)
    return replace(
        config,
        dim=dim,
        encoder=_encoder(config.encoder, weights),
        pixel_decoder=_pixel_decoder(config.pixel_decoder, weights),
        memory=_memory(config.memory, weights),
        decoder=_decoder(config.decoder, weights, dim),
        finder=_finder(config.finder, weights),
        outliner=_outliner(config.outliner, weights),
        language=_language(config.language, weights),
    )


@dataclass(frozen=True, slots=True)
class _Weights:
    shapes: Mapping[str, Shape]

    def size(self, name: str, axis: int) -> int:
        if name not in self.shapes:
            raise ModelError(f"the weights lack {name}, so the network's sizes cannot be told")
        shape = self.shapes[name]
        if axis >= len(shape) or shape[axis] < 1:
            raise ModelError(f"{name} has shape {shape}, so the network's sizes cannot be told")
        return shape[axis]

    def count(self, prefix: str) -> int:
        """How many numbered entries 0, 1, 2… follow `prefix`."""
        tails = (name.removeprefix(prefix) for name in self.shapes if name.startswith(prefix))
        numbers = {int(head) for head in (tail.partition(".")[0] for tail in tails) if head.isdecimal()}
        if numbers != set(range(len(numbers))):
            raise ModelError(f"the weights lack some of {prefix}0 to {prefix}{max(numbers)}")
        return len(numbers)


def _encoder(config: MaskEncoderConfig, weights: _Weights) -> MaskEncoderConfig:
    count = weights.count(f"{_BACKBONE}.blocks.")
    widths = [weights.size(f"{_BACKBONE}.blocks.{block}.attn.proj.weight", 0) for block in range(count)]
    stages = [(width, len(list(run))) for width, run in groupby(widths)]
    inferred = replace(
        config,
        embed_dims=tuple(width for width, _ in stages),
        blocks=tuple(length for _, length in stages),
        pos_embed_size=(
            weights.size(f"{_BACKBONE}.pos_embed", 2),
            weights.size(f"{_BACKBONE}.pos_embed", 3),
        ),
        fpn_dim=weights.size("segmentor.encoder.neck.convs.0.weight", 0),
    )
    _check_encoder(inferred, window=weights.size(f"{_BACKBONE}.pos_embed_window", 2))
    return inferred


def _check_encoder(config: MaskEncoderConfig, window: int) -> None:
    stages, blocks = len(config.embed_dims), sum(config.blocks)
    if not len(config.heads) == len(config.windows) == stages:
        _conflict("encoder.heads and encoder.windows", (config.heads, config.windows), f"{stages} stages")
    for dim, heads in zip(config.embed_dims, config.heads, strict=True):
        _exact(dim, heads, "encoder.heads")
    if config.windows[0] != window:
        _conflict("encoder.windows", config.windows, f"a first window of {window}")
    if not all(0 <= block < blocks for block in config.global_blocks):
        _conflict("encoder.global_blocks", config.global_blocks, f"{blocks} blocks")
    if not all(0 <= level < stages for level in config.fpn_top_down_levels):
        _conflict("encoder.fpn_top_down_levels", config.fpn_top_down_levels, f"{stages} stages")
    if not 0 <= config.query_stages < stages:
        _conflict("encoder.query_stages", config.query_stages, f"{stages} stages")


def _pixel_decoder(config: PixelDecoderConfig, weights: _Weights) -> PixelDecoderConfig:
    layer = f"{_PIXEL_DECODER}.encoder.layers.0"
    samples = weights.size(f"{layer}.self_attn.attention_weights.weight", 0)
    levels = weights.size(f"{_PIXEL_DECODER}.level_embed", 0)
    _exact(weights.size(f"{layer}.self_attn.value_proj.weight", 0), config.heads, "pixel_decoder.heads")
    return replace(
        config,
        layers=weights.count(f"{_PIXEL_DECODER}.encoder.layers."),
        points=_exact(samples, config.heads * levels, "pixel_decoder.heads"),
        feedforward=weights.size(f"{layer}.fc1.weight", 0),
    )


def _memory(config: MemoryConfig, weights: _Weights) -> MemoryConfig:
    scales = range(weights.count(f"{_MEMORY_ENCODER}.vision_downsampler."))
    strides = [2 ** weights.count(f"{_MEMORY_ENCODER}.vision_downsampler.{scale}.layers.") for scale in scales]
    taking_part = [level for level, stride in enumerate(config.feature_strides) if stride]
    if len(taking_part) != len(strides):
        _conflict("memory.feature_strides", config.feature_strides, f"{len(strides)} levels in memory")
    of_level = dict(zip(taking_part, strides, strict=True))
    if config.capacity < 1:
        raise ModelError(f"memory.capacity is {config.capacity}; the memory holds at least one frame")
    return replace(
        config,
        layers=weights.count(f"{_MEMORY_ATTENTION}.layers."),
        feedforward=weights.size(f"{_MEMORY_ATTENTION}.layers.0.linear1.weight", 0),
        feature_strides=tuple(of_level.get(level, 0) for level in range(len(config.feature_strides))),
        mask_stride=2 ** weights.count(f"{_MEMORY_ENCODER}.mask_downsampler.layers."),
        mask_layers=weights.count("segmentor.mask_recall.layers."),
        anchored="segmentor.match.projection.weight" in weights.shapes,
        fuser_layers=weights.count(f"{_MEMORY_ENCODER}.memory_fuser.layers."),
        fuser_feedforward=weights.size(f"{_MEMORY_ENCODER}.memory_fuser.layers.0.pointwise_conv1.weight", 0),
    )


def _decoder(config: MaskDecoderConfig, weights: _Weights, dim: int) -> MaskDecoderConfig:
    _exact(dim, config.heads, "decoder.heads")
    return replace(
        config,
        queries=weights.size(f"{_DECODER}.queries_features.weight", 0),
        layers=weights.count(f"{_DECODER}.decoder.layers."),
        feedforward=weights.size(f"{_DECODER}.decoder.layers.0.fc1.weight", 0),
        reading=weights.count("segmentor.reading.layers."),
    )


def _finder(config: FinderConfig, weights: _Weights) -> FinderConfig:
    if "finder.names.weight" not in weights.shapes:
        return replace(config, dim=0)
    dim = weights.size("finder.names.weight", 0)
    _exact(dim, config.heads, "finder.heads")
    return replace(
        config,
        dim=dim,
        layers=weights.count("finder.layers."),
        text_layers=weights.count("finder.words.layers."),
        feedforward=weights.size("finder.layers.0.linear1.weight", 0),
        widths=tuple(weights.size(f"finder.eyes.laterals.{stage}.weight", 1) for stage in range(len(config.widths))),
    )


def _outliner(config: OutlinerConfig, weights: _Weights) -> OutlinerConfig:
    if "outliner.draw.weight" not in weights.shapes:
        return replace(config, dim=0)
    return replace(
        config,
        dim=weights.size("outliner.draw.weight", 1),
        tokens=weights.size("outliner.comparing.weight", 0),
        blocks=weights.count("outliner.blocks."),
    )


def _language(language: Mapping[str, Any], weights: _Weights) -> dict[str, Any]:
    text = {**language.get("text_config", {}), **_text_sizes(weights)}
    vision = {**language.get("vision_config", {}), **_vision_sizes(weights)}
    _check_language(text, vision, mergers=weights.count(f"{_VISION}.deepstack_merger_list."))
    return {**language, "text_config": text, "vision_config": vision}


def _text_sizes(weights: _Weights) -> dict[str, int]:
    layer = f"{_TEXT}.layers.0"
    head_dim = weights.size(f"{layer}.self_attn.q_norm.weight", 0)
    query_dim = weights.size(f"{layer}.self_attn.q_proj.weight", 0)
    key_dim = weights.size(f"{layer}.self_attn.k_proj.weight", 0)
    return {
        "vocab_size": weights.size(f"{_TEXT}.embed_tokens.weight", 0),
        "hidden_size": weights.size(f"{_TEXT}.embed_tokens.weight", 1),
        "intermediate_size": weights.size(f"{layer}.mlp.gate_proj.weight", 0),
        "num_hidden_layers": weights.count(f"{_TEXT}.layers."),
        "head_dim": head_dim,
        "num_attention_heads": _exact(query_dim, head_dim, "head_dim"),
        "num_key_value_heads": _exact(key_dim, head_dim, "head_dim"),
    }


def _vision_sizes(weights: _Weights) -> dict[str, int]:
    patch = f"{_VISION}.patch_embed.proj.weight"
    hidden = weights.size(patch, 0)
    merged = _exact(weights.size(f"{_VISION}.merger.linear_fc1.weight", 1), hidden, "vision hidden_size")
    return {
        "depth": weights.count(f"{_VISION}.blocks."),
        "hidden_size": hidden,
        "in_channels": weights.size(patch, 1),
        "temporal_patch_size": weights.size(patch, 2),
        "patch_size": weights.size(patch, 3),
        "intermediate_size": weights.size(f"{_VISION}.blocks.0.mlp.linear_fc1.weight", 0),
        "spatial_merge_size": math.isqrt(merged),
        "out_hidden_size": weights.size(f"{_VISION}.merger.linear_fc2.weight", 0),
        "num_position_embeddings": weights.size(f"{_VISION}.pos_embed.weight", 0),
    }


def _check_language(text: Mapping[str, Any], vision: Mapping[str, Any], mergers: int) -> None:
    taps = vision.get("deepstack_visual_indexes")
    if taps is not None and (len(taps) != mergers or not all(0 <= tap < vision["depth"] for tap in taps)):
        _conflict("deepstack_visual_indexes", taps, f"{mergers} mergers in {vision['depth']} blocks")
    if "num_heads" in vision:
        _exact(vision["hidden_size"], vision["num_heads"], "vision num_heads")
    rope = text.get("rope_parameters") or text.get("rope_scaling") or {}
    section = rope.get("mrope_section")
    if section is not None and 2 * sum(section) != text["head_dim"]:
        _conflict("mrope_section", section, f"heads of {text['head_dim']}")


def _exact(total: int, part: int, what: str) -> int:
    if part < 1 or total % part:
        _conflict(what, part, f"a width of {total}")
    return total // part


def _conflict(what: str, value: object, weights_say: str) -> None:
    raise ModelError(f"the config's {what} {value} cannot belong to these weights, which have {weights_say}")
