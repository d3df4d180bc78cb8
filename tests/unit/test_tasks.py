"""The table of tasks: every row asks and answers, and user text cannot break the prompt."""

from __future__ import annotations

import itertools

import pytest

from x2roto.engine.tasks import (
    SEG,
    TASKS,
    Media,
    Style,
    Task,
    answer,
    clean_category,
    clean_phrase,
    clean_text,
    generic_output,
    question,
    questions,
    tag_caption,
    task_for,
)
from x2roto.errors import PromptError
from x2roto.prompt import Box, Classes, Describe, MaskPrompt, Points, Question, Scribble, Text

ALL = [
    pytest.param(task, media, style, id=f"{media}-{task.id}-{style}")
    for task in TASKS.values()
    for media in task.media
    for style in task.wordings
]


@pytest.mark.parametrize(("task", "media", "style"), ALL)
def test_every_template_is_filled(task: Task, media: Media, style: Style) -> None:
    targets = [] if task.id == "gcgseg" else ["Dog"]
    other = {"image": "video", "video": "image"}[media]
    for index in range(len(task.wordings[style].questions)):
        text = question(task, media, targets, index=index, style=style)
        assert "{" not in text
        assert other not in text
        assert text.count("<p>") == text.count("</p>") == (0 if task.id in ("chat", "gcgseg") else 1)


@pytest.mark.parametrize(("task", "media", "style"), ALL)
def test_every_answer_has_one_seg_at_its_end(task: Task, media: Media, style: Style) -> None:
    for index in range(len(task.wordings[style].answers)):
        text = answer(task, text="A dog.", index=index, style=style)
        if task.id == "chat":
            assert text == "A dog."
        else:
            assert text.endswith(f"{SEG}.")
            assert text.count(SEG) == 1
            assert text.startswith("A dog. ") == (style == "explained" or task.id == "gcgseg")


def test_the_table_covers_the_fourteen_tasks_and_chat() -> None:
    rows = {(media, task.id) for task in TASKS.values() for media in task.media}
    shared = ("chat", "genseg", "ovseg", "refseg", "reaseg", "gcgseg", "vgdseg")
    assert rows == {*itertools.product(("image", "video"), shared), ("image", "intseg"), ("video", "objseg")}
    assert [task.id for task in TASKS.values() if task.generates] == ["chat", "gcgseg"]


def test_classes_keep_their_order() -> None:
    asked = question(TASKS["genseg"], "video", ["wall-brick", "Person", "tree-merged"])
    assert asked == (
        "Can you segment the video based on the following categories: <p>wall brick</p>, <p>person</p>, "
        "<p>tree</p>? Please output the segmentation masks."
    )


def test_sentences_keep_case_and_use_the_sentence_list_for_video_too() -> None:
    asked = question(TASKS["reaseg"], "video", [" What is Hot? "])
    assert asked == "<p>What is Hot?</p> Please output the corresponding segmentation mask."


def test_regions_are_counted_not_named() -> None:
    asked = question(TASKS["vgdseg"], "image", ["hero", "car"])
    assert asked.count("<p><region></p>") == 2
    assert "hero" not in asked


def test_phrases_become_turns_and_classes_do_not() -> None:
    assert len(questions(TASKS["refseg"], "video", ["a", "b", "c"])) == 3
    assert len(questions(TASKS["genseg"], "video", ["a", "b", "c"])) == 1
    with pytest.raises(AssertionError, match="one turn asks for one phrase"):
        question(TASKS["refseg"], "video", ["a", "b"])


def test_nothing_to_ask_for() -> None:
    with pytest.raises(PromptError, match="nothing to cut"):
        question(TASKS["genseg"], "video", [])
    assert question(TASKS["gcgseg"], "video")


@pytest.mark.parametrize(
    "text", ["the <p>man", "</p>", "it is <SEG>", "a <image>", "<region>", "<|im_end|>", "<|placeholder|>"]
)
@pytest.mark.parametrize("clean", [clean_text, clean_phrase, clean_category])
def test_markup_in_user_text_is_refused(clean: object, text: str) -> None:
    with pytest.raises(PromptError, match="leave it out"):
        clean(text)  # type: ignore[operator]


def test_text_that_only_looks_like_markup_is_kept() -> None:
    assert clean_text("a < b and c > d | <SEGment>, {targets}") == "a < b and c > d | <SEGment>, {targets}"
    assert "{media}" in question(TASKS["refseg"], "image", ["the {media}"])


@pytest.mark.parametrize("text", ["", "  ", "\n"])
def test_empty_text_is_refused(text: str) -> None:
    with pytest.raises(PromptError, match="empty text"):
        clean_text(text)


def test_clean_up() -> None:
    assert clean_phrase(" The Man ") == "the man"
    assert clean_category("Sky-Other") == "sky other"
    assert clean_category("sky-other-merged") == "sky"
    with pytest.raises(PromptError, match=r"'\|\|'"):
        clean_phrase("the man || the dog")


def test_caption_spans_are_tagged_whatever_their_order() -> None:
    wanted = "<p>a man</p>  and <p>a dog</p> ."
    assert tag_caption("a man and a dog", [(0, 5), (10, 15)]) == wanted
    assert tag_caption(" a man and a dog. ", [(10, 15), (0, 5)]) == wanted


@pytest.mark.parametrize(
    ("things", "stuff", "output"),
    [(["a"], ["b"], "panoptic"), (["a"], [], "instance"), ([], ["b"], "semantic")],
)
def test_generic_output(things: list[str], stuff: list[str], output: str) -> None:
    assert generic_output(things, stuff) == output


def test_the_row_for_each_prompt() -> None:
    assert task_for(Text("a", "a"), "video").id == "refseg"
    assert task_for(Question("a", "a"), "video").id == "reaseg"
    assert task_for(Classes("a", ("b",)), "image").id == "genseg"
    assert task_for(Describe(), "video").id == "gcgseg"
    for region in (Box("a", 0, 0, 1, 1), Points("a", ()), Scribble("a", ()), MaskPrompt("a", "x")):  # type: ignore[arg-type]
        assert task_for(region, "image").id == "intseg"
        assert task_for(region, "video").id == "objseg"
