"""What can go wrong, as few types. Each carries its facts; `cli/report.py` alone prints and sets exit codes.

Where a builtin exception means the same thing the class is that builtin too, so library users can catch either.
"""

from __future__ import annotations

from pathlib import Path


class RotoError(Exception):
    """An error a user can act on. The message is one line: what, where, what to do next."""


class InputError(RotoError, OSError):
    """A clip, sequence or picture that cannot be read."""

    def __init__(self, message: str, path: Path | None = None) -> None:
        super().__init__(message)
        self.path = path


class OutputError(RotoError, OSError):
    """An output that cannot be written: no permission, disk full, a take that must not be mixed."""

    def __init__(self, message: str, path: Path | None = None) -> None:
        super().__init__(message)
        self.path = path


class PromptError(RotoError, ValueError):
    """A prompt that cannot be used: a box outside the frame, an empty mask, a duplicate name."""


class ModelError(RotoError):
    """A model that is missing, incomplete, damaged or not to be trusted."""

    def __init__(self, message: str, path: Path | None = None) -> None:
        super().__init__(message)
        self.path = path


class DeviceMemoryError(RotoError, MemoryError):
    """The device ran out of memory even with the smallest working set."""
