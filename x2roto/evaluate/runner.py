"""Runs a benchmark: every sample predicted and scored by itself, then all of them together.

What is kept and how a run goes on is in `store.py`, what is predicted in `predict.py`, the measures in `scoring.py`,
the page in `summary.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from x2roto.data.layouts import chosen_prompt, chosen_split, layout_named
from x2roto.data.sample import Dataset, Layout, PromptKind, Sample
from x2roto.engine.segmenter import READING, Reading, Segmenter
from x2roto.errors import InputError, PromptError
from x2roto.evaluate.asking import task_of
from x2roto.evaluate.benchmarks import Benchmark, Mode, benchmark_named
from x2roto.evaluate.metrics.grounded import Similarity
from x2roto.evaluate.predict import Found, Predictor, nothing
from x2roto.evaluate.scoring import Rules, Scorer, scorer_for
from x2roto.evaluate.store import Bad, Facts, Predictions, Scored, Store, Whole, indices

# Told after each sample: how many of this shard's are done, how many there are, and its scores.
OnSample = Callable[[int, int, Scored], None]
CHUNKS = "chunks"
# Frames of a sample that are kept for pictures, and how far apart they are.
WORST, APART = 4, 6


@dataclass(frozen=True, slots=True)
class Choices:
    """What to evaluate. `split`, `prompt`: None for the data set's first. `limit`: of samples, from the first."""

    benchmark: str
    data: Path
    split: str | None = None
    prompt: PromptKind | None = None
    mode: Mode = "standard"
    limit: int | None = None
    reading: Reading = READING
    text_model: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Work:
    """A benchmark on a data set that has been opened. `split`, `prompt`: as chosen; `count`: samples that count."""

    choices: Choices
    benchmark: Benchmark
    dataset: Dataset
    split: str
    prompt: PromptKind | None
    count: int

    @property
    def video(self) -> bool:
        return self.dataset[0].media == "video"

    def rules(self, similarity: Similarity | None) -> Rules:
        """What its scorers need to know."""
        return Rules(self.benchmark, self.dataset.categories, self.video, self.choices.mode, similarity)

    def facts(self, segmenter: Segmenter) -> Facts:
        """What is written down of a run."""
        reading = self.choices.reading
        return Facts(
            benchmark=self.benchmark.name,
            data=str(self.choices.data.resolve()),
            split=self.split,
            prompt=self.prompt,
            mode=self.choices.mode,
            count=self.count,
            model=f"{segmenter.model.config.name} {segmenter.fingerprint}",
            dtype=str(segmenter.model.dtype).removeprefix("torch."),
            template=reading.template,
            seed=reading.seed,
            tokens=reading.limit,
            text_model=self.choices.text_model,
        )


def opened(choices: Choices) -> Work:
    """The benchmark and its data. Raises PromptError for choices that cannot be, InputError for missing files."""
    benchmark = benchmark_named(choices.benchmark)
    layout = layout_named(benchmark.name)
    split = _split(layout, choices)
    dataset = layout.open(choices.data, split, chosen_prompt(layout, choices.prompt))
    count = len(dataset) if choices.limit is None else min(choices.limit, len(dataset))
    if not count:
        raise InputError(f"{choices.data} has no samples of {benchmark.name}, split {split}: is this its folder?")
    templates = len(task_of(dataset[0]).wordings["plain"].questions)
    if not choices.reading.template < templates:
        raise PromptError(f"{benchmark.name} has templates 0 to {templates - 1}, not {choices.reading.template}")
    return Work(choices, benchmark, dataset, split, _shown(layout, split, choices, dataset), count)


def reopened(facts: Facts) -> Work:
    """The benchmark and data of a run. Raises InputError when they are gone."""
    reading = Reading(template=facts.template, limit=facts.tokens, seed=facts.seed)
    data, limit, text_model = Path(facts.data), facts.count, facts.text_model
    return opened(Choices(facts.benchmark, data, facts.split, facts.prompt, facts.mode, limit, reading, text_model))


def _split(layout: Layout, choices: Choices) -> str:
    """The split; what the reference asks by regions of classes on videos, the reader has cut into chunks."""
    split = chosen_split(layout, choices.split)
    if choices.mode == "standard" or CHUNKS not in layout.splits:
        return split
    if split not in (layout.splits[0], CHUNKS):
        raise PromptError(f"{layout.name} has chunks of split {layout.splits[0]} only: leave --split out")
    return CHUNKS


def _shown(layout: Layout, split: str, choices: Choices, dataset: Dataset) -> PromptKind | None:
    """How regions are drawn, None for a split that asks in words."""
    prompt = dataset[0].prompt
    if choices.prompt and not prompt:
        raise PromptError(f"{layout.name} has no regions in split {split!r}: leave --prompt out")
    return prompt


def evaluate(
    work: Work,
    segmenter: Segmenter,
    out: Path,
    *,
    shard: tuple[int, int] = (1, 1),
    similarity: Similarity | None = None,
    on_sample: OnSample = lambda done, count, scored: None,
) -> Store:
    """Predict and score the samples of a shard that `out` does not have yet; `total` adds up, `summary` tells.

    Samples that the model gives no masks for are scored as empty, or left out in reference mode, and counted. Raises
    InputError, OutputError, DeviceMemoryError; what is done stays done.
    """
    store = Store.create(out, work.facts(segmenter))
    predictor = Predictor(segmenter, work.benchmark, work.choices.mode, work.choices.reading)
    rules = work.rules(similarity)
    mine = indices(work.count, shard)
    for done, index in enumerate(mine, start=1):
        if store.has(index):
            continue
        sitting = Sitting(work.dataset[index], scorer_for(rules), work.benchmark)
        sitting.take(predictor)
        scored = sitting.scored()
        store.write(index, scored, sitting.predictions)
        on_sample(done, len(mine), scored)
    return store


# ---- one sample -------------------------------------------------------------------------------------------


@dataclass(slots=True, eq=False)
class Sitting:
    """One sample being scored."""

    sample: Sample
    scorer: Scorer
    benchmark: Benchmark
    predictions: Predictions = field(default_factory=Predictions)
    failures: list[str] = field(default_factory=list)
    answered: bool = False
    frames: list[int] = field(default_factory=list)
    lines: dict[str, list[float]] = field(default_factory=dict)
    judged: list[Bad] = field(default_factory=list)

    def take(self, predictor: Predictor) -> None:
        """Predict and score all frames."""
        for found in self._answers(predictor):
            self.predictions.add(found)
            if self.counts(found.frame, reference=predictor.reference):
                self._score(found)
        self.scorer.close(self.sample)

    def _answers(self, predictor: Predictor) -> Iterator[Found]:
        """What is found; frames the model gave nothing for are empty, or left out as in the reference."""
        for found in predictor.predict(self.sample):
            if isinstance(found, Found):
                self.answered = True
                yield found
                continue
            self.failures.append(found.reason)
            if not predictor.reference:
                yield from (nothing(self.sample, frame) for frame in found.frames)

    def counts(self, frame: int, *, reference: bool) -> bool:
        """Whether a frame is scored: if annotated, and none of the ends where a toolkit leaves those out."""
        known = np.flatnonzero(self.sample.annotated)
        outer = self.benchmark.inner and not reference and frame in (known[0], known[-1])
        return bool(self.sample.annotated[frame]) and not outer

    def _score(self, found: Found) -> None:
        truth = self.sample.truth(found.frame)
        judged = self.scorer.judge(truth, found)
        for name, value in (self.scorer.add(self.sample, truth, found) or {"overlap": judged.value}).items():
            self.lines.setdefault(name, []).append(value)
        self.frames.append(found.frame)
        self.judged.append(Bad(judged.value, found.frame, judged.condition))

    def scored(self) -> Scored:
        """The outcome."""
        known = set(np.flatnonzero(self.sample.annotated).tolist())
        return Scored(
            key=self.sample.key,
            parts=self.sample.parts,
            state=self.scorer.state(),
            frames=tuple(self.frames),
            lines=self.lines,
            worst=tuple(worst(self.judged)),
            answered=self.answered,
            failures=tuple(self.failures),
            left_out=len(known - set(self.frames)),
        )


def worst(judged: Iterable[Bad], count: int = WORST) -> list[Bad]:
    """The `count` frames that agree least, worst first, none nearer than `APART` to a worse one."""
    chosen: list[Bad] = []
    for each in sorted(judged, key=lambda each: each.value):
        if len(chosen) < count and not any(abs(other.frame - each.frame) < APART for other in chosen):
            chosen.append(each)
    return chosen


# ---- all together -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Totals:
    """Of a whole run. `scores`: by part, "" for everything, then by measure, as fractions. `absent`: measures that
    could not be made, with the reason. `failures`: key and reason of each time there was no answer. `answered`:
    samples with one. `frames`: that count. `left_out`: annotated frames that do not.
    """

    scores: Mapping[str, Mapping[str, float]]
    absent: Mapping[str, str]
    failures: tuple[tuple[str, str], ...]
    answered: int
    frames: int
    left_out: int


def total(whole: Whole, work: Work, similarity: Similarity | None = None) -> Totals:
    """The measures of all samples together; the order and number of shards change nothing. Raises InputError."""
    rules = work.rules(similarity)
    scorers: dict[str, Scorer] = {"": scorer_for(rules)}
    failures: list[tuple[str, str]] = []
    answered, frames, left_out = 0, 0, 0
    for scored in whole.scored():
        for part in ("", *scored.parts):
            scorers.setdefault(part, scorer_for(rules)).absorb(scored.state)
        failures += [(scored.key, reason) for reason in scored.failures]
        answered += scored.answered
        frames += len(scored.frames)
        left_out += scored.left_out
    scores = {part: scorers[part].result() for part in ("", *sorted(scorers.keys() - {""}))}
    return Totals(scores, scorers[""].absent(), tuple(failures), answered, frames, left_out)
