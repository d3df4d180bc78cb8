"""What words tell of a thing's motion: "the man who leaves the frame", "the fastest car".

A finder looks at single frames, on which nothing moves. So what is left of such a phrase ("the man", "the car") is
looked for, everything that it could mean is followed over the frames looked at, and the course that fits the words
best tells which is meant.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray

from x2roto.matte import edges_of
from x2roto.prompt import Box

if TYPE_CHECKING:
    from x2roto.engine.finding import Thing

# Most things that are followed, and how sure of one the finder must be, as a share of its surest.
FOLLOWED = 5
LIKELY = 0.3
# Boxes that share this much of their union are about the same thing.
SAME = 0.3
# In sides of the frame: how far what moves one way may seem to move the other, since cameras go along with things;
# how far what stays still may move; and how far from frame to frame what moves must.
AGAINST, STILL, MOVING = 0.04, 0.1, 0.01
# How much of what leaves may still be there at the end, as a share of its largest box; how far its last box may be
# from a side of the frame, if not as far as it moved before.
LEFT, SIDE = 0.2, 0.02


@dataclass(frozen=True, slots=True)
class Course:
    """A thing on T frames. `edges_t4`: left, top, right and bottom in sides of the frame, nan where it is not."""

    edges_t4: NDArray[np.float64]

    @classmethod
    def of(cls, masks: Sequence[NDArray[np.bool_]]) -> Self:
        """The course of what has these masks (h, w)."""
        return cls(np.array([edges_of(mask) or (np.nan,) * 4 for mask in masks]))

    @property
    def seen_t(self) -> NDArray[np.bool_]:
        return ~np.isnan(self.edges_t4[:, 0])

    @property
    def spans(self) -> NDArray[np.float64]:
        """The area of its box (T,), 0 where it is not there."""
        wide, high = (self.edges_t4[:, 2:] - self.edges_t4[:, :2]).T
        return np.asarray(np.nan_to_num(wide * high))

    @property
    def places(self) -> NDArray[np.float64]:
        """The middle of it where it is there, x and y."""
        seen = self.edges_t4[self.seen_t]
        return (seen[:, :2] + seen[:, 2:]) / 2

    @property
    def ends_at_side(self) -> bool:
        """Whether it would reach a side of the frame if it went on from where it was last seen."""
        left, top, right, bottom = self.edges_t4[self.seen_t][-1]
        step = np.abs(np.diff(self.places[-2:], axis=0)).max(initial=SIDE)
        return bool(min(left, top, 1 - right, 1 - bottom) <= step)


# ---- what courses say -----------------------------------------------------------------------------------------

Deed = Callable[[Course], float]  # how well a course that is not empty fits, at least -1; below 0 it does not
NEVER = -1.0


def _towards(axis: int, sign: int) -> Deed:
    def fits(course: Course) -> float:
        first, *_, last = course.places[[0, -1], axis]
        return float(sign * (last - first)) + AGAINST

    return fits


def _leaves(course: Course) -> float:
    first, *_, last = course.spans
    if not first or not course.ends_at_side:
        return NEVER
    return float(LEFT - last / course.spans.max())


def _enters(course: Course) -> float:
    return _leaves(Course(course.edges_t4[::-1]))


def _returns(course: Course) -> float:
    first, *_, last = course.spans
    return float(LEFT - course.spans.min() / course.spans.max()) if first and last else NEVER


def _rests(course: Course) -> float:
    return STILL - float(np.ptp(course.places, axis=0).max())


def _moves(course: Course) -> float:
    steps = np.diff(course.places, axis=0)
    return float(np.hypot(*steps.T).mean()) - MOVING if len(steps) else NEVER


# ---- what words say -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Told:
    """A phrase taken apart: `who` is meant, without what is said of its motion, and that. `said`: the phrase, with {}
    for what is said to move, without its article."""

    who: str
    deed: Deed
    said: str

    @property
    def event(self) -> bool:
        """Whether it is something that may not happen at all: of a rank or a direction there is always a best."""
        return self.deed in (_leaves, _enters, _returns)

    def of(self, who: str) -> str:
        """The same said of another."""
        return self.said.format(who.removeprefix("the "))


_FRAME = r"(?:the )?(?:frame|picture|image|shot|scene|screen|view|video|clip)"
_GOES = (
    r"(?:mov(?:es?|ing)|go(?:es|ing)?|head(?:s|ing)?|walk(?:s|ing)?|run(?:s|ning)?|driv(?:es?|ing)|rid(?:es?|ing)"
    r"|fl(?:y|ies|ying)|swim(?:s|ming)?|sail(?:s|ing)?|roll(?:s|ing)?|slid(?:es?|ing)|drift(?:s|ing)?|com(?:es?|ing)"
    r"|travel(?:s|l?ing)?)"
)
_OUT = rf"(?:leav(?:es?|ing)|exit(?:s|ing)?|{_GOES} out of|disappear(?:s|ing)? from) {_FRAME}"
_IN = rf"(?:enter(?:s|ing)?|{_GOES} in(?:to)?|appear(?:s|ing)? in) {_FRAME}"
_BACK = rf"(?:com(?:es?|ing) back|return(?:s|ing)?)(?: (?:in)?to {_FRAME})?"
_STILL = r"(?:stay(?:s|ing)?|stand(?:s|ing)?|sit(?:s|ting)?|remain(?:s|ing)?) still|(?:do(?:es)? )?not mov(?:e|ing)"


def _going(side: str) -> str:
    return rf"{_GOES} (?:to(?:wards?)? )?(?:the )?{side}(?:wards?)?"


# What ends a phrase, and what it says; the first that fits.
_ENDINGS: tuple[tuple[str, Deed], ...] = (
    (rf"{_OUT} and {_BACK}", _returns),
    (_OUT, _leaves),
    (rf"{_IN}|(?:was|were) not there (?:at first|before)", _enters),
    (rf"{_going('left')}|{_GOES} from right to left", _towards(0, -1)),
    (rf"{_going('right')}|{_GOES} from left to right", _towards(0, 1)),
    (_going("up"), _towards(1, -1)),
    (_going("down"), _towards(1, 1)),
    (_STILL, _rests),
    (r"mov(?:es?|ing)(?: (?:the )?fastest)?", _moves),
)
_TOLD = (
    (re.compile(r"the fastest (?P<who>.+)"), _moves),
    *((re.compile(rf"(?:the |an? )?(?P<who>.+?) (?:(?:that|who|which) )?(?:is |are )?(?:{ending})"), deed)
      for ending, deed in _ENDINGS),
)  # fmt: skip
# How questions begin, and phrases that mean the same.
_ASKED = {
    "which of the ": "the ", "which ": "the ", "who ": "the person who ", "where is ": "", "where are ": "",
}  # fmt: skip


def phrased(question: str) -> str:
    """A question in small letters as a phrase that means the same; what is no such question stays."""
    for start, instead in _ASKED.items():
        if question.startswith(start):
            return instead + question.removeprefix(start)
    return question


def told(words: str) -> Told | None:
    """A phrase or question taken apart; None where it says nothing of motion that is known here."""
    phrase = phrased(" ".join(words.casefold().rstrip(" .?!").split()))
    for pattern, deed in _TOLD:
        if (match := pattern.fullmatch(phrase)) is not None:
            first, last = match.span("who")
            return Told(f"the {match['who']}", deed, f"{phrase[:first] or 'the '}{{}}{phrase[last:]}")
    return None


# ---- which is meant -----------------------------------------------------------------------------------------


def doing(
    deed: Deed, things: Sequence[Thing], frames: Sequence[int | None], follow: Callable[[Box], Course], *, sure: bool
) -> Box | None:
    """The box of the thing whose course fits best, where the finder is surest of it; None where none fits.

    `things`: all that could be meant, the surest first. `follow`: the course over `frames` of what is boxed. `sure`:
    that one of them does it is known, so that the best need not fit well.
    """
    fits = [(deed(course), box) for box, course in _followed(things, frames, follow)]
    fit, box = max(fits, key=lambda pair: pair[0], default=(NEVER, None))
    return box if fit >= 0 or (sure and fit > NEVER) else None


def _followed(
    things: Sequence[Thing], frames: Sequence[int | None], follow: Callable[[Box], Course]
) -> Iterator[tuple[Box, Course]]:
    """The surest, then the surest that is on no course so far, and so on; what has no course is passed over."""
    left = [thing.box for thing in things if thing.score >= LIKELY * things[0].score]
    for _ in range(FOLLOWED):
        if not left:
            return
        box, *others = left
        course = follow(box)
        if course.seen_t.any():
            yield box, course
        on = dict(zip(frames, course.edges_t4, strict=True))
        left = [other for other in others if not _shared(other, on[other.frame]) >= SAME]


def _shared(box: Box, edges_4: NDArray[np.float64]) -> float:
    """The share of their union that two boxes have in common, nan where one is nowhere."""
    first, second = np.array([[box.x0, box.y0, box.x1, box.y1], edges_4]).reshape(2, 2, 2)
    both = np.prod(np.maximum(np.minimum(first[1], second[1]) - np.maximum(first[0], second[0]), 0))
    return float(both / (np.prod(first[1] - first[0]) + np.prod(second[1] - second[0]) - both))
