"""Samples as batches: wording drawn by seed, targets frame by frame, equal sizes, contradictions refused."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.shapes import Shapes
from tests.tiny import TINY, byte_tokenizer
from x2roto.engine.preprocess import PatchConfig
from x2roto.engine.prompting import SpecialIds
from x2roto.train.collate import Preparer, Reader, collate, squared, turns
from x2roto.train.samples import ClipSample

TOKENIZER = byte_tokenizer()
READER = Reader(TOKENIZER, SpecialIds.of(TOKENIZER), PatchConfig(), TINY.region.points, 2)
PREPARE = Preparer(TINY.image_size, READER)


def sample(task: str, length: int = 4) -> ClipSample:
    return Shapes(length=length, tasks=(task,))[0]


def test_wordings_are_drawn_from_all_and_fixed_by_the_seed() -> None:
    clip = sample("refseg")
    drawn = [turns(clip, Random(seed))[0] for seed in range(200)]
    wording = clip.row.wordings["plain"]
    assert len({turn.question for turn in drawn}) == len(set(wording.questions))
    assert {turn.answer for turn in drawn} == set(wording.answers)
    assert turns(clip, Random(3)) == turns(clip, Random(3))


def test_each_phrase_has_its_turn() -> None:
    clip = sample("refseg")
    asked = turns(replace(clip, targets=("one thing", "another")), Random(0))
    assert ["one thing" in turn.question for turn in asked] == [True, False]
    assert all(turn.answer is not None and turn.answer.count("<SEG>") == 1 for turn in asked)


def test_answers_are_learned_and_questions_are_not() -> None:
    (prepared,) = PREPARE(sample("gcgseg"), 0)
    assert prepared.words is not None
    stream = prepared.words.stream
    learned = TOKENIZER.decode(stream.labels[stream.labels >= 0].tolist(), skip_special_tokens=False)
    assert learned.startswith("A <p>")
    assert learned.endswith("<SEG>.<|im_end|>")
    assert "brief" not in learned


def test_region_tasks_show_fewer_frames_and_remember_where_they_are_drawn() -> None:
    clip = replace(sample("objseg"), prompt_frame=2)
    words = PREPARE(clip, 0)[0].words
    assert words is not None
    assert words.patches.grid[0] == 1
    assert words.regions is not None
    assert words.regions.frame == 2
    again = PREPARE(clip, 0)[0].words
    other = PREPARE(clip, 1)[0].words
    assert again is not None
    assert again.regions is not None
    assert torch.equal(words.regions.points_rp2, again.regions.points_rp2)
    assert other is not None
    assert other.regions is not None
    assert not torch.equal(words.regions.points_rp2, other.regions.points_rp2)


def test_chat_alone_is_told_the_time() -> None:
    for task, stamps in (
        ("chat", ["<0.0 seconds>", "<0.1 seconds>"]),
        ("genseg", ["<1.0 seconds>", "<2.0 seconds>"]),
    ):
        words = PREPARE(replace(sample(task), rate=24.0), 0)[0].words
        assert words is not None
        text = TOKENIZER.decode([id for id in words.stream.input_ids.tolist() if id >= 0], skip_special_tokens=False)
        assert all(stamp in text for stamp in stamps)


def test_targets_hold_what_is_seen_on_each_frame() -> None:
    clip = sample("genseg")
    assert clip.masks is not None
    masks = clip.masks.copy()
    masks[1, 2] = False
    ignored = np.zeros_like(masks[0])
    ignored[3, :8] = True
    labelled = np.array([True, False, True, True])
    targets = PREPARE(replace(clip, masks=masks, ignored=ignored, labelled=labelled), 0)[0].targets
    assert targets[1] is None
    kept = [target for target in targets if target is not None]
    assert [target.labels_n.tolist() for target in kept] == [[0, 1], [0], [0, 1]]
    assert [target.ignored_hw is not None for target in kept] == [False, False, True]


def test_without_language_every_mask_is_of_one_class() -> None:
    (prepared,) = Preparer(TINY.image_size, None)(sample("genseg"), 0)
    assert prepared.words is None
    assert all(target is not None and target.labels_n.tolist() == [0, 0] for target in prepared.targets)


def test_masks_shrink_as_pictures_do() -> None:
    masks = np.random.default_rng(0).random((2, 37, 53)) > 0.5
    wanted = [
        np.array(Image.fromarray(mask.astype(np.uint8)).resize((16, 16), Image.Resampling.NEAREST)) for mask in masks
    ]
    assert np.array_equal(squared(masks, 16), np.array(wanted, dtype=np.bool_))


def test_shorter_clips_are_lengthened_without_targets() -> None:
    batch = collate(
        [PREPARE(sample(task, length), 0) for task, length in (("genseg", 4), ("chat", 4), ("objseg", 2))]
    )
    assert batch.frames is not None
    assert batch.frames.shape[:2] == (4, 2)
    assert batch.decoded == (0, 2)
    assert [[target is None for target in row] for row in batch.targets] == [[False, False]] * 2 + [[False, True]] * 2
    assert torch.equal(batch.frames[3, 1], batch.frames[1, 1])
    assert batch.text is not None
    assert len(batch.text.input_ids) == 3
    assert batch.text.attention_mask.sum(1).tolist() == [int((row != 0).sum()) for row in batch.text.attention_mask]


def test_questions_asked_apart_share_the_picture_alone() -> None:
    clip = replace(sample("refseg", 1), targets=("one", "another", "a third"), apart=True)
    other = replace(sample("refseg", 1), targets=("one",))
    batch = collate([PREPARE(clip, 0), PREPARE(other, 5)])
    assert batch.frames is not None
    assert batch.frames.shape[:2] == (1, 2)
    assert batch.clips == (0, 0, 0, 1)
    assert batch.text is not None
    assert batch.text.glimpses == (0, 0, 0, 1)
    assert len(batch.text.grids) == 2
    assert batch.text.shared == (False, False, False, True)
    assert batch.text.cond_ids.amax(1).tolist() == [0, 0, 0, 0]
    (row,) = batch.targets
    assert clip.masks is not None
    assert clip.condition is not None
    assert [len(target.labels_n) for target in row[:3] if target] == [
        int((clip.condition == number).sum()) for number in range(3)
    ]


def test_a_batch_of_chat_has_nothing_to_segment() -> None:
    batch = collate([PREPARE(sample("chat"), 0)])
    assert batch.frames is None
    assert batch.targets == ()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"task": "segment"}, "task of"),
        (
            {"task": "gcgseg", "apart": True, "answer": "A <p>man</p>.", "condition": np.zeros(2, np.int64)},
            "apart of",
        ),
        ({"frames": np.zeros((2, 64, 64, 3), dtype=np.float32)}, "frames of"),
        ({"masks": np.zeros((1, 4, 64, 64), dtype=np.bool_)}, "masks of"),
        ({"condition": np.array([0, 2])}, "condition of"),
        ({"targets": (np.zeros((64, 64), dtype=np.bool_),) * 2}, "targets of"),
        ({"ignored": np.zeros((4, 8, 8), dtype=np.bool_)}, "ignored of"),
        ({"labelled": np.ones(3, dtype=np.bool_)}, "labelled of"),
        ({"prompt_frame": 4}, "prompt_frame of"),
        ({"task": "gcgseg", "targets": ()}, "answer of"),
    ],
)
def test_samples_that_contradict_themselves_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(sample("genseg"), **change)
