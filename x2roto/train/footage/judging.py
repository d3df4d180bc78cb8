"""Every word said of many clips, put before the independent judge."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from x2roto.train.footage.evaluator import Judge, Truth
from x2roto.train.footage.language import Caption, Language, describe
from x2roto.train.footage.material import Material
from x2roto.train.footage.render import render_mattes
from x2roto.train.footage.scene import compose
from x2roto.train.footage.survey import survey
from x2roto.train.footage.vocabulary import possible_traits

LINES = 96  # height of the masks that words are found and judged on


@dataclass(frozen=True, slots=True)
class Judgement:
    """How much was said of a clip, and what of it is wrong."""

    statements: int
    faults: tuple[str, ...]


def judge(material: Material, seed: Sequence[int], *, frames: int, aspect: float) -> Judgement:
    """Films only the mattes of a seed's clip, describes it and has the description judged."""
    scene = compose(material, seed, frames=frames, aspect=aspect)
    rendered = render_mattes(scene, LINES, round(LINES * aspect))
    language = describe(scene, survey(rendered))
    labels = [actor.label for actor in scene.actors]
    holds = scene.backdrop.holds
    truth = Truth(rendered.masks, rendered.whole > 0.5, labels, holds, possible_traits(holds))
    said = (*language.expressions, *language.questions, *language.absent)
    phrases = len(language.caption.phrases) if language.caption else 0
    return Judgement(len(said) + len(language.classes.names) + phrases, tuple(_faults(Judge(truth), language)))


def _faults(judge: Judge, language: Language) -> Iterator[str]:
    for expression in (*language.expressions, *language.questions, *language.absent):
        yield from judge.faults(expression.text, expression.actors)
    yield from judge.class_faults(language.classes.names, language.classes.actors)
    if language.caption:
        yield from _caption_faults(judge, language.caption)


def _caption_faults(judge: Judge, caption: Caption) -> Iterator[str]:
    starts = [phrase.start for phrase in caption.phrases]
    for phrase, (_, following) in zip(caption.phrases, pairwise([*starts, len(caption.text)]), strict=True):
        words, rest = caption.text[phrase.start : phrase.stop], caption.text[phrase.stop : following]
        yield from judge.phrase_faults(words, rest, phrase.actors)
