"""SAM2.1 Hiera with its feature pyramid: `transformers`' `Sam2VisionModel`, whose numbers equal the reference's."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import Sam2HieraDetConfig, Sam2VisionConfig, Sam2VisionModel

from x2roto.engine.model.config import MaskEncoderConfig


@dataclass(frozen=True, slots=True)
class Pyramid:
    """What the encoder gives for a batch of B frames.

    `levels_bchw`: three maps of `fpn_dim` channels, fine to coarse (strides 4, 8, 16).
    `region_bhwc`: output of the third stage (stride 16), which region prompts are sampled from.
    """

    levels_bchw: tuple[Tensor, ...]
    region_bhwc: Tensor


class MaskEncoder(Sam2VisionModel):
    """Hiera and neck. Parameter names are those of `Sam2VisionModel`."""

    def __init__(self, config: MaskEncoderConfig, image_size: int) -> None:
        super().__init__(_library_config(config, image_size))
        self.neck.position_encoding = _NoEncoding()  # type: ignore[assignment]

    def forward(self, pixels_bchw: Tensor) -> Pyramid:
        """Encode normalised frames (B, 3, image_size, image_size)."""
        stages = self.backbone(pixels_bchw).intermediate_hidden_states
        # The neck lists coarse to fine and starts with the stride-32 level, which nothing reads.
        levels = self.neck(stages)[0][-3:][::-1]
        return Pyramid(levels, stages[-2])


class _NoEncoding(nn.Module):
    """In place of the neck's position maps, which nothing reads."""

    def forward(self, shape: torch.Size, device: torch.device, dtype: torch.dtype) -> Tensor:
        return torch.empty(0, device=device, dtype=dtype)


def _library_config(config: MaskEncoderConfig, image_size: int) -> Sam2VisionConfig:
    backbone = Sam2HieraDetConfig(
        hidden_size=config.embed_dims[0],
        num_attention_heads=config.heads[0],
        image_size=[image_size, image_size],
        blocks_per_stage=list(config.blocks),
        embed_dim_per_stage=list(config.embed_dims),
        num_attention_heads_per_stage=list(config.heads),
        window_size_per_stage=list(config.windows),
        global_attention_blocks=list(config.global_blocks),
        window_positional_embedding_background_size=list(config.pos_embed_size),
        num_query_pool_stages=config.query_stages,
    )
    return Sam2VisionConfig(
        backbone_config=backbone,
        backbone_channel_list=list(reversed(config.embed_dims)),
        backbone_feature_sizes=[[image_size // s, image_size // s] for s in (4, 8, 16)],
        fpn_hidden_size=config.fpn_dim,
        fpn_top_down_levels=list(config.fpn_top_down_levels),
    )
