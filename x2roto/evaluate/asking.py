"""Asks a model what a sample of a data set asks: all conditions in one turn, in the data set's own order.

`Segmenter.read` takes what a person types: classes sorted into things and stuff, regions that each mean one object,
one wording of questions. A data set fixes all of these itself.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import starmap

import numpy as np
from numpy.typing import NDArray

from x2roto.data.sample import Sample
from x2roto.engine.identity import Kind, Target
from x2roto.engine.segmenter import Reading, Rgb, Segmenter
from x2roto.engine.shot import Query
from x2roto.engine.tasks import PHRASE_END, PHRASE_START, TASKS, Task
from x2roto.evaluate.metrics.caption import answered_caption
from x2roto.prompt import Classes, Describe, MaskPrompt, Prompt, Question, Text, slug

Targets = Sequence[str | NDArray[np.bool_]]


@dataclass(frozen=True, slots=True)
class Answer:
    """What the model said: a caption without markup, and the phrase of each condition; nothing where forced."""

    caption: str = ""
    phrases: tuple[str, ...] = ()


def ask(
    segmenter: Segmenter,
    task: Task,
    prompts: Sequence[Prompt],
    glimpse: Sequence[Rgb],
    plates: Mapping[int | None, Rgb],
    reading: Reading,
) -> tuple[Query, Answer]:
    """The query of prompts that belong together, its conditions in their order.

    Raises PromptError for what cannot be asked or is answered without a mask, DeviceMemoryError.
    """
    query, said = segmenter.ask(task, prompts, glimpse, plates, reading)
    (targets,) = query.targets
    return query, Answer(answered_caption(said), tuple(phrases_in(said))[: len(targets)])


def phrases_in(text: str) -> Iterator[str]:
    """What stands between the i-th `<p>` and the i-th `</p>`."""
    starts, ends = ([match.end() for match in re.finditer(mark, text)] for mark in (PHRASE_START, PHRASE_END))
    for start, end in zip(starts, ends, strict=False):
        yield re.sub(r"<.*?>", "", text[start : end - len(PHRASE_END)]).strip()


def task_of(sample: Sample) -> Task:
    """The sample's task in the wording it was trained in: short reasoning requests are put into a question."""
    task = TASKS[sample.task]
    if sample.task == "reaseg" and {"short", "referring"} & set(sample.parts):
        return replace(task, wordings={"plain": task.wordings["phrase"]})
    return task


def prompts_of(sample: Sample, targets: Targets, frame: int) -> tuple[Prompt, ...]:
    """The request as prompts. `targets`: as those of a sample, regions lying on `frame`."""
    words = tuple(target for target in targets if isinstance(target, str))
    match TASKS[sample.task].postprocess:
        case "generic":
            return (Classes("classes", things=words),)
        case "grounded":
            return (Describe(),)
        case "referring" if sample.task == "reaseg":
            return tuple(Question(f"target{place}", text) for place, text in enumerate(words))
        case "referring":
            return tuple(Text(f"target{place}", text) for place, text in enumerate(words))
    regions = (target for target in targets if not isinstance(target, str))
    return tuple(MaskPrompt(f"target{place}", region, frame) for place, region in enumerate(regions))


def numbered(query: Query, kind: Kind, first: int = 0) -> Query:
    """The query with targets of that kind, named by the numbers of their conditions, which count from `first`."""
    return _retargeted(query, lambda place, target: replace(target, name=str(first + place), kind=kind))


def placed(query: Query, prompts: Sequence[Prompt]) -> Query:
    """The query of some of the prompts, or classes, with targets named by the numbers of these, as `numbered`."""
    each = [name for prompt in prompts for name in (prompt.things if isinstance(prompt, Classes) else (prompt.name,))]
    places = {slug(name): str(place) for place, name in enumerate(each)}
    return _retargeted(query, lambda _, target: replace(target, name=places[target.name]))


def _retargeted(query: Query, change: Callable[[int, Target], Target]) -> Query:
    """The query with what becomes of each target and its place among those of its set."""
    return replace(query, targets=tuple(tuple(starmap(change, enumerate(targets))) for targets in query.targets))


def unfollowed(query: Query) -> Query:
    """The query with nothing to link over time: its predictions are all that is wanted."""
    return replace(query, targets=tuple(() for _ in query.targets))
