"""Questions, answers, token streams and index arrays against the reference's own functions.

The files are recognised by what they hold, so other folders of the same layout run too.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.golden.folder import cases
from x2roto.engine.preprocess import step_seconds
from x2roto.engine.prompting import (
    IGNORED,
    MARKERS,
    SpecialIds,
    Turn,
    condition_ids,
    conversation,
    segment_ids,
    tokenise,
    vision_text,
)
from x2roto.engine.tasks import (
    TASKS,
    Media,
    Style,
    Task,
    answer,
    full_stop,
    generic_output,
    question,
    questions,
    tag_caption,
)
from x2roto.errors import PromptError
from x2roto.prompt import parse_generic

FILES = {path: json.loads(path.read_text()) for path in cases("tasks", "templates")}
pytestmark = pytest.mark.skipif(not FILES, reason="no templates in the golden folder")

MEDIA: dict[str, Media] = {"img": "image", "vid": "video"}
VISION = {"image": "<|vision_start|><image><|vision_end|>", "video": "<|vision_start|><video><|vision_end|>"}


def rows(key: str) -> list[Any]:
    """(file, content) of the files that have `key`, ready for parametrize."""
    return [pytest.param(content, id=path.stem) for path, content in FILES.items() if key in content]


def task_of(name: str) -> tuple[Task, Media]:
    medium, _, task = name.partition("_")
    return TASKS[task], MEDIA[medium]


def pick(templates: tuple[str, ...], k: int) -> int:
    """The golden data replace `random.choice` by element k modulo the list's length."""
    return k % len(templates)


def turns_for(name: str, example: dict[str, Any], k: int, answered: bool = True) -> list[Turn]:
    """The turns our functions give for one example of the reference's data format."""
    task, media = task_of(name)
    if task.id == "chat":
        return chat_turns(task, media, example["conversations"])
    style = style_of(name, example)
    wording = task.wordings[style]
    asked = questions(task, media, targets_of(example), index=pick(wording.questions, k), style=style)
    if "question" in example:
        asked = (example["question"],)
    reply = answer(task, text=text_of(example), index=pick(wording.answers, k), style=style) if answered else ""
    return [Turn(text, reply) for text in asked]


def chat_turns(task: Task, media: Media, messages: list[dict[str, str]]) -> list[Turn]:
    said = [message["value"].replace("<image>", "").replace("<video>", "") for message in messages]
    pairs = zip(said[::2], said[1::2], strict=True)
    return [Turn(question(task, media, [asked]), answer(task, text=reply)) for asked, reply in pairs]


def style_of(name: str, example: dict[str, Any]) -> Style:
    if "sampled_cats" in example:
        return "explained" if "caption" in example else "plain"
    if not name.endswith("reaseg"):
        return "plain"
    # The reference's video function reads another key than its demo sets; ours takes a style instead.
    sentence = example.get("is_sentences", [False])[0] if name == "vid_reaseg" else example.get("is_sentence")
    return "plain" if sentence else "phrase"


def targets_of(example: dict[str, Any]) -> list[str]:
    for key in ("sampled_cats", "sampled_sents", "sampled_labels"):
        if key in example:
            return [str(target) for target in example[key]]
    return []


def text_of(example: dict[str, Any]) -> str:
    caption = example.get("caption", "")
    if "annotations" in example:
        return tag_caption(caption, [tuple(item["tokens_positive"]) for item in example["annotations"]])
    return caption if "sampled_cats" in example else full_stop(caption)


def as_recorded(turns: list[Turn], media: Media) -> list[dict[str, str]]:
    vision = [VISION[media], *[""] * (len(turns) - 1)]
    return [
        {"input": mark + turn.question, "output": turn.answer or ""} for mark, turn in zip(vision, turns, strict=True)
    ]


@pytest.mark.parametrize("content", rows("tasks"))
def test_every_question_and_answer_is_the_trained_wording(content: dict[str, Any]) -> None:
    for name, recorded in content["tasks"].items():
        for row in recorded["rows"]:
            turns = turns_for(name, recorded["example"], row["k"])
            assert as_recorded(turns, task_of(name)[1]) == row["turns"], (name, row["k"])


def branches() -> list[Any]:
    return [
        pytest.param(case, id=f"{path.stem}-{number}-{case['task']}")
        for path, content in FILES.items()
        if "branches" in content["kind"]
        for number, case in enumerate(content["cases"])
    ]


@pytest.mark.parametrize("case", branches())
def test_other_branches_of_the_reference(case: dict[str, Any]) -> None:
    task, media = task_of(case["task"])
    if "explain" in case:
        wording = task.wordings["explained"]
        asked, reply = (message["value"] for message in case["messages"])
        sentence = asked[asked.index("<p>") + 3 : asked.index("</p>")]
        ours = question(task, media, [sentence], index=pick(wording.questions, case["k"]), style="explained")
        assert f"<{media}>{ours}" == asked
        chosen = pick(wording.answers, case["k"])
        assert answer(task, text=case["explain"], index=chosen, style="explained") == reply
    else:
        turns = turns_for(case["task"], case["example"], case["k"], case["output_ids_with_output"])
        assert as_recorded(turns, media) == case["turns"]


@dataclass
class Recorder:
    """A tokenizer that remembers what it was given; each text becomes one new id."""

    texts: list[str] = field(default_factory=list)

    def encode(self, sequence: str, *, add_special_tokens: bool) -> Recorder.Encoded:
        assert not add_special_tokens
        self.texts.append(sequence)
        return Recorder.Encoded([len(self.texts)])

    @dataclass
    class Encoded:
        ids: list[int]


def recorded_streams() -> Iterator[Any]:
    examples = {
        name: recorded["example"] for content in FILES.values() for name, recorded in content.get("tasks", {}).items()
    }
    for path, content in FILES.items():
        for number, stream in enumerate(content.get("streams", [])):
            case = pytest.param(stream, examples, id=f"{path.stem}-{number}-{stream['task']}")
            yield case


@pytest.mark.parametrize(("stream", "examples"), list(recorded_streams()))
def test_token_streams(stream: dict[str, Any], examples: dict[str, Any]) -> None:
    _, media = task_of(stream["task"])
    turns = turns_for(stream["task"], examples[stream["task"]], stream["k"])
    if "generate" in stream["mode"]:
        turns = [Turn(turns[0].question)]
    seconds = None
    if "frames_indices" in stream:
        seconds = step_seconds(stream["frames_indices"], stream["fps"])
    tokenizer = Recorder()
    pieces = conversation(turns, vision_text(media, tuple(stream["grid_thw"][0]), seconds=seconds))
    tokens = tokenise(pieces, tokenizer, SpecialIds(-1, -1, -1))

    assert list(described(tokens.input_ids, tokens.labels, tokenizer.texts)) == stream["stream"]


def described(ids: np.ndarray, labels: np.ndarray, texts: list[str]) -> Iterator[dict[str, Any]]:
    names = {index: text for text, index in MARKERS.items()}
    for value, run in groupby(zip(ids.tolist(), labels.tolist(), strict=True), key=lambda pair: pair[0]):
        members = list(run)
        if value in names:
            assert all(label == IGNORED for _, label in members)
            yield {"special": names[value], "index": value, "count": len(members)}
        else:
            ((_, label),) = members
            assert label in (IGNORED, value)
            yield {"text": texts[value - 1], "loss": label == value}


@pytest.mark.parametrize("content", rows("tokens"))
def test_index_arrays(content: dict[str, Any]) -> None:
    tokens = content["tokens"]
    for case in content["cases"]:
        ids = np.array(case["input_ids"], dtype=np.int64)
        conditions = condition_ids(ids, tokens["p_start"], tokens["p_end"])
        assert (None if conditions is None else conditions.tolist()) == case["cond_ids"], case
        assert segment_ids(ids, tokens["seg"]).tolist() == case["seg_ids"], case


@pytest.mark.parametrize("content", rows("generic_grammar"))
def test_the_demo_s_class_grammar(content: dict[str, Any]) -> None:
    for case in content["generic_grammar"]:
        if "error" in case:
            with pytest.raises(PromptError, match="no class named"):
                parse_generic(case["prompt"])
            continue
        things, stuff = parse_generic(case["prompt"])
        assert [*things, *stuff] == case["all_unshuffled"]
        assert (list(things), list(stuff)) == (case["things"], case["stuff"])
        assert generic_output(things, stuff)[:3] == case["postprocess_key"].partition("|")[2]


@pytest.mark.parametrize("content", rows("generic_grammar"))
def test_every_task_the_demo_accepts_has_a_row_and_a_question(content: dict[str, Any]) -> None:
    for case in content["examples"]:
        task, media = task_of(case["task"])
        assert media in task.media
        (first, *_) = turns_for(case["task"], case["example"], 0, answered=False)
        assert case["prompt"].lower() in first.question.lower() or not task.id.startswith(("chat", "ref", "rea"))


def test_the_kinds_of_file_are_all_known() -> None:
    known = ("tasks", "cases", "streams", "generic_grammar")
    unknown = [Path(path).name for path, content in FILES.items() if not any(key in content for key in known)]
    assert not unknown
