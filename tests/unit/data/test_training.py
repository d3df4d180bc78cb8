"""Public data sets as training data: every layout gives samples the trainer takes, the same for an index."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from PIL import Image

from tests.unit.data.image_layouts import NAMES, SEED, miniature
from x2roto.data.annotations import write_picture
from x2roto.data.image import IMAGE_LAYOUTS
from x2roto.data.image.scenes import VOID, scenes
from x2roto.data.sample import Category, FrameTruth, Sample
from x2roto.data.training import Clips, clip_sample, open_data, trained_caption
from x2roto.errors import PromptError
from x2roto.train.config import DataSource
from x2roto.train.trainer import open_source

DRAWN = scenes(SEED)
SIZE = (6, 8)


# ---- pictures ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_the_trainer_opens_every_layout(name: str, tmp_path: Path) -> None:
    root = miniature(name, tmp_path)
    options = {"layout": name, "root": str(root), "split": IMAGE_LAYOUTS[name].splits[0]}
    (data,) = open_source(DataSource("x2roto.data.training:open_data", options))
    assert (data.name, data.modality) == (name, "image")
    for index in range(len(data)):
        sample, again = data[index], data[index]
        assert sample.media == "image"
        assert data.frame_count(index) == len(sample.frames) == 1
        assert all(np.array_equal(one, other) for one, other in zip(sample.targets, again.targets, strict=True))
        assert sample.masks is not None
        assert again.masks is not None
        assert_array_equal(sample.masks, again.masks)
        picture = np.asarray(Image.open(_photograph(root, data, index)))
        assert_array_equal(sample.frames[0], picture)


def _photograph(root: Path, data: object, index: int) -> Path:
    assert isinstance(data, Clips)
    path = data.data[index].frames[0]
    assert root in path.parents
    return path


def test_crowds_and_void_are_ignored_and_not_learned(tmp_path: Path) -> None:
    data = open_data(layout="coco_panoptic", root=str(miniature("coco_panoptic", tmp_path)), split="val")
    sample, scene = data[1], DRAWN[1]
    assert sample.masks is not None
    assert sample.ignored is not None
    crowd = scene.visible(1)
    assert scene.things[1].crowd
    assert_array_equal(sample.ignored[0], crowd | scene.background(VOID))
    assert len(sample.masks) == 3
    assert not (sample.masks[:, 0] & crowd).any()


def test_classes_are_drawn_and_their_masks_follow(tmp_path: Path) -> None:
    root = str(miniature("coco_panoptic", tmp_path))
    orders = set()
    for seed in range(20):
        sample = open_data(layout="coco_panoptic", root=root, split="val", seed=seed)[0]
        assert {"person", "dog", "sky other", "grass"} <= set(sample.targets) <= {*sample.targets, "kite"}
        assert sample.masks is not None
        assert sample.condition is not None
        dogs = sample.masks[sample.condition == sample.targets.index("dog"), 0]
        assert_array_equal(dogs, [DRAWN[0].visible(1)])
        orders.add(sample.targets)
    assert len(orders) > 5
    assert {"kite" in order for order in orders} == {True, False}


def test_of_very_many_classes_some_are_asked_for(tmp_path: Path) -> None:
    sample = _video(tmp_path, 1, task="genseg", targets=tuple(f"class {number}" for number in range(400)))
    asked = clip_sample(sample, 1, np.random.default_rng(0)).targets
    assert "class 0" in asked
    assert 1 <= len(asked) <= 128


def test_short_reasoning_is_put_into_a_question(tmp_path: Path) -> None:
    data = open_data(layout="reasonseg", root=str(miniature("reasonseg", tmp_path)), split="val")
    assert [data[index].style for index in range(4)] == ["phrase", "plain", "plain", "phrase"]


def test_a_caption_is_told_as_trained(tmp_path: Path) -> None:
    data = open_data(layout="grandf", root=str(miniature("grandf", tmp_path)), split="val")
    assert data[1].answer == "<p>dogs</p>  play in front of <p>a crowd</p> ."
    sample = data[2]
    assert sample.answer == "<p>a person</p>  walks the dog home."
    assert sample.masks is not None
    assert_array_equal(sample.masks[:, 0], [DRAWN[2].things[0].mask])
    assert trained_caption("<p>A Man</p> runs", "video") == "<p>A Man</p>  runs."


@pytest.mark.parametrize("name", NAMES)
def test_loader_processes_can_have_the_data(name: str, tmp_path: Path) -> None:
    root = str(miniature(name, tmp_path))
    data = open_data(layout=name, root=root, split=IMAGE_LAYOUTS[name].splits[0])
    sent = pickle.loads(pickle.dumps(data))
    assert len(sent) == len(data)
    assert_array_equal(sent[0].masks, data[0].masks)


# ---- clips ------------------------------------------------------------------------------------------------


def _video(folder: Path, count: int, **changes: object) -> Sample:
    """A clip whose frame t has a thing in column t, and two known frames out of three."""
    for frame in range(count):
        write_picture(np.full((*SIZE, 3), frame * 10, np.uint8), folder / f"{frame}.png")
    sample = Sample(
        key="clip/0",
        task="refseg",
        frames=tuple(folder / f"{frame}.png" for frame in range(count)),
        names=tuple(map(str, range(count))),
        size=SIZE,
        targets=("the thing",),
        truth=_column,
        annotated=np.arange(count) % 3 != 1,
    )
    return replace(sample, **changes)  # type: ignore[arg-type]


def _column(frame: int) -> FrameTruth:
    assert frame % 3 != 1, "this frame has no annotation"
    masks = np.zeros((2, *SIZE), np.bool_)
    masks[0, :, frame % SIZE[1]] = True
    masks[1, 0] = True
    return FrameTruth(masks, np.zeros(2, np.int64), np.array([4, 9]), np.array([False, True]))


def test_a_clip_is_frames_in_a_row_with_one_mask_per_thing(tmp_path: Path) -> None:
    sample = _video(tmp_path, 8)
    starts = set()
    for seed in range(30):
        clip = clip_sample(sample, 3, np.random.default_rng(seed))
        start = int(clip.frames[0, 0, 0, 0]) // 10
        assert clip.frames[:, 0, 0, 0].tolist() == [10 * (start + k) for k in range(3)]
        assert clip.labelled is not None
        assert clip.labelled.tolist() == [(start + k) % 3 != 1 for k in range(3)]
        assert clip.masks is not None
        assert clip.ignored is not None
        assert clip.masks.shape == (1, 3, *SIZE)
        for place in np.flatnonzero(clip.labelled):
            assert_array_equal(clip.masks[0, place], _column(start + int(place)).masks[0])
            assert clip.ignored[place, 0].all()
        starts.add(start)
    assert starts == set(range(6))


def test_a_clip_holds_the_frame_its_region_is_on(tmp_path: Path) -> None:
    region = np.ones(SIZE, np.bool_)
    sample = _video(tmp_path, 8, task="objseg", targets=(region,), prompt="box", prompt_frame=6)
    for seed in range(20):
        clip = clip_sample(sample, 3, np.random.default_rng(seed))
        assert clip.frames[clip.prompt_frame, 0, 0, 0] == 60


def test_a_short_clip_is_taken_whole(tmp_path: Path) -> None:
    assert len(clip_sample(_video(tmp_path, 2), 8, np.random.default_rng(0)).frames) == 2


def test_clips_tell_their_length_and_kind(tmp_path: Path) -> None:
    class Two:
        name = "two"
        categories: tuple[Category, ...] = ()

        def __len__(self) -> int:
            return 2

        def __getitem__(self, index: int) -> Sample:
            return _video(tmp_path, (8, 2)[index])

    clips = Clips(Two(), frames=4)
    assert (clips.name, clips.modality, len(clips)) == ("two", "video", 2)
    assert [clips.frame_count(index) for index in range(2)] == [len(clips[0].frames), len(clips[1].frames)] == [4, 2]


# ---- options ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"layout": "imagenet"}, "no data set layout is called 'imagenet'"),
        ({"layout": "coco_int", "split": "winter"}, "has no split 'winter': use one of val, train"),
        ({"layout": "coco_int", "prompt": "text"}, "no regions of kind 'text': use one of point"),
        ({"layout": "refcoco", "prompt": "box"}, "no regions of kind .box.: leave the option out"),
        ({"layout": "coco_int", "frames": 0}, "frames is 0"),
        ({"layout": "coco_int", "colour": "red"}, "does not take these options"),
    ],
)
def test_options_that_cannot_be_are_refused(options: dict[str, object], said: str, tmp_path: Path) -> None:
    with pytest.raises(PromptError, match=said):
        open_source(DataSource("x2roto.data.training:open_data", {"root": str(tmp_path), **options}))


def test_the_split_for_training_is_the_default(tmp_path: Path) -> None:
    root = str(miniature("refcoco", tmp_path))
    assert open_data(layout="refcoco", root=root)[0].targets == ("the dog",)
