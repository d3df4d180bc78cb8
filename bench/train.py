"""Clips per second of the footage generator and of a training step: `python bench/train.py --help`.

The step is the trainer's own, with random weights: loading left out, forward, backward and optimiser in. Its
arithmetic is counted in the same run, recomputation included, and held against a large matrix product.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import torch
import typer
from engine import QWEN3_VL_4B, matmul_ceiling
from rich.console import Console
from rich.table import Table
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch.utils.flop_counter import FlopCounterMode

from x2roto.engine.model.config import ModelConfig
from x2roto.train.config import DataSource, Initial, TrainConfig, find_config, load_config
from x2roto.train.initial import CHAT_TOKENS
from x2roto.train.procedural import open_footage
from x2roto.train.samples import ClipDataset, ClipSample
from x2roto.train.trainer import Trainer

BASE_WORDS = QWEN3_VL_4B["text_config"]["vocab_size"] - 3
FULL = ModelConfig(language=QWEN3_VL_4B)


@dataclass(frozen=True, slots=True)
class Result:
    """One measurement; medians. `utilisation`: arithmetic per second as a share of the matrix product's."""

    name: str
    clips_per_s: float
    seconds: float
    tflop: float | None = None
    utilisation: float | None = None
    memory_gib: float | None = None


class Kept:
    """A few clips of a data set, made once and then given again and again."""

    modality = "video"

    def __init__(self, height: int, width: int, frames: int, task: str, folder: str | None = None) -> None:
        (source,) = footage(height, width, frames, task, folder)
        self.name = source.name
        self.clips = [source[index] for index in range(4)]

    def __len__(self) -> int:
        return 1000

    def __getitem__(self, index: int) -> ClipSample:
        return self.clips[index % len(self.clips)]

    def frame_count(self, index: int) -> int:
        return len(self[index].frames)


def footage(height: int, width: int, frames: int, task: str, folder: str | None) -> list[ClipDataset]:
    opened = open_footage(height=height, width=width, frames=[frames], folder=folder, tasks=[task])
    return [data for data in opened if data.name == f"footage-video-{task}"]


def generator(task: str, height: int, width: int, frames: int, folder: str | None, repeats: int) -> Result:
    (source,) = footage(height, width, frames, task, folder)
    seconds = [timed(lambda index=index: source[index]) for index in range(repeats + 1)][1:]
    middle = statistics.median(seconds)
    return Result(f"generator {task} {width}x{height} x{frames}", 1 / middle, middle)


def timed(run: Any) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def bench_config(preset: str, size: str, out: Path, source: DataSource) -> TrainConfig:
    """A preset with random weights of a size on kept clips; "preset" keeps the preset's own size."""
    config = load_config(find_config(preset), out)
    initial = Initial(tokenizer="bytes")
    if size == "full":
        words = out.parent / "words"
        words.mkdir()
        word_tokenizer(BASE_WORDS).save(str(words / "tokenizer.json"))
        config, initial = replace(config, model=FULL), Initial(tokenizer=str(words))
    batches = replace(config.batches, workers=0, video_accumulation=1, resample=0.0)
    return replace(config, data=(source,), validation=(), initial=initial, batches=batches)


def word_tokenizer(words: int) -> Tokenizer:
    """A byte tokenizer with as many words as a real one, so that vocabulary costs what it costs."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    filler = [f"word{number}" for number in range(words - len(alphabet) - len(CHAT_TOKENS))]
    vocabulary = {word: index for index, word in enumerate([*alphabet, *filler])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(CHAT_TOKENS))
    return tokenizer


def step(config: TrainConfig, repeats: int, ceiling: float) -> Result:
    """Training steps of a run: the first one counted, one to warm up, the rest timed."""
    trainer = Trainer(config)
    device = trainer.accelerator.device
    steps = trainer.steps()
    with FlopCounterMode(display=False) as counter:
        next(steps)
    next(steps)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    taken = [next(steps) for _ in range(repeats)]
    seconds = statistics.median(step.seconds for step in taken)
    tflop = counter.get_total_flops() / 1e12
    return Result(
        f"{config.stage} step, {sum(p.numel() for p in trainer.stage.parameters()) / 1e6:,.1f} M, {device.type}",
        taken[-1].clips / seconds,
        seconds,
        tflop,
        1000 * tflop / seconds / ceiling,
        torch.cuda.max_memory_allocated() / 2**30 if device.type == "cuda" else None,
    )


def show(results: Sequence[Result]) -> None:
    table = Table("What", "Clips/s", "s", "TFLOP", "Of matmul", "GiB")
    for result in results:
        optional = (
            "" if value is None else spelled.format(value)
            for value, spelled in (
                (result.tflop, "{:,.3f}"),
                (result.utilisation, "{:.1%}"),
                (result.memory_gib, "{:.1f}"),
            )
        )
        table.add_row(result.name, f"{result.clips_per_s:.3f}", f"{result.seconds:.3f}", *optional)
    Console().print(table)


def main(
    preset: Annotated[str, typer.Option(help="Training preset or TOML file.")] = "tiny",
    size: Annotated[str, typer.Option(help="'preset' or 'full': the released sizes.")] = "preset",
    task: Annotated[str, typer.Option(help="What is asked of the clips.")] = "refseg",
    height: Annotated[int, typer.Option(help="Of the clips.")] = 64,
    width: Annotated[int, typer.Option(help="Of the clips.")] = 64,
    frames: Annotated[int, typer.Option(help="Of each clip.")] = 4,
    folder: Annotated[str | None, typer.Option(help="Material for footage; without it, drawn shapes.")] = None,
    repeats: Annotated[int, typer.Option(help="Clips and steps timed.", min=1)] = 5,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure generator and training step on this machine's device."""
    options = {"height": height, "width": width, "frames": frames, "task": task, "folder": folder}
    results = [generator(task, height, width, frames, folder, repeats)]
    with TemporaryDirectory() as scratch:
        config = bench_config(preset, size, Path(scratch) / "run", DataSource("train:Kept", options))
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        dtype = torch.bfloat16 if config.run.precision == "bf16" else torch.float32
        results.append(step(config, repeats, matmul_ceiling(device, dtype, 5)))
    if as_json:
        print(json.dumps([asdict(result) for result in results]))
    else:
        show(results)


if __name__ == "__main__":
    # Data sets are opened by module name; this file is one.
    sys.modules["train"] = sys.modules["__main__"]
    typer.run(main)
