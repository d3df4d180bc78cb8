"""A tracker on a long clip: constant memory, results free of the chunk size, hand-over to another process."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.tiny import tiny_segmenter
from x2roto.clip import Frame
from x2roto.engine import tracker as tracking
from x2roto.engine.tracker import FrameResult, Tracker
from x2roto.prompt import Box, Text

HERE = Path(__file__)
WIDTH, HEIGHT = 96, 64
PROMPTS = (Text("disc", "the bright disc"), Box("corner", 0, 0, 40, 30))


def picture(index: int) -> Frame:
    """A disc that circles over noise; each frame depends on its index alone."""
    noise = np.random.default_rng(index).integers(0, 90, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    x, y = WIDTH * (0.5 + 0.3 * np.cos(index / 9)), HEIGHT * (0.5 + 0.3 * np.sin(index / 7))
    noise[(columns - x) ** 2 + (rows - y) ** 2 < 150] = (250, 220, 40)
    return Frame(index, None, noise)


def tracker(*, double: bool = False, **options: object) -> Tracker:
    """`double`: in double precision, in which rounding does not count."""
    segmenter = tiny_segmenter()
    if double:
        segmenter.model.double()
    (query,) = segmenter.read(PROMPTS, [picture(i).rgb for i in range(0, 16, 2)])
    return segmenter.track(query, **options)


def results(tracked: Tracker, first: int, last: int, chunk: int) -> Iterator[FrameResult]:
    for start in range(first, last, chunk):
        yield from tracked.step([picture(i) for i in range(start, min(start + chunk, last))])


def logits(frames: Iterator[FrameResult]) -> torch.Tensor:
    return torch.stack([result.prediction.mask_logits_bqhw for result in frames])


def peak_memory(frames: int) -> int:
    """Peak resident bytes of a process that tracks so many frames, 30 of them before counting."""
    code = f"from tests.e2e.test_streaming import run_and_report; run_and_report({frames})"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=HERE.parents[2], capture_output=True, text=True, check=True
    )
    return int(json.loads(done.stdout)["peak"])


def run_and_report(frames: int) -> None:
    """Body of the measured process."""
    import resource

    torch.set_num_threads(1)
    count = sum(1 for _ in results(tracker(), 0, frames, 8))
    assert count == frames
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"peak": peak}))  # noqa: T201


def continue_and_save(shot: Path, out: Path, first: int, last: int) -> None:
    """Body of the process that takes a shot over."""
    torch.set_num_threads(1)
    torch.save(logits(results(tiny_segmenter().resume(shot), first, last, 8)), out)


@pytest.mark.slow
def test_memory_does_not_grow_with_the_clip() -> None:
    short, long = peak_memory(200), peak_memory(2000)
    assert long <= short * 1.05, f"{long / short:.3f} times the memory for ten times the frames"


@pytest.mark.parametrize("chunk", [7, 32])
def test_chunk_size_changes_nothing(chunk: int) -> None:
    one = logits(results(tracker(chunk=1), 0, 70, 1))
    other = logits(results(tracker(chunk=chunk), 0, 70, chunk))
    assert torch.equal(one, other)


def test_frames_encoded_together_are_those_encoded_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    # Kernels round otherwise for other batches, on some processors by enough to grow over the frames.
    one = logits(results(tracker(double=True), 0, 30, 7))
    monkeypatch.setattr(tracking, "ALONE", frozenset())
    together = logits(results(tracker(chunk=7, double=True), 0, 30, 7))
    assert (one - together).abs().max() < 1e-4


def test_another_process_goes_on_with_the_same_logits(tmp_path: Path) -> None:
    whole = tracker()
    before, after = [logits(results(whole, *part, 8)) for part in ((0, 100), (100, 120))]
    stopped = tracker()
    assert torch.equal(logits(results(stopped, 0, 100, 8)), before)
    shot, out = tmp_path / "shot.safetensors", tmp_path / "out.pt"
    stopped.save(shot)
    code = (
        "from pathlib import Path; from tests.e2e.test_streaming import continue_and_save;"
        f"continue_and_save(Path({str(shot)!r}), Path({str(out)!r}), 100, 120)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=HERE.parents[2], check=True)
    resumed = torch.load(out)
    assert torch.allclose(resumed, after, atol=1e-5), (resumed - after).abs().max()


def test_backward_is_forward_over_the_reversed_clip() -> None:
    """Time's direction is only the order of the frames: nothing looks at their numbers."""
    backward = [picture(i) for i in range(20, -1, -1)]
    renumbered = [Frame(20 - frame.index, None, frame.rgb) for frame in backward]
    assert torch.equal(logits(tracker().step(backward)), logits(tracker().step(renumbered)))
