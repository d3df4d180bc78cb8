"""Which decoded pictures can be trusted, from packets in decode order and pictures in display order.

A decoder hides damage: it invents pixels, drops a picture, or goes on predicting from a wrong one. So every
packet is tagged, the tag comes back on its picture, and after damage nothing is trusted until a key frame.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import av
    from av.video.stream import VideoStream

NOT_DECODABLE = "its data is damaged"
PREDICTED = "it is predicted from a damaged frame"
CONCEALED = "its data is damaged and the decoder invented the rest"


@dataclass(frozen=True, slots=True)
class Stamp:
    """One packet. `time` orders display: (run of rising decode times, pts or position); `order`: decode order."""

    time: tuple[int, int]
    order: int
    pts: int | None
    dts: int | None
    key: bool
    damaged: bool


@dataclass(frozen=True, slots=True)
class Picture:
    """One position of the clip in display order: a picture to use, or the reason there is none."""

    stamp: Stamp
    frame: av.VideoFrame | None
    problem: str | None = None


@dataclass(slots=True)
class Stamper:
    """Stamps packets in decode order. Decode time running backwards starts a new run (joined streams).

    `trusting`: believe a demuxer that calls a packet damaged.
    """

    trusting: bool = True
    order: int = 0
    run: int = 0
    last_dts: int | None = None

    def stamp(self, packet: av.Packet[VideoStream]) -> Stamp:
        """The next packet's stamp."""
        if packet.dts is not None:
            self.run += self.last_dts is not None and packet.dts < self.last_dts
            self.last_dts = packet.dts
        time = (self.run, self.order if packet.pts is None else packet.pts)
        damaged = packet.is_corrupt and self.trusting
        stamp = Stamp(time, self.order, packet.pts, packet.dts, packet.is_keyframe, damaged)
        self.order += 1
        return stamp


@dataclass(slots=True)
class Ledger:
    """Packets that wait for their picture, and the damage seen so far."""

    waiting: dict[int, Stamp] = field(default_factory=dict)
    keys: list[Stamp] = field(default_factory=list)
    failed: set[int] = field(default_factory=set)
    given_up: set[int] = field(default_factory=set)
    damage: list[int] = field(default_factory=list)  # decode orders, ascending

    def sent(self, stamp: Stamp) -> None:
        """A packet goes to the decoder."""
        self.waiting[stamp.order] = stamp
        if stamp.key:
            self.keys.append(stamp)
        if stamp.damaged:
            insort(self.damage, stamp.order)

    def refused(self, stamp: Stamp) -> None:
        """The decoder gave an error on this packet."""
        self.failed.add(stamp.order)
        insort(self.damage, stamp.order)

    def shown(self, stamp: Stamp, frame: av.VideoFrame) -> Iterator[Picture]:
        """The pictures up to and with this one; first those lost on the way."""
        if stamp.order in self.given_up:  # too late: its place has been filled
            return
        self.waiting.pop(stamp.order, None)
        yield from self._lost(before=stamp.time)
        if frame.is_corrupt or stamp.damaged:
            insort(self.damage, stamp.order)
            problem: str | None = CONCEALED
        else:
            problem = PREDICTED if self._spoiled(stamp) else None
        if problem is None or self._reachable(stamp):
            yield Picture(stamp, frame, problem)

    def ended(self) -> Iterator[Picture]:
        """What was lost at the end of the stream."""
        yield from self._lost(before=None)

    def _lost(self, before: tuple[int, int] | None) -> Iterator[Picture]:
        late = [stamp for stamp in self.waiting.values() if before is None or stamp.time < before]
        for stamp in sorted(late, key=lambda stamp: stamp.time):
            del self.waiting[stamp.order]
            # Without damage a packet may rightly have no picture: hidden references, frames not coded.
            if self._reachable(stamp) and (stamp.order in self.failed or self._spoiled(stamp)):
                self.given_up.add(stamp.order)
                yield Picture(stamp, None, NOT_DECODABLE)

    def _spoiled(self, stamp: Stamp) -> bool:
        """Whether the last damage before it in decode order reaches it: no key frame in between stands before it."""
        place = bisect_right(self.damage, stamp.order)
        if place == 0:
            return False
        damage = self.damage[place - 1]
        return not any(key.order > damage and _covers(key, stamp) for key in self.keys)

    def _reachable(self, stamp: Stamp) -> bool:
        """False for what leads into a stream cut before its first key frame: players do not show it either."""
        return any(_covers(key, stamp) for key in self.keys)


def _covers(key: Stamp, stamp: Stamp) -> bool:
    return key.order <= stamp.order and key.time <= stamp.time
