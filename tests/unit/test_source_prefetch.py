"""Reading ahead: order, errors, and no thread left behind."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial

import pytest

from x2roto.errors import InputError
from x2roto.source.prefetch import overlapped, prefetch


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


def test_calls_run_in_order_while_the_next_is_made() -> None:
    running = [threading.Event() for _ in range(5)]
    done: list[int] = []

    def call(number: int) -> int:
        running[number].set()
        # The last has none after it to wait for.
        assert number == 4 or made[number + 1].wait(10)
        done.append(number)
        return number

    made = [threading.Event() for _ in range(5)]

    def calls() -> Iterator[Callable[[], int]]:
        for number in range(5):
            assert number == 0 or running[number - 1].wait(10)
            made[number].set()
            yield partial(call, number)

    assert list(overlapped(calls())) == done == list(range(5))


def test_what_fails_does_so_in_its_place() -> None:
    def calls() -> Iterator[Callable[[], int]]:
        yield lambda: 1
        yield lambda: 2
        raise InputError("third")

    reader = overlapped(calls())
    assert [next(reader), next(reader)] == [1, 2]
    with pytest.raises(InputError, match="third"):
        next(reader)
    reader = overlapped([lambda: 1, partial(int, "two"), lambda: 3])
    assert next(reader) == 1
    with pytest.raises(ValueError, match="two"):
        next(reader)
    assert list(reader) == []
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("behind")]
