"""The edge of the program: known errors become one line on stderr and a documented exit code."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum

from x2roto.errors import DeviceMemoryError, InputError, ModelError, OutputError, PromptError, RotoError


class Exit(IntEnum):
    """Exit codes of every verb."""

    DONE = 0
    UNEXPECTED = 1
    USAGE = 2
    INPUT = 3
    NOTHING_MATCHED = 4
    OUT_OF_MEMORY = 5
    BELOW_MIN_SCORE = 6
    OUTPUT = 7
    MODEL = 8
    INTERRUPTED = 130


EXIT_CODES: dict[type[RotoError], Exit] = {
    InputError: Exit.INPUT,
    OutputError: Exit.OUTPUT,
    PromptError: Exit.USAGE,
    ModelError: Exit.MODEL,
    DeviceMemoryError: Exit.OUT_OF_MEMORY,
}


@contextmanager
def errors_reported() -> Iterator[None]:
    """Print a `RotoError` raised inside as one line and exit with its code; anything else travels on."""
    try:
        yield
    except RotoError as error:
        print(f"x2roto: {' '.join(str(error).split())}", file=sys.stderr)  # noqa: T201
        raise SystemExit(EXIT_CODES.get(type(error), Exit.UNEXPECTED)) from None
