"""Every video layout on its miniature: what was drawn is what is read, and damage is named."""

from __future__ import annotations

import hashlib
import json
import pickle
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from x2roto.data.sample import Dataset, Sample
from x2roto.data.video import VIDEO_LAYOUTS
from x2roto.data.video.miniature import Scene, scenes
from x2roto.engine.tasks import TASKS
from x2roto.errors import InputError

SEED = 5
SCENES = {scene.name: scene for scene in scenes(SEED)}
# What a miniature is read as, by layout and split.
SAMPLES = {
    ("vipseg", "val"): 2,
    ("vspw", "val"): 2,
    ("ytvis19", "val"): 2,
    ("ytvis21", "val"): 2,
    ("ref_ytvos", "val"): 6,
    ("ref_davis17", "val"): 24,
    ("davis16", "val"): 2,
    ("davis17", "val"): 4,
    ("revos", "val"): 6,
    ("video_gcg", "val"): 2,
    ("mevis_gcg", "val"): 2,
    ("vidstg_gcg", "val"): 2,
    ("ytvos19", "val"): 6,
    ("yt19_vgd", "val"): 4,
    ("yt19_vgd", "chunks"): 2,
    ("vipseg_vgd", "val"): 4,
    ("vipseg_vgd", "chunks"): 2,
    ("sa_v", "val"): 6,
    ("sa_v", "manual"): 6,
    ("footage", "region"): 2,
    ("footage", "text"): 2,
}
Masks = NDArray[np.bool_]


@pytest.fixture(scope="session")
def miniatures(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder that holds one layout's miniature and, for MeViS, its neighbour; not to be written to."""
    made: dict[str, Path] = {}

    def miniature(name: str) -> Path:
        if name not in made:
            made[name] = tmp_path_factory.mktemp(name)
            VIDEO_LAYOUTS[name].miniature(made[name] / name, SEED)
        return made[name]

    return miniature


def opened(folder: Path, name: str, split: str | None = None) -> Dataset:
    layout = VIDEO_LAYOUTS[name]
    return layout.open(folder / name, split or layout.splits[0], None)


def every(dataset: Dataset) -> Iterator[Sample]:
    return (dataset[index] for index in range(len(dataset)))


def scene_of(sample: Sample) -> Scene:
    return next(scene for name, scene in SCENES.items() if name in sample.key.split("/"))


# ---- what is read -----------------------------------------------------------------------------------------


def things(scene: Scene, frame: int, *wanted: int) -> list[Masks]:
    return [scene.masks[thing, frame] for thing in wanted]


def vipseg(scene: Scene, sample: Sample, frame: int) -> list[Masks]:
    free = ~scene.masks[:, frame].any(0)
    known = np.arange(scene.size[1]) >= 2
    return [mask & known for mask in (*scene.masks[:, frame], scene.sky & free, ~scene.sky & free)]


def vspw(scene: Scene, sample: Sample, frame: int) -> list[Masks]:
    first, late, last = scene.masks[:, frame]
    free = ~scene.masks[:, frame].any(0)
    known = (np.arange(scene.size[0]) < scene.size[0] - 1)[:, None]
    return [mask & known for mask in (first | last, late, scene.sky & free, ~scene.sky & free)]


def shown_classes(scene: Scene, sample: Sample, frame: int) -> list[Masks]:
    wanted = {category.id for category in sample.categories}
    by_kind = {1: 0, 2: 1, 61: 0, 80: 1}  # category id -> kind, in either set
    kinds = {by_kind[category] for category in wanted}
    known = np.arange(scene.size[1]) >= (2 if 61 in wanted or 80 in wanted else 0)
    return [scene.masks[thing, frame] & known for thing, kind in enumerate(scene.kinds) if kind in kinds]


def number(sample: Sample) -> int:
    return int(sample.key.rpartition("/")[2])


EXPECTED: dict[str, Callable[[Scene, Sample, int], list[Masks]]] = {
    "vipseg": vipseg,
    "vspw": vspw,
    "ytvis19": lambda scene, sample, frame: things(scene, frame, 0, 1, 2),
    "ytvis21": lambda scene, sample, frame: things(scene, frame, 0, 1, 2),
    "ref_ytvos": lambda scene, sample, frame: things(scene, frame, number(sample)),
    "ref_davis17": lambda scene, sample, frame: things(scene, frame, number(sample) // 4),
    "davis16": lambda scene, sample, frame: [np.asarray(scene.masks[:, frame].any(0))],
    "davis17": lambda scene, sample, frame: things(scene, frame, number(sample) - 1),
    "revos": lambda scene, sample, frame: things(scene, frame, *((0,), (1,), (0, 2))[number(sample)]),
    "video_gcg": lambda scene, sample, frame: things(scene, frame, 0, 1, 2),
    "mevis_gcg": lambda scene, sample, frame: things(scene, frame, 0, 1, 2),
    "vidstg_gcg": lambda scene, sample, frame: things(scene, frame, 0, 1, 2),
    "ytvos19": lambda scene, sample, frame: things(scene, frame, number(sample) - 1),
    "yt19_vgd": shown_classes,
    "vipseg_vgd": shown_classes,
    "sa_v": lambda scene, sample, frame: things(scene, frame // 4, number(sample)),
    "footage": lambda scene, sample, frame: things(scene, frame, {"clip0": 1, "clip1": 2}[scene.name]),
}


def test_every_layout_is_expected_something() -> None:
    assert set(EXPECTED) == set(VIDEO_LAYOUTS) == {name for name, _ in SAMPLES}


@pytest.mark.parametrize(("name", "split"), SAMPLES)
def test_the_truth_is_what_was_drawn(name: str, split: str, miniatures: Callable[[str], Path]) -> None:
    dataset = opened(miniatures(name), name, split)
    assert len(dataset) == SAMPLES[name, split]
    for sample in every(dataset):
        scene = scene_of(sample)
        for frame in np.flatnonzero(sample.annotated).tolist():
            truth = sample.truth(frame)
            wanted = {mask.tobytes() for mask in EXPECTED[name](scene, sample, frame) if mask.any()}
            assert {mask.tobytes() for mask in truth.masks} == wanted, (sample.key, frame)
            assert len(truth.masks) == len(wanted)


@pytest.mark.parametrize(("name", "split"), SAMPLES)
def test_samples_keep_what_they_promise(name: str, split: str, miniatures: Callable[[str], Path]) -> None:
    dataset = opened(miniatures(name), name, split)
    samples = list(every(dataset))
    assert dataset.name == name
    assert len({sample.key for sample in samples}) == len(samples)
    for sample in samples:
        scene = scene_of(sample)
        assert sample.task in TASKS
        assert sample.size == scene.size
        assert len(sample.frames) == len(sample.names) == len(set(sample.names)) == len(sample.annotated)
        assert all(np.asarray(Image.open(frame)).shape == (*sample.size, 3) for frame in sample.frames)
        conditions = sample.captions[0].count("<p>") if sample.captions else len(sample.targets)
        assert conditions
        for frame in np.flatnonzero(sample.annotated).tolist():
            check_frame(sample, frame, conditions)


def check_frame(sample: Sample, frame: int, conditions: int) -> None:
    truth = sample.truth(frame)
    count = len(truth.masks)
    assert truth.masks.shape == (count, *sample.size)
    assert truth.masks.dtype == np.bool_
    assert truth.condition.shape == truth.identity.shape == truth.crowd.shape == (count,)
    assert all(0 <= condition < conditions for condition in truth.condition.tolist())
    assert len({(*pair,) for pair in zip(truth.condition.tolist(), truth.identity.tolist(), strict=True)}) == count


@pytest.mark.parametrize("name", [name for name, layout in VIDEO_LAYOUTS.items() if layout.prompts])
def test_regions_show_the_object_on_its_first_frame(name: str, miniatures: Callable[[str], Path]) -> None:
    layout = VIDEO_LAYOUTS[name]
    for prompt in layout.prompts:
        for sample in every(layout.open(miniatures(name) / name, layout.splits[0], prompt)):
            assert sample.prompt == prompt
            known = np.flatnonzero(sample.annotated).tolist()
            seen = [frame for frame in known if len(sample.truth(frame).masks)]
            assert sample.prompt_frame == seen[0]
            truth = sample.truth(sample.prompt_frame)
            for condition, region in enumerate(sample.targets):
                assert isinstance(region, np.ndarray)
                assert region.dtype == np.bool_
                mask = truth.masks[truth.condition == condition].any(0)
                # A wavy stroke through something this small may pass beside it.
                assert prompt == "scribble" or (region & mask).any()
                assert not (prompt == "mask" and name[-3:] != "vgd") or (region == mask).all()


@pytest.mark.parametrize("name", ["ytvos19", "sa_v", "footage", "yt19_vgd", "vipseg_vgd"])
def test_late_objects_are_shown_late_and_no_frame_is_left_out(name: str, miniatures: Callable[[str], Path]) -> None:
    samples = list(every(opened(miniatures(name), name)))
    late = [sample for sample in samples if sample.prompt_frame]
    assert late
    for sample in samples:
        assert len(sample.frames) == len(scene_of(sample).names) * (4 if name == "sa_v" else 1)
    for sample in late:
        assert sample.prompt_frame == (8 if name == "sa_v" else 2)
        assert not len(sample.truth(0).masks)


@pytest.mark.parametrize("name", ["yt19_vgd", "vipseg_vgd"])
def test_chunks_ask_for_what_their_first_frame_shows(name: str, miniatures: Callable[[str], Path]) -> None:
    for sample in every(opened(miniatures(name), name, "chunks")):
        first = sample.truth(0)
        assert sample.prompt_frame == 0
        assert sorted(set(first.condition.tolist())) == list(range(len(sample.targets)))


def test_parts_and_names_are_those_of_the_data_sets(miniatures: Callable[[str], Path]) -> None:
    revos = list(every(opened(miniatures("revos"), "revos")))
    assert [sample.parts for sample in revos[:3]] == [("reasoning",), ("reasoning",), ("referring",)]
    assert revos[0].targets == ("which shape stays all along?",)
    ytvos = list(every(opened(miniatures("ytvos19"), "ytvos19")))
    assert [sample.parts for sample in ytvos[:3]] == [("seen",), ("unseen",), ("seen",)]
    assert ytvos[0].categories[0].name == "giant_panda"
    classes = opened(miniatures("vipseg"), "vipseg")[0]
    assert classes.targets == ("sky", "grass", "person", "ball net")
    assert [category.thing for category in classes.categories] == [False, False, True, True]
    told = opened(miniatures("video_gcg"), "video_gcg")[0]
    assert told.captions == ("A <p>shape</p> drifts while <p>others</p> come and go.",)
    assert opened(miniatures("ref_davis17"), "ref_davis17")[0].targets == ("a caf\u00e9-brown shape, number 1",)


def test_identities_of_stuff_are_its_class_and_void_does_not_count(miniatures: Callable[[str], Path]) -> None:
    truth = opened(miniatures("vipseg"), "vipseg")[0].truth(0)
    stuff = truth.condition < 2
    assert sorted(truth.identity[stuff].tolist()) == [0, 3]
    assert truth.ignored is not None
    assert truth.ignored[:, :2].all()
    assert not truth.ignored[:, 2:].any()
    semantic = opened(miniatures("vspw"), "vspw")[0].truth(0)
    assert semantic.ignored is not None
    assert semantic.ignored[-1].all()
    assert not semantic.ignored[:-1].any()


def test_phrases_have_their_own_objects(miniatures: Callable[[str], Path]) -> None:
    for name in ("video_gcg", "mevis_gcg", "vidstg_gcg"):
        for sample in every(opened(miniatures(name), name)):
            truth, scene = sample.truth(2), scene_of(sample)
            for mask, condition in zip(truth.masks, truth.condition.tolist(), strict=True):
                thing = next(each for each in range(3) if (scene.masks[each, 2] == mask).all())
                assert condition == min(thing, 1)


def test_a_mask_of_the_same_shape_in_another_size_is_scaled(tmp_path: Path) -> None:
    VIDEO_LAYOUTS["ref_ytvos"].miniature(tmp_path / "ref_ytvos", SEED)
    path = next((tmp_path / "ref_ytvos/valid/Annotations/clip0/0").iterdir())
    with Image.open(path) as picture:
        doubled = picture.resize((128, 96), Image.Resampling.NEAREST)
    doubled.save(path)
    sample = opened(tmp_path, "ref_ytvos")[0]
    frame = sample.names.index(path.stem)
    np.testing.assert_array_equal(sample.truth(frame).masks, SCENES["clip0"].masks[0, frame][None])


# ---- opening and writing ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", VIDEO_LAYOUTS)
def test_a_seed_gives_one_miniature(name: str, miniatures: Callable[[str], Path], tmp_path: Path) -> None:
    for seed in (SEED, SEED + 1):
        VIDEO_LAYOUTS[name].miniature(tmp_path / str(seed) / name, seed)
    assert digest(tmp_path / str(SEED)) == digest(miniatures(name))
    assert digest(tmp_path / str(SEED + 1)) != digest(miniatures(name))


def digest(folder: Path) -> str:
    found = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            found.update(str(path.relative_to(folder)).encode() + b"\0" + path.read_bytes())
    return found.hexdigest()


@pytest.mark.parametrize("name", VIDEO_LAYOUTS)
def test_opening_reads_no_picture_and_travels_to_other_processes(
    name: str, miniatures: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = miniatures(name)
    if name != "davis17":  # lists its objects in the first masks only
        monkeypatch.setattr(Image, "open", lambda *_: pytest.fail("a picture was read"))
    dataset = opened(folder, name)
    monkeypatch.undo()
    again = pickle.loads(pickle.dumps(dataset))
    assert [sample.key for sample in every(again)] == [sample.key for sample in every(dataset)]


# ---- damage -----------------------------------------------------------------------------------------------

# A file to lose and what the message must name.
LOST = {
    "vipseg": ("vipseg/panomasksRGB/clip0/00001.png", "00001.png"),
    "vspw": ("vspw/semmasks/clip1/00001.png", "00001.png"),
    "ytvis19": ("ytvis19/valid/JPEGImages/clip0/00005.jpg", "00005.jpg"),
    "ytvis21": ("ytvis21/valid/JPEGImages/clip0/00005.jpg", "00005.jpg"),
    "ref_ytvos": ("ref_ytvos/valid/Annotations/clip0/1/00005.png", "clip0/1/00005.png"),
    "ref_davis17": ("ref_davis17/davis_text_annotations/Davis17_annot2.txt", "Davis17_annot2.txt"),
    "davis16": ("davis16/Annotations/480p/clip0/00003.png", "00003.png"),
    "davis17": ("davis17/Annotations/480p/clip0/00003.png", "00003.png"),
    "revos": ("revos/JPEGImages/clip1/00002.jpg", "00002.jpg"),
    "video_gcg": ("video_gcg/HACS/val/clip1/00002.jpg", "00002.jpg"),
    "mevis_gcg": ("mevis/valid_u/JPEGImages/clip1/00002.jpg", "00002.jpg"),
    "vidstg_gcg": ("vidstg_gcg/val/clip0/masks/002", "clip0/masks/002"),
    "ytvos19": ("ytvos19/valid/Annotations/clip0/00010.png", "00010.png"),
    "yt19_vgd": ("yt19_vgd/ytvis19/valid/JPEGImages/clip0/00005.jpg", "00005.jpg"),
    "vipseg_vgd": ("vipseg_vgd/vipseg_720p/images/clip1/00001.jpg", "00001.jpg"),
    "sa_v": ("sa_v/sav_val/Annotations_6fps/clip0/001/00008.png", "001/00008.png"),
    "footage": ("footage/gt/clip0/frames/00001.jpg", "gt/clip0"),
}


@pytest.mark.parametrize("name", VIDEO_LAYOUTS)
def test_a_lost_file_is_named(name: str, tmp_path: Path) -> None:
    VIDEO_LAYOUTS[name].miniature(tmp_path / name, SEED)
    lost, words = LOST[name]
    if (tmp_path / lost).is_dir():
        shutil.rmtree(tmp_path / lost)
    else:
        (tmp_path / lost).unlink()
    with pytest.raises(InputError) as caught:
        opened(tmp_path, name)
    assert words in one_line(caught.value)


def one_line(error: InputError) -> str:
    message = str(error)
    assert "\n" not in message
    assert error.path is not None
    return message


def taller(path: Path) -> None:
    """A picture with three more lines."""
    with Image.open(path) as picture:
        picture.crop((0, 0, picture.width, picture.height + 3)).save(path)


def other_runs(path: Path) -> None:
    """The first RLE of a table said to be of another size."""

    def runs(value: Any) -> Iterator[Any]:
        if isinstance(value, dict) and "counts" in value:
            yield value
        elif isinstance(value, dict | list):
            for each in value.values() if isinstance(value, dict) else value:
                yield from runs(each)

    table = json.loads(path.read_text())
    next(runs(table))["size"][0] += 3
    path.write_text(json.dumps(table))


MASKS: dict[str, tuple[str, Callable[[Path], None], str]] = {
    "vipseg": ("vipseg/panomasksRGB/clip0/00001.png", taller, "val"),
    "vspw": ("vspw/semmasks/clip1/00001.png", taller, "val"),
    "ytvis19": ("ytvis19/valid/valid.json", other_runs, "val"),
    "ytvis21": ("ytvis21/valid/gt.json", other_runs, "val"),
    "ref_ytvos": ("ref_ytvos/valid/Annotations/clip0/1/00005.png", taller, "val"),
    "ref_davis17": ("ref_davis17/Annotations/480p/clip0/00003.png", taller, "val"),
    "davis16": ("davis16/Annotations/480p/clip0/00003.png", taller, "val"),
    "davis17": ("davis17/Annotations/480p/clip0/00003.png", taller, "val"),
    "revos": ("revos/annotations/mask_dict.json", other_runs, "val"),
    "video_gcg": ("video_gcg/instruction_data/test.json", other_runs, "val"),
    "mevis_gcg": ("mevis/valid_u/mask_dict.json", other_runs, "val"),
    "vidstg_gcg": ("vidstg_gcg/val/clip0/masks/002/00003.png", taller, "val"),
    "ytvos19": ("ytvos19/valid/Annotations/clip0/00010.png", taller, "val"),
    "yt19_vgd": ("yt19_vgd/annotations/vid_vgdseg_yt19_val.json", other_runs, "val"),
    "vipseg_vgd": ("vipseg_vgd/annotations/vid_vgdseg_vipseg_val.json", other_runs, "val"),
    "sa_v": ("sa_v/sav_train/sav_000/clip0_manual.json", other_runs, "manual"),
    "footage": ("footage/gt/clip0/masks/00002.png", taller, "region"),
}


@pytest.mark.parametrize("name", VIDEO_LAYOUTS)
def test_a_mask_of_another_size_is_named_when_it_is_read(name: str, tmp_path: Path) -> None:
    VIDEO_LAYOUTS[name].miniature(tmp_path / name, SEED)
    where, damage, split = MASKS[name]
    damage(tmp_path / where)
    dataset = opened(tmp_path, name, split)
    with pytest.raises(InputError) as caught:
        read_through(dataset)
    message = one_line(caught.value)
    assert where in message
    assert "x51" in message or "x43" in message


def read_through(dataset: Dataset) -> None:
    for sample in every(dataset):
        for frame in np.flatnonzero(sample.annotated).tolist():
            sample.truth(frame)


def edited(path: Path, change: Callable[[Any], None]) -> None:
    table = json.loads(path.read_text())
    change(table)
    path.write_text(json.dumps(table))


def set_deep(*keys: Any) -> Callable[[Any], None]:
    """Put the last of `keys` at the place the others lead to."""

    def change(table: Any) -> None:
        for key in keys[:-2]:
            table = table[key]
        table[keys[-2]] = keys[-1]

    return change


# A class, object or mask that the data set does not have; what the message must name.
UNKNOWN: dict[str, tuple[str, Callable[[Any], None], str]] = {
    "vipseg": (
        "vipseg/panoptic_gt_VIPSeg_val.json",
        set_deep("annotations", 0, "annotations", 1, "segments_info", 0, "category_id", 999),
        "category 999",
    ),
    "vspw": ("vspw/label_num_dic_final.json", lambda table: table.pop("person"), "class 61"),
    "ytvis19": ("ytvis19/valid/valid.json", set_deep("annotations", 1, "category_id", 999), "category 999"),
    "ytvis21": ("ytvis21/valid/gt.json", set_deep("annotations", 1, "category_id", 999), "category 999"),
    "revos": (
        "revos/annotations/meta_expressions_valid_.json",
        set_deep("videos", "clip0", "expressions", "0", "anno_id", [999]),
        "'999'",
    ),
    "video_gcg": (
        "video_gcg/instruction_data/test.json",
        set_deep("videos", 0, "dense_cap", "mask_id", [100, 101, 999]),
        "mask 999",
    ),
    "mevis_gcg": ("mevis_gcg/valid_u/clip0.json", set_deep("caption", "A [shape](9)."), "object 9"),
    "vidstg_gcg": ("vidstg_gcg/val_captions/clip0.json", set_deep("caption", "A [shape](9)."), "009"),
    "ytvos19": (
        "ytvos19/valid/meta.json",
        set_deep("videos", "clip1", "objects", "2", "category", "unicorn"),
        "'unicorn'",
    ),
    "yt19_vgd": (
        "yt19_vgd/annotations/vid_vgdseg_yt19_val.json",
        set_deep(0, "annotations", 0, 0, "category_id", 999),
        "category 999",
    ),
    "vipseg_vgd": (
        "vipseg_vgd/annotations/vid_vgdseg_vipseg_val.json",
        set_deep(0, "annotations", 0, 0, "category_id", 999),
        "category 999",
    ),
    "sa_v": (
        "sa_v/sav_train/sav_000/clip0_manual.json",
        set_deep("masklet_id", [0, 1, 2, 3]),
        "'masklet' does not fit",
    ),
    "footage": ("footage/MANIFEST.json", set_deep("items", 0, "objects", 0, "first_frame", 99), "frame 99"),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_an_unknown_class_or_object_is_named(name: str, tmp_path: Path) -> None:
    VIDEO_LAYOUTS[name].miniature(tmp_path / name, SEED)
    where, change, words = UNKNOWN[name]
    edited(tmp_path / where, change)
    with pytest.raises(InputError) as caught:
        read_through(opened(tmp_path, name, "manual" if name == "sa_v" else None))
    assert words in one_line(caught.value)


@pytest.mark.parametrize("name", UNKNOWN)
def test_a_damaged_table_is_named(name: str, tmp_path: Path) -> None:
    VIDEO_LAYOUTS[name].miniature(tmp_path / name, SEED)
    path = tmp_path / UNKNOWN[name][0]
    path.write_text("[{")
    with pytest.raises(InputError, match="is not valid JSON"):
        opened(tmp_path, name, "manual" if name == "sa_v" else None)


@pytest.mark.parametrize("name", UNKNOWN)
def test_junk_anywhere_in_a_table_is_read_or_refused(name: str, tmp_path: Path) -> None:
    """Never another error than InputError, whichever value is replaced by whatever."""
    VIDEO_LAYOUTS[name].miniature(tmp_path / name, SEED)
    path = tmp_path / UNKNOWN[name][0]
    sound, rng = path.read_text(), np.random.default_rng(SEED)
    refused = 0
    for _ in range(JUNK_TRIES):
        table = json.loads(sound)
        places = list(containers(table))
        inside, key = places[rng.integers(len(places))]
        inside[key] = JUNK[rng.integers(len(JUNK))]
        path.write_text(json.dumps(table))
        try:
            read_through(opened(tmp_path, name, "manual" if name == "sa_v" else None))
        except InputError as error:
            one_line(error)
            refused += 1
    assert refused


JUNK: tuple[Any, ...] = (None, True, -1, 3.5, 10**9, "", "x", [], [3], {}, {"x": None})
JUNK_TRIES = 20


def containers(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every place in a table: the list or record it is in and its index or key."""
    if isinstance(value, dict | list):
        for key in list(value) if isinstance(value, dict) else range(len(value)):
            yield value, key
            yield from containers(value[key])


@pytest.mark.parametrize("name", VIDEO_LAYOUTS)
def test_an_unknown_split_and_an_empty_folder_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no split 'nowhere': choose one of"):
        opened(tmp_path, name, "nowhere")
    with pytest.raises(InputError, match=str(tmp_path)):
        opened(tmp_path, name)


def test_a_phrase_that_is_no_phrase_is_named(tmp_path: Path) -> None:
    VIDEO_LAYOUTS["ref_davis17"].miniature(tmp_path / "ref_davis17", SEED)
    path = tmp_path / "ref_davis17/davis_text_annotations/Davis17_annot1.txt"
    path.write_text("clip0 first\n")
    with pytest.raises(InputError, match=r"Davis17_annot1.txt: 'clip0 first' is not VIDEO OBJECT"):
        opened(tmp_path, "ref_davis17")


def test_an_object_that_is_never_seen_is_named(tmp_path: Path) -> None:
    VIDEO_LAYOUTS["ytvos19"].miniature(tmp_path / "ytvos19", SEED)
    nothing = {"category": "person", "frames": []}
    edited(
        tmp_path / "ytvos19/valid/meta.json", lambda table: table["videos"]["clip0"]["objects"].update({"9": nothing})
    )
    dataset = opened(tmp_path, "ytvos19")
    with pytest.raises(InputError, match="object clip0/9 is on none of its annotated frames"):
        dataset[3]
