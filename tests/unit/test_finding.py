"""Words of a model with a finder: found on the frame they fit best, followed as a box drawn there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tests.tiny import FINDER, TINY, tiny_segmenter
from x2roto.clip import Frame
from x2roto.engine.finding import DOUBT, SIZES, Sighting, boxes, nameable, sightings, things
from x2roto.engine.identity import Kind
from x2roto.engine.model.finder import Found
from x2roto.engine.segmenter import Reading, Segmenter, wordings
from x2roto.engine.shot import Query
from x2roto.engine.tracker import placed_side
from x2roto.errors import PromptError
from x2roto.prompt import Box, Classes, Describe, Question, Text
from x2roto.train.words import footage_lexicon

MEMORY = replace(TINY.memory, feature_strides=(0, 1, 0), mask_stride=2, mask_layers=2, prompts=True, carry=3)
MAN = Text("man", "the man")
# Told apart by how bright they are.
FRAMES = [np.full((80, 120, 3), 20 + 40 * index, np.uint8) for index in range(5)]
LOOKED = {10 + index: rgb for index, rgb in enumerate(FRAMES)}
SURE = (-9.0, 1.0, 3.0, 2.0, -1.0)


@pytest.fixture
def segmenter(monkeypatch: pytest.MonkeyPatch) -> Segmenter:
    """Sees everything on two parts of every frame, on the third best, on the fifth hardly."""
    segmenter = tiny_segmenter(memory=MEMORY, room=2.0, finder=FINDER)

    def find(
        pixels: torch.Tensor, ids: torch.Tensor, valid: torch.Tensor, pictures: torch.Tensor, together: int
    ) -> Found:
        means = torch.tensor([segmenter.pixels([rgb]).mean() for rgb in FRAMES])
        frame = int((means - pixels.mean()).abs().argmin())
        masks = torch.full((len(ids), 16, 16), -8.0)
        masks[:, 4:8, 8:12] = 9.0
        masks[:, 12:14, 2:5] = 8.0
        masks[:, 0, 15] = 8.0
        return Found(masks[:, ::2, ::2], masks, torch.full((len(ids),), SURE[frame]))

    monkeypatch.setattr(segmenter.model, "find", find)
    return segmenter


def test_words_are_followed_from_the_frame_they_fit_best(segmenter: Segmenter) -> None:
    for prompt in (MAN, Question("man", "Who is it?")):
        (query,) = segmenter.read([prompt], FRAMES, looked=LOOKED)
        assert query.start == 12
        ((target,),) = query.targets
        assert (target.name, target.number, target.kind) == ("man", 0, Kind.OBJECT)
        assert target.bounds is not None
        (window,) = query.windows
        # Columns 8 to 12 and rows 4 to 8 of 16 cells over 120x80 pixels are the box 60,20 to 90,40.
        assert (window.x0 + window.x1) / 2 == pytest.approx(75, abs=1)
        assert (window.y0 + window.y1) / 2 == pytest.approx(30, abs=1)
        assert window.side == pytest.approx(60, abs=2)


def test_things_of_a_class_are_told_apart(segmenter: Segmenter) -> None:
    (query,) = segmenter.read([Classes("all", ("dog",))], FRAMES, looked=LOOKED)
    assert [(target.name, target.number) for (target,) in query.targets] == [("dog", 1), ("dog", 2)]
    (one,) = segmenter.read([Classes("all", ("dog",))], FRAMES, reading=Reading(instances=1), looked=LOOKED)
    assert len(one.targets) == 1
    (stuff,) = segmenter.read([Classes("all", (), ("grass",))], FRAMES, looked=LOOKED)
    assert [(target.name, target.number) for (target,) in stuff.targets] == [("grass", 0)]


def test_what_is_of_one_class_is_of_no_other(segmenter: Segmenter, monkeypatch: pytest.MonkeyPatch) -> None:
    def find(
        pixels: torch.Tensor, ids: torch.Tensor, valid: torch.Tensor, pictures: torch.Tensor, together: int
    ) -> Found:
        masks = torch.full((2, 16, 16), -8.0)
        masks[:, 4:8, 8:12] = torch.tensor([2.0, 8.0])[:, None, None]
        masks[:, 12:14, 2:5] = torch.tensor([8.0, 2.0])[:, None, None]
        return Found(masks[:, ::2, ::2], masks, torch.tensor([3.0, 3.0]))

    monkeypatch.setattr(segmenter.model, "find", find)
    (dog,), (cat,) = sightings(segmenter, ["dog", "cat"], {0: FRAMES[0]}, apart=True)
    assert [len(boxes(seen, apart=True)) for seen in (dog, cat)] == [1, 1]
    assert not ((dog.mask_hw > 0) & (cat.mask_hw > 0)).any()
    both = sightings(segmenter, ["dog", "cat"], {0: FRAMES[0]})
    assert [len(boxes(seen, apart=True)) for (seen,) in both] == [2, 2]


def test_a_frame_is_looked_at_in_squares_of_two_sizes(segmenter: Segmenter, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it is comes from the look that is surer of it, whether it is there from both."""
    sides = []

    def find(
        pixels: torch.Tensor, ids: torch.Tensor, valid: torch.Tensor, pictures: torch.Tensor, together: int
    ) -> Found:
        sides.append(pixels.shape[-1])
        large = pixels.shape[-1] > TINY.image_size
        masks = torch.full((2, *pixels.shape[-2:]), -8.0)
        masks[:, 4:8, 8:12] = 9.0
        presence = torch.tensor([2.0, 0.0] if large else [0.0, 1.0])
        return Found(masks[:, ::2, ::2], masks, DOUBT + presence)

    monkeypatch.setattr(segmenter.model, "find", find)
    (dog,), (cat,) = sightings(segmenter, ["dog", "cat"], {0: FRAMES[0]})
    assert sides == [TINY.image_size, 32 * round(TINY.image_size / 24)]
    assert [seen.mask_hw.shape[-1] for seen in (dog, cat)] == [sides[1], sides[0]]
    sure = torch.tensor([0.0, 1.0, 2.0]).sigmoid().tolist()
    assert dog.presence == pytest.approx((sure[0] + sure[2]) / 2)
    assert cat.presence == pytest.approx((sure[0] + sure[1]) / 2)
    assert [dog.score, cat.score] == pytest.approx([sure[2], sure[1]], rel=1e-3)
    of_classes = sightings(segmenter, ["dog", "cat"], {0: FRAMES[0]}, apart=True)
    assert [seen.mask_hw.shape[-1] for (seen,) in of_classes] == [sides[1], sides[1]]


def test_without_other_frames_only_the_first_is_looked_at(segmenter: Segmenter) -> None:
    assert segmenter.read([MAN], FRAMES[1:])[0].windows
    (query,) = segmenter.read([MAN], FRAMES)
    assert query.absent


def test_words_with_a_frame_are_looked_for_there(segmenter: Segmenter) -> None:
    assert segmenter.prompt_frames([replace(MAN, frame=3)]) == {3}
    (query,) = segmenter.read([replace(MAN, frame=3)], FRAMES, {3: FRAMES[3]}, looked=dict(enumerate(FRAMES)))
    assert query.start == 3


def test_what_is_seen_hardly_is_found_where_less_is_asked(segmenter: Segmenter) -> None:
    assert segmenter.read([MAN], FRAMES[4:])[0].absent
    assert not segmenter.read([MAN], FRAMES[4:], reading=Reading(presence=0.1))[0].absent


def test_what_is_nowhere_is_empty_on_every_frame_and_costs_nothing(
    segmenter: Segmenter, monkeypatch: pytest.MonkeyPatch
) -> None:
    query, *_ = segmenter.read([MAN, Classes("all", ("dog",))], FRAMES)
    monkeypatch.setattr(segmenter.model.segmentor, "encoder", None)
    results = list(segmenter.track(query).step([Frame(index, None, rgb) for index, rgb in enumerate(FRAMES)]))
    assert [result.frame.index for result in results] == [0, 1, 2, 3, 4]
    for result in results:
        assert [seen.name for seen in result.seen] == ["dog_1", "man"]
        assert not any(seen.present or (seen.logits > 0).any() for seen in result.seen)


def test_found_or_not_all_objects_come_on_one_grid(segmenter: Segmenter) -> None:
    for first in (0, 1):
        (query,) = segmenter.read([MAN], FRAMES[first:])
        (result,) = segmenter.track(query).step([Frame(0, None, FRAMES[1])])
        assert tuple(result.seen[0].logits.shape) == (placed_side(TINY),) * 2


@pytest.fixture
def asked(segmenter: Segmenter, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the finder is asked for from now on, each phrase once for every frame."""
    phrases: list[str] = []
    found = segmenter.model.find

    def listening(
        pixels: torch.Tensor, ids: torch.Tensor, valid: torch.Tensor, pictures: torch.Tensor, together: int
    ) -> Found:
        rows = [row[real].tolist() for row, real in zip(ids, valid, strict=True)]
        phrases.extend(segmenter.tokenizer.decode(row, skip_special_tokens=False) for row in rows)
        return found(pixels, ids, valid, pictures, together)

    monkeypatch.setattr(segmenter.model, "find", listening)
    return phrases


def test_phrases_are_spelt_as_in_conversations(segmenter: Segmenter, asked: list[str]) -> None:
    segmenter.read([Classes("all", ("small dog", "cat"))], FRAMES)
    assert asked == ["<p>small dog</p>", "<p>cat</p>"] * len(SIZES)


def test_boxes_leave_specks_out_and_what_is_seen_most_comes_first() -> None:
    mask = torch.full((16, 16), -5.0)
    mask[4:8, 8:12] = 1
    mask[12:14, 2:5] = 4
    mask[15, 15] = 3
    seen = Sighting(7, mask, 0.9, 0.9)
    large, small = boxed(0.5, 0.25, 0.75, 0.5), boxed(0.125, 0.75, 0.3125, 0.875)
    assert boxes(seen, apart=True) == [large, small]
    assert boxes(seen, apart=False) == [large]
    mask[4:8, 8:12], mask[15, 15] = -0.7, -5.0
    assert boxes(seen, apart=True) == [small, large], "sixteen thirds are less than six"


def test_a_box_is_around_what_is_a_third_as_sure_however_unsure_all_are() -> None:
    mask = torch.full((16, 16), 0.01).logit()
    mask[4:8, 8:12] = torch.tensor(0.13).logit()
    mask[5, 9] = torch.tensor(0.4).logit()
    assert boxes(Sighting(7, mask, 0.9, 0.9), apart=False) == [boxed(0.5, 0.25, 0.75, 0.5)]


def boxed(*edges: float) -> Box:
    """In sides of frame 7."""
    return Box("", *edges, frame=7, relative=True)


def test_what_words_could_mean_is_every_part_on_every_frame_the_surest_first(segmenter: Segmenter) -> None:
    man, moving = sightings(segmenter, ("the man", "the man moving left"), LOOKED)
    found = things([*man, *moving])
    assert len(found) == 2 * 2 * len(LOOKED)
    assert [thing.score for thing in found] == sorted((thing.score for thing in found), reverse=True)
    assert found[0].box == Box("", 0.5, 0.25, 0.75, 0.5, frame=12, relative=True)
    assert found[-1].score < 0.001


@pytest.mark.parametrize(
    ("words", "start", "column"),
    [
        ("the man moving to the right", 12, 0.625),
        ("the man who is not moving", 12, 0.22),
        ("the fastest man", 12, 0.625),
        ("the man", 12, 0.625),
    ],
)
def test_of_all_that_could_be_meant_what_moves_as_told_is_followed(
    segmenter: Segmenter, monkeypatch: pytest.MonkeyPatch, words: str, start: int, column: float
) -> None:
    followed: list[list[int]] = []

    class Following:
        """Draws the upper thing, which moves to the right, or the lower, which does not."""

        def __init__(self, query: Query) -> None:
            (window,) = query.windows
            self.upper = window.y0 + window.y1 < 80

        def step(self, frames: Sequence[Frame]) -> Iterator[SimpleNamespace]:
            followed.append([frame.index for frame in frames])
            for frame in frames:
                logits = torch.full((16, 16), -1.0)
                if self.upper:
                    logits[4:8, 6 + frame.index : 10 + frame.index] = 1.0
                else:
                    logits[12:14, 2:5] = 1.0
                yield SimpleNamespace(seen=(SimpleNamespace(logits=logits),))

    monkeypatch.setattr(segmenter, "track", Following)
    (query,) = segmenter.read([Text("man", words)], FRAMES, looked=LOOKED)
    assert query.start == start
    ((target,),) = query.targets
    assert target.name == "man"
    (window,) = query.windows
    assert (window.x0 + window.x1) / 2 / 120 == pytest.approx(column, abs=0.04)
    # Neighbours among the frames looked at, however far apart they are in the clip; from the surest both ways.
    assert followed == ([] if words == "the man" else 2 * [[2, 1, 0], [2, 3, 4]])
    # However sure the finder is on single frames, nothing leaves.
    assert segmenter.read([Text("man", "the man leaving the frame")], FRAMES, looked=LOOKED)[0].absent


def test_on_a_single_frame_nothing_moves(segmenter: Segmenter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segmenter, "track", None)
    (query,) = segmenter.read([Text("man", "the man moving to the right", frame=12)], FRAMES, {12: FRAMES[2]})
    assert query.start == 12
    assert not query.absent


def test_words_are_put_as_the_model_knows_them(segmenter: Segmenter, asked: list[str]) -> None:
    segmenter.lexicon = footage_lexicon()
    (query,) = segmenter.read([Text("him", "that tennis player leaving the frame")], FRAMES, looked=LOOKED)
    assert [target.name for (target,) in query.targets] == ["him"]
    assert asked == ["<p>the person leaving the frame</p>", "<p>the person</p>"] * len(LOOKED) * len(SIZES)


def test_what_no_known_word_names_is_nowhere(segmenter: Segmenter) -> None:
    segmenter.lexicon = footage_lexicon()
    assert segmenter.notes([MAN]) == []
    for prompt in (Text("it", "the reflection"), Classes("all", ("sky",), ("haze",))):
        assert len(segmenter.notes([prompt])) == len(wordings([prompt]))
        (query,) = segmenter.read([prompt], FRAMES, looked=LOOKED)
        assert query.absent
    both = segmenter.read([Text("it", "the reflection"), MAN], FRAMES, looked=LOOKED)
    assert sorted(query.absent for query in both) == [False, True]


@pytest.fixture
def likened(segmenter: Segmenter, monkeypatch: pytest.MonkeyPatch) -> Segmenter:
    """Knows names: every frame has cells that are like the first two of them, and no others."""
    segmenter.lexicon = footage_lexicon()

    def liken(pixels: torch.Tensor, ids: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        cells = torch.full((len(pixels), len(ids), 8, 8), -5.0) - torch.arange(len(ids))[None, :, None, None]
        cells[:, :2, :3, :3] = 4.0
        return cells

    monkeypatch.setattr(segmenter.model, "liken", liken)
    return segmenter


def test_of_all_names_only_the_likely_ones_are_looked_for(likened: Segmenter, asked: list[str]) -> None:
    names = likened.names
    found = nameable(likened, names, LOOKED)
    assert {one.name for one in found} == set(names[:24])
    assert asked == [f"<p>{name}</p>" for name in names[:24]] * len(LOOKED)
    first = found[0]
    assert first.thing.box.frame == 12
    assert first.cells_hw[4:8, 8:12].all()
    assert first.cells_hw.sum() == 16


def test_a_description_is_of_what_is_found(likened: Segmenter, monkeypatch: pytest.MonkeyPatch) -> None:
    """The finder sees two places, each under every likely name; the tracker here draws each where its window is."""

    class Following:
        def __init__(self, query: Query) -> None:
            (window,) = query.windows
            self.rows, self.columns = ((4, 8), (8, 12)) if window.y0 + window.y1 < 80 else ((12, 14), (2, 5))

        def step(self, frames: Sequence[Frame]) -> Iterator[SimpleNamespace]:
            for frame in frames:
                logits = torch.full((16, 16), -1.0)
                if frame.index == 2:
                    logits[slice(*self.rows), slice(*self.columns)] = 1.0
                yield SimpleNamespace(seen=(SimpleNamespace(logits=logits),))

    monkeypatch.setattr(likened, "track", Following)
    assert likened.glimpse_count([Describe()]) == 16
    (query,) = likened.read([Describe()], FRAMES, looked=LOOKED)
    name, again = likened.names[0], f"{likened.names[0]}_2"
    assert query.start == 12
    assert [target.name for (target,) in query.targets] == [name, again]
    assert query.captions == ("Two men.", "")
    assert likened.chat("What do you see?", FRAMES) == "Two men."
    with pytest.raises(PromptError, match="can only say what there is"):
        likened.chat("What is his name?", FRAMES)


def test_where_nothing_can_be_named_surely_words_are_asked_for(likened: Segmenter) -> None:
    with pytest.raises(PromptError, match="sure of nothing"):
        likened.read([Describe()], FRAMES[:1], looked={10: FRAMES[0]})
