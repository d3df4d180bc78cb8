"""Footage: exact mattes, the same bytes from the same seed, samples a trainer can use, clips on disk."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from typer.testing import CliRunner

from x2roto.cli.app import app
from x2roto.data.video.davis import open_davis17
from x2roto.errors import InputError
from x2roto.prompt import parse_prompt
from x2roto.train.footage import LabelledFootage, Material, ProceduralFootage, Shape, film, footage_datasets
from x2roto.train.footage.codec import compressed
from x2roto.train.footage.dataset import FilmedClip
from x2roto.train.footage.material import Labelled, opened
from x2roto.train.footage.regions import KINDS, Kind, region
from x2roto.train.footage.render import render, render_mattes
from x2roto.train.footage.scatter import scatter
from x2roto.train.footage.scene import compose
from x2roto.train.footage.vocabulary import names_known, nouns
from x2roto.train.procedural import open_footage
from x2roto.train.samples import ClipSample

TRAINSET = Path(__file__).parents[2] / ".." / "shared" / "trainset"
DRAWN = opened(None)
SMALL = Shape(48, 72, (3, 5))


def _film(number: int, frames: int = 5) -> FilmedClip:
    return film(DRAWN, (2, number), SMALL, frames)


def _digest(clip: FilmedClip) -> str:
    assert clip.rendered.frames is not None
    said = repr((clip.language.expressions, clip.language.questions, clip.language.caption))
    return hashlib.sha256(clip.rendered.frames.tobytes() + clip.rendered.alpha.tobytes() + said.encode()).hexdigest()


# ---- pictures and mattes


def test_alphas_are_coverages_that_share_each_pixel() -> None:
    for number in range(6):
        rendered = _film(number).rendered
        assert rendered.frames is not None
        assert rendered.frames.shape == (5, 48, 72, 3)
        assert rendered.frames.dtype == np.uint8
        assert rendered.alpha.min() >= 0
        assert rendered.alpha.sum(0).max() <= 1 + 1e-4
        assert (rendered.alpha <= rendered.whole + 1e-5).all()


def test_edges_are_soft() -> None:
    alpha = np.concatenate([_film(number).rendered.alpha.ravel() for number in range(4)])
    assert ((alpha > 0.05) & (alpha < 0.95)).mean() > 0.002


def test_mattes_without_pictures_are_those_of_the_pictures() -> None:
    scene = compose(DRAWN, (4, 1), frames=4, aspect=1.5)
    full, bare = render(scene, 48, 72), render_mattes(scene, 48, 72)
    assert bare.frames is None
    assert np.array_equal(full.alpha, bare.alpha)


def test_what_the_matte_says_is_where_the_picture_changes() -> None:
    """Taking an actor out of the scene changes the picture under its matte most of all."""
    from dataclasses import replace

    scene = compose(DRAWN, (4, 5), frames=3, aspect=1.5)
    calm = replace(scene.film, noise=0.0, quality=100, defocus=0.0)
    scene = replace(scene, film=calm, light=replace(scene.light, shadow=0.0))
    kept, taken = render(scene, 96, 144), render(replace(scene, actors=scene.actors[1:]), 96, 144)
    assert kept.frames is not None
    assert taken.frames is not None
    change = np.abs(kept.frames.astype(int) - taken.frames.astype(int)).sum(-1)
    inside = kept.alpha[0] > 0.5
    assert inside.any()
    assert change[inside].mean() > 20
    assert change[kept.whole[0] < 0.01].max() <= 3


def test_the_same_seed_gives_the_same_bytes_in_another_process() -> None:
    code = (
        "import sys; sys.path.insert(0, '.');"
        "from tests.unit.test_footage import _digest, _film; import torch; torch.set_num_threads(1);"
        "print([_digest(_film(number, 3)) for number in range(3)])"
    )
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        assert other.stdout.strip() == str([_digest(_film(number, 3)) for number in range(3)])
    finally:
        torch.set_num_threads(threads)


def test_other_seeds_give_other_clips() -> None:
    assert len({_digest(_film(number, 3)) for number in range(5)}) == 5


def test_compression_hurts_more_the_lower_the_quality() -> None:
    pictures = torch.rand((3, 3, 40, 50), generator=torch.Generator().manual_seed(0))
    pictures = torch.nn.functional.avg_pool2d(pictures, 3, 1, 1)
    errors = [float((compressed(pictures, quality) - pictures).square().mean()) for quality in (95, 60, 20)]
    assert errors[0] < errors[1] < errors[2]
    assert compressed(pictures, 60).shape == pictures.shape


# ---- regions


@pytest.mark.parametrize("kind", KINDS)
def test_regions_point_at_their_thing(kind: Kind) -> None:
    rng = np.random.default_rng(0)
    mask = np.zeros((60, 90), np.bool_)
    mask[20:50, 30:60] = np.hypot(*np.mgrid[-15:15, -15:15]) < 14
    for _ in range(20):
        drawn = region(kind, mask, rng)
        assert drawn.shape == mask.shape
        assert drawn.dtype == np.bool_
        assert (drawn & mask).sum() > 0.3 * min(drawn.sum(), mask.sum())


@pytest.mark.parametrize("kind", KINDS)
def test_a_single_pixel_can_be_pointed_at(kind: Kind) -> None:
    mask = np.zeros((20, 30), np.bool_)
    mask[0, 29] = True
    assert region(kind, mask, np.random.default_rng(1)).any()


# ---- data sets


@pytest.mark.parametrize("data", footage_datasets(DRAWN, SMALL, seed=3, length=40), ids=lambda data: data.name)
def test_samples_are_whole_and_the_same_each_time(data: ProceduralFootage) -> None:
    for index in (0, 39):
        sample, again = data[index], data[index]
        assert sample.media == data.modality
        assert len(sample.frames) == data.frame_count(index)
        assert sample.frames.shape[1:] == (48, 72, 3)
        assert np.array_equal(sample.frames, again.frames)
        assert np.array_equal(sample.masks, again.masks)
        assert sample.answer == again.answer
    with pytest.raises(IndexError):
        data[40]


def test_some_phrases_ask_for_what_is_not_there() -> None:
    data = ProceduralFootage(DRAWN, "refseg", Shape(32, 48, (1,)), seed=1)
    samples = [data[index] for index in range(40)]
    absent = [set(range(len(s.targets))) - set(s.condition.tolist()) for s in samples if s.condition is not None]
    assert 1 <= sum(map(bool, absent)) <= 16


def test_what_is_often_somewhere_is_often_asked_for_in_vain() -> None:
    there, in_vain = Counter[str](), Counter[str]()
    for number in range(60):
        clip = film(DRAWN, (6, number), Shape(16, 24, (1,)), 1)
        assert set(clip.rivals) <= set(clip.language.elsewhere)
        there.update({name for actor in clip.scene.actors for name in actor.label.nouns})
        in_vain.update(clip.rivals)
    often = [name for name, count in there.items() if count >= 12]
    assert len(often) >= 3
    assert all(in_vain[name] >= 5 for name in often)


def test_names_apart_are_told_of_everything_they_fit_and_of_some_that_are_nowhere() -> None:
    data = ProceduralFootage(DRAWN, "genseg", Shape(32, 48, (1,), apart=12), seed=4)
    several, nowhere = 0, 0
    for sample in (data[index] for index in range(30)):
        assert sample.apart
        assert sample.condition is not None
        counts = np.bincount(sample.condition, minlength=len(sample.targets))
        several += int((counts > 1).sum())
        nowhere += int((counts == 0).sum())
        assert len(set(sample.targets)) == len(sample.targets) <= 12
    assert several > 20
    assert nowhere > 60


def _listed(sample: ClipSample) -> dict[str, NDArray[np.bool_]]:
    """The mask of everything that each name on the list fits."""
    assert sample.masks is not None
    assert sample.condition is not None
    masks = [sample.masks[sample.condition == number].any(0)[0] for number in range(len(sample.targets))]
    return dict(zip(sample.targets, masks, strict=True))  # type: ignore[arg-type]


@pytest.mark.parametrize("source", ["scatter", "footage"])
def test_every_name_is_listed_of_which_it_is_clear_whether_it_fits(source: str) -> None:
    data, *_ = open_footage(
        height=48, width=48, frames=[1], tasks=["genseg"], sources=[source], every=True, length=30, seed=3
    )
    for sample in (data[index] for index in range(30)):
        names = _listed(sample)
        assert not sample.apart
        assert names.keys() <= set(names_known())
        assert len(names) > 100
        assert any(mask.any() for mask in names.values())
        for name, mask in names.items():
            for kind in nouns()[name].kinds if name in nouns() else ():
                # What is a man is a person, wherever that is clear.
                assert not (mask & ~names.get(kind, mask)).any()


def test_who_may_be_a_man_is_asked_for_as_neither_man_nor_something_else() -> None:
    labelled = replace(_photo(True), names={1: "person"})
    (sample,) = [LabelledFootage([labelled], "genseg", Shape(48, 72, (1,), every=True), name="photo")[0]]
    names = _listed(sample)
    assert names["person"].any()
    assert not names["dog"].any()
    assert not {"man", "woman", "shirt", "backpack"} & names.keys()


def test_what_a_labelled_thing_may_be_is_not_asked_for_in_vain() -> None:
    data = LabelledFootage([replace(_photo(True), names={1: "person"})], "genseg", Shape(48, 72, (1,)), name="photo")
    asked = {name for index in range(120) for name in data[index].targets}
    assert len(asked) > 100
    assert not {"man", "woman", "child", "boy", "girl"} & asked


def test_a_rank_does_not_make_a_thing_be_there() -> None:
    data = ProceduralFootage(DRAWN, "refseg", Shape(32, 48, (1,), apart=8), seed=6)
    samples = [data[index] for index in range(40)]
    in_vain = [
        str(sample.targets[number])
        for sample in samples
        for number in set(range(len(sample.targets))) - set(np.asarray(sample.condition).tolist())
    ]
    assert sum(text.startswith(("the largest ", "the left ", "the smallest ")) for text in in_vain) >= 3
    assert sum(text.removeprefix("the ") in nouns() for text in in_vain) >= 30


def test_things_are_strewn_the_same_each_time_and_mattes_are_where_they_are() -> None:
    for number in range(12):
        still, again = (scatter(DRAWN, (8, number), 64) for _ in range(2))
        assert np.array_equal(still.frame, again.frame)
        assert np.array_equal(still.masks, again.masks)
        assert len(still.labels) == len(still.masks) <= 16
        assert (still.masks.sum(0) <= 1).all(), "what lies on top hides what is below"
    stills = [scatter(DRAWN, (9, number), 64) for number in range(40)]
    assert len({still.frame.tobytes() for still in stills}) == 40
    shown = [still.masks.any((1, 2)).mean() for still in stills]
    assert np.mean(shown) > 0.9


def test_words_about_a_clip_may_be_asked_of_some_of_its_frames() -> None:
    whole = ProceduralFootage(DRAWN, "refseg", Shape(32, 48, (6,)), seed=1)
    some = ProceduralFootage(DRAWN, "refseg", Shape(32, 48, (6,), kept=2), seed=1)
    assert (whole.frame_count(3), some.frame_count(3)) == (6, 2)
    assert some[3].targets == whole[3].targets
    assert np.array_equal(some[3].frames, whole[3].frames[[0, 5]])
    assert some[3].masks is not None
    assert whole[3].masks is not None
    assert np.array_equal(some[3].masks, whole[3].masks[:, [0, 5]])
    pointed = ProceduralFootage(DRAWN, "objseg", Shape(32, 48, (6,), kept=2), seed=1)
    assert len(pointed[3].frames) == pointed.frame_count(3) == 6


def _photo(complete: bool) -> Labelled:
    rng = np.random.default_rng(5)
    picture = rng.integers(0, 255, (1, 100, 150, 3), dtype=np.uint8)
    labels = np.zeros((1, 100, 150), np.uint8)
    labels[0, 30:70, 50:100] = 1
    labels[0, :10] = 255
    return Labelled("made", {1: "dog"}, frozenset(), complete, lambda: (picture, labels))


def test_where_labels_are_incomplete_the_unlabelled_is_ignored_by_words_only() -> None:
    shape = Shape(48, 72, (4,))
    words = LabelledFootage([_photo(False)], "refseg", shape, name="photo")[0]
    assert words.targets == ("the dog",)
    assert words.masks is not None
    assert words.ignored is not None
    assert (words.ignored == ~words.masks[0]).all()
    pointed = LabelledFootage([_photo(False)], "objseg", shape, name="photo")[0]
    assert pointed.ignored is None
    complete = LabelledFootage([_photo(True)], "genseg", shape, name="clip")[0]
    assert "dog" in complete.targets
    assert complete.ignored is None or complete.ignored.mean() < 0.3


def test_a_folder_without_a_manifest_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"MANIFEST\.json"):
        Material.open(tmp_path)
    (tmp_path / "MANIFEST.json").write_text("{}")
    with pytest.raises(InputError, match="not a manifest"):
        Material.open(tmp_path)


@pytest.mark.skipif(not TRAINSET.is_dir(), reason="../shared/trainset is not there")
def test_the_training_material_loads_and_every_kind_of_picture_is_used() -> None:
    material = opened(TRAINSET)
    assert {prop.look for prop in material.props} == {"real", "stylised", "drawn"}
    assert {backdrop.kind for backdrop in material.backdrops} == {"photo", "panorama", "footage", "drawn"}
    assert len(material.photos) == 282
    assert len(material.clips) == 9
    sample = LabelledFootage(material.clips, "objseg", Shape(64, 96, (4,)), name="clip")[1]
    assert sample.masks is not None
    assert sample.masks.any()


# ---- command line


def _run(*arguments: str) -> None:
    result = CliRunner().invoke(app, ["footage", *arguments])
    assert result.exit_code == 0, result.output


def test_make_writes_clips_that_agree_with_their_words(tmp_path: Path) -> None:
    _run("make", "--out", str(tmp_path), "--count", "2", "--size", "72x48", "--frames", "3", "--seed", "1")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["000000", "000001"]
    for folder in tmp_path.iterdir():
        said = json.loads((folder / "language.json").read_text())
        assert len(list((folder / "frames").iterdir())) == 3
        ids = np.stack([np.asarray(Image.open(path)) for path in sorted((folder / "ids").iterdir())])
        assert ids.max() <= len(said["objects"])
        assert len(list((folder / "mattes").iterdir())) == len(said["objects"])
        for expression in said["expressions"]:
            assert (ids == expression["objects"][0]).any()
            assert parse_prompt("text", expression["text"])


def test_make_writes_the_folders_of_davis(tmp_path: Path) -> None:
    _run("make", "--out", str(tmp_path), "--count", "1", "--size", "72x48", "--frames", "2", "--layout", "davis")
    files = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.*"))
    assert files == [
        "Annotations/480p/000000/00000.png",
        "Annotations/480p/000000/00001.png",
        "ImageSets/2017/val.txt",
        "JPEGImages/480p/000000/00000.jpg",
        "JPEGImages/480p/000000/00001.jpg",
        "Language/000000.json",
    ]
    (first, *_) = open_davis17(tmp_path, "val", "box")
    assert first.frames[0] == tmp_path / "JPEGImages/480p/000000/00000.jpg"
    assert first.truth(0).masks.any()


def test_sheet_and_check_run(tmp_path: Path) -> None:
    _run("sheet", "--out", str(tmp_path / "sheet.png"), "--count", "3", "--size", "72x48", "--frames", "3")
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width > 4 * 3 * 72
    _run("check", "--count", "2")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("make", "--out", "x", "--size", "tall"), "write WxH"),
        (("check", "--material", "nowhere"), "MANIFEST.json"),
    ],
)
def test_bad_options_are_told(arguments: tuple[str, ...], words: str) -> None:
    result = CliRunner().invoke(app, ["footage", *arguments])
    assert result.exit_code != 0
    assert words in str(result.exception)
