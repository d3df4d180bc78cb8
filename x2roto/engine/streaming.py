"""Layers that wait on the host and come to the device one at a time, for cards too small for the language model.

Its text layers are three quarters of the released weights and run once per prompt; what that costs is one copy of
them over the bus. `bench/vram.py` has the account.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

# What a shot holds beside the weights, one frame encoded at once, and the driver's own part, by `bench/vram.py`.
WORKING_BYTES = 3e9


def too_large(weight_bytes: float, limit_gb: float | None) -> bool:
    """Whether weights of that size leave too little room below a limit."""
    return limit_gb is not None and weight_bytes + WORKING_BYTES > limit_gb * 1e9


def stream(layers: Iterable[nn.Module], device: torch.device) -> None:
    """Let each layer, its parameters on the host, run on a device and leave it again. For inference."""
    for layer in layers:
        host = {parameter: _pinned(parameter.data, device) for parameter in layer.parameters()}
        layer.register_forward_pre_hook(lambda _, __, host=host: _place(host, device))
        layer.register_forward_hook(lambda _, __, ___, host=host: _place(host, None), always_call=True)


def _place(host: dict[nn.Parameter, Tensor], device: torch.device | None) -> Any:
    for parameter, data in host.items():
        parameter.data = data if device is None else data.to(device, non_blocking=True)


def _pinned(data: Tensor, device: torch.device) -> Tensor:
    return data.pin_memory() if device.type == "cuda" else data
