"""Turns of a conversation as token ids, with the index arrays that mark conditions and masks.

Text first becomes pieces, cut at the four placeholders; each piece is tokenised on its own, as in training.
Source: wanghao9610/X2SAM@5b0b106 x2sam/x2sam/dataset/utils/encode.py and dataset/base_dataset.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, Self

import numpy as np
import torch
from numpy.typing import NDArray

from x2roto.engine.assembly import phrase_ids, seg_numbers
from x2roto.engine.tasks import PHRASE_END, PHRASE_START, REGION, SEG, Media
from x2roto.errors import ModelError, PromptError

Ids = NDArray[np.int64]

PLACEHOLDER = "<|placeholder|>"
MARKERS: Mapping[str, int] = {"<image>": -200, "<video>": -300, REGION: -400, PLACEHOLDER: -1000}
IGNORED = -100  # label of a token that is not learned
# The language model's context less what the reference sets aside for vision rows and the answer.
MAX_TOKENS = 262144 - 1600 - 1024

_AT_MARKERS = re.compile("(" + "|".join(re.escape(marker) for marker in MARKERS) + ")")


class Encoding(Protocol):
    """What a tokenizer returns."""

    @property
    def ids(self) -> Sequence[int]: ...


class Tokenizer(Protocol):
    """The part of `tokenizers.Tokenizer` that is used."""

    def encode(self, sequence: str, *, add_special_tokens: bool) -> Encoding: ...


@dataclass(frozen=True, slots=True)
class Turn:
    """A question and its answer; `answer` None: to be generated, in the last turn only."""

    question: str
    answer: str | None = None


@dataclass(frozen=True, slots=True)
class Piece:
    """Text tokenised as a whole, or one of the `MARKERS`. `learned`: it counts in the language loss."""

    text: str
    learned: bool = False


@dataclass(frozen=True, slots=True)
class SpecialIds:
    """Ids of the three tokens X2SAM adds to the vocabulary."""

    seg: int
    phrase_start: int
    phrase_end: int

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> Self:
        """Looked up by text. Raises ModelError when the tokenizer does not know one as a single token."""
        return cls(*(_single_id(tokenizer, text) for text in (SEG, PHRASE_START, PHRASE_END)))


@dataclass(frozen=True, slots=True)
class TokenStream:
    """A tokenised conversation: int64 arrays of one length.

    `input_ids`: vocabulary ids and the negative `MARKERS`. `cond_ids`: number of the phrase a token belongs
    to, -1 outside; None when there is no phrase. `seg_ids`: number of the `<SEG>`, -1 elsewhere. `labels`:
    the ids of the answers, -100 elsewhere.
    """

    input_ids: Ids
    cond_ids: Ids | None
    seg_ids: Ids
    labels: Ids


def vision_text(
    media: Media, grid: tuple[int, int, int], *, merge: int = 2, seconds: Sequence[float] | None = None
) -> str:
    """The text that stands for an image or a clip, one placeholder per language token.

    `grid`: patches in time, rows and columns. `seconds`: one stamp per step in time; None gives 1.0, 2.0,
    3.0 …, which is what the model saw for every segmentation task. Only chat was trained on real stamps.
    """
    steps, rows, columns = grid
    block = f"<|vision_start|>{PLACEHOLDER * (rows * columns // merge**2)}<|vision_end|>"
    if media == "image":
        return block * steps
    stamps = range(1, steps + 1) if seconds is None else seconds
    return "".join(f"<{stamp:.1f} seconds>{block}" for _, stamp in zip(range(steps), stamps, strict=True))


def conversation(turns: Sequence[Turn], vision: str = "", *, system: str = "") -> Iterator[Piece]:
    """The pieces of a conversation in the model's chat template; `vision` opens the first turn only.

    Ends after `assistant\\n` when the last answer is to be generated.
    """
    lead = f"<|im_start|>system\n{system}<|im_end|>\n" if system else ""
    for turn in turns:
        asked = f"{lead}<|im_start|>user\n{vision}{turn.question}<|im_end|>\n<|im_start|>assistant\n"
        yield from (Piece(text) for text in _AT_MARKERS.split(asked) if text.strip())
        if turn.answer is not None:
            yield Piece(f"{turn.answer}<|im_end|>", learned=True)
            yield Piece("\n")
        lead = vision = ""


def tokenise(pieces: Iterator[Piece] | Sequence[Piece], tokenizer: Tokenizer, special: SpecialIds) -> TokenStream:
    """Every piece encoded on its own, without begin or end tokens, and the index arrays of the whole.

    Raises PromptError above `MAX_TOKENS`; the reference cuts the end off, which holds the question.
    """
    ids: list[int] = []
    labels: list[int] = []
    for piece in pieces:
        marker = MARKERS.get(piece.text)
        encoded = tokenizer.encode(piece.text, add_special_tokens=False).ids if marker is None else (marker,)
        ids.extend(encoded)
        labels.extend(encoded if piece.learned else (IGNORED,) * len(encoded))
    if len(ids) > MAX_TOKENS:
        raise PromptError(f"the prompt has {len(ids)} tokens, above {MAX_TOKENS}: shorten it or show fewer frames")
    input_ids = np.array(ids, dtype=np.int64)
    return TokenStream(
        input_ids,
        condition_ids(input_ids, special.phrase_start, special.phrase_end),
        segment_ids(input_ids, special.seg),
        np.array(labels, dtype=np.int64),
    )


def condition_ids(input_ids: Ids, start: int, end: int) -> Ids | None:
    """For each token the number of its phrase, -1 outside; None when no phrase opens or closes.

    The i-th `start` pairs with the i-th `end`, both included; of overlapping phrases the later one wins and
    an unclosed one does not count.
    """
    if not np.isin(input_ids, (start, end)).any():
        return None
    return phrase_ids(torch.from_numpy(input_ids), start, end).numpy()


def segment_ids(input_ids: Ids, seg: int) -> Ids:
    """For each token the number of the `<SEG>` it is, -1 for all others."""
    return seg_numbers(torch.from_numpy(input_ids), seg).numpy()


def _single_id(tokenizer: Tokenizer, text: str) -> int:
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    if len(ids) != 1:
        raise ModelError(f"the tokenizer does not know {text} as one token: use the tokenizer of an X2SAM model")
    return ids[0]
