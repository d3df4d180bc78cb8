"""True and unique words for a filmed scene: expressions, questions, class lists, captions, and absent things.

Everything is decided in three values, 1 certainly, 0 perhaps, -1 certainly not, with margins, from the attribute
table and the survey. A description is used when it certainly fits its target and certainly nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
from numpy.typing import NDArray

from x2roto.engine.wording import NUMBERS, article, counted
from x2roto.train.footage.scene import Scene
from x2roto.train.footage.survey import Survey
from x2roto.train.footage.vocabulary import (
    COLOURS,
    QUESTIONS,
    Label,
    countable,
    names_known,
    nouns,
    plural,
    possible_traits,
)

Verdict = NDArray[np.int8]  # (n,) of 1, 0, -1

TARGET_AREA = 0.003  # share of the picture that a described thing covers at its best
PLACES: Mapping[str, tuple[str, ...]] = {
    "left": ("the left {}", "the {} on the left", "the leftmost {}"),
    "right": ("the right {}", "the {} on the right", "the rightmost {}"),
    "top": ("the upper {}", "the {} at the top"),
    "bottom": ("the lower {}", "the {} at the bottom"),
}


@dataclass(frozen=True, slots=True)
class Expression:
    """Words for `actors`: one actor, or none when the words fit nothing in the clip."""

    text: str
    actors: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Phrase:
    """A piece `start:stop` of a caption, and the actors it stands for."""

    start: int
    stop: int
    actors: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Caption:
    text: str
    phrases: tuple[Phrase, ...]


@dataclass(frozen=True, slots=True)
class ClassList:
    """Names to tell apart, and the actors of each (none for an absent one)."""

    names: tuple[str, ...]
    actors: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class Language:
    """All that is said of a clip. `kinds`: names, with and without colours, and everything each fits. `elsewhere`:
    names that fit nothing; `absent`: phrases that do."""

    kinds: tuple[Expression, ...]
    elsewhere: tuple[str, ...]
    expressions: tuple[Expression, ...]
    questions: tuple[Expression, ...]
    absent: tuple[Expression, ...]
    classes: ClassList
    caption: Caption | None


def describe(scene: Scene, measured: Survey) -> Language:
    """The words for a scene, the same each time for the same scene and survey."""
    facts = Facts(scene, measured)
    rng = np.random.default_rng([*scene.seed, 11])
    expressions = tuple(_unique(facts, _expressions(facts)))
    return Language(
        kinds=tuple(_kinds(facts)),
        elsewhere=tuple(_elsewhere(facts, names_known())),
        expressions=expressions,
        questions=tuple(_unique(facts, _questions(facts))),
        absent=tuple(_absent(facts, rng)),
        classes=_class_list(facts, rng),
        caption=_caption(facts, rng),
    )


# ---- facts ------------------------------------------------------------------------------------------------


class Facts:
    """Three-valued verdicts on every actor."""

    def __init__(self, scene: Scene, measured: Survey) -> None:
        self.labels: tuple[Label, ...] = tuple(actor.label for actor in scene.actors)
        self.holds = scene.backdrop.holds
        self.held_traits = possible_traits(self.holds)
        self.survey, self.count, self.frames = measured, len(scene.actors), scene.frames
        self.steady = scene.camera.held
        self._events: dict[str, Verdict] = {}
        self._world_x = np.array([actor.x[::2] / scene.aspect for actor in scene.actors]).reshape(self.count, -1)
        self._world_y = np.array([actor.y[::2] for actor in scene.actors]).reshape(self.count, -1)
        self.plain: NDArray[np.bool_] = np.asarray(measured.area.max(1, initial=0) >= TARGET_AREA)
        self.present: NDArray[np.bool_] = np.asarray(measured.seen.any(1))

    def verdict(self, judge: Callable[[int], int]) -> Verdict:
        """`judge` on every actor; one that is barely seen is never certain, one never seen never counts."""
        values = [judge(k) if self.present[k] else -1 for k in range(self.count)]
        return np.minimum(np.array(values, np.int8), self.plain.astype(np.int8), dtype=np.int8)

    def related(self, relation: Callable[[int, int], int], anchor: int) -> Verdict:
        """`relation(k, anchor)` of everything but the anchor itself."""
        return self.verdict(lambda k: -1 if k == anchor else relation(k, anchor))

    def noun(self, noun: str) -> Verdict:
        return self.verdict(lambda k: 1 if self.labels[k].is_a(noun) else 0 if self.labels[k].may_be_a(noun) else -1)

    def colour(self, colour: str) -> Verdict:
        return self.verdict(lambda k: _three(self.labels[k].colours, self.labels[k].maybe_colours, colour))

    def trait(self, trait: str) -> Verdict:
        return self.verdict(lambda k: _three(self.labels[k].traits, self.labels[k].maybe_traits, trait))

    # ---- comparisons among candidates: those that may be meant

    def compared(self, base: Verdict, measure: Callable[[int, int], int]) -> Verdict:
        """1 where `measure(k, other)` is 1 for every other candidate, -1 where it is -1 for a certain one."""
        group = np.flatnonzero(base >= 0)

        def judge(k: int) -> int:
            against = [(measure(k, int(j)), base[j]) for j in group if j != k]
            if any(value == -1 and sure == 1 for value, sure in against):
                return -1
            return 1 if against and all(value == 1 for value, _ in against) else 0

        return np.minimum(base, self.verdict(judge))

    def left_of(self, k: int, j: int, margin: float = 0.05) -> int:
        return self._ordered(self.survey.x[j] - self.survey.x[k], margin)

    def above(self, k: int, j: int) -> int:
        return self._ordered(self.survey.y[j] - self.survey.y[k], 0.1)

    def larger(self, k: int, j: int) -> int:
        common = self._common(k, j)
        if not common.any():
            return 0
        seen = self.survey.area[k, common] / self.survey.area[j, common]
        whole = self.survey.whole[k, common] / np.maximum(self.survey.whole[j, common], 1e-6)
        both = np.concatenate([seen, whole])
        return 1 if both.min() > 1.4 else -1 if both.max() < 1 / 1.4 else 0

    def faster(self, k: int, j: int) -> int:
        mine, theirs = self._pace(k), self._pace(j)
        if not self.steady or np.isnan(mine + theirs):
            return 0
        return _clearly(mine, theirs) - _clearly(theirs, mine)

    def _pace(self, k: int) -> float:
        if not self.survey.seen[k].all():
            return float("nan")
        return (
            float(np.hypot(np.diff(self.survey.x[k]), np.diff(self.survey.y[k])).mean()) if self.frames > 1 else 0.0
        )

    def _common(self, k: int, j: int) -> NDArray[np.bool_]:
        return np.asarray(self.survey.seen[k] & self.survey.seen[j])

    def _ordered(self, gap: NDArray[np.float32], margin: float) -> int:
        known = gap[~np.isnan(gap)]
        if not len(known):
            return 0
        return 1 if known.min() > margin else -1 if known.max() < -margin else 0

    # ---- events

    def event(self, deed: str) -> Verdict:
        """Who does it; `deed` is a key of `_DEEDS`."""
        if deed not in self._events:
            self._events[deed] = self.verdict(lambda k: _DEEDS[deed](self, k))
        return self._events[deed]

    @cached_property
    def bases(self) -> tuple[_Base, ...]:
        """What things may be called, bare and in colour."""
        return tuple(_bases(self))

    def leaves(self, k: int) -> int:
        whole = self.survey.whole[k]
        inside = whole > 0
        if inside[-1] and self._lasting(k):
            return -1
        first_gap = int(np.argmin(inside)) if not inside.all() else len(inside)
        gone = inside[:first_gap].all() and not inside[first_gap:].any() and 0 < first_gap < len(inside)
        return 1 if gone and self.survey.area[k, 0] >= TARGET_AREA and self._fades(k, first_gap) else 0

    def enters(self, k: int) -> int:
        inside = self.survey.whole[k] > 0
        if inside[0] and self._lasting(k):
            return -1
        start = int(np.argmax(inside))
        come = not inside[:start].any() and inside[start:].all() and start > 0
        return 1 if come and self.survey.area[k, -1] >= TARGET_AREA else 0

    def returns(self, k: int) -> int:
        inside = self.survey.whole[k] > 0
        runs = np.diff(np.concatenate([[0], inside.astype(np.int8), [0]]))
        parts = int((runs == 1).sum())
        shown = self.survey.area[k, [0, -1]].min() >= TARGET_AREA
        return 1 if parts == 2 and shown else -1 if parts <= 1 and self._lasting(k) else 0

    def _lasting(self, k: int) -> bool:
        """Seen in every frame from its first to the last of the clip, or from the clip's first to its own last."""
        seen = self.survey.seen[k]
        return bool((np.diff(np.flatnonzero(seen)) == 1).all()) and bool(seen[0] or seen[-1])

    def _fades(self, k: int, gap: int) -> bool:
        """Whether nothing else hides it shortly before it is gone."""
        return bool(self.survey.covered[k, :, max(0, gap - 1)].sum() < 0.3)

    def heads(self, k: int, direction: str) -> int:
        """Whether it moves that way in the picture and in the world."""
        sign = -1 if direction in ("left", "up") else 1
        picture, world = (
            (self.survey.x, self._world_x) if direction in ("left", "right") else (self.survey.y, self._world_y)
        )
        seen = self.survey.seen[k]
        if seen.sum() < 2:
            return 0
        paths = [sign * (path[k][seen] - path[k][seen][0]) for path in (picture, world)]
        if all(path[-1] > 0.12 and np.diff(path).min(initial=0) > -0.02 for path in paths):
            return 1
        return -1 if all(path.max() < 0.025 for path in paths) else 0

    def rests(self, k: int) -> int:
        seen = self.survey.seen[k]
        if not self.steady or not seen.all():
            return 0
        spread = max(np.ptp(self.survey.x[k]), np.ptp(self.survey.y[k]))
        return 1 if spread < 0.02 and self.survey.covered[k].max() < 0.05 else -1 if spread > 0.1 else 0

    # ---- relations

    def behind(self, k: int, j: int) -> int:
        covered = self.survey.covered[k, j]
        pixels = covered * self.survey.whole[k]
        return 1 if ((covered > 0.1) & (pixels > 6e-4)).any() else -1 if pixels.max() <= 0 else 0

    def beside(self, k: int, j: int) -> int:
        """Left of it."""
        return self.left_of(k, j, 0.1)

    def over(self, k: int, j: int) -> int:
        aligned = np.abs(self.survey.x[k] - self.survey.x[j])
        near = np.nanmax(aligned) < 0.22 if not np.isnan(aligned).all() else False
        ordered = self.above(k, j)
        return ordered if ordered < 1 or near else 0


def _clearly(pace: float, other: float) -> int:
    return int(pace > 0.015 and pace > 2 * other + 0.004)


def _three(certain: frozenset[str], possible: frozenset[str], value: str) -> int:
    return 1 if value in certain else 0 if value in possible else -1


# ---- expressions ------------------------------------------------------------------------------------------

Candidate = tuple[str, Verdict]


def _unique(facts: Facts, candidates: Iterator[Candidate]) -> Iterator[Expression]:
    """The candidates that certainly fit one actor and certainly no other, each text once."""
    told = set()
    for text, verdict in candidates:
        if text not in told and (verdict == 1).sum() == 1 and (verdict == 0).sum() == 0:
            told.add(text)
            yield Expression(text, (int(np.argmax(verdict)),))


def _kinds(facts: Facts) -> Iterator[Expression]:
    """Names of which it is clear, for everything, whether they fit it."""
    for base in facts.bases:
        if (base.verdict == 1).any() and not (base.verdict == 0).any():
            yield Expression(base.singular, tuple(int(k) for k in np.flatnonzero(base.verdict == 1)))


def _elsewhere(facts: Facts, names: Iterable[str]) -> list[str]:
    """Those that fit nothing here."""
    return [name for name in names if name not in facts.holds and (facts.noun(name) == -1).all()]


@dataclass(frozen=True, slots=True)
class _Base:
    """A noun with or without a colour: "red car", "man in red". `singular` and `many` without article."""

    singular: str
    many: str
    verdict: Verdict
    counted: bool  # whether one says "a ..." of it


def _bases(facts: Facts) -> Iterator[_Base]:
    """Every noun some actor certainly has and the backdrop does not hold, bare and in every colour it comes in."""
    named = dict.fromkeys(noun for label in facts.labels for noun in label.nouns if noun not in facts.holds)
    for noun in named:
        verdict, counted = facts.noun(noun), countable(noun)
        yield _Base(noun, plural(noun), verdict, counted)
        fitting = [facts.labels[k] for k in np.flatnonzero(verdict == 1)]
        if len({label.dressed for label in fitting}) != 1:
            continue
        for colour in dict.fromkeys(c for label in fitting for c in sorted(label.colours)):
            both = np.minimum(verdict, facts.colour(colour)).astype(np.int8)
            if fitting[0].dressed:
                yield _Base(f"{noun} in {colour}", f"{plural(noun)} in {colour}", both, counted)
            elif colour != noun:
                yield _Base(f"{colour} {noun}", f"{colour} {plural(noun)}", both, counted)


def _expressions(facts: Facts) -> Iterator[Candidate]:
    bases = facts.bases
    anchors = list(_anchors(bases))
    for base in bases:
        yield f"the {base.singular}", base.verdict
        yield from _by_relation(facts, base, anchors)
        if base.counted:
            yield from _by_event(facts, base)
        if base.counted and (base.verdict == 1).sum() > 1:
            yield from _by_rank(facts, base)


def _anchors(bases: Sequence[_Base]) -> Iterator[tuple[str, int]]:
    """The shortest unique name of each actor that has one."""
    named = set()
    for base in sorted(bases, key=lambda base: len(base.singular.split())):
        k = int(np.argmax(base.verdict))
        if _lone(base.verdict) and k not in named:
            named.add(k)
            yield base.singular, k


def _lone(verdict: Verdict) -> bool:
    return bool((verdict == 1).sum() == 1 and (verdict == 0).sum() == 0)


def _by_rank(facts: Facts, base: _Base) -> Iterator[Candidate]:
    one, many = base.singular, base.many
    in_colour = " in " in one
    for words, measure in _orders(facts):
        verdict = facts.compared(base.verdict, measure)
        for word in words:
            yield word.format(one), verdict
    sure = int((base.verdict == 1).sum())
    number = sure if not (base.verdict == 0).any() and sure in NUMBERS else 0
    sizes = (("large", "big", facts.larger), ("small", "small", lambda k, j: facts.larger(j, k)))
    for first, second, measure in sizes:
        verdict = facts.compared(base.verdict, measure)
        superlatives = {"large": "largest", "big": "biggest", "small": "smallest"}
        for word in dict.fromkeys((first, second)):
            yield f"the {superlatives[word]} {one}", verdict
        if number == 2:
            yield f"the {first}r of the two {many}" if first == "large" else f"the smaller of the two {many}", verdict
        elif number:
            yield f"the {superlatives[first]} of the {NUMBERS[number]} {many}", verdict
    if not in_colour:
        yield f"the fastest {one}", facts.compared(base.verdict, facts.faster)
    if number >= 3:
        yield from _by_place_in_row(facts, base, number)


def _orders(facts: Facts) -> tuple[tuple[tuple[str, ...], Callable[[int, int], int]], ...]:
    return (
        (PLACES["left"], facts.left_of),
        (PLACES["right"], lambda k, j: facts.left_of(j, k)),
        (PLACES["top"], facts.above),
        (PLACES["bottom"], lambda k, j: facts.above(j, k)),
    )


def _by_place_in_row(facts: Facts, base: _Base, count: int) -> Iterator[Candidate]:
    """The middle one of three, the second from either side of more; only when the row is clear throughout."""
    group = [int(k) for k in np.flatnonzero(base.verdict == 1)]
    rank = {k: sum(facts.left_of(j, k) == 1 for j in group if j != k) for k in group}
    if sorted(rank.values()) != list(range(count)):
        return

    def at(place: int) -> Verdict:
        return np.array([1 if rank.get(k) == place else -1 for k in range(facts.count)], np.int8)

    if count == 3:
        yield f"the {base.singular} in the middle", at(1)
    else:
        yield f"the second {base.singular} from the left", at(1)
        yield f"the second {base.singular} from the right", at(count - 2)


def _by_event(facts: Facts, base: _Base) -> Iterator[Candidate]:
    if facts.frames < 2:
        return
    for deed, wordings in _TOLD_DEEDS.items():
        verdict = np.minimum(base.verdict, facts.event(deed))
        for wording in wordings:
            yield f"the {base.singular} {wording}", verdict


_DEEDS: Mapping[str, Callable[[Facts, int], int]] = {
    "leave": Facts.leaves,
    "enter": Facts.enters,
    "return": Facts.returns,
    "rest": Facts.rests,
    "left": partial(Facts.heads, direction="left"),
    "right": partial(Facts.heads, direction="right"),
    "up": partial(Facts.heads, direction="up"),
    "down": partial(Facts.heads, direction="down"),
}
_TOLD_DEEDS: Mapping[str, tuple[str, ...]] = {
    "leave": ("that leaves the frame", "leaving the picture"),
    "enter": ("that enters the frame", "coming into the picture"),
    "return": ("that leaves the frame and comes back",),
    "rest": ("that stays still",),
    "left": ("moving to the left",),
    "right": ("moving to the right",),
    "up": ("moving up",),
    "down": ("moving down",),
}


def _by_relation(facts: Facts, base: _Base, anchors: Sequence[tuple[str, int]]) -> Iterator[Candidate]:
    relations: tuple[tuple[str, Callable[[int, int], int]], ...] = (
        ("behind", facts.behind),
        ("in front of", lambda k, j: facts.behind(j, k)),
        ("to the left of", facts.beside),
        ("to the right of", lambda k, j: facts.left_of(j, k, 0.1)),
        ("above", facts.over),
        ("below", lambda k, j: facts.over(j, k)),
    )
    for anchor, j in anchors:
        if base.verdict[j] >= 0:
            continue
        for words, relation in relations:
            verdict = np.minimum(base.verdict, facts.related(relation, j))
            yield f"the {base.singular} {words} the {anchor}", verdict


# ---- questions --------------------------------------------------------------------------------------------


def _questions(facts: Facts) -> Iterator[Candidate]:
    for trait, wordings in QUESTIONS.items():
        if trait not in facts.held_traits:
            verdict = facts.trait(trait)
            for wording in wordings:
                yield wording, verdict
    bases = facts.bases
    anchors = list(_anchors(bases))
    for base in bases:
        if base.counted and (base.verdict == 1).sum() > 1 and (base.verdict == 0).sum() == 0:
            yield from _which(facts, base)
        yield from _which_hidden(facts, base, anchors)


def _which(facts: Facts, base: _Base) -> Iterator[Candidate]:
    one, many = base.singular, base.many
    size = facts.compared(base.verdict, facts.larger), facts.compared(base.verdict, lambda k, j: facts.larger(j, k))
    yield f"Which {one} is the largest?", size[0]
    yield f"Which {one} is the smallest?", size[1]
    yield f"Which of the {many} is farthest to the left?", facts.compared(base.verdict, facts.left_of)
    yield (
        f"Which of the {many} is farthest to the right?",
        facts.compared(base.verdict, lambda k, j: facts.left_of(j, k)),
    )
    if facts.frames > 1:
        yield f"Which of the {many} goes out of the frame?", np.minimum(base.verdict, facts.event("leave"))
        yield f"Which {one} was not there at first?", np.minimum(base.verdict, facts.event("enter"))
        yield f"Which of the {many} moves the fastest?", facts.compared(base.verdict, facts.faster)
    if " in " in one:
        return
    for colour in COLOURS:
        if not one.startswith(colour):
            other = np.minimum(base.verdict, -facts.colour(colour)).astype(np.int8)
            yield f"Which of the {many} is not {_coloured(facts, base, colour)}?", other


def _coloured(facts: Facts, base: _Base, colour: str) -> str:
    k = int(np.argmax(base.verdict))
    return f"dressed in {colour}" if facts.labels[k].dressed else colour


def _which_hidden(facts: Facts, base: _Base, anchors: Sequence[tuple[str, int]]) -> Iterator[Candidate]:
    for anchor, j in anchors:
        if base.counted and base.verdict[j] < 0:
            verdict = np.minimum(base.verdict, facts.related(facts.behind, j))
            yield f"Which {base.singular} is partly hidden by the {anchor}?", verdict


# ---- absent things ----------------------------------------------------------------------------------------


def _absent(facts: Facts, rng: np.random.Generator) -> Iterator[Expression]:
    """Phrases that fit nothing: other nouns, and other colours or deeds of nouns that are there."""
    for noun in rng.permutation(_elsewhere(facts, nouns()))[:3]:
        yield Expression(f"the {noun}", ())
    for base in facts.bases:
        for text, verdict in _unlike(facts, base, rng):
            if (verdict == -1).all():
                yield Expression(text, ())


def _unlike(facts: Facts, base: _Base, rng: np.random.Generator) -> Iterator[Candidate]:
    noun = base.singular
    if facts.frames > 1 and base.counted:
        yield f"the {noun} that leaves the frame", np.minimum(base.verdict, facts.event("leave"))
        yield f"the {noun} that enters the frame", np.minimum(base.verdict, facts.event("enter"))
    if noun not in nouns():
        return
    label = facts.labels[int(np.argmax(base.verdict))]
    colour = COLOURS[rng.integers(len(COLOURS))]
    if colour != noun and (base.verdict == 1).any():
        text = f"the {noun} in {colour}" if label.dressed else f"the {colour} {noun}"
        yield text, np.minimum(base.verdict, facts.colour(colour))


# ---- class lists ------------------------------------------------------------------------------------------


def _class_list(facts: Facts, rng: np.random.Generator) -> ClassList:
    """One name for each actor that has one nobody could give to another, and a few names of absent things."""
    chosen: dict[str, tuple[int, ...]] = {}
    for k in range(facts.count):
        fitting = [noun for noun in facts.labels[k].nouns if _listable(facts, noun, chosen)]
        if fitting and not any(k in actors for actors in chosen.values()):
            noun = fitting[int(rng.integers(len(fitting)))] if rng.random() < 0.3 else fitting[0]
            chosen[noun] = tuple(int(j) for j in np.flatnonzero([label.is_a(noun) for label in facts.labels]))
    absent = [noun for noun in nouns() if noun not in facts.holds and not _anyone(facts, noun)]
    for noun in rng.permutation(absent)[: rng.integers(1, 7)]:
        chosen[str(noun)] = ()
    order = rng.permutation(len(chosen))
    names = [list(chosen)[k] for k in order]
    return ClassList(tuple(names), tuple(chosen[name] for name in names))


def _anyone(facts: Facts, noun: str) -> bool:
    return any(label.may_be_a(noun) for label in facts.labels)


def _listable(facts: Facts, noun: str, chosen: dict[str, tuple[int, ...]]) -> bool:
    """Whether it is clear who is a `noun`, and none of them is listed under another name."""
    certain = {k for k, label in enumerate(facts.labels) if label.is_a(noun)}
    possible = {k for k, label in enumerate(facts.labels) if label.may_be_a(noun)}
    return noun not in facts.holds and certain == possible and not any(certain & set(a) for a in chosen.values())


# ---- captions ---------------------------------------------------------------------------------------------


def _caption(facts: Facts, rng: np.random.Generator) -> Caption | None:
    """One clause for each kind of thing, with what it does where that is clear; None when nothing can be named."""
    groups = [(names, actors) for names, actors in _groups_to_tell(facts)]
    if not groups:
        return None
    text, phrases = "", []
    for place, (noun, actors) in enumerate(groups):
        phrase = _noun_phrase(facts, noun, actors)
        lead = "" if not place else (" and " if place == len(groups) - 1 else ", ")
        start = len(text) + len(lead)
        text += f"{lead}{phrase}{_deed(facts, actors)}"
        phrases.append(Phrase(start, start + len(phrase), actors))
    return Caption(text[0].upper() + text[1:] + ".", tuple(phrases))


def _groups_to_tell(facts: Facts) -> list[tuple[str, tuple[int, ...]]]:
    """Narrowest clear noun of every plainly seen actor, with all that share it."""
    told: dict[str, tuple[int, ...]] = {}
    for k in range(facts.count):
        if any(k in actors for actors in told.values()):
            continue
        for noun in facts.labels[k].nouns:
            verdict = facts.noun(noun)
            members = tuple(int(j) for j in np.flatnonzero(verdict == 1))
            overlap = any(set(members) & set(actors) for actors in told.values())
            if noun not in facts.holds and k in members and not (verdict == 0).any() and not overlap:
                told[noun] = members
                break
    return list(told.items())


def _noun_phrase(facts: Facts, noun: str, actors: tuple[int, ...]) -> str:
    label = facts.labels[actors[0]]
    colours = sorted(label.colours) if len(actors) == 1 and countable(noun) else []
    if colours and label.dressed:
        return f"{article(noun)} {noun} in {colours[0]}"
    if colours and colours[0] != noun:
        return f"{article(colours[0])} {colours[0]} {noun}"
    return counted(noun, plural(noun), len(actors))


def _deed(facts: Facts, actors: tuple[int, ...]) -> str:
    """What a single thing does, where it is certain."""
    if len(actors) > 1 or facts.frames < 2:
        return ""
    deeds = {
        "leave": " leaving the frame",
        "enter": " entering the frame",
        "left": " moving to the left",
        "right": " moving to the right",
        "rest": " standing still",
    }
    return next((words for deed, words in deeds.items() if facts.event(deed)[actors[0]] == 1), "")
