"""The tasks X2SAM was trained on, as data: what is asked, in which words, and what becomes of the masks.

One row serves images and videos alike: the medium is a word in the template. Templates are the exact trained
wording, spelling slips included; which one is used is fixed (index 0) unless a caller asks for another, so
equal input gives equal output. Source: wanghao9610/X2SAM@5b0b106
x2sam/x2sam/dataset/map_fns/dataset_map_fns/, where one is drawn at random even for inference.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from x2roto.errors import PromptError
from x2roto.prompt import Classes, Describe, Prompt, Question, Text

Media = Literal["image", "video"]
# phrase: a question asked with a noun phrase in place of a sentence.
# explained: a caption or an explanation comes before the mask.
Style = Literal["plain", "phrase", "explained"]
# prompt: one condition per target, all in one turn. shared: one turn per target, its phrase the only
# condition. answer: the phrases the model writes itself. none: no masks.
Conditions = Literal["prompt", "shared", "answer", "none"]
Postprocess = Literal["generic", "referring", "grounded", "regions", "interactive", "object", "text"]
Generic = Literal["panoptic", "instance", "semantic"]

SEG, PHRASE_START, PHRASE_END, REGION = "<SEG>", "<p>", "</p>", "<region>"
# Words that differ between the two media beyond the medium's own name.
_NOUNS: Mapping[Media, Mapping[str, str]] = {
    "image": {"media": "image", "the_media": "the this image", "picture": "picture", "photo": "photo"},
    "video": {"media": "video", "the_media": "this video", "picture": "video", "photo": "video"},
}


@dataclass(frozen=True, slots=True)
class Wording:
    """Question templates with `{targets}` and words of the medium; answers with `{text}` put first."""

    questions: tuple[str, ...]
    answers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Task:
    """One row. `id`: the reference's task name without `img_` or `vid_`.

    `tag`: how one target stands in the question; `clean`: what is done to its text first. `glimpse`: frames
    of a clip the language model sees. `postprocess`: how queries become masks (tasks spec, section 10).
    """

    id: str
    media: tuple[Media, ...]
    wordings: Mapping[Style, Wording]
    conditions: Conditions
    postprocess: Postprocess
    clean: Callable[[str], str] = str.strip
    tag: str = f"{PHRASE_START}{{}}{PHRASE_END}"
    glimpse: int = 16

    @property
    def single(self) -> bool:
        """Whether one region asks for one object."""
        return self.postprocess in ("interactive", "object")

    @property
    def generates(self) -> bool:
        """Whether the answer must come from the model; otherwise it is forced and one pass is enough."""
        return self.conditions in ("answer", "none")


# ---- clean-up ---------------------------------------------------------------------------------------------

_MARKUP = re.compile(r"<\|[^<>|]*\|>|</?p>|<SEG>|<(?:image|video|region)>")


def clean_text(text: str) -> str:
    """`text` stripped, case kept. Raises PromptError when empty or holding the model's own markup."""
    found = _MARKUP.search(text)
    if found:
        raise PromptError(f"{text!r} holds {found.group()!r}, which the model reads as a command: leave it out")
    if not text.strip():
        raise PromptError("empty text: write what to cut, for example 'the man on the right'")
    return text.strip()


def clean_phrase(text: str) -> str:
    """A referring phrase as trained: stripped and lower-cased. Also raises PromptError for `||`."""
    if "||" in text:
        raise PromptError(f"{text!r} holds '||': give each phrase as a prompt of its own")
    return clean_text(text).lower()


def clean_category(name: str) -> str:
    """A class name as trained: the data sets' suffixes dropped, hyphens to spaces, lower case.

    The suffixes are matched before lower-casing, so `Sky-Other` becomes `sky other` as in training.
    """
    for suffix in ("-merged", "-other", "-stuff"):
        name = name.replace(suffix, "")
    return clean_text(name.replace("-", " ")).lower()


def full_stop(caption: str) -> str:
    """`caption` stripped and ending in a full stop."""
    caption = caption.strip()
    return caption if caption.endswith(".") else f"{caption}."


def tag_caption(caption: str, spans: Sequence[tuple[int, int]]) -> str:
    """`caption`, full stop added, with each (start, stop) of `spans` as a phrase and a space after it."""
    caption = full_stop(caption)
    for start, stop in sorted(spans, reverse=True):
        phrase = f"{PHRASE_START}{caption[start:stop]}{PHRASE_END}"
        caption = f"{caption[:start]}{phrase} {caption[stop:]}"
    return caption.strip()


# ---- trained wording --------------------------------------------------------------------------------------


def _answers(*leads: str) -> tuple[str, ...]:
    return tuple(f"{lead}{SEG}." for lead in leads)


_RESULT_ANSWERS = _answers("", "It is ", "Sure, ", "Sure, it is ", "Sure, the segmentation result is ")
_MASK_ANSWERS = _answers("", "It is ", "Sure, ", "Sure, it is ", "Sure, the segmentation mask is ")

_CATEGORIES = Wording(
    (
        "Can you segment the {media} based on the following categories: {targets}? "
        "Please output the segmentation masks.",
        "Can you generate segmentation masks for this {media} based on the specified categories: {targets}? "
        "Please generate the segmentation masks.",
        "Can you provide segmentation masks for this {media} based on these categories: {targets}? "
        "Please provide the segmentation masks.",
        "Could you create segmentation masks for this {media} according to the specified categories: "
        "{targets}? Please create the segmentation masks.",
        "Could you output segmentation masks for this {media} that highlight the following categories: "
        "{targets}? Please output the segmentation masks.",
        "Could you provide segmentation masks for this {media} according to the specified categories: "
        "{targets}? Please respond with the segmentation masks.",
    ),
    _RESULT_ANSWERS,
)
_CATEGORIES_EXPLAINED = Wording(
    (
        "Can you segment the {media} based on the following categories: {targets}? "
        "Please first describe the {media} briefly, then respond with segmentation masks.",
        "Can you generate segmentation masks for this {media} based on the specified categories: {targets}? "
        "Please first briefly describe the contents of the {media}, then respond with segmentation masks.",
        "Can you provide segmentation masks for this {media} based on these categories: {targets}? "
        "Please first give me a brief description of the {media}, then output segmentation masks.",
        "Could you create segmentation masks for this {media} according to the specified categories: "
        "{targets}? Please first give me a brief description of this picture, "
        "then respond with segmentation masks.",
        "Could you output segmentation masks for this {media} that highlight the following categories: "
        "{targets}? Please first provide me with a brief description of this photo, "
        "then respond with segmentation masks.",
        "Could you provide segmentation masks for this {media} according to the specified categories: "
        "{targets}. Please first describe the {media} briefly, then respond with segmentation masks.",
    ),
    _answers("{text} ", "{text} And it is ", "{text} And ", "{text} And the segmentation result is "),
)
_REGIONS = Wording(
    (
        "Can you segment the {media} based on the following regions: {targets}? "
        "Please output the corresponding segmentation mask.",
        *(question.replace("categories", "regions") for question in _CATEGORIES.questions[1:]),
    ),
    _RESULT_ANSWERS,
)
_REFERRING = Wording(
    (
        "Please identify and segment the {targets} in this {media}.",
        "Please segment {targets} in this {media}.",
        "What is {targets} in this {media}? Please output the corresponding segmentation mask.",
        "Can you segment {targets} in this {media}? Please generate the segmentation mask.",
        "Could you provide a segmentation mask for the {targets} in this {media}? "
        "Please provide the segmentation mask.",
        "Where is the {targets} in this picture? Please output the segmentation masks.",
        "Can you highlight the {targets} in this {media} with a segmentation mask? "
        "Please output the segmentation mask.",
        "Could you provide a segmentation mask for the {targets} in this {media}? "
        "Please respond with the segmentation mask.",
        "Where is the {targets} in this picture? Please output the corresponding segmentation mask.",
        "Can you highlight the {targets} in this {media} with a segmentation mask? "
        "Please output the segmentation mask.",
    ),
    _MASK_ANSWERS,
)
_REASONING = Wording(
    (
        "{targets} Please output the corresponding segmentation mask.",
        "{targets} Please generate a segmentation mask for this {media}.",
        "{targets} Please extract the segmentation mask.",
        "{targets} Please return the segmentation predictions as masks.",
        "{targets} Please segment the {media}.",
    ),
    _MASK_ANSWERS,
)
_REASONING_PHRASE = Wording(
    (
        "Can you segment {targets} in this {media}? Please output the segmentation mask.",
        "Can you give the segmentation mask for {targets} in this {media}? "
        "Please respond with the segmentation mask.",
        "Can you highlight {targets} and output the corresponding segmentation mask? "
        "Please provide the segmentation mask.",
        "What is {targets} in this {media}? Please output the corresponding segmentation mask.",
        "What is {targets} in this {media}? Please generate a segmentation mask for this {media}.",
    ),
    _MASK_ANSWERS,
)
_REASONING_EXPLAINED = Wording(
    (
        "{targets} Please explain why and output the corresponding segmentation mask.",
        "{targets} Please explain the reason and output the corresponding segmentation mask.",
        "{targets} Please give some explanation and output the corresponding segmentation mask.",
        "{targets} Please explain the reason and output the corresponding segmentation mask.",
        "{targets} Please give detailed explanation and output the corresponding segmentation mask.",
    ),
    _answers("{text} ", "{text} It is ", "{text} And ", "{text} And it is ", "{text} And the segmentation mask is "),
)
_PARTS = "interleaved segmentation masks for the corresponding parts of the answer."
_PHRASES = "interleaved segmentation masks for the corresponding phrases."
_CAPTION = Wording(
    (
        f"Could you please give me a brief description of the {{media}}? Please respond with {_PARTS}",
        f"Can you provide a brief description of {{the_media}}? Please output {_PHRASES}",
        f"Please briefly describe the contents of the {{media}}. Please respond with {_PARTS}",
        f"Could you give a brief explanation of what can be found within this {{picture}}? Please output {_PHRASES}",
        f"Could you give me an brief explanation of this {{picture}}? Please respond with {_PHRASES}",
        f"Could you provide me with a briefly analysis of this {{photo}}? Please output {_PARTS}",
    ),
    _answers("{text} ", "{text} And ", "{text} The segmentation mask is ", "{text} And the segmentation mask is "),
)
_FREE = Wording(("{targets}",), ("{text}",))

_BOTH: tuple[Media, ...] = ("image", "video")
_CATEGORY_WORDINGS: Mapping[Style, Wording] = {"plain": _CATEGORIES, "explained": _CATEGORIES_EXPLAINED}
_QUESTION_WORDINGS: Mapping[Style, Wording] = {
    "plain": _REASONING,
    "phrase": _REASONING_PHRASE,
    "explained": _REASONING_EXPLAINED,
}
_REGION_TAG = f"{PHRASE_START}{REGION}{PHRASE_END}"

TASKS: Mapping[str, Task] = {
    task.id: task
    for task in (
        Task("chat", _BOTH, {"plain": _FREE}, "none", "text", clean_text, tag="{}", glimpse=64),
        Task("genseg", _BOTH, _CATEGORY_WORDINGS, "prompt", "generic", clean_category),
        Task("ovseg", _BOTH, _CATEGORY_WORDINGS, "prompt", "generic", clean_category),
        Task("refseg", _BOTH, {"plain": _REFERRING}, "shared", "referring", clean_phrase),
        Task("reaseg", _BOTH, _QUESTION_WORDINGS, "shared", "referring", clean_text),
        Task("gcgseg", _BOTH, {"plain": _CAPTION}, "answer", "grounded", glimpse=64),
        Task("vgdseg", _BOTH, {"plain": _REGIONS}, "prompt", "regions", tag=_REGION_TAG),
        Task("intseg", ("image",), {"plain": _REGIONS}, "prompt", "interactive", tag=_REGION_TAG),
        Task("objseg", ("video",), {"plain": _REGIONS}, "prompt", "object", tag=_REGION_TAG),
    )
}


# ---- use --------------------------------------------------------------------------------------------------


def task_for(prompt: Prompt, media: Media) -> Task:
    """The row that answers `prompt`. A region asks for that object alone, not for look-alikes (`vgdseg`)."""
    match prompt:
        case Text():
            return TASKS["refseg"]
        case Question():
            return TASKS["reaseg"]
        case Classes():
            return TASKS["genseg"]
        case Describe():
            return TASKS["gcgseg"]
    return TASKS["intseg" if media == "image" else "objseg"]


def generic_output(things: Sequence[str], stuff: Sequence[str]) -> Generic:
    """What a class list gives: instances of things, a semantic map of stuff, both together as panoptic."""
    if things and stuff:
        return "panoptic"
    return "instance" if things else "semantic"


def question(task: Task, media: Media, targets: Sequence[str] = (), *, index: int = 0, style: Style = "plain") -> str:
    """What the user says in one turn, without the media. `targets` keep their order.

    `targets`: class names, one phrase, one sentence, the chat text, or one label per region (only their
    number counts); none for captions. `index`: which trained template. Raises PromptError for a text that
    cannot be asked or when there is nothing to ask for.
    """
    template = task.wordings[style].questions[index]
    if "{targets}" in template and not targets:
        raise PromptError("nothing to cut: name at least one class, phrase or region")
    assert task.conditions != "shared" or len(targets) == 1, "one turn asks for one phrase: use questions()"
    tagged = ", ".join(task.tag.format(task.clean(target)) for target in targets)
    return template.format(targets=tagged, **_NOUNS[media])


def questions(
    task: Task, media: Media, targets: Sequence[str] = (), *, index: int = 0, style: Style = "plain"
) -> tuple[str, ...]:
    """The turns that ask for all `targets`: one each for phrases and sentences, a single one otherwise."""
    groups = [[target] for target in targets] if task.conditions == "shared" else [targets]
    return tuple(question(task, media, group, index=index, style=style) for group in groups)


def answer(task: Task, *, text: str = "", index: int = 0, style: Style = "plain") -> str:
    """What the model is made to answer: exactly one `<SEG>`, none in chat.

    `text`: what stands in front of it: the tagged caption, the explanation, or the whole chat answer.
    """
    return task.wordings[style].answers[index].format(text=text)
