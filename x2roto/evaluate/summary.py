"""The page of a run: our numbers beside the paper's, samples from the worst on, their frames over time, pictures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import fsum

import numpy as np

from x2roto.data.annotations import read_rgb
from x2roto.data.layouts import layout_named
from x2roto.data.sample import Sample
from x2roto.evaluate.report import Cell, Column, Picture, Report, Series, Table, contour_picture, scores_table
from x2roto.evaluate.runner import Totals, Work
from x2roto.evaluate.scoring import SHOWN, united
from x2roto.evaluate.store import Bad, Facts, Scored, Whole

PICTURES, CURVES, ROWS = 12, 12, 200
PROTOCOLS = {
    "standard": "Standard mode: whole videos and all frames, what is asked for is shown once, objects are linked "
    "over time. The paper's numbers come from another protocol, so the difference is no measure of either.",
    "reference": "Reference mode: the protocol of the paper's numbers, with videos in chunks, each asked anew, and "
    "samples without an answer left out; templates and region points are fixed here, random there.",
}


@dataclass(frozen=True, slots=True)
class _Ranked:
    """A sample's scores without what is needed to add them up. `value`: the mean of its first measure."""

    index: int
    scored: Scored

    @property
    def means(self) -> dict[str, float]:
        return {name: fsum(values) / len(values) for name, values in self.scored.lines.items()}

    @property
    def value(self) -> float:
        return next(iter(self.means.values()))


def run_report(whole: Whole, work: Work, totals: Totals) -> Report:
    """The page of a run that is complete. Raises InputError when a picture of the data set is gone."""
    ranked = [_Ranked(index, scored) for index, scored in enumerate(whole.scored()) if scored.frames]
    ranked.sort(key=lambda each: each.value)
    return Report(
        title=f"{layout_named(work.benchmark.name).title}, {work.split}",
        facts=_facts(whole.facts, totals),
        tables=(*_tables(work, totals), *([_samples(ranked)] if ranked else [])),
        series=tuple(_over_time(each) for each in ranked[:CURVES]) if work.video else (),
        pictures=tuple(_pictures(ranked, whole, work)),
        notes=tuple(_notes(whole.facts, work, totals)),
    )


def _facts(facts: Facts, totals: Totals) -> dict[str, str]:
    said = {
        "mode": facts.mode,
        "model": f"{facts.model}, {facts.dtype}",
        "data": facts.data,
        "samples": str(facts.count),
        "frames": str(totals.frames),
        "template and seed": f"{facts.template}, {facts.seed}",
    }
    said |= {"regions": facts.prompt} if facts.prompt else {}
    said |= {"without an answer": str(len(totals.failures))} if totals.failures else {}
    return said


def _tables(work: Work, totals: Totals) -> Iterator[Table]:
    for part, scores in totals.scores.items():
        paper = work.benchmark.published(work.split, work.prompt, part)
        percent = {name: 100 * value for name, value in scores.items()}
        title = f"Scores, {part}" if part else "Scores"
        note = "In percent." if part == "" else f"In percent, of the part {part!r} of the data set."
        there = {name: value for name, value in paper.items() if name in percent}
        yield scores_table(title, percent, there, digits=1, note=note)


def _samples(ranked: Sequence[_Ranked]) -> Table:
    names = list(ranked[0].scored.lines)
    columns = Column("sample"), Column("frames"), *(Column(name, 3, "higher") for name in names)
    rows = tuple(_row(each, names) for each in ranked[:ROWS])
    more = f"The worst {ROWS} of {len(ranked)}." if len(ranked) > ROWS else ""
    return Table("Samples, the worst first", columns, rows, more)


def _row(each: _Ranked, names: Sequence[str]) -> tuple[Cell, ...]:
    return (each.scored.key, len(each.scored.frames), *(each.means[name] for name in names))


def _over_time(each: _Ranked) -> Series:
    # In reference mode a frame may come twice and late.
    order = sorted({frame: place for place, frame in enumerate(each.scored.frames)}.items())
    lines: Mapping[str, list[float]] = {
        name: [values[place] for _, place in order] for name, values in each.scored.lines.items()
    }
    return Series(each.scored.key, tuple(frame for frame, _ in order), lines, (0, 1))


def _pictures(ranked: Sequence[_Ranked], whole: Whole, work: Work) -> Iterator[Picture]:
    # The worst frame of every sample goes before the second of any.
    bad = [(place, each, sample.index) for sample in ranked for place, each in enumerate(sample.scored.worst)]
    bad.sort(key=lambda row: (row[0], row[1].value, row[2]))
    least = SHOWN if work.benchmark.kind == "instance" else 0.0
    for _, each, index in bad[:PICTURES]:
        sample = work.dataset[index]
        truth = sample.truth(each.frame)
        asked = np.ones(len(truth.masks), np.bool_) if each.condition is None else truth.condition == each.condition
        predicted = whole.at(index).predictions(index).mask(sample, each.frame, each.condition, least)
        plate = read_rgb(sample.frames[each.frame], sample.size)
        yield contour_picture(_caption(sample, each), plate, united(truth.masks[asked], truth), predicted)


def _caption(sample: Sample, bad: Bad) -> str:
    where = f"{sample.key}, frame {sample.names[bad.frame]}" if sample.media == "video" else sample.key
    return f"{where}: overlap {bad.value:.3f}{_asked(sample, bad.condition)}"


def _asked(sample: Sample, condition: int | None) -> str:
    """What is drawn, in words."""
    if condition is None or not sample.targets:
        return ""
    if sample.categories:
        return f", drawn: {sample.categories[condition].name}"
    target = sample.targets[condition]
    return f": {target}" if isinstance(target, str) else ""


def _notes(facts: Facts, work: Work, totals: Totals) -> Iterator[str]:
    yield PROTOCOLS[facts.mode]
    if work.benchmark.remark:
        yield work.benchmark.remark
    yield from (f"{name} is missing: {reason}." for name, reason in totals.absent.items())
    how = "left out" if facts.mode == "reference" else "scored as empty"
    yield from (f"{key} has no answer and is {how}: {reason}" for key, reason in totals.failures[:ROWS])
    if totals.left_out:
        yield f"{totals.left_out} annotated frames do not count under this protocol."
