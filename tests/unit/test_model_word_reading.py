"""Words read by the picture: silent at first, then by what is said; padding is not read; weights tell the size."""

from __future__ import annotations

from dataclasses import replace

import torch

from tests.tiny import TINY, tiny_model, tiny_segmenter
from tests.unit.model_parts import noise
from x2roto.engine.assembly import Conditions
from x2roto.engine.model.word_reading import WordReading
from x2roto.engine.sizes import infer_sizes
from x2roto.engine.weights import shapes_of
from x2roto.prompt import Text

DIM = 32


def conditions(words: int = 3, seed: int = 0, absent: int = 0) -> Conditions:
    """Of one phrase of some words, the last `absent` of which are padding."""
    mask = torch.ones(1, words, dtype=torch.bool)
    mask[:, words - absent :] = False
    one = torch.ones(1, 1, dtype=torch.bool)
    return Conditions(
        noise(1, 1, DIM, seed=seed), noise(1, words, DIM, seed=seed), noise(1, 1, DIM, seed=seed), one, mask
    )


def reading() -> WordReading:
    torch.manual_seed(0)
    return WordReading(2, 4, 48, DIM).eval()


@torch.inference_mode()
def read(part: WordReading, said: Conditions) -> tuple[torch.Tensor, torch.Tensor]:
    level, masks = part(noise(1, DIM, 6, 8), noise(1, DIM, 12, 16), said)
    return level, masks


def test_silenced_it_changes_nothing() -> None:
    part = reading()
    part.silence()
    level, masks = read(part, conditions())
    assert torch.equal(level, noise(1, DIM, 6, 8))
    assert torch.equal(masks, noise(1, DIM, 12, 16))


def test_other_words_read_otherwise() -> None:
    part = reading()
    for first, second in zip(read(part, conditions()), read(part, conditions(seed=1)), strict=True):
        assert (first - second).abs().max() > 1e-3


def test_padding_is_not_read() -> None:
    part, said = reading(), conditions(words=5, absent=2)
    other = replace(said, token_embeds=said.token_embeds.clone().index_fill_(1, torch.tensor([3, 4]), 9.0))
    for first, second in zip(read(part, said), read(part, other), strict=True):
        torch.testing.assert_close(first, second)


def test_equal_cells_in_other_places_read_otherwise() -> None:
    part = reading()
    with torch.inference_mode():
        level, _ = part(torch.ones(1, DIM, 4, 4), torch.ones(1, DIM, 8, 8), conditions())
    assert level.flatten(2).std(-1).max() > 1e-3


def test_its_size_is_told_by_the_weights() -> None:
    config = replace(TINY, decoder=replace(TINY.decoder, reading=2))
    model = tiny_model(config=config)
    assert infer_sizes(TINY, shapes_of(model.state_dict())).decoder.reading == 2


def test_phrases_are_asked_one_by_one() -> None:
    frame = torch.randint(0, 256, (48, 64, 3), dtype=torch.uint8).numpy()
    prompts = [Text("man", "the man"), Text("dog", "the dog")]
    together = tiny_segmenter().read(prompts, [frame] * 4)
    alone = tiny_segmenter(decoder=replace(TINY.decoder, reading=1)).read(prompts, [frame] * 4)
    assert [len(query.targets) for query in together] == [1]
    assert [len(query.targets) for query in alone] == [2]
