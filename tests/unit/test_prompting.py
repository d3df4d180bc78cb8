"""Conversations as token streams: a word-level tokenizer stands in for the real one."""

from __future__ import annotations

import numpy as np
import pytest
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers

from x2roto.engine.assembly import NONE as NOTHING
from x2roto.engine.prompting import (
    IGNORED,
    MAX_TOKENS,
    PLACEHOLDER,
    Piece,
    SpecialIds,
    Turn,
    conversation,
    tokenise,
    vision_text,
)
from x2roto.errors import ModelError, PromptError

WORDS = (
    "<unk>",
    "user",
    "assistant",
    "man",
    "dog",
    "It",
    "is",
    ".",
    "and",
    "the",
    "?",
    "seconds",
    "1.0",
    "2.0",
)
ADDED = ("<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<SEG>", "<p>", "</p>")


@pytest.fixture
def tokenizer() -> Tokenizer:
    vocabulary = {word: number for number, word in enumerate(WORDS)}
    made = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.add_special_tokens([AddedToken(text, special=True) for text in ADDED])
    return made


@pytest.fixture
def special(tokenizer: Tokenizer) -> SpecialIds:
    return SpecialIds.of(tokenizer)


def texts(turns: list[Turn], vision: str = "", system: str = "") -> list[str]:
    return [piece.text for piece in conversation(turns, vision, system=system)]


def test_ids_are_looked_up_by_text(tokenizer: Tokenizer, special: SpecialIds) -> None:
    assert tokenizer.id_to_token(special.seg) == "<SEG>"
    assert tokenizer.id_to_token(special.phrase_start) == "<p>"
    assert tokenizer.id_to_token(special.phrase_end) == "</p>"


def test_a_tokenizer_without_the_added_tokens_is_refused() -> None:
    plain = Tokenizer(models.WordLevel({"<unk>": 0}, unk_token="<unk>"))
    plain.pre_tokenizer = pre_tokenizers.Whitespace()
    with pytest.raises(ModelError, match="does not know <SEG>"):
        SpecialIds.of(plain)


def test_an_image_is_one_block_and_a_clip_one_per_step() -> None:
    block = f"<|vision_start|>{PLACEHOLDER * 6}<|vision_end|>"
    assert vision_text("image", (1, 4, 6)) == block
    assert vision_text("video", (2, 4, 6)) == f"<1.0 seconds>{block}<2.0 seconds>{block}"
    assert vision_text("video", (1, 4, 6), seconds=[0.116]) == f"<0.1 seconds>{block}"


def test_time_stamps_must_fit_the_grid() -> None:
    with pytest.raises(ValueError, match="zip"):
        vision_text("video", (2, 4, 6), seconds=[0.1])


def test_a_question_to_be_answered_stops_at_the_assistant() -> None:
    assert texts([Turn("man ?")]) == ["<|im_start|>user\nman ?<|im_end|>\n<|im_start|>assistant\n"]


def test_media_stand_in_the_first_turn_and_the_system_text_before_it() -> None:
    turns = [Turn("man ?", "<SEG>."), Turn("dog ?", "<SEG>.")]
    assert texts(turns, f"<|vision_start|>{PLACEHOLDER}<|vision_end|>", system="the") == [
        "<|im_start|>system\nthe<|im_end|>\n<|im_start|>user\n<|vision_start|>",
        PLACEHOLDER,
        "<|vision_end|>man ?<|im_end|>\n<|im_start|>assistant\n",
        "<SEG>.<|im_end|>",
        "\n",
        "<|im_start|>user\ndog ?<|im_end|>\n<|im_start|>assistant\n",
        "<SEG>.<|im_end|>",
        "\n",
    ]


def test_pieces_of_white_space_between_placeholders_are_dropped() -> None:
    assert texts([Turn("<region> <region>")])[1:3] == ["<region>", "<region>"]


def test_the_stream_of_a_forced_answer(tokenizer: Tokenizer, special: SpecialIds) -> None:
    turns = [Turn("<p>the man</p> and <p><region></p> ?", "It is <SEG>.")]
    stream = tokenise(conversation(turns, vision_text("image", (1, 4, 4))), tokenizer, special)

    assert stream.input_ids.dtype == np.int64
    assert (stream.input_ids == -1000).sum() == 4
    assert (stream.input_ids == -400).sum() == 1
    assert stream.cond_ids is not None
    assert tokens(tokenizer, stream.input_ids[stream.cond_ids == 0]) == ["<p>", "the", "man", "</p>"]
    assert stream.input_ids[stream.cond_ids == 1].tolist() == [special.phrase_start, -400, special.phrase_end]
    assert stream.input_ids[stream.seg_ids == 0].tolist() == [special.seg]
    assert (stream.seg_ids > 0).sum() == 0
    learned = stream.labels != IGNORED
    assert tokens(tokenizer, stream.labels[learned]) == ["It", "is", "<SEG>", ".", "<|im_end|>"]
    assert np.array_equal(stream.labels[learned], stream.input_ids[learned])


def tokens(tokenizer: Tokenizer, ids: np.ndarray) -> list[str | None]:
    return [tokenizer.id_to_token(number) for number in ids.tolist()]


def test_every_turn_has_its_own_phrase_and_seg(tokenizer: Tokenizer, special: SpecialIds) -> None:
    turns = [Turn(f"<p>{word}</p> ?", "<SEG>.") for word in ("man", "dog", "user")]
    stream = tokenise(conversation(turns), tokenizer, special)
    assert stream.cond_ids is not None
    assert stream.cond_ids.max() == stream.seg_ids.max() == 2
    order = [np.flatnonzero(array == number)[0] for number in range(3) for array in (stream.cond_ids, stream.seg_ids)]
    assert order == sorted(order)


def test_a_chat_has_no_conditions(tokenizer: Tokenizer, special: SpecialIds) -> None:
    stream = tokenise(conversation([Turn("man ?")]), tokenizer, special)
    assert stream.cond_ids is None
    assert (stream.seg_ids == NOTHING).all()
    assert (stream.labels == IGNORED).all()


def test_a_prompt_beyond_the_context_is_refused(tokenizer: Tokenizer, special: SpecialIds) -> None:
    marker = Piece(PLACEHOLDER)
    assert len(tokenise([marker] * MAX_TOKENS, tokenizer, special).input_ids) == MAX_TOKENS
    with pytest.raises(PromptError, match="shorten it or show fewer frames"):
        tokenise([marker] * (MAX_TOKENS + 1), tokenizer, special)
