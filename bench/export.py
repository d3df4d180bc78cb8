"""Speed of every exporter at 1080p beside the best public way to write the same file, in the same run.

    python bench/export.py [--frames 48] [--only png,exr]

Both sides get the same float32 mattes and 8-bit plates, and quantise, encode, sync and rename for themselves; the
public side is a plain loop on the library named in the last column (with its own threads where it has any).
MB/s counts source pixels (what the format has to look at), not the compressed file.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import OpenImageIO as oiio  # noqa: N813
from PIL import Image
from pycocotools import mask as rle

from x2roto.clip import ClipInfo, Frame
from x2roto.export import EXPORTERS, Take, Template, load_exporter, make_options, open_writer
from x2roto.export.colour import movie_tags
from x2roto.matte import Matte, MatteFrame, Track

WIDTH, HEIGHT, FIRST = 1920, 1080, 1001
RATE = Fraction(24)
TRACK = Track(1, "figure", "figure")


def footage(count: int) -> list[MatteFrame]:
    """A grainy gradient with a soft disc that moves."""
    generator = np.random.default_rng(0)
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.float32)
    base = np.stack([columns / 8, rows / 5, (columns + rows) / 12], -1)
    frames = []
    for index in range(count):
        plate = np.clip(base + generator.normal(0, 3, base.shape), 0, 255).astype(np.uint8)
        distance = np.hypot(columns - 700 - 8 * index, rows - 540)
        alpha = np.clip((350 - distance) / 12 + 0.5, 0, 1).astype(np.float32)
        frames.append(MatteFrame(Frame(index, None, plate), FIRST + index, (Matte(TRACK, alpha),)))
    return frames


def taken(count: int) -> Take:
    clip = ClipInfo(WIDTH, HEIGHT, RATE, count, FIRST)
    return Take("bench", clip, (TRACK,), range(FIRST, FIRST + count))


def ours(name: str, options: dict[str, Any]) -> Callable[[list[MatteFrame], Path], None]:
    def run(frames: list[MatteFrame], folder: Path) -> None:
        with open_writer(name, Template(folder), taken(len(frames)), make_options(name, options)) as writer:
            for result in frames:
                writer.write(result)

    return run


def atomic(save: Callable[[MatteFrame, str], None], ext: str) -> Callable[[list[MatteFrame], Path], None]:
    """A loop of the public library with the same promise as ours: synced, then renamed."""

    def run(frames: list[MatteFrame], folder: Path) -> None:
        for result in frames:
            temporary, final = folder / f"t.{ext}", folder / f"f.{result.number}.{ext}"
            save(result, str(temporary))
            descriptor = os.open(temporary, os.O_RDONLY)
            os.fsync(descriptor)
            os.close(descriptor)
            os.replace(temporary, final)

    return run


def codes(result: MatteFrame) -> np.ndarray:
    return (result.alpha(TRACK) * np.float32(65535) + np.float32(0.5)).astype(np.uint16)


def oiio_save(pixels: np.ndarray, kind: str, path: str, **attributes: Any) -> None:
    height, width, channels = pixels.shape
    spec = oiio.ImageSpec(width, height, channels, kind)
    for key, value in attributes.items():
        spec.attribute(key, value)
    out = oiio.ImageOutput.create(path)
    out.open(path, spec)
    out.write_image(pixels)
    out.close()


def oiio_exr(result: MatteFrame, path: str) -> None:
    oiio_save(np.repeat(result.alpha(TRACK)[..., None], 4, axis=2), "half", path, compression="zip")


def oiio_crypto(result: MatteFrame, path: str) -> None:
    pixels = np.zeros((HEIGHT, WIDTH, 12), np.float32)
    pixels[..., 1] = result.alpha(TRACK)
    pixels[..., 0] = np.where(pixels[..., 1] > 0, np.float32(1.5), 0)
    oiio_save(pixels, "float", path, compression="zip")


def oiio_tiff(result: MatteFrame, path: str) -> None:
    oiio_save(codes(result)[..., None], "uint16", path, compression="zip")


def pillow_png(result: MatteFrame, path: str) -> None:
    Image.fromarray(codes(result)).save(path, format="PNG", compress_level=1)


def pillow_index(result: MatteFrame, path: str) -> None:
    Image.fromarray((result.alpha(TRACK) >= 0.5).astype(np.uint8)).convert("P").save(path, format="PNG")


def pyav(
    codec: str, suffix: str, pix_fmt: str, options: dict[str, str], draw: Callable[[MatteFrame], av.VideoFrame]
) -> Callable[[list[MatteFrame], Path], None]:
    """PyAV with all its threads, on pictures as `draw` makes them."""

    def run(frames: list[MatteFrame], folder: Path) -> None:
        with av.open(str(folder / f"public{suffix}"), "w") as out:
            stream = out.add_stream(codec, rate=RATE, options=options)
            stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, pix_fmt
            stream.thread_type = "AUTO"
            for result in frames:
                out.mux(stream.encode(draw(result)))
            out.mux(stream.encode(None))

    return run


def grey(result: MatteFrame) -> av.VideoFrame:
    return av.VideoFrame.from_ndarray(codes(result), format="gray16le")


def tinted(result: MatteFrame) -> av.VideoFrame:
    """Colour through PyAV's own converter."""
    mask = result.alpha(TRACK)[..., None] * np.float32(0.4)
    tint = result.frame.rgb + mask * (np.float32([0, 190, 255]) - result.frame.rgb)
    return av.VideoFrame.from_ndarray(tint.astype(np.uint8), format="rgb24").reformat(format="yuv420p")


def as_ours(name: str) -> Callable[[MatteFrame], av.VideoFrame]:
    """The pictures we encode. PyAV's own are cheaper, with eight bits of alpha and less detail in the colour."""
    take = taken(1)
    writer: Any = load_exporter(name)(Template(Path("unused")), take, make_options(name, PLAIN))
    tagged = SimpleNamespace(tags=movie_tags(take.clip))
    return lambda result: writer.draw(result, result.alpha(TRACK), tagged)


def cocotools(frames: list[MatteFrame], folder: Path) -> None:
    """Run lengths of every frame in one JSON file."""
    rows = []
    for result in frames:
        mask = np.asfortranarray((result.alpha(TRACK) >= 0.5).astype(np.uint8))
        found = rle.encode(mask)
        box, area = rle.toBbox(found).tolist(), int(rle.area(found))
        rows.append({"size": found["size"], "counts": found["counts"].decode(), "bbox": box, "area": area})
    (folder / "public.json").write_text(json.dumps(rows))


PLAIN = {"foreground": False}
PRORES = {"profile": "4444", "alpha_bits": "16"}
FFV1 = {"level": "3", "g": "1", "slices": "4"}
H264 = {"crf": "18", "preset": "veryfast"}
VP9 = {"crf": "14", "b": "0", "cpu-used": "4", "deadline": "good", "auto-alt-ref": "0", "row-mt": "1"}
# Format: options, bytes looked at per pixel, the public way and its name.
ROWS: dict[str, tuple[dict[str, Any], int, Callable[[list[MatteFrame], Path], None] | None, str]] = {
    "png": ({}, 2, atomic(pillow_png, "png"), "Pillow, level 1"),
    "exr": ({}, 8, atomic(oiio_exr, "exr"), "OpenImageIO, ZIP"),
    "cryptomatte": ({}, 48, atomic(oiio_crypto, "exr"), "OpenImageIO, 12 float channels (no ranking)"),
    "tiff": ({}, 2, atomic(oiio_tiff, "tif"), "OpenImageIO, deflate"),
    "prores": (
        PLAIN,
        4,
        pyav("prores_ks", ".mov", "yuva444p10le", PRORES, as_ours("prores")),
        "PyAV, the same pictures",
    ),
    "webm": (PLAIN, 4, pyav("libvpx-vp9", ".webm", "yuva420p", VP9, as_ours("webm")), "PyAV, the same pictures"),
    "ffv1": ({}, 2, pyav("ffv1", ".mkv", "gray16le", FFV1, grey), "PyAV, lost when stopped"),
    "overlay": ({}, 3, pyav("libx264", ".mp4", "yuv420p", H264, tinted), "PyAV, tint only"),
    "composite": (PLAIN, 4, None, "none does the same in one step"),
    "contact": ({}, 3, None, "none"),
    "davis": ({}, 1, atomic(pillow_index, "png"), "Pillow"),
    "coco": ({}, 1, cocotools, "pycocotools"),
}


def rate(run: Callable[[list[MatteFrame], Path], None], frames: list[MatteFrame]) -> float:
    """Frames per second of one run after a short one, folder creation apart."""
    with contextlib.ExitStack() as stack:
        first, second = (Path(stack.enter_context(tempfile.TemporaryDirectory())) for _ in range(2))
        run(frames[:2], first)
        start = time.perf_counter()
        run(frames, second)
        return len(frames) / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=48)
    parser.add_argument("--only", default=",".join(ROWS))
    arguments = parser.parse_args()
    frames = footage(arguments.frames)
    untimed = sorted(set(EXPORTERS) - set(ROWS))
    print(f"{arguments.frames} frames of {WIDTH}x{HEIGHT}, {os.cpu_count()} cores; not timed: {', '.join(untimed)}")
    print(f"{'format':12} {'frames/s':>9} {'MB/s':>7} {'public':>9} {'ratio':>6}  public way")
    for name in arguments.only.split(","):
        options, width, public, label = ROWS[name]
        speed = rate(ours(name, options), frames)
        other = rate(public, frames) if public else float("nan")
        megabytes = speed * WIDTH * HEIGHT * width / 1e6
        print(f"{name:12} {speed:9.1f} {megabytes:7.0f} {other:9.1f} {speed / other:6.2f}  {label}")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
