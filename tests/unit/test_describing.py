"""Which things are told of, and by which of the names they seem to have."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from x2roto.engine.describing import MOST, Masks, Told, told_of
from x2roto.engine.finding import Named, Thing
from x2roto.prompt import Box

FRAMES = (10, 20, 30, 40)
SIDE = 24
Edges = tuple[int, int, int, int]
MAN, HAT, DOG = (2, 4, 8, 20), (3, 4, 6, 8), (14, 12, 22, 20)


def cells(edges: Edges) -> np.ndarray:
    """Left, top, right, bottom."""
    left, top, right, bottom = edges
    mask = np.zeros((SIDE, SIDE), np.bool_)
    mask[top:bottom, left:right] = True
    return mask


def seen(name: str, edges: Edges, *scores: float) -> list[Named]:
    """The same place under one name, on as many frames as there are scores; 0 for none."""
    box = [Box("", *(edge / SIDE for edge in edges), frame=frame, relative=True) for frame in FRAMES]
    views = zip(box, scores, strict=False)
    return [Named(name, Thing(place, score), cells(edges)) for place, score in views if score]


def sorted_by_score(*views: Sequence[Named]) -> list[Named]:
    return sorted((each for view in views for each in view), key=lambda each: -each.thing.score)


def following(*things: Edges, shown: Sequence[int] = FRAMES) -> Callable[[Box], Masks]:
    """Finds the thing in whose middle a box has its own, at twice the size of the cells; it is still."""

    def follow(box: Box) -> Masks:
        column, row = (box.x0 + box.x1) / 2 * SIDE, (box.y0 + box.y1) / 2 * SIDE
        there = (edges for edges in things if edges[0] <= column < edges[2] and edges[1] <= row < edges[3])
        mask = np.kron(cells(next(there)), np.ones((2, 2), np.bool_))
        return {frame: mask if frame in shown else np.zeros_like(mask) for frame in FRAMES}

    return follow


def named(told: Sequence[Told]) -> list[tuple[str, int | None]]:
    return [(each.name, each.box.frame) for each in told]


def test_a_thing_is_called_what_it_is_called_on_the_surer_half_of_frames() -> None:
    cow = seen("cow", DOG, 0, 0.75, 0.75, 0.75)
    views = sorted_by_score(seen("dog", DOG, 0.95, 0.5), seen("cat", DOG, 0, 0.1, 0.9, 0.8), cow)
    told = told_of(views, following(DOG))
    assert named(told) == [("cat", 10)]
    assert told[0].score == pytest.approx(0.85)


def test_frames_that_do_not_show_it_say_nothing_of_it() -> None:
    assert named(told_of(seen("dog", DOG, 0, 0.9), following(DOG, shown=(20,)))) == [("dog", 20)]
    assert not told_of(seen("dog", DOG, 0, 0.9), following(DOG))


def test_nothing_is_told_that_no_frame_shows_surely() -> None:
    assert not told_of(seen("dog", DOG, 0.69, 0.69, 0.69, 0.69), following(DOG))


def test_what_is_part_of_a_thing_is_not_told_beside_it_and_does_not_name_it() -> None:
    views = sorted_by_score(
        seen("man", MAN, *[0.8] * 4), seen("hat", HAT, *[0.79] * 4), seen("dog", DOG, *[0.77] * 4)
    )
    assert named(told_of(views, following(MAN, DOG))) == [("man", 10), ("dog", 10)]


def test_a_thing_is_told_once_though_it_is_seen_in_several_ways() -> None:
    """What does not lie in the thing, as the eyes drew it too large, is followed again and is known."""
    large = (12, 6, 24, 24)
    views = sorted_by_score(seen("dog", DOG, *[0.9] * 4), seen("wolf", large, 0, *[0.8] * 3))
    assert named(told_of(views, following(DOG))) == [("dog", 10)]
    # So is what strays off to something else after a while.
    astray = following((10, 12, 24, 24))
    assert named(told_of(views, lambda box: following(DOG)(box) if box.frame == 10 else astray(box))) == [("dog", 10)]


def test_two_of_a_name_are_two_and_there_is_an_end() -> None:
    dogs = sorted_by_score(seen("dog", DOG, *[0.9] * 4), seen("dog", MAN, *[0.9] * 4))
    assert [each.name for each in told_of(dogs, following(MAN, DOG))] == ["dog", "dog"]
    spots = [(x, y, x + 3, y + 3) for x in range(0, 24, 4) for y in range(0, 24, 4)]
    views = sorted_by_score(*(seen("ball", spot, *[0.9] * 4) for spot in spots))
    assert len(told_of(views, following(*spots))) == MOST
