"""Where the frames of a movie lie in time, from its packets alone: count, rate, key frames. Decodes nothing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

from x2roto.source.ledger import Stamp

STANDARD_RATES = (
    *(Fraction(rate * 1000, 1001) for rate in (24, 30, 60, 120)),
    *(Fraction(rate) for rate in (10, 12, 15, 24, 25, 30, 48, 50, 60, 100, 120)),
    Fraction(25, 2),
)
PLAUSIBLE_RATES = (Fraction(1), Fraction(240))

# Decoders that make exactly one picture of each packet; others have hidden or not-coded frames.
ONE_TO_ONE = frozenset(
    {"h264", "hevc", "vvc", "vp9", "libvpx-vp9", "av1", "libdav1d", "mpeg1video", "mpeg2video", "mjpeg"}
    | {"prores", "prores_raw", "dnxhd", "cfhd", "apv", "jpeg2000", "dvvideo", "v210", "v410", "r210"}
    | {"ffv1", "ffvhuff", "huffyuv", "utvideo", "magicyuv", "qtrle", "png", "rawvideo"}
)


@dataclass(frozen=True)
class Timeline:
    """The packets of a stream that make frames, in display order.

    `complete`: the whole stream was listed. `negative`: packets before time zero, which players do not show.
    """

    stamps: tuple[Stamp, ...]
    complete: bool
    negative: int

    @cached_property
    def seekable(self) -> bool:
        """Whether a position in it is a frame index for certain: one run, every time stated and different."""
        times = {stamp.pts for stamp in self.stamps}
        whole = None not in times and len(times) == len(self.stamps)
        return self.complete and whole and not any(stamp.time[0] or stamp.damaged for stamp in self.stamps)

    @cached_property
    def _keys(self) -> list[int]:
        return [index for index, stamp in enumerate(self.stamps) if stamp.key]

    def key_before(self, index: int) -> int | None:
        """The frame index of the last key frame shown at or before `index`; None when there is none."""
        return max((key for key in self._keys if key <= index), default=None)

    def settled(self, stamp: Stamp) -> bool:
        """Whether all before it is listed: of an unfinished list the last lack neighbours sent after them."""
        return self._reached is None or stamp.pts is None or stamp.pts <= self._reached

    @cached_property
    def _reached(self) -> int | None:
        times = (stamp.dts for stamp in self.stamps if stamp.dts is not None)
        return None if self.complete else max(times, default=None)

    def from_first(self, first: Stamp) -> Timeline:
        """The timeline without what leads into the first frame that decodes."""
        kept = tuple(stamp for stamp in self.stamps if stamp.time >= first.time)
        return Timeline(kept, self.complete, self.negative)


def timeline(stamps: Iterable[Stamp], complete: bool) -> Timeline:
    """The timeline of packets given in decode order."""
    listed = sorted(stamps, key=lambda stamp: stamp.time)
    shown = tuple(stamp for stamp in listed if not before_zero(stamp))
    return Timeline(shown, complete, len(listed) - len(shown))


def before_zero(stamp: Stamp) -> bool:
    """Whether a packet's picture lies before time zero (preroll of an edit), which players do not show."""
    return stamp.pts is not None and stamp.pts < 0


@dataclass(frozen=True, slots=True)
class Rate:
    """Frames per second, and whether every frame keeps to it."""

    rate: Fraction
    constant: bool


def rate_of(times: Sequence[Fraction], tick: Fraction, mean: Fraction | None = None) -> Rate:
    """The exact rate of frames shown at `times` (ascending seconds, known to `tick` seconds).

    The `mean` a container states if the times keep to it, else the nearest standard rate they keep to. Times
    that keep to neither are a variable rate, given as its mean.
    """
    plausible = mean if mean and PLAUSIBLE_RATES[0] <= mean <= PLAUSIBLE_RATES[1] else None
    fallback = plausible or _mean_rate(times)
    if len(times) < 2 or (plausible and _drift(times, plausible) <= tick):
        return Rate(fallback, True)
    drift, nearest = min((_drift(times, rate), rate) for rate in (*STANDARD_RATES, _mean_rate(times)))
    return Rate(nearest, True) if drift <= tick else Rate(fallback, False)


def _drift(times: Sequence[Fraction], rate: Fraction) -> Fraction:
    """The most any time is off an even spacing at `rate`, the spacing free to move."""
    off = [time - position / rate for position, time in enumerate(times)]
    return (max(off) - min(off)) / 2


def _mean_rate(times: Sequence[Fraction]) -> Fraction:
    if len(times) < 2 or times[-1] == times[0]:
        return Fraction(24)
    return Fraction(len(times) - 1) / (times[-1] - times[0])
