"""Image layouts: what was drawn into a miniature is what a reader gives, request by request."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from tests.unit.data.image_layouts import NAMES, SEED, masks_of, miniature, opened, read_all
from x2roto.data.image import IMAGE_LAYOUTS
from x2roto.data.image.grounded import masks_of as named_masks
from x2roto.data.image.reason import outline
from x2roto.data.image.regions import regions_of
from x2roto.data.image.scenes import GRASS, SKY, VOID, rectangle, scenes
from x2roto.data.sample import PROMPT_KINDS, PromptKind
from x2roto.engine.tasks import TASKS

DRAWN = scenes(SEED)
PLACES = {"person": 0, "dog": 1}
INSTANCES = ("coco_instance", "ade20k_instance")
REFERRING = ("refcoco", "refcocop", "refcocog")


# ---- every layout -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_a_sample_is_whole(name: str, tmp_path: Path) -> None:
    layout = IMAGE_LAYOUTS[name]
    read = read_all(name, miniature(name, tmp_path))
    assert layout.name == name
    assert read
    assert len({sample.key for sample, _ in read}) == len(read)
    for sample, truth in read:
        assert sample.media == "image"
        assert sample.task in TASKS
        assert sample.annotated.tolist() == [True]
        assert sample.prompt == (layout.prompts[0] if layout.prompts else None)
        assert len(sample.categories) in (0, len(sample.targets))
        assert truth.masks.shape == (len(truth.condition), *sample.size)
        assert truth.masks.any((1, 2)).all()
        assert truth.condition.dtype == truth.identity.dtype == np.int64
        assert len(truth.condition) == len(truth.identity) == len(truth.crowd)
        assert set(truth.condition.tolist()) <= set(range(len(sample.targets)))
        for target in sample.targets:
            assert isinstance(target, str) or (target.shape == sample.size and target.any())


@pytest.mark.parametrize("name", NAMES)
def test_a_miniature_has_the_same_bytes_for_a_seed_and_others_for_another(name: str, tmp_path: Path) -> None:
    first, again, other = (
        {path.relative_to(root): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}
        for root in (
            miniature(name, tmp_path / "first"),
            miniature(name, tmp_path / "again"),
            miniature(name, tmp_path / "other", SEED + 1),
        )
    )
    assert first == again
    assert first.keys() == other.keys()
    assert first != other


@pytest.mark.parametrize("name", NAMES)
def test_a_picture_has_one_frame(name: str, tmp_path: Path) -> None:
    with pytest.raises(IndexError):
        opened(name, miniature(name, tmp_path))[0].truth(1)


# ---- all classes ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "ids"), [("coco_panoptic", (187, 193)), ("ade20k_panoptic", (3, 4))])
def test_panoptic_segments_are_what_is_seen(name: str, ids: tuple[int, int], tmp_path: Path) -> None:
    read = read_all(name, miniature(name, tmp_path))
    assert len(read) == len(DRAWN)
    for scene, (_, truth) in zip(DRAWN, read, strict=True):
        for place, kind, number in ((3, SKY, ids[0]), (4, GRASS, ids[1])):
            assert_array_equal(masks_of(truth, place), [scene.background(kind)])
            assert truth.identity[truth.condition == place].tolist() == [number]
        for noun, place in PLACES.items():
            seen = [scene.visible(k) for k, thing in enumerate(scene.things) if thing.noun == noun]
            found = masks_of(truth, place)
            assert len(found) == len(seen)
            for mask in seen:
                assert any((mask == other).all() for other in found)
        assert truth.crowd.sum() == sum(thing.crowd for thing in scene.things)
        assert_array_equal(truth.ignored, scene.background(VOID))
        assert not truth.masks.sum(0).max() > 1


@pytest.mark.parametrize("name", ["coco_semantic", "ade20k_semantic"])
def test_semantic_labels_are_the_classes_of_pixels(name: str, tmp_path: Path) -> None:
    for scene, (sample, truth) in zip(DRAWN, read_all(name, miniature(name, tmp_path)), strict=True):
        for noun, place in PLACES.items():
            things = [scene.visible(k) for k, thing in enumerate(scene.things) if thing.noun == noun]
            assert_array_equal(masks_of(truth, place), [np.any(things, 0)] if things else [])
        assert_array_equal(masks_of(truth, 3), [scene.background(SKY)])
        assert_array_equal(truth.ignored, scene.background(VOID))
        assert truth.identity.tolist() == [sample.categories[place].id for place in truth.condition]


@pytest.mark.parametrize("name", INSTANCES)
def test_instances_are_whole_and_may_overlap(name: str, tmp_path: Path) -> None:
    read = read_all(name, miniature(name, tmp_path))
    for scene, (_, truth) in zip(DRAWN, read, strict=True):
        assert_array_equal(truth.masks, np.reshape([thing.mask for thing in scene.things], (-1, *scene.size)))
        assert truth.condition.tolist() == [PLACES[thing.noun] for thing in scene.things]
        assert truth.crowd.tolist() == [thing.crowd for thing in scene.things]
        assert truth.ignored is None
    assert read[0][1].masks.sum(0).max() > 1
    assert len(read[-1][1].masks) == 0


def test_classes_are_asked_for_as_training_said_them(tmp_path: Path) -> None:
    coco = opened("coco_panoptic", miniature("coco_panoptic", tmp_path / "coco"))
    assert coco[0].targets == ("person", "dog", "kite", "sky other", "grass")
    assert [category.name for category in coco.categories][-2:] == ["sky-other-merged", "grass-merged"]
    assert [category.thing for category in coco.categories] == [True, True, True, False, False]
    ade = opened("ade20k_panoptic", miniature("ade20k_panoptic", tmp_path / "ade"))
    assert ade[0].targets == ("person", "dog", "kite, toy", "sky", "grass")
    assert (coco[0].task, ade[0].task) == ("genseg", "ovseg")


# ---- phrases and questions --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", REFERRING)
def test_each_sentence_is_a_request(name: str, tmp_path: Path) -> None:
    read = read_all(name, miniature(name, tmp_path))
    assert [sample.targets for sample, _ in read] == [
        ("left person",), ("the one on the left",), ("the dog between them",),
    ]  # fmt: skip
    for (_, truth), thing in zip(read, (0, 0, 1), strict=True):
        assert_array_equal(truth.masks, [DRAWN[0].things[thing].mask])


def test_splits_of_referring_sets_are_apart(tmp_path: Path) -> None:
    root = miniature("refcocog", tmp_path)
    assert [sample.targets[0] for sample, _ in read_all("refcocog", root, "test")] == ["dog", "the animal"]
    assert [sample.targets[0] for sample, _ in read_all("refcocog", root, "train")] == ["the dog"]


def test_generalised_phrases_may_mean_several_things_or_none(tmp_path: Path) -> None:
    read = {
        sample.targets[0]: (sample, truth) for sample, truth in read_all("grefcoco", miniature("grefcoco", tmp_path))
    }
    sample, truth = read["both people"]
    assert_array_equal(truth.masks, [DRAWN[0].things[0].mask, DRAWN[0].things[2].mask])
    assert truth.condition.tolist() == [0, 0]
    assert sample.parts == ("target",)
    sample, truth = read["a red kite"]
    assert truth.masks.shape == (0, *DRAWN[1].size)
    assert sample.parts == ("no_target",)


def test_reasoning_masks_leave_out_what_is_ignored(tmp_path: Path) -> None:
    read = read_all("reasonseg", miniature("reasonseg", tmp_path))
    assert [sample.parts for sample, _ in read] == [("short",), ("long",), ("long",), ("short",)]
    assert read[1][0].targets == ("Which animal isn\u2019t on a lead?",)
    ignored, target = rectangle((16, 21, 21, 27), (48, 64)), rectangle((12, 16, 24, 32), (48, 64))
    assert_array_equal(read[0][1].ignored, ignored)
    assert_array_equal(read[0][1].masks, [target & ~ignored])
    assert_array_equal(read[1][1].masks, [target])
    assert read[1][1].ignored is None


def test_outlines_are_cut_off_to_whole_pixels() -> None:
    points = np.array(outline((2, 3, 9, 11)))
    assert points.astype(int).min(0).tolist() == [3, 2]
    assert points.astype(int).max(0).tolist() == [10, 8]


# ---- descriptions -----------------------------------------------------------------------------------------


def test_captions_are_tagged_in_the_order_of_their_conditions(tmp_path: Path) -> None:
    read = read_all("grandf", miniature("grandf", tmp_path))
    sample, truth = read[0]
    assert sample.targets == ("a dog", "A person", "a person", "the grass")
    assert sample.captions == (
        "<p>A dog</p> stands between <p>a person</p> and <p>A Person</p> on <p>the grass</p>.",
    )
    person, dog, other, grass = named_masks(DRAWN[0])
    for condition, mask in enumerate((dog, person, other, grass)):
        assert_array_equal(masks_of(truth, condition), [mask])
    assert read[1][0].captions == ("<p>Dogs</p> play in front of <p>a crowd</p>",)
    assert read[3][0].targets == ()


def test_a_phrase_the_caption_says_otherwise_comes_last_untagged(tmp_path: Path) -> None:
    sample, truth = read_all("grandf", miniature("grandf", tmp_path))[2]
    assert sample.targets == ("a person", "an animal")
    assert sample.captions == ("<p>A person</p> walks the dog home.",)
    assert_array_equal(masks_of(truth, 1), [DRAWN[2].things[1].mask])


# ---- regions ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", PROMPT_KINDS)
def test_interactive_regions_are_those_of_the_file(kind: PromptKind, tmp_path: Path) -> None:
    read = read_all("coco_int", miniature("coco_int", tmp_path), prompt=kind)
    things = [(scene, thing) for scene in DRAWN for thing in scene.things]
    # The last thing has no click and no stroke.
    assert len(read) == len(things) - (kind in ("point", "scribble"))
    for (sample, truth), (scene, thing) in zip(read, things, strict=False):
        drawn = regions_of(thing, scene.size)[kind]
        radius = {"point": 10, "scribble": 5}.get(kind, 0)
        assert_array_equal(sample.targets[0], _grown(drawn, radius))
        assert_array_equal(truth.masks, [thing.mask])
        assert truth.crowd.tolist() == [thing.crowd]
        assert sample.prompt == kind


def _grown(mask: np.ndarray, radius: float) -> np.ndarray:
    rows, columns = np.indices(mask.shape)
    near = [np.hypot(rows - row, columns - column) <= radius for row, column in np.argwhere(mask)]
    return np.asarray(np.any(near, 0))


@pytest.mark.parametrize("kind", PROMPT_KINDS)
def test_grounding_asks_for_classes_by_one_of_their_objects(kind: PromptKind, tmp_path: Path) -> None:
    root = miniature("coco_vgd", tmp_path)
    read = read_all("coco_vgd", root, prompt=kind)
    assert len(read) == 3
    sample, truth = read[0]
    assert [category.name for category in sample.categories] == ["person", "dog"]
    regions = [regions_of(thing, DRAWN[0].size)[kind] for thing in DRAWN[0].things]
    assert any((sample.targets[0] == regions[place]).all() for place in (0, 2))
    assert_array_equal(sample.targets[1], regions[1])
    assert truth.condition.tolist() == [0, 1, 0]
    assert_array_equal(truth.masks, [thing.mask for thing in DRAWN[0].things])
    again = read_all("coco_vgd", root, prompt=kind)[0][0]
    assert_array_equal(np.array(again.targets), np.array(sample.targets))


def test_grounding_leaves_out_classes_that_nothing_shows(tmp_path: Path) -> None:
    root = miniature("coco_vgd", tmp_path)
    assert len(read_all("coco_vgd", root, prompt="box")[2][0].targets) == 2
    sample, truth = read_all("coco_vgd", root, prompt="point")[2]
    assert [category.name for category in sample.categories] == ["person"]
    assert truth.condition.tolist() == [0]
