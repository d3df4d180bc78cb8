"""The bench of the small model asks what it says it asks."""

from __future__ import annotations

import numpy as np

from bench import nano
from x2roto.prompt import Classes, Question, Text
from x2roto.train.footage import Shape, film
from x2roto.train.footage.material import opened


def test_words_are_asked_as_words_and_not_taken_for_names() -> None:
    clips = [film(opened(None), (9, number), Shape(48, 72, (4,)), 4) for number in range(6)]
    kinds = set()
    for clip in clips:
        said = {
            "text": {one.text for one in clip.language.expressions},
            "question": {one.text for one in clip.language.questions},
            "absent": {one.text for one in clip.language.absent},
            "absent (often seen)": {f"the {name}" for name in clip.rivals},
        }
        for kind, prompt, truth in nano.asked(clip, np.random.default_rng(3)):
            kinds.add(kind)
            assert truth.shape == clip.rendered.masks.shape[1:]
            if isinstance(prompt, Text | Question):
                assert prompt.text in said[kind]
                assert prompt.name == "it"
            if isinstance(prompt, Classes):
                assert set(prompt.things) == set(clip.language.classes.names)
    assert {"text", "question", "absent", "absent (often seen)", "classes", "box", "point"} <= kinds
