"""The word lists of footage, what is said of clips, and the judge that checks it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest

from x2roto.train.footage.drawn import draw, drawn_nouns
from x2roto.train.footage.evaluator import Judge, Truth
from x2roto.train.footage.judging import judge
from x2roto.train.footage.language import describe
from x2roto.train.footage.material import Material, opened, possible_names
from x2roto.train.footage.render import render_mattes
from x2roto.train.footage.scene import compose
from x2roto.train.footage.survey import survey
from x2roto.train.footage.vocabulary import (
    COLOURS,
    QUESTIONS,
    Label,
    colours_of,
    kinds,
    label,
    noun_of_picture,
    nouns,
    plural,
    possible_traits,
)

DRAWN = opened(None)


# ---- vocabulary


def test_every_name_has_one_plural_and_no_two_names_share_one() -> None:
    names = [*nouns(), *kinds()]
    plurals = Counter(plural(name) for name in names)
    assert [word for word, count in plurals.items() if count > 1] == []
    assert {plural(name) for name in names if plural(name) != name} & set(names) == set()


def test_every_trait_is_asked_about_and_every_question_has_one_trait() -> None:
    traits = {trait for row in nouns().values() for trait in row.traits | row.maybe_traits}
    assert traits == set(QUESTIONS)
    wordings = [wording for asked in QUESTIONS.values() for wording in asked]
    assert len(wordings) == len(set(wordings))
    assert all(any(trait in row.traits for row in nouns().values()) for trait in QUESTIONS)


def test_an_unsexed_person_may_be_a_man_and_a_man_is_a_person_for_certain() -> None:
    assert label("person").may_be_a("man")
    assert not label("person").is_a("man")
    assert label("man").is_a("person")
    assert not label("man").may_be_a("woman")


@pytest.mark.parametrize(
    ("name", "noun"), [("red apple", "apple"), ("orange", "orange"), ("black cap", "hat"), ("galaxy", None)]
)
def test_picture_names_give_nouns(name: str, noun: str | None) -> None:
    assert noun_of_picture(name) == noun


@pytest.mark.parametrize("colour", [name for name in COLOURS if name not in ("pink", "brown")])
def test_a_flat_patch_has_its_colour_for_certain(colour: str) -> None:
    rgb = {
        "red": (200, 20, 20),
        "orange": (240, 130, 20),
        "yellow": (230, 210, 30),
        "green": (30, 140, 40),
        "blue": (30, 60, 190),
        "purple": (120, 40, 170),
        "black": (15, 15, 15),
        "grey": (128, 128, 128),
        "white": (240, 240, 240),
    }[colour]
    patch = np.full((8, 8, 4), (*rgb, 255), np.uint8)
    certain, possible = colours_of(patch)
    assert certain == {colour}
    assert colour not in possible


@pytest.mark.parametrize("noun", drawn_nouns())
def test_a_drawing_is_the_same_each_time_and_fills_its_canvas(noun: str) -> None:
    first, again = draw(noun, 3), draw(noun, 3)
    assert np.array_equal(first.pictures, again.pictures)
    assert first.label.nouns[0] == noun
    alpha = first.pictures[..., 3].max(0)
    assert alpha.any(0)[[0, -1]].all()
    assert alpha.any(1)[[0, -1]].all()


def test_a_held_kind_stands_for_all_its_nouns_and_their_traits() -> None:
    held = possible_names("vehicle")
    assert {"car", "bus", "vehicle"} <= held
    assert "dog" not in held
    assert "wheels" in possible_traits(held)


# ---- the judge


def _judge(
    labels: Sequence[Label], boxes: Sequence[Sequence[tuple[int, int, int, int] | None]], holds: str = ""
) -> Judge:
    """Things as boxes (top, left, bottom, right) per frame on 40x60 frames; earlier things are nearer."""
    whole = np.zeros((len(boxes), len(boxes[0]), 40, 60), np.bool_)
    for k, frames in enumerate(boxes):
        for t, box in enumerate(frames):
            if box:
                whole[k, t, box[0] : box[2], box[1] : box[3]] = True
    masks = whole.copy()
    for k in range(len(boxes)):
        masks[k + 1 :] &= ~whole[k]
    held = possible_names(holds)
    return Judge(Truth(masks, whole, list(labels), held, possible_traits(held)))


LEFT, RIGHT, BIG = (10, 2, 20, 10), (10, 40, 20, 48), (5, 20, 35, 55)


def test_the_right_man_is_the_one_on_the_right() -> None:
    clip = _judge([label("man"), label("man")], [[LEFT, LEFT], [RIGHT, RIGHT]])
    assert list(clip.faults("the right man", [1])) == []
    assert list(clip.faults("the right man", [0])) != []
    assert list(clip.faults("the man", [0])) != []


def test_what_might_also_fit_is_a_fault() -> None:
    clip = _judge([label("man"), label("person")], [[LEFT], [RIGHT]])
    assert any("may fit" in fault for fault in clip.faults("the man", [0]))
    assert list(clip.faults("the left person", [0])) == []


def test_a_backdrop_that_may_hold_one_spoils_it() -> None:
    clip = _judge([label("car")], [[LEFT]], holds="car")
    assert any("backdrop" in fault for fault in clip.faults("the car", [0]))
    assert any("backdrop" in fault for fault in clip.faults("What rolls on wheels?", [0]))


def test_colours_and_clothes() -> None:
    clip = _judge([label("man", ["red"], dressed=True), label("man", ["blue"], dressed=True)], [[LEFT], [RIGHT]])
    assert list(clip.faults("the man in red", [0])) == []
    assert list(clip.faults("Which of the men is not dressed in red?", [1])) == []
    assert list(clip.faults("the man in green", [])) == []
    assert list(clip.faults("the man in blue", [])) != []


def test_sizes_rows_and_counts() -> None:
    clip = _judge([label("apple")] * 3, [[LEFT], [(12, 25, 18, 30)], [(5, 40, 35, 58)]])
    assert list(clip.faults("the largest of the three apples", [2])) == []
    assert list(clip.faults("the smallest apple", [1])) == []
    assert list(clip.faults("the apple in the middle", [1])) == []
    assert list(clip.faults("the larger of the two apples", [2])) != []


def test_leaving_entering_and_coming_back() -> None:
    gone, come = [LEFT, LEFT, None], [None, RIGHT, RIGHT]
    clip = _judge([label("dog"), label("dog")], [gone, come])
    assert list(clip.faults("the dog that leaves the frame", [0])) == []
    assert list(clip.faults("the dog that enters the frame", [1])) == []
    assert list(clip.faults("the dog that leaves the frame and comes back", [])) == []


def test_behind_means_hidden_by_it() -> None:
    clip = _judge([label("tree"), label("car")], [[BIG], [(15, 10, 30, 30)]])
    assert list(clip.faults("the car behind the tree", [1])) == []
    assert list(clip.faults("the tree in front of the car", [0])) == []
    assert list(clip.faults("the tree behind the car", [0])) != []


def test_unknown_words_are_a_fault_not_a_pass() -> None:
    clip = _judge([label("dog")], [[LEFT]])
    assert any("not understood" in fault for fault in clip.faults("the wug", [0]))
    assert any("not understood" in fault for fault in clip.phrase_faults("that dog", "", [0]))


def test_class_lists_and_captions() -> None:
    clip = _judge([label("dog", ["brown"]), label("cat")], [[LEFT, RIGHT], [RIGHT, RIGHT]])
    assert list(clip.class_faults(["animal", "car"], [[0, 1], []])) == []
    assert list(clip.class_faults(["animal", "dog"], [[0, 1], [0]])) != []
    assert list(clip.phrase_faults("A brown dog", " moving to the right and ", [0])) == []
    assert list(clip.phrase_faults("A cat", " moving to the right.", [1])) != []
    assert list(clip.phrase_faults("Two animals", "", [0])) != []


# ---- what is said


def test_everything_said_of_drawn_clips_is_true_and_unique() -> None:
    judgements = [judge(DRAWN, (3, number), frames=8, aspect=1.5) for number in range(20)]
    assert [fault for judgement in judgements for fault in judgement.faults] == []
    assert sum(judgement.statements for judgement in judgements) > 300


def test_swapping_two_things_makes_the_judge_object() -> None:
    """The judge has teeth: words for one thing, put on another, are nearly always refused."""
    refused = asked = 0
    for number in range(12):
        scene = compose(DRAWN, (5, number), frames=6, aspect=1.5)
        rendered = render_mattes(scene, 64, 96)
        said = describe(scene, survey(rendered))
        labels = [actor.label for actor in scene.actors]
        clip = Judge(Truth(rendered.masks, rendered.whole > 0.5, labels, frozenset(), frozenset()))
        for expression in said.expressions:
            for other in set(range(len(scene.actors))) - set(expression.actors):
                asked += 1
                refused += bool(list(clip.faults(expression.text, [other])))
    assert asked > 100
    assert refused == asked


def test_the_promised_kinds_of_expression_all_occur() -> None:
    wanted = ("right man", "behind the", "leaves the frame", "smallest of the", "in red")
    texts = set()
    for number in range(90):
        scene = compose(DRAWN, (9, number), frames=8, aspect=1.5)
        texts |= {expression.text for expression in describe(scene, survey(render_mattes(scene, 48, 72))).expressions}
    assert [words for words in wanted if not any(words in text for text in texts)] == []


def test_material_without_files_has_all_it_needs() -> None:
    material = Material.open(None)
    assert {"man", "woman", "dog", "car", "tree"} <= material.by_noun.keys()
    assert material.nameless
    assert material.backdrops
