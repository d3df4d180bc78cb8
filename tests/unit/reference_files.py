"""The reference's files in small: a random checkpoint and its base model's folder, made in code."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from torch import Tensor

from tests.tiny import ROWS, TINY
from x2roto.engine.model.x2sam import X2SAM

RANK, ALPHA = 2, 6.0
BASE_TOKENS, BASE_ROWS = ROWS - 3, ROWS + 5
WRAPPED = "vlm.base_model.model."
EMBEDDING, HEAD = "vlm.model.language_model.embed_tokens.weight", "vlm.lm_head.weight"

Tensors = dict[str, Tensor]


@dataclass(frozen=True, slots=True)
class Reference:
    """Tensors of the two files by the reference's names, and the parameters a merge must give, in float32."""

    checkpoint: Tensors
    base: Tensors
    merged: Tensors

    def write(self, folder: Path, change: Callable[[Tensors], object] = len) -> tuple[Path, Path]:
        """Write `pytorch_model.bin`, its dictionary changed by `change`, and the base folder; gives both."""
        checkpoint, base = folder / "pytorch_model.bin", folder / "base"
        tensors = dict(self.checkpoint)
        change(tensors)
        torch.save(tensors, checkpoint)
        base.mkdir()
        save_file(self.base, base / "model.safetensors")
        (base / "config.json").write_text(json.dumps(TINY.language))
        write_tokenizer(base, BASE_TOKENS)
        return checkpoint, base


def write_tokenizer(folder: Path, tokens: int) -> None:
    """A tokenizer of that many words."""
    words = {f"w{number}": number for number in range(tokens)}
    Tokenizer(WordLevel(words, unk_token="w0")).save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text("{}")


@cache
def reference() -> Reference:
    """Random bfloat16 numbers: low-rank updates of the text layers, trained mergers, a shorter vocabulary."""
    generator = torch.Generator().manual_seed(7)

    def draw(*shape: int) -> Tensor:
        return (torch.randn(shape, generator=generator) * 0.1).bfloat16()

    merged = {name: draw(*tensor.shape) for name, tensor in X2SAM(TINY).state_dict().items() if name != HEAD}
    checkpoint = {"segmentor.shared_image_embedding.positional_embedding": draw(2, 16)}
    base = {"model.language_model.embed_tokens.weight": draw(BASE_ROWS, merged[EMBEDDING].shape[1])}
    for name, weight in merged.items():
        key = name.removeprefix("vlm.")
        if not name.startswith("vlm."):
            checkpoint[name] = weight
        elif "merger" in name:
            checkpoint[WRAPPED + key], base[key] = weight, draw(*weight.shape)
        elif name != EMBEDDING:
            base[key] = weight
        if "language_model.layers" in name and "_proj" in name:
            low, high = draw(RANK, weight.shape[1]).float(), draw(weight.shape[0], RANK).float()
            stem = WRAPPED + key.removesuffix(".weight")
            checkpoint |= {f"{stem}.lora_A.default.weight": low, f"{stem}.lora_B.default.weight": high}
            merged[name] = weight.float() + (ALPHA / RANK) * (high @ low)
    for key in ("model.language_model.embed_tokens.weight", "lm_head.weight"):
        checkpoint[WRAPPED + key] = merged[EMBEDDING].clone()
    return Reference(checkpoint, base, {name: tensor.float() for name, tensor in merged.items()})


def rename(tensors: Tensors, old: str, new: str) -> None:
    tensors[new] = tensors.pop(old)


LOW = f"{WRAPPED}model.language_model.layers.1.mlp.up_proj.lora_A.default.weight"

# Changes to the checkpoint, each with what the one line of the error must say.
FAULTS: dict[str, tuple[Callable[[Tensors], object], str]] = {
    "one short": (
        lambda t: t.pop("segmentor.encoder.neck.convs.2.bias"),
        "1 missing: segmentor.encoder.neck.convs.2.bias",
    ),
    "five short": (
        lambda t: (
            [t.pop(key) for key in list(t) if "memory_attention.layer_norm" in key or "neck.convs.1" in key]
            and t.pop("segmentor.no_memory_embedding")
        ),
        "5 missing: segmentor.encoder.neck.convs.1.bias, segmentor.encoder.neck.convs.1.weight, "
        "segmentor.memory_attention.layer_norm.bias and 2 more",
    ),
    "one too many": (
        lambda t: t.update({"segmentor.criterion.weight": torch.zeros(3)}),
        "1 unexpected: segmentor.criterion.weight",
    ),
    "one misnamed": (
        lambda t: rename(t, "mlm_projector.model.0.bias", "mlm_projector.model.1.bias"),
        "1 missing: mlm_projector.model.0.bias; 1 unexpected: mlm_projector.model.1.bias",
    ),
    "one wrong shape": (
        lambda t: t.update({"mlm_projector.model.0.bias": torch.zeros(31)}),
        "1 of the wrong shape: mlm_projector.model.0.bias (31,) instead of (32,)",
    ),
    "sizes cannot be told": (lambda t: t.pop("bg_embeds.weight"), "the weights lack bg_embeds.weight"),
    "flat background": (
        lambda t: t.update({"bg_embeds.weight": torch.zeros(32)}),
        "bg_embeds.weight has shape (32,)",
    ),
    "a layer gone": (
        lambda t: [t.pop(key) for key in list(t) if "decoder.decoder.layers.1." in key],
        "the weights lack some of segmentor.decoder.decoder.layers.0 to segmentor.decoder.decoder.layers.2",
    ),
    "half an update": (lambda t: t.pop(LOW), "layers.1.mlp.up_proj.weight lacks its A half"),
    "another rank": (
        lambda t: t.update({LOW: torch.zeros(3, 32)}),
        "does not fit: weight, B and A have shapes (48, 32), (48, 2), (3, 32)",
    ),
    "update of nothing": (
        lambda t: [rename(t, key, key.replace("up_proj", "upper")) for key in list(t) if "1.mlp.up_proj" in key],
        "updates vlm.model.language_model.layers.1.mlp.upper.weight, which is in neither file",
    ),
    "twice": (
        lambda t: t.update({EMBEDDING: t[WRAPPED + EMBEDDING.removeprefix("vlm.")]}),
        f"has {EMBEDDING} twice",
    ),
    "head apart": (
        lambda t: t.update({WRAPPED + "lm_head.weight": t[WRAPPED + "lm_head.weight"] + 1}),
        "are one parameter in the network but differ",
    ),
    "not finite": (
        lambda t: t.update({"bg_embeds.weight": torch.full((1, 32), torch.nan)}),
        "bg_embeds.weight is not finite",
    ),
    "a number in it": (lambda t: t.update({"epoch": 3}), "more than weights ('epoch': int); refused"),
    "whole numbers": (
        lambda t: t.update({"steps": torch.zeros(2, dtype=torch.int64)}),
        "more than weights ('steps': tensor of torch.int64); refused",
    ),
    "nothing in it": (lambda t: t.clear(), "holds no dictionary of tensors"),
}
