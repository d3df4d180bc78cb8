"""The network a run starts from: parts from files, the rest drawn; then what of it learns.

Source of the recipes: Mask2Former (arXiv 2112.01527) for the pixel decoder and decoder; wanghao9610/X2SAM@5b0b106
`segmentors/x_segmentor.py` `_init_decoder_weights`, `_init_memory_weights`, `model/x2sam.py`.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from torch import nn

from x2roto.engine.convert import SPECIAL_TOKENS
from x2roto.engine.model.language import LanguageModel
from x2roto.engine.model.mask_decoder import DecoderLayer, MaskDecoder, PackedAttention
from x2roto.engine.model.memory_attention import Carry
from x2roto.engine.model.outliner import Block
from x2roto.engine.model.pixel_decoder import LEVELS, DeformableAttention, PixelDecoder
from x2roto.engine.model.segmentor import Segmentor
from x2roto.engine.model.word_reading import WordReading
from x2roto.engine.model.x2sam import X2SAM
from x2roto.engine.model_folder import find_model, read_json
from x2roto.engine.weights import check_fit, load_model, read_base, read_folder, read_tensors, shapes_of
from x2roto.engine.wording import Lexicon
from x2roto.errors import ModelError, PromptError
from x2roto.train.config import Initial, Language, TrainConfig
from x2roto.train.network import SegmentorAlone
from x2roto.train.words import footage_lexicon, learnt_tokenizer

FOOTAGE = "x2roto.train.procedural:open_footage"  # data that asks in words known beforehand
# The tokenizers without a file.
BYTES = "bytes"
LEARNT = "learnt"
CHAT_TOKENS = ("<|im_start|>", "<|im_end|>", "<|endoftext|>", "<|vision_start|>", "<|vision_end|>")
SPREAD = 0.02
# The seven linear maps of a text layer.
TEXT_LINEARS = r".*language_model\.layers\.\d+\.(self_attn\.[qkvo]_proj|mlp\.(gate|up|down)_proj)"
# What the language model learns beside its text layers: the vocabulary has new words, the mergers a new reader.
ALWAYS_LEARNED = re.compile(r"embed_tokens|lm_head|visual\.(merger|deepstack_merger_list)")


# What stage "segmentor" knows of; memory and language are left as they were drawn.
LEARNT_ALONE = ("segmentor.encoder.", "segmentor.pixel_decoder.", "segmentor.decoder.")


# ---- tokenizer ------------------------------------------------------------------------------------------


def load_tokenizer(config: TrainConfig) -> Tokenizer:
    """The run's tokenizer, with X2SAM's three tokens last. Raises PromptError when none is named."""
    initial = config.initial
    named = initial.tokenizer or initial.model or initial.language
    if named is None:
        raise PromptError(
            f"no tokenizer: in [initial] set tokenizer to the folder of tokenizer.json, to {BYTES!r} or to {LEARNT!r}"
        )
    if named == BYTES:
        tokenizer = byte_tokenizer()
    elif named == LEARNT:
        tokenizer = learnt_tokenizer(CHAT_TOKENS)
    else:
        path = (Path(named) if Path(named).exists() else find_model(named)) / "tokenizer.json"
        if not path.is_file():
            raise ModelError(f"no tokenizer at {path}", path)
        tokenizer = Tokenizer.from_file(str(path))
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS])
    return tokenizer


def known_words(config: TrainConfig) -> Lexicon | None:
    """The words that a finder knows after the run: those of footage, or, if it learns nothing, those it began with;
    None where other data may have taught it any."""
    if all(source.open == FOOTAGE for source in config.data):
        return footage_lexicon()
    named = config.initial.model
    return Lexicon.read(find_model(named)) if named and config.stage == "outliner" else None


def byte_tokenizer() -> Tokenizer:
    """One token per byte and the chat template's markers, for networks too small for a real vocabulary."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={char: index for index, char in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(CHAT_TOKENS))
    return tokenizer


# ---- parameters -----------------------------------------------------------------------------------------


def initial_model(config: TrainConfig, tokenizer: Tokenizer, device: torch.device) -> X2SAM:
    """The whole network before the first step, float32, on a device.

    Raises ModelError when a file is missing or does not fit.
    """
    rows = tokenizer.get_vocab_size(with_added_tokens=True)
    if config.initial.model is not None:
        model = load_model(find_model(config.initial.model), device, torch.float32)
        torch.manual_seed(config.run.seed)
        model = _changed(model, config.initial)
    else:
        model = _assembled(config, rows, device)
    found = model.vlm.get_input_embeddings().num_embeddings
    if found != rows:
        raise ModelError(f"the network has {found} words, its tokenizer {rows}: name the tokenizer it was made with")
    return model


def _changed(model: X2SAM, initial: Initial) -> X2SAM:
    """The same parameters in a network that sees squares of another side, or has parts that it had not."""
    config = model.config
    memory = replace(
        config.memory,
        anchored=config.memory.anchored or initial.anchored,
        carry=0 if initial.plain else config.memory.carry,
    )
    decoder = replace(config.decoder, reading=0 if initial.plain else config.decoder.reading or initial.reading)
    side = initial.image_size or config.image_size
    finder = replace(config.finder, dim=config.finder.dim or initial.finder)
    outliner = replace(
        config.outliner,
        dim=config.outliner.dim or initial.outliner,
        side=initial.outline_side or config.outliner.side,
        blocks=initial.outline_blocks or config.outliner.blocks,
        alone=config.outliner.alone or initial.outline_alone,
    )
    config = replace(config, image_size=side, memory=memory, decoder=decoder, finder=finder, outliner=outliner)
    if config == model.config:
        return model
    with model.device:
        changed = X2SAM(config)
    for part in _new_parts(model, changed):
        part.silence()
    own = changed.state_dict()
    own.update((name, tensor) for name, tensor in model.state_dict().items() if name in own)
    changed.load_state_dict(own)
    return changed


def _new_parts(model: X2SAM, changed: X2SAM) -> Iterator[Carry | WordReading | Block]:
    """What stands in the way of others, so that it must change nothing at first."""
    for name in ("match", "reading"):
        part = getattr(changed.segmentor, name)
        if part is not None and getattr(model.segmentor, name) is None:
            yield part
    if model.outliner is not None and changed.outliner is not None:
        yield from cast(Iterable[Block], changed.outliner.blocks[len(model.outliner.blocks) :])


def initial_segmentor(config: TrainConfig, device: torch.device) -> SegmentorAlone:
    """The segmentor before the first step of stage "segmentor", as `initial_model`. It knows no first frame, so
    SAM 2.1's embedding of one is left for stage "joint"."""
    torch.manual_seed(config.run.seed)
    sizes, initial = config.model, config.initial
    whole = None if initial.model is None else load_model(find_model(initial.model), "cpu", torch.float32)
    with device:
        model = SegmentorAlone(sizes if whole is None else whole.config)
    draw_parameters(model.segmentor, initial.spread)
    if whole is not None:
        model.segmentor.load_state_dict(whole.segmentor.state_dict())
    if initial.mask_encoder is not None:
        _take_mask_encoder(model.segmentor, Path(initial.mask_encoder), first_frame=False)
    if initial.segmentor is not None:
        _take_segmentor(model, Path(initial.segmentor))
    return model


def _assembled(config: TrainConfig, rows: int, device: torch.device) -> X2SAM:
    torch.manual_seed(config.run.seed)
    initial = config.initial
    language = _language_config(config, rows)
    with device:
        model = X2SAM(replace(config.model, language=language))
    draw_parameters(model.segmentor, initial.spread)
    if initial.language is not None:
        _take_language(model, Path(initial.language))
        model.vlm.resize_token_embeddings(rows, mean_resizing=False)
        model.config = replace(model.config, language=_resized(language, rows))
    if initial.mask_encoder is not None:
        _take_mask_encoder(model.segmentor, Path(initial.mask_encoder), first_frame=True)
    if initial.segmentor is not None:
        _take_segmentor(model, Path(initial.segmentor))
    return model


def _language_config(config: TrainConfig, rows: int) -> dict[str, Any]:
    if config.initial.language is not None:
        return read_json(Path(config.initial.language) / "config.json")
    return _resized(config.model.language, rows)


def _resized(language: Mapping[str, Any], rows: int) -> dict[str, Any]:
    return {**language, "text_config": {**language.get("text_config", {}), "vocab_size": rows}}


def draw_parameters(segmentor: Segmentor, spread: float = SPREAD) -> None:
    """Fresh values, in place; the mask encoder keeps those of its library. `spread` as `Initial` has it."""
    _draw_pixel_decoder(segmentor.pixel_decoder)
    _draw_decoder(segmentor.decoder, spread)
    for part in (segmentor.memory_attention, segmentor.memory_encoder):
        part.apply(partial(_draw_normal, spread=spread))


def _draw_pixel_decoder(decoder: PixelDecoder) -> None:
    _draw_xavier(decoder)
    for module in decoder.modules():
        if isinstance(module, DeformableAttention):
            _draw_deformable(module)


def _draw_deformable(attention: DeformableAttention) -> None:
    """Every head starts by looking in a direction of its own, at 1, 2, 3, … pixels (arXiv 2010.04159)."""
    nn.init.zeros_(attention.sampling_offsets.weight)
    nn.init.zeros_(attention.attention_weights.weight)
    nn.init.zeros_(attention.attention_weights.bias)
    nn.init.zeros_(attention.value_proj.bias)
    nn.init.zeros_(attention.output_proj.bias)
    angles = torch.arange(attention.heads) * (2 * math.pi / attention.heads)
    directions = torch.stack((angles.cos(), angles.sin()), dim=-1)
    directions = directions / directions.abs().amax(-1, keepdim=True)
    steps = torch.arange(1, attention.points + 1)[:, None]
    grid = (directions[:, None, None] * steps).expand(-1, LEVELS, -1, -1)
    with torch.no_grad():
        attention.sampling_offsets.bias.copy_(grid.flatten())


def _draw_decoder(decoder: MaskDecoder, spread: float) -> None:
    decoder.apply(partial(_draw_normal, spread=spread))
    for layer in decoder.modules():
        if isinstance(layer, DecoderLayer):
            _draw_xavier(layer)
            _silence(layer.text_cross_attn)


def _silence(attention: PackedAttention) -> None:
    """Token attention starts as if it were not there."""
    nn.init.zeros_(attention.out_proj.weight)
    nn.init.zeros_(attention.out_proj.bias)


def _draw_xavier(module: nn.Module) -> None:
    for name, parameter in module.named_parameters():
        if parameter.ndim > 1 and "level_embed" not in name:
            nn.init.xavier_uniform_(parameter)


def _draw_normal(module: nn.Module, *, spread: float) -> None:
    if isinstance(module, nn.Linear | nn.Conv2d | nn.Embedding):
        inputs = module.weight[0].numel()
        nn.init.normal_(module.weight, std=spread or inputs**-0.5)
        if not isinstance(module, nn.Embedding) and module.bias is not None:
            nn.init.zeros_(module.bias)


# ---- from files -----------------------------------------------------------------------------------------


def _take_language(model: X2SAM, folder: Path) -> None:
    tensors = read_base(folder)
    wanted = shapes_of(model.vlm.state_dict())
    if "lm_head.weight" not in tensors:
        wanted.pop("lm_head.weight")
    check_fit(shapes_of(tensors), wanted, str(folder))
    model.vlm.load_state_dict(tensors, strict=False)


def _take_mask_encoder(segmentor: Segmentor, folder: Path, *, first_frame: bool) -> None:
    prefix = "vision_encoder."
    tensors = read_folder(folder)
    encoder = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    check_fit(shapes_of(encoder), shapes_of(segmentor.encoder.state_dict()), str(folder))
    segmentor.encoder.load_state_dict(encoder)
    if first_frame and "no_memory_embedding" in tensors:
        with torch.no_grad():
            segmentor.no_memory_embedding.copy_(tensors["no_memory_embedding"])


def _take_segmentor(model: X2SAM | SegmentorAlone, path: Path) -> None:
    """What fits by name and shape: a stage 1 run knows nothing of memory and language."""
    own = model.state_dict()
    taken = {
        name: tensor
        for name, tensor in read_tensors(path).items()
        if name.startswith(LEARNT_ALONE) and name in own and own[name].shape == tensor.shape
    }
    if not taken:
        raise ModelError(f"{path} holds nothing of this network's segmentor: give model.safetensors of a stage 1 run")
    model.load_state_dict(taken, strict=False)


# ---- what learns ----------------------------------------------------------------------------------------


def learn_segmentor(model: SegmentorAlone, *, encoder: bool) -> None:
    """Stage "segmentor": pixel decoder and decoder learn, the mask encoder if `encoder`; nothing else."""
    model.requires_grad_(False)
    segmentor = model.segmentor
    segmentor.pixel_decoder.requires_grad_(True)
    segmentor.decoder.requires_grad_(True)
    segmentor.encoder.requires_grad_(encoder)
    for layer in segmentor.decoder.decoder.layers:
        layer.text_cross_attn.requires_grad_(False)
        layer.text_cross_attn_layer_norm.requires_grad_(False)


def learn_all(model: X2SAM, language: Language, *, encoder: bool) -> None:
    """Stage "joint": everything but the mask encoder unless `encoder`, the vision tower, and text layers as
    `language` says. The vision tower learns only with all text layers."""
    model.requires_grad_(True)
    model.segmentor.encoder.requires_grad_(encoder)
    if language.learn == "full":
        return
    if language.learn == "lora":
        model.vlm = with_updates(model.vlm, language)
    for name, parameter in model.vlm.named_parameters():
        parameter.requires_grad_("lora_" in name or ALWAYS_LEARNED.search(name) is not None)


def with_updates(vlm: LanguageModel, language: Language) -> LanguageModel:
    """The language model with low-rank updates on its text layers, which alone learn; peft's wrapping hands every
    other call through."""
    from peft import LoraConfig, get_peft_model

    updates = LoraConfig(
        r=language.rank,
        lora_alpha=language.alpha,
        lora_dropout=language.dropout,
        target_modules=TEXT_LINEARS,
        task_type="CAUSAL_LM",
    )
    with warnings.catch_warnings():
        # peft asks transformers by a name that is about to change.
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing`", category=FutureWarning)
        return cast(LanguageModel, get_peft_model(vlm, updates))
