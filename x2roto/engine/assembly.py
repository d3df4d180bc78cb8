"""From tokens and pictures to the decoder's conditions: rows spliced into the prompt, states pooled after it.

Pure functions over tensors, no model inside. `splice` comes before the language model, `generated_ids` after
it when it wrote the answer itself, `pool` last (arXiv 2605.00891; wanghao9610/X2SAM@5b0b106
`x2sam/x2sam/model/utils/input_process.py`, `x2sam/x2sam/model/x2sam.py`).

Index arrays: `cond_ids` numbers the phrase a position belongs to, `seg_ids` the <SEG> it is; -1 is neither.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

REGION = -400
VISUAL = -1000
NONE = -1
IGNORED_LABEL = -100


@dataclass(frozen=True, slots=True)
class Spliced:
    """The language model's input, rows padded right to the longest sample.

    `embeds_bld` (B, L, D), zero where padded; `attention_mask` and `visual_mask` (B, L) bool, True where a
    row is real and where it came from the picture; `position_ids`, `cond_ids`, `seg_ids` and `labels` (B, L)
    int64, padded with 1, -1, -1 and -100.
    """

    embeds_bld: Tensor
    attention_mask: Tensor
    position_ids: Tensor
    visual_mask: Tensor
    cond_ids: Tensor
    seg_ids: Tensor
    labels: Tensor


@dataclass(frozen=True, slots=True)
class Conditions:
    """What the mask decoder is asked for.

    `cond_embeds` (B, K, C) one row per phrase, the background last; `token_embeds` (B, N, C) all rows of all
    phrases; `seg_embeds` (B, 1, C); `embed_mask` (B, K), or (K,) when shared by the batch, and `token_mask`
    (B, N) bool, True where a row is real.
    """

    cond_embeds: Tensor
    token_embeds: Tensor
    seg_embeds: Tensor
    embed_mask: Tensor
    token_mask: Tensor

    @classmethod
    def without_language(cls, batch: int, dim: int, device: torch.device, dtype: torch.dtype) -> Self:
        """One token of zeros, nothing added to the queries."""
        zeros = torch.zeros(batch, 1, dim, device=device, dtype=dtype)
        real = torch.ones(batch, 1, dtype=torch.bool, device=device)
        return cls(zeros, zeros, zeros, real, real)


def splice(
    embed: Callable[[Tensor], Tensor],
    input_ids: Tensor,
    visual_rows: Tensor,
    region_rows: Tensor | None = None,
    *,
    attention_mask: Tensor | None = None,
    cond_ids: Tensor | None = None,
    seg_ids: Tensor | None = None,
    labels: Tensor | None = None,
) -> Spliced:
    """The prompt with vision and region rows in place of their markers.

    `input_ids` (B, L): each -1000 takes the next of `visual_rows` (n, D), each -400 all rows of the next of
    `region_rows` (R, K, D), counted over the whole batch. Region rows get the number of the region within its
    sample as condition. `embed` maps token ids (n,) to rows (n, D) and never sees a marker; the result has
    its dtype. Positions outside `attention_mask` are dropped. Raises ValueError when rows and markers differ
    in number, or for a negative id that is no marker.
    """
    if attention_mask is None:
        attention_mask = torch.ones_like(input_ids)
    if region_rows is None:
        region_rows = visual_rows.new_zeros(0, 1, visual_rows.shape[-1])
    attended = attention_mask.bool()
    _check(input_ids[attended], len(visual_rows), len(region_rows))
    is_region = (input_ids == REGION) & attended
    repeats = torch.where(is_region, region_rows.shape[1], attended.long())
    lengths = repeats.sum(1).tolist()
    source = torch.arange(input_ids.numel(), device=input_ids.device).repeat_interleave(repeats.flatten())

    ids = input_ids.flatten()[source]
    visual, region = ids == VISUAL, ids == REGION
    token = ~(visual | region)
    embedded = embed(ids[token])
    rows = embedded.new_zeros(len(ids), visual_rows.shape[-1])
    rows[token] = embedded
    rows[visual] = visual_rows.to(rows)
    rows[region] = region_rows.flatten(0, 1).to(rows)

    def follow(array: Tensor | None, otherwise: int) -> Tensor:
        """The entries of `array` at the token rows, `otherwise` elsewhere or without an array."""
        array = torch.full_like(input_ids, otherwise) if array is None else array
        return torch.where(token, array.flatten()[source], otherwise)

    number = (is_region.cumsum(1) - 1).flatten()[source]
    cond = torch.where(region, number, follow(cond_ids, NONE))
    real = _padded(torch.ones_like(token), lengths, 0)
    positions = torch.arange(real.shape[1], device=ids.device).expand_as(real)
    return Spliced(
        embeds_bld=_padded(rows, lengths, 0),
        attention_mask=real,
        position_ids=positions.masked_fill(~real, 1),
        visual_mask=_padded(visual, lengths, 0),
        cond_ids=_padded(cond, lengths, NONE),
        seg_ids=_padded(follow(seg_ids, NONE), lengths, NONE),
        labels=_padded(follow(labels, IGNORED_LABEL), lengths, IGNORED_LABEL),
    )


def _check(ids: Tensor, visual_rows: int, regions: int) -> None:
    for name, marker, rows in (("vision rows", VISUAL, visual_rows), ("regions", REGION, regions)):
        wanted = int((ids == marker).sum())
        if wanted != rows:
            raise ValueError(f"the prompt has room for {wanted} {name} but {rows} were given")
    unknown = ids[(ids < 0) & (ids != VISUAL) & (ids != REGION)]
    if len(unknown):
        raise ValueError(f"id {int(unknown[0])} is neither a token nor the marker {VISUAL} or {REGION}")


def _padded(flat: Tensor, lengths: list[int], value: int) -> Tensor:
    return pad_sequence(list(flat.split(lengths)), batch_first=True, padding_value=value)


def generated_ids(
    prompt_cond_ids: Tensor | None,
    prompt_length: int,
    generated: Tensor,
    *,
    p_start: int,
    p_end: int,
    seg: int,
) -> tuple[Tensor, Tensor]:
    """`cond_ids` and `seg_ids`, both (1, L + n - 1), of a prompt of L rows and the n tokens of its answer.

    `prompt_cond_ids` (1, L) or None, `generated` (n,). Row L + k is the state of token k; the last token was
    never fed back and has none. Once the answer holds a <p>, only its own phrases count.
    """
    fed_back = generated[:-1]
    answer = phrase_ids(fed_back, p_start, p_end)
    prompt = generated.new_full((prompt_length,), NONE)
    marks = torch.cat((prompt, seg_numbers(fed_back, seg)))
    if prompt_cond_ids is not None and not (fed_back == p_start).any():
        prompt = prompt_cond_ids[0]
    return torch.cat((prompt, answer))[None], marks[None]


def phrase_ids(token_ids: Tensor, p_start: int, p_end: int) -> Tensor:
    """(N,): i from the i-th <p> to the i-th </p>, both included, else -1. An unclosed <p> numbers nothing."""
    numbers = torch.full_like(token_ids, NONE)
    starts, ends = ((token_ids == token).nonzero().flatten().tolist() for token in (p_start, p_end))
    for number, (start, end) in enumerate(zip(starts, ends, strict=False)):
        numbers[start : end + 1] = number
    return numbers


def seg_numbers(token_ids: Tensor, seg: int) -> Tensor:
    """(N,): i at the i-th <SEG>, else -1."""
    found = token_ids == seg
    return torch.where(found, found.cumsum(0) - 1, NONE)


def decodable(cond_ids: Tensor, seg_ids: Tensor) -> bool:
    """Whether every sample asks for masks, by a condition and exactly one <SEG>; if not, it is only text."""
    return bool(((cond_ids >= 0).any(1) & ((seg_ids >= 0).sum(1) == 1)).all())


def pool(
    states_blc: Tensor, cond_ids: Tensor, seg_ids: Tensor, background_row: Tensor | None, *, shared: bool
) -> Conditions:
    """The decoder's conditions from the projected states (B, L, C) of prompt and answer.

    A condition is the mean of its positions; the tokens are those positions, in order of condition. With
    `shared` (referring, reasoning) the conditions of all samples are joined, every sample gets all of them,
    and `seg_embeds` has one row per <SEG> of the batch; else samples are zero padded to the longest. The
    `background_row` (1, C) becomes the last condition. Raises ValueError for a sample without a condition
    or without a <SEG>, or with several of them when not `shared`.
    """
    pooled = [_phrases(*sample) for sample in zip(states_blc, cond_ids, strict=True)]
    segs = [states[ids >= 0] for states, ids in zip(states_blc, seg_ids, strict=True)]
    if not all(len(means) for means, _ in pooled):
        raise ValueError("a sample has no <p> phrase to segment")
    if not all(len(seg) if shared else len(seg) == 1 for seg in segs):
        raise ValueError(f"each sample needs one <SEG>, found {[len(seg) for seg in segs]}")
    means, tokens = ([torch.cat(rows)] if shared else list(rows) for rows in zip(*pooled, strict=True))
    cond_embeds, embed_mask = _with_mask(means)
    token_embeds, token_mask = _with_mask(tokens)
    if background_row is not None:
        background = background_row.to(cond_embeds).expand(len(cond_embeds), 1, -1)
        cond_embeds = torch.cat((cond_embeds, background), 1)
        embed_mask = torch.cat((embed_mask, embed_mask.new_ones(len(embed_mask), 1)), 1)
    batch = len(states_blc)
    return Conditions(
        cond_embeds=cond_embeds.expand(batch, -1, -1),
        token_embeds=token_embeds.expand(batch, -1, -1),
        seg_embeds=torch.cat(segs)[:, None],
        embed_mask=embed_mask[0] if shared else embed_mask,
        token_mask=token_mask.expand(batch, -1),
    )


def _phrases(states_lc: Tensor, cond_ids: Tensor) -> tuple[Tensor, Tensor]:
    order = cond_ids.argsort(stable=True)
    order = order[cond_ids[order] >= 0]
    tokens = states_lc[order]
    if not len(tokens):
        return tokens, tokens
    lengths = cond_ids[order].unique_consecutive(return_counts=True)[1].tolist()
    return torch.stack([phrase.mean(0) for phrase in tokens.split(lengths)]), tokens


def _with_mask(rows: list[Tensor]) -> tuple[Tensor, Tensor]:
    real = [row.new_ones(len(row), dtype=torch.bool) for row in rows]
    return pad_sequence(rows, batch_first=True), pad_sequence(real, batch_first=True)


def stack(parts: Sequence[Conditions]) -> Conditions:
    """Independent sets of conditions (each batch 1, background last) as one batch; the background stays last."""
    cond_embeds, embed_mask = _with_mask([p.cond_embeds[0, :-1] for p in parts])
    background = torch.stack([p.cond_embeds[0, -1:] for p in parts])
    token_embeds, token_mask = _with_mask([p.token_embeds[0][p.token_mask[0]] for p in parts])
    return Conditions(
        cond_embeds=torch.cat((cond_embeds, background), 1),
        token_embeds=token_embeds,
        seg_embeds=torch.cat([p.seg_embeds for p in parts]),
        embed_mask=torch.cat((embed_mask, embed_mask.new_ones(len(parts), 1)), 1),
        token_mask=token_mask,
    )
