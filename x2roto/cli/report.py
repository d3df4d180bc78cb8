"""The edge of the program: errors become one line on stderr and a documented exit code."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum

import typer
from typer.exceptions import TyperException

from x2roto.errors import DeviceMemoryError, InputError, ModelError, OutputError, PromptError, RotoError


class Exit(IntEnum):
    """Exit codes of every verb; 130 and 143 when SIGINT or SIGTERM ends it."""

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
    """Print an error raised inside as one line and exit with its code. `X2ROTO_DEBUG` adds the traceback."""
    try:
        yield
    except RotoError as error:
        _stop(EXIT_CODES[type(error)], str(error))
    except TyperException as error:
        # A verb without arguments has shown its help and has nothing more to say.
        _stop(Exit.USAGE, error.format_message() if hasattr(error, "format_message") else str(error))
    except (typer.Abort, KeyboardInterrupt):
        _stop(Exit.INTERRUPTED, "interrupted")
    except MemoryError:
        _stop(Exit.OUT_OF_MEMORY, "this machine is out of memory: use a smaller --chunk or fewer prompts")
    except Exception as error:  # noqa: BLE001 (the last resort: even our own mistakes end in one line)
        advice = "please report this, with what X2ROTO_DEBUG=1 prints"
        _stop(Exit.UNEXPECTED, f"unexpected {type(error).__name__}: {error}: {advice}")


def _stop(code: Exit, message: str) -> None:
    if os.environ.get("X2ROTO_DEBUG"):
        traceback.print_exc()
    if line := " ".join(message.split()):
        print(f"x2roto: {line}", file=sys.stderr)  # noqa: T201
    _settle_stdout()
    raise SystemExit(code) from None


def _settle_stdout() -> None:
    """Leave nothing for the interpreter to flush into a pipe that nobody reads any more."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
