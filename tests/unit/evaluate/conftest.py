"""Miniatures of all data sets, a tiny model, and one that knows the truth."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.tiny import tiny_segmenter
from x2roto.data.layouts import LAYOUTS
from x2roto.data.sample import Sample
from x2roto.engine.segmenter import Segmenter
from x2roto.evaluate.asking import Answer
from x2roto.evaluate.predict import Chunk, Found, Predictor, SegmentIds, nothing
from x2roto.evaluate.scoring import plain, true_phrases

SEED = 5
Miniature = Callable[[str], Path]


@pytest.fixture(scope="session")
def miniature(tmp_path_factory: pytest.TempPathFactory) -> Miniature:
    """The folder of a layout's miniature; not to be written to."""
    made: dict[str, Path] = {}

    def write(name: str) -> Path:
        if name not in made:
            # MeViS writes beside its folder.
            made[name] = tmp_path_factory.mktemp(name) / "data"
            made[name].mkdir()
            LAYOUTS[name].miniature(made[name], SEED)
        return made[name]

    return write


@pytest.fixture(scope="session")
def segmenter() -> Segmenter:
    return tiny_segmenter()


@pytest.fixture
def no_java(monkeypatch: pytest.MonkeyPatch) -> None:
    """Captions are scored in tests of their own; Java takes long to start."""
    monkeypatch.setattr(shutil, "which", lambda name: None)


@pytest.fixture
def oracle(monkeypatch: pytest.MonkeyPatch, no_java: None) -> None:
    """Every model finds just what there is."""

    def answer(self: Predictor, sample: Sample, chunk: Chunk) -> tuple[None, Answer]:
        said = Answer(plain(sample.captions[0]), true_phrases(sample)) if sample.captions else Answer()
        return None, said

    def perfect(self: Predictor, sample: Sample, chunk: Chunk, query: None, ids: SegmentIds) -> Iterator[Found]:
        for frame in chunk.frames:
            if not sample.annotated[frame]:
                yield nothing(sample, frame)
                continue
            truth = sample.truth(frame)
            # Found segments are counted from 1; in the truth stuff has the number of its class, which may be 0.
            yield Found(frame, truth.masks, truth.condition, truth.identity + 1, np.ones(len(truth.masks)))

    monkeypatch.setattr(Predictor, "_ask", answer)
    monkeypatch.setattr(Predictor, "_follow", perfect)
