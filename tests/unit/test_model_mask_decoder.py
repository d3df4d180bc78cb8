"""The mask decoder against a formulation with torch's own attention, and the rules of its masks and padding."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.unit.model_parts import levels, noise, random_conditions, randomised
from x2roto.engine.assembly import Conditions, stack
from x2roto.engine.model.config import MaskDecoderConfig
from x2roto.engine.model.encodings import sine
from x2roto.engine.model.mask_decoder import (
    ClassPredictor,
    Decoded,
    DecoderLayer,
    MaskDecoder,
    PackedAttention,
    SplitAttention,
    attention_mask,
)

DIM, HEADS, QUERIES = 16, 4, 6
DECODER = randomised(MaskDecoder(MaskDecoderConfig(queries=QUERIES, layers=4, heads=HEADS, feedforward=24), DIM))
COARSE_TO_FINE = ((3, 4), (6, 8), (12, 16))
LEVELS = levels(COARSE_TO_FINE, 1, DIM)
MASKS = noise(1, DIM, 12, 16, seed=9)
CONDITIONS = random_conditions(2, 7, DIM)


# ---- what a query may read --------------------------------------------------------------------------------


def allowed(*logits: float) -> list[bool]:
    """What one query with a one-row mask of these logits may read at the same size."""
    mask = attention_mask(torch.tensor(logits)[None, None, None], (1, len(logits)))
    assert mask.shape == (1, 1, 1, len(logits))
    return mask[0, 0, 0].tolist()


def test_a_query_reads_where_its_mask_is_at_least_one_half() -> None:
    assert allowed(3.0, 0.0, -3.0) == [True, True, False]


def test_the_rounding_of_the_sigmoid_at_one_half_belongs_to_the_rule() -> None:
    assert torch.tensor(-1e-9).sigmoid() == 0.5
    assert allowed(-1e-9, -1e-3) == [True, False]


def test_a_query_with_an_empty_mask_reads_everywhere() -> None:
    assert allowed(-1.0, -2.0, -3.0) == [True, True, True]
    both = torch.tensor([[-1.0, -2.0], [-1.0, 2.0]])[None, :, None]
    assert attention_mask(both, (1, 2))[0, 0].tolist() == [[True, True], [False, True]]


def test_masks_are_resized_bilinearly_without_antialias() -> None:
    logits = 4 * noise(1, 2, 8, 8)
    halved = F.avg_pool2d(logits, 2)
    # A quarter of the size reads the middle 2x2 of each 4x4 only.
    quarter = F.avg_pool2d(logits.unfold(2, 4, 4).unfold(3, 4, 4)[..., 1:3, 1:3].flatten(2, 3).flatten(3), (1, 4))
    for resized, size in ((halved.flatten(2), (4, 4)), (quarter[..., 0], (2, 2))):
        expected = resized >= 0
        assert expected.any(-1).all()
        assert torch.equal(attention_mask(logits, size)[:, 0], expected)


# ---- attention --------------------------------------------------------------------------------------------


def test_packed_attention_is_torch_s_multihead_attention() -> None:
    packed = randomised(PackedAttention(DIM, HEADS))
    stock = nn.MultiheadAttention(DIM, HEADS, batch_first=True).requires_grad_(False)
    stock.load_state_dict(packed.state_dict(), strict=True)
    q, k, v = noise(2, 5, DIM), noise(2, 7, DIM, seed=1), noise(2, 7, DIM, seed=2)
    mask = noise(2, 1, 5, 7, seed=3) > -0.5
    hidden = ~mask.expand(-1, HEADS, -1, -1).flatten(0, 1)
    expected, _ = stock(q, k, v, attn_mask=hidden)
    torch.testing.assert_close(packed(q, k, v, mask), expected, atol=1e-4, rtol=1e-4)


def test_split_attention_places_queries_and_keys_but_not_values() -> None:
    split = randomised(SplitAttention(DIM, HEADS))
    stock = nn.MultiheadAttention(DIM, HEADS, batch_first=True).requires_grad_(False)
    parts = (split.q_proj, split.k_proj, split.v_proj)
    stock.in_proj_weight.copy_(torch.cat([part.weight for part in parts]))
    stock.in_proj_bias.copy_(torch.cat([part.bias for part in parts]))
    stock.out_proj.load_state_dict(split.out_proj.state_dict())
    hidden, positions = noise(2, 5, DIM), noise(5, DIM, seed=1)
    expected, _ = stock(hidden + positions, hidden + positions, hidden)
    torch.testing.assert_close(split(hidden + positions, hidden), expected, atol=1e-4, rtol=1e-4)


# ---- the whole decoder ------------------------------------------------------------------------------------


def multihead(part: PackedAttention, q: Tensor, k: Tensor, v: Tensor, hidden: Tensor | None = None) -> Tensor:
    stock = nn.MultiheadAttention(DIM, HEADS, batch_first=True).requires_grad_(False)
    stock.load_state_dict(part.state_dict())
    return stock(q, k, v, attn_mask=hidden)[0]


def plain_layer(layer: DecoderLayer, h: Tensor, level: int, mask_logits: Tensor, conditions: Conditions) -> Tensor:
    """Image, language, self, feed-forward, each added and then normed."""
    positions = DECODER.queries_embedder.weight
    size = COARSE_TO_FINE[level]
    image = LEVELS[level].flatten(2).mT + DECODER.level_embed.weight[level]
    keys = image + sine(DIM, *size).flatten(1).T
    hidden = F.interpolate(mask_logits, size=size, mode="bilinear").sigmoid().flatten(2)[0] < 0.5
    hidden[hidden.all(-1)] = False
    h = layer.cross_attn_layer_norm(h + multihead(layer.cross_attn, h + positions, keys, image, hidden))
    tokens = conditions.token_embeds
    h = layer.text_cross_attn_layer_norm(h + multihead(layer.text_cross_attn, h + positions, tokens, tokens))
    h = layer.self_attn_layer_norm(h + layer.self_attn(h + positions, h))
    return layer.final_layer_norm(h + layer.fc2(F.relu(layer.fc1(h))))


def plain_masks(h: Tensor) -> Tensor:
    x = DECODER.decoder.layernorm(h)
    first, second, last = DECODER.decoder.mask_predictor.mask_embedder
    embedded = last[0](F.relu(second[0](F.relu(first[0](x)))))
    return (embedded @ MASKS.flatten(2)).unflatten(2, MASKS.shape[-2:])


def test_equals_a_plain_formulation_layer_by_layer() -> None:
    h = DECODER.queries_features.weight + CONDITIONS.seg_embeds
    ours = list(DECODER.layers(LEVELS, MASKS, CONDITIONS))
    assert len(ours) == 1 + len(DECODER.decoder.layers)
    for index, decoded in enumerate(ours):
        if index:
            layer, level = DECODER.decoder.layers[index - 1], (index - 1) % 3
            h = plain_layer(layer, h, level, ours[index - 1].mask_logits_bqhw, CONDITIONS)
        torch.testing.assert_close(decoded.hidden_bqc, h, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(decoded.queries_bqc, DECODER.decoder.layernorm(h), atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(decoded.mask_logits_bqhw, plain_masks(h), atol=1e-4, rtol=1e-5)


def test_forward_gives_the_state_after_the_last_layer() -> None:
    *_, last = DECODER.layers(LEVELS, MASKS, CONDITIONS)
    assert torch.equal(DECODER(LEVELS, MASKS, CONDITIONS).mask_logits_bqhw, last.mask_logits_bqhw)


# ---- padding ----------------------------------------------------------------------------------------------


def decode(conditions: Conditions) -> tuple[Decoded, Tensor]:
    """Features of one frame for every set of conditions, with class logits."""
    batch = len(conditions.seg_embeds)
    feats = tuple(level.expand(batch, -1, -1, -1) for level in LEVELS)
    decoded = DECODER(feats, MASKS.expand(batch, -1, -1, -1), conditions)
    return decoded, randomised(ClassPredictor())(decoded.queries_bqc, conditions)


def test_different_sets_of_conditions_as_a_batch_equal_each_alone() -> None:
    parts = [random_conditions(1, 3, DIM, seed=10), random_conditions(4, 9, DIM, seed=20)]
    together, classes = decode(stack(parts))
    for index, part in enumerate(parts):
        alone, its_classes = decode(part)
        torch.testing.assert_close(together.hidden_bqc[index], alone.hidden_bqc[0], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(together.mask_logits_bqhw[index], alone.mask_logits_bqhw[0], atol=1e-4, rtol=1e-5)
        phrases = its_classes.shape[-1] - 1
        torch.testing.assert_close(classes[index, :, :phrases], its_classes[0, :, :-1], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(classes[index, :, -1], its_classes[0, :, -1], atol=1e-4, rtol=1e-4)
        assert (classes[index, :, phrases:-1] == -1e6).all()


def test_padded_tokens_are_never_read() -> None:
    padded = replace(
        CONDITIONS,
        token_embeds=torch.cat((CONDITIONS.token_embeds, torch.full((1, 2, DIM), 50.0)), 1),
        token_mask=torch.cat((CONDITIONS.token_mask, torch.zeros(1, 2, dtype=torch.bool)), 1),
    )
    torch.testing.assert_close(decode(padded)[0].hidden_bqc, decode(CONDITIONS)[0].hidden_bqc)


def test_the_order_of_phrases_moves_columns_and_nothing_else() -> None:
    tokens = torch.randperm(7, generator=torch.Generator().manual_seed(0))
    moved = replace(
        CONDITIONS,
        cond_embeds=CONDITIONS.cond_embeds[:, [1, 0, 2]],
        token_embeds=CONDITIONS.token_embeds[:, tokens],
    )
    (before, classes), (after, its_classes) = decode(CONDITIONS), decode(moved)
    torch.testing.assert_close(after.mask_logits_bqhw, before.mask_logits_bqhw, atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(its_classes, classes[..., [1, 0, 2]], atol=1e-4, rtol=1e-4)


# ---- classes ----------------------------------------------------------------------------------------------


def test_class_logits_are_scaled_cosines() -> None:
    predictor, queries = ClassPredictor(), noise(1, QUERIES, DIM)
    logits = predictor(queries, CONDITIONS)
    for query in range(QUERIES):
        for condition in range(3):
            a, b = queries[0, query], CONDITIONS.cond_embeds[0, condition]
            cosine = float(a @ b / (a.norm() * b.norm()))
            assert logits[0, query, condition].item() == pytest.approx(cosine / 0.07, abs=1e-4)


def test_class_logits_are_bounded() -> None:
    predictor = ClassPredictor().requires_grad_(False)
    predictor.logit_scale.fill_(math.log(1000))
    same = replace(CONDITIONS, cond_embeds=torch.stack((torch.ones(DIM), -torch.ones(DIM), torch.ones(DIM)))[None])
    assert predictor(torch.ones(1, 1, DIM), same)[0, 0].tolist() == [50, -50, 50]


def test_one_mask_of_conditions_may_serve_the_whole_batch() -> None:
    predictor, queries = ClassPredictor(), noise(2, QUERIES, DIM)
    mask = torch.tensor([True, False, True])
    shared = predictor(queries, replace(CONDITIONS, embed_mask=mask))
    own = predictor(queries, replace(CONDITIONS, embed_mask=mask.expand(2, -1)))
    assert torch.equal(shared, own)
    assert (shared[..., 1] == -1e6).all()
    assert (shared[..., [0, 2]] > -51).all()
