"""The language half against stock Qwen3-VL with the same weights, reached by other ways than ours."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from transformers import DynamicCache, Qwen3VLConfig, Qwen3VLForConditionalGeneration

from tests.tiny import ROWS, TINY
from tests.unit.model_parts import noise, randomised
from x2roto.engine.assembly import VISUAL, Spliced, splice
from x2roto.engine.model.language import LanguageModel, Visual, likeliest

DIM = 32
LANGUAGE = randomised(LanguageModel(TINY.language), std=0.2)
VISIBLE = Visual(noise(4, DIM), tuple(noise(4, DIM, seed=seed) for seed in (1, 2, 3)))
BLIND = Visual(torch.zeros(0, DIM), ())
PROMPT = torch.tensor([[5, 9, *[VISUAL] * 4, 77, 30, 12]])


@pytest.fixture(scope="module")
def stock() -> Qwen3VLForConditionalGeneration:
    model = Qwen3VLForConditionalGeneration(Qwen3VLConfig(**TINY.language))
    model.load_state_dict(LANGUAGE.state_dict(), strict=True)
    return model.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def stock_states(stock: Qwen3VLForConditionalGeneration) -> Callable[[Spliced, Visual], Tensor]:
    """Last-layer states of the stock text model, its final norm taken out, positions left to its default."""
    text = stock.model.language_model

    def states(prompt: Spliced, visual: Visual) -> Tensor:
        norm, text.norm = text.norm, nn.Identity()
        try:
            return text(
                inputs_embeds=prompt.embeds_bld,
                visual_pos_masks=prompt.visual_mask,
                deepstack_visual_embeds=list(visual.deepstack),
            ).last_hidden_state
        finally:
            text.norm = norm

    return states


def spliced(ids: Tensor, visual: Visual = VISIBLE, attention_mask: Tensor | None = None) -> Spliced:
    return splice(LANGUAGE.get_input_embeddings(), ids, visual.rows, attention_mask=attention_mask)


def scripted(ids: Iterable[int]) -> Callable[[Tensor], int]:
    """A choice of tokens known beforehand."""
    script = iter(ids)
    return lambda _: next(script)


def test_states_are_the_last_layer_s_before_the_final_norm(
    stock_states: Callable[[Spliced, Visual], Tensor],
) -> None:
    prompt = spliced(PROMPT)
    torch.testing.assert_close(LANGUAGE.think(prompt, VISIBLE), stock_states(prompt, VISIBLE), atol=1e-4, rtol=1e-4)


def test_logits_are_those_of_the_stock_model(stock: Qwen3VLForConditionalGeneration) -> None:
    ids = torch.tensor([[5, 9, 77, 30, 12]])
    ours = LANGUAGE.logits(LANGUAGE.think(spliced(ids, BLIND), BLIND))
    torch.testing.assert_close(ours, stock(input_ids=ids).logits, atol=1e-4, rtol=1e-4)


def test_pictures_enter_by_their_rows_and_by_every_deepstack_layer() -> None:
    states = LANGUAGE.think(spliced(PROMPT), VISIBLE)
    before, after = states[0, :2], states[0, 2:]
    for layer in range(3):
        others = tuple(rows + (index == layer) for index, rows in enumerate(VISIBLE.deepstack))
        changed = LANGUAGE.think(spliced(PROMPT), replace(VISIBLE, deepstack=others))
        torch.testing.assert_close(changed[0, :2], before)
        assert (changed[0, 2:] - after).abs().max() > 1e-2


def test_padded_rows_equal_each_prompt_alone() -> None:
    long, short = torch.tensor([[5, 9, 77, 30, 12]]), torch.tensor([[8, 3]])
    ids = torch.cat((long, torch.nn.functional.pad(short, (0, 3))))
    mask = torch.tensor([[1] * 5, [1, 1, 0, 0, 0]])
    together = LANGUAGE.think(spliced(ids, BLIND, mask), BLIND)
    for index, alone in enumerate((long, short)):
        expected = LANGUAGE.think(spliced(alone, BLIND), BLIND)[0]
        torch.testing.assert_close(together[index, : alone.shape[1]], expected, atol=1e-4, rtol=1e-4)


def test_written_states_are_those_of_the_answer_given_beforehand() -> None:
    answer = [40, 41, 42, 7, 43]
    written = LANGUAGE.write(spliced(PROMPT), VISIBLE, [43], choose=scripted(answer))
    assert written.ids == tuple(answer)
    assert written.states_bld.shape == (1, PROMPT.shape[1] + len(answer) - 1, DIM)
    forced = torch.cat((PROMPT, torch.tensor([answer[:-1]])), dim=1)
    torch.testing.assert_close(written.states_bld, LANGUAGE.think(spliced(forced), VISIBLE), atol=1e-4, rtol=1e-4)


def test_the_likeliest_answer_is_stock_s_greedy_one(stock: Qwen3VLForConditionalGeneration) -> None:
    ids = torch.tensor([[5, 9, 77, 30, 12]])
    ours = LANGUAGE.write(spliced(ids, BLIND), BLIND, [], limit=12)
    theirs = stock.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=12,
        do_sample=False,
        eos_token_id=None,
        pad_token_id=0,
    )
    assert list(ours.ids) == theirs[0, ids.shape[1] :].tolist()
    assert len(set(ours.ids)) > 1


def test_writing_ends_with_any_stop_token() -> None:
    for stop in (40, 41):
        written = LANGUAGE.write(spliced(PROMPT), VISIBLE, {stop, 99}, choose=scripted([7, 8, stop, 9]))
        assert written.ids == (7, 8, stop)


@pytest.mark.parametrize("limit", [1, 4])
def test_writing_respects_the_limit(limit: int) -> None:
    written = LANGUAGE.write(spliced(PROMPT), VISIBLE, [], limit=limit, choose=scripted(range(50)))
    assert written.ids == tuple(range(limit))
    assert written.states_bld.shape[1] == PROMPT.shape[1] + limit - 1


def test_the_choice_is_given_one_row_of_logits() -> None:
    shapes: list[tuple[int, ...]] = []

    def choose(logits: Tensor) -> int:
        shapes.append(tuple(logits.shape))
        return likeliest(logits)

    LANGUAGE.write(spliced(PROMPT), VISIBLE, [], limit=2, choose=choose)
    assert shapes == [(ROWS,)] * 2


def test_nothing_stays_hooked_after_a_failure() -> None:
    prompt = spliced(PROMPT)
    with pytest.raises(RuntimeError):
        LANGUAGE.think(prompt, Visual(VISIBLE.rows, (noise(3, DIM),)))
    assert not LANGUAGE.model.language_model.norm._forward_pre_hooks
    assert torch.isfinite(LANGUAGE.think(prompt, VISIBLE)).all()


def test_a_cache_is_the_caller_s() -> None:
    cache = DynamicCache(config=LANGUAGE.model.language_model.config)
    LANGUAGE.think(spliced(PROMPT), VISIBLE, cache)
    assert cache.get_seq_length() == PROMPT.shape[1]


def test_pictures_seen_together_equal_each_alone() -> None:
    vision = LANGUAGE.model.visual.config
    width = 3 * vision.temporal_patch_size * vision.patch_size**2
    clips = [(noise(16, width), (1, 4, 4)), (noise(16, width, seed=1), (2, 2, 4))]
    grids = torch.tensor([grid for _, grid in clips])
    together = LANGUAGE.see(torch.cat([patches for patches, _ in clips]), grids)
    alone = [LANGUAGE.see(patches, torch.tensor([grid])) for patches, grid in clips]
    assert together.rows.shape == (8, DIM)
    assert len(together.deepstack) == 3
    torch.testing.assert_close(together.rows, torch.cat([seen.rows for seen in alone]), atol=1e-4, rtol=1e-4)
    for index, rows in enumerate(together.deepstack):
        expected = torch.cat([seen.deepstack[index] for seen in alone])
        torch.testing.assert_close(rows, expected, atol=1e-4, rtol=1e-4)
