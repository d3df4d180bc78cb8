"""An independent judge of what is said of a clip. It never sees the scene or how the words were made.

It reads the English text, the masks of every frame and the attribute table, works out on its own which things the
words fit, and reports what is false or ambiguous. It shares with the writer only the labels and the word lists.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from x2roto.train.footage.vocabulary import COLOURS, QUESTIONS, Label, kinds, nouns, plural

Masks = NDArray[np.bool_]
_COUNTS = {"two": 2, "three": 3, "four": 4, "five": 5}
_COLOUR = "|".join(COLOURS)


@dataclass(frozen=True, slots=True, eq=False)
class Truth:
    """What the judge may know: `masks` and `whole` (n, T, H, W), seen and as if nothing were in front; one label
    each; `holds`: names that something unlabelled in the backdrop may go by, `held_traits`: what it may do.
    """

    masks: Masks
    whole: Masks
    labels: Sequence[Label]
    holds: frozenset[str]
    held_traits: frozenset[str]


@dataclass(frozen=True, slots=True)
class _Fit:
    certain: list[int]
    possible: list[int]
    backdrop: bool


class Judge:
    """The judge of one clip. Each verdict is the list of what is wrong; an empty one means true and unique."""

    def __init__(self, truth: Truth) -> None:
        self.truth = truth
        self.area, self.x, self.y = _centres(truth.masks)
        self.whole = truth.whole.sum((2, 3))

    def faults(self, text: str, actors: Sequence[int]) -> Iterator[str]:
        """What is wrong with `text` as a description of exactly `actors` (one, or none for an absent thing)."""
        fitting = self.fitting(text)
        if fitting is None:
            yield f"{text!r}: not understood"
            return
        if fitting.backdrop:
            yield f"{text!r}: something in the backdrop may fit"
        if sorted(fitting.certain) != sorted(actors):
            yield f"{text!r}: fits {sorted(fitting.certain)}, not {sorted(actors)}"
        if sorted(fitting.possible) != sorted(actors):
            yield f"{text!r}: may fit {sorted(fitting.possible)}, not only {sorted(actors)}"

    def class_faults(self, names: Sequence[str], actors: Sequence[Sequence[int]]) -> Iterator[str]:
        """What is wrong with a class list: every thing of a class is listed under it, and under one class only."""
        for name, members in zip(names, actors, strict=True):
            sure = [k for k, label in enumerate(self.truth.labels) if name in label.nouns]
            perhaps = [k for k, label in enumerate(self.truth.labels) if name in label.maybe_nouns]
            if sure != sorted(members) or perhaps or name in self.truth.holds:
                yield f"class {name!r}: {sure} and perhaps {perhaps}, not {sorted(members)}"
        listed = [k for members in actors for k in members]
        if len(listed) != len(set(listed)):
            yield "a thing is listed under two classes"

    def phrase_faults(self, phrase: str, rest: str, actors: Sequence[int]) -> Iterator[str]:
        """What is wrong with a caption's `phrase` for `actors`; `rest` is what follows it up to the next phrase."""
        found = re.fullmatch(
            r"(?:a pair of|a|an|some|(?P<count>two|three|four|five|several)) (?P<what>.+)", phrase.lower().strip()
        )
        if not found:
            yield f"caption {phrase!r}: not understood"
            return
        certain, _, _ = self.noun_phrase(found["what"]) or ([], [], False)
        if not set(actors) <= set(certain):
            yield f"caption {phrase!r}: {sorted(actors)} do not all fit"
        if found["count"] in _COUNTS and len(actors) != _COUNTS[found["count"]]:
            yield f"caption {phrase!r}: {len(actors)} of them"
        deed = rest.strip(" ,.").removesuffix("and").strip()
        if deed and not all(self.does(k, deed) for k in actors):
            yield f"caption {phrase!r}: not {deed!r}"

    # ---- reading

    def fitting(self, text: str) -> _Fit | None:
        """What `text` fits; None when it is not understood."""
        trait = next((key for key, wordings in QUESTIONS.items() if text in wordings), None)
        if trait:
            sure = [k for k, label in self._seen() if trait in label.traits]
            perhaps = [k for k, label in self._seen() if trait in label.traits | label.maybe_traits]
            return _Fit(sure, perhaps, trait in self.truth.held_traits)
        for pattern, read in _GRAMMAR.items():
            found = re.fullmatch(pattern, text)
            if found:
                fit = read(self, **found.groupdict())
                if fit is not None:
                    return fit
        return None

    def _seen(self) -> list[tuple[int, Label]]:
        return [(k, label) for k, label in enumerate(self.truth.labels) if self.area[k].any()]

    def noun_phrase(self, words: str) -> tuple[list[int], list[int], bool] | None:
        """Things that certainly and possibly are "red car", "man in red", "cars"; whether the backdrop may be."""
        found = re.fullmatch(rf"(?:(?P<first>{_COLOUR}) )?(?P<noun>.+?)(?: in (?P<last>{_COLOUR}))?", words)
        readings = [(found["first"] or found["last"], found["noun"])] if found else []
        for colour, noun in [*readings, (None, words)]:
            single = _singulars().get(noun)
            if single is None:
                continue
            sure = [
                k for k, label in self._seen() if single in label.nouns and (not colour or colour in label.colours)
            ]
            perhaps = [
                k
                for k, label in self._seen()
                if single in {*label.nouns, *label.maybe_nouns}
                and (not colour or colour in label.colours | label.maybe_colours)
            ]
            return sure, perhaps, single in self.truth.holds
        return None

    # ---- facts, as anyone would see them

    def common(self, k: int, j: int) -> NDArray[np.bool_]:
        return np.asarray((self.area[k] > 0) & (self.area[j] > 0))

    def before(self, k: int, j: int, where: NDArray[np.float64]) -> bool:
        """Whether k comes first along `where` in every frame that shows both clearly."""
        both = self.common(k, j)
        return bool(both.any() and (where[k, both] < where[j, both]).all())

    def larger(self, k: int, j: int) -> bool:
        both = self.common(k, j)
        return bool(both.any() and (self.area[k, both].sum() > 1.15 * self.area[j, both].sum()))

    def speed(self, k: int) -> float:
        shown = np.flatnonzero(self.area[k])
        if len(shown) < 2:
            return 0.0
        return float(np.hypot(np.diff(self.x[k, shown]), np.diff(self.y[k, shown])).mean())

    def does(self, k: int, deed: str) -> bool:
        """Whether thing k does what the words say."""
        inside = self.whole[k] > 0
        shown = np.flatnonzero(self.area[k])
        dx, dy = (where[k, shown[-1]] - where[k, shown[0]] if len(shown) else 0.0 for where in (self.x, self.y))
        match deed:
            case "that leaves the frame" | "leaving the picture" | "leaving the frame" | "goes out of the frame":
                return bool(self.area[k, 0] and inside.any() and not inside[-1])
            case (
                "that enters the frame" | "coming into the picture" | "entering the frame" | "was not there at first"
            ):
                return bool(not inside[0] and self.area[k, -1])
            case "that leaves the frame and comes back":
                return bool(self.area[k, 0] and self.area[k, -1] and not inside.all())
            case "that stays still" | "standing still":
                still = len(shown) and max(np.ptp(self.x[k, shown]), np.ptp(self.y[k, shown])) < 0.04
                return bool(still and len(shown) == len(inside))
            case "moving to the left":
                return bool(dx < -0.06)
            case "moving to the right":
                return bool(dx > 0.06)
            case "moving up":
                return bool(dy < -0.06)
            case "moving down":
                return bool(dy > 0.06)
        return False

    def hidden_by(self, k: int, j: int) -> bool:
        """Whether j is seen where k would be, on more than a sliver."""
        overlap = self.truth.whole[k] & ~self.truth.masks[k] & self.truth.masks[j]
        return bool((overlap.sum((1, 2)) > 0.02 * np.maximum(self.whole[k], 1)).any())

    def related(self, k: int, words: str, j: int) -> bool:
        match words:
            case "behind":
                return self.hidden_by(k, j)
            case "in front of":
                return self.hidden_by(j, k)
            case "to the left of":
                return self.before(k, j, self.x)
            case "to the right of":
                return self.before(j, k, self.x)
            case "above":
                return self.before(k, j, self.y)
            case "below":
                return self.before(j, k, self.y)
        return False


@cache
def _singulars() -> Mapping[str, str]:
    """Every known name, by itself and by its plural."""
    known = [*nouns(), *kinds()]
    return {plural(noun): noun for noun in known} | {noun: noun for noun in known}


def _centres(masks: Masks) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Areas in pixels and mean columns and rows as shares; -1 where nothing is seen."""
    height, width = masks.shape[2:]
    area = masks.sum((2, 3))
    columns = (masks.sum(2) * np.arange(width)).sum(2) / np.maximum(area, 1) / width
    rows = (masks.sum(3) * np.arange(height)).sum(2) / np.maximum(area, 1) / height
    return area, np.where(area > 0, columns, -1.0), np.where(area > 0, rows, -1.0)


# ---- grammar ----------------------------------------------------------------------------------------------


def _bare(judge: Judge, what: str) -> _Fit | None:
    found = judge.noun_phrase(what)
    return _Fit(*found) if found else None


def _narrowed(judge: Judge, what: str, fits: Callable[[int], bool]) -> _Fit | None:
    """Those of a noun phrase that also do or are something."""
    found = judge.noun_phrase(what)
    if found is None:
        return None
    sure, perhaps, backdrop = found
    return _Fit([k for k in sure if fits(k)], [k for k in perhaps if fits(k)], backdrop)


def _best(judge: Judge, what: str, beats: Callable[[int, int], bool], count: int | None = None) -> _Fit | None:
    """The one of several that beats all others."""
    found = judge.noun_phrase(what)
    if found is None:
        return None
    sure, perhaps, backdrop = found
    if len(perhaps) < 2 or (count is not None and (len(sure) != count or len(perhaps) != count)):
        return _Fit([], [], backdrop)
    winners = [k for k in perhaps if all(beats(k, j) for j in perhaps if j != k)]
    return _Fit([k for k in winners if k in sure], winners, backdrop)


def _order(judge: Judge, word: str) -> Callable[[int, int], bool]:
    side = word.removesuffix("most")
    where = judge.x if side in ("left", "right") else judge.y
    if side in ("left", "upper", "top"):
        return lambda k, j: judge.before(k, j, where)
    return lambda k, j: judge.before(j, k, where)


def _size(judge: Judge, word: str) -> Callable[[int, int], bool]:
    if word.startswith(("larg", "big")):
        return judge.larger
    return lambda k, j: judge.larger(j, k)


def _row(judge: Judge, what: str, place: int, of: int | None = None) -> _Fit | None:
    """The one with exactly `place` others to its left (to its right when negative, from -1)."""
    found = judge.noun_phrase(what)
    if found is None:
        return None
    sure, perhaps, backdrop = found
    if of is not None and len(perhaps) != of:
        return _Fit([], [], backdrop)
    before = {k: [judge.before(j, k, judge.x) for j in perhaps if j != k] for k in perhaps}
    after = {k: [judge.before(k, j, judge.x) for j in perhaps if j != k] for k in perhaps}
    side = before if place >= 0 else after
    chosen = [k for k in perhaps if sum(side[k]) == (place if place >= 0 else -place - 1)]
    return _Fit([k for k in chosen if k in sure], chosen, backdrop)


def _relative(judge: Judge, what: str, words: str, other: str) -> _Fit | None:
    found, anchors = judge.noun_phrase(what), judge.noun_phrase(other)
    if found is None or anchors is None:
        return None
    sure_anchor, possible_anchor, held = anchors
    if len(sure_anchor) != 1 or len(possible_anchor) != 1:
        return _Fit([], [], True)
    j = sure_anchor[0]
    fit = _narrowed(judge, what, lambda k: k != j and judge.related(k, words, j))
    return fit and _Fit(fit.certain, fit.possible, fit.backdrop or held)


def _unlike(judge: Judge, what: str, colour: str) -> _Fit | None:
    found = judge.noun_phrase(what)
    if found is None:
        return None
    sure, perhaps, backdrop = found
    labels = judge.truth.labels
    surely_not = [k for k in sure if colour not in labels[k].colours | labels[k].maybe_colours]
    perhaps_not = [k for k in perhaps if colour not in labels[k].colours]
    return _Fit(surely_not, perhaps_not, backdrop)


_SIDE = "left|right|leftmost|rightmost|upper|lower"
_DEED = (
    "that leaves the frame and comes back|that leaves the frame|leaving the picture|that enters the frame|"
    "coming into the picture|that stays still|moving to the left|moving to the right|moving up|moving down"
)
_RELATION = "behind|in front of|to the left of|to the right of|above|below"

# Tried in order; the first that can be read is what the text means.
_GRAMMAR: Mapping[str, Callable[..., _Fit | None]] = {
    r"the (?P<word>larger|smaller) of the two (?P<what>.+)": lambda judge, word, what: _best(
        judge, what, _size(judge, word), 2
    ),
    r"the (?P<word>largest|biggest|smallest) of the (?P<n>two|three|four|five) (?P<what>.+)": (
        lambda judge, word, n, what: _best(judge, what, _size(judge, word), _COUNTS[n])
    ),
    r"the second (?P<what>.+) from the left": lambda judge, what: _row(judge, what, 1),
    r"the second (?P<what>.+) from the right": lambda judge, what: _row(judge, what, -2),
    r"the (?P<what>.+) in the middle": lambda judge, what: _row(judge, what, 1, 3),
    rf"the (?P<word>{_SIDE}) (?P<what>.+)": lambda judge, word, what: _best(judge, what, _order(judge, word)),
    r"the (?P<what>.+) (?:on the|at the) (?P<word>left|right|top|bottom)": lambda judge, what, word: _best(
        judge, what, _order(judge, word)
    ),
    r"the (?P<word>largest|biggest|smallest) (?P<what>.+)": lambda judge, word, what: _best(
        judge, what, _size(judge, word)
    ),
    r"the fastest (?P<what>.+)": lambda judge, what: _best(
        judge, what, lambda k, j: judge.speed(k) > 1.3 * judge.speed(j)
    ),
    rf"the (?P<what>.+?) (?P<deed>{_DEED})": lambda judge, what, deed: _narrowed(
        judge, what, lambda k: judge.does(k, deed)
    ),
    rf"the (?P<what>.+?) (?P<words>{_RELATION}) the (?P<other>.+)": _relative,
    r"the (?P<what>.+)": lambda judge, what: _bare(judge, what),
    r"Which (?P<what>.+) is the (?P<word>largest|smallest)\?": lambda judge, what, word: _best(
        judge, what, _size(judge, word)
    ),
    r"Which of the (?P<what>.+) is farthest to the (?P<word>left|right)\?": lambda judge, what, word: _best(
        judge, what, _order(judge, word)
    ),
    r"Which of the (?P<what>.+) moves the fastest\?": lambda judge, what: _best(
        judge, what, lambda k, j: judge.speed(k) > 1.3 * judge.speed(j)
    ),
    r"Which of the (?P<what>.+) (?P<deed>goes out of the frame)\?": lambda judge, what, deed: _narrowed(
        judge, what, lambda k: judge.does(k, deed)
    ),
    r"Which (?P<what>.+) (?P<deed>was not there at first)\?": lambda judge, what, deed: _narrowed(
        judge, what, lambda k: judge.does(k, deed)
    ),
    rf"Which of the (?P<what>.+) is not (?:dressed in )?(?P<colour>{_COLOUR})\?": lambda judge, what, colour: _unlike(
        judge, what, colour
    ),
    r"Which (?P<what>.+) is partly hidden by the (?P<other>.+)\?": lambda judge, what, other: _relative(
        judge, what, "behind", other
    ),
}
