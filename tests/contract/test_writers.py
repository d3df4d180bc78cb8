"""One suite for every row of `EXPORTERS`: what was written, an independent reader reads back."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import OpenImageIO as oiio  # noqa: N813
import pytest

from x2roto.clip import ClipInfo, Frame
from x2roto.errors import OutputError
from x2roto.export import EXPORTERS, Take, Template, make_options, open_writer
from x2roto.matte import Matte, MatteFrame, Track

WIDTH, HEIGHT, COUNT, FIRST = 97, 54, 30, 1001
RATE = Fraction(24000, 1001)
MAN, BALL = Track(1, "the right man", "the right man"), Track(2, "Ball", "a ball")
NAMES = {1: "the_right_man", 2: "ball"}
PIPES = ("y4m", "raw")
GATHERED = ("prores", "webm", "ffv1", "overlay", "composite", "contact", "coco")


def shot(count: int = COUNT) -> Iterator[MatteFrame]:
    """A white plate with two soft discs that move and never overlap; the ball comes in late, frame 7 is empty."""
    for index in range(count):
        mattes = [Matte(MAN, disc(25 + index / 2, 30, 14), 0.9)]
        if index > 3:
            mattes.append(Matte(BALL, disc(80 - index / 3, 20, 8), 0.75))
        plate = np.full((HEIGHT, WIDTH, 3), 255, np.uint8)
        yield MatteFrame(Frame(index, None, plate), FIRST + index, () if index == 7 else tuple(mattes))


def disc(x: float, y: float, radius: float) -> np.ndarray:
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH] + 0.5
    distance = np.hypot(columns - x, rows - y)
    return np.clip((radius - distance) / 3 + 0.5, 0, 1).astype(np.float32)


def the_take(count: int = COUNT, **changes: object) -> Take:
    clip = ClipInfo(WIDTH, HEIGHT, RATE, count, FIRST, timecode="01:00:00:00")
    take = Take("ab010", clip, (MAN, BALL), range(FIRST, FIRST + count), metadata={"version": "0"})
    return replace(take, **changes)


def write(name: str, folder: Path, frames: Iterator[MatteFrame], take: Take) -> None:
    with open_writer(name, Template(folder), take) as writer:
        for result in frames:
            writer.write(result)


def stray(folder: Path) -> list[Path]:
    """Temporary files and work folders."""
    return [path for path in folder.rglob("*") if path.name.startswith(".") or ".tmp." in path.name]


# ---- independent readers: alpha by frame number and object name -----------------------------------------------

Alphas = dict[tuple[int, str], np.ndarray]


def picture(path: Path, kind: str = "float") -> np.ndarray:
    config = oiio.ImageSpec()
    config.attribute("oiio:UnassociatedAlpha", 1)
    source = oiio.ImageInput.open(str(path), config)
    assert source is not None, oiio.geterror()
    pixels = np.asarray(source.read_image(kind))
    assert pixels.shape[:2] == (HEIGHT, WIDTH)
    source.close()
    return pixels


def images(folder: Path, ext: str) -> Alphas:
    found = {}
    for path in folder.iterdir():
        match = re.fullmatch(rf"ab010_(\w+)\.(\d{{4}})\.{ext}", path.name)
        assert match, path.name
        found[int(match[2]), match[1]] = picture(path)[..., 0]
    return found


def cryptomattes(folder: Path) -> Alphas:
    found = {}
    for path in folder.iterdir():
        number = int(path.name.split(".")[1])
        source = oiio.ImageInput.open(str(path))
        spec = source.spec()
        key = next(a.name for a in spec.extra_attribs if a.name.endswith("/manifest"))
        pixels = picture(path)
        channels = {name: pixels[..., index] for index, name in enumerate(spec.channelnames)}
        assert sum(name.startswith("CryptoObject0") for name in channels) == 12
        for name, digits in json.loads(spec.getattribute(key)).items():
            wanted = np.array(int(digits, 16), np.uint32).view(np.float32)
            pairs = [(f"CryptoObject0{i}.{a}", f"CryptoObject0{i}.{b}") for i in range(3) for a, b in ("RG", "BA")]
            found[number, name] = sum((channels[i] == wanted) * channels[c] for i, c in pairs)
        source.close()
    return found


def movie(path: Path, decoder: str | None = None) -> list[av.VideoFrame]:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert abs(stream.average_rate - RATE) < Fraction(1, 10000)
        if decoder is None:
            return list(container.decode(stream))
        context = av.CodecContext.create(decoder, "r")
        return [frame for packet in container.demux(stream) if packet.size for frame in context.decode(packet)]


def plane(frame: av.VideoFrame, index: int) -> np.ndarray:
    source = frame.planes[index]
    bits = frame.format.components[index].bits
    lines = np.frombuffer(memoryview(source), np.uint8 if bits == 8 else "<u2").reshape(source.height, -1)
    return lines[:, : source.width] / np.float32(2**bits - 1)


def object_movies(folder: Path, ext: str, component: int, decoder: str | None = None) -> Alphas:
    return {
        (FIRST + index, name): plane(frame, component)
        for name in NAMES.values()
        for index, frame in enumerate(movie(folder / f"ab010_{name}.{ext}", decoder))
    }


def composites(folder: Path) -> Alphas:
    """White over black: the luma is the alpha."""
    frames = movie(folder / "ab010_composite.mov")
    lumas = [(plane(frame, 0)[:HEIGHT, :WIDTH] * 255 - 16) / 219 for frame in frames]
    return {(FIRST + index, "union"): luma for index, luma in enumerate(lumas)}


def overlays(folder: Path) -> Alphas:
    """Under 40 percent of a colour the white plate is darker in red; text and outline are left out by the caller."""
    frames = movie(folder / "ab010_overlay.mp4")
    reds = [frame.to_ndarray(format="rgb24")[:HEIGHT, :WIDTH, 0] / 255 for frame in frames]
    return {(FIRST + index, "tint"): 1 - red for index, red in enumerate(reds)}


def labels(folder: Path) -> Alphas:
    """DAVIS colours: object 1 dark red, object 2 dark green."""
    found = {}
    for path in folder.iterdir():
        pixels, number = picture(path, "uint8"), int(path.name.split(".")[1])
        for index, name in NAMES.items():
            found[number, name] = (pixels[..., index - 1] == 128).astype(np.float32)
    return found


def run_lengths(text: str) -> list[int]:
    """COCO's text, read as its documentation says: five bits and a continuation bit a letter."""
    values: list[int] = []
    place = value = 0
    for letter in text.encode():
        bits = letter - 48
        value |= (bits & 31) << place
        place += 5
        if not bits & 32:
            value -= (1 << place) if bits & 16 else 0
            values.append(value + (values[-2] if len(values) > 2 else 0))
            place = value = 0
    return values


def annotations(folder: Path) -> Alphas:
    document = json.loads((folder / "ab010_coco.json").read_text())
    names = {category["id"]: category["name"] for category in document["categories"]}
    assert names == {1: "the right man", 2: "Ball"}
    found = {
        (image["id"], name): np.zeros((HEIGHT, WIDTH)) for image in document["images"] for name in NAMES.values()
    }
    for entry in document["annotations"]:
        lengths = run_lengths(entry["segmentation"]["counts"])
        flat = np.repeat(np.arange(len(lengths)) % 2, lengths)
        mask = flat.reshape(WIDTH, HEIGHT).T
        assert entry["area"] == mask.sum()
        found[entry["image_id"], NAMES[entry["category_id"]]] = mask
    return found


@dataclass(frozen=True)
class Case:
    """How a format is read back: the files it makes, the reader, and how far alpha may be off."""

    files: int
    read: Callable[[Path], Alphas] | None
    tolerance: float = 0.0


CASES = {
    "png": Case(2 * COUNT, lambda folder: images(folder, "png"), 0.51 / 65535),
    "tiff": Case(2 * COUNT, lambda folder: images(folder, "tif"), 0.51 / 65535),
    "exr": Case(2 * COUNT, lambda folder: images(folder, "exr"), 2**-11),
    "cryptomatte": Case(COUNT, cryptomattes, 1e-6),
    "prores": Case(2, lambda folder: object_movies(folder, "mov", 3), 128 / 65535),
    "webm": Case(2, lambda folder: object_movies(folder, "webm", 3, "libvpx-vp9"), 0.08),
    "ffv1": Case(2, lambda folder: object_movies(folder, "mkv", 0), 0.51 / 65535),
    "composite": Case(1, composites, 0.1),
    "overlay": Case(1, overlays),
    "contact": Case(1, None),
    "davis": Case(COUNT, labels),
    "coco": Case(1, annotations),
    "y4m": Case(0, None),
    "raw": Case(0, None),
}


@pytest.fixture(params=list(EXPORTERS))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_every_format_has_a_case() -> None:
    assert set(CASES) == set(EXPORTERS)


def test_reads_back(name: str, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    write(name, tmp_path, shot(), the_take())
    case = CASES[name]
    assert len(list(tmp_path.iterdir())) == case.files
    assert not stray(tmp_path)
    if case.read is None:
        return
    found = case.read(tmp_path)
    assert len({number for number, _ in found}) == COUNT
    for result in shot():
        for (number, item), alpha in found.items():
            if number == result.number:
                _compare(name, item, alpha, result, case.tolerance)


def _compare(name: str, item: str, alpha: np.ndarray, result: MatteFrame, tolerance: float) -> None:
    expected = result.union()
    if item in NAMES.values():
        expected = result.alpha(next(t for t in (MAN, BALL) if NAMES[t.id] == item))
    if name in ("davis", "coco"):
        assert np.array_equal(alpha > 0, expected >= 0.5)
    elif name == "overlay":
        if result.mattes:
            assert alpha[result.alpha(MAN) == 1].mean() > 0.25
        else:
            assert alpha[:28].max() < 0.08
    else:
        assert np.abs(alpha - expected).max() <= tolerance


def test_pipes_carry_every_frame(capfdbinary: pytest.CaptureFixture[bytes], tmp_path: Path) -> None:
    write("y4m", tmp_path, shot(), the_take())
    with av.open(io.BytesIO(capfdbinary.readouterr().out), format="yuv4mpegpipe") as container:
        assert container.streams.video[0].average_rate == RATE
        decoded = [plane(frame, 0) for frame in container.decode(video=0)]
    write("raw", tmp_path, shot(), the_take())
    raw = np.frombuffer(capfdbinary.readouterr().out, np.uint8).reshape(COUNT, HEIGHT, WIDTH) / 255
    for result, first, second in zip(shot(), decoded, raw, strict=True):
        assert np.abs(first - result.union()).max() <= 0.51 / 255
        assert np.abs(second - result.union()).max() <= 0.51 / 255
    assert not list(tmp_path.iterdir())


def test_an_error_leaves_nothing_unfinished(name: str, tmp_path: Path) -> None:
    def failing() -> Iterator[MatteFrame]:
        yield from shot(27)
        raise ValueError("the network stopped")

    with pytest.raises(ValueError, match="the network stopped"):
        write(name, tmp_path, failing(), the_take())
    assert not stray(tmp_path)
    if name in GATHERED:
        assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", [name for name in EXPORTERS if name not in PIPES])
def test_a_full_disk_is_one_clear_line(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="the disk is full") as caught:
        write(name, tmp_path, shot(), the_take())
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", [name for name in EXPORTERS if name not in PIPES])
def test_a_file_in_the_way_is_one_clear_line(name: str, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("not a folder")
    with pytest.raises(OutputError, match="choose another folder"):
        write(name, tmp_path / "out" / "deeper", shot(2), the_take(2))


@pytest.mark.parametrize("name", GATHERED)
def test_a_stopped_run_is_resumed_to_the_same_bytes(name: str, tmp_path: Path) -> None:
    def stopped() -> Iterator[MatteFrame]:
        yield from shot(27)
        raise KeyboardInterrupt

    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    write(name, whole, shot(), the_take())
    with pytest.raises(KeyboardInterrupt):
        write(name, resumed, stopped(), the_take())
    assert stray(resumed)
    with open_writer(name, Template(resumed), the_take(resume=True)) as writer:
        todo = [result for result in shot() if not writer.finished(result.number)]
        assert 0 < len(todo) < COUNT
        for result in todo:
            writer.write(result)
    assert not stray(resumed)
    assert digest(resumed) == digest(whole)


def test_a_killed_run_is_resumed_to_the_same_bytes(tmp_path: Path) -> None:
    names = ("png", "exr", "prores", "ffv1", "overlay")
    script = textwrap.dedent(f"""
        import os, signal
        from contextlib import ExitStack
        from pathlib import Path
        from tests.contract.test_writers import Template, open_writer, shot, the_take
        folder = Path({str(tmp_path / "killed")!r})
        with ExitStack() as stack:
            writers = [
                stack.enter_context(open_writer(name, Template(folder / name), the_take()))
                for name in {names!r}
            ]
            for result in shot():
                for writer in writers:
                    writer.write(result)
            os.kill(os.getpid(), signal.SIGKILL)
    """)
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", script], cwd=root, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    for name in names:
        with open_writer(name, Template(tmp_path / "killed" / name), the_take(resume=True)) as writer:
            for result in shot():
                if not writer.finished(result.number):
                    writer.write(result)
        write(name, tmp_path / "whole" / name, shot(), the_take())
    assert not stray(tmp_path)
    assert digest(tmp_path / "killed") == digest(tmp_path / "whole")


def digest(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# ---- what single formats promise beyond alpha ------------------------------------------------------------------


def write_with(name: str, folder: Path, take: Take, frames: Iterator[MatteFrame], **options: object) -> None:
    with open_writer(name, Template(folder), take, make_options(name, options)) as writer:
        for result in frames:
            writer.write(result)


def test_exr_headers(tmp_path: Path) -> None:
    clip = replace(the_take().clip, pixel_aspect=Fraction(2))
    write("exr", tmp_path, shot(2), the_take(2, clip=clip))
    source = oiio.ImageInput.open(str(tmp_path / "ab010_the_right_man.1002.exr"))
    spec = source.spec()
    assert spec.channelnames == ("R", "G", "B", "A")
    assert {str(spec.channelformat(index)) for index in range(4)} == {"half"}
    assert spec.getattribute("compression") == "zip"
    assert spec.getattribute("PixelAspectRatio") == 2
    assert spec.getattribute("FramesPerSecond") == (24000, 1001)
    assert spec.get_string_attribute("smpte:TimeCode") == "01:00:00:01"
    assert spec.getattribute("x2roto/prompt") == "the right man"
    assert spec.getattribute("x2roto/version") == "0"
    assert (spec.full_width, spec.full_height) == (WIDTH, HEIGHT)


def test_exr_crop_keeps_the_display_window(tmp_path: Path) -> None:
    write_with("exr", tmp_path, the_take(8), shot(8), crop=True)
    spec = oiio.ImageInput.open(str(tmp_path / "ab010_the_right_man.1001.exr")).spec()
    assert (spec.full_width, spec.full_height) == (WIDTH, HEIGHT)
    assert spec.width < 40
    assert spec.x > 0
    empty = oiio.ImageInput.open(str(tmp_path / "ab010_the_right_man.1008.exr")).spec()
    assert (empty.width, empty.height) == (1, 1)


def test_exr_layers_are_the_same_on_every_frame(tmp_path: Path) -> None:
    write_with("exr", tmp_path, the_take(9), shot(9), layout="single", content="rgba")
    specs = [oiio.ImageInput.open(str(path)).spec() for path in sorted(tmp_path.iterdir())]
    assert len(specs) == 9
    assert {frozenset(spec.channelnames) for spec in specs} == {
        frozenset(("R", "G", "B", "A", "the_right_man.A", "ball.A"))
    }


def test_exr_multipart_names_its_parts(tmp_path: Path) -> None:
    write_with("exr", tmp_path, the_take(2), shot(2), layout="multipart", channels="y")
    source = oiio.ImageInput.open(str(tmp_path / "ab010_mattes.1001.exr"))
    assert source.spec().getattribute("oiio:subimagename") == "the_right_man"
    assert source.seek_subimage(1, 0)
    assert source.spec().getattribute("oiio:subimagename") == "ball"


def test_exr_premultiplied_over_alpha_is_straight(tmp_path: Path) -> None:
    def grey() -> Iterator[MatteFrame]:
        for result in shot(1):
            plate = np.full((HEIGHT, WIDTH, 3), 128, np.uint8)
            yield replace(result, frame=replace(result.frame, rgb=plate))

    write_with("exr", tmp_path / "p", the_take(1), grey(), content="rgba", pixel="float")
    write_with("exr", tmp_path / "s", the_take(1), grey(), content="rgba", pixel="float", alpha="straight")
    premultiplied = picture(tmp_path / "p" / "ab010_the_right_man.1001.exr")
    straight = picture(tmp_path / "s" / "ab010_the_right_man.1001.exr")
    alpha = premultiplied[..., 3:]
    covered = alpha[..., 0] > 1e-3
    assert np.allclose(premultiplied[covered, :3] / alpha[covered], straight[covered, :3], rtol=1e-5)
    # Code 128 through the inverse BT.709 camera curve.
    assert np.allclose(straight[covered, :3], ((128 / 255 + 0.099) / 1.099) ** (1 / 0.45), atol=2e-3)


def test_png_rgba_is_straight_and_exact(tmp_path: Path) -> None:
    write_with("png", tmp_path, the_take(1), shot(1), content="rgba")
    pixels = picture(tmp_path / "ab010_the_right_man.1001.png", "uint16")
    alpha = next(shot(1)).alpha(MAN)
    assert np.array_equal(pixels[..., 3], np.floor(alpha * 65535 + 0.5))
    assert np.all(pixels[alpha > 0][:, :3] > 65000)


def test_png_matte_has_no_colour_chunks(tmp_path: Path) -> None:
    write("png", tmp_path, shot(1), the_take(1))
    data = (tmp_path / "ab010_ball.1001.png").read_bytes()
    assert not any(chunk in data for chunk in (b"gAMA", b"sRGB", b"cHRM", b"iCCP", b"cICP"))


def test_prores_tags_and_timecode(tmp_path: Path) -> None:
    write("prores", tmp_path, shot(3), the_take(3, numbers=range(FIRST + 10, FIRST + 13)))
    with av.open(str(tmp_path / "ab010_ball.mov")) as container:
        stream = container.streams.video[0]
        context = stream.codec_context
        assert context.codec_tag == "ap4h"
        assert (context.color_primaries, context.color_trc, context.colorspace) == (6, 6, 6)
        assert context.color_range == 1
        assert stream.metadata["timecode"] == "01:00:00:10"
        assert [other.type for other in container.streams] == ["video", "data"]


def test_ffv1_mattes_are_full_range_data(tmp_path: Path) -> None:
    write("ffv1", tmp_path, shot(1), the_take(1))
    frame = movie(tmp_path / "ab010_the_right_man.mkv")[0]
    assert (frame.color_range, frame.colorspace) == (2, 2)
    # A converter that believed in limited range would stretch the greys.
    shown = frame.reformat(format="rgb24").to_ndarray()[..., 0] / 255
    assert np.abs(shown - next(shot(1)).alpha(MAN)).max() <= 2 / 255


@pytest.mark.parametrize("background", ["#336699", "blur:4", "picture", "clip"])
def test_composite_backgrounds(background: str, tmp_path: Path) -> None:
    if background == "picture":
        background = str(tmp_path / "bg.png")
        oiio.ImageBuf(np.full((20, 20, 3), 0.5, np.float32)).write(background)
    if background == "clip":
        write("overlay", tmp_path, shot(5), the_take(5))
        background = str(tmp_path / "ab010_overlay.mp4")
    write_with("composite", tmp_path / "out", the_take(12), shot(12), background=background)
    assert len(movie(tmp_path / "out" / "ab010_composite.mov")) == 12
    assert not stray(tmp_path)


def test_composite_filter_graph(tmp_path: Path) -> None:
    graph = "[plate]negate[back];[back][fg]overlay=format=gbrp[out]"
    write_with("composite", tmp_path, the_take(4), shot(4), filter=graph)
    frames = movie(tmp_path / "ab010_composite.mov")
    assert len(frames) == 4
    # A negated white plate is black, so the discs stand out white.
    luma = plane(frames[0], 0)[:HEIGHT, :WIDTH]
    assert luma[0, 0] < 0.1
    assert luma[30, 25] > 0.85


def test_composite_carries_sound(tmp_path: Path) -> None:
    source = tmp_path / "sound.wav"
    with av.open(str(source), "w") as out:
        stream = out.add_stream("pcm_s16le", rate=48000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.full((1, 96000), 9000, np.int16), format="s16", layout="mono")
        frame.sample_rate = 48000
        out.mux(stream.encode(frame))
    take = the_take(12, source=source, clip=replace(the_take().clip, has_audio=True))
    write("composite", tmp_path / "out", shot(12), take)
    with av.open(str(tmp_path / "out" / "ab010_composite.mov")) as container:
        assert [stream.type for stream in container.streams] == ["video", "audio", "data"]


def test_composite_tells_ffmpegs_reason(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"ffmpeg says: .*nosuch"):
        write_with("composite", tmp_path, the_take(2), shot(2), codec="nosuch")
    assert not list(tmp_path.iterdir())


def test_contact_sheet_is_a_picture_of_the_grid(tmp_path: Path) -> None:
    write_with("contact", tmp_path, the_take(), shot(), columns=3, rows=2, width=100)
    spec = oiio.ImageInput.open(str(tmp_path / "ab010_contact.png")).spec()
    assert 300 < spec.width < 450
    assert 112 < spec.height < 350
