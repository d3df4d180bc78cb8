"""A whole segmenter of random weights, small enough for any test: same classes, tiny sizes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from tokenizers.decoders import ByteLevel

from x2roto.engine.model.config import (
    FinderConfig,
    MaskDecoderConfig,
    MaskEncoderConfig,
    MemoryConfig,
    ModelConfig,
    OutlinerConfig,
    PixelDecoderConfig,
    RegionConfig,
)
from x2roto.engine.model.x2sam import X2SAM
from x2roto.engine.segmenter import Segmenter

SPECIAL = ["<|im_start|>", "<|im_end|>", "<|endoftext|>", "<|vision_start|>", "<|vision_end|>"]
ADDED = ["<SEG>", "<p>", "</p>"]
ROWS = 256 + len(SPECIAL) + len(ADDED)

TINY = ModelConfig(
    name="tiny",
    image_size=64,
    dim=32,
    encoder=MaskEncoderConfig(
        embed_dims=(8, 16, 32, 48),
        blocks=(1, 1, 2, 1),
        heads=(1, 2, 2, 2),
        windows=(8, 4, 4, 2),
        global_blocks=(3,),
        fpn_dim=32,
    ),
    pixel_decoder=PixelDecoderConfig(layers=1, heads=4, feedforward=32),
    memory=MemoryConfig(layers=2, feedforward=32, fuser_feedforward=32),
    decoder=MaskDecoderConfig(queries=12, layers=3, heads=4, feedforward=32),
    region=RegionConfig(points=32, pool=4),
    language={
        "text_config": {
            "vocab_size": ROWS,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 8,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 5000000.0,
                "mrope_section": [2, 1, 1],
                "mrope_interleaved": True,
            },
            "tie_word_embeddings": True,
        },
        "vision_config": {
            "depth": 4,
            "hidden_size": 16,
            "intermediate_size": 32,
            "num_heads": 2,
            "patch_size": 16,
            "temporal_patch_size": 2,
            "spatial_merge_size": 2,
            "out_hidden_size": 32,
            "num_position_embeddings": 36,
            "deepstack_visual_indexes": [0, 1, 2],
        },
        "tie_word_embeddings": True,
    },
)


FINDER = FinderConfig(dim=16, heads=2, layers=1, text_layers=1, feedforward=24, widths=(16, 16, 24, 32))
OUTLINER = OutlinerConfig(dim=8, tokens=12, blocks=2)


def byte_tokenizer() -> Tokenizer:
    """One token per byte, the chat template's markers, and X2SAM's three tokens last."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={char: index for index, char in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = ByteLevel()
    tokenizer.add_special_tokens([*SPECIAL, *ADDED])
    return tokenizer


def tiny_model(seed: int = 0, config: ModelConfig = TINY) -> X2SAM:
    """Random weights, the same for a seed; spread enough that masks are neither empty nor full."""
    torch.manual_seed(seed)
    model = X2SAM(config).eval()
    with torch.no_grad():
        for name, parameter in model.segmentor.named_parameters():
            if parameter.ndim > 1:
                parameter.mul_(2 if "mask_embedder" in name else 1)
        model.segmentor.no_memory_embedding.normal_(std=0.1)
        for block in model.segmentor.memory_encoder.memory_fuser.layers:
            block.scale.fill_(0.1)
    return model


def tiny_segmenter(seed: int = 0, **changes: object) -> Segmenter:
    """`tiny_model` with its tokenizer; `changes` replace fields of the config."""
    return Segmenter(tiny_model(seed, replace(TINY, **changes)), byte_tokenizer())


def write_tiny_model(folder: Path, seed: int = 0) -> Path:
    """A model folder with the tiny random weights, as the command line loads it."""
    from x2roto.engine.convert import Provenance, write_model
    from x2roto.engine.weights import Blueprint

    tokenizer = folder.with_name(f"{folder.name}-tokenizer")
    tokenizer.mkdir(parents=True)
    byte_tokenizer().save(str(tokenizer / "tokenizer.json"))
    model = tiny_model(seed)
    state = model.state_dict()
    write_model(
        folder,
        TINY,
        Blueprint.of(model).shapes,
        state.__getitem__,
        tokenizer=tokenizer,
        dtype="float32",
        provenance=Provenance({}, {}, ()),
    )
    return folder
