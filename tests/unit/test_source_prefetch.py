"""Reading ahead: order, errors, and no thread left behind."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import closing

import pytest

from x2roto.source.prefetch import prefetch


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "prefetch"]


@pytest.mark.parametrize("depth", [1, 2, 7, 100])
def test_gives_the_same_items(depth: int) -> None:
    assert list(prefetch(range(50), depth)) == list(range(50))
    assert not threads()


def test_an_exception_travels_after_the_items_before_it() -> None:
    def items() -> Iterator[int]:
        yield 1
        yield 2
        raise KeyError("third")

    reader = prefetch(items(), 5)
    assert [next(reader), next(reader)] == [1, 2]
    with pytest.raises(KeyError, match="third"):
        next(reader)
    assert not threads()


def test_closing_stops_the_thread_and_closes_the_items() -> None:
    closed = threading.Event()

    def items() -> Iterator[int]:
        try:
            yield from range(10**9)
        finally:
            closed.set()

    with closing(prefetch(items(), 3)) as reader:
        assert next(reader) == 0
        assert threads()
    assert closed.is_set()
    assert not threads()


def test_reads_at_most_its_depth_ahead() -> None:
    made: list[int] = []

    def items() -> Iterator[int]:
        for item in range(100):
            made.append(item)
            yield item

    with closing(prefetch(items(), 4)) as reader:
        next(reader)
        time.sleep(0.2)
        assert 5 <= len(made) <= 6  # one read, four waiting, one in the thread's hand


def test_no_depth_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        next(prefetch([1], 0))
