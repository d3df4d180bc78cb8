"""A whole shot through the command line, by random weights of full size: `python bench/shot.py`.

Makes a model folder and a clip, runs `x2roto segment` on it, and says how long the first matte takes from the start
of the process, how fast the rest comes, where the time goes, and how much of the card is held at most.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import av
import numpy as np
import torch
import typer
from engine import QWEN3_VL_4B, SMALL, Size, random_state
from tokenizers import Tokenizer, models, pre_tokenizers
from tokenizers.decoders import ByteLevel

from x2roto.engine.convert import Provenance, write_model
from x2roto.engine.model.config import ModelConfig
from x2roto.engine.weights import Blueprint, blank_model

SPECIAL = ["<|im_start|>", "<|im_end|>", "<|endoftext|>", "<|vision_start|>", "<|vision_end|>"]
ADDED = 3  # X2SAM's own tokens
WARM = 16  # frames after which memory is full and nothing is new


@dataclass(frozen=True, slots=True)
class Run:
    """What one run took. `first`: seconds to the first matte on disk; `frames_per_second`: of those after the first
    few; `held`: most GiB of the card in use, None without one."""

    first: float
    total: float
    frames_per_second: float
    timing: dict[str, float]
    held: float | None


def write_random_model(folder: Path, size: Size, device: torch.device) -> None:
    """A model folder of that size, as the command line loads it: bfloat16 at full size."""
    full = size is Size.FULL
    config = replace(ModelConfig(language=QWEN3_VL_4B), name="random") if full else SMALL
    blank = blank_model(config)
    shapes = Blueprint.of(blank).shapes
    dtype = torch.bfloat16 if full else torch.float32
    with tempfile.TemporaryDirectory() as tokenizer:
        rows = int(config.language["text_config"]["vocab_size"])
        byte_tokenizer(rows - ADDED).save(f"{tokenizer}/tokenizer.json")
        write_model(
            folder,
            config,
            shapes,
            lambda name: random_state({name: shapes[name]}, device, dtype)[name].cpu(),
            tokenizer=Path(tokenizer),
            dtype=str(dtype).removeprefix("torch."),
            provenance=Provenance({}, {}, ()),
        )


def byte_tokenizer(rows: int) -> Tokenizer:
    """One token per byte, and as many that never come up as make `rows`."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    unused = [f"<unused {number}>" for number in range(rows - len(alphabet) - len(SPECIAL))]
    vocabulary = {token: index for index, token in enumerate((*alphabet, *unused))}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = ByteLevel()
    tokenizer.add_special_tokens(SPECIAL)
    return tokenizer


def write_clip(path: Path, frames: int, width: int, height: int) -> None:
    """H.264 of a bright square that crosses a noisy ground."""
    ground = np.random.default_rng(0).integers(0, 160, (height, width, 3), dtype=np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", 24, {"preset": "ultrafast", "crf": "23"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for index in range(frames):
            picture = ground.copy()
            left = (width - height // 2) * index // frames
            picture[height // 4 : height * 3 // 4, left : left + height // 2] = 220
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))


def run(command: Sequence[str], out: Path) -> Run:
    """Run `x2roto segment` and watch it. Raises CalledProcessError when it fails."""
    began, first, held = time.perf_counter(), None, list[float]()
    with subprocess.Popen([sys.executable, "-m", "x2roto", "segment", *command, "-o", str(out)]) as process:
        while process.poll() is None:
            if first is None and any(out.glob("*.png")):
                first = time.perf_counter() - began
            held.extend(_held())
            time.sleep(0.05)
    total = time.perf_counter() - began
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    record: dict[str, Any] = json.loads((out / "x2roto.json").read_text())
    steady = [row["ms"] for row in record["frames"][WARM:]]
    rate = 1000 / statistics.fmean(steady) if steady else 0.0
    return Run(first or total, total, rate, record["summary"]["timing"], max(held, default=None))


def _held() -> Iterator[float]:
    """GiB of the card in use, if there is one."""
    if torch.cuda.is_available():
        free, total = torch.cuda.mem_get_info()
        yield (total - free) / 2**30


def main(
    size: Annotated[Size, typer.Option(help="Of the network.")] = Size.FULL,
    frames: Annotated[int, typer.Option(min=1)] = 200,
    plate: Annotated[str, typer.Option(metavar="WxH")] = "1920x1080",
    model: Annotated[Path | None, typer.Option(help="Folder of the random weights, made when missing.")] = None,
    device: str = "auto",
    option: Annotated[list[str] | None, typer.Option(help='Further ones of segment, as "--quality=fast".')] = None,
) -> None:
    """Time whole shots through the command line; one for every group of options, which "/" divides."""
    width, height = map(int, plate.split("x"))
    with tempfile.TemporaryDirectory() as scratch:
        folder = model or Path(scratch) / "model"
        if not folder.exists():
            write_random_model(folder, size, torch.device("cuda" if torch.cuda.is_available() else "cpu"))
        clip = Path(scratch) / "clip.mp4"
        write_clip(clip, frames, width, height)
        for number, more in enumerate(_groups(option or [])):
            # A presence of 0 keeps what random weights find.
            command = [str(clip), "--text", "the square", "--model", str(folder), "--device", device]
            took = run([*command, "--presence", "0", *more], Path(scratch) / f"out-{number}")
            timing = ", ".join(f"{name.removesuffix('_s')} {seconds:.1f} s" for name, seconds in took.timing.items())
            held = "" if took.held is None else f", {took.held:.1f} GiB of the card"
            typer.echo(
                f"{' '.join(more) or 'as it comes'}: first matte after {took.first:.1f} s, then "
                f"{took.frames_per_second:.1f} frames/s, {took.total:.1f} s in all ({timing}){held}"
            )


def _groups(options: Sequence[str]) -> Iterator[list[str]]:
    group: list[str] = []
    for option in (*options, "/"):
        if option == "/":
            yield group
            group = []
        else:
            group.append(option)


if __name__ == "__main__":
    typer.run(main)
