"""Predicting under both protocols: what the network is asked and shown, in which frames, and what becomes of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.tiny import FINDER, TINY, tiny_segmenter
from tests.unit.evaluate.conftest import Miniature
from x2roto.clip import Frame
from x2roto.data.annotations import read_rgb
from x2roto.data.layouts import LAYOUTS
from x2roto.data.sample import Category, FrameTruth, Sample
from x2roto.engine.finding import SIZES
from x2roto.engine.model.finder import Found as Sought
from x2roto.engine.model.segmentor import Prediction
from x2roto.engine.postprocess import Geometry
from x2roto.engine.segmenter import Reading, Segmenter
from x2roto.engine.tracker import FrameResult
from x2roto.evaluate import predict
from x2roto.evaluate.asking import phrases_in
from x2roto.evaluate.benchmarks import BENCHMARKS, Cut, Mode
from x2roto.evaluate.predict import (
    Chunk,
    Failed,
    Found,
    Predictor,
    SegmentIds,
    apart,
    cut_frames,
    reference_glimpse,
)
from x2roto.prompt import MaskPrompt
from x2roto.train.words import footage_lexicon

SIZE = (8, 10)


def samples(name: str, miniature: Miniature) -> list[Sample]:
    layout = LAYOUTS[name]
    data = layout.open(miniature(name), layout.splits[0], None)
    return [data[index] for index in range(len(data))]


def predicted(predictor: Predictor, sample: Sample) -> list[Found]:
    found = list(predictor.predict(sample))
    assert all(isinstance(each, Found) for each in found), found
    return found  # type: ignore[return-value]


@pytest.fixture
def said(segmenter: Segmenter, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The text of every prompt the language model is given from now on."""
    texts: list[str] = []
    assemble = segmenter.model.assemble

    def listen(input_ids: Tensor, *args: Any, **options: Any) -> Any:
        words = [token for token in input_ids[0].tolist() if token >= 0]
        texts.append(segmenter.tokenizer.decode(words, skip_special_tokens=False))
        return assemble(input_ids, *args, **options)

    monkeypatch.setattr(segmenter.model, "assemble", listen)
    return texts


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Every picture that is read from now on."""
    paths: list[Path] = []

    def listen(path: Path, size: Any) -> Any:
        paths.append(path)
        return read_rgb(path, size)

    monkeypatch.setattr(predict, "read_rgb", listen)
    return paths


# ---- which frames -----------------------------------------------------------------------------------------


def drawn(visible: Sequence[bool], annotated: Sequence[bool] | None = None, task: str = "refseg") -> Sample:
    """A video of one object, seen on the frames that say so."""

    def truth(frame: int) -> FrameTruth:
        count = int(visible[frame])
        none = np.zeros(count, np.int64)
        return FrameTruth(np.ones((count, *SIZE), np.bool_), none, none, none.astype(np.bool_))

    names = tuple(str(frame) for frame in range(len(visible)))
    known = np.ones(len(visible), np.bool_) if annotated is None else np.array(annotated)
    return Sample("clip/1", task, tuple(map(Path, names)), names, SIZE, ("a dog",), truth, known)


def test_chunks_follow_each_other() -> None:
    assert list(cut_frames(drawn([True] * 17), Cut())) == [tuple(range(8)), tuple(range(8, 16))]


def test_a_lone_last_frame_is_left_out_and_two_are_not() -> None:
    assert list(cut_frames(drawn([True] * 10), Cut())) == [tuple(range(8)), (8, 9)]


def test_frames_without_the_object_leave_their_chunk() -> None:
    visible = [True, False, True, *[False] * 6, True, True, False]
    assert list(cut_frames(drawn(visible), Cut(4, drop="within"))) == [(0, 2), (9, 10)]
    assert list(cut_frames(drawn(visible), Cut(4, drop="before"))) == [(0, 2, 9, 10)]


def test_frames_without_annotation_leave_their_chunk() -> None:
    sample = drawn([True] * 6, [True, False, True, False, True, False])
    assert list(cut_frames(sample, Cut(drop="within"))) == [(0, 2, 4)]
    assert list(cut_frames(sample, Cut())) == [(0, 1, 2, 3, 4, 5)]


@pytest.mark.parametrize(
    ("count", "chunks"),
    [
        (5, [(0, 1, 2, 3, 4)]),
        (16, [tuple(range(0, 16, 2)), tuple(range(1, 16, 2))]),
        # As in the reference: some frames come twice and the last ones not at all.
        (12, [tuple(range(8)), tuple(range(1, 9))]),
        (20, [tuple(range(0, 16, 2)), tuple(range(1, 17, 2)), tuple(range(2, 18, 2))]),
    ],
)
def test_chunks_over_the_whole_video(count: int, chunks: list[tuple[int, ...]]) -> None:
    assert list(cut_frames(drawn([True] * count), Cut(spread=True))) == chunks


def test_of_regions_the_language_model_sees_four_of_eight_frames() -> None:
    sample, frames = drawn([True] * 8, task="vgdseg"), tuple(range(10, 18))
    assert reference_glimpse(sample, frames) == (10, 12, 15, 17)
    assert reference_glimpse(sample, frames[:3]) == frames[:3]
    assert reference_glimpse(replace(sample, task="refseg"), frames) == frames


def test_standard_mode_has_every_frame_from_the_prompt_on(miniature: Miniature, segmenter: Segmenter) -> None:
    late = next(sample for sample in samples("ytvos19", miniature) if sample.prompt_frame)
    (chunk,) = Predictor(segmenter, BENCHMARKS["ytvos19"]).chunks(late)
    assert chunk.frames == tuple(range(late.prompt_frame, len(late.frames)))
    assert chunk.glimpse == tuple(range(len(late.frames)))
    assert chunk.targets is late.targets


def test_the_reference_shows_an_object_anew_in_each_chunk(
    miniature: Miniature, segmenter: Segmenter, monkeypatch: pytest.MonkeyPatch
) -> None:
    sample = samples("ytvos19", miniature)[0]
    benchmark = replace(BENCHMARKS["ytvos19"], cut=Cut(2, drop="within"))
    chunks = list(Predictor(segmenter, benchmark, "reference").chunks(sample))
    assert [chunk.frames for chunk in chunks] == [(0, 1), (2, 3)]
    assert [chunk.start for chunk in chunks] == [0, 2]
    for chunk in chunks:
        (region,) = chunk.targets
        np.testing.assert_array_equal(region, sample.truth(chunk.frames[0]).masks[0])


# ---- words of a model with a finder ------------------------------------------------------------------------


def seeker(monkeypatch: pytest.MonkeyPatch, presence: Sequence[float]) -> Segmenter:
    """A model that is as sure as that of the middle of each frame, in the order in which it looks at them."""
    memory = replace(TINY.memory, feature_strides=(0, 1, 0), mask_stride=2, mask_layers=2, prompts=True, carry=3)
    segmenter = tiny_segmenter(memory=memory, room=2.0, finder=FINDER)
    sure = iter(np.repeat(presence, len(SIZES)).tolist())

    def find(pixels: Tensor, ids: Tensor, *_: Any, **__: Any) -> Sought:
        masks = torch.full((len(ids), 16, 16), -8.0)
        masks[:, 5:11, 5:11] = 8.0
        return Sought(masks[:, ::2, ::2], masks, torch.full((len(ids),), next(sure)))

    monkeypatch.setattr(segmenter.model, "find", find)
    return segmenter


def test_words_are_looked_for_and_followed_both_ways(miniature: Miniature, monkeypatch: pytest.MonkeyPatch) -> None:
    sample = samples("ref_davis17", miniature)[0]
    count = len(sample.frames)
    segmenter = seeker(monkeypatch, [-3.0] * (count - 2) + [3.0, 1.0])
    monkeypatch.setattr(predict, "CHUNK", 2)
    seen: list[int] = []
    frames_of = predict._frames
    monkeypatch.setattr(predict, "_frames", lambda one, part: (seen.extend(part), frames_of(one, part))[1])
    found = predicted(Predictor(segmenter, BENCHMARKS["ref_davis17"]), sample)
    assert seen == [*range(count - 2, -1, -1), count - 2, count - 1]
    assert [each.frame for each in found] == list(range(count))
    assert [each.place for each in found] == list(range(count))
    assert found[count - 2].masks.any()
    for each in found:
        assert each.masks.shape[1:] == sample.size
        assert not each.condition.any()


def test_words_that_are_found_nowhere_give_no_mask(miniature: Miniature, monkeypatch: pytest.MonkeyPatch) -> None:
    sample = samples("ref_davis17", miniature)[0]
    segmenter = seeker(monkeypatch, [-3.0] * len(sample.frames))
    found = predicted(Predictor(segmenter, BENCHMARKS["ref_davis17"]), sample)
    assert [each.frame for each in found] == list(range(len(sample.frames)))
    assert not any(len(each.masks) for each in found)


def test_several_phrases_keep_their_places(miniature: Miniature, monkeypatch: pytest.MonkeyPatch) -> None:
    sample = replace(samples("refcoco", miniature)[0], targets=("a dog", "a cat"))
    (found,) = predicted(Predictor(seeker(monkeypatch, [3.0, 3.0]), BENCHMARKS["refcoco"]), sample)
    assert sorted(found.condition) == [0, 1]
    assert found.masks.shape == (2, *sample.size)


@pytest.mark.parametrize("name", ["ytvis19", "vipseg", "vspw"])
def test_classes_are_looked_for_and_keep_their_places(
    name: str, miniature: Miniature, monkeypatch: pytest.MonkeyPatch
) -> None:
    sample = samples(name, miniature)[0]
    found = predicted(Predictor(seeker(monkeypatch, [3.0] * len(sample.frames)), BENCHMARKS[name]), sample)
    assert [each.frame for each in found] == list(range(len(sample.frames)))
    classes = [set(each.condition.tolist()) for each in found]
    assert set.union(*classes) <= set(range(len(sample.targets)))
    assert any(each.masks.any() for each in found)
    # What is of one class goes by one identity on all frames, and by no other's.
    pairs = {pair for each in found for pair in zip(each.identity.tolist(), each.condition.tolist(), strict=True)}
    assert len(pairs) == len({identity for identity, _ in pairs})
    if BENCHMARKS[name].kind == "panoptic":
        assert all(each.masks.sum(0).max(initial=0) <= 1 for each in found)


def test_an_instance_is_listed_of_which_the_finder_is_not_sure(
    miniature: Miniature, monkeypatch: pytest.MonkeyPatch
) -> None:
    sample = samples("ytvis19", miniature)[0]
    doubted = [-0.5] * len(sample.frames)
    (listed, *_) = predicted(Predictor(seeker(monkeypatch, doubted), BENCHMARKS["ytvis19"]), sample)
    assert len(listed.masks)
    mapped = samples("vspw", miniature)[0]
    (nothing, *_) = predicted(Predictor(seeker(monkeypatch, doubted), BENCHMARKS["vspw"]), mapped)
    assert not len(nothing.masks)


def test_each_pixel_is_of_the_surest_and_stuff_is_one() -> None:
    masks = np.zeros((4, 2, 6), np.bool_)
    masks[0, :, :3], masks[1, :, 2:4], masks[2, :, 4:5], masks[3, :, 5:] = True, True, True, True
    scores = np.array([0.1, 0.2, 0.3, 0.4])
    found = Found(7, masks, np.array([1, 0, 1, 0]), np.array([4, 5, 6, 8]), scores)
    cut = apart(found, {1})
    assert cut.frame == 7
    by_owner = {(c, i): m for c, i, m in zip(cut.condition.tolist(), cut.identity.tolist(), cut.masks, strict=True)}
    assert set(by_owner) == {(1, 0), (0, 5), (0, 8)}
    np.testing.assert_array_equal(by_owner[1, 0][0], [True, True, False, False, True, False])
    np.testing.assert_array_equal(by_owner[0, 5][0], [False, False, True, True, False, False])
    assert sorted(cut.scores.tolist()) == [0.2, 0.3, 0.4]


def test_what_lies_wholly_under_another_is_no_segment() -> None:
    masks = np.ones((2, 2, 2), np.bool_)
    found = Found(0, masks, np.array([0, 1]), np.array([0, 1]), np.array([0.3, 0.6]))
    assert apart(found, set()).condition.tolist() == [1]


def test_a_model_with_names_describes_by_what_it_finds(miniature: Miniature, monkeypatch: pytest.MonkeyPatch) -> None:
    sample = samples("video_gcg", miniature)[0]
    segmenter = seeker(monkeypatch, [3.0] * 4 * len(sample.frames))
    segmenter.lexicon = footage_lexicon()
    monkeypatch.setattr(segmenter.model, "liken", lambda pixels, ids, *_: torch.zeros(1, len(ids), 8, 8))
    middle = np.zeros((16, 16), np.bool_)
    middle[5:11, 5:11] = True
    monkeypatch.setattr(segmenter, "_followed", lambda query, looked: [middle] * len(looked))
    found = predicted(Predictor(segmenter, BENCHMARKS["video_gcg"]), sample)
    phrases = found[0].answer.phrases
    assert phrases
    assert set(phrases) <= set(segmenter.names)
    assert found[0].answer.caption == segmenter.lexicon.told(phrases)
    assert found[0].condition.tolist() == list(range(len(phrases)))
    assert found[0].masks.any()


# ---- what is asked ----------------------------------------------------------------------------------------


def asked(name: str, index: int, miniature: Miniature, segmenter: Segmenter, said: list[str]) -> str:
    sample = samples(name, miniature)[index]
    next(iter(Predictor(segmenter, BENCHMARKS[name]).predict(sample)))
    return said[-1]


def test_classes_are_asked_in_the_order_of_the_data_set(
    miniature: Miniature, segmenter: Segmenter, said: list[str]
) -> None:
    # Sky and grass, which are no things, come first there.
    names = "<p>sky</p>, <p>grass</p>, <p>person</p>, <p>ball net</p>"
    assert f"based on the following categories: {names}?" in asked("vipseg", 0, miniature, segmenter, said)


def test_reasoning_is_asked_as_sentence_or_as_phrase(
    miniature: Miniature, segmenter: Segmenter, said: list[str]
) -> None:
    sentence = asked("revos", 0, miniature, segmenter, said)
    assert "<p>which shape stays all along?</p> Please output the corresponding segmentation mask." in sentence
    phrase = asked("revos", 2, miniature, segmenter, said)
    assert "Can you segment <p>the round shapes</p> in this video? Please output" in phrase


def test_all_regions_are_asked_at_once(
    miniature: Miniature, segmenter: Segmenter, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sample = samples("coco_vgd", miniature)[0]
    region = sample.targets[0]
    assert not isinstance(region, str)
    many = replace(sample, targets=(region,) * 11, categories=(Category(1, "person"),) * 11)
    found = predicted(Predictor(segmenter, BENCHMARKS["coco_vgd"]), many)
    assert said[-1].count("<p>") == 11
    assert len(said) == 1
    assert set(found[0].condition) <= set(range(11))


def test_a_region_is_read_from_its_own_frame(
    miniature: Miniature, segmenter: Segmenter, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = next(sample for sample in samples("ytvos19", miniature) if sample.prompt_frame)
    predictor = Predictor(segmenter, BENCHMARKS["ytvos19"])
    asks: list[tuple[Any, ...]] = []
    ask = predictor.segmenter.ask

    def listen(*args: Any) -> Any:
        asks.append(args)
        return ask(*args)

    monkeypatch.setattr(predictor.segmenter, "ask", listen)
    predicted(predictor, late)
    ((_, (prompt,), _, plates, _),) = asks
    assert isinstance(prompt, MaskPrompt)
    assert prompt.frame == late.prompt_frame
    np.testing.assert_array_equal(plates[late.prompt_frame], read_rgb(late.frames[late.prompt_frame], late.size))


# ---- streaming --------------------------------------------------------------------------------------------


def test_frames_are_read_as_they_are_wanted(
    miniature: Miniature, segmenter: Segmenter, read: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    sample = samples("ref_ytvos", miniature)[0]
    long = replace(sample, frames=sample.frames * 20, names=sample.names * 20)
    found = Predictor(segmenter, BENCHMARKS["ref_ytvos"]).predict(long)
    next(found)
    # The glimpse, the first frame with it, and one batch of frames.
    assert len(read) <= 16 + predict.CHUNK
    next(found)
    assert len(read) <= 16 + predict.CHUNK


def test_batches_change_nothing(miniature: Miniature, segmenter: Segmenter, monkeypatch: pytest.MonkeyPatch) -> None:
    sample = samples("ytvis19", miniature)[0]
    predictor = Predictor(segmenter, BENCHMARKS["ytvis19"])
    whole = predicted(predictor, sample)
    monkeypatch.setattr(predict, "CHUNK", 2)
    for one, other in zip(whole, predicted(predictor, sample), strict=True):
        assert (one.masks != other.masks).mean() < 1e-3 if len(one.masks) else not len(other.masks)
        np.testing.assert_array_equal(one.identity, other.identity)
    assert sum(len(found.masks) for found in whole)


def test_identities_are_kept_over_time_in_standard_mode_only(miniature: Miniature, segmenter: Segmenter) -> None:
    sample = samples("ytvis19", miniature)[0]
    standard = predicted(Predictor(segmenter, BENCHMARKS["ytvis19"]), sample)
    shared = set(standard[0].identity) & set(standard[-1].identity)
    assert shared
    for found in standard:
        assert len(set(zip(found.identity, found.condition, strict=True))) == len(found.masks)
    reference = predicted(Predictor(segmenter, BENCHMARKS["ytvis19"], "reference"), sample)
    for found in reference:
        assert list(found.identity) == list(range(12)), "as many as queries, however low they score"


@pytest.mark.parametrize("mode", ["standard", "reference"])
def test_panoptic_segments_share_no_pixel_and_no_id(mode: Mode, miniature: Miniature, segmenter: Segmenter) -> None:
    sample = samples("vipseg", miniature)[0]
    for found in predicted(Predictor(segmenter, BENCHMARKS["vipseg"], mode), sample):
        assert (found.masks.sum(0) <= 1).all()
        assert len(set(found.identity)) == len(found.identity)
        assert 0 not in found.identity


def test_semantic_has_a_class_for_every_pixel(miniature: Miniature, segmenter: Segmenter) -> None:
    for found in predicted(Predictor(segmenter, BENCHMARKS["vspw"]), samples("vspw", miniature)[0]):
        assert (found.masks.sum(0) == 1).all()


# ---- from logits to masks ---------------------------------------------------------------------------------


def result(classes: list[list[float]], masks: Tensor, frame: int = 0) -> FrameResult:
    """A frame with scores (Q, C) against a background of 0, and masks (Q, H, W)."""
    scores = torch.cat((torch.tensor(classes), torch.zeros(len(classes), 1)), 1)
    logits = torch.where(masks, 5.0, -5.0)
    return FrameResult(Frame(frame, None, np.zeros((*SIZE, 3), np.uint8)), (), Prediction(logits[None], scores[None]))


def halves() -> Tensor:
    masks = torch.zeros(2, *SIZE, dtype=torch.bool)
    masks[0, :, :6] = masks[1, :, 4:] = True
    return masks


def about(sample: Sample, *, reference: bool, united: bool = False, targets: Any = ("a dog",)) -> Any:
    chunk = Chunk(0, 0, (0,), (0,), targets)
    return predict.About(sample, Geometry(SIZE, SIZE, SIZE), chunk, reference, united, SegmentIds(sample))


@pytest.mark.parametrize(
    ("scores", "standard", "reference"), [((-2.0, -3.0), 0, 1), ((2.0, 1.0), 2, 2), ((1, -1), 1, 1)]
)
def test_united_answers(scores: tuple[float, float], standard: int, reference: int) -> None:
    shown = result([[score] for score in scores], halves())
    areas = [0, 48, 80]
    for mode, queries in ((False, standard), (True, reference)):
        (found,) = predict.referring([shown], about(drawn([True]), reference=mode, united=True))
        assert found.masks.sum() == areas[queries]


def test_referring_always_answers_with_the_best() -> None:
    (found,) = predict.referring([result([[-4.0], [-3.0]], halves())], about(drawn([True]), reference=False))
    np.testing.assert_array_equal(found.masks[0], halves()[1])
    assert found.scores[0] == pytest.approx(torch.tensor(-3.0).sigmoid())


@pytest.mark.parametrize(("reference", "area"), [(False, 48), (True, 32)])
def test_later_phrases_cover_earlier_ones_in_the_reference(reference: bool, area: int) -> None:
    shown = result([[4.0, 0.0], [0.0, 4.0]], halves())
    (found,) = predict.grounded([shown], about(drawn([True]), reference=reference))
    assert found.masks.sum((1, 2)).tolist() == [area, 48]


def test_the_reference_does_not_see_the_region_of_an_object() -> None:
    # The second query is likelier, the first lies on the region.
    shown = result([[0.6], [0.8]], halves())
    sample = drawn([True], task="objseg")
    for reference, best in ((False, 0), (True, 1)):
        frame = about(sample, reference=reference, targets=(halves()[0].numpy(),))
        (found,) = predict.tracked_object([shown], frame)
        np.testing.assert_array_equal(found.masks[0], halves()[best])


def test_things_get_new_ids_in_each_chunk_and_stuff_keeps_its_own() -> None:
    sample = replace(drawn([True]), categories=(Category(7, "sky", thing=False), Category(9, "dog")))
    left, right = halves().clone()
    right[:, :6] = False
    shown = result([[4.0, 0.0], [0.0, 4.0]], torch.stack((left, right)))
    frame = about(sample, reference=True)
    first, second, third = (next(predict.panoptic([shown], frame)) for _ in range(3))
    assert [sorted(found.condition) for found in (first, second, third)] == [[0, 1]] * 3
    ids = [
        dict(zip(found.condition.tolist(), found.identity.tolist(), strict=True)) for found in (first, second, third)
    ]
    assert len({each[0] for each in ids}) == 1
    assert len({each[1] for each in ids}) == 3


# ---- descriptions -----------------------------------------------------------------------------------------


@pytest.fixture
def answer(segmenter: Segmenter, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Makes the language model write a text and then stop."""
    write = segmenter.model.vlm.write

    def speak(text: str) -> None:
        ids = segmenter.tokenizer.encode(f"{text}<|im_end|>", add_special_tokens=False).ids

        def written(*args: Any) -> Any:
            script: Iterator[int] = iter(ids)
            return write(*args, choose=lambda _: next(script))

        monkeypatch.setattr(segmenter.model.vlm, "write", written)

    return speak


SAID = "<p>A Shape</p> and <p>Été, all the others that there are</p> drift. <SEG>."


@pytest.mark.parametrize("mode", ["standard", "reference"])
def test_a_description_keeps_its_words(
    mode: Mode, miniature: Miniature, segmenter: Segmenter, answer: Callable[[str], None]
) -> None:
    answer(SAID)
    predictor = Predictor(segmenter, BENCHMARKS["video_gcg"], mode)
    for found in predicted(predictor, samples("video_gcg", miniature)[0]):
        assert found.answer.caption == "A Shape and Été, all the others that there are drift."
        assert found.answer.phrases == ("A Shape", "Été, all the others that there are")
        assert set(found.condition) <= {0, 1}


def test_a_description_without_masks_is_a_failure(
    miniature: Miniature, segmenter: Segmenter, answer: Callable[[str], None]
) -> None:
    answer("Nothing here.")
    sample = samples("video_gcg", miniature)[0]
    (failed,) = Predictor(segmenter, BENCHMARKS["video_gcg"], reading=Reading()).predict(sample)
    assert isinstance(failed, Failed)
    assert failed.frames == tuple(range(len(sample.frames)))
    assert "answered without a mask: 'Nothing here." in failed.reason


def test_phrases_are_paired_in_order() -> None:
    assert list(phrases_in("<p>one</p> <p> two</p><p>open")) == ["one", "two"]
    assert list(phrases_in("none")) == []
