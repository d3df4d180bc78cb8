"""Which pictures are trusted: packets I0 P3 B1 B2 P6 B4 B5 I9 … with damage at every place."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from x2roto.source.ledger import Ledger, Picture, Stamp, Stamper


@dataclass
class FakeFrame:
    is_corrupt: bool = False


@dataclass
class FakePacket:
    pts: int | None
    dts: int | None
    is_keyframe: bool = False
    is_corrupt: bool = False


# Decode order by display time: two open groups of I P B B, key frames at 0 and 6; 4 and 5 lead the second.
TIMES = [0, 3, 1, 2, 6, 4, 5, 9, 7, 8]
KEYS = {0, 6}


def play(refused: frozenset[int] = frozenset(), concealed: frozenset[int] = frozenset()) -> list[Picture]:
    """What the ledger says when packets with these display times are refused, or come out concealed."""
    ledger, stamper = Ledger(), Stamper()
    stamps = {t: stamper.stamp(FakePacket(t, order - 3, t in KEYS)) for order, t in enumerate(TIMES)}  # type: ignore[arg-type]
    out: list[Picture] = []
    shown = 0
    for time in TIMES:
        ledger.sent(stamps[time])
        if time in refused:
            ledger.refused(stamps[time])
        while shown < 10 and stamps[shown].order <= stamps[time].order - 1:
            if shown not in refused:
                out += ledger.shown(stamps[shown], FakeFrame(shown in concealed))  # type: ignore[arg-type]
            shown += 1
    for rest in range(shown, 10):
        if rest not in refused:
            out += ledger.shown(stamps[rest], FakeFrame(rest in concealed))  # type: ignore[arg-type]
    return [*out, *ledger.ended()]


def bad(pictures: list[Picture]) -> set[int]:
    assert [picture.stamp.pts for picture in pictures] == list(range(10))
    return {picture.stamp.pts for picture in pictures if picture.problem and picture.stamp.pts is not None}


def test_whole_streams_are_trusted() -> None:
    assert bad(play()) == set()


@pytest.mark.parametrize(
    ("lost", "spoiled"),
    [
        (3, {1, 2, 3, 4, 5}),  # a reference frame: all of its group, and those that lead the next key frame
        (2, {2, 4, 5}),  # later in decode order than 1 and 3; 4 and 5 may still look back at it
        (6, {4, 5, 6, 7, 8, 9}),  # a key frame: to the end
        (8, {8}),  # the last packet
    ],
)
def test_a_lost_packet_spoils_what_may_be_predicted_from_it(lost: int, spoiled: set[int]) -> None:
    assert bad(play(refused=frozenset({lost}))) == spoiled
    assert bad(play(concealed=frozenset({lost}))) <= spoiled


def test_packets_without_a_picture_are_no_damage() -> None:
    """Hidden references and frames not coded give no picture and no error."""
    ledger = Ledger()
    stamps = [Stamp((0, t), t, t, t, t == 0, False) for t in range(3)]
    for stamp in stamps:
        ledger.sent(stamp)
    shown = [*ledger.shown(stamps[0], FakeFrame()), *ledger.shown(stamps[2], FakeFrame()), *ledger.ended()]  # type: ignore[arg-type]
    assert [picture.stamp.pts for picture in shown] == [0, 2]
    assert all(picture.problem is None for picture in shown)


def test_what_leads_into_a_stream_cut_before_its_key_frame_is_not_shown() -> None:
    ledger = Ledger()
    lead, key = Stamp((0, 0), 0, 0, 0, False, False), Stamp((0, 1), 1, 1, 1, True, False)
    ledger.sent(lead)
    ledger.refused(lead)
    ledger.sent(key)
    assert [picture.stamp for picture in ledger.shown(key, FakeFrame())] == [key]  # type: ignore[arg-type]


def test_a_picture_that_comes_after_its_place_was_filled_is_left_out() -> None:
    """A damaged header can make the decoder forget the display order."""
    ledger = Ledger()
    stamps = [Stamp((0, t), t, t, t, t == 0, t == 1) for t in range(3)]
    for stamp in stamps:
        ledger.sent(stamp)
    shown = [picture for t in (0, 2, 1) for picture in ledger.shown(stamps[t], FakeFrame())]  # type: ignore[arg-type]
    assert [(picture.stamp.pts, picture.problem is None) for picture in shown] == [(0, True), (1, False), (2, False)]


def test_joined_streams_are_ordered_by_run() -> None:
    stamper = Stamper()
    stamps = [stamper.stamp(FakePacket(pts, dts)) for pts, dts in ((5, 1), (6, 2), (5, 1), (None, 2))]  # type: ignore[arg-type]
    assert [stamp.time for stamp in stamps] == [(0, 5), (0, 6), (1, 5), (1, 3)]
