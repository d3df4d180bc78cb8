"""What phrases say to a model that knows few words."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from x2roto.engine.model_folder import PACKAGED_MODEL, find_model
from x2roto.engine.wording import (
    LEXICON,
    Lexicon,
    _thesaurus,
    asks_what_there_is,
    heard,
    heard_class,
    heard_question,
    notes,
    notes_on,
    readings,
)
from x2roto.errors import ModelError
from x2roto.prompt import Box, Classes, Question, Text
from x2roto.train.footage import Material, Shape, film
from x2roto.train.words import footage_lexicon

FOOTAGE = footage_lexicon()


@pytest.mark.parametrize(
    ("said", "understood"),
    [
        ("tennis player", "the person"),
        ("That tennis player!", "the person"),
        ("woman on roller skates", "the woman"),
        ("the two dogs", "the dog"),
        ("policemen", "the man"),
        ("pair of red sneakers", "the red footwear"),
        ("cup of tea", "the cup"),
        ("woman's hat", "the hat"),
        ("top hat", "the hat"),
        ("black SUV", "the black car"),
        ("a navy blue sedan", "the blue car"),
        ("sedan that is silver", "the grey car"),
        ("orange t-shirt", "the orange shirt"),
        ("an orange", "the orange"),
        ("a puppy jumping over a fence", "the dog"),
        ("person closest to camera", "the largest person"),
        ("flamingo in front", "the largest flamingo"),
        ("leftmost guy", "the leftmost man"),
        ("the guy on the far right of the frame", "the man on the right"),
        ("skateboarder in the middle", "the person in the middle"),
        ("second guy from the left", "the second man from the left"),
        ("the top left apple", "the left apple"),
        ("dog to the left of the tall oak tree", "the dog to the left of the tree"),
        ("dog left of the pole", "the dog"),
        ("the large brown dog on top of the couch", "the brown dog above the couch"),
        ("guy wearing a red hoodie", "the man in red"),
        ("the lady in the blue dress on the left", "the woman in blue on the left"),
        ("a black man in a white shirt", "the man in white"),
        ("a black man", "the man"),
        ("the red player", "the person in red"),
        ("man with a red ball", "the man"),
        ("the man in the red car", "the man"),
        ("a bearded man seated on a bench", "the man"),
        ("red checkered shirt", "the red shirt"),
        ("player number 10", "the person"),
        ("dog asleep", "the dog"),
        ("woman with jeans and a white shirt", "the woman"),
        ("the juggler leaving the frame", "the person leaving the frame"),
        ("the quick runner who is walking to the left", "the person who is walking to the left"),
        ("the fastest runner", "the fastest person"),
    ],
)
def test_what_is_said_is_put_in_words_that_are_known(said: str, understood: str) -> None:
    assert heard(said, FOOTAGE) == understood


@pytest.mark.parametrize(
    "said", ["reflection of the chair in the window", "car door", "the horse's head", "hand", "?!"]
)
def test_what_has_no_known_name_is_not_taken_for_something_else(said: str) -> None:
    assert heard(said, FOOTAGE) is None


@pytest.mark.parametrize(
    ("said", "understood"),
    [
        ("Which guy is the largest?", "the largest man"),
        ("Which player is wearing red?", "the person in red"),
        ("Which of the two SUVs is red?", "the red car"),
        ("Which of the ladies leaves the frame?", "the woman leaves the frame"),
        ("Who is holding the ball?", "the person"),
        ("Where is the puppy?", "the dog"),
        ("Who leaves the frame?", "Who leaves the frame?"),
        ("What is the man riding?", "What is the man riding?"),
        ("What would keep the rain off?", "What would keep the rain off?"),
    ],
)
def test_questions_are_put_in_known_words_or_left(said: str, understood: str) -> None:
    assert heard_question(said, FOOTAGE) == understood


def test_class_names_have_no_article() -> None:
    assert [heard_class(name, FOOTAGE) for name in ("guys", "dog", "dogs", "sky")] == ["man", "dog", "dogs", None]


def test_what_footage_says_is_understood_as_it_is() -> None:
    material, shape = Material.open(None), Shape(90, 160, (5,))
    said = [film(material, (7, number), shape, 5).language for number in range(24)]
    phrases = [each.text for language in said for each in (*language.expressions, *language.absent)]
    questions = [each.text for language in said for each in language.questions]
    names = [name for language in said for name in (*language.elsewhere, *(each.text for each in language.kinds))]
    assert len(phrases) > 500
    assert len(questions) > 100
    assert [heard(phrase, FOOTAGE) for phrase in phrases] == phrases
    assert [heard_question(question, FOOTAGE) for question in questions] == questions
    assert [heard_class(name, FOOTAGE) for name in names] == names


def test_the_thesaurus_leads_to_what_the_shipped_model_knows() -> None:
    shipped = Lexicon.read(find_model(PACKAGED_MODEL))
    assert shipped == FOOTAGE, "write lexicon.json of the shipped model again"
    words = _thesaurus()
    assert set(words["names"].values()) <= set(shipped.names)
    assert set(words["colours"].values()) <= shipped.colours
    assert not words["names"].keys() & shipped.names.keys(), "what is known needs no other word"


def test_a_word_of_the_thesaurus_has_one_meaning() -> None:
    text = (Path(__file__).parents[2] / "x2roto" / "engine" / "thesaurus.toml").read_text()
    for part, words in _thesaurus().items():
        listed = text.split(f"[{part}]")[1].split("\n[")[0]
        count = sum(len(row.split(",")) for row in listed.split("=")[1:])
        assert count == len(words)


def test_a_model_that_knows_fewer_names_has_fewer_others() -> None:
    few = replace(FOOTAGE, names={"person": "people"})
    assert heard("tennis player", few) == "the person"
    assert heard("SUV", few) is None


def test_a_lexicon_is_read_as_it_was_written(tmp_path: Path) -> None:
    assert Lexicon.read(tmp_path) is None
    FOOTAGE.write(tmp_path)
    assert Lexicon.read(tmp_path) == FOOTAGE


@pytest.mark.parametrize("text", ["", "[]", '{"names": {}}', '{"names": 3, "colours": [], "people": [], "worn": []}'])
def test_a_damaged_lexicon_is_an_error(text: str, tmp_path: Path) -> None:
    (tmp_path / LEXICON).write_text(text)
    with pytest.raises(ModelError, match="is damaged"):
        Lexicon.read(tmp_path)


def test_prompts_are_read_one_thing_after_the_other() -> None:
    classes = Classes("all", ("puppy", "hand"), ("grass",))
    assert list(readings(classes, FOOTAGE)) == [("puppy", "dog"), ("hand", None), ("grass", "plant")]
    assert list(readings(classes, None)) == [(name, name) for name in ("puppy", "hand", "grass")]
    assert list(readings(Box("it", 0, 0, 9, 9), FOOTAGE)) == []
    assert list(readings(Question("it", "Who leaves the frame?"), FOOTAGE)) == [("Who leaves the frame?",) * 2]


def test_what_was_understood_is_told_where_it_differs() -> None:
    told = notes([Text("a", "a dog"), Text("b", "the Dog"), Text("c", "puppy"), Text("d", "the bycicle")], FOOTAGE)
    assert told == [
        "the model knows few words and reads 'puppy' as 'the dog'",
        "the model has not learnt what 'the bycicle' is and finds nothing (did you mean 'bicycle'?): use another "
        "word, or draw a box",
    ]
    assert notes([Text("c", "puppy")], None) == []
    assert notes_on(PACKAGED_MODEL, [Text("a", "the dog")]) == []
    assert json.loads((find_model(PACKAGED_MODEL) / LEXICON).read_text())["names"]["mouse"] == "mice"


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["apple"], "An apple."),
        (["person", "car", "person"], "Two people and a car."),
        (["food", "food", "scissors", "sheep"], "Some food, a pair of scissors and a sheep."),
        (["dog"] * 6, "Several dogs."),
    ],
)
def test_things_are_told_in_a_sentence(names: list[str], said: str) -> None:
    assert FOOTAGE.told(names) == said


@pytest.mark.parametrize(
    ("question", "answered"),
    [
        ("Describe the video.", True),
        ("Please describe this clip briefly", True),
        ("Can you give me a short caption?", True),
        ("Could you provide a brief description of the image?", True),
        ("What do you see?", True),
        ("What is in the picture?", True),
        ("What's shown in this shot?", True),
        ("What objects are there in the scene?", True),
        ("What does the footage show?", True),
        ("What is the man doing in the video?", False),
        ("What colour is the car in the picture?", False),
        ("Describe the man's jacket.", False),
        ("Is there a description of the car in it?", False),
        ("Who is in the picture?", False),
    ],
)
def test_questions_about_all_that_there_is_are_known(question: str, answered: bool) -> None:
    assert asks_what_there_is(question) is answered
