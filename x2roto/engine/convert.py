"""The reference's files → one model folder, written shard by shard: memory holds one shard at a time."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer
from torch import Tensor

from x2roto.engine.model.config import ModelConfig
from x2roto.engine.model_folder import (
    Licence,
    ModelHeader,
    check_free,
    new_folder,
    read_json,
    sha256,
    write_header,
)
from x2roto.engine.sizes import Shape, infer_sizes
from x2roto.engine.tasks import PHRASE_END, PHRASE_START, SEG
from x2roto.engine.weights import (
    DTYPES,
    LORA_ALPHA,
    Blueprint,
    blank_model,
    check_fit,
    read_base,
    read_tensors,
    recipes,
    shapes_of,
    weight_files,
    without_aliases,
)
from x2roto.engine.wording import LEXICON
from x2roto.errors import ModelError, OutputError

SHARD_BYTES = 2 * 1000**3
"""Largest weight file, unless one tensor alone is larger; also what conversion needs in memory."""

SPECIAL_TOKENS = (SEG, PHRASE_START, PHRASE_END)
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt")

LICENCES = (
    Licence("X2SAM code and weights", "MIT", "https://huggingface.co/hao9610/X2SAM"),
    Licence("Qwen3-VL-4B-Instruct", "Apache-2.0", "https://huggingface.co/Qwen/Qwen3-VL-4B-Instruct"),
    Licence("SAM 2.1 Hiera-L (mask encoder)", "Apache-2.0", "https://github.com/facebookresearch/sam2"),
)

EMBEDDING = "vlm.model.language_model.embed_tokens.weight"


@dataclasses.dataclass(frozen=True, slots=True)
class Provenance:
    """Where a model comes from: digests of the files, commits of the repositories, licences."""

    sources: Mapping[str, str]
    revisions: Mapping[str, str]
    licences: tuple[Licence, ...]


def convert(
    checkpoint: Path,
    base: Path,
    out: Path,
    *,
    config: ModelConfig | None = None,
    dtype: str = "bfloat16",
    lora_alpha: float = LORA_ALPHA,
    revisions: Mapping[str, str] | None = None,
    replace: bool = False,
) -> ModelHeader:
    """Merge the reference's checkpoint with its base model into the model folder `out`; gives its header.

    `base`: the Qwen3-VL folder, or one safetensors file with the folder's other files beside it. `config`
    None: the released sizes, with the base folder's config.json. `dtype`: a key of `DTYPES`.

    Raises ModelError when files are missing, damaged or do not fit, OutputError when `out` cannot be written.
    """
    check_free(out, replace=replace)
    made = recipes(read_tensors(checkpoint), read_base(base))
    weights = {name: recipe.weight for name, recipe in made.items()}
    folder = base if base.is_dir() else base.parent
    config = config or ModelConfig(language=read_json(folder / "config.json"))
    config = infer_sizes(dataclasses.replace(config, name=out.name), shapes_of(weights))
    blueprint = Blueprint.of(blank_model(config))
    check_fit(shapes_of(without_aliases(weights, blueprint.tied)), blueprint.shapes, str(checkpoint))
    sources = {f"checkpoint/{checkpoint.name}": checkpoint}
    sources |= {f"base/{path.name}": path for path in _base_sources(base, folder)}
    digests = {name: sha256(path) for name, path in sources.items()}
    return write_model(
        out,
        config,
        blueprint.shapes,
        lambda name: made[name].make(DTYPES[dtype], lora_alpha),
        tokenizer=folder,
        dtype=dtype,
        provenance=Provenance(digests, revisions or {}, LICENCES),
        replace=replace,
    )


def write_model(
    out: Path,
    config: ModelConfig,
    shapes: Mapping[str, Shape],
    tensor: Callable[[str], Tensor],
    *,
    tokenizer: Path,
    dtype: str,
    provenance: Provenance,
    replace: bool = False,
) -> ModelHeader:
    """Write a model folder, all or nothing; gives its header.

    `shapes` lists the parameters to store (`Blueprint.shapes`: those with several names once); `tensor` gives
    each in `dtype`. `tokenizer`: a folder with tokenizer.json and, where it is known which words the network has
    learnt, its `Lexicon`. Raises ModelError when the tokenizer does not fit the embedding, OutputError when `out`
    cannot be written or exists.
    """
    extended = extended_tokenizer(tokenizer, rows=shapes[EMBEDDING][0])
    with new_folder(out, replace=replace) as partial:
        for path in _existing(tokenizer, (*TOKENIZER_FILES, LEXICON)):
            shutil.copyfile(path, partial / path.name)
        extended.save(str(partial / "tokenizer.json"))
        write_shards(partial, shapes, tensor, dtype)
        header = ModelHeader(
            config=config,
            dtype=dtype,
            tensors=len(shapes),
            parameters=count_parameters(shapes),
            files={path.name: sha256(path) for path in sorted(partial.iterdir())},
            sources=dict(provenance.sources),
            revisions=dict(provenance.revisions),
            licences=provenance.licences,
        )
        write_header(partial, header)
    return header


def _existing(folder: Path, names: Iterable[str]) -> list[Path]:
    return [folder / name for name in names if (folder / name).is_file()]


def _base_sources(base: Path, folder: Path) -> list[Path]:
    weights = weight_files(base) if base.is_dir() else [base]
    return [*weights, *_existing(folder, ("config.json", *TOKENIZER_FILES))]


def extended_tokenizer(folder: Path, rows: int) -> Tokenizer:
    """The folder's tokenizer with `SPECIAL_TOKENS` as its last entries.

    Raises ModelError when it is missing, damaged, or has not exactly one token for each of the `rows` of the
    embedding. Source: `model/x2sam.py`, the special tokens added at the end of the base tokenizer.
    """
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise ModelError(f"no tokenizer at {path}; take the base model's folder complete", path)
    try:
        tokenizer = Tokenizer.from_str(path.read_text(encoding="utf-8"))
    # The tokenizers library raises no narrower type.
    except Exception as error:
        raise ModelError(f"{path} is damaged: {error}", path) from error
    added = [AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS]
    tokenizer.add_special_tokens(added)
    count = tokenizer.get_vocab_size(with_added_tokens=True)
    if count != rows:
        raise ModelError(
            f"{path} has {count} tokens with {' '.join(SPECIAL_TOKENS)}, the embedding has {rows} rows; "
            "take the tokenizer of the checkpoint's own base model",
            path,
        )
    if [tokenizer.token_to_id(token) for token in SPECIAL_TOKENS] != [rows - 3, rows - 2, rows - 1]:
        raise ModelError(f"{path} does not have {' '.join(SPECIAL_TOKENS)} as its last tokens", path)
    return tokenizer


def write_shards(folder: Path, shapes: Mapping[str, Shape], tensor: Callable[[str], Tensor], dtype: str) -> None:
    """Write the parameters in the Hugging Face layout: `model.safetensors`, or numbered shards and an index.

    `tensor` gives a parameter by name, and is asked once for each. Raises ModelError when one is not finite
    in `dtype`, OutputError when a file cannot be written.
    """
    sizes = {name: math.prod(shape) * DTYPES[dtype].itemsize for name, shape in shapes.items()}
    shards = plan_shards(sizes, SHARD_BYTES)
    where: dict[str, str] = {}
    for number, names in enumerate(shards, start=1):
        part = f"-{number:05}-of-{len(shards):05}" if len(shards) > 1 else ""
        file = f"model{part}.safetensors"
        _write(folder / file, {name: _finite(name, tensor(name)) for name in names})
        where |= dict.fromkeys(names, file)
    if len(shards) > 1:
        index = {"metadata": {"total_size": sum(sizes.values())}, "weight_map": where}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=1) + "\n")


def plan_shards(sizes: Mapping[str, int], limit: int) -> list[list[str]]:
    """Names grouped in order, each group of at most `limit` bytes, or of one name that is larger."""
    shards: list[list[str]] = [[]]
    filled = 0
    for name, size in sizes.items():
        if shards[-1] and filled + size > limit:
            shards.append([])
            filled = 0
        shards[-1].append(name)
        filled += size
    return shards


def _finite(name: str, tensor: Tensor) -> Tensor:
    if not torch.isfinite(tensor).all():
        raise ModelError(f"{name} is not finite in {tensor.dtype}; the checkpoint is damaged, or needs bfloat16")
    return tensor.contiguous()


def _write(path: Path, tensors: dict[str, Tensor]) -> None:
    try:
        save_file(tensors, path, metadata={"format": "pt"})
    except SafetensorError as error:
        raise OutputError(f"cannot write {path}: {error}", path) from error
    # safetensors makes files only their owner can read; a studio shares its models.
    path.chmod(path.parent.stat().st_mode & 0o666)


PARTS = {
    "segmentor.encoder.": "mask encoder",
    "segmentor.pixel_decoder.": "pixel decoder",
    "segmentor.memory_attention.": "memory attention",
    "segmentor.memory_encoder.": "memory encoder",
    "segmentor.": "mask decoder",
    "vlm.model.visual.": "vision tower",
    "vlm.": "language model",
    "finder.": "finder",
    "outliner.": "outliner",
    "": "projectors",
}
"""Parts by the prefix of their parameters; the first that fits counts."""


def count_parameters(shapes: Mapping[str, Shape]) -> dict[str, int]:
    """Number of parameters in each of `PARTS`."""
    counts: Counter[str] = Counter()
    for name, shape in shapes.items():
        part = next(part for prefix, part in PARTS.items() if name.startswith(prefix))
        counts[part] += math.prod(shape)
    return dict(counts)
