"""Calls run on a few threads with a bounded queue; failures come back to the caller."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, ParamSpec, Self, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

# Encoders let go of the interpreter lock; past a few threads a disk is the limit.
WORKERS = min(8, max(2, os.cpu_count() or 2))


class Pool:
    """Runs calls on threads, at most `depth` unfinished; the first failure is raised by a later call or on exit."""

    def __init__(self, workers: int = WORKERS, depth: int | None = None) -> None:
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="x2roto-export")
        self._depth = depth or 2 * workers
        self._pending: deque[Future[Any]] = deque()

    def submit(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Queue a call; waits while `depth` calls are unfinished."""
        while self._pending and (len(self._pending) >= self._depth or self._pending[0].done()):
            self._pending.popleft().result()
        future = self._threads.submit(call, *args, **kwargs)
        self._pending.append(future)
        return future

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._threads.shutdown(wait=True, cancel_futures=kind is not None and issubclass(kind, Exception))
        if kind is None:
            while self._pending:
                self._pending.popleft().result()
