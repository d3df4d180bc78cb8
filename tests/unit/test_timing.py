"""The clock: every second counts once."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from x2roto import timing
from x2roto.timing import Clock


def test_what_is_counted_inside_for_another_stage_is_not_counted_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(timing.time, "perf_counter", lambda: now[0])
    clock = Clock()
    with clock.on("network"):
        now[0] += 2
        with clock.on("decode"):
            now[0] += 5
        now[0] += 1
    assert (clock.timing.network_s, clock.timing.decode_s) == (3, 5)
    assert clock.seconds == 8


def test_items_are_counted_while_they_are_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(timing.time, "perf_counter", lambda: now[0])
    clock = Clock()

    def slow() -> Iterator[int]:
        for number in range(3):
            now[0] += 2
            yield number

    for _ in clock.each("alpha", clock.each("network", slow())):
        now[0] += 7  # the reader's own
    assert (clock.timing.network_s, clock.timing.alpha_s) == (6, 0)
    assert clock.seconds == 27
