"""Checkpoint → parameters, strict: every key used, every key filled, every shape checked.

The reference publishes `pytorch_model.bin` (what it trained, with low-rank updates of the language model) and
needs the base Qwen3-VL beside it. Here the two are merged into one set of parameters under our own names; the
rest of the engine only ever sees those. Files are memory-mapped, never unpickled freely.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from x2roto.engine.model.config import ModelConfig
from x2roto.engine.model_folder import ModelHeader, find_model, read_header, read_json
from x2roto.engine.quality import at_quality, lightened
from x2roto.engine.sizes import Shape, infer_sizes
from x2roto.engine.streaming import stream, too_large
from x2roto.errors import ModelError
from x2roto.job import Quality

if TYPE_CHECKING:
    from x2roto.engine.model.x2sam import X2SAM

__all__ = ["build", "find_model", "infer_sizes", "load_model", "load_state", "merged_state"]

LORA_ALPHA = 256.0
"""Numerator of the released low-rank updates' scale, alpha / rank (`x2sam_qwen3_vl_4b…_lora.py`, r = 128)."""

DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}

# Saved by the reference, read by nothing.
UNUSED = frozenset({"segmentor.shared_image_embedding.positional_embedding"})

VOCABULARY = frozenset({"vlm.model.language_model.embed_tokens.weight", "vlm.lm_head.weight"})

TEXT_LAYERS = "vlm.model.language_model.layers."
# What an outliner compares by: places differ by less than half precision tells apart.
COMPARING = ("outliner.comparing.", "outliner.sharpness", "outliner.nearness", "outliner.trust")

_WRAPPED = "vlm.base_model.model."
_ADAPTER = re.compile(r"\.lora_([AB])\.default\.weight$")


# --- Files -----------------------------------------------------------------------------------------


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a `.safetensors` or PyTorch file, by name, memory-mapped on the CPU.

    A PyTorch file holds a dictionary of tensors, or that under the single key "state_dict". Nothing in it is
    executed. Raises ModelError when the file is missing, damaged, or holds anything but tensors.
    """
    if not path.is_file():
        raise ModelError(f"no file {path}", path)
    values = _read_safetensors(path) if path.suffix == ".safetensors" else _read_pickle(path)
    if isinstance(values, dict) and values.keys() == {"state_dict"}:
        values = values["state_dict"]
    if not isinstance(values, dict) or not values:
        raise ModelError(f"{path} holds no dictionary of tensors; refused", path)
    for name, value in values.items():
        if not isinstance(name, str) or not isinstance(value, Tensor) or not value.is_floating_point():
            raise ModelError(f"{path} holds more than weights ({name!r}: {_kind(value)}); refused", path)
    return values


def _kind(value: object) -> str:
    return f"tensor of {value.dtype}" if isinstance(value, Tensor) else type(value).__name__


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path} is damaged or cut short ({error}); fetch it again", path) from error


def _read_pickle(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:
        raise ModelError(f"{path} holds code or objects beside tensors; refused, nothing was run", path) from error
    except (RuntimeError, EOFError, OSError, ValueError) as error:
        raise ModelError(f"{path} is cut short, damaged or no PyTorch file; fetch it again", path) from error


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a folder in the Hugging Face layout: one, or the shards its index lists.

    Raises ModelError when there is neither, or the index names a file outside the folder.
    """
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        single = folder / "model.safetensors"
        if not single.is_file():
            raise ModelError(f"{folder} holds neither {single.name} nor {index.name}", folder)
        return [single]
    shards = read_json(index).get("weight_map")
    if not isinstance(shards, dict) or not all(_is_plain_name(shard) for shard in shards.values()):
        raise ModelError(f"{index} has no weight_map of plain file names", index)
    return [folder / name for name in sorted(set(shards.values()))]


def _is_plain_name(name: object) -> bool:
    return isinstance(name, str) and name.endswith(".safetensors") and Path(name).name == name


def read_folder(folder: Path) -> dict[str, Tensor]:
    """The tensors of all weight files of a folder. Raises ModelError as `read_tensors` and `weight_files`."""
    tensors: dict[str, Tensor] = {}
    for path in weight_files(folder):
        shard = read_tensors(path)
        if twice := tensors.keys() & shard.keys():
            raise ModelError(f"{path} repeats {_some(twice)} of another file", path)
        tensors |= shard
    return tensors


def read_base(base: Path) -> dict[str, Tensor]:
    """The base language model's tensors: `base` is its folder, or one safetensors file."""
    if not base.exists():
        raise ModelError(f"no base model at {base}; give the folder of Qwen3-VL-4B-Instruct", base)
    return read_folder(base) if base.is_dir() else read_tensors(base)


def shapes_of(tensors: Mapping[str, Tensor]) -> dict[str, Shape]:
    """Shape of every tensor, by name."""
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


# --- From the reference's names to ours ------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Target:
    """Which of our parameters a checkpoint key serves; `role`: "weight", or "A" or "B" of an update."""

    parameter: str
    role: str


def parameter_of(key: str) -> Target:
    """Where a key of the reference's checkpoint goes.

    The adapter library's wrapping is dropped; other names are ours already. Source:
    wanghao9610/X2SAM@5b0b106 `model/x2sam.py` `state_dict`, and the names peft gives.
    """
    name = f"vlm.{key.removeprefix(_WRAPPED)}" if key.startswith(_WRAPPED) else key
    if adapter := _ADAPTER.search(name):
        return Target(f"{name[: adapter.start()]}.weight", adapter[1])
    return Target(name, "weight")


@dataclass(frozen=True, slots=True)
class Recipe:
    """How one parameter is made: a stored tensor, plus `alpha / rank * B @ A` where an update was trained.

    `update` is (A, B): A (rank, in), B (out, rank), for a weight (out, in).
    """

    weight: Tensor
    update: tuple[Tensor, Tensor] | None = None

    def make(self, dtype: torch.dtype, lora_alpha: float) -> Tensor:
        """The parameter in `dtype`; an update is added in float32."""
        if self.update is None:
            return self.weight.to(dtype)
        low, high = (factor.float() for factor in self.update)
        return torch.addmm(self.weight.float(), high, low, alpha=lora_alpha / low.shape[0]).to(dtype)


def recipes(checkpoint: Mapping[str, Tensor], base: Mapping[str, Tensor]) -> dict[str, Recipe]:
    """A recipe for every parameter the two files speak of; the checkpoint wins where both have one.

    Raises ModelError when an update lacks its half or its weight or does not fit it, or a key comes twice.
    """
    roles: dict[str, dict[str, Tensor]] = {"weight": {}, "A": {}, "B": {}}
    for key in checkpoint.keys() - UNUSED:
        target = parameter_of(key)
        if target.parameter in roles[target.role]:
            raise ModelError(f"the checkpoint has {target.parameter} twice, once as {key}")
        roles[target.role][target.parameter] = checkpoint[key]
    trained, low, high = roles.values()
    # The base's vocabulary has another size: its embedding and head are replaced together or not at all.
    replaced = VOCABULARY if trained.keys() & VOCABULARY else frozenset[str]()
    weights = {name: tensor for key, tensor in base.items() if (name := f"vlm.{key}") not in replaced} | trained
    made = {name: Recipe(weights[name]) for name in sorted(weights)}
    for name in sorted(low.keys() | high.keys()):
        made[name] = _updated(name, weights.get(name), low.get(name), high.get(name))
    return made


def _updated(name: str, weight: Tensor | None, low: Tensor | None, high: Tensor | None) -> Recipe:
    if low is None or high is None:
        raise ModelError(f"the checkpoint's low-rank update of {name} lacks its {'A' if low is None else 'B'} half")
    if weight is None:
        raise ModelError(f"the checkpoint updates {name}, which is in neither file")
    rank = low.shape[0] if low.ndim else 0
    if rank < 1 or (*high.shape, *low.shape) != (weight.shape[0], rank, rank, *weight.shape[1:]):
        shapes = ", ".join(str(tuple(tensor.shape)) for tensor in (weight, high, low))
        raise ModelError(f"the low-rank update of {name} does not fit: weight, B and A have shapes {shapes}")
    return Recipe(weight, (low, high))


def merged_state(
    checkpoint: Path, base: Path, *, lora_alpha: float = LORA_ALPHA, dtype: torch.dtype = torch.float32
) -> dict[str, Tensor]:
    """Our parameters straight from the reference's files, merged in memory; `convert` does it for good.

    Raises ModelError as `read_tensors`, `read_base` and `recipes` do.
    """
    made = recipes(read_tensors(checkpoint), read_base(base))
    return {name: recipe.make(dtype, lora_alpha) for name, recipe in made.items()}


# --- Into the network ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Blueprint:
    """What a network wants: the shape of each parameter, and the further names of those that have several."""

    shapes: dict[str, Shape]
    tied: dict[str, str]

    @classmethod
    def of(cls, model: nn.Module) -> Self:
        """Read from a module, on any device; the first of several names is the one kept."""
        first: dict[int, str] = {}
        state = model.state_dict(keep_vars=True)
        names = {name: first.setdefault(id(tensor), name) for name, tensor in state.items()}
        shapes = {name: tuple(state[name].shape) for name in dict.fromkeys(names.values())}
        return cls(shapes, {name: kept for name, kept in names.items() if name != kept})


def check_fit(found: Mapping[str, Shape], wanted: Mapping[str, Shape], what: str) -> None:
    """Raise ModelError, with the number and the first few parameters, unless names and shapes are equal."""
    missing = wanted.keys() - found.keys()
    unexpected = found.keys() - wanted.keys()
    wrong = [
        f"{name} {found[name]} instead of {wanted[name]}"
        for name in sorted(found.keys() & wanted.keys())
        if found[name] != wanted[name]
    ]
    faults = {"missing": missing, "unexpected": unexpected, "of the wrong shape": wrong}
    if any(faults.values()):
        listed = "; ".join(f"{len(names)} {fault}: {_some(names)}" for fault, names in faults.items() if names)
        raise ModelError(f"{what} does not fit the network; {listed}")


def _some(names: Iterable[str], shown: int = 3) -> str:
    names = sorted(names)
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more


class _EmptyOnMeta(TorchFunctionMode):
    """Layers allocate parameters with `torch.empty`: give those no memory, but compute tables as usual."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        meta = {"device": "meta"} if func is torch.empty else {}
        return func(*args, **{**(kwargs or {}), **meta})


def blank_model(config: ModelConfig) -> X2SAM:
    """The network without memory for its parameters; its computed tables are real, on the CPU.

    Raises ModelError when no network can be built from the config.
    """
    from huggingface_hub.errors import StrictDataclassError

    from x2roto.engine.model.x2sam import X2SAM

    try:
        with _EmptyOnMeta():
            return X2SAM(config)
    except (TypeError, ValueError, KeyError, RuntimeError, StrictDataclassError) as error:
        raise ModelError(f"no network can be built from the model's config: {error}") from error


def without_aliases(weights: Mapping[str, Tensor], tied: Mapping[str, str]) -> dict[str, Tensor]:
    """The weights without the further names of shared parameters (`Blueprint.tied`).

    Raises ModelError when two names of one parameter stand for different values.
    """
    for alias, name in tied.items():
        if alias in weights and name in weights and not torch.equal(weights[alias], weights[name]):
            raise ModelError(f"{alias} and {name} are one parameter in the network but differ in the file")
    return {name: tensor for name, tensor in weights.items() if name not in tied}


def fill(model: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Make the tensors of `state` the model's parameters, without copying them; strict in names and shapes.

    Parameters with several names stay shared. Raises ModelError, naming `source`.
    """
    blueprint = Blueprint.of(model)
    distinct = without_aliases(state, blueprint.tied)
    check_fit(shapes_of(distinct), blueprint.shapes, source)
    aliases = {alias: distinct[name] for alias, name in blueprint.tied.items()}
    model.load_state_dict({**distinct, **aliases}, assign=True)
    for alias, name in blueprint.tied.items():
        owner, _, leaf = alias.rpartition(".")
        setattr(model.get_submodule(owner), leaf, model.get_parameter(name))


def build(
    config: ModelConfig,
    state: Mapping[str, Tensor],
    *,
    device: torch.device | str = "cpu",
    source: str = "the checkpoint",
    streamed: bool = False,
) -> X2SAM:
    """The network with these parameters, in evaluation mode; sizes the weights tell override the config's.

    `streamed`: the language model's text layers stay where their parameters are and come to the device when they run.

    Raises ModelError, naming `source`, when names or shapes do not fit.
    """
    model = blank_model(infer_sizes(config, shapes_of(state)))
    fill(model, state, source)
    text = model.vlm.model.language_model
    layers = text.layers
    if streamed:
        text.layers = nn.ModuleList()
        stream(layers, torch.device(device))
    model.to(device)
    text.layers = layers
    unfilled = [name for name, tensor in _tensors(model) if tensor.is_meta]
    assert not unfilled, f"a layer leaves {_some(unfilled)} without values"
    return model.eval()


def fast_dtype(device: torch.device) -> torch.dtype:
    """The number format that a device computes in fast and that does not overflow: bfloat16 where it has that in
    hardware, float32 elsewhere."""
    if device.type != "cpu":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    able: Mapping[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # older versions of torch cannot tell
    return torch.bfloat16 if able.get("avx512_bf16") or able.get("amx_bf16") else torch.float32


def laid_out(model: X2SAM) -> X2SAM:
    """The network with its weights as convolutions read them fastest, for inference: most maps that come to them are
    tokens, whose channels are last. Files want them as they were."""
    for part in (model.segmentor, model.finder, model.outliner):
        if part is not None:
            part.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model


def load_state(folder: Path) -> tuple[ModelConfig, ModelHeader, dict[str, Tensor]]:
    """A model folder's config, with sizes read from the weights, its header, and its mapped parameters.

    Digests are not checked here (`model_folder.damaged_files` does). Raises ModelError when a file is missing
    or damaged, or when header and weights contradict each other.
    """
    header = read_header(folder)
    tensors = read_folder(folder)
    if len(tensors) != header.tensors:
        raise ModelError(f"{folder} holds {len(tensors)} tensors, its header says {header.tensors}", folder)
    return infer_sizes(header.config, shapes_of(tensors)), header, tensors


def load_model(
    folder: Path,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
    quality: Quality = "exact",
    max_vram: float | None = None,
) -> X2SAM:
    """The network of a model folder, in evaluation mode; `dtype` None keeps the stored one.

    `max_vram`: GB; where the weights would leave too little of them, text layers wait on the host.

    Raises ModelError as `load_state` does, and when names or shapes do not fit the network.
    """
    config, _, tensors = load_state(folder)
    size = sum(tensor.numel() * (dtype or tensor.dtype).itemsize for tensor in tensors.values())
    streamed = too_large(size, max_vram)
    state = {
        name: tensor.to(
            "cpu" if streamed and name.startswith(TEXT_LAYERS) else device,
            torch.float32 if name.startswith(COMPARING) else dtype,
        )
        for name, tensor in tensors.items()
    }
    model = build(at_quality(config, quality), state, device=device, source=str(folder), streamed=streamed)
    return lightened(model, quality)


def _tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from model.named_parameters()
    yield from model.named_buffers()
