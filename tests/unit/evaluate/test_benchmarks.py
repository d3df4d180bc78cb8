"""The table of benchmarks fits the data sets and the paper's tables."""

from __future__ import annotations

import pytest

from x2roto.data.layouts import LAYOUTS, chosen_prompt, chosen_split, layout_named
from x2roto.errors import PromptError
from x2roto.evaluate.benchmarks import BENCHMARKS, benchmark_named

PUBLISHED = [(name, each) for name, row in BENCHMARKS.items() for each in row.paper]


def test_every_layout_is_a_benchmark() -> None:
    assert BENCHMARKS.keys() == LAYOUTS.keys()


@pytest.mark.parametrize(("name", "published"), PUBLISHED)
def test_published_numbers_are_of_splits_and_prompts_there_are(name: str, published: object) -> None:
    layout, row = LAYOUTS[name], BENCHMARKS[name]
    assert published in row.paper
    split, prompt = published.split, published.prompt  # type: ignore[attr-defined]
    assert split is None or split in layout.splits
    assert prompt is None or prompt in layout.prompts
    chosen = split or layout.splits[0], prompt or next(iter(layout.prompts), None)
    assert row.published(*chosen, published.part) is published.scores  # type: ignore[attr-defined]


def test_the_papers_j_and_f_make_its_mean() -> None:
    triples = [each.scores for _, each in PUBLISHED if "J&F" in each.scores]
    assert len(triples) == 8
    for scores in triples:
        # Of the reasoning part of ReVOS the paper prints 67.5, 74.0 and 70.3.
        assert (scores["J"] + scores["F"]) / 2 == pytest.approx(scores["J&F"], abs=0.46)


def test_the_papers_vpq_is_a_mean() -> None:
    scores = BENCHMARKS["vipseg"].published("val", None)
    parts = [scores[f"VPQ{length}"] for length in (1, 2, 4, 6)]
    assert sum(parts) / 4 == pytest.approx(scores["VPQ"], abs=0.06)


def test_no_numbers_where_the_paper_has_none() -> None:
    assert BENCHMARKS["davis17"].published("val", "mask") == {}
    assert BENCHMARKS["ytvos19"].published("val", "point") == {}
    assert BENCHMARKS["refcoco"].published("train", None) == {}


def test_unknown_names_are_listed() -> None:
    with pytest.raises(PromptError, match="no benchmark is called 'davis': use one of ade20k_instance, "):
        benchmark_named("davis")
    with pytest.raises(PromptError, match="no data set layout is called 'davis': use one of ade20k_instance, "):
        layout_named("davis")


def test_choices_of_a_layout() -> None:
    layout = layout_named("davis17")
    assert chosen_split(layout, None) == "val"
    assert chosen_prompt(layout, None) == "mask"
    assert chosen_prompt(layout_named("vipseg"), None) is None
    with pytest.raises(PromptError, match="davis17 has no split 'test': use one of val, train"):
        chosen_split(layout, "test")
    with pytest.raises(PromptError, match="vipseg has no regions of kind 'box': leave the option out"):
        chosen_prompt(layout_named("vipseg"), "box")
    with pytest.raises(PromptError, match="footage has no regions of kind 'scribble': use one of box, point, mask"):
        chosen_prompt(layout_named("footage"), "scribble")
