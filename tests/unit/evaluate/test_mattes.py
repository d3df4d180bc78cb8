"""Comparing folders of mattes: what is read, how it is paired, what is refused, and the page of it."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from fractions import Fraction
from math import isnan
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tests.media import write_exr, write_picture
from x2roto.clip import ClipInfo, Frame
from x2roto.errors import InputError
from x2roto.evaluate.alpha import read_alpha
from x2roto.evaluate.mattes import TITLES, compare, matte_report, worst
from x2roto.evaluate.page import as_html
from x2roto.evaluate.takes import open_take, paired
from x2roto.export import Take, Template, make_options, open_writer
from x2roto.export.davis import palette
from x2roto.export.still import encode_still
from x2roto.matte import Matte, MatteFrame, Track

WIDTH, HEIGHT, COUNT, FIRST = 80, 48, 4, 1001
MAN, BALL = Track(1, "the right man"), Track(2, "Ball")
FOOTAGE = Path(__file__).parents[3] / ".." / "shared" / "footage"
Alpha = NDArray[np.float32]


def disc(x: float, y: float, radius: float) -> Alpha:
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH]
    return np.clip((radius - np.hypot(columns - x, rows - y)) / 2 + 0.5, 0, 1).astype(np.float32)


def shot(index: int) -> dict[str, Alpha]:
    """The mattes of a frame; the ball is not there at first."""
    ball = disc(62, 20, 8) if index else np.zeros((HEIGHT, WIDTH), np.float32)
    return {"the_right_man": disc(24 + index, 26, 14), "ball": ball}


def export(name: str, folder: Path, **options: object) -> Path:
    """The shot as a writer of ours leaves it."""
    clip = ClipInfo(WIDTH, HEIGHT, Fraction(24), COUNT, FIRST)
    take = Take("ab010", clip, (MAN, BALL), range(FIRST, FIRST + COUNT))
    with open_writer(name, Template(folder), take, make_options(name, options)) as writer:
        for index in range(COUNT):
            plate = np.random.default_rng(index).integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)
            mattes = [Matte(track, alpha) for track, alpha in zip((MAN, BALL), shot(index).values(), strict=True)]
            writer.write(MatteFrame(Frame(index, None, plate), FIRST + index, tuple(mattes)))
    return folder


def save(path: Path, alpha: Alpha) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.rint(alpha * 255).astype(np.uint8)).save(path)


@pytest.fixture
def truth(tmp_path: Path) -> Path:
    """The shot as another tool's eight-bit grey pictures, a folder per object."""
    for index in range(COUNT):
        for name, alpha in shot(index).items():
            save(tmp_path / "truth" / name / f"{FIRST + index}.png", alpha)
    return tmp_path / "truth"


def single(folder: Path, first: int = FIRST, count: int = COUNT) -> Path:
    """The man alone, numbers only."""
    for index in range(count):
        save(folder / f"{first + index:05}.png", shot(index)["the_right_man"])
    return folder


# ---- what is read ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("png", {}),
        ("png", {"depth": 8}),
        ("png", {"content": "rgba", "foreground": False}),
        ("tiff", {}),
        ("tiff", {"content": "rgba", "foreground": False}),
        ("exr", {}),
        ("exr", {"channels": "a", "crop": True}),
        ("exr", {"channels": "y"}),
        ("exr", {"content": "rgba", "foreground": False}),
        ("exr", {"layout": "single"}),
        ("exr", {"layout": "single", "content": "rgba", "foreground": False}),
        ("exr", {"layout": "multipart"}),
        ("prores", {"foreground": False}),
        ("ffv1", {}),
        ("ffv1", {"content": "rgba", "foreground": False}),
    ],
)
def test_our_own_formats_are_read(name: str, options: dict[str, object], tmp_path: Path, truth: Path) -> None:
    result = compare(export(name, tmp_path / "out", **options), truth)
    assert sorted(result.objects) == ["ball", "the_right_man"]
    # Eight bits of the truth, ten of ProRes.
    assert all(frame.errors.mad_x1000 < 1.5 for frame in result.frames)
    assert result.overall["J"] > 0.99
    assert result.unused == ()


def test_label_maps_are_read(tmp_path: Path) -> None:
    folder = export("davis", tmp_path / "out")
    labels = [np.asarray(Image.open(path)) for path in sorted(folder.iterdir())]
    for index, label in enumerate(labels):
        save(tmp_path / "truth" / f"x_1.{FIRST + index}.png", np.float32(label == 1))
        save(tmp_path / "truth" / f"x_2.{FIRST + index}.png", np.float32(label == 2))
    for pair in ((folder, tmp_path / "truth"), (tmp_path / "truth", folder)):
        result = compare(*pair)
        assert len(result.pairs) == 2
        assert result.overall["J"] == 1
        assert result.overall["sad_thousands"] == 0


def test_an_id_no_label_map_shows_is_empty_not_missing(tmp_path: Path) -> None:
    for number in (1, 2):
        for name, ids in (("truth", (1, 3)), ("out", (1,))):
            labels = np.zeros((HEIGHT, WIDTH), np.uint8)
            for id in ids:
                labels[4 * id : 4 * id + 4, 10:30] = id
            picture = Image.fromarray(labels)
            picture.putpalette(palette())
            (tmp_path / name).mkdir(exist_ok=True)
            picture.save(tmp_path / name / f"{number:05}.png")
    result = compare(tmp_path / "out", tmp_path / "truth")
    assert (result.objects["1"]["J"], result.objects["3"]["J"]) == (1, 0)


ALPHA = disc(30, 20, 12)
RAMP = np.dstack([np.linspace(0, 1, WIDTH) * np.ones((HEIGHT, 1))] * 3).astype(np.float32)


def deep(array: NDArray[np.float32]) -> NDArray[np.uint16]:
    return np.rint(array * 65535).astype(np.uint16)


def eight(array: NDArray[np.float32]) -> NDArray[np.uint8]:
    return np.rint(array * 255).astype(np.uint8)


GREY = np.dstack([ALPHA] * 3)
SAVES: dict[str, tuple[str, float, Callable[[Path], object]]] = {
    "8-bit grey": ("a.png", 255, lambda path: Image.fromarray(eight(ALPHA)).save(path)),
    "8-bit RGBA": ("a.png", 255, lambda path: Image.fromarray(eight(np.dstack([RAMP, ALPHA]))).save(path)),
    "16-bit RGBA": (
        "a.png",
        65535,
        lambda path: path.write_bytes(encode_still("png", deep(np.dstack([RAMP, ALPHA])), {})),
    ),
    "grey and alpha": (
        "a.png",
        255,
        lambda path: Image.merge("LA", [Image.fromarray(eight(band)) for band in (RAMP[..., 0], ALPHA)]).save(path),
    ),
    "grey, opaque": (
        "a.png",
        255,
        lambda path: Image.fromarray(eight(np.dstack([GREY, np.ones_like(ALPHA)]))).save(path),
    ),
    "16-bit RGB": ("a.tif", 65535, lambda path: write_picture(path, deep(GREY))),
    "16-bit grey": ("a.tif", 65535, lambda path: Image.fromarray(deep(ALPHA)).save(path)),
    "float grey": ("a.tif", 1e7, lambda path: Image.fromarray(ALPHA).save(path)),
    "JPEG": ("a.jpg", 20, lambda path: Image.fromarray(eight(ALPHA)).save(path, quality=98)),
    "bilevel": ("a.png", 255, lambda path: Image.fromarray(ALPHA >= 0.5).save(path)),
    "EXR, opaque": (
        "a.exr",
        2048,
        lambda path: write_exr(path, dict.fromkeys("RGB", deep(ALPHA)) | {"A": np.ones_like(ALPHA)}),
    ),
}


@pytest.mark.parametrize("kind", SAVES)
def test_alpha_is_read_as_other_programs_save_it(kind: str, tmp_path: Path) -> None:
    name, steps, write = SAVES[kind]
    write(tmp_path / name)
    wanted = np.float32(ALPHA >= 0.5) if kind == "bilevel" else ALPHA
    found = read_alpha(tmp_path / name)
    assert found.dtype == np.float32
    assert np.abs(found - wanted).max() <= 0.51 / steps


def test_an_opaque_picture_in_colour_is_all_there(tmp_path: Path) -> None:
    picture = np.dstack([RAMP[..., 0], 1 - RAMP[..., 0], RAMP[..., 0], np.ones((HEIGHT, WIDTH))])
    Image.fromarray(eight(picture)).save(tmp_path / "a.png")
    assert (read_alpha(tmp_path / "a.png") == 1).all()


def test_broken_numbers_in_float_files_are_no_coverage(tmp_path: Path) -> None:
    alpha = ALPHA.copy()
    alpha[0, :4] = np.nan, np.inf, -np.inf, 3
    write_exr(tmp_path / "a.exr", {"A": alpha})
    assert read_alpha(tmp_path / "a.exr")[0, :4].tolist() == [0, 1, 0, 1]


def refuse(path: Path, words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        read_alpha(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def test_what_is_no_matte_is_refused(tmp_path: Path) -> None:
    colour = eight(np.dstack([RAMP[..., 0], 1 - RAMP[..., 0], RAMP[..., 0]]))
    Image.fromarray(colour).save(tmp_path / "colour.png")
    refuse(tmp_path / "colour.png", "in colour without alpha")
    Image.fromarray((ALPHA > 0.5).astype(np.uint8)).save(tmp_path / "ones.png")
    refuse(tmp_path / "ones.png", "holds 0 and 1 of 255")
    (tmp_path / "broken.png").write_bytes((tmp_path / "colour.png").read_bytes()[:200])
    refuse(tmp_path / "broken.png", "broken.png")
    (tmp_path / "broken.exr").write_bytes(b"\x76\x2f\x31\x01 and then nothing")
    refuse(tmp_path / "broken.exr", "broken.exr")
    refuse(tmp_path / "none.png", "none.png")


# ---- how it is paired --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "found", "pairs"),
    [
        (["masks"], ["ab010_man"], {"masks": "ab010_man"}),
        (["man", "dog"], ["ab010_man", "ab010_dog", "ab010_cat"], {"man": "ab010_man", "dog": "ab010_dog"}),
        (["gt_man", "gt_dog"], ["ab_010_dog", "ab_010_man"], {"gt_man": "ab_010_man", "gt_dog": "ab_010_dog"}),
        (["man_left", "man_right", "dog"], ["s_man_left", "s_man_right"], {"man_left": "s_man_left", "dog": None}),
        (["man", "tall_man"], ["x_man", "x_tall_man"], {"man": "x_man", "tall_man": "x_tall_man"}),
        (["1", "2"], ["2", "1"], {"1": "1", "2": "2"}),
        (["man", "dog"], ["woman"], {"man": None, "dog": None}),
    ],
)
def test_objects_are_paired_by_name(wanted: list[str], found: list[str], pairs: dict[str, str | None]) -> None:
    assert paired(wanted, found, {}).items() >= pairs.items()


def test_names_can_be_given() -> None:
    assert paired(["man", "dog"], ["a", "b"], {"b": "man", "a": "dog"}) == {"man": "b", "dog": "a"}
    assert paired(["man", "dog"], ["x_man", "x_b"], {"x_b": "dog"}) == {"man": "x_man", "dog": "x_b"}
    with pytest.raises(InputError, match="no object 'c': the prediction has 'a', 'b'"):
        paired(["man"], ["a", "b"], {"c": "man"})


def test_names_that_fit_twice_are_refused() -> None:
    with pytest.raises(InputError, match="'left' of the truth could be the prediction's 'a_left', 'b_left'"):
        paired(["left", "other"], ["a_left", "b_left"], {})
    with pytest.raises(InputError, match="'man' of the prediction could be several"):
        paired(["a_man", "b_man", "dog"], ["man", "dog"], {})


def test_first_numbers_may_differ_when_said_so(tmp_path: Path) -> None:
    truth, out = single(tmp_path / "truth", 0), single(tmp_path / "out")
    with pytest.raises(InputError, match=r"begin with 1001 and 0: give --offset -1001"):
        compare(out, truth)
    result = compare(out, truth, offset=-1001)
    assert [frame.number for frame in result.frames] == list(range(COUNT))
    assert result.overall["sad_thousands"] == 0


def test_frames_the_truth_lacks_do_not_count(tmp_path: Path) -> None:
    truth, out = single(tmp_path / "truth"), single(tmp_path / "out")
    (truth / "01002.png").unlink()
    result = compare(out, truth)
    assert [frame.number for frame in result.frames] == [1001, 1003, 1004]
    assert [isnan(frame.errors.dtssd_x100) for frame in result.frames] == [True, True, False]


def test_missing_frames_are_named_or_empty(tmp_path: Path) -> None:
    truth, out = single(tmp_path / "truth"), single(tmp_path / "out")
    for number in (1002, 1003):
        (out / f"0{number}.png").unlink()
    with pytest.raises(InputError, match=r"2 frames are missing: 1002-1003: add them, or .* --missing zero"):
        compare(out, truth)
    result = compare(out, truth, missing="zero")
    assert result.assumed == (("truth", 1002), ("truth", 1003))
    assert [frame.region for frame in result.frames] == [1, 0, 0, 1]
    assert "no prediction of truth on 1002-1003" in as_html(matte_report(result))


def test_a_missing_object_is_named_or_empty(tmp_path: Path, truth: Path) -> None:
    for index in range(COUNT):
        save(tmp_path / "out" / f"x_ball.{FIRST + index}.png", shot(index)["ball"])
        save(tmp_path / "out" / f"x_dog.{FIRST + index}.png", shot(index)["ball"])
    with pytest.raises(InputError, match=r"has no object 'the_right_man', only 'x_ball', 'x_dog'"):
        compare(tmp_path / "out", truth)
    result = compare(tmp_path / "out", truth, missing="zero")
    assert (result.objects["ball"]["J"], result.objects["the_right_man"]["J"]) == (1, 0)
    assert result.unused == ("x_dog",)
    assert compare(tmp_path / "out", truth, names={"x_dog": "the_right_man"}).pairs["the_right_man"] == "x_dog"


def test_sizes_must_match(tmp_path: Path) -> None:
    truth, out = single(tmp_path / "truth"), single(tmp_path / "out")
    save(out / "01003.png", np.zeros((HEIGHT, WIDTH + 2), np.float32))
    with pytest.raises(InputError, match=r"is 82x48 on frame 1003, the truth 80x48"):
        compare(out, truth)


def test_what_holds_no_mattes_is_refused(tmp_path: Path) -> None:
    truth = single(tmp_path / "truth")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no mattes"):
        compare(tmp_path / "empty", truth)
    with pytest.raises(InputError, match="no such file or folder"):
        compare(tmp_path / "nowhere", truth)
    export("png", tmp_path / "both")
    export("exr", tmp_path / "both")
    with pytest.raises(InputError, match="holds object 'ab010_ball' more than once"):
        open_take(tmp_path / "both")
    assert open_take(tmp_path / "both" / "ab010_ball.####.exr").objects == ("ab010_ball",)


# ---- scores and the page -----------------------------------------------------------------------------------------


def test_numbers_are_means_over_frames_then_objects(tmp_path: Path, truth: Path) -> None:
    result = compare(export("png", tmp_path / "out"), truth)
    for key in ("J", "mad_x1000"):
        means = [
            np.mean([frame.values()[key] for frame in result.frames if frame.object == name])
            for name in result.objects
        ]
        assert [scores[key] for scores in result.objects.values()] == pytest.approx(means)
        assert result.overall[key] == pytest.approx(np.mean(means))
    assert list(result.overall) == list(TITLES)


def test_memory_does_not_grow_with_the_clip(tmp_path: Path) -> None:
    peaks = []
    for count in (6, 40):
        folder = single(tmp_path / str(count), count=count)
        compare(folder, folder)
        tracemalloc.start()
        compare(folder, folder)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0]


def test_progress_is_told_frame_by_frame(tmp_path: Path) -> None:
    folder, told = single(tmp_path / "truth"), []
    compare(folder, folder, on_frame=lambda done, count: told.append((done, count)))
    assert told == [(done, COUNT) for done in range(1, COUNT + 1)]


def test_the_worst_frames_are_spread(tmp_path: Path) -> None:
    truth, out = single(tmp_path / "truth", count=20), single(tmp_path / "out", count=20)
    for index in (3, 4, 5, 15):
        save(out / f"0{FIRST + index}.png", disc(60, 20, 5 + index))
    result = compare(out, truth)
    assert [frame.number for frame in worst(result.frames, 5)] == [1016, 1006]
    assert len(worst(result.frames, 1)) == 1


def plates(folder: Path, count: int, width: int = WIDTH) -> Path:
    for index in range(count):
        save(folder / f"plate.{FIRST + index}.png", np.full((HEIGHT, width), 0.5, np.float32))
    return folder


@pytest.mark.parametrize("with_plate", [True, False])
def test_the_page_shows_the_worst_frames(tmp_path: Path, with_plate: bool) -> None:
    truth, out = single(tmp_path / "truth"), single(tmp_path / "out")
    save(out / "01003.png", disc(50, 20, 9))
    result = compare(out, truth)
    report = matte_report(result, plates(tmp_path / "plate", COUNT) if with_plate else None)
    assert [picture.caption.partition(":")[0] for picture in report.pictures] == ["truth, frame 1003"]
    assert report.pictures[0].rgb.shape == (HEIGHT, WIDTH, 3)
    assert tuple(report.pictures[0].rgb[47, 0]) == ((128, 128, 128) if with_plate else (40, 40, 40))
    assert report.tables[0].rows[0][:3] == ("truth", COUNT, result.overall["J"])
    assert report.facts["frames"] == "1001-1004 (4)"
    assert len(report.series) == 3
    assert "truth, frame 1003" in as_html(report)


def test_a_plate_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    truth, out = single(tmp_path / "truth"), single(tmp_path / "out")
    save(out / "01003.png", disc(50, 20, 9))
    result = compare(out, truth)
    with pytest.raises(InputError, match="no frame 1003"):
        matte_report(result, plates(tmp_path / "short", 2))
    with pytest.raises(InputError, match="the plate is 90x48, the mattes are 80x48"):
        matte_report(result, plates(tmp_path / "wide", COUNT, 90))


@pytest.mark.skipif(not (FOOTAGE / "matte").is_dir(), reason="../shared/footage is not there")
def test_true_hair_against_its_trimap() -> None:
    """The trimap is grey in an opaque RGBA picture, 0.4 where alpha is unknown."""
    folder = FOOTAGE / "matte"
    result = compare(folder / "lemur_trimap.png", folder / "lemur_alpha.png")
    alpha, trimap = (
        np.asarray(Image.open(folder / f"lemur_{name}.png").convert("L")) for name in ("alpha", "trimap")
    )
    apart = np.abs(alpha.astype(float) - trimap) / 255
    assert result.overall["sad_thousands"] == pytest.approx(apart.sum() / 1000, rel=1e-5)
    assert matte_report(result, folder / "lemur.png").pictures[0].rgb.shape == (*alpha.shape, 3)
