"""Reading prompts and tracking shots, on a whole network of random weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from tests.tiny import tiny_segmenter
from x2roto.clip import Frame
from x2roto.engine import tasks
from x2roto.engine import tracker as tracking
from x2roto.engine.identity import Kind
from x2roto.engine.segmenter import Reading, Segmenter, load_segmenter, requests
from x2roto.engine.shot import Query
from x2roto.engine.tracker import Budget, FrameResult, Tracker
from x2roto.errors import DeviceMemoryError, ModelError, PromptError
from x2roto.prompt import Box, Classes, Describe, MaskPrompt, Points, Prompt, Question, Scribble, Text

WIDTH, HEIGHT = 80, 48


def picture(index: int) -> NDArray[np.uint8]:
    """Noise with a bright block that moves."""
    rgb = np.random.default_rng(index).integers(0, 90, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    rgb[10:30, 2 * index : 2 * index + 20] = (250, 220, 40)
    return rgb


GLIMPSE = [picture(i) for i in range(0, 8, 2)]
CLIP = [Frame(i, None, picture(i)) for i in range(8)]
MAN, BOX = Text("man", "the man"), Box("box", 4, 4, 40, 40)
DRAWN = np.zeros((HEIGHT, WIDTH), dtype=bool)
DRAWN[20:40, 30:60] = True


@pytest.fixture(scope="module")
def segmenter() -> Segmenter:
    return tiny_segmenter()


@pytest.fixture
def said(segmenter: Segmenter, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The text of every prompt the language model is given from now on."""
    texts: list[str] = []
    assemble = segmenter.model.assemble

    def listen(input_ids: Tensor, *args: Any, **options: Any) -> Any:
        words = [token for token in input_ids[0].tolist() if token >= 0]
        texts.append(segmenter.tokenizer.decode(words, skip_special_tokens=False))
        return assemble(input_ids, *args, **options)

    monkeypatch.setattr(segmenter.model, "assemble", listen)
    return texts


Answer = Callable[[str], None]


@pytest.fixture
def answer(segmenter: Segmenter, monkeypatch: pytest.MonkeyPatch) -> Answer:
    """Makes the language model write a text and then stop."""
    write = segmenter.model.vlm.write

    def speak(text: str) -> None:
        ids = segmenter.tokenizer.encode(f"{text}<|im_end|>", add_special_tokens=False).ids

        def written(*args: Any) -> Any:
            script = iter(ids)
            return write(*args, choose=lambda _: next(script))

        monkeypatch.setattr(segmenter.model.vlm, "write", written)

    return speak


def logits(results: Sequence[FrameResult]) -> Tensor:
    return torch.stack([result.prediction.mask_logits_bqhw for result in results])


def tracked(tracker: Tracker, frames: Sequence[Frame] = CLIP) -> Tensor:
    return logits(list(tracker.step(frames)))


def conditions(query: Query) -> tuple[Tensor, ...]:
    c = query.conditions
    return c.cond_embeds, c.token_embeds, c.seg_embeds, c.embed_mask, c.token_mask


def equal(first: Query, second: Query) -> bool:
    return all(map(torch.equal, conditions(first), conditions(second)))


# ---- which prompts are asked together ---------------------------------------------------------------------


def asked(prompts: Sequence[Prompt], media: tasks.Media = "video") -> list[tuple[str, int | None, list[str]]]:
    return [(r.task.id, r.start, [prompt.name for prompt in r.prompts]) for r in requests(prompts, media)]


def test_prompts_alike_that_start_together_are_asked_together() -> None:
    prompts = (
        Points("click", ((3, 3),), frame=3),
        Text("one", "a man"),
        BOX,
        Question("why", "who runs?"),
        Text("late", "a dog", frame=3),
        Scribble("stroke", ((3, 3), (9, 9))),
        Classes("all", things=("car",)),
        Text("two", "a cat"),
        Describe(),
    )
    assert asked(prompts) == [
        ("genseg", None, ["all"]),
        ("gcgseg", None, ["description"]),
        ("refseg", None, ["one", "two"]),
        ("refseg", 3, ["late"]),
        ("reaseg", None, ["why"]),
        ("objseg", 3, ["click"]),
        ("vgdseg", None, ["box", "stroke"]),
    ]


def test_one_region_of_a_still_is_asked_as_in_an_image() -> None:
    assert asked((BOX,), "image") == [("intseg", None, ["box"])]


@pytest.mark.parametrize(
    ("make", "tasks_of"),
    [
        (lambda i: Text(f"t{i}", f"thing {i}"), ["refseg"] * 3),
        (lambda i: Question(f"t{i}", f"what {i}?"), ["reaseg"] * 3),
        (lambda i: Box(f"t{i}", 0, 0, 9, 9), ["vgdseg", "vgdseg", "objseg"]),
    ],
)
def test_at_most_eight_are_joined(make: Callable[[int], Prompt], tasks_of: list[str]) -> None:
    groups = asked([make(i) for i in range(17)])
    assert [task for task, _, _ in groups] == tasks_of
    assert [len(names) for _, _, names in groups] == [8, 8, 1]
    assert [name for _, _, names in groups for name in names] == [f"t{i}" for i in range(17)]


# ---- reading ----------------------------------------------------------------------------------------------


def test_mixed_prompts_become_one_query_per_start(segmenter: Segmenter) -> None:
    prompts = (
        MAN,
        Text("dog", "a dog"),
        Classes("all", things=("car", "Big Bus"), stuff=("sky",)),
        BOX,
        MaskPrompt("Drawn One", DRAWN, frame=5),
        Question("why", "who runs?"),
    )
    first, later = segmenter.read(prompts, GLIMPSE, {5: picture(5)})
    assert (first.start, later.start) == (None, 5)
    assert [[(t.name, t.kind) for t in targets] for targets in first.targets] == [
        [("car", Kind.THINGS), ("big_bus", Kind.THINGS), ("sky", Kind.STUFF)],
        [("man", Kind.OBJECT), ("dog", Kind.OBJECT)],
        [("why", Kind.OBJECT)],
        [("box", Kind.OBJECT)],
    ]
    assert [[t.name for t in targets] for targets in later.targets] == [["drawn_one"]]
    assert first.captions == ("",) * 4
    for query in (first, later):
        real = query.conditions.embed_mask.sum(1).tolist()
        assert real == [len(targets) + 1 for targets in query.targets]
        assert len(query.conditions.seg_embeds) == len(query.targets)


def test_regions_carry_their_mask_and_the_others_none(segmenter: Segmenter) -> None:
    (query,) = segmenter.read((MAN, MaskPrompt("drawn", DRAWN)), GLIMPSE)
    text, region = (targets[0] for targets in query.targets)
    assert text.anchor is None
    side = segmenter.model.config.image_size // 4
    assert region.anchor is not None
    assert region.anchor.shape == (side, side)
    rows, columns = region.anchor.any(1).nonzero().flatten(), region.anchor.any(0).nonzero().flatten()
    assert (rows[0] / side, (rows[-1] + 1) / side) == pytest.approx((20 / HEIGHT, 40 / HEIGHT), abs=1.01 / side)
    assert (columns[0] / side, (columns[-1] + 1) / side) == pytest.approx((30 / WIDTH, 60 / WIDTH), abs=1.01 / side)


def test_sets_read_together_are_those_read_alone(segmenter: Segmenter) -> None:
    alone: list[tuple[Prompt, ...]] = [(Classes("all", things=("car", "bus")),), (MAN, Text("dog", "a dog")), (BOX,)]
    (together,) = segmenter.read([prompt for group in alone for prompt in group], GLIMPSE)
    for index, group in enumerate(alone):
        (query,) = segmenter.read(group, GLIMPSE)
        phrases, words = query.conditions.cond_embeds.shape[1] - 1, query.conditions.token_embeds.shape[1]
        for ours, theirs in (
            (together.conditions.cond_embeds[index, :phrases], query.conditions.cond_embeds[0, :-1]),
            (together.conditions.cond_embeds[index, -1], query.conditions.cond_embeds[0, -1]),
            (together.conditions.token_embeds[index, :words], query.conditions.token_embeds[0]),
            (together.conditions.seg_embeds[index], query.conditions.seg_embeds[0]),
        ):
            torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)
        assert together.conditions.token_mask[index].sum() == words


def test_joined_phrases_share_the_last_turn_s_seg(segmenter: Segmenter) -> None:
    """In a conversation of two turns the second phrase is read after the first, so only the last <SEG> knows both."""
    (query,) = segmenter.read((MAN, Text("dog", "a dog")), GLIMPSE)
    (alone,) = segmenter.read((MAN,), GLIMPSE)
    assert query.conditions.seg_embeds.shape[:2] == (1, 1)
    torch.testing.assert_close(query.conditions.cond_embeds[0, 0], alone.conditions.cond_embeds[0, 0])
    assert (query.conditions.seg_embeds - alone.conditions.seg_embeds).abs().max() > 1e-4


def test_equal_input_gives_equal_output(segmenter: Segmenter) -> None:
    prompts = (MAN, BOX, Classes("all", things=("car",)))
    (first,), (again,) = segmenter.read(prompts, GLIMPSE), segmenter.read(prompts, GLIMPSE)
    torch.manual_seed(99)
    (elsewhere,) = tiny_segmenter().read(prompts, GLIMPSE)
    assert equal(first, again)
    assert equal(first, elsewhere)
    assert segmenter.fingerprint == tiny_segmenter().fingerprint


def test_the_seed_draws_the_region_s_points(segmenter: Segmenter) -> None:
    (first,), (second,) = (segmenter.read((BOX,), GLIMPSE, reading=Reading(seed=seed)) for seed in (0, 1))
    assert not equal(first, second)


def test_a_region_is_read_on_the_frame_it_is_drawn_on(segmenter: Segmenter) -> None:
    box = Box("box", 4, 4, 40, 40, frame=5)
    (here,) = segmenter.read((box,), GLIMPSE, {5: picture(5)})
    (there,) = segmenter.read((box,), GLIMPSE, {5: picture(0)})
    (first,) = segmenter.read((BOX,), GLIMPSE)
    assert not equal(here, there)
    assert equal(there, first)


def test_a_region_on_a_frame_that_was_not_given_is_refused(segmenter: Segmenter) -> None:
    with pytest.raises(PromptError, match="'late' is drawn on frame 99, which is not in the range"):
        segmenter.read((Box("late", 4, 4, 40, 40, frame=99),), GLIMPSE, {5: picture(5)})


def test_what_the_caller_has_to_bring(segmenter: Segmenter) -> None:
    prompts = (MAN, BOX, Points("click", ((3, 3),), frame=3), Text("late", "a dog", frame=4))
    assert segmenter.prompt_frames(prompts) == {None, 3}
    assert segmenter.glimpse_count(prompts) == 16
    assert segmenter.glimpse_count((*prompts, Describe())) == 64


def test_the_clip_is_shown_as_a_video_and_a_single_frame_as_an_image(segmenter: Segmenter, said: list[str]) -> None:
    segmenter.read((MAN,), GLIMPSE)
    segmenter.read((MAN,), GLIMPSE[:1])
    video, image = said
    assert "<2.0 seconds>" in video
    assert "in this video" in video
    assert "seconds" not in image
    assert "in this image" in image


def test_a_still_is_a_clip_of_one_frame(segmenter: Segmenter) -> None:
    (query,) = segmenter.read((MAN, BOX), [picture(3)])
    (result,) = segmenter.track(query).step([Frame(0, None, picture(3))])
    assert [seen.name for seen in result.seen] == ["man", "box"]


@pytest.mark.parametrize("template", [0, 1, 7])
def test_the_template_is_the_caller_s_choice(segmenter: Segmenter, said: list[str], template: int) -> None:
    segmenter.read((MAN,), GLIMPSE, reading=Reading(template=template))
    wording = tasks.TASKS["refseg"].wordings["plain"]
    assert wording.questions[template].format(targets="<p>the man</p>", media="video") in said[0]
    assert f"assistant\n{wording.answers[template % 5]}<|im_end|>" in said[0]


@pytest.mark.parametrize("template", [-1, 10])
def test_a_template_that_does_not_exist_is_refused(segmenter: Segmenter, template: int) -> None:
    with pytest.raises(PromptError, match=f"refseg has no template {template}: choose one of 0 to 9"):
        segmenter.read((MAN,), GLIMPSE, reading=Reading(template=template))


# ---- answers the model writes itself ----------------------------------------------------------------------


def test_a_description_names_its_objects(segmenter: Segmenter, answer: Answer) -> None:
    answer("<p>A dog</p> by <p>a dog</p> on <p>grass</p>. <SEG>")
    (query,) = segmenter.read((Describe(),), GLIMPSE)
    assert [[t.name for t in targets] for targets in query.targets] == [["a_dog", "a_dog_2", "grass"]]
    assert query.captions == ("A dog by a dog on grass.",)
    assert query.conditions.cond_embeds.shape[1] == 4


@pytest.mark.parametrize("text", ["A dog.", "<SEG> but no phrase", "<p>a dog</p> but no mask", "<p>a dog <SEG>"])
def test_a_description_without_masks_is_refused(segmenter: Segmenter, answer: Answer, text: str) -> None:
    answer(text)
    with pytest.raises(PromptError, match="answered without a mask"):
        segmenter.read((Describe(),), GLIMPSE)


def test_a_model_that_only_babbles_is_refused(segmenter: Segmenter) -> None:
    with pytest.raises(PromptError, match="answered without a mask"):
        segmenter.read((Describe(),), GLIMPSE, reading=Reading(limit=6))


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("<SEG> <p>a</p></p><p>b</p><p>c</p>.", ["a"]),
        ("<SEG> <p>a<p>b</p></p>.", ["a", "b"]),
        ("<SEG> <p>a</p> and <p>b</p>", ["a"]),
        ("<SEG> <p>a</p> and <p>b", ["a"]),
    ],
)
def test_every_condition_has_a_target_however_the_phrases_lie(
    segmenter: Segmenter, answer: Answer, text: str, names: list[str]
) -> None:
    """The last token is cut off by the limit and has no state, so a phrase that ends there is none."""
    answer(text)
    limit = len(segmenter.tokenizer.encode(text).ids)
    (query,) = segmenter.read((Describe(),), GLIMPSE, reading=Reading(limit=limit))
    assert [target.name for target in query.targets[0]] == names
    assert query.conditions.embed_mask.sum() == len(names) + 1
    assert list(segmenter.track(query).step(CLIP[:1]))


def test_a_question_may_be_answered_freely(segmenter: Segmenter, answer: Answer) -> None:
    answer("Because he is late, <SEG>.")
    (query,) = segmenter.read((Question("who", "who runs?"),), GLIMPSE, reading=Reading(generate=True))
    assert [t.name for t in query.targets[0]] == ["who"]
    assert query.captions == ("Because he is late, .",)


def test_a_forced_and_an_equal_written_answer_are_the_same(segmenter: Segmenter, answer: Answer) -> None:
    (forced,) = segmenter.read((MAN,), GLIMPSE)
    answer(tasks.answer(tasks.TASKS["refseg"]))
    (written,) = segmenter.read((MAN,), GLIMPSE, reading=Reading(generate=True))
    for ours, theirs in zip(conditions(forced), conditions(written), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("prompt", [MAN, BOX])
def test_an_answer_with_phrases_of_its_own_is_about_those(
    segmenter: Segmenter, answer: Answer, prompt: Prompt
) -> None:
    answer("<p>a cat</p> and <p>a dog</p> <SEG>.")
    (query,) = segmenter.read((prompt,), GLIMPSE, reading=Reading(generate=True))
    assert [t.name for t in query.targets[0]] == ["a_cat", "a_dog"]
    assert list(segmenter.track(query).step(CLIP[:1]))


@pytest.mark.parametrize("text", ["no mask", "<p>never closed <SEG>."])
def test_a_free_answer_without_masks_is_refused(segmenter: Segmenter, answer: Answer, text: str) -> None:
    answer(text)
    with pytest.raises(PromptError, match="answered without a mask"):
        segmenter.read((MAN,), GLIMPSE, reading=Reading(generate=True))


def test_chat_gives_the_text_without_markers(segmenter: Segmenter, said: list[str], answer: Answer) -> None:
    answer("  It is raining. ")
    assert segmenter.chat("What is the weather?", GLIMPSE) == "It is raining."
    assert said[0].endswith("What is the weather?<|im_end|>\n<|im_start|>assistant\n")


def test_chat_respects_the_limit(segmenter: Segmenter, answer: Answer) -> None:
    answer("abcdefgh")
    assert segmenter.chat("Spell.", GLIMPSE, Reading(limit=3)) == "abc"


@pytest.mark.parametrize("ask", [lambda s: s.read((MAN,), GLIMPSE), lambda s: s.chat("What?", GLIMPSE)])
def test_a_language_model_that_does_not_fit_says_so_in_one_line(
    segmenter: Segmenter, monkeypatch: pytest.MonkeyPatch, ask: Callable[[Segmenter], object]
) -> None:
    monkeypatch.setattr(segmenter.model.vlm, "think", out_of_memory)
    with pytest.raises(DeviceMemoryError, match=r"glimpse of 4 frames do not fit .*: show it fewer") as error:
        ask(segmenter)
    assert "\n" not in str(error.value)


def out_of_memory(*_: object, **__: object) -> None:
    raise torch.OutOfMemoryError("out of memory")


# ---- tracking ---------------------------------------------------------------------------------------------


@pytest.fixture
def query(segmenter: Segmenter) -> Query:
    (query,) = segmenter.read((MAN, Classes("all", things=("car",), stuff=("sky",)), BOX), GLIMPSE)
    return query


def test_every_frame_gives_a_result_in_the_order_given(segmenter: Segmenter, query: Query) -> None:
    results = list(segmenter.track(query, chunk=3).step(CLIP))
    assert [result.frame for result in results] == CLIP
    side, sets = segmenter.model.config.image_size // 4, len(query.targets)
    for result in results:
        assert result.prediction.mask_logits_bqhw.shape == (sets, 12, side, side)
        assert {"man", "box", "sky"} <= {seen.name for seen in result.seen}
        assert all(seen.logits.shape == (side, side) for seen in result.seen)


def test_objects_followed_stay_listed(segmenter: Segmenter, query: Query) -> None:
    results = list(segmenter.track(query).step(CLIP))
    for before, after in pairwise(results):
        assert {seen.name for seen in before.seen} <= {seen.name for seen in after.seen}


def test_steps_go_on_where_the_last_one_ended(segmenter: Segmenter, query: Query) -> None:
    whole, parts = segmenter.track(query), segmenter.track(query)
    stepped = torch.cat([tracked(parts, CLIP[:3]), tracked(parts, CLIP[3:4]), tracked(parts, CLIP[4:])])
    torch.testing.assert_close(stepped, tracked(whole), atol=1e-4, rtol=0)
    assert parts.state.memory.step == len(CLIP)


def test_results_come_as_frames_are_asked_for(segmenter: Segmenter, query: Query) -> None:
    tracker = segmenter.track(query)
    results = tracker.step(CLIP)
    for count in (1, 2):
        next(results)
        assert tracker.state.memory.step == count


def test_a_state_set_back_replays_the_same_results(segmenter: Segmenter, query: Query) -> None:
    tracker = segmenter.track(query)
    tracked(tracker, CLIP[:3])
    kept = tracker.state
    first = list(tracker.step(CLIP[3:6]))
    tracked(tracker, CLIP[6:])
    tracker.state = kept
    again = list(tracker.step(CLIP[3:6]))
    assert torch.equal(logits(first), logits(again))
    for before, after in zip(first, again, strict=True):
        assert [(s.name, s.score) for s in before.seen] == [(s.name, s.score) for s in after.seen]


def test_states_are_handed_between_trackers_in_any_order(segmenter: Segmenter, query: Query) -> None:
    whole = segmenter.track(query)
    states, expected = [], []
    for frame in CLIP:
        states.append(whole.state)
        expected.append(tracked(whole, [frame]))
    other = segmenter.track(query)
    for index in (5, 0, 7, 2):
        other.state = states[index]
        assert torch.equal(tracked(other, [CLIP[index]]), expected[index])


def test_both_ways_from_a_prompt_frame_see_the_same_where_the_clip_is_its_own_mirror(
    segmenter: Segmenter, query: Query
) -> None:
    mirror = [Frame(i, None, picture(abs(i - 3))) for i in range(7)]
    forward, backward = segmenter.track(query), segmenter.track(query)
    assert torch.equal(tracked(forward, mirror[3:]), tracked(backward, mirror[3::-1]))


def test_a_saved_shot_goes_on(segmenter: Segmenter, query: Query, tmp_path: Path) -> None:
    tracker = segmenter.track(query)
    tracked(tracker, CLIP[:4])
    tracker.save(tmp_path / "shot")
    resumed = segmenter.resume(tmp_path / "shot", chunk=2)
    assert resumed.budget.chunk == 2
    torch.testing.assert_close(tracked(resumed, CLIP[4:]), tracked(tracker, CLIP[4:]), atol=1e-4, rtol=0)
    with pytest.raises(ModelError, match="saved by model"):
        tiny_segmenter(seed=1).resume(tmp_path / "shot")


@pytest.mark.parametrize(("option", "message"), [("chunk", "a chunk must hold"), ("memory", "the mask memory must")])
def test_a_tracker_of_nothing_is_refused(segmenter: Segmenter, query: Query, option: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        segmenter.track(query, **{option: 0})


def test_the_memory_holds_what_was_asked_for(segmenter: Segmenter, query: Query) -> None:
    short, default = segmenter.track(query, memory=2), segmenter.track(query)
    few, many = tracked(short), tracked(default)
    assert short.state.memory.gaps() == (2, 1)
    assert default.state.memory.gaps() == (5, 4, 3, 2, 1)
    assert torch.equal(few[:3], many[:3])
    assert (few[3:] - many[3:]).abs().max() > 1e-3


# ---- frames that stand in for damaged ones ----------------------------------------------------------------


def held(index: int, rgb: NDArray[np.uint8]) -> Frame:
    return Frame(index, None, rgb, held=True)


def test_held_frames_are_not_remembered(segmenter: Segmenter, query: Query) -> None:
    black = np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8)
    one, other = segmenter.track(query), segmenter.track(query)
    with_black = list(one.step([*CLIP[:2], held(2, black), *CLIP[3:]]))
    with_copy = list(other.step([*CLIP[:2], held(2, picture(1)), *CLIP[3:]]))
    assert [len(results) for results in (with_black, with_copy)] == [len(CLIP)] * 2
    assert [entry.step for entry in one.state.memory.entries] == [3, 4, 5, 6, 7]
    torch.testing.assert_close(logits(with_black)[3:], logits(with_copy)[3:], atol=1e-4, rtol=0)
    assert (logits(with_black)[2] - logits(with_copy)[2]).abs().max() > 1e-2


@pytest.mark.parametrize("chunk", [1, 2, 8])
def test_a_shot_starts_with_its_first_frame_that_is_not_held(segmenter: Segmenter, query: Query, chunk: int) -> None:
    """A frame without memory is a first frame, whatever unusable pictures came before it."""
    lead = [held(i, np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8)) for i in range(3)]
    damaged, sound = segmenter.track(query, chunk=chunk), segmenter.track(query, chunk=chunk)
    after = tracked(damaged, [*lead, *CLIP])[len(lead) :]
    torch.testing.assert_close(after, tracked(sound, CLIP), atol=1e-4, rtol=0)


# ---- a device that is too small ---------------------------------------------------------------------------

Limit = Callable[[Callable[[int], bool]], None]


@pytest.fixture
def baseline(segmenter: Segmenter, query: Query) -> Tensor:
    return tracked(segmenter.track(query, chunk=1))


@pytest.fixture
def encoder(segmenter: Segmenter, monkeypatch: pytest.MonkeyPatch) -> Limit:
    """Limits the mask encoder: batches of a size for which `fits` is false run out of memory, as on a small GPU."""
    monkeypatch.setattr(tracking, "ALONE", frozenset())
    encode = segmenter.model.segmentor.encoder.forward

    def limit(fits: Callable[[int], bool]) -> None:
        def limited(pixels: Tensor) -> Any:
            return encode(pixels) if fits(len(pixels)) else out_of_memory()

        monkeypatch.setattr(segmenter.model.segmentor.encoder, "forward", limited)

    return limit


@pytest.mark.parametrize(("largest", "chunk"), [(1, 1), (2, 2), (3, 2), (7, 4), (8, 8)])
def test_the_chunk_is_halved_until_it_fits(
    segmenter: Segmenter, query: Query, baseline: Tensor, encoder: Limit, largest: int, chunk: int
) -> None:
    encoder(lambda batch: batch <= largest)
    tracker = segmenter.track(query, chunk=8)
    torch.testing.assert_close(tracked(tracker), baseline, atol=1e-4, rtol=1e-4)
    assert tracker.budget == Budget(chunk, offload=False)


def test_features_wait_on_the_host_when_a_single_frame_is_too_much(
    segmenter: Segmenter, query: Query, baseline: Tensor, encoder: Limit
) -> None:
    failures = iter([False] * 4)
    encoder(lambda _: next(failures, True))
    tracker = segmenter.track(query, chunk=8)
    torch.testing.assert_close(tracked(tracker), baseline, atol=1e-4, rtol=1e-4)
    assert tracker.budget == Budget(1, offload=True)


def test_too_little_even_so_is_one_clear_line_and_the_step_can_be_taken_again(
    segmenter: Segmenter, query: Query, baseline: Tensor, encoder: Limit
) -> None:
    allowed = [3]

    def fits(batch: int) -> bool:
        allowed[0] -= 1
        return allowed[0] >= 0

    encoder(fits)
    tracker = segmenter.track(query, chunk=1)
    done: list[FrameResult] = []
    with pytest.raises(DeviceMemoryError, match="with a single frame at a time: use fewer prompts") as error:
        done.extend(tracker.step(CLIP))  # keeps what came before the failure
    assert "\n" not in str(error.value)
    assert [result.frame.index for result in done] == [0, 1, 2]
    allowed[0] = 100
    done.extend(tracker.step(CLIP[len(done) :]))
    torch.testing.assert_close(logits(done), baseline, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("part", ["decode", "memory_maps"])
def test_running_out_while_decoding_loses_no_frame_and_encodes_the_rest_in_smaller_chunks(
    segmenter: Segmenter,
    query: Query,
    baseline: Tensor,
    encoder: Limit,
    monkeypatch: pytest.MonkeyPatch,
    part: str,
) -> None:
    run, calls = getattr(segmenter.model.segmentor, part), iter(range(1000))
    monkeypatch.setattr(
        segmenter.model.segmentor,
        part,
        lambda *args: out_of_memory() if next(calls) in (2, 6) else run(*args),
    )
    encoded: list[int] = []
    encoder(lambda batch: encoded.append(batch) is None)
    tracker = segmenter.track(query, chunk=8)
    torch.testing.assert_close(tracked(tracker), baseline, atol=1e-4, rtol=1e-4)
    assert encoded == [8, 4, 2, 1]
    assert tracker.budget == Budget(2)
    assert tracker.state.memory.step == len(CLIP)


class NoStream:
    """Stands for a GPU's stream where there is none: all that is asked of it is done already."""

    def wait_stream(self, stream: object) -> None: ...

    def record_event(self) -> None: ...


@pytest.fixture
def drawing_ahead(segmenter: Segmenter, query: Query, monkeypatch: pytest.MonkeyPatch) -> Tracker:
    """A tracker that draws the next frame before it gives one out, as on a GPU."""
    monkeypatch.setattr(torch.cuda, "stream", lambda _: nullcontext())
    monkeypatch.setattr(torch.cuda, "current_stream", lambda _: None)
    tracker = segmenter.track(query, chunk=3)
    monkeypatch.setattr(tracker, "_stream", NoStream())
    monkeypatch.setattr(tracker, "_records", False)
    return tracker


def test_drawing_ahead_gives_the_same_frames_and_states(
    segmenter: Segmenter, query: Query, drawing_ahead: Tracker
) -> None:
    plain = segmenter.track(query, chunk=3)
    blocks = [CLIP[:3], CLIP[3:4], CLIP[4:]]
    for ours, theirs in zip(drawing_ahead.run(blocks), plain.run(blocks), strict=True):
        assert torch.equal(ours.prediction.mask_logits_bqhw, theirs.prediction.mask_logits_bqhw)
        assert drawing_ahead.state.index == ours.frame.index == plain.state.index
        assert drawing_ahead.state.memory.step == plain.state.memory.step


def test_drawing_ahead_can_be_left_and_taken_up_again(drawing_ahead: Tracker, baseline: Tensor) -> None:
    done = list(islice(drawing_ahead.step(CLIP), 4))
    done.extend(drawing_ahead.step(CLIP[4:]))
    torch.testing.assert_close(logits(done), baseline, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("part", ["decode", "memory_maps"])
def test_drawing_ahead_loses_no_frame_when_memory_runs_out(
    segmenter: Segmenter, drawing_ahead: Tracker, baseline: Tensor, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    run, calls = getattr(segmenter.model.segmentor, part), iter(range(1000))
    monkeypatch.setattr(
        segmenter.model.segmentor, part, lambda *args: out_of_memory() if next(calls) == 4 else run(*args)
    )
    torch.testing.assert_close(tracked(drawing_ahead), baseline, atol=1e-4, rtol=1e-4)
    assert drawing_ahead.budget == Budget(1)


def test_the_working_set_shrinks_to_nothing_less_than_one_frame_on_the_host() -> None:
    budgets = [Budget(6)]
    while (tighter := budgets[-1].tightened()) is not None:
        budgets.append(tighter)
    assert budgets == [Budget(6), Budget(3), Budget(1), Budget(1, offload=True)]


# ---- loading ----------------------------------------------------------------------------------------------


def test_a_model_folder_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelError):
        load_segmenter(tmp_path)
