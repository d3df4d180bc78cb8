"""How the parts of the segmentation half are joined, and what may be batched."""

from __future__ import annotations

from dataclasses import fields

import pytest
import torch

from tests.tiny import TINY
from tests.unit.model_parts import noise, random_conditions, randomised
from x2roto.engine.assembly import Conditions, stack
from x2roto.engine.memory import Memory
from x2roto.engine.model.encodings import sine, temporal
from x2roto.engine.model.segmentor import FrameFeatures, Maps, Prediction, Segmentor

SEGMENTOR = randomised(Segmentor(TINY), std=0.2)
CONDITIONS = random_conditions(2, 5, TINY.dim)
FRAMES = 3


@pytest.fixture(scope="module")
def pyramid() -> Maps:
    return SEGMENTOR.encoder(noise(FRAMES, 3, TINY.image_size, TINY.image_size)).levels_bchw


def frame(pyramid: Maps, index: int) -> Maps:
    return tuple(level[index : index + 1] for level in pyramid)


def assert_same(ours: FrameFeatures, theirs: FrameFeatures) -> None:
    for field in fields(FrameFeatures):
        mine, other = getattr(ours, field.name), getattr(theirs, field.name)
        assert len(mine) == len(other)
        for a, b in zip(mine, other, strict=True):
            torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


def assert_near(ours: Prediction, theirs: Prediction, index: int) -> None:
    """Entry `index` of a batch against one set of conditions alone, whose phrases it may pad."""
    torch.testing.assert_close(ours.mask_logits_bqhw[index], theirs.mask_logits_bqhw[0], atol=1e-4, rtol=1e-4)
    phrases = theirs.class_logits_bqc.shape[-1] - 1
    torch.testing.assert_close(
        ours.class_logits_bqc[index, :, [*range(phrases), -1]],
        theirs.class_logits_bqc[0],
        atol=1e-4,
        rtol=1e-4,
    )


def advance(features: FrameFeatures, memory: Memory, conditions: Conditions) -> tuple[Prediction, Memory]:
    prediction = SEGMENTOR.predict(SEGMENTOR.decode(features, memory, conditions), conditions)
    return prediction, SEGMENTOR.remember(features, prediction, memory)


def clip(pyramid: Maps, conditions: Conditions, capacity: int = 2) -> list[tuple[Prediction, Memory]]:
    """Prediction of each frame and the memory after it."""
    done, memory = [], Memory(capacity)
    for index in range(FRAMES):
        features = SEGMENTOR.features(frame(pyramid, index), first=index == 0)
        prediction, memory = advance(features, memory, conditions)
        done.append((prediction, memory))
    return done


@pytest.mark.parametrize("first", [True, False])
def test_features_of_a_batch_are_those_of_each_frame(pyramid: Maps, first: bool) -> None:
    together = list(SEGMENTOR.features(pyramid, first=first).frames())
    assert len(together) == FRAMES
    for index, features in enumerate(together):
        assert_same(features, SEGMENTOR.features(frame(pyramid, index), first=first))


def test_a_first_frame_is_marked_before_the_pixel_decoder(pyramid: Maps) -> None:
    marked = tuple(level + SEGMENTOR.no_memory_embedding[0, 0][:, None, None] for level in pyramid)
    first, later = SEGMENTOR.features(pyramid, first=True), SEGMENTOR.features(marked, first=False)
    assert first.prepared == ()
    for ours, theirs in zip((*first.levels, *first.masks), (*later.levels, *later.masks), strict=True):
        assert torch.equal(ours, theirs)


def test_without_memory_the_decoder_reads_the_levels_as_they_are(pyramid: Maps) -> None:
    features = SEGMENTOR.features(frame(pyramid, 0), first=True)
    decoded = SEGMENTOR.decode(features, Memory(5), CONDITIONS)
    expected = SEGMENTOR.decoder(features.levels, features.masks[0], CONDITIONS)
    assert torch.equal(decoded.mask_logits_bqhw, expected.mask_logits_bqhw)


def test_mask_features_never_see_memory(pyramid: Maps) -> None:
    """Masks are products of the queries with this frame's own features."""
    (_, memory), *_ = clip(pyramid, CONDITIONS)
    features = SEGMENTOR.features(frame(pyramid, 1), first=False)
    decoded = SEGMENTOR.decode(features, memory, CONDITIONS)
    expected = SEGMENTOR.decoder.decoder.decode(decoded.hidden_bqc, features.masks[0])
    torch.testing.assert_close(decoded.mask_logits_bqhw, expected.mask_logits_bqhw)


def test_positions_of_the_memory_are_place_plus_distance_oldest_first(pyramid: Maps) -> None:
    memory = clip(pyramid, CONDITIONS)[-1][1].pass_over()
    side = TINY.image_size // 16
    place = sine(TINY.dim, side, side).flatten(1).T
    expected = torch.cat([place + temporal(gap, TINY.dim) for gap in (3, 2)])
    torch.testing.assert_close(SEGMENTOR.memory_positions(memory), expected)


def test_each_scale_attends_its_own_memory(pyramid: Maps) -> None:
    (_, memory), *_ = clip(pyramid, CONDITIONS)
    features = SEGMENTOR.features(frame(pyramid, 1), first=False)
    for scale, level in enumerate(SEGMENTOR.recall(features, memory)[0]):
        expected = SEGMENTOR.memory_attention(
            SEGMENTOR.memory_attention.prepare(features.levels[scale]),
            features.levels[scale],
            memory.entries[0].maps_bchw[scale].flatten(2).mT,
            SEGMENTOR.memory_positions(memory),
        )
        assert torch.equal(level, expected)


def test_a_frame_remembers_its_own_features_and_masks(pyramid: Maps) -> None:
    (prediction, memory), *_ = clip(pyramid, CONDITIONS)
    features = SEGMENTOR.features(frame(pyramid, 0), first=True)
    expected = SEGMENTOR.memory_encoder(
        features.downsampled, prediction.mask_logits_bqhw, prediction.class_logits_bqc
    )
    assert memory.step == 1
    for ours, theirs in zip(memory.entries[0].maps_bchw, expected, strict=True):
        assert torch.equal(ours, theirs)


def test_sets_of_conditions_tracked_together_equal_each_alone(pyramid: Maps) -> None:
    parts = [CONDITIONS, random_conditions(4, 9, TINY.dim, seed=30)]
    together, alone = clip(pyramid, stack(parts)), [clip(pyramid, part) for part in parts]
    for time in range(FRAMES):
        prediction, memory = together[time]
        for index, run in enumerate(alone):
            assert_near(prediction, run[time][0], index)
            for scale in range(3):
                torch.testing.assert_close(
                    memory.tokens(scale)[index], run[time][1].tokens(scale)[0], atol=1e-4, rtol=1e-4
                )


def test_memory_matters(pyramid: Maps) -> None:
    features = SEGMENTOR.features(frame(pyramid, 2), first=False)
    after_one, after_two = (memory for _, memory in clip(pyramid, CONDITIONS)[:2])
    one, two = (SEGMENTOR.decode(features, memory, CONDITIONS) for memory in (after_one, after_two))
    assert (one.mask_logits_bqhw - two.mask_logits_bqhw).abs().max() > 1e-3
