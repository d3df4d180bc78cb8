"""Work on a background thread beside the reader's: ahead of it, or behind. Knows nothing of frames."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from queue import Empty, Full, Queue
from typing import TypeVar

from x2roto.errors import RotoError

Item = TypeVar("Item")

_POLL_S = 0.05  # how often a full queue is looked at again for a reader that has gone away


class _End:
    """What the thread leaves behind when it stops: its exception, or None at the end of the items."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error


def prefetch(items: Iterable[Item], depth: int) -> Generator[Item, None, None]:
    """The same items in the same order, up to `depth` of them made ahead on a thread.

    The thread starts with the first item asked for. An exception of `items` is raised to the reader after the
    items before it. Closing the generator stops and joins the thread and closes `items` on it.
    """
    if depth < 1:
        raise ValueError("prefetch depth must be at least 1")
    queue: Queue[Item | _End] = Queue(depth)
    stopped = threading.Event()
    thread = threading.Thread(target=_fill, args=(items, queue, stopped), name="prefetch", daemon=True)
    thread.start()
    try:
        while not isinstance(item := queue.get(), _End):
            yield item
        if item.error is not None:
            raise item.error
    finally:
        stopped.set()
        _drain(queue)
        thread.join()


def overlapped(calls: Iterable[Callable[[], Item]]) -> Generator[Item, None, None]:
    """What the calls give, in their order: each runs on a thread, one after the other, while the reader goes on and
    the next is made. A RotoError of making one comes after what those before it give."""
    running = deque[Future[Item]]()
    coming = iter(calls)
    with ThreadPoolExecutor(1, thread_name_prefix="behind") as thread:
        while True:
            try:
                call = next(coming, None)
            except RotoError:
                yield from (each.result() for each in running)
                raise
            if call is None:
                break
            running.append(thread.submit(call))
            if len(running) > 1:
                yield running.popleft().result()
        yield from (each.result() for each in running)


def _fill(items: Iterable[Item], queue: Queue[Item | _End], stopped: threading.Event) -> None:
    end = _End()
    iterator = iter(items)
    try:
        for item in iterator:
            if not _put(item, queue, stopped):
                break
    except BaseException as error:  # noqa: BLE001 (it is raised again in the reader's thread)
        end = _End(error)
    finally:
        if isinstance(iterator, Generator):
            iterator.close()
        _put(end, queue, stopped)


def _put(item: Item | _End, queue: Queue[Item | _End], stopped: threading.Event) -> bool:
    """Whether the item went in; False once the reader has gone away."""
    while not stopped.is_set():
        try:
            queue.put(item, timeout=_POLL_S)
        except Full:
            continue
        return True
    return False


def _drain(queue: Queue[Item | _End]) -> None:
    """Let a thread that waits to put see at once that it must stop."""
    while True:
        try:
            queue.get_nowait()
        except Empty:
            return
