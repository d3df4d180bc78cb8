"""Running benchmarks: the truth scores best, failures count, stops and shards change nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.unit.evaluate.conftest import Miniature
from x2roto.data.sample import Sample
from x2roto.engine.segmenter import Reading, Segmenter
from x2roto.errors import InputError, OutputError, PromptError
from x2roto.evaluate.benchmarks import BENCHMARKS, MODES, Mode
from x2roto.evaluate.predict import Predictor
from x2roto.evaluate.report import write_report
from x2roto.evaluate.runner import Choices, Totals, Work, evaluate, opened, reopened, total, worst
from x2roto.evaluate.store import Bad, Store, Whole
from x2roto.evaluate.summary import run_report

# What is 1 when everything is right, by kind and medium.
BEST = {
    "panoptic": ({"PQ", "SQ", "RQ"}, {"VPQ1", "VPQ4", "VPQ1_th", "STQ"}),
    "semantic": ({"mIoU", "pACC"}, {"mIoU", "pACC"}),
    "instance": ({"AP", "AP50"}, {"AP", "AP50"}),
    "masks": ({"cIoU", "gIoU"}, set()),
    "objects": (set(), {"J", "F", "J&F"}),
    # A picture without any phrase has no pairs, which is 0.
    "grounded": ({"AP50", "Recall"}, {"mIoU", "Recall"}),
}


def same_words(first: Any, second: Any) -> Any:
    return np.equal.outer(np.array(first), np.array(second)).astype(float)


def scored(work: Work, segmenter: Segmenter, out: Path, similarity: Any = None, **options: Any) -> Totals:
    store = evaluate(work, segmenter, out, similarity=similarity, **options)
    return total(Whole.of([store]), work, similarity)


# ---- the measures -----------------------------------------------------------------------------------------


@pytest.mark.usefixtures("oracle")
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", BENCHMARKS)
def test_the_truth_scores_best(
    name: str, mode: Mode, miniature: Miniature, segmenter: Segmenter, tmp_path: Path
) -> None:
    work = opened(Choices(name, miniature(name), mode=mode))
    totals = scored(work, segmenter, tmp_path, same_words)
    best = BEST[work.benchmark.kind][work.video]
    # The reference takes the first listed object of a video for a crowd, and drops frames at its will.
    best = best - {"STQ"} if mode == "reference" else best
    assert best
    assert {measure: totals.scores[""][measure] for measure in best} == pytest.approx(dict.fromkeys(best, 1.0))
    assert totals.answered == work.count
    assert not totals.failures


@pytest.mark.usefixtures("oracle")
@pytest.mark.parametrize("name", BENCHMARKS)
def test_measures_of_the_paper_are_made(
    name: str, miniature: Miniature, segmenter: Segmenter, tmp_path: Path
) -> None:
    work = opened(Choices(name, miniature(name)))
    totals = scored(work, segmenter, tmp_path, same_words)
    made = totals.scores[""].keys() | totals.absent.keys()
    published = {measure for each in work.benchmark.paper for measure in each.scores}
    assert published <= made
    parts = {each.part for each in work.benchmark.paper if each.split in (None, work.split)}
    assert parts <= totals.scores.keys()


@pytest.mark.usefixtures("oracle")
def test_frames_before_an_object_is_shown_do_not_count(
    miniature: Miniature, segmenter: Segmenter, tmp_path: Path
) -> None:
    work = opened(Choices("ytvos19", miniature("ytvos19")))
    store = evaluate(work, segmenter, tmp_path)
    samples = [work.dataset[index] for index in range(work.count)]
    late = [sample for sample in samples if sample.prompt_frame]
    assert late
    for index, sample in enumerate(samples):
        kept = store.scored(index)
        assert kept.frames == tuple(range(sample.prompt_frame, len(sample.frames)))
        assert kept.left_out == sample.prompt_frame


@pytest.mark.usefixtures("oracle")
def test_davis_leaves_the_ends_out_in_its_own_protocol(
    miniature: Miniature, segmenter: Segmenter, tmp_path: Path
) -> None:
    frames: dict[Mode, tuple[int, ...]] = {}
    for mode in MODES:
        work = opened(Choices("davis16", miniature("davis16"), mode=mode))
        frames[mode] = evaluate(work, segmenter, tmp_path / mode).scored(0).frames
    assert frames == {"standard": (1, 2, 3), "reference": (0, 1, 2, 3, 4)}


@pytest.mark.usefixtures("oracle")
def test_objects_swapped_between_frames_break_tracks_not_frames(
    miniature: Miniature, segmenter: Segmenter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    perfect = Predictor._follow

    def swapped(self: Predictor, sample: Sample, *args: Any) -> Any:
        for found in perfect(self, sample, *args):
            other = found.identity if found.frame % 2 else found.identity[::-1]
            yield replace(found, identity=other)

    monkeypatch.setattr(Predictor, "_follow", swapped)
    precision = {
        mode: scored(opened(Choices("ytvis19", miniature("ytvis19"), mode=mode)), segmenter, tmp_path / mode).scores[
            ""
        ]["AP"]
        for mode in MODES
    }
    assert precision["reference"] == 1
    assert precision["standard"] < 0.7


def units(name: str, miniature: Miniature, segmenter: Segmenter, out: Path) -> list[list[Any]]:
    """What counts as one frame in reference mode, for each sample."""
    work = opened(Choices(name, miniature(name), mode="reference"))
    store = evaluate(work, segmenter, out)
    return [
        [unit for unit, *_ in store.scored(index).state["FramePrecision"]["units"]] for index in range(work.count)
    ]


@pytest.mark.usefixtures("oracle")
def test_the_reference_pools_frames_of_different_videos(
    miniature: Miniature, segmenter: Segmenter, tmp_path: Path
) -> None:
    assert units("ytvis19", miniature, segmenter, tmp_path / "a") == [[0, 1, 2, 3, 4], [0, 1, 2, 3]]
    shown = [unit for sample in units("yt19_vgd", miniature, segmenter, tmp_path / "b") for unit in sample]
    assert len(set(shown)) == len(shown) == 9


# ---- failures ---------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("no_java")
@pytest.mark.parametrize(("mode", "frames", "left_out"), [("standard", 9, 0), ("reference", 0, 9)])
def test_samples_without_an_answer_are_counted(
    mode: Mode, frames: int, left_out: int, miniature: Miniature, segmenter: Segmenter, tmp_path: Path
) -> None:
    work = opened(Choices("video_gcg", miniature("video_gcg"), mode=mode, reading=Reading(limit=4)))
    totals = scored(work, segmenter, tmp_path, same_words)
    assert (totals.answered, totals.frames, totals.left_out) == (0, frames, left_out)
    assert [key for key, _ in totals.failures] == [work.dataset[0].key, work.dataset[1].key]
    assert all("the model answered without a mask" in reason for _, reason in totals.failures)
    if mode == "standard":
        assert totals.scores[""]["mIoU"] == 0
        assert totals.scores[""]["Recall"] == 0
    notes = run_report(Whole.of([Store.open(tmp_path)]), work, totals).notes
    assert any("has no answer" in note for note in notes)


def test_a_picture_that_is_gone_stops_the_run_and_keeps_what_is_done(
    miniature: Miniature, segmenter: Segmenter, tmp_path: Path
) -> None:
    import shutil

    data = tmp_path / "data"
    shutil.copytree(miniature("refcoco"), data)
    work = opened(Choices("refcoco", data))
    gone = work.dataset[2].frames[0]
    kept = gone.read_bytes()
    assert work.dataset[0].frames[0] == gone
    gone.write_bytes(b"no picture")
    with pytest.raises(InputError, match=f"{gone.name} cannot be read as a picture"):
        evaluate(work, segmenter, tmp_path / "out")
    gone.write_bytes(kept)
    assert scored(work, segmenter, tmp_path / "out").answered == work.count


def test_choices_that_cannot_be(miniature: Miniature, tmp_path: Path) -> None:
    data = miniature("refcoco")
    with pytest.raises(PromptError, match="refcoco has templates 0 to 9, not 10"):
        opened(Choices("refcoco", data, reading=Reading(template=10)))
    with pytest.raises(PromptError, match="yt19_vgd has chunks of split val only"):
        opened(Choices("yt19_vgd", miniature("yt19_vgd"), split="train", mode="reference"))
    with pytest.raises(InputError, match=r"instances\.json is missing"):
        opened(Choices("refcoco", tmp_path))


# ---- stops and shards -------------------------------------------------------------------------------------


class StopError(Exception):
    """Stands for whatever ends a process."""


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def work(miniature: Miniature) -> Work:
    return opened(Choices("ytvos19", miniature("ytvos19"), prompt="point"))


def report(stores: list[Store], work: Work, folder: Path) -> None:
    whole = Whole.of(stores)
    write_report(run_report(whole, work, total(whole, work)), folder)


def test_stopped_and_continued_is_uninterrupted(work: Work, segmenter: Segmenter, tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    report([evaluate(work, segmenter, whole)], work, whole)

    told: list[int] = []

    def stop(done: int, count: int, scored: object) -> None:
        told.append(done)
        if len(told) in (2, 3):
            raise StopError

    for _ in range(2):
        with pytest.raises(StopError):
            evaluate(work, segmenter, parts, on_sample=stop)
    (parts / "samples" / ".000003.json.tmp.1.gz").write_bytes(b"half a sam")
    report([evaluate(work, segmenter, parts, on_sample=stop)], work, parts)
    assert told == [1, 2, 3, 4, 5, 6]
    (parts / "samples" / ".000003.json.tmp.1.gz").unlink()
    assert files(parts) == files(whole)


def test_shards_merged_are_one_run(work: Work, segmenter: Segmenter, tmp_path: Path) -> None:
    report([evaluate(work, segmenter, tmp_path / "whole")], work, tmp_path / "whole")
    shards = [evaluate(work, segmenter, tmp_path / str(number), shard=(number, 2)) for number in (2, 1)]
    report(shards, reopened(shards[0].facts), tmp_path / "merged")
    for name in ("report.json", "report.html"):
        assert (tmp_path / "merged" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_what_is_missing_is_said(work: Work, segmenter: Segmenter, tmp_path: Path) -> None:
    half = evaluate(work, segmenter, tmp_path / "half", shard=(2, 3))
    with pytest.raises(InputError, match="4 of 6 samples are not done, the first is 0: run the evaluation again"):
        Whole.of([half])
    (tmp_path / "half" / "samples" / "000001.json.gz").write_bytes(b"{")
    with pytest.raises(InputError, match=r"000001.json.gz is missing or damaged: remove it and run"):
        half.scored(1)
    with pytest.raises(InputError, match=r"000000.json.gz is missing or damaged"):
        half.predictions(0)
    with pytest.raises(InputError, match="holds no evaluation: give a folder that x2roto evaluate wrote"):
        Store.open(tmp_path)


def test_runs_are_not_mixed(work: Work, segmenter: Segmenter, miniature: Miniature, tmp_path: Path) -> None:
    first = evaluate(work, segmenter, tmp_path / "a")
    other = opened(Choices("ytvos19", miniature("ytvos19"), prompt="box"))
    with pytest.raises(OutputError, match="holds another run, with prompt 'point', not 'box': choose another --out"):
        evaluate(other, segmenter, tmp_path / "a")
    second = evaluate(other, segmenter, tmp_path / "b")
    with pytest.raises(InputError, match="are of different runs, their prompt differs: merge the shards of one run"):
        Whole.of([first, second])


def test_equal_runs_are_equal(work: Work, segmenter: Segmenter, tmp_path: Path) -> None:
    for name in ("a", "b"):
        evaluate(work, segmenter, tmp_path / name)
    assert files(tmp_path / "a") == files(tmp_path / "b")


def test_the_worst_frames_are_apart() -> None:
    judged = [Bad(value, frame, None) for frame, value in enumerate([0.5, 0.1, 0.2, 0.9, 0.9, 0.9, 0.9, 0.3, 0.3])]
    assert [each.frame for each in worst(judged)] == [1, 7]
    assert [each.frame for each in worst(judged, 1)] == [1]


# ---- the page ---------------------------------------------------------------------------------------------


def test_the_page_says_it_all(work: Work, segmenter: Segmenter, tmp_path: Path) -> None:
    whole = Whole.of([evaluate(work, segmenter, tmp_path)])
    page = run_report(whole, work, total(whole, work))
    assert page.title == "YouTube-VOS 2019, val"
    assert page.facts["regions"] == "point"
    assert [table.title for table in page.tables] == [
        "Scores",
        "Scores, seen",
        "Scores, unseen",
        "Samples, the worst first",
    ]
    values = [row[2] for row in page.tables[-1].rows]
    assert values == sorted(values)
    assert len(page.series) == len(page.pictures) == work.count
    assert any(note.startswith("Standard mode") for note in page.notes)
    # Not with points: the paper shows masks.
    assert len(page.tables[0].columns) == 2


@pytest.mark.usefixtures("oracle")
def test_ours_stands_beside_the_papers(miniature: Miniature, segmenter: Segmenter, tmp_path: Path) -> None:
    work = opened(Choices("ytvos19", miniature("ytvos19"), mode="reference"))
    whole = Whole.of([evaluate(work, segmenter, tmp_path)])
    page = run_report(whole, work, total(whole, work))
    assert page.tables[0].rows == (
        ("J", 100.0, 72.2, pytest.approx(27.8)),
        ("F", 100.0, 75.9, pytest.approx(24.1)),
        ("J&F", 100.0, 74.0, pytest.approx(26.0)),
    )
