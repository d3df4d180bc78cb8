"""Movies that are turned, cut, damaged, joined, offset in time or not movies at all."""

from __future__ import annotations

import os
import subprocess
import sys
from fractions import Fraction
from itertools import product
from pathlib import Path

import av
import numpy as np
import pytest

from tests import media
from x2roto.clip import FrameRange
from x2roto.errors import InputError
from x2roto.source import OnBadFrame, open_source
from x2roto.source.container import missing_bytes
from x2roto.source.timeline import rate_of

LOSSLESS = {"qp": "0"}


def lossless(path: Path, count: int = media.COUNT) -> Path:
    return media.write_movie(path, media.pictures(count), codec="libx264rgb", pix_fmt="rgb24", options=LOSSLESS)


QUARTER_TURNS_AND_MIRRORS = [
    *((a, 0, 0, d) for a, d in product((1, -1), repeat=2)),
    *((0, b, c, 0) for b, c in product((1, -1), repeat=2)),
]


@pytest.mark.parametrize("matrix", QUARTER_TURNS_AND_MIRRORS)
def test_display_matrix_is_applied(matrix: tuple[int, int, int, int], tmp_path: Path) -> None:
    path = media.set_display_matrix(lossless(tmp_path / "a.mp4", 2), matrix)
    with open_source(path) as source:
        rgb = next(source.frames()).rgb
        info = source.info
    a, b, c, d = matrix
    stored = media.picture(0)
    for y, x in [(0, 0), (10, 5), (63, 95), (30, 80)]:
        column, row = a * x + c * y, b * x + d * y
        np.testing.assert_array_equal(
            rgb[row if row >= 0 and (b or d) > 0 else row - 1, column if (a or c) > 0 else column - 1], stored[y, x]
        )
    assert (info.height, info.width) == rgb.shape[:2]
    assert ("turned upright as its display matrix says" in info.notes) == (matrix != (1, 0, 0, 1))


def test_pixel_aspect_turns_with_the_picture(tmp_path: Path) -> None:
    path = media.write_movie(tmp_path / "a.mp4", media.pictures(2), pixel_aspect=Fraction(2))
    with open_source(path) as source:
        assert source.info.pixel_aspect == 2
    with open_source(media.set_display_matrix(path, (0, 1, -1, 0))) as source:
        assert source.info.pixel_aspect == Fraction(1, 2)
        assert (source.info.width, source.info.height) == (media.HEIGHT, media.WIDTH)


def test_variable_rate_is_reported_and_times_are_exact(tmp_path: Path) -> None:
    times = [0, 1, 2, 5, 6, 9, 20, 21]
    path = media.write_movie(
        tmp_path / "a.mkv", media.pictures(8), codec="ffv1", pix_fmt="bgr0", pts=times, rate=Fraction(25)
    )
    with open_source(path) as source:
        assert any("variable frame rate" in note for note in source.info.notes)
        assert [frame.pts for frame in source.frames()] == [Fraction(time, 25) for time in times]


def test_facts_of_the_container_are_kept(tmp_path: Path) -> None:
    path = media.write_movie(
        tmp_path / "a.mov", media.pictures(3), codec="prores_ks", pix_fmt="yuv422p10le",
        tags=(9, 16, 9, 1), timecode="01:00:00:00", rate=Fraction(24000, 1001),
    )  # fmt: skip
    with open_source(path, start_frame=7) as source:
        info = source.info
    assert (info.colour.matrix, info.colour.transfer, info.colour.range) == ("bt2020nc", "smpte2084", "tv")
    assert info.timecode == "01:00:00:00"
    assert info.rate == Fraction(24000, 1001)
    assert info.first_frame == 7


def test_rate_can_be_overridden(tmp_path: Path) -> None:
    with open_source(lossless(tmp_path / "a.mp4", 2), rate=Fraction(25)) as source:
        assert source.info.rate == 25


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi"])
@pytest.mark.parametrize("policy", ["error", "hold", "black"])
def test_a_cut_file_is_never_passed_off_as_whole(suffix: str, policy: OnBadFrame, tmp_path: Path) -> None:
    whole = media.write_movie(tmp_path / f"a{suffix}", media.pictures(), codec="mjpeg", pix_fmt="yuvj444p",
                              options={"movflags": "faststart"} if suffix == ".mp4" else {})  # fmt: skip
    if suffix == ".mp4":
        with (
            av.open(str(whole)) as source,
            av.open(str(tmp_path / "fast.mp4"), "w", options={"movflags": "faststart"}) as out,
        ):
            stream = out.add_stream_from_template(source.streams.video[0])
            for packet in source.demux(video=0):
                if packet.size:
                    packet.stream = stream
                    out.mux(packet)
        whole = tmp_path / "fast.mp4"
    assert missing_bytes(whole) == 0
    cut = tmp_path / f"cut{suffix}"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size * 6 // 10])
    assert missing_bytes(cut) > 0
    if policy == "error":
        with pytest.raises(InputError, match="cut short"):
            open_source(cut)
        return
    with open_source(whole) as source:
        expected = list(source.frames())
    with open_source(cut, on_bad_frame=policy) as source:
        frames = list(source.frames())
        assert any("cut short" in note for note in source.info.notes)
    good = [frame for frame in frames if not frame.held]
    assert 5 < len(good) < media.COUNT - 5
    for frame in good:
        np.testing.assert_array_equal(frame.rgb, expected[frame.index].rgb)
    assert set(source.bad_frames) == {frame.index for frame in frames if frame.held}
    if suffix == ".mp4":  # its index tells how many there should be
        assert len(frames) == media.COUNT
        held = good[-1].rgb if policy == "hold" else np.zeros_like(good[-1].rgb)
        np.testing.assert_array_equal(frames[-1].rgb, held)


@pytest.mark.parametrize("policy", ["hold", "black"])
def test_damage_spoils_frames_to_the_next_key_frame_only(policy: OnBadFrame, tmp_path: Path) -> None:
    options = {"x264-params": "keyint=8:min-keyint=8:scenecut=0:bframes=2", "crf": "10"}
    path = media.write_movie(tmp_path / "a.mp4", media.pictures(), options=options)
    with open_source(path) as source:
        whole = list(source.frames())
    with av.open(str(path)) as container:
        entry = container.streams.video[0].index_entries[9]
    data = bytearray(path.read_bytes())
    data[entry.pos + 6 : entry.pos + entry.size] = bytes(entry.size - 6)
    path.write_bytes(data)
    with open_source(path) as source, pytest.raises(InputError, match=r"frame 10\d\d cannot be used"):
        list(source.frames())
    with open_source(path, on_bad_frame=policy) as source:
        frames = list(source.frames())
        again = list(source.frames((FrameRange(10, 20),)))
    assert [frame.index for frame in frames] == list(range(media.COUNT))
    bad = {frame.index for frame in frames if frame.held}
    assert bad
    assert bad <= set(range(8, 16))
    assert set(source.bad_frames) == bad
    for frame in frames:
        if frame.held:
            stand_in = whole[min(bad) - 1].rgb if policy == "hold" else np.zeros_like(frame.rgb)
            np.testing.assert_array_equal(frame.rgb, stand_in)
        else:
            np.testing.assert_array_equal(frame.rgb, whole[frame.index].rgb)
    for frame in again:
        np.testing.assert_array_equal(frame.rgb, frames[frame.index].rgb)


def test_changing_size_is_a_bad_frame(tmp_path: Path) -> None:
    big = media.write_movie(tmp_path / "big.ts", media.pictures(6))
    small = media.write_movie(tmp_path / "small.ts", media.pictures(5, 64, 48))
    joined = tmp_path / "joined.ts"
    joined.write_bytes(big.read_bytes() + small.read_bytes())
    with (
        open_source(joined) as source,
        pytest.raises(InputError, match="frame 1007 cannot be used: its size is 64x48"),
    ):
        list(source.frames())
    with open_source(joined, on_bad_frame="hold") as source:
        frames = list(source.frames())
    assert [frame.held for frame in frames] == [False] * 6 + [True] * 5
    assert {frame.rgb.shape for frame in frames} == {(media.HEIGHT, media.WIDTH, 3)}


def test_cover_pictures_are_not_the_movie(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "a.mkv"), "w") as out:
        stream = out.add_stream("aac", rate=48000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 48000
        out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    with pytest.raises(InputError, match="no video stream"):
        open_source(tmp_path / "a.mkv")


def test_choosing_a_stream_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no video stream 3: it has 0 to 0"):
        open_source(lossless(tmp_path / "a.mp4", 2), stream=3)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.mp4", b"", "empty"),
        ("page.mp4", b"<!DOCTYPE html><html><body>404</body></html>" * 50, "cannot be read|no video"),
        ("README.txt", b"A clip of a man.\n" * 200, "cannot be read"),
        ("noise.mov", bytes(np.random.default_rng(3).integers(0, 256, 50000, np.uint8)), "cannot be read|no video"),
        ("list.m3u8", b"#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXTINF:4,\nhttp://127.0.0.1:9/a.ts\n", "not a movie"),
        ("list.ffconcat", b"ffconcat version 1.0\nfile /etc/hostname\n", "cannot be read"),
        ("A001.R3D", b"anything", "camera RAW"),
        ("photo.heic", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(64), "HEIC"),
    ],
)  # fmt: skip
def test_what_is_no_movie_is_refused_in_one_line(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        open_source(path)
    assert "\n" not in str(caught.value)
    assert caught.value.path == path


def test_pipes_devices_and_missing_files_are_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.mp4")
    for path, message in [
        (tmp_path / "fifo.mp4", "not a file"),
        (Path("/dev/zero"), "not a file"),
        (tmp_path / "none.mp4", "no such file"),
        (tmp_path / "none.mp4" / "below.mp4", "no such file"),
        (tmp_path, "no pictures"),
        (tmp_path / ("n" * 300), "cannot be opened"),
    ]:
        with pytest.raises(InputError, match=message):
            open_source(path)


def test_names_are_never_taken_for_patterns_or_protocols(tmp_path: Path) -> None:
    for name in ("a%03d.mp4", "shot#1.mp4", "concat:x.mp4", "über plan.mp4"):
        with open_source(lossless(tmp_path / name, 3)) as source:
            assert len(list(source.frames())) == 3


def test_nothing_is_printed_about_damage(tmp_path: Path) -> None:
    path = media.write_movie(tmp_path / "a.mp4", media.pictures())
    data = bytearray(path.read_bytes())
    data[len(data) // 3 : len(data) // 2] = bytes(len(data) // 2 - len(data) // 3)
    path.write_bytes(data)
    exr = media.write_picture(tmp_path / "a.exr", media.picture(0))
    data = bytearray(exr.read_bytes())
    data[len(data) // 2 :] = bytes(len(data) - len(data) // 2)
    exr.write_bytes(data)
    code = (
        "import sys\nfrom x2roto.source import open_source\nfrom x2roto.errors import InputError\n"
        "for name in sys.argv[1:]:\n    try:\n        with open_source(name) as s: list(s.frames())\n"
        "    except InputError: continue\n    sys.exit('was read')"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path), str(exr)], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize(
    "rate", [Fraction(24000, 1001), Fraction(25), Fraction(30000, 1001), Fraction(60), Fraction(12)]
)
@pytest.mark.parametrize("tick", [Fraction(1, 1000), Fraction(1, 90000), Fraction(1, 12800)])
def test_rate_is_found_through_rounded_times(rate: Fraction, tick: Fraction) -> None:
    times = [round(index / rate / tick) * tick for index in range(400)]
    found = rate_of(times, tick, Fraction(1000))
    assert (found.rate, found.constant) == (rate, True)


def test_rate_of_uneven_times_is_the_stated_mean() -> None:
    times = [Fraction(time, 30) for time in (0, 1, 2, 3, 6, 9, 12)]
    found = rate_of(times, Fraction(1, 90000), Fraction(35, 2))
    assert (found.rate, found.constant) == (Fraction(35, 2), False)
