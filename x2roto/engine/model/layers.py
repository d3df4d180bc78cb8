"""Layers as torch has them, that on a GPU go over memory less often."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from x2roto.engine.kernels import fuses


class LayerNorm(nn.LayerNorm):
    """Over the last axis, with weight and bias. torch's own kernel leaves most of a GPU idle on rows so narrow."""

    def forward(self, x: Tensor, added: Tensor | None = None) -> Tensor:
        """The norm of x, or of x + added."""
        if fuses(x):
            from x2roto.engine.model import fused

            return fused.layer_norm(x, self.weight, self.bias, self.eps, added)
        return super().forward(x if added is None else x + added)


class ChannelNorm(LayerNorm):
    """Layer norm over the channels of a (B, C, h, w) map."""

    def __init__(self, dim: int) -> None:
        super().__init__(dim, eps=1e-6)

    def forward(self, x: Tensor, added: Tensor | None = None) -> Tensor:
        assert added is None
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def with_fast_norms(module: nn.Module) -> None:
    """Put `LayerNorm` in place of every `nn.LayerNorm` inside, with the same parameters."""
    for name, norm in list(module.named_modules()):
        if type(norm) is nn.LayerNorm:
            (width,) = norm.normalized_shape
            fast = LayerNorm(width, eps=norm.eps)
            fast.weight, fast.bias = norm.weight, norm.bias
            module.set_submodule(name, fast)


def rectified(linear: nn.Linear, x: Tensor) -> Tensor:
    """The positive part of what the layer gives."""
    if fuses(x):
        # cuBLAS clips while it writes; the hidden layer of a feed-forward part is its largest tensor by far.
        rows = torch._addmm_activation(linear.bias, x.reshape(-1, x.shape[-1]), linear.weight.mT)
        return rows.view(*x.shape[:-1], -1)
    return F.relu(linear(x))
