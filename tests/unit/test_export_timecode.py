"""Timecode arithmetic."""

from __future__ import annotations

from fractions import Fraction

import pytest

from x2roto.errors import InputError
from x2roto.export.timecode import timecode_at

NTSC, FILM = Fraction(30000, 1001), Fraction(24000, 1001)


@pytest.mark.parametrize(
    ("start", "offset", "rate", "expected"),
    [
        ("01:00:00:00", 0, Fraction(24), "01:00:00:00"),
        ("01:00:00:00", 86400, FILM, "02:00:00:00"),
        ("00:00:59:23", 1, FILM, "00:01:00:00"),
        ("00:00:59;29", 1, NTSC, "00:01:00;02"),
        ("00:09:59;29", 1, NTSC, "00:10:00;00"),
        ("00:00:00;00", 107892, NTSC, "01:00:00;00"),
        ("00:00:59;59", 1, Fraction(60000, 1001), "00:01:00;04"),
        ("23:59:59:24", 1, Fraction(25), "00:00:00:00"),
    ],
)
def test_offsets(start: str, offset: int, rate: Fraction, expected: str) -> None:
    assert str(timecode_at(start, offset, rate)) == expected


def test_drop_frame_never_shows_a_dropped_number() -> None:
    shown = [str(timecode_at("00:00:00;00", index, NTSC)) for index in range(20000)]
    assert len(set(shown)) == len(shown)
    assert not any(text[6:] in ("00;00", "00;01") and int(text[3:5]) % 10 for text in shown)


def test_nonsense_is_refused() -> None:
    with pytest.raises(InputError, match="HH:MM:SS:FF"):
        timecode_at("1 hour", 0, Fraction(24))
