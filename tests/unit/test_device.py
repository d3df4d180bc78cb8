"""The device of a job: how much of a card it may take."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from x2roto.device import limit_memory


@pytest.mark.parametrize(("name", "index"), [("cuda", 2), ("cuda:1", 1)])
@pytest.mark.parametrize(("gigabytes", "share"), [(8, 0.1), (200, 1.0)])
def test_a_limit_is_a_share_of_one_card_s_memory(
    monkeypatch: pytest.MonkeyPatch, name: str, index: int, gigabytes: float, share: float
) -> None:
    limits: list[tuple[float, object]] = []
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(total_memory=80e9))
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", lambda *limit: limits.append(limit))
    limit_memory(torch.device(name), gigabytes)
    # A name alone is refused by torch.
    assert limits == [(pytest.approx(share), index)]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_torch_takes_the_limit() -> None:
    limit_memory(torch.device("cuda"), 1e6)
