"""What only a GPU does: the next frame is drawn ahead, and a recorded step is replayed. Skipped without one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.tiny import TINY, byte_tokenizer, tiny_model
from x2roto.clip import Frame
from x2roto.engine import tracker as trackers
from x2roto.engine.replay import Replay
from x2roto.engine.segmenter import Segmenter
from x2roto.engine.shot import Query
from x2roto.engine.tracker import FrameResult
from x2roto.prompt import Text

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")]
GPU = torch.device("cuda")
CLIP = [
    Frame(index, None, np.random.default_rng(index // 4).integers(0, 256, (48, 64, 3), dtype=np.uint8))
    for index in range(30)
]
BLOCKS = [CLIP[start : start + 8] for start in range(0, len(CLIP), 8)]


@pytest.fixture(scope="module")
def segmenter() -> Segmenter:
    return Segmenter(tiny_model(config=replace(TINY, image_size=64)).to(GPU), byte_tokenizer())


@pytest.fixture(scope="module")
def query(segmenter: Segmenter) -> Query:
    (query,) = segmenter.read((Text("man", "man"),), [frame.rgb for frame in CLIP[:4]])
    return query


def masks(results: list[FrameResult]) -> torch.Tensor:
    return torch.stack([result.prediction.mask_logits_bqhw for result in results])


def in_turns(segmenter: Segmenter, query: Query) -> list[FrameResult]:
    tracker = segmenter.track(query)
    tracker._stream = None
    return list(tracker.run(BLOCKS))


def test_frames_drawn_ahead_are_those_drawn_in_turns(segmenter: Segmenter, query: Query) -> None:
    tracker = segmenter.track(query)
    results = list(tracker.run(BLOCKS))
    assert tracker._replay is not None, "the clip is long enough to record a step"
    expected = in_turns(segmenter, query)
    assert [result.frame.index for result in results] == list(range(len(CLIP)))
    torch.testing.assert_close(masks(results), masks(expected))
    for ours, theirs in zip(results, expected, strict=True):
        assert [(seen.name, seen.presence) for seen in ours.seen] == [(s.name, s.presence) for s in theirs.seen]


def test_the_state_is_that_of_the_frame_given_out(segmenter: Segmenter, query: Query, tmp_path: Path) -> None:
    tracker, whole = segmenter.track(query), masks(in_turns(segmenter, query))
    for result in tracker.run(BLOCKS):
        assert tracker.state.index == result.frame.index
        if result.frame.index == 15:
            tracker.save(tmp_path / "shot.safetensors")
    again = segmenter.resume(tmp_path / "shot.safetensors")
    torch.testing.assert_close(masks(list(again.run(BLOCKS[2:]))), whole[16:])


def test_a_damaged_frame_is_passed_over_with_a_recorded_step(segmenter: Segmenter, query: Query) -> None:
    blocks = [[replace(frame, held=True) if frame.index == 20 else frame for frame in block] for block in BLOCKS]
    tracker, plain = segmenter.track(query), segmenter.track(query)
    plain._stream = None
    torch.testing.assert_close(masks(list(tracker.run(blocks))), masks(list(plain.run(blocks))))


def test_without_memory_for_a_recording_the_step_is_taken_as_it_is(
    segmenter: Segmenter, query: Query, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> Replay:
        raise torch.OutOfMemoryError("no room for a graph")

    monkeypatch.setattr(trackers, "Replay", refuse)
    tracker = segmenter.track(query)
    found, expected = masks(list(tracker.run(BLOCKS))), masks(in_turns(segmenter, query))
    # Chunks of another size, which round otherwise, and every frame sees what the one before made of it.
    torch.testing.assert_close(found, expected, atol=2e-2, rtol=1e-2)
    assert tracker.budget.chunk == 4
