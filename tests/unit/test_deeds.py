"""Phrases that tell of motion: taken apart, and which of several courses they mean."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from x2roto.engine.deeds import Course, doing, told
from x2roto.engine.finding import Thing
from x2roto.prompt import Box

FRAMES = (10, 20, 30, 40, 50)
Corners = tuple[float, float] | None


def course(*corners: Corners) -> Course:
    """A square thing whose left top corner is there on each frame, None where it is not."""
    masks = []
    for corner in corners:
        mask = np.zeros((100, 100), np.bool_)
        if corner is not None:
            left, top = (round(100 * side) for side in corner)
            mask[max(top, 0) : max(top + 20, 0), max(left, 0) : max(left + 20, 0)] = True
        masks.append(mask)
    return Course.of(masks)


LEFTWARD = course((0.6, 0.4), (0.5, 0.4), (0.4, 0.4), (0.3, 0.4), (0.2, 0.4))
RIGHTWARD = course((0.2, 0.1), (0.25, 0.1), (0.3, 0.1), (0.35, 0.1), (0.4, 0.1))
UPWARD = course((0.1, 0.8), (0.1, 0.7), (0.1, 0.6), (0.1, 0.5), (0.1, 0.4))
DOWNWARD = course((0.8, 0.1), (0.8, 0.2), (0.8, 0.3), (0.8, 0.4), (0.8, 0.5))
STILL = course(*((0.7, 0.7),) * 5)
LEAVING = course((0.7, 0.5), (0.75, 0.5), (0.85, 0.5), (0.95, 0.5), None)
ENTERING = course(None, None, (-0.1, 0.6), (0.0, 0.6), (0.1, 0.6))
RETURNING = course((0.05, 0.3), (-0.1, 0.3), None, (-0.05, 0.3), (0.1, 0.3))
FAST = course((0.1, 0.2), (0.4, 0.3), (0.7, 0.2), (0.4, 0.3), (0.1, 0.2))
ALL = (LEFTWARD, RIGHTWARD, UPWARD, DOWNWARD, STILL, LEAVING, ENTERING, RETURNING, FAST)


@pytest.mark.parametrize(
    ("words", "who", "meant"),
    [
        ("the man moving to the left", "the man", LEFTWARD),
        ("The woman in red who is walking to the right.", "the woman in red", RIGHTWARD),
        ("a car that drives from left to right", "the car", RIGHTWARD),
        ("a car that drives from right to left", "the car", LEFTWARD),
        ("the balloon going upwards", "the balloon", UPWARD),
        ("the ball rolling down", "the ball", DOWNWARD),
        ("the dog that stays still", "the dog", STILL),
        ("the people who are not moving", "the people", STILL),
        ("the bus leaving the picture", "the bus", LEAVING),
        ("Which of the men goes out of the frame?", "the men", LEAVING),
        ("Who is leaving the shot?", "the person", LEAVING),
        ("the cat that enters the frame", "the cat", ENTERING),
        ("Which bird was not there at first?", "the bird", ENTERING),
        ("the child that leaves the frame and comes back", "the child", RETURNING),
        ("the fastest runner", "the runner", FAST),
        ("Which of the cars moves the fastest?", "the cars", FAST),
    ],
)
def test_the_course_that_fits_best_is_meant(words: str, who: str, meant: Course) -> None:
    motion = told(words)
    assert motion is not None
    assert motion.who == who
    fits = [motion.deed(each) for each in ALL]
    assert ALL[int(np.argmax(fits))] is meant
    assert max(fits) >= 0


@pytest.mark.parametrize(
    "words",
    [
        "the man",
        "the left man",
        "the car on the right",
        "a person leaving home",
        "Who is it?",
        "the man walking a dog",
    ],
)
def test_words_that_tell_of_no_motion_are_left_alone(words: str) -> None:
    assert told(words) is None


@pytest.mark.parametrize(
    ("words", "wrong"),
    [
        ("the man moving to the left", RIGHTWARD),
        ("the man moving up", DOWNWARD),
        ("the man leaving the frame", STILL),
        ("the man leaving the frame", RETURNING),
        ("the man leaving the frame", course((0.4, 0.4), (0.4, 0.4), (0.4, 0.4), None, None)),  # hidden or lost
        ("the man entering the frame", course(None, None, (0.4, 0.4), (0.4, 0.4), (0.4, 0.4))),
        ("the man entering the frame", LEAVING),
        ("the man who stands still", FAST),
        ("the fastest man", STILL),
    ],
)
def test_a_course_that_does_otherwise_fits_not(words: str, wrong: Course) -> None:
    motion = told(words)
    assert motion is not None
    assert motion.deed(wrong) < 0


def test_a_camera_that_follows_a_thing_makes_it_fit_no_less() -> None:
    motion = told("the man moving to the left")
    assert motion is not None
    assert motion.deed(STILL) >= 0


def box(shown: Course, place: int) -> Box:
    return Box("", *shown.edges_t4[place], frame=FRAMES[place], relative=True)


def following(*shown: Course) -> Callable[[Box], Course]:
    """Whose box it is tells which course is followed."""
    own = {box(each, place): each for each in shown for place in np.flatnonzero(each.seen_t)}
    return own.__getitem__


def deed(words: str) -> Callable[[Course], float]:
    motion = told(words)
    assert motion is not None
    return motion.deed


def test_of_all_that_could_be_meant_the_box_of_what_fits_is_given() -> None:
    things = [Thing(box(STILL, 2), 0.9), Thing(box(LEFTWARD, 3), 0.8), Thing(box(RIGHTWARD, 0), 0.7)]
    follow = following(STILL, LEFTWARD, RIGHTWARD)
    assert doing(deed("the man moving left"), things, FRAMES, follow, sure=False) == box(LEFTWARD, 3)
    assert doing(deed("the man moving right"), things, FRAMES, follow, sure=False) == box(RIGHTWARD, 0)
    assert doing(deed("the man leaving the frame"), things, FRAMES, follow, sure=False) is None
    assert doing(deed("the man leaving the frame"), [], FRAMES, follow, sure=True) is None


def test_where_one_is_known_to_do_it_the_best_need_not_fit_well() -> None:
    half = course((0.7, 0.5), (0.75, 0.5), (0.8, 0.5), (0.85, 0.5), (0.92, 0.5))  # 8 of its 20 columns are left
    things = [Thing(box(STILL, 2), 0.9), Thing(box(half, 0), 0.8)]
    leaving = deed("the man leaving the frame")
    assert doing(leaving, things, FRAMES, following(STILL, half), sure=False) is None
    assert doing(leaving, things, FRAMES, following(STILL, half), sure=True) == box(half, 0)
    assert doing(leaving, things[:1], FRAMES, following(STILL), sure=True) is None


def test_what_is_on_a_course_already_is_not_followed_again() -> None:
    followed = []
    follow = following(LEFTWARD, STILL)

    def listening(one: Box) -> Course:
        followed.append(one)
        return follow(one)

    things = [Thing(box(LEFTWARD, place), 0.9 - place / 10) for place in range(5)] + [Thing(box(STILL, 0), 0.4)]
    assert doing(deed("the man who stands still"), things, FRAMES, listening, sure=False) == box(STILL, 0)
    assert followed == [box(LEFTWARD, 0), box(STILL, 0)]


def test_what_is_far_less_sure_than_the_surest_is_not_followed() -> None:
    things = [Thing(box(LEFTWARD, 0), 0.9), Thing(box(STILL, 0), 0.1)]
    assert doing(deed("the man who stands still"), things, FRAMES, following(LEFTWARD, STILL), sure=False) is None
