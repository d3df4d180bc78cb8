"""The bridges of the whole network."""

from __future__ import annotations

import torch

from tests.tiny import TINY, tiny_model
from tests.unit.model_parts import noise
from x2roto.engine.assembly import REGION, VISUAL
from x2roto.engine.model.language import Visual
from x2roto.engine.model.projectors import fold

MODEL = tiny_model().requires_grad_(False)
TEXT = MODEL.vlm.text_dim


def test_regions_become_language_rows() -> None:
    side, dim = TINY.image_size // 16, TINY.encoder.embed_dims[2]
    stage = noise(1, side, side, dim)
    region_map = MODEL.region_map(stage)
    assert region_map.shape == (1, side // 2, side // 2, TEXT)
    torch.testing.assert_close(region_map, MODEL.extra_projector(fold(stage)))
    points = torch.zeros(2, TINY.region.points, 2)
    rows = MODEL.region_rows(region_map[0], points)
    assert rows.shape == (2, TINY.region.points // TINY.region.pool, TEXT)
    torch.testing.assert_close(rows, region_map[0, 0, 0].expand_as(rows))


def test_a_sequence_holds_words_pictures_and_regions_in_their_places() -> None:
    visual, regions = Visual(noise(2, TEXT), ()), noise(1, 3, TEXT, seed=1)
    prompt = MODEL.assemble(torch.tensor([[7, VISUAL, VISUAL, REGION, 8]]), visual, regions)
    words = MODEL.vlm.get_input_embeddings()(torch.tensor([7, 8]))
    expected = torch.cat((words[:1], visual.rows, regions[0], words[1:]))
    assert torch.equal(prompt.embeds_bld[0], expected)


def test_conditions_are_projected_phrases_with_the_learned_background_last() -> None:
    states = noise(1, 5, TEXT)
    cond, seg = torch.tensor([[0, 0, 1, -1, -1]]), torch.tensor([[-1, -1, -1, -1, 0]])
    conditions = MODEL.conditions(states, cond, seg, shared=False)
    projected = MODEL.mlm_projector(states)[0]
    expected = torch.stack((projected[:2].mean(0), projected[2], MODEL.bg_embeds.weight[0]))
    torch.testing.assert_close(conditions.cond_embeds[0], expected)
    torch.testing.assert_close(conditions.seg_embeds[0], projected[4:])
