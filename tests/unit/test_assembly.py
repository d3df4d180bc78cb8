"""Splicing and pooling on inputs whose answer is known by construction."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from x2roto.engine.assembly import decodable, generated_ids, phrase_ids, pool, seg_numbers, splice

P, END, SEG = 10, 11, 12


def embed(ids: Tensor) -> Tensor:
    """Rows that spell their id; a marker reaching the table is an error."""
    assert (ids >= 0).all()
    return ids[:, None].float().expand(-1, 2)


def rows(*values: float) -> Tensor:
    return torch.tensor(values)[:, None].expand(-1, 2)


def test_markers_are_replaced_in_order_across_the_batch() -> None:
    ids = torch.tensor([[5, -1000, -400, 6], [-1000, -400, -1000, 7]])
    spliced = splice(embed, ids, rows(0.1, 0.2, 0.3), torch.stack([rows(0.4, 0.5), rows(0.6, 0.7)]))
    first = spliced.embeds_bld[..., 0]
    torch.testing.assert_close(first, torch.tensor([[5, 0.1, 0.4, 0.5, 6], [0.2, 0.6, 0.7, 0.3, 7]]))
    assert spliced.visual_mask.nonzero().tolist() == [[0, 1], [1, 0], [1, 3]]


def test_region_rows_carry_their_number_within_the_sample() -> None:
    ids = torch.tensor([[P, -400, END, P, -400, END], [P, -400, END, 5, 5, 5]])
    cond = torch.tensor([[0, 0, 0, 1, 1, 1], [0, 0, 0, -1, -1, -1]])
    regions = torch.stack([rows(1, 2)] * 3)
    spliced = splice(embed, ids, torch.zeros(0, 2), regions, cond_ids=cond)
    assert spliced.cond_ids.tolist() == [[0, 0, 0, 0, 1, 1, 1, 1], [0, 0, 0, 0, -1, -1, -1, -1]]


def test_inserted_rows_are_no_seg_and_not_supervised() -> None:
    ids = torch.tensor([[-1000, -400, SEG]])
    everywhere = torch.full_like(ids, 3)
    spliced = splice(embed, ids, rows(1), rows(2, 3)[None], seg_ids=everywhere, labels=everywhere)
    assert spliced.seg_ids.tolist() == [[-1, -1, -1, 3]]
    assert spliced.labels.tolist() == [[-100, -100, -100, 3]]


def test_padding_is_cut_and_put_back_on_the_right() -> None:
    ids = torch.tensor([[0, 0, 5, 6], [7, -1000, 8, 9]])
    mask = torch.tensor([[0, 0, 1, 1], [1, 1, 1, 1]])
    spliced = splice(embed, ids, rows(0.5), attention_mask=mask, labels=ids)
    assert spliced.attention_mask.tolist() == [[True, True, False, False], [True] * 4]
    assert spliced.position_ids.tolist() == [[0, 1, 1, 1], [0, 1, 2, 3]]
    assert spliced.embeds_bld[0, :, 0].tolist() == [5, 6, 0, 0]
    assert spliced.labels[0].tolist() == [5, 6, -100, -100]


def test_markers_in_the_padding_take_no_rows() -> None:
    ids, mask = torch.tensor([[-1000, 5, -1000]]), torch.tensor([[1, 1, 0]])
    assert splice(embed, ids, rows(0.5), attention_mask=mask).embeds_bld[0, :, 0].tolist() == [0.5, 5]


def test_rows_keep_their_gradient() -> None:
    visual = torch.zeros(1, 2, requires_grad=True)
    splice(embed, torch.tensor([[5, -1000]]), visual).embeds_bld[0, 1].sum().backward()
    assert visual.grad is not None
    assert visual.grad.tolist() == [[1, 1]]


@pytest.mark.parametrize(
    ("ids", "visual", "message"),
    [
        ([5, -1000], 2, "room for 1 vision rows but 2"),
        ([5, -400], 0, "room for 1 regions but 0"),
        ([5, -200], 0, "id -200 is neither"),
    ],
)
def test_rows_and_markers_must_match(ids: list[int], visual: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        splice(embed, torch.tensor([ids]), torch.zeros(visual, 2))


def test_phrases_pair_by_order_and_unclosed_ones_do_not_count() -> None:
    assert phrase_ids(torch.tensor([P, 5, END, 6, P, END, P]), P, END).tolist() == [0, 0, 0, -1, 1, 1, -1]


def test_segs_are_numbered() -> None:
    assert seg_numbers(torch.tensor([SEG, 5, SEG]), SEG).tolist() == [0, -1, 1]


def answered(*generated: int, prompt: Tensor | None = None) -> tuple[list[int], list[int]]:
    cond, seg = generated_ids(prompt, 3, torch.tensor(generated), p_start=P, p_end=END, seg=SEG)
    return cond[0].tolist(), seg[0].tolist()


def test_the_prompt_s_phrases_hold_until_the_answer_has_its_own() -> None:
    prompt = torch.tensor([[0, 0, -1]])
    assert answered(SEG, 5, 9, prompt=prompt) == ([0, 0, -1, -1, -1], [-1, -1, -1, 0, -1])
    assert answered(P, END, SEG, 9, prompt=prompt)[0] == [-1, -1, -1, 0, 0, -1]
    assert answered(P, SEG, 9, prompt=prompt)[0] == [-1] * 5


def test_the_last_generated_token_has_no_state() -> None:
    assert answered(5, SEG) == ([-1] * 4, [-1] * 4)


@pytest.mark.parametrize(
    ("cond", "seg", "expected"),
    [
        ([[0, -1]], [[-1, 0]], True),
        ([[-1, -1]], [[-1, 0]], False),
        ([[0, -1]], [[-1, -1]], False),
        ([[0, -1]], [[0, 1]], False),
        ([[0, -1], [-1, -1]], [[-1, 0], [-1, 0]], False),
    ],
)
def test_masks_need_a_condition_and_one_seg(cond: list[Any], seg: list[Any], expected: bool) -> None:
    assert decodable(torch.tensor(cond), torch.tensor(seg)) is expected


STATES = torch.arange(8.0).reshape(2, 4, 1)
COND = torch.tensor([[1, 0, 1, -1], [0, -1, -1, -1]])
SEGS = torch.tensor([[-1, -1, -1, 0], [-1, 0, -1, -1]])


def test_conditions_are_means_in_order_padded_per_sample() -> None:
    pooled = pool(STATES, COND, SEGS, torch.tensor([[9.0]]), shared=False)
    assert pooled.cond_embeds[..., 0].tolist() == [[1, 1, 9], [4, 0, 9]]
    assert pooled.embed_mask.tolist() == [[True, True, True], [True, False, True]]
    assert pooled.token_embeds[..., 0].tolist() == [[1, 0, 2], [4, 0, 0]]
    assert pooled.token_mask.tolist() == [[True] * 3, [True, False, False]]
    assert pooled.seg_embeds[..., 0].tolist() == [[3], [5]]


def test_shared_conditions_are_joined_for_the_whole_batch() -> None:
    pooled = pool(STATES, COND, SEGS, torch.tensor([[9.0]]), shared=True)
    assert pooled.cond_embeds[..., 0].tolist() == [[1, 1, 4, 9]] * 2
    assert pooled.embed_mask.tolist() == [True] * 4
    assert pooled.token_embeds[..., 0].tolist() == [[1, 0, 2, 4]] * 2
    assert pooled.token_mask.shape == (2, 4)


def test_without_a_background_row_the_phrases_are_all() -> None:
    assert pool(STATES, COND, SEGS, None, shared=False).cond_embeds.shape == (2, 2, 1)


def test_several_segs_are_one_row_each_when_shared_and_refused_when_not() -> None:
    segs = torch.tensor([[0, -1, -1, 1], [-1, 0, -1, -1]])
    assert pool(STATES, COND, segs, None, shared=True).seg_embeds[..., 0].tolist() == [[0], [3], [5]]
    with pytest.raises(ValueError, match=r"one <SEG>, found \[2, 1\]"):
        pool(STATES, COND, segs, None, shared=False)


@pytest.mark.parametrize("shared", [True, False])
def test_a_sample_without_phrase_or_seg_is_refused(shared: bool) -> None:
    nothing = torch.full_like(COND, -1)
    with pytest.raises(ValueError, match="no <p> phrase"):
        pool(STATES, nothing, SEGS, None, shared=shared)
    with pytest.raises(ValueError, match="one <SEG>"):
        pool(STATES, COND, nothing, None, shared=shared)
