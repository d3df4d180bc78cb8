"""What the full-size network holds in memory at once, by exact account: `python bench/vram.py`.

Every stage runs on torch's meta device, where nothing is computed but every tensor has its size; all storages that
live at the same time are summed. Attention counts as the fused kernels do it, without its table of scores.
Workspaces of convolution kernels, the allocator's rounding and the driver's own part (about half a gigabyte) come on
top.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any

import engine
import torch
import typer
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

GB = 1e9


class Live(TorchDispatchMode):
    """Bytes of the storages that live beside those of `held`: `now` and, at most, `peak`."""

    def __init__(self, held: Iterable[Tensor]) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known = {tensor.untyped_storage()._cdata for tensor in held}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self._meet(leaf.untyped_storage())
        return result

    def _meet(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._known:
            return
        self._known.add(key)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._lose, key, size)

    def _lose(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size


class Fused(TorchFunctionMode):
    """Attention as one kernel, which holds its result and nothing else."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func is torch.nn.functional.scaled_dot_product_attention:
            return torch.empty_like(args[0])
        return func(*args, **(kwargs or {}))


def peak_of(run: Callable[[], object], held: Sequence[Tensor]) -> int:
    """The most bytes of tensors that live at once, beside those held before."""
    live = Live(held)
    with Fused(), live:
        run()
    return live.peak


def stages(scene: engine.Scene) -> dict[str, int]:
    """Most bytes of each stage beside weights and the shot's memory."""
    segmentor, chunk = scene.segmentor, scene.workload.chunk
    frame = scene.frame
    runs: list[tuple[str, Callable[[], object]]] = [
        (f"encoder and features, {chunk} frames", lambda: engine_features(scene)),
        ("memory attention and mask decoder", lambda: segmentor.decode(frame, scene.memory, scene.conditions)),
        ("memory encoder", lambda: segmentor.remember(frame, scene.prediction, scene.memory)),
    ]
    if scene.workload.language:
        runs += [(stage.name, stage.run) for stage in engine.language_stages(scene)]
    held = [*scene.model.parameters(), *scene.model.buffers()]
    return {name: peak_of(run, held) for name, run in runs}


def engine_features(scene: engine.Scene) -> object:
    pyramid = scene.segmentor.encoder(scene.pixels_bchw).levels_bchw
    return scene.segmentor.features(pyramid, first=False)


def weights(model: torch.nn.Module) -> dict[str, int]:
    """Bytes of parameters: the segmentor and projectors, the language model's layers, the rest of it."""
    parts = {"segmentor, projectors": 0, "vision tower, vocabulary": 0, "text layers": 0}
    largest: dict[str, int] = {}
    for name, parameter in model.named_parameters():
        size = parameter.numel() * parameter.element_size()
        if ".language_model.layers." in name:
            parts["text layers"] += size
            number = name.split(".layers.")[1].split(".")[0]
            largest[number] = largest.get(number, 0) + size
        elif name.startswith("vlm."):
            parts["vision tower, vocabulary"] += size
        else:
            parts["segmentor, projectors"] += size
    return parts | {"one text layer": max(largest.values())}


@torch.inference_mode()
def main(
    chunk: Annotated[int, typer.Option(min=1, help="Frames encoded at once.")] = 1,
    glimpse: Annotated[bool, typer.Option(help="Also the language model, with 16 frames of 1080p.")] = True,
    quality: Annotated[engine.Quality, typer.Option(help="As --quality of segment.")] = engine.Quality.EXACT,
) -> None:
    """Weights, what a shot keeps, and the most that each stage holds."""
    work = engine.workload(engine.Size.FULL, language=glimpse, frames=1, chunk=chunk, memory=5, quality=quality)
    with engine.BesideMeta():
        scene = engine.build_scene(engine.random_model(work.config, torch.device("meta"), torch.bfloat16), work)
        found = stages(scene)
    parts = weights(scene.model)
    kept = sum(m.numel() * m.element_size() for entry in scene.memory.entries for m in entry.maps_bchw)
    side = work.config.image_size
    table = Table(title=f"GB, bfloat16, {side}x{side}, memory of 5, chunk {chunk}")
    table.add_column("what")
    table.add_column("GB", justify="right")
    for name, size in (*parts.items(), ("memory of a shot", kept), *found.items()):
        table.add_row(name, f"{size / GB:.2f}")
    most = max(found.values())
    resident = parts["segmentor, projectors"] + parts["vision tower, vocabulary"]
    table.add_row("all on the device", f"{(resident + parts['text layers'] + kept + most) / GB:.2f}")
    table.add_row("text layers one at a time", f"{(resident + parts['one text layer'] + kept + most) / GB:.2f}")
    Console(width=110).print(table)


if __name__ == "__main__":
    typer.run(main)
