"""Finding the files of a sequence, and pictures of every awkward kind."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests import media
from x2roto.clip import FrameRange
from x2roto.errors import InputError
from x2roto.source import OnBadFrame, open_source


@pytest.fixture
def plates(tmp_path: Path) -> Path:
    media.write_pictures(tmp_path / "plate.%04d.png", media.pictures(5))
    return tmp_path


@pytest.mark.parametrize(
    "name",
    [
        "plate.%04d.png",
        "plate.####.png",
        "plate.@@@@.png",
        "plate.$F4.png",
        "plate.<frame>.png",
        "plate.%d.png",
        "",
        "plate.1003.png",
    ],
)
def test_every_spelling_finds_the_sequence(plates: Path, name: str) -> None:
    with open_source(plates / name) as source:
        assert source.info.first_frame == 1001
        assert source.info.rate == 24
        assert [frame.index for frame in source.frames()] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("plate.%03d.exr", "no file matches"),
        ("plate.#####.png", "no file matches"),
        ("plate.####.####.png", "2 frame number tokens"),
        ("nowhere/plate.####.png", "no such folder"),
        ("plate.1009.png", "no such file"),
    ],
)
def test_a_wrong_spelling_is_refused(plates: Path, name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        open_source(plates / name)


def test_numbers_outgrow_their_padding_but_widths_do_not_mix(tmp_path: Path) -> None:
    for number in ("0998", "0999", "1000", "10000", "07"):
        media.write_picture(tmp_path / f"a.{number}.png", media.picture(0))
    with open_source(tmp_path / "a.####.png", on_bad_frame="hold") as source:
        assert (source.info.first_frame, source.info.frame_count) == (998, 10000 - 998 + 1)
    with open_source(tmp_path / "a.%02d.png", on_bad_frame="hold") as source:
        assert source.info.first_frame == 7


def test_start_frame_renumbers(plates: Path) -> None:
    with open_source(plates, start_frame=1) as source:
        assert source.info.number(0) == 1


def test_folders_hold_one_sequence(plates: Path, tmp_path: Path) -> None:
    (plates / "notes.txt").write_text("no picture")
    (plates / ".hidden.1001.png").write_bytes(b"")
    with open_source(plates) as source:
        assert source.info.frame_count == 5
    media.write_picture(plates / "other.1.png", media.picture(0))
    with pytest.raises(InputError, match=r"holds 2 sequences: name one of other\.%d\.png, plate\.####\.png"):
        open_source(plates)
    (tmp_path / "none").mkdir()
    with pytest.raises(InputError, match="no pictures"):
        open_source(tmp_path / "none")


def test_a_still_is_one_frame(tmp_path: Path) -> None:
    with open_source(media.write_picture(tmp_path / "lemur.png", media.picture(0))) as source:
        assert (source.info.frame_count, source.info.first_frame) == (1, 1001)
        assert len(list(source.frames())) == len(source.sample(9)) == 1


@pytest.mark.parametrize("policy", ["error", "hold", "black"])
@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "text", "size", "depth"])
def test_bad_pictures_follow_the_policy(plates: Path, damage: str, policy: OnBadFrame) -> None:
    bad = plates / "plate.1003.png"
    spoil: dict[str, Callable[[], object]] = {
        "missing": bad.unlink,
        "empty": lambda: bad.write_bytes(b""),
        "cut": lambda: bad.write_bytes(bad.read_bytes()[: bad.stat().st_size // 2]),
        "text": lambda: bad.write_text("not a picture"),
        "size": lambda: media.write_picture(bad, media.picture(0, 32, 32)),
        "depth": lambda: media.write_picture(bad, media.deep_picture(0)),
    }
    spoil[damage]()
    with open_source(plates / "plate.####.png", on_bad_frame=policy) as source:
        if policy == "error":
            with pytest.raises(InputError, match="1003"):
                list(source.frames())
            assert [frame.index for frame in source.frames((FrameRange(0, 2), FrameRange(3, 5)))] == [0, 1, 3, 4]
            return
        frames = list(source.frames())
        alone = next(source.frames((FrameRange(2, 3),)))
    assert [frame.held for frame in frames] == [False, False, True, False, False]
    np.testing.assert_array_equal(frames[2].rgb, frames[1].rgb if policy == "hold" else 0)
    np.testing.assert_array_equal(alone.rgb, frames[2].rgb)
    assert list(source.bad_frames) == [2]


def test_missing_numbers_are_refused_before_the_first_frame(plates: Path) -> None:
    (plates / "plate.1003.png").unlink()
    with open_source(plates) as source:
        assert "1 of 5 frames are missing" in source.info.notes
        with pytest.raises(InputError, match="1 of 5 frames are missing: 1003"):
            source.frames()
        with pytest.raises(InputError, match="missing: 1003"):
            source.sample(2)


def save(mode: str, suffix: str, **options: object) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        path = folder / f"still{suffix}"
        Image.fromarray(media.picture(0)).convert(mode).save(path, **options)
        return path

    return make


@pytest.mark.parametrize(
    "make",
    [
        save("L", ".png"),
        save("LA", ".png"),
        save("P", ".png"),
        save("RGBA", ".png"),
        save("1", ".png"),
        save("I;16", ".png"),
        save("CMYK", ".jpg"),
        save("L", ".jpg"),
        save("RGB", ".jpg", progressive=True),
        save("RGB", ".bmp"),
        save("RGB", ".webp", lossless=True),
        save("RGB", ".tif", compression="tiff_lzw"),
        save("L", ".tif"),
        save("RGB", ".ppm"),
        save("RGB", ".jp2"),
    ],
)
def test_every_kind_of_picture_is_rgb(make: Callable[[Path], Path], tmp_path: Path) -> None:
    with open_source(make(tmp_path)) as source:
        frame = next(source.frames())
    assert frame.rgb.shape == (media.HEIGHT, media.WIDTH, 3)
    assert frame.rgb.max() > 0


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation: int, tmp_path: Path) -> None:
    stored = Image.fromarray(media.picture(0))
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "phone.png", exif=exif)
    turn = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}.get(orientation)
    expected = stored if turn is None else stored.transpose(Image.Transpose(turn))
    with open_source(tmp_path / "phone.png") as source:
        np.testing.assert_array_equal(next(source.frames()).rgb, np.asarray(expected))
        assert (source.info.width, source.info.height) == expected.size


def test_exr_layers_parts_and_windows(tmp_path: Path) -> None:
    import OpenEXR

    plane = np.linspace(0, 4, 20 * 30, dtype=np.float32).reshape(20, 30)
    windows = {
        "dataWindow": (np.array([5, -2], np.int32), np.array([34, 17], np.int32)),
        "displayWindow": (np.array([0, 0], np.int32), np.array([39, 24], np.int32)),
        "pixelAspectRatio": 2.0,
        "framesPerSecond": Fraction(24000, 1001),
    }
    channels = {
        "R": plane,
        "G": plane * 2,
        "B": plane * 3,
        "diffuse.R": plane + 1,
        "diffuse.G": plane,
        "diffuse.B": plane,
        "depth.Z": plane,
    }
    path = media.write_exr(tmp_path / "layers.exr", channels, **windows)
    with open_source(path) as source:
        info, rgb = source.info, next(source.frames()).rgb
    assert (info.width, info.height, info.depth) == (40, 25, 32)
    assert (info.pixel_aspect, info.rate, info.colour.transfer) == (2, Fraction(24000, 1001), "linear")
    expected = np.zeros((25, 40), np.float32)
    expected[0:18, 5:35] = plane[2:]
    np.testing.assert_array_equal(rgb, np.stack([expected, expected * 2, expected * 3], -1))
    with open_source(path, layer="diffuse") as source:
        assert next(source.frames()).rgb[0, 5, 0] == plane[2, 0] + 1
    with open_source(path, layer="depth") as source:
        np.testing.assert_array_equal(next(source.frames()).rgb[..., 1], expected)
    with pytest.raises(InputError, match=r"no layer 'beauty': its channels are B, G, R, depth\.Z"):
        open_source(path, layer="beauty")
    header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
    parts = [
        OpenEXR.Part(dict(header), {"Z": plane}, "depth"),
        OpenEXR.Part(dict(header), {"R": plane, "G": plane, "B": plane}, "beauty"),
    ]
    OpenEXR.File(parts).write(str(tmp_path / "parts.exr"))
    for layer in (None, "beauty"):
        with open_source(tmp_path / "parts.exr", layer=layer) as source:
            np.testing.assert_array_equal(next(source.frames()).rgb[..., 2], plane)


def test_damaged_exr_is_refused(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).random((64, 64)).astype(np.float32)
    whole = media.write_exr(tmp_path / "a.exr", dict.fromkeys("RGB", noise))
    data = whole.read_bytes()
    for name, damaged in {"cut": data[: len(data) // 2], "rot": data[:9000] + bytes(3000) + data[12000:]}.items():
        (tmp_path / f"{name}.exr").write_bytes(damaged)
        with pytest.raises(InputError, match=r"cut short|cannot be read as OpenEXR"):
            open_source(tmp_path / f"{name}.exr")


def test_float_tiff_is_scene_linear(tmp_path: Path) -> None:
    oiio = pytest.importorskip("OpenImageIO")
    rgb = (np.random.default_rng(0).random((20, 30, 3)) * 3).astype(np.float32)
    output = oiio.ImageOutput.create(str(tmp_path / "a.tif"))
    output.open(str(tmp_path / "a.tif"), oiio.ImageSpec(30, 20, 3, "float"))
    output.write_image(rgb)
    output.close()
    with open_source(tmp_path / "a.tif") as source:
        np.testing.assert_array_equal(next(source.frames()).rgb, rgb)
        assert source.info.colour.transfer == "linear"


def test_a_layer_of_a_picture_without_layers_is_refused(plates: Path) -> None:
    with pytest.raises(InputError, match="only OpenEXR has"):
        open_source(plates, layer="diffuse")
