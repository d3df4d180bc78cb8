"""Where a run's time goes."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, TypeVar

Item = TypeVar("Item")
Stage = Literal["decode", "network", "alpha", "write"]


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds spent waiting for frames (`decode_s`) and for writers (`write_s`), on the network and on alpha."""

    decode_s: float = 0.0
    network_s: float = 0.0
    alpha_s: float = 0.0
    write_s: float = 0.0


class Clock:
    """Sums up what each stage takes."""

    def __init__(self) -> None:
        self._started = self._lap = time.perf_counter()
        self._spent: dict[Stage, float] = dict.fromkeys(("decode", "network", "alpha", "write"), 0.0)

    @contextmanager
    def on(self, stage: Stage) -> Iterator[None]:
        """Count the time inside for `stage`, but for what inside is counted for another one."""
        began, counted = time.perf_counter(), sum(self._spent.values())
        try:
            yield
        finally:
            elsewhere = sum(self._spent.values()) - counted
            self._spent[stage] += time.perf_counter() - began - elsewhere

    def each(self, stage: Stage, items: Iterable[Item]) -> Iterator[Item]:
        """The same items; counts the time that each takes to come for `stage`, as `on` does."""
        coming = iter(items)
        while True:
            with self.on(stage):
                try:
                    item = next(coming)
                except StopIteration:
                    return
            yield item

    def lap(self) -> float:
        """Seconds since the last lap, the first since the clock was made."""
        before, self._lap = self._lap, time.perf_counter()
        return self._lap - before

    @property
    def seconds(self) -> float:
        """Since the clock was made."""
        return time.perf_counter() - self._started

    @property
    def timing(self) -> Timing:
        """So far."""
        return Timing(**{f"{stage}_s": seconds for stage, seconds in self._spent.items()})
