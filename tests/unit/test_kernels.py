"""The choice of an attention kernel: by measurement, what cannot run last, and the same numbers with each."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F
from torch.nn.attention import SDPBackend

from x2roto.engine import kernels
from x2roto.engine.kernels import fast_attention, ranked

CPU = torch.device("cpu")
HERE = (SDPBackend.CUDNN_ATTENTION, SDPBackend.MATH, SDPBackend.FLASH_ATTENTION)


def test_the_fastest_comes_first_and_what_cannot_run_last(monkeypatch: pytest.MonkeyPatch) -> None:
    # When the first run begins, then begin and end of three more.
    times = iter([0.0, 1.0, 7.0, 10.0, 14.0, 20.0, 25.0])
    order = ranked(CPU, torch.float32, 32, HERE, 64)
    assert set(order) == set(HERE)
    assert order[-1] is SDPBackend.CUDNN_ATTENTION, "no CPU has it"
    monkeypatch.setattr(kernels.time, "perf_counter", lambda: next(times))
    q = torch.randn(1, 1, 8, 8)
    assert kernels._seconds(SDPBackend.MATH, q, q, q) == 4.0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gives_the_same_with_the_kernel_it_is_fastest_with() -> None:
    device = torch.device("cuda")
    q, k, v = (torch.randn(1, 1, 512, 256, device=device, dtype=torch.bfloat16) for _ in range(3))
    plain = F.scaled_dot_product_attention(q.float(), k.float(), v.float())
    with fast_attention(device, torch.bfloat16, 256):
        fast = F.scaled_dot_product_attention(q, k, v)
    torch.testing.assert_close(fast.float(), plain, atol=2e-2, rtol=2e-2)


def test_a_cpu_is_left_alone() -> None:
    q = torch.randn(1, 1, 16, 8)
    before = F.scaled_dot_product_attention(q, q, q)
    with fast_attention(CPU, torch.float32, 8):
        assert torch.equal(F.scaled_dot_product_attention(q, q, q), before)
