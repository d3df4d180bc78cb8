"""What phrases say to a model that knows few words: "that tennis player in a red shirt" is "the person in red".

A small network makes something of every phrase, and is no less sure of what it makes of words that it never met. So
what it is asked for is put as it has learnt to be asked: a name that it knows, found by a thesaurus where it does not
know the one that is used (`thesaurus.toml`), with the colour, the place or the neighbour by which it tells things
apart. What else is said is passed over. A phrase that it understands as it is stays so.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache, cached_property
from importlib.resources import files
from pathlib import Path
from typing import Self

from x2roto.engine.deeds import phrased, told
from x2roto.engine.model_folder import find_model
from x2roto.errors import ModelError
from x2roto.prompt import Classes, Prompt, Question, Text

LEXICON = "lexicon.json"
LONGEST = 4  # parts of a word that has several
ALIKE = 0.7  # how alike words are of which one may be the other misspelt, as `difflib` counts it

RANKS = ("left", "leftmost", "right", "rightmost", "upper", "lower", "largest", "biggest", "smallest", "fastest")
BESIDE = ("behind", "in front of", "to the left of", "to the right of", "above", "below")
# What else people say for ranks and for where things are beside others.
_RANKED = {
    "top": "upper", "topmost": "upper", "highest": "upper", "bottom": "lower", "lowest": "lower",
    "left-hand": "left", "right-hand": "right", "tallest": "largest", "closest": "largest", "nearest": "largest",
    "foremost": "largest", "farthest": "smallest", "furthest": "smallest", "shortest": "smallest",
    "tiniest": "smallest", "quickest": "fastest",
}  # fmt: skip
_BESIDE = {
    "left of": "to the left of", "right of": "to the right of", "in back of": "behind", "over": "above",
    "on top of": "above", "under": "below", "underneath": "below", "beneath": "below",
}  # fmt: skip
_PLACES = {
    "left": "on the left", "right": "on the right", "top": "at the top", "bottom": "at the bottom",
    "middle": "in the middle", "center": "in the middle", "centre": "in the middle",
}  # fmt: skip
_FRAME = r"(?: of the (?:frame|picture|image|screen|shot|scene|video))?"
_PLACE = re.compile(
    r"(?:on|at|to|in|from) (?:(?:the|your|our|my|far|very|extreme|upper|lower|camera|screen) )*"
    rf"(?P<place>{'|'.join(_PLACES)})(?:[ -]hand)?(?: side)?{_FRAME}(?! of\b)(?:$| )"
)
_RANKED_AFTER = (
    (re.compile(rf"^(?:(?:who|that|which) )?(?:is|are) (?:the )?(?P<rank>{'|'.join((*RANKS, *_RANKED))})\b"), ""),
    (re.compile(r"\bin (?:the )?(?:very )?(?:front|foreground)\b(?! of)"), "largest"),
    (re.compile(r"\b(?:in|at) the (?:very )?(?:back|background|rear|distance)\b(?! of)"), "smallest"),
)
_SECOND = re.compile(r"second (?P<name>.+) from the (?P<side>left|right)")
# Questions about what things are or do, and not about one that has a name.
_TRAIT = re.compile(r"which of (?:these|those|them)\b|who is the only\b")
# Questions about all that is there.
_KIND = "clip|video|image|picture|photo|photograph|frame|shot|scene|footage|movie|still"
_MEDIA = rf"(?:the |this )?(?:whole |entire )?(?:{_KIND})"
_THERE = rf"(?: (?:here|(?:with)?in {_MEDIA}))"
_OVERVIEW = re.compile(
    rf"\b(?:describe|caption|summari[sz]e)(?: (?:the contents? of )?{_MEDIA})?(?: briefly)?$"
    rf"|\b(?:description|caption|summary|contents)(?: (?:of|for) {_MEDIA})?\b(?! of)"
    rf"|\bwhat (?:(?:things|objects) )?(?:do|can) (?:you|we|i) see{_THERE}?$"
    rf"|\bwhat(?: is|'s| can be)(?: (?:there|shown|visible|seen|found))?{_THERE}$"
    rf"|\bwhat (?:things|objects) (?:are|can be)(?: (?:there|shown|visible|seen|found))?{_THERE}?$"
    rf"|\bwhat does {_MEDIA} (?:show|contain|depict)$"
)
# What may stand before a name and says nothing of it here.
_POINTING = frozenset({
    "a", "all", "an", "any", "both", "each", "every", "her", "his", "its", "main", "my", "one", "only", "our",
    "single", "some", "that", "the", "their", "these", "this", "those", "your",
})  # fmt: skip
# What ends the part of a phrase that names the thing.
_JOINING = frozenset({
    "above", "across", "against", "alone", "along", "and", "are", "around", "as", "asleep", "at", "behind",
    "below", "beneath", "beside", "between", "by", "dressed", "for", "from", "has", "have", "having", "here",
    "holds", "in", "inside", "into", "is", "near", "next", "number", "of", "off", "on", "onto", "or", "out",
    "outside", "over", "that", "there", "through", "to", "together", "towards", "under", "underneath",
    "upside", "was", "wears", "were", "where", "which", "while", "who", "whose", "with", "without",
})  # fmt: skip
_WEARING = frozenset({"in", "wearing", "wears", "with", "has", "having", "is", "are"})
# What a number of things goes by: "a pair of shoes".
_SHARES = frozenset({
    "bunch", "couple", "crowd", "flock", "group", "herd", "lot", "pack", "pair", "piece", "pile", "row",
    "set", "slice", "stack", "team",
})  # fmt: skip
_PLURALS = (("men", "man"), ("ies", "y"), ("ves", "f"), ("ves", "fe"), ("es", ""), ("s", ""), ("'s", ""))
# Names that have no number, and those that are plurals always.
UNCOUNTED = frozenset({"clothing", "food", "bread", "cheese", "broccoli", "furniture", "footwear"})
PAIRS = frozenset({"scissors", "eyeglasses", "shorts", "trousers", "gloves"})
NUMBERS = {2: "two", 3: "three", 4: "four", 5: "five"}
_SKIN = frozenset({"black", "white", "brown", "yellow"})  # colours that are said of people and not of their clothes


@dataclass(frozen=True)
class Lexicon:
    """The words that a model has learnt. `names`: of things, each with its plural; `colours`; `people`: names of
    things whose colour is that of the clothes on their upper body, and `worn`: names of those."""

    names: Mapping[str, str]
    colours: frozenset[str]
    people: frozenset[str]
    worn: frozenset[str]

    @classmethod
    def read(cls, folder: Path) -> Self | None:
        """That of a model folder; None where it has none and any word may be known.

        Raises ModelError when it is damaged.
        """
        path = folder / LEXICON
        if not path.is_file():
            return None
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            return cls(dict(values["names"]), *(frozenset(values[key]) for key in ("colours", "people", "worn")))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ModelError(f"{path} is damaged: {error}; pull or convert the model again", path) from error

    def write(self, folder: Path) -> None:
        """As `read` takes it."""
        values = {
            "names": dict(self.names),
            **{key: sorted(getattr(self, key)) for key in ("colours", "people", "worn")},
        }
        (folder / LEXICON).write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")

    @cached_property
    def names_of(self) -> Mapping[str, str]:
        """Every word for a thing, and the name it is known by."""
        known = {plural: name for name, plural in self.names.items()} | {name: name for name in self.names}
        return {word: name for word, name in _thesaurus()["names"].items() if name in self.names} | known

    def told(self, names: Sequence[str]) -> str:
        """A sentence of things that go by names it knows: "A person, two cars and some food."."""
        parts = [counted(name, self.names[name], number) for name, number in Counter(names).items()]
        *before, last = parts
        said = f"{', '.join(before)} and {last}" if before else last
        return f"{said[0].upper()}{said[1:]}."

    @cached_property
    def colours_of(self) -> Mapping[str, str]:
        """Every word for a colour, and the colour it is known by."""
        others = {word: colour for word, colour in _thesaurus()["colours"].items() if colour in self.colours}
        return others | {colour: colour for colour in self.colours}

    @cached_property
    def understood(self) -> re.Pattern[str]:
        """Phrases and questions that need no other words, but for those of motion."""
        names, colours = _either((*self.names, *self.names.values())), _either(self.colours)
        one = rf"(?:{colours} )?{names}(?: in {colours})?"
        where = rf"{_either(tuple(_PLACES.values()))}|{_either(BESIDE)} the {one}"
        asked = (
            rf"(?:the )?(?:{_either(RANKS)} )?{one}(?: (?:{where}))?",
            rf"the (?:larger|smaller|largest|biggest|smallest) of the (?:two|three|four|five) {one}",
            rf"the second {one} from the (?:left|right)",
            rf"which (?:of the )?{one} is (?:the largest|the smallest|farthest to the (?:left|right)"
            rf"|not (?:dressed in )?{colours}|partly hidden by the {one})",
        )
        return re.compile("|".join(asked))


def _either(words: Sequence[str] | frozenset[str]) -> str:
    return "(?:" + "|".join(map(re.escape, sorted(words, key=len, reverse=True))) + ")"


@cache
def _thesaurus() -> Mapping[str, Mapping[str, str]]:
    """Of names and of colours, each word with what a small model may know it by."""
    text = (files("x2roto.engine") / "thesaurus.toml").read_text(encoding="utf-8")
    return {
        part: {" ".join(word.split()): known for known, words in rows.items() for word in words.split(",")}
        for part, rows in tomllib.loads(text).items()
    }


def counted(name: str, plural: str, number: int) -> str:
    """So many things of a name: "an apple", "two apples", "a pair of scissors", "some food"."""
    if name in UNCOUNTED:
        return f"some {name}"
    if number > 1:
        return f"{NUMBERS.get(number, 'several')} {plural}"
    return f"a pair of {name}" if name in PAIRS else f"{article(name)} {name}"


def article(phrase: str) -> str:
    """ "an" or "a", for what follows."""
    return "an" if phrase[0] in "aeiou" else "a"


# ---- phrases ----------------------------------------------------------------------------------------------------


def heard(phrase: str, lexicon: Lexicon) -> str | None:
    """What to look for in place of a phrase: itself where all of it is understood; None where what it names is not
    known under any name."""
    plain = _plain(phrase)
    if lexicon.understood.fullmatch(plain):
        return phrase
    if (motion := told(phrase)) is not None:
        who = heard(motion.who, lexicon)
        return phrase if who == motion.who else None if who is None else motion.of(who)
    return _reduced(plain, lexicon)


def heard_question(question: str, lexicon: Lexicon) -> str:
    """What to ask in place of a question, itself where it names nothing."""
    plain = _plain(question)
    if lexicon.understood.fullmatch(plain) or told(question) is not None:
        return heard(question, lexicon) or question
    phrase = phrased(plain)
    return question if phrase == plain or _TRAIT.match(plain) else heard(phrase, lexicon) or question


def asks_what_there_is(question: str) -> bool:
    """Whether a question is answered by naming what a clip shows."""
    return _OVERVIEW.search(_plain(question)) is not None


def heard_class(name: str, lexicon: Lexicon) -> str | None:
    """What to look for in place of the name of a class, None where that is not known."""
    said = heard(name, lexicon)
    return said if said is None or said == name else said.removeprefix("the ")


def _plain(phrase: str) -> str:
    return " ".join(re.sub(r"[^\w'’ -]", " ", phrase.casefold()).split())


@dataclass(frozen=True, slots=True)
class _Named:
    """What a phrase names: the name and what stands before it, as they are known. `rest`: the words after that."""

    lexicon: Lexicon
    name: str
    colour: str
    rank: str
    rest: tuple[str, ...]

    @property
    def thing(self) -> str:
        """The name with its colour."""
        if self.name not in self.lexicon.people:
            colour = self.colour or _colour_after(self.rest, self.lexicon)
            return f"{colour} {self.name}" if colour not in ("", self.name) else self.name
        own = "" if self.colour in _SKIN else self.colour
        colour = _colour_after(self.rest, self.lexicon) or own
        return f"{self.name} in {colour}" if colour else self.name


def _reduced(phrase: str, lexicon: Lexicon) -> str | None:
    """The phrase in words that are known."""
    if (second := _SECOND.search(phrase)) is not None:
        named = _named(second["name"].split(), lexicon)
        return None if named is None else f"the second {named.thing} from the {second['side']}"
    if (named := _named(phrase.split(), lexicon)) is None:
        return None
    rest = " ".join(named.rest)
    if where := _beside(rest, lexicon) or _place(rest):
        return f"the {named.thing} {where}"
    rank = named.rank or _ranked(rest)
    return f"the {rank} {named.thing}" if rank else f"the {named.thing}"


def _named(words: Sequence[str], lexicon: Lexicon) -> _Named | None:
    """What is named first, if it is known: the last of the words that stand together."""
    name, last, colour, rank, at = "", "", "", "", 0
    while at < len(words):
        word, more = words[at], at + 1 < len(words) and not _joins(words[at + 1], lexicon)
        step, known = _longest(words, at, lexicon.names_of)
        if _joins(word, lexicon):
            if last in _SHARES and word == "of":
                last = ""
            elif last or (colour and word in _JOINING):
                break
        elif word in lexicon.colours_of and step == 1 and (more or not known):
            colour = lexicon.colours_of[word]
        elif _RANKED.get(word, word) in RANKS and step == 1 and (more or last):
            if words[at + 1 : at + 2] == ["of"]:
                break
            rank = _RANKED.get(word, word)
        elif known:
            name = last = known
            at += step - 1
        elif word not in _POINTING and not word.isdigit():
            last = word
        at += 1
    return _Named(lexicon, name, colour, rank, tuple(words[at:])) if name and name == last else None


def _joins(word: str, lexicon: Lexicon) -> bool:
    """Whether what names a thing ends before this word, unless it stands before the name: "riding", "seated"."""
    told = word.endswith(("ing", "ed")) and word not in lexicon.names_of and word not in lexicon.colours_of
    return word in _JOINING or told


def _colour_after(rest: Sequence[str], lexicon: Lexicon) -> str:
    """The colour that is said of a thing after its name: its own, or that of what it wears."""
    wears, colour = False, ""
    for at, word in enumerate(rest):
        if _joins(word, lexicon):
            if colour:
                break
            wears = word in _WEARING
        elif wears and not colour and word in lexicon.colours_of:
            colour = lexicon.colours_of[word]
        elif (name := _longest(rest, at, lexicon.names_of)[1]) and name not in lexicon.worn:
            # What it holds or rides is of that colour.
            return ""
    return colour


def _beside(rest: str, lexicon: Lexicon) -> str:
    """Where it is beside another thing that is known."""
    found = re.search(rf"(?:^| )(?P<how>{_either((*BESIDE, *_BESIDE))}) (?P<what>.+)", rest)
    other = found and _named(found["what"].split(), lexicon)
    return f"{_BESIDE.get(found['how'], found['how'])} the {other.thing}" if found and other else ""


def _ranked(rest: str) -> str:
    """Which of several it is."""
    for pattern, rank in _RANKED_AFTER:
        if (found := pattern.search(rest)) is not None:
            return rank or _RANKED.get(found["rank"], found["rank"])
    return ""


def _place(rest: str) -> str:
    """Where in the frame it is."""
    found = _PLACE.search(rest)
    return _PLACES[found["place"]] if found else ""


def _longest(words: Sequence[str], at: int, names: Mapping[str, str]) -> tuple[int, str]:
    """The most words from a place that are a name together: their number and the known name, 1 and "" for none."""
    for length in range(min(LONGEST, len(words) - at), 0, -1):
        for word in _singulars(" ".join(words[at : at + length])):
            if word in names:
                return length, names[word]
    return 1, ""


def _singulars(word: str) -> Iterator[str]:
    """The word, and what it may be the plural of."""
    yield word
    for end, instead in _PLURALS:
        if word.endswith(end):
            yield word.removesuffix(end) + instead


# ---- prompts ----------------------------------------------------------------------------------------------------


def readings(prompt: Prompt, lexicon: Lexicon | None) -> Iterator[tuple[str, str | None]]:
    """What a prompt says of each thing in words, and what to look for instead; None where that is not known."""
    said: Mapping[str, Callable[[str, Lexicon], str | None]] = {}
    match prompt:
        case Text():
            said = {prompt.text: heard}
        case Question():
            said = {prompt.text: heard_question}
        case Classes():
            said = dict.fromkeys((*prompt.things, *prompt.stuff), heard_class)
    for words, hear in said.items():
        yield words, words if lexicon is None else hear(words, lexicon)


def notes(prompts: Sequence[Prompt], lexicon: Lexicon | None) -> list[str]:
    """A line on each thing that is looked for in other words than were said."""
    if lexicon is None:
        return []
    return [
        _note(said, understood, lexicon)
        for prompt in prompts
        for said, understood in readings(prompt, lexicon)
        if understood is None or _bare(understood) != _bare(said)
    ]


def notes_on(model: str | Path | None, prompts: Sequence[Prompt]) -> list[str]:
    """The same for the words of a model that is named as `find_model` has it. Raises ModelError."""
    return notes(prompts, Lexicon.read(find_model(model)))


def _note(said: str, understood: str | None, lexicon: Lexicon) -> str:
    if understood is not None:
        return f"the model knows few words and reads {said!r} as {understood!r}"
    telling = [word for word in _plain(said).split() if word not in _POINTING | _JOINING]
    spelt = [name for word in telling for name in get_close_matches(word, lexicon.names_of, 1, ALIKE)]
    such = f" (did you mean {spelt[-1]!r}?)" if spelt else ""
    return f"the model has not learnt what {said!r} is and finds nothing{such}: use another word, or draw a box"


def _bare(phrase: str) -> str:
    return re.sub(r"^(?:the|an?) ", "", _plain(phrase))
