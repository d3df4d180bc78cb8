"""What every reader promises, on clips made in code. Each row of `CLIPS` is one backend or one kind of file."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests import media
from x2roto.clip import FrameRange
from x2roto.source import FrameSource, open_source


def movie(name: str, **options: object) -> Callable[[Path], FrameSource]:
    return lambda folder: open_source(media.write_movie(folder / name, media.pictures(), **options))  # type: ignore[arg-type]


def pictures(pattern: str, deep: bool = False) -> Callable[[Path], FrameSource]:
    def make(folder: Path) -> FrameSource:
        frames = [media.deep_picture(i) for i in range(media.COUNT)] if deep else media.pictures()
        return open_source(media.write_pictures(folder / pattern, frames))

    return make


def webp(folder: Path) -> FrameSource:
    first, *rest = [Image.fromarray(rgb) for rgb in media.pictures()]
    first.save(folder / "a.webp", save_all=True, append_images=rest, duration=40, lossless=True)
    return open_source(folder / "a.webp")


def piped(folder: Path) -> FrameSource:
    data = media.write_y4m(folder / "a.y4m", media.pictures()).read_bytes()
    return open_source("-", pipe=io.BytesIO(data))


LONG_GOP = {"g": "250", "bf": "3", "crf": "1"}
OPEN_GOP = {"x264-params": "keyint=6:min-keyint=6:open-gop=1:bframes=2:scenecut=0", "crf": "1"}


@dataclass(frozen=True)
class Clip:
    open: Callable[[Path], FrameSource]
    tolerance: float = 0.0  # mean difference to the pictures written, in 8-bit steps
    first_frame: int = 1001
    rate: Fraction = Fraction(24)
    dtype: str = "uint8"
    depth: int = 8
    count_known: bool = True
    reads_once: bool = False


CLIPS = {
    "h264-mp4": Clip(movie("a.mp4", options={"crf": "1"}), 3),
    "h264-long-gop-mkv": Clip(movie("a.mkv", options=LONG_GOP), 3),
    "h264-open-gop-mp4": Clip(movie("a.mp4", options=OPEN_GOP), 3),
    "h264-open-gop-ts": Clip(movie("a.ts", options=OPEN_GOP), 3),
    "mpeg4-avi": Clip(movie("a.avi", codec="mpeg4", options={"qscale": "1", "b": "9000000"}), 6, count_known=False),
    "vp8-webm": Clip(
        movie("a.webm", codec="libvpx", options={"crf": "4", "b": "9000000", "auto-alt-ref": "1"}),
        6,
        count_known=False,
    ),
    "prores-mov": Clip(movie("a.mov", codec="prores_ks", pix_fmt="yuv422p10le"), 3, dtype="uint16", depth=10),
    "ffv1-mkv": Clip(movie("a.mkv", codec="ffv1", pix_fmt="bgr0"), 0),
    "h264-23976": Clip(movie("a.mp4", rate=Fraction(24000, 1001)), 4, rate=Fraction(24000, 1001)),
    "y4m-file": Clip(lambda folder: open_source(media.write_y4m(folder / "a.y4m", media.pictures())), 1),
    "y4m-pipe": Clip(piped, 1, count_known=False, reads_once=True),
    "png": Clip(pictures("a.%04d.png")),
    "png16": Clip(pictures("a.%04d.png", deep=True), 0.4, dtype="uint16", depth=16),
    "tiff16": Clip(pictures("a.%04d.tif", deep=True), 0.4, dtype="uint16", depth=16),
    "jpeg": Clip(pictures("a.%04d.jpg"), 3),
    "dpx": Clip(pictures("a.%04d.dpx"), 0.4, dtype="uint16", depth=10),
    "exr": Clip(pictures("a.%04d.exr"), 0.1, dtype="float32", depth=16),
    "webp": Clip(webp, rate=Fraction(25)),
}

rows = pytest.mark.parametrize("clip", CLIPS.values(), ids=CLIPS.keys())
rereadable = pytest.mark.parametrize(
    "clip", [c for c in CLIPS.values() if not c.reads_once], ids=[k for k, c in CLIPS.items() if not c.reads_once]
)


def as_8_bit(rgb: np.ndarray) -> np.ndarray:
    scale = {"uint8": 1.0, "uint16": 1 / 257, "float32": 255.0}[str(rgb.dtype)]
    return rgb.astype(np.float64) * scale


@rows
def test_gives_every_frame_in_order(clip: Clip, tmp_path: Path) -> None:
    with clip.open(tmp_path) as source:
        frames = list(source.frames())
    assert [frame.index for frame in frames] == list(range(media.COUNT))
    for frame in frames:
        assert frame.rgb.shape == (media.HEIGHT, media.WIDTH, 3)
        assert str(frame.rgb.dtype) == clip.dtype
        assert frame.rgb.flags.c_contiguous
        assert not frame.held
        off = np.abs(as_8_bit(frame.rgb) - media.picture(frame.index)).mean()
        assert off <= clip.tolerance, f"frame {frame.index} is off by {off:.2f}"


@rows
def test_states_the_facts_before_the_first_frame(clip: Clip, tmp_path: Path) -> None:
    with clip.open(tmp_path) as source:
        info = source.info
    assert (info.width, info.height) == (media.WIDTH, media.HEIGHT)
    assert info.rate == clip.rate
    assert info.first_frame == clip.first_frame
    assert info.number(3) == clip.first_frame + 3
    assert info.depth == clip.depth
    assert info.pixel_aspect == 1
    assert info.frame_count == (media.COUNT if clip.count_known else None)


@rereadable
@pytest.mark.parametrize(
    ("ranges", "indices"),
    [
        ((FrameRange(0, 1),), [0]),
        ((FrameRange(7, 12),), [7, 8, 9, 10, 11]),
        ((FrameRange(3, 20, 5),), [3, 8, 13, 18]),
        ((FrameRange(15, 17), FrameRange(2, 4), FrameRange(3, 5)), [2, 3, 4, 15, 16]),
        ((FrameRange(20),), [20, 21, 22, 23]),
        ((FrameRange(22, 90),), [22, 23]),
        ((FrameRange(40, 50),), []),
    ],
    ids=str,
)
def test_a_range_gives_the_same_frames_as_the_whole(
    clip: Clip, ranges: tuple[FrameRange, ...], indices: list[int], tmp_path: Path
) -> None:
    with clip.open(tmp_path) as source:
        whole = list(source.frames())
        part = list(source.frames(ranges))
    assert [frame.index for frame in part] == indices
    for frame in part:
        np.testing.assert_array_equal(frame.rgb, whole[frame.index].rgb)
        assert frame.pts == whole[frame.index].pts


@rereadable
@pytest.mark.parametrize(
    ("count", "span"), [(1, FrameRange()), (5, FrameRange()), (4, FrameRange(6, 21)), (99, FrameRange(9, 14))]
)
def test_a_sample_is_spread_over_the_range(clip: Clip, count: int, span: FrameRange, tmp_path: Path) -> None:
    with clip.open(tmp_path) as source:
        sample = source.sample(count, (span,))
        whole = list(source.frames())
    inside = [index for index in range(media.COUNT) if index in span]
    expected = np.linspace(0, len(inside) - 1, min(count, len(inside))).astype(int)
    assert [frame.index for frame in sample] == [inside[position] for position in expected]
    for frame in sample:
        np.testing.assert_array_equal(frame.rgb, whole[frame.index].rgb)


@rereadable
def test_leaving_the_frames_early_leaves_the_source_usable(clip: Clip, tmp_path: Path) -> None:
    with clip.open(tmp_path) as source:
        first = next(iter(source.frames()))
        again = next(iter(source.frames()))
    np.testing.assert_array_equal(first.rgb, again.rgb)


@pytest.mark.parametrize("name", ["h264-mp4", "h264-long-gop-mkv", "h264-open-gop-mp4", "ffv1-mkv", "prores-mov"])
def test_seeking_is_used_where_it_is_exact(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with CLIPS[name].open(tmp_path) as source:
        from x2roto.source.video import VideoSource

        assert isinstance(source, VideoSource)
        decoded: list[int] = []
        whole = VideoSource._decoded
        monkeypatch.setattr(VideoSource, "_decoded", lambda self, start: decoded.append(start) or whole(self, start))
        key = source._probe.line.key_before(20)
        assert [frame.index for frame in source.frames((FrameRange(20, 22),))] == [20, 21]
    assert decoded == ([20] if not key else [])
