"""Memory encoder: one frame's features and masks become what later frames may look at.

After SAM 2 (arXiv 2408.00714) with class and mask guidance (wanghao9610/X2SAM@5b0b106
`segmentors/sam2/modeling_sam2.py` `Sam2MemoryEncoder`). The guidance map, equal for all scales, is computed once.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from x2roto.engine.model.config import MemoryConfig
from x2roto.engine.model.layers import ChannelNorm


class MemoryEncoder(nn.Module):
    """Downsampled features plus a guidance map, fused: one map per scale at the memory's resolution."""

    def __init__(self, config: MemoryConfig, dim: int) -> None:
        super().__init__()
        self.scale, self.bias = config.guidance_scale, config.guidance_bias
        self.mask_downsampler = Downsampler(1, dim, config.mask_stride)
        self.scales = tuple(scale for scale, stride in enumerate(config.feature_strides) if stride)
        self.vision_downsampler = nn.ModuleList(
            Downsampler(dim, dim, config.feature_strides[scale]) for scale in self.scales
        )
        self.memory_fuser = Fuser(config, dim)
        self.projection = nn.Conv2d(dim, dim, 1)

    def downsample(self, levels_bchw: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """The part that sees no mask: each level that takes part (`scales`) at the memory's resolution. Batches
        over frames."""
        levels = (levels_bchw[scale] for scale in self.scales)
        return tuple(down(level) for down, level in zip(self.vision_downsampler, levels, strict=True))

    def forward(
        self, downsampled_bchw: tuple[Tensor, ...], mask_logits_bqhw: Tensor, class_logits_bqc: Tensor
    ) -> tuple[Tensor, ...]:
        """Memory maps (B, C, h, w), one per scale. The last class column is the background."""
        return self.imprint(downsampled_bchw, guide(mask_logits_bqhw, class_logits_bqc))

    def imprint(self, downsampled_bchw: tuple[Tensor, ...], guidance_b1hw: Tensor) -> tuple[Tensor, ...]:
        """Memory maps of a frame on which `guidance_b1hw`, in [0, 1] at the mask logits' size, is seen."""
        shown = (self.scale * guidance_b1hw + self.bias).type_as(downsampled_bchw[0])
        guidance = self.mask_downsampler(shown)
        fused = self.memory_fuser(torch.cat([level + guidance for level in downsampled_bchw]))
        return self.projection(fused).chunk(len(downsampled_bchw))


def guide(mask_logits_bqhw: Tensor, class_logits_bqc: Tensor) -> Tensor:
    """Where the queries that carry a class see something: (B, 1, h, w) in [0, 1]."""
    scores = class_logits_bqc.softmax(-1)[..., :-1].amax(-1)
    weights = (mask_logits_bqhw + scores.clamp_min(1e-6).log()[..., None, None]).softmax(1)
    return (weights * mask_logits_bqhw.sigmoid()).sum(1, keepdim=True)


class Downsampler(nn.Module):
    """Halves resolution log2(stride) times, four times the channels each, then projects to `dim_out`."""

    def __init__(self, dim_in: int, dim_out: int, stride: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList()
        while stride > 1:
            self.layers.append(DownsamplerLayer(dim_in, dim_in * 4))
            dim_in, stride = dim_in * 4, stride // 2
        self.final_conv = nn.Conv2d(dim_in, dim_out, 1)

    def forward(self, x_bchw: Tensor) -> Tensor:
        for layer in self.layers:
            x_bchw = layer(x_bchw)
        return self.final_conv(x_bchw)


class DownsamplerLayer(nn.Module):
    """Strided convolution, layer norm over channels, GELU."""

    def __init__(self, dim_in: int, dim_out: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(dim_in, dim_out, 3, stride=2, padding=1)
        self.layer_norm = ChannelNorm(dim_out)

    def forward(self, x_bchw: Tensor) -> Tensor:
        return F.gelu(self.layer_norm(self.conv(x_bchw)))


class Fuser(nn.Module):
    """A few ConvNeXt blocks."""

    def __init__(self, config: MemoryConfig, dim: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(FuserBlock(dim, config.fuser_feedforward) for _ in range(config.fuser_layers))

    def forward(self, x_bchw: Tensor) -> Tensor:
        for layer in self.layers:
            x_bchw = layer(x_bchw)
        return x_bchw


class FuserBlock(nn.Module):
    """ConvNeXt block (arXiv 2201.03545)."""

    def __init__(self, dim: int, feedforward: int) -> None:
        super().__init__()
        self.depthwise_conv = nn.Conv2d(dim, dim, 7, padding=3, groups=dim)
        self.layer_norm = ChannelNorm(dim)
        self.pointwise_conv1 = nn.Linear(dim, feedforward)
        self.pointwise_conv2 = nn.Linear(feedforward, dim)
        self.scale = nn.Parameter(torch.full((dim,), 1e-6))

    def forward(self, x_bchw: Tensor) -> Tensor:
        mixed = self.layer_norm(self.depthwise_conv(x_bchw)).permute(0, 2, 3, 1)
        mixed = self.scale * self.pointwise_conv2(F.gelu(self.pointwise_conv1(mixed)))
        return x_bchw + mixed.permute(0, 3, 1, 2)
