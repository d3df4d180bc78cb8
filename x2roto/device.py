"""Which device and numbers a job runs on, and its model there. Imported late: it loads torch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch

from x2roto.engine.segmenter import Segmenter, load_segmenter
from x2roto.engine.weights import fast_dtype
from x2roto.errors import DeviceMemoryError, ModelError, PromptError
from x2roto.job import EngineSpec

# GB that CUDA, its libraries and their kernels hold of a card beside what torch hands out: on an H200 a run held to
# 8 by torch took 10.0 of the card.
BESIDE = 2.5
MOST_THREADS = 4


def load(spec: EngineSpec) -> Segmenter:
    """The segmenter of a job on its device.

    Raises ModelError when the model or the device is missing, DeviceMemoryError when the model does not fit.
    """
    device = choose_device(spec.device)
    limit = None
    if spec.max_vram is not None and device.type == "cuda":
        limit = torch_share(spec.max_vram)
        limit_memory(device, limit)
    with device_memory(device, "the model"):
        dtype = fast_dtype(device) if spec.dtype == "auto" else getattr(torch, spec.dtype)
        segmenter = load_segmenter(spec.model, device, dtype, spec.quality, limit)
    if device.type == "cpu" and segmenter.model.outliner is not None:
        torch.set_num_threads(small_share(all_threads()))
    return segmenter


def small_share(threads: int) -> int:
    """How many threads of torch's a small network is given: its operations are too small to be shared out among many,
    which then wait for each other, the longer the busier the machine is; and plates are read and mattes written
    beside it."""
    return min(max(1, threads // 2), MOST_THREADS)


@cache
def all_threads() -> int:
    """As many as torch had when first asked."""
    return torch.get_num_threads()


def torch_share(gigabytes: float) -> float:
    """What torch may hand out of the GB of a card that a job may take; at least half of them, as CUDA needs less
    where there is little to run."""
    return max(gigabytes - BESIDE, gigabytes / 2)


def limit_memory(device: torch.device, gigabytes: float) -> None:
    """Let torch allocate no more than that on a GPU; beyond it an allocation raises torch.OutOfMemoryError."""
    # torch takes no device without an index here.
    index = torch.cuda.current_device() if device.index is None else device.index
    total = torch.cuda.get_device_properties(index).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, gigabytes * 1e9 / total), index)


def choose_device(name: str) -> torch.device:
    """The named device, or the best there is for "auto".

    Raises PromptError for a name that is none, ModelError when there is no such device.
    """
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        return torch.device("cuda" if there["cuda"] else "mps" if there["mps"] else "cpu")
    kind, colon, number = name.partition(":")
    if kind not in there or (colon and (kind != "cuda" or not number.isdecimal())):
        raise PromptError(f"--device {name!r} is not understood: use auto, cpu, cuda, cuda:1 or mps")
    if not there[kind] or (kind == "cuda" and int(number or 0) >= torch.cuda.device_count()):
        raise ModelError(f"there is no device {name!r} here: use --device auto or cpu")
    return torch.device(name)


@contextmanager
def device_memory(device: torch.device, what: str) -> Iterator[None]:
    """An out-of-memory error inside as a DeviceMemoryError about `what`."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise DeviceMemoryError(
            f"{what} does not fit into the memory of {device}: use a smaller --chunk, fewer prompts or another device"
        ) from error
