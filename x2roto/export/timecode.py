"""SMPTE timecode arithmetic, drop-frame included."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

from x2roto.errors import InputError


@dataclass(frozen=True, slots=True)
class Timecode:
    """Hours, minutes, seconds, frames; `drop` for drop-frame counting. As text: `01:00:00;00` drops."""

    hours: int
    minutes: int
    seconds: int
    frames: int
    drop: bool = False

    def __str__(self) -> str:
        separator = ";" if self.drop else ":"
        return f"{self.hours:02}:{self.minutes:02}:{self.seconds:02}{separator}{self.frames:02}"


def timecode_at(start: str, offset: int, rate: Fraction) -> Timecode:
    """The timecode `offset` frames after `start`; 23.976 counts at 24, 29.97 at 30; wraps at 24 hours.

    Raises InputError when `start` is not a timecode. Source: SMPTE ST 12-1, drop-frame compensation.
    """
    parts = re.fullmatch(r"(\d\d):(\d\d):(\d\d)([:;.])(\d\d)", start)
    if not parts:
        raise InputError(f"timecode {start!r} is not of the form HH:MM:SS:FF: set it in the clip or leave it out")
    hours, minutes, seconds, frames = (int(parts[group]) for group in (1, 2, 3, 5))
    nominal, drop = round(rate), parts[4] != ":"
    dropped = nominal // 15 if drop else 0
    count = (
        ((hours * 60 + minutes) * 60 + seconds) * nominal + frames - _dropped_before(hours * 60 + minutes, dropped)
    )
    return _from_count(count + offset, nominal, dropped)


def _dropped_before(minute: int, dropped: int) -> int:
    """Numbers skipped before this minute: `dropped` at the start of each, except every tenth."""
    return dropped * (minute - minute // 10)


def _from_count(count: int, nominal: int, dropped: int) -> Timecode:
    per_ten = 600 * nominal - 9 * dropped
    count %= 144 * per_ten
    tens, rest = divmod(count, per_ten)
    # The first minute of ten skips nothing; each of the other nine is shorter.
    later = max(0, (rest - dropped) // (60 * nominal - dropped))
    shown = count + dropped * (9 * tens + later)
    seconds, frames = divmod(shown, nominal)
    return Timecode(seconds // 3600 % 24, seconds // 60 % 60, seconds % 60, frames, dropped > 0)
