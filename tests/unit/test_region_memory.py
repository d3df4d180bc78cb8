"""Models that remember the region that asks: what memory keeps of it, and that training and inference agree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tests.tiny import TINY, tiny_segmenter
from tests.unit.test_train_network import LOSSES, PREPARE, answers_of, inference, sample, seed_of_first_wording
from x2roto.clip import Frame
from x2roto.engine.memory import Memory
from x2roto.engine.model.x2sam import X2SAM
from x2roto.engine.segmenter import Segmenter
from x2roto.engine.sizes import infer_sizes
from x2roto.engine.tracker import FrameResult
from x2roto.engine.weights import shapes_of
from x2roto.errors import ModelError
from x2roto.prompt import Box, Prompt, Text
from x2roto.train.collate import collate
from x2roto.train.losses import dense_loss
from x2roto.train.matching import FrameTarget
from x2roto.train.network import JointStage

MEMORY = replace(TINY.memory, feature_strides=(0, 1, 0), mask_stride=2, mask_layers=2, prompts=True, carry=3)
LEFT, RIGHT = Box("left", 2, 8, 20, 40, 0), Box("right", 40, 8, 60, 40, 0)
FRAMES = [np.random.default_rng(index).integers(0, 256, (48, 64, 3)).astype(np.uint8) for index in range(4)]


@pytest.fixture(scope="module")
def segmenter() -> Segmenter:
    return tiny_segmenter(memory=MEMORY)


def shown(frames: Sequence[NDArray[np.uint8]] = FRAMES) -> list[Frame]:
    return [Frame(index, None, rgb) for index, rgb in enumerate(frames)]


def tracked(segmenter: Segmenter, prompts: Sequence[Prompt]) -> list[FrameResult]:
    (query,) = segmenter.read(prompts, FRAMES, {0: FRAMES[0]})
    return list(segmenter.track(query).step(shown()))


@pytest.mark.parametrize("length", [1, 3])
def test_training_answers_as_inference_does(length: int) -> None:
    segmenter = tiny_segmenter(memory=MEMORY)
    segmenter.model.double()  # kernels round otherwise for other batches
    clip = sample("objseg" if length > 1 else "intseg", length)
    seed = seed_of_first_wording(clip)
    answers = answers_of(JointStage(segmenter.model, LOSSES), collate([PREPARE(clip, seed)]))
    for index, (masks, classes) in enumerate(inference(segmenter, clip, seed)):
        torch.testing.assert_close(answers.mask_logits_iqhw[index : index + 1], masks, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(answers.class_logits_iqk[index : index + 1], classes, rtol=1e-4, atol=1e-4)


def test_each_region_is_a_set_of_its_own_and_sees_only_itself(segmenter: Segmenter) -> None:
    (query,) = segmenter.read([LEFT, RIGHT], FRAMES, {0: FRAMES[0]})
    assert len(query.targets) == len(query.prompt[0]) == 2
    together = tracked(segmenter, [LEFT, RIGHT])
    for place, box in enumerate((LEFT, RIGHT)):
        for both, alone in zip(together, tracked(segmenter, [box]), strict=True):
            torch.testing.assert_close(
                both.prediction.mask_logits_bqhw[place], alone.prediction.mask_logits_bqhw[0], rtol=1e-4, atol=1e-4
            )


def test_where_the_region_lies_changes_the_masks(segmenter: Segmenter) -> None:
    left, right = (tracked(segmenter, [box])[0].prediction.mask_logits_bqhw for box in (LEFT, RIGHT))
    assert (left - right).abs().max() > 1e-3


def test_words_do_not_share_a_memory_with_regions(segmenter: Segmenter) -> None:
    queries = segmenter.read([Text("man", "the man"), LEFT], FRAMES, {0: FRAMES[0]})
    assert sorted(bool(query.prompt) for query in queries) == [False, True]


def test_a_shot_goes_on_elsewhere_with_its_region(segmenter: Segmenter, tmp_path: Path) -> None:
    (query,) = segmenter.read([LEFT], FRAMES, {0: FRAMES[0]})
    whole = list(segmenter.track(query).step(shown()))
    tracker = segmenter.track(query)
    list(tracker.step(shown()[:2]))
    tracker.save(tmp_path / "shot")
    rest = segmenter.resume(tmp_path / "shot").step(shown()[2:])
    for first, second in zip(whole[2:], rest, strict=True):
        torch.testing.assert_close(
            first.prediction.mask_logits_bqhw, second.prediction.mask_logits_bqhw, rtol=1e-4, atol=1e-4
        )


def test_the_region_stays_while_frames_go() -> None:
    memory = Memory(2, prompt=(torch.zeros(1, 4, 2, 2),))
    assert not memory.empty
    assert Memory(2).empty
    for number in range(1, 4):
        memory = memory.remember((torch.full((1, 4, 2, 2), float(number)),))
    assert memory.gaps() == (0, 2, 1)
    assert [int(each[0, 0, 0, 0]) for each in memory.maps(0)] == [0, 2, 3]


def test_levels_that_take_no_part_are_told_by_the_config() -> None:
    config = replace(TINY, memory=MEMORY)
    shapes = shapes_of(X2SAM(config).state_dict())
    assert infer_sizes(config, shapes).memory == MEMORY
    with pytest.raises(ModelError, match="feature_strides"):
        infer_sizes(replace(config, memory=replace(MEMORY, feature_strides=(1, 2, 4))), shapes)


def test_the_dense_loss_falls_as_the_logits_near_the_union() -> None:
    masks = torch.zeros(2, 32, 32, dtype=torch.bool)
    masks[0, 4:12, 4:12] = True
    masks[1, 20:28, 20:28] = True
    target = FrameTarget(masks, torch.tensor([0, 0]))
    right = masks.any(0)[None, None].float() * 20 - 10
    values = [float(dense_loss(logits, [target], LOSSES)) for logits in (right, torch.zeros_like(right), -right)]
    assert values == sorted(values)
    assert values[0] < 0.5


def test_the_dense_head_teaches_and_is_no_part_of_the_model(segmenter: Segmenter) -> None:
    stage = JointStage(segmenter.model, replace(LOSSES, dense_weight=1.0))
    batch = collate([PREPARE(sample("objseg", 2), 0)])
    plain = JointStage(segmenter.model, LOSSES)
    totals = [each(batch).total for each in (stage, plain)]  # type: ignore[union-attr]
    assert totals[0] > totals[1]
    totals[0].backward()
    assert stage.head is not None
    assert stage.head.weight.grad is not None
    assert not any("head" in name and "lm_head" not in name for name in segmenter.model.state_dict())
