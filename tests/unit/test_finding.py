"""Words of a model that looks at windows: found on the frame they fit best, followed as a box drawn there."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.tiny import TINY, tiny_segmenter
from x2roto.clip import Frame
from x2roto.engine.assembly import Conditions
from x2roto.engine.finding import around
from x2roto.engine.model.segmentor import Prediction
from x2roto.engine.segmenter import Reading, Segmenter
from x2roto.prompt import Question, Text

MEMORY = replace(TINY.memory, feature_strides=(0, 1, 0), mask_stride=2, mask_layers=2, prompts=True, carry=3)
MAN = Text("man", "the man")
# Told apart by how bright they are.
FRAMES = [np.full((80, 120, 3), 20 + 40 * index, np.uint8) for index in range(5)]


@pytest.fixture
def segmenter(monkeypatch: pytest.MonkeyPatch) -> Segmenter:
    """Sees the man on a part of every frame, on the third best, on the fifth hardly."""
    segmenter = tiny_segmenter(memory=MEMORY, room=2.0, decoder=replace(TINY.decoder, reading=1))
    sure = {20: -9.0, 60: 1.0, 100: 3.0, 140: 2.0, 180: -1.0}
    shown: list[int] = []
    pixels, predict = segmenter.pixels, segmenter.model.segmentor.predict

    def looking(frames: list[np.ndarray]) -> Tensor:
        shown[:] = [int(frames[0][0, 0, 0])]
        return pixels(frames)

    def saying(decoded: object, conditions: Conditions) -> Prediction:
        prediction = predict(decoded, conditions)  # type: ignore[arg-type]
        masks = torch.full_like(prediction.mask_logits_bqhw, -8.0)
        masks[..., 4:8, 8:12] = 8.0
        classes = torch.zeros_like(prediction.class_logits_bqc)
        classes[..., 0] = sure[shown[0]]
        return Prediction(masks, classes)

    monkeypatch.setattr(segmenter, "pixels", looking)
    monkeypatch.setattr(segmenter.model.segmentor, "predict", saying)
    return segmenter


def test_words_are_followed_from_the_frame_they_fit_best(segmenter: Segmenter) -> None:
    looked = {10 + index: rgb for index, rgb in enumerate(FRAMES)}
    for prompt in (MAN, Question("man", "Who is it?")):
        (query,) = segmenter.read([prompt], FRAMES, looked=looked)
        assert query.start == 12
        ((target,),) = query.targets
        assert target.name == "man"
        assert target.anchor is not None
        (window,) = query.windows
        # Columns 8 to 12 and rows 4 to 8 of 16 cells over 120x80 pixels are the box 60,20 to 90,40.
        assert (window.x0 + window.x1) / 2 == pytest.approx(75, abs=1)
        assert (window.y0 + window.y1) / 2 == pytest.approx(30, abs=1)
        assert window.side == pytest.approx(60, abs=2)


def test_without_other_frames_only_the_first_is_looked_at(segmenter: Segmenter) -> None:
    assert segmenter.read([MAN], FRAMES[1:])[0].windows
    (query,) = segmenter.read([MAN], FRAMES)
    assert query.windows == ()
    assert query.start is None


def test_words_with_a_frame_are_looked_for_there(segmenter: Segmenter) -> None:
    assert segmenter.prompt_frames([replace(MAN, frame=3)]) == {3}
    (query,) = segmenter.read([replace(MAN, frame=3)], FRAMES, {3: FRAMES[3]}, looked=dict(enumerate(FRAMES)))
    assert query.start == 3
    assert query.windows


def test_what_is_seen_hardly_is_found_where_less_is_asked(segmenter: Segmenter) -> None:
    assert not segmenter.read([MAN], FRAMES[4:])[0].windows
    assert segmenter.read([MAN], FRAMES[4:], reading=Reading(presence=0.2))[0].windows


def test_found_or_not_all_objects_come_on_one_grid(segmenter: Segmenter) -> None:
    for first in (0, 1):
        (query,) = segmenter.read([MAN], FRAMES[first:])
        (result,) = segmenter.track(query).step([Frame(0, None, FRAMES[1])])
        assert tuple(result.seen[0].logits.shape) == (TINY.image_size,) * 2


def test_the_box_leaves_specks_out() -> None:
    mask = np.zeros((16, 16), np.bool_)
    mask[4:8, 8:12] = True
    mask[15, 0] = True
    box = around(mask, 160, 80)
    assert (box.x0, box.y0, box.x1, box.y1) == (80, 20, 120, 40)
