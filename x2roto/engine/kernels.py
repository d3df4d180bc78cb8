"""Which kernels a GPU takes: of torch's for attention the fastest, found by a short probe and never by guess, and
where there is Triton ours for what torch does in many passes (`engine/model/fused.py`).

Memory attention has one head as wide as the model and is nearly all of a frame's arithmetic at full size. Which of
torch's kernels takes such a head, and how fast, differs from card to card and from version to version.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

CANDIDATES = (
    SDPBackend.CUDNN_ATTENTION,
    SDPBackend.FLASH_ATTENTION,
    SDPBackend.EFFICIENT_ATTENTION,
    SDPBackend.MATH,
)
TOKENS = 8192  # enough to fill a card, few enough for every kernel's memory
REPEATS = 3


def fuses(tensor: Tensor) -> bool:
    """Whether Triton's kernels can take a tensor: it is on a GPU and no gradients are asked for."""
    return tensor.is_cuda and not torch.is_grad_enabled() and has_triton()


@cache
def has_triton() -> bool:
    """Whether Triton is there, which torch's CUDA builds bring along where it exists."""
    return find_spec("triton") is not None


@contextmanager
def fast_attention(device: torch.device, dtype: torch.dtype, width: int) -> Iterator[None]:
    """Inside, attention takes the kernel that is fastest for heads of that width, or the next that can do it."""
    if device.type != "cuda":
        yield
        return
    with sdpa_kernel(list(ranked(device, dtype, width)), set_priority=True):
        yield


@cache
@torch.inference_mode()
def ranked(
    device: torch.device,
    dtype: torch.dtype,
    width: int,
    candidates: Sequence[SDPBackend] = CANDIDATES,
    tokens: int = TOKENS,
) -> tuple[SDPBackend, ...]:
    """The kernels by their time for one head of that width, those that cannot do it last, in the given order."""
    q, k, v = (torch.randn(1, 1, tokens, width, device=device, dtype=dtype) for _ in range(3))
    times = {kernel: _seconds(kernel, q, k, v) for kernel in candidates}
    return tuple(sorted(candidates, key=lambda kernel: times[kernel]))


def _seconds(kernel: SDPBackend, q: Tensor, k: Tensor, v: Tensor) -> float:
    """The least time of some runs after a first one; infinite for a kernel that cannot do it."""
    least = float("inf")
    for repeat in range(1 + REPEATS):
        started = time.perf_counter()
        try:
            with sdpa_kernel(kernel):
                F.scaled_dot_product_attention(q, k, v)
        except RuntimeError:
            return float("inf")
        if q.is_cuda:
            torch.cuda.synchronize(q.device)
        if repeat:
            least = min(least, time.perf_counter() - started)
    return least
