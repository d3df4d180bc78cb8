"""A query over a clip: forward from its frame, backward before it, classes as one matte or as instances."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tests.media import pictures, write_pictures
from tests.tiny import tiny_segmenter
from x2roto.clip import ClipInfo, Frame, FrameRange
from x2roto.cutter import Cutter
from x2roto.engine.identity import EMPTY
from x2roto.engine.segmenter import Segmenter
from x2roto.engine.shot import Query
from x2roto.job import ClipSpec, EngineSpec
from x2roto.matte import Refine, Track
from x2roto.passes import Observed, Pass, Plate, chunked, plates
from x2roto.planning import open_clip
from x2roto.prompt import Box, Classes, Prompt, Text
from x2roto.source import FrameSource
from x2roto.timing import Clock

COUNT, START = 10, 6
SOFT = Refine()
SPEC = EngineSpec(presence=0, chunk=3)


@pytest.fixture(scope="module")
def segmenter() -> Segmenter:
    return tiny_segmenter()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("passes")
    write_pictures(folder / "a.%04d.png", pictures(COUNT))
    return folder


def source(folder: Path) -> FrameSource:
    return open_clip(ClipSpec(str(folder)))


def frames() -> list[Frame]:
    return [Frame(index, None, rgb) for index, rgb in enumerate(pictures(COUNT))]


def query(segmenter: Segmenter, *prompts: Prompt) -> Query:
    seen = [frame.rgb for frame in frames()]
    (found,) = segmenter.read(prompts, seen[::3], {START: seen[START]})
    return found


def logits(observed: list[Observed]) -> torch.Tensor:
    return torch.stack([each.logits for each in observed])


def test_before_its_frame_a_query_is_tracked_backward(segmenter: Segmenter, folder: Path, tmp_path: Path) -> None:
    asked = query(segmenter, Box("ball", 4, 8, 30, 30, START))
    late = Pass(segmenter, asked, 0, SPEC, tmp_path / "spool")
    with source(folder) as clip:
        assert list(late.look_back(clip, range(COUNT))) == list(range(START - 1, -1, -1))
    seen = list(late.follow([frames()]))
    assert len(seen) == COUNT
    # The same shot played backward, by a pass that has never seen a frame after its own.
    reversed_shot = list(Pass(segmenter, asked, START, SPEC, tmp_path / "none").step([frames()[START::-1]]))
    for early, backward in zip(seen[:START], reversed_shot[:0:-1], strict=True):
        torch.testing.assert_close(early.logits, backward.logits, rtol=2**-10, atol=2**-10)
        assert early.scores == backward.scores
    forward = list(Pass(segmenter, asked, START, SPEC, tmp_path / "none").step([frames()[START:]]))
    torch.testing.assert_close(logits(seen[START:]), logits(forward), rtol=0, atol=0)


def test_looking_back_is_done_once(segmenter: Segmenter, folder: Path, tmp_path: Path) -> None:
    asked = query(segmenter, Box("ball", 4, 8, 30, 30, START))
    first = Pass(segmenter, asked, 0, SPEC, tmp_path / "spool")
    with source(folder) as clip:
        stopped = first.look_back(clip, range(COUNT))
        next(stopped)
        stopped.close()
        assert len(first.before(range(COUNT))) == START, "half of it counts for nothing"
        assert len(list(first.look_back(clip, range(COUNT)))) == START
        again = Pass(segmenter, asked, 0, SPEC, tmp_path / "spool")
        assert list(again.look_back(clip, range(COUNT))) == []
    torch.testing.assert_close(logits(list(again.follow([frames()]))), logits(list(first.follow([frames()]))))


def test_only_frames_of_the_range_are_looked_at(segmenter: Segmenter, folder: Path, tmp_path: Path) -> None:
    late = Pass(segmenter, query(segmenter, Box("ball", 4, 8, 30, 30, START)), 1, SPEC, tmp_path / "spool")
    with source(folder) as clip:
        assert list(late.look_back(clip, (1, 3, START, 9))) == [3, 1]
    assert len(list(late.follow([[frames()[index] for index in (1, 3, START, 9)]]))) == 4


def test_a_query_on_the_first_frame_needs_no_spool(segmenter: Segmenter, folder: Path, tmp_path: Path) -> None:
    each = Pass(segmenter, query(segmenter, Text("dog", "dog")), 0, SPEC, tmp_path / "spool")
    with source(folder) as clip:
        assert list(each.look_back(clip, range(COUNT))) == []
    assert not each.anchored
    assert not (tmp_path / "spool").exists()


def test_instances_that_are_not_there_are_as_large_as_those_that_are(tmp_path: Path) -> None:
    close = tiny_segmenter(room=2.0)
    things = query(close, Classes("all", ("dog", "cat")))
    each = Pass(close, things, 0, replace(SPEC, presence=0.0, instances=40), tmp_path / "spool")
    (seen, *_) = each.step([frames()[:1]])
    found = [bool((one > EMPTY).any()) for one in seen.logits]
    assert any(found)
    assert not all(found)


@pytest.mark.parametrize(("instances", "labels"), [(0, ("dog", "sky")), (2, ("dog_1", "dog_2", "sky"))])
def test_a_class_is_one_matte_or_numbered_ones(
    instances: int, labels: tuple[str, ...], segmenter: Segmenter, tmp_path: Path
) -> None:
    asked = query(segmenter, Classes("classes", ("dog",), ("sky",)))
    each = Pass(segmenter, asked, 0, EngineSpec(presence=0, instances=instances), tmp_path)
    assert each.labels == labels
    for observed in each.follow([frames()[:3]]):
        assert observed.logits.shape[0] == len(observed.scores) == len(observed.presence) == len(labels)


def test_a_class_as_one_matte_is_the_union_of_its_instances(segmenter: Segmenter, tmp_path: Path) -> None:
    asked = query(segmenter, Classes("classes", ("dog",), ("sky",)))
    apart = list(Pass(segmenter, asked, 0, EngineSpec(presence=0, instances=64), tmp_path).follow([frames()[:3]]))
    union = list(Pass(segmenter, asked, 0, EngineSpec(presence=0), tmp_path).follow([frames()[:3]]))
    for several, one in zip(apart, union, strict=True):
        torch.testing.assert_close(several.logits[:-1].amax(0), one.logits[0])
        assert max(several.scores[:-1]) == one.scores[0]
    assert (apart[0].logits[-2] == EMPTY).all(), "an instance that is not there is empty"


def test_items_come_in_chunks() -> None:
    assert list(chunked(range(7), 3)) == [[0, 1, 2], [3, 4, 5], [6]]
    assert list(chunked([], 3)) == []


# ---- mattes -----------------------------------------------------------------------------------------------

INFO = ClipInfo(96, 64, Fraction(24), COUNT, 1001)


def shown() -> list[Plate]:
    return [Plate(frame, frame) for frame in frames()]


def cutter(segmenter: Segmenter, *prompts: Prompt, refine: Refine = SOFT, spool: Path) -> Cutter:
    each = Pass(segmenter, query(segmenter, *prompts), 0, SPEC, spool)
    tracks = [Track(number, prompt.name) for number, prompt in enumerate(prompts, start=1)]
    return Cutter(segmenter, [each], tracks, refine)


def test_facts_are_those_of_the_alpha_that_is_written(segmenter: Segmenter, tmp_path: Path) -> None:
    cutting = cutter(segmenter, Text("dog", "dog"), Text("cat", "a cat"), refine=Refine(grow=2), spool=tmp_path)
    for cut in cutting.cut([shown()[:3]], INFO, Clock()):
        assert [matte.track.label for matte in cut.result.mattes] == ["dog", "cat"]
        for matte in cut.result.mattes:
            facts = cut.facts[matte.track.label]
            rows, columns = np.nonzero(matte.alpha > 0.5)
            box = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) if len(rows) else None
            assert facts.box == box
            assert facts.area == pytest.approx(matte.alpha.mean(), abs=1e-6)
            assert matte.score == pytest.approx(facts.score, abs=1e-4)


def test_going_on_from_a_state_changes_nothing(segmenter: Segmenter, tmp_path: Path) -> None:
    def new() -> Cutter:
        return cutter(segmenter, Text("dog", "dog"), refine=Refine(smooth=0.5), spool=tmp_path)

    whole = [cut.result.mattes[0].alpha for cut in new().cut([shown()], INFO, Clock())]
    first, second = new(), new()
    *_, sixth = first.cut([shown()[:6]], INFO, Clock())
    for _ in first.cut([shown()[6:]], INFO, Clock()):
        pass
    sixth.state.save(tmp_path)
    second.restore(tmp_path)
    rest = [cut.result.mattes[0].alpha for cut in second.cut([shown()[6:]], INFO, Clock())]
    np.testing.assert_array_equal(rest, whole[6:])


def test_edges_are_looked_for_as_far_as_the_model_is_off(
    segmenter: Segmenter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def alpha(edge: str) -> NDArray[np.float32]:
        (cut,) = cutter(segmenter, Text("dog", "dog"), refine=Refine(edge=edge), spool=tmp_path).cut(  # type: ignore[arg-type]
            [shown()[:1]], INFO, Clock()
        )
        return cut.result.mattes[0].alpha

    assert segmenter.reach == 0
    np.testing.assert_array_equal(alpha("auto"), alpha("soft"))
    monkeypatch.setattr(Segmenter, "reach", 0.08)
    np.testing.assert_array_equal(alpha("auto"), alpha("refined"))
    assert (alpha("auto") != alpha("soft")).any()


def test_two_that_carry_one_name_are_one_matte(segmenter: Segmenter, tmp_path: Path) -> None:
    passes = [
        Pass(segmenter, query(segmenter, Text("dog", words)), 0, SPEC, tmp_path) for words in ("dog", "a black dog")
    ]
    both = Cutter(segmenter, passes, [Track(1, "dog")], Refine(edge="hard"))
    assert [track.label for track in both.tracks] == ["dog"]
    (cut,) = both.cut([shown()[:1]], INFO, Clock())
    apart = []
    for words in ("dog", "a black dog"):
        each = Pass(segmenter, query(segmenter, Text("dog", words)), 0, SPEC, tmp_path)
        (one,) = Cutter(segmenter, [each], [Track(1, "dog")], Refine(edge="hard")).cut([shown()[:1]], INFO, Clock())
        apart.append(one)
    np.testing.assert_array_equal(
        cut.result.mattes[0].alpha, np.maximum(*(one.result.mattes[0].alpha for one in apart))
    )
    assert cut.facts["dog"].score == max(one.facts["dog"].score for one in apart)


def test_time_is_counted_by_stage(segmenter: Segmenter, tmp_path: Path) -> None:
    clock = Clock()
    list(cutter(segmenter, Text("dog", "dog"), spool=tmp_path).cut([shown()[:2]], INFO, clock))
    assert clock.timing.network_s > 0
    assert clock.timing.alpha_s > 0
    assert clock.timing.decode_s == clock.timing.write_s == 0
    assert clock.timing.network_s + clock.timing.alpha_s < clock.seconds


def test_plates_are_frames_as_the_network_sees_them(folder: Path) -> None:
    with source(folder) as clip:
        found = list(plates(clip, [FrameRange(2, 4)]))
    assert [plate.index for plate in found] == [2, 3]
    assert all(plate.shown.rgb.dtype == np.uint8 for plate in found)
