"""The device of a job: how much of a card it may take."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from x2roto.device import limit_memory, load, small_share, torch_share
from x2roto.job import EngineSpec


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


@pytest.mark.parametrize(("gigabytes", "share"), [(24, 21.5), (8, 5.5), (4, 2.0), (1, 0.5)])
def test_torch_leaves_room_for_what_cuda_holds(gigabytes: float, share: float) -> None:
    assert torch_share(gigabytes) == share


def test_a_job_s_limit_is_for_all_that_it_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    limits: list[float] = []
    asked: list[float | None] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr("x2roto.device.limit_memory", lambda _, gigabytes: limits.append(gigabytes))
    large = SimpleNamespace(model=SimpleNamespace(outliner=None))
    monkeypatch.setattr("x2roto.device.load_segmenter", lambda *spec: (asked.append(spec[-1]), large)[1])
    load(EngineSpec(device="cuda", max_vram=8))
    load(EngineSpec(device="cpu", max_vram=8))
    assert limits == [5.5]
    assert asked == [5.5, None]


@pytest.mark.parametrize(("threads", "share"), [(1, 1), (2, 1), (3, 1), (8, 4), (64, 4)])
def test_a_small_network_leaves_threads_to_others(threads: int, share: int) -> None:
    assert small_share(threads) == share


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_torch_takes_the_limit() -> None:
    limit_memory(torch.device("cuda"), 1e6)
