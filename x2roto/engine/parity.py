"""Parity with golden tensors made by running the reference code: cases, boundaries, tolerances.

A golden folder holds `index.json` (sizes in the reference's vocabulary, every tensor), `checkpoint.safetensors`,
`base_vlm.safetensors` and one safetensors file per case. Used by `x2roto models verify --golden` and the tests.
"""

from __future__ import annotations

from typing import Any

from x2roto.engine.model.config import (
    MaskDecoderConfig,
    MaskEncoderConfig,
    MemoryConfig,
    ModelConfig,
    PixelDecoderConfig,
    RegionConfig,
)


def golden_config(index: dict[str, Any]) -> ModelConfig:
    """Our config from the three configs of a golden index, in the vocabulary of the reference's libraries."""
    sam2, m2f, language = index["sam2_config"], index["mask2former_config"], dict(index["vlm_config"])
    backbone = sam2["vision_config"]["backbone_config"]
    base_rows = language["text_config"]["vocab_size"]
    rows = index["token_ids"]["pe"] + 1
    language["text_config"] = {**language["text_config"], "vocab_size": min(rows, base_rows)}
    optional = {
        "pos_embed_size": backbone.get("window_positional_embedding_background_size"),
        "fpn_top_down_levels": sam2["vision_config"].get("fpn_top_down_levels"),
    }
    return ModelConfig(
        name="golden",
        image_size=sam2["image_size"],
        dim=m2f["hidden_dim"],
        encoder=MaskEncoderConfig(
            embed_dims=tuple(backbone["embed_dim_per_stage"]),
            blocks=tuple(backbone["blocks_per_stage"]),
            heads=tuple(backbone["num_attention_heads_per_stage"]),
            windows=tuple(backbone["window_size_per_stage"]),
            global_blocks=tuple(backbone["global_attention_blocks"]),
            query_stages=backbone.get("num_query_pool_stages", 3),
            fpn_dim=sam2["vision_config"]["fpn_hidden_size"],
            **{key: tuple(value) for key, value in optional.items() if value},
        ),
        pixel_decoder=PixelDecoderConfig(
            layers=m2f["encoder_layers"],
            heads=m2f["num_attention_heads"],
            feedforward=m2f["encoder_feedforward_dim"],
        ),
        memory=MemoryConfig(
            capacity=sam2["num_maskmem"],
            layers=sam2["memory_attention_num_layers"],
            feedforward=sam2["memory_attention_feed_forward_hidden_size"],
            feature_strides=tuple(sam2["feature_downsampler_scale_strides"]),
            mask_stride=sam2["mask_downsampler_scale_strides"][0],
            fuser_layers=sam2.get("memory_fuser_num_layers", 2),
            fuser_feedforward=sam2["memory_fuser_intermediate_dim"],
        ),
        decoder=MaskDecoderConfig(
            queries=m2f["num_queries"],
            layers=m2f["decoder_layers"] - 1,
            heads=m2f["num_attention_heads"],
            feedforward=m2f["dim_feedforward"],
        ),
        region=RegionConfig(points=index["sampler"]["num_points"], pool=index["sampler"]["pool"]),
        language=language,
    )
