"""Time, arithmetic and memory of every stage of the network, with random weights: `python bench/engine.py --help`.

Every stage is built twice: on torch's meta device, where its operations are counted, and on the chosen device,
where it is timed. A large matrix product timed in the same run is the ceiling its rate is held against, and the
reference's order of work, timed in the same run, is what claims of speed are held against.
"""

from __future__ import annotations

import copy
import json
import math
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from rich.console import Console
from rich.table import Table
from tokenizers import Tokenizer, models
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_any, tree_map_only
from torch.utils.flop_counter import FlopCounterMode
from transformers import Mask2FormerConfig
from transformers.models.mask2former.modeling_mask2former import Mask2FormerPixelDecoder

from x2roto.cli.options import Quality
from x2roto.clip import Frame
from x2roto.engine.assembly import NONE, Conditions, Spliced
from x2roto.engine.identity import Target
from x2roto.engine.kernels import fast_attention
from x2roto.engine.memory import Memory
from x2roto.engine.model.config import (
    MaskDecoderConfig,
    MaskEncoderConfig,
    MemoryConfig,
    ModelConfig,
    PixelDecoderConfig,
)
from x2roto.engine.model.language import Visual
from x2roto.engine.model.mask_decoder import Decoded
from x2roto.engine.model.segmentor import FrameFeatures, Maps, Prediction, Segmentor
from x2roto.engine.model.x2sam import X2SAM
from x2roto.engine.parity import Golden, run_segmentor
from x2roto.engine.preprocess import PatchConfig, video_size
from x2roto.engine.quality import at_quality
from x2roto.engine.segmenter import Segmenter, patch_config
from x2roto.engine.shot import Query, ShotState
from x2roto.engine.tasks import PHRASE_END, PHRASE_START, SEG
from x2roto.engine.tracker import Tracker
from x2roto.engine.weights import Blueprint, blank_model, build, laid_out
from x2roto.passes import chunked

# --- Sizes -----------------------------------------------------------------------------------------


def qwen3_vl(text: dict[str, int], vision: dict[str, int], sections: list[int], taps: list[int]) -> dict[str, Any]:
    """Config of a Qwen3-VL with these sizes. `sections`: rotary pairs per axis; `taps`: deepstack blocks."""
    rope = {"rope_type": "default", "rope_theta": 5e6, "mrope_section": sections, "mrope_interleaved": True}
    cut = {"patch_size": 16, "temporal_patch_size": 2, "spatial_merge_size": 2}
    return {
        "text_config": {**text, "rope_parameters": rope, "tie_word_embeddings": True},
        "vision_config": {
            **vision, **cut, "out_hidden_size": text["hidden_size"], "deepstack_visual_indexes": taps
        },
        "tie_word_embeddings": True,
    }  # fmt: skip


# Qwen3-VL-4B-Instruct with the released vocabulary: its rows plus <SEG>, <p> and </p>.
QWEN3_VL_4B = qwen3_vl(
    {
        "vocab_size": 151672,
        "hidden_size": 2560,
        "intermediate_size": 9728,
        "num_hidden_layers": 36,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "max_position_embeddings": 262144,
    },
    {
        "depth": 24,
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_heads": 16,
        "num_position_embeddings": 2304,
    },
    sections=[24, 20, 20],
    taps=[5, 11, 17],
)

SMALL_LANGUAGE = qwen3_vl(
    {
        "vocab_size": 512,
        "hidden_size": 128,
        "intermediate_size": 512,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 32,
    },
    {"depth": 4, "hidden_size": 64, "intermediate_size": 256, "num_heads": 4, "num_position_embeddings": 256},
    sections=[6, 5, 5],
    taps=[0, 1, 2],
)

SMALL = ModelConfig(
    name="small",
    image_size=256,
    dim=64,
    encoder=MaskEncoderConfig(
        embed_dims=(32, 64, 128, 256),
        blocks=(1, 2, 6, 1),
        heads=(1, 2, 4, 8),
        global_blocks=(5, 7),
        fpn_dim=64,
    ),
    pixel_decoder=PixelDecoderConfig(feedforward=256),
    memory=MemoryConfig(feedforward=512, fuser_feedforward=256),
    decoder=MaskDecoderConfig(queries=100, feedforward=512),
    language=SMALL_LANGUAGE,
)


@dataclass(frozen=True, slots=True)
class Workload:
    """What is run. `plate`: width and height of a source frame. `glimpse`: frames the language model sees.
    `text`: tokens of the prompt beside the picture's. `frames`: frames of a whole-frame measurement. `chunk`:
    frames encoded at once. `memory`: frames remembered."""

    config: ModelConfig
    plate: tuple[int, int]
    language: bool
    frames: int
    chunk: int
    memory: int
    glimpse: int = 16
    text: int = 128


class Size(StrEnum):
    FULL = "full"
    SMALL = "small"


class Dtype(StrEnum):
    BFLOAT16 = "bfloat16"
    FLOAT32 = "float32"


def workload(
    size: Size, *, language: bool, frames: int, chunk: int, memory: int, quality: Quality = Quality.EXACT
) -> Workload:
    """A size's workload. Without the language model a small one stands in, which is neither run nor large."""
    full = ModelConfig(language=QWEN3_VL_4B if language else SMALL_LANGUAGE)
    config, plate = (full, (1920, 1080)) if size is Size.FULL else (SMALL, (480, 270))
    return Workload(at_quality(config, quality.value), plate, language, frames, chunk, memory)


# --- Network and inputs ----------------------------------------------------------------------------


def random_model(config: ModelConfig, device: torch.device, dtype: torch.dtype) -> X2SAM:
    """The network with random weights made on the device, or on the meta device without any."""
    blank = blank_model(config)
    if device.type == "meta":
        model = blank.to("meta").to(dtype).eval()
    else:
        state = random_state(Blueprint.of(blank).shapes, device, dtype)
        model = laid_out(build(config, state, device=device, source="random weights"))
    return model.requires_grad_(False)


def random_state(
    shapes: Mapping[str, tuple[int, ...]], device: torch.device, dtype: torch.dtype
) -> dict[str, Tensor]:
    """Weights that keep a signal's size from layer to layer, so that outputs are worth comparing."""
    return {name: _random_parameter(name, shape, device, dtype) for name, shape in shapes.items()}


def _random_parameter(name: str, shape: tuple[int, ...], device: torch.device, dtype: torch.dtype) -> Tensor:
    noise = torch.randn(shape, device=device, dtype=dtype)
    if len(shape) > 1:
        return noise.mul_(math.prod(shape[1:]) ** -0.5)
    gain = 1.0 if name.endswith("weight") else 0.0
    return noise.mul_(0.02).add_(gain)


@dataclass(frozen=True, slots=True)
class Scene:
    """A network in the middle of a shot: inputs of every stage. Batches are `workload.chunk` frames long."""

    workload: Workload
    model: X2SAM
    pixels_bchw: Tensor
    pyramid: Maps
    region_bhwc: Tensor
    features: FrameFeatures
    memory: Memory
    conditions: Conditions
    prediction: Prediction

    @property
    def segmentor(self) -> Segmentor:
        return self.model.segmentor

    @property
    def frame(self) -> FrameFeatures:
        """Features of the first frame alone."""
        return next(self.features.frames())


def build_scene(model: X2SAM, work: Workload) -> Scene:
    """Random frames and conditions, with the memory full."""
    segmentor, side = model.segmentor, work.config.image_size

    def noise(*shape: int) -> Tensor:
        return torch.randn(shape, device=model.device, dtype=model.dtype)

    pixels = noise(work.chunk, 3, side, side)
    encoded = segmentor.encoder(pixels)
    features = segmentor.features(encoded.levels_bchw, first=False)
    conditions = random_conditions(noise, work.config.dim)
    memory = Memory(work.memory)
    for _ in range(work.memory):
        memory = memory.remember(tuple(noise(1, *level.shape[1:]) for level in features.downsampled))
    prediction = segmentor.predict(segmentor.decode(next(features.frames()), memory, conditions), conditions)
    return Scene(
        work, model, pixels, encoded.levels_bchw, encoded.region_bhwc, features, memory, conditions, prediction
    )


def random_conditions(noise: Callable[..., Tensor], dim: int, phrase: int = 8) -> Conditions:
    """One phrase of a few tokens, and the background."""
    cond, tokens, seg = noise(1, 2, dim), noise(1, phrase, dim), noise(1, 1, dim)
    valid = [torch.ones_like(rows[..., 0], dtype=torch.bool) for rows in (cond, tokens)]
    return Conditions(cond, tokens, seg, *valid)


# --- Stages ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Stage:
    """Something to time. One run does the work of `frames` frames; figures are given for one."""

    name: str
    run: Callable[[], object]
    frames: int = 1


def stages(scene: Scene) -> Iterator[Stage]:
    """Every stage of the network, in the order a shot meets them, and all of them together."""
    segmentor, chunk = scene.segmentor, scene.workload.chunk
    frame = scene.frame
    yield Stage("mask encoder and neck", lambda: segmentor.encoder(scene.pixels_bchw), chunk)
    yield Stage("pixel decoder", lambda: segmentor.pixel_decoder(scene.pyramid), chunk)
    for scale, level in enumerate(frame.levels):
        name = f"memory attention {level.shape[-2]}x{level.shape[-1]}"
        yield Stage(name, partial(attend, segmentor, frame, scene.memory, scale))
    yield Stage("mask decoder", lambda: segmentor.decoder(frame.levels, frame.masks[0], scene.conditions))
    yield Stage(
        "memory encoder, downsample", lambda: segmentor.memory_encoder.downsample(scene.features.levels), chunk
    )
    yield Stage("memory encoder, fuse", lambda: segmentor.remember(frame, scene.prediction, scene.memory))
    yield Stage("whole frame", lambda: ours_in_order(scene, scene.workload.frames), scene.workload.frames)
    if scene.workload.language:
        yield from language_stages(scene)


def attend(segmentor: Segmentor, frame: FrameFeatures, memory: Memory, scale: int) -> Tensor:
    """One scale of one frame conditioned on memory, with the part that may run ahead."""
    attention, level = segmentor.memory_attention, frame.levels[scale]
    positions = segmentor.memory_positions(memory)
    fine = segmentor.fine(scale)
    prepared = attention.prepare(level, fine=fine)
    attended: Tensor = attention(prepared, level, memory.tokens(scale), positions, fine=fine)
    return attended


def ours_in_order(scene: Scene, frames: int) -> list[Tensor]:
    """Mask logits of `frames` further frames: chunks encoded at once, the recurrent rest frame by frame."""
    segmentor, memory, logits = scene.segmentor, scene.memory, []
    for start in range(0, frames, scene.workload.chunk):
        pyramid = segmentor.encoder(scene.pixels_bchw[: frames - start]).levels_bchw
        for features in segmentor.features(pyramid, first=False).frames():
            decoded = segmentor.decode(features, memory, scene.conditions)
            prediction = segmentor.predict(decoded, scene.conditions)
            memory = segmentor.remember(features, prediction, memory)
            logits.append(prediction.mask_logits_bqhw)
    return logits


def language_stages(scene: Scene) -> Iterator[Stage]:
    """What runs once per prompt: vision tower, one pass over the prompt, one region's rows."""
    model, language = scene.model, scene.model.vlm
    rows, grid = random_patches(scene)
    visual = language.see(rows, grid)
    prompt = random_prompt(scene, visual)
    # Where a picture's rows stand cannot be looked up on the meta device; adding them multiplies nothing.
    shown = replace(visual, deepstack=()) if model.device.type == "meta" else visual
    points = torch.rand(1, scene.workload.config.region.points, 2, device=model.device)
    yield Stage(f"vision tower, {len(rows)} patches", lambda: language.see(rows, grid))
    yield Stage(
        f"prompt pass, {prompt.embeds_bld.shape[1]} tokens",
        lambda: model.mlm_projector(language.think(prompt, shown)),
    )
    yield Stage("region sampling", lambda: model.region_rows(model.region_map(scene.region_bhwc[:1])[0], points))


def random_patches(scene: Scene) -> tuple[Tensor, Tensor]:
    """Patches of a glimpse of the clip, cut up as the engine would, and their grid."""
    patches, device = patch_config(scene.model), scene.model.device
    grid = glimpse_grid(patches, scene.workload)
    rows = torch.randn(math.prod(grid), 3 * patches.temporal * patches.patch**2, device=device)
    # The tower cuts its rows by the grid's values, which the meta device has none of.
    return rows, torch.tensor([grid], device="cpu" if device.type == "meta" else device)


def glimpse_grid(patches: PatchConfig, work: Workload) -> tuple[int, int, int]:
    width, height = work.plate
    rows, columns = (side // patches.patch for side in video_size(work.glimpse, height, width, patches))
    return math.ceil(work.glimpse / patches.temporal), rows, columns


def random_prompt(scene: Scene, visual: Visual) -> Spliced:
    """A prompt that shows the picture's rows and goes on with text."""
    seen, device = len(visual.rows), scene.model.device
    length = seen + scene.workload.text
    embeds = torch.randn(1, length, visual.rows.shape[-1], device=device, dtype=scene.model.dtype)
    positions = torch.arange(length, device=device)[None]
    nothing = torch.full_like(positions, NONE)
    # Whether all of it is attended is asked in Python, which a mask on the meta device cannot answer.
    attended = torch.ones(1, length, dtype=torch.bool)
    return Spliced(embeds, attended, positions, positions < seen, nothing, nothing, nothing)


def tracker_stage(scene: Scene) -> Stage:
    """Frames through `Tracker.step`: the whole frame with resizing, identities and everything around it."""
    tracker, frames = random_shot(scene, scene.workload.frames)
    tracker.state = ShotState(scene.memory, tracker.state.known)
    return Stage("whole frame, through the tracker", lambda: list(tracker.step(frames)), scene.workload.frames)


def random_shot(scene: Scene, count: int) -> tuple[Tracker, list[Frame]]:
    """A tracker of one object, and so many frames of noise, which come again after a chunk."""
    work = scene.workload
    query = Query(((Target("matte"),),), scene.conditions, None, ("",))
    tracker = Segmenter(scene.model, special_tokenizer()).track(query, chunk=work.chunk, memory=work.memory)
    width, height = work.plate
    draw = np.random.default_rng(0)
    plates = [draw.integers(0, 256, (height, width, 3), dtype=np.uint8) for _ in range(min(count, work.chunk))]
    return tracker, [Frame(index, Fraction(index, 24), plates[index % len(plates)]) for index in range(count)]


@dataclass(frozen=True, slots=True)
class Steady:
    """A shot through the tracker from its first frame on. `first`: seconds to its mattes. `rate`: frames/s of the
    second half. `peak_bytes`: device memory held at most, None: not a GPU."""

    frames: int
    first: float
    rate: float
    peak_bytes: int | None


def follow_shot(scene: Scene, frames: int) -> Steady:
    """Time a shot of random plates whose mattes are waited for one by one, as a writer would."""
    device = scene.model.device
    tracker, shown = random_shot(scene, frames)
    _memory(device)
    times = [time.perf_counter()]
    for result in tracker.run(chunked(shown, scene.workload.chunk)):
        result.seen[0].logits.amax().item()
        times.append(time.perf_counter())
    later = times[len(times) // 2 :]
    return Steady(frames, times[1] - times[0], (len(later) - 1) / (later[-1] - later[0]), _memory(device, peak=True))


def special_tokenizer() -> Tokenizer:
    """Knows X2SAM's own three tokens; nothing here reads text."""
    words = [SEG, PHRASE_START, PHRASE_END]
    return Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token=SEG))


# --- Measuring -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Timing:
    """Repeated runs. `seconds`: their median. `spread`: slowest less fastest, as a share of the median."""

    seconds: float
    fastest: float
    spread: float

    def per(self, frames: int) -> Timing:
        """The same for one of several frames."""
        return Timing(self.seconds / frames, self.fastest / frames, self.spread)


@dataclass(frozen=True, slots=True)
class Measured:
    """One stage, per frame. `gflop`: floating-point operations / 1e9, two per multiply-add; None: not counted.
    `working_bytes`: device memory beyond what weights and inputs hold, of a whole run; None: not a GPU."""

    name: str
    gflop: float | None
    timing: Timing | None
    working_bytes: int | None

    @property
    def rate(self) -> float | None:
        """Achieved GFLOP/s."""
        return self.gflop / self.timing.seconds if self.gflop and self.timing else None


class BesideMeta(TorchFunctionMode):
    """Small tables made on the CPU count as meta tensors beside one."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = dict(kwargs or {})
        if tree_any(lambda leaf: isinstance(leaf, Tensor) and leaf.is_meta, (args, kwargs)):
            args, kwargs = tree_map_only(Tensor, lambda tensor: tensor.to("meta"), (args, kwargs))
        return func(*args, **kwargs)


def count_flops(work: Workload, dtype: torch.dtype) -> dict[str, float]:
    """GFLOP per frame of every stage, by name."""
    with BesideMeta():
        scene = build_scene(random_model(work.config, torch.device("meta"), dtype), work)
        return {stage.name: _flops(stage) / stage.frames / 1e9 for stage in stages(scene)}


def _flops(stage: Stage) -> int:
    with FlopCounterMode(display=False) as counter:
        stage.run()
    return int(counter.get_total_flops())


def measure(stage: Stage, gflop: float | None, device: torch.device, repeats: int) -> Measured:
    """Time a stage and, on a GPU, its working memory."""
    held = _memory(device)
    (timing,) = interleaved([stage.run], device, repeats)
    peak = _memory(device, peak=True)
    working = None if held is None or peak is None else peak - held
    return Measured(stage.name, gflop, timing.per(stage.frames), working)


def _memory(device: torch.device, *, peak: bool = False) -> int | None:
    """Bytes allocated now, or at most since the last call without `peak`."""
    if device.type != "cuda":
        return None
    if peak:
        return torch.cuda.max_memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    return torch.cuda.memory_allocated(device)


def interleaved(runs: Sequence[Callable[[], object]], device: torch.device, repeats: int) -> list[Timing]:
    """Time each run after a warm-up, in turns, so that what slows the machine slows them all."""
    for run in runs:
        _seconds(run, device)
    rounds = [[_seconds(run, device) for run in runs] for _ in range(repeats)]
    return [_timing(samples) for samples in zip(*rounds, strict=True)]


def _timing(samples: Sequence[float]) -> Timing:
    middle, fastest = statistics.median(samples), min(samples)
    return Timing(middle, fastest, (max(samples) - fastest) / middle)


def _seconds(run: Callable[[], object], device: torch.device) -> float:
    if device.type != "cuda":
        start = time.perf_counter()
        run()
        return time.perf_counter() - start
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    run()
    end.record()
    end.synchronize()
    return float(begin.elapsed_time(end)) / 1000


def matmul_ceiling(device: torch.device, dtype: torch.dtype, repeats: int) -> float:
    """GFLOP/s of a large square matrix product of random numbers, the fastest of many."""
    side = 8192 if device.type == "cuda" else 2048
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    (timing,) = interleaved([lambda: a @ b], device, 5 * repeats)
    return 2 * side**3 / timing.fastest / 1e9


# --- The reference's order of work -----------------------------------------------------------------

# Largest relative RMS difference of float32 results that reordering the work may make. Not the largest element's:
# attention masks are thresholds, and a key that rounding puts on the other side moves single elements further.
SAME = 1e-4


@dataclass(frozen=True, slots=True)
class Comparison:
    """The same result twice: in the reference's way, and ours. One run does the work of `frames` frames."""

    name: str
    reference: Callable[[], Iterable[Tensor]]
    ours: Callable[[], Iterable[Tensor]]
    frames: int = 1


@dataclass(frozen=True, slots=True)
class Compared:
    """Times per frame, and the relative RMS difference of the float32 results."""

    name: str
    reference: Timing
    ours: Timing
    difference: float

    @property
    def speedup(self) -> float:
        return self.reference.seconds / self.ours.seconds


def comparisons(scene: Scene) -> Iterator[Comparison]:
    """Where our order of work differs from the reference's."""
    segmentor, work, frame = scene.segmentor, scene.workload, scene.frame
    stock = stock_pixel_decoder(segmentor, work.config)
    yield Comparison(
        "pixel decoder: transformers' | ours",
        lambda: stock_levels(stock, scene.pyramid),
        lambda: pixel_levels(segmentor, scene.pyramid),
        work.chunk,
    )
    yield Comparison(
        "encoder to memory attention: frame by frame | chunk",
        lambda: torch.cat([encoded_masks(segmentor, one) for one in scene.pixels_bchw.split(1)]).unbind(),
        lambda: encoded_masks(segmentor, scene.pixels_bchw).unbind(),
        work.chunk,
    )
    yield Comparison(
        "mask decoder: attention weights written out | fused",
        lambda: [decode_written_out(scene, frame.levels, frame.masks[0]).hidden_bqc],
        lambda: [segmentor.decoder(frame.levels, frame.masks[0], scene.conditions).hidden_bqc],
    )
    yield Comparison(
        "memory encoder: guidance per scale | once",
        lambda: remembered_by_scale(segmentor, frame.levels, scene.prediction),
        lambda: remembered_at_once(segmentor, frame.levels, scene.prediction),
    )
    yield Comparison(
        "whole frame: reference's order | ours",
        lambda: reference_in_order(scene, stock, work.frames),
        lambda: ours_in_order(scene, work.frames),
        work.frames,
    )


def stock_pixel_decoder(segmentor: Segmentor, config: ModelConfig) -> nn.Module:
    """The library's pixel decoder, which the reference uses, with our weights."""
    sizes = Mask2FormerConfig(
        feature_size=config.dim,
        mask_feature_size=config.dim,
        encoder_layers=config.pixel_decoder.layers,
        encoder_feedforward_dim=config.pixel_decoder.feedforward,
        num_attention_heads=config.pixel_decoder.heads,
        feature_strides=[4, 8, 16, 32],
        common_stride=4,
    )
    ours = segmentor.pixel_decoder
    stock = Mask2FormerPixelDecoder(sizes, [config.dim] * 3).to(ours.level_embed)
    stock.load_state_dict(ours.state_dict())
    return stock.eval()


def stock_levels(stock: nn.Module, pyramid: Maps) -> Maps:
    """All outputs of the library's pixel decoder, the per-pixel embedding last."""
    decoded = stock(list(pyramid))
    return (*decoded.multi_scale_features, decoded.mask_features)


def pixel_levels(segmentor: Segmentor, pyramid: Maps) -> Maps:
    """All outputs of our pixel decoder, the per-pixel embedding last."""
    decoded = segmentor.pixel_decoder(pyramid)
    return (*decoded.levels_bchw, decoded.masks_bchw)


def encoded_masks(segmentor: Segmentor, pixels_bchw: Tensor) -> Tensor:
    """The per-pixel embedding of frames, with everything else that may run ahead."""
    return segmentor.features(segmentor.encoder(pixels_bchw).levels_bchw, first=False).masks[0]


@contextmanager
def weights_written_out() -> Iterator[None]:
    """Attention weights become tensors, as the reference needs them because it returns them."""
    # By default torch widens bfloat16 to float32 here, which the reference does not.
    before = torch.backends.cuda.fp16_bf16_reduction_math_sdp_allowed()
    torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp(True)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp(before)


def decode_written_out(scene: Scene, levels: Maps, masks: Tensor) -> Decoded:
    """The mask decoder with attention weights as tensors."""
    with weights_written_out():
        decoded: Decoded = scene.segmentor.decoder(levels, masks, scene.conditions)
    return decoded


def remembered_by_scale(segmentor: Segmentor, levels: Maps, prediction: Prediction) -> Maps:
    """Memory maps as the reference makes them: everything anew for each scale."""
    encoder = segmentor.memory_encoder
    logits = (prediction.mask_logits_bqhw, prediction.class_logits_bqc)
    return tuple(
        encoder((downsampler(level),), *logits)[0]
        for downsampler, level in zip(encoder.vision_downsampler, levels, strict=True)
    )


def remembered_at_once(segmentor: Segmentor, levels: Maps, prediction: Prediction) -> Maps:
    """Memory maps of all scales, the guidance computed once."""
    encoder = segmentor.memory_encoder
    maps: Maps = encoder(encoder.downsample(levels), prediction.mask_logits_bqhw, prediction.class_logits_bqc)
    return maps


def reference_in_order(scene: Scene, stock: nn.Module, frames: int) -> list[Tensor]:
    """Mask logits of `frames` further frames, one at a time, all queries upsampled to the input's side."""
    segmentor, memory, logits = scene.segmentor, scene.memory, []
    for index in range(frames):
        pixels = scene.pixels_bchw[index % scene.workload.chunk][None]
        *levels, masks = stock_levels(stock, segmentor.encoder(pixels).levels_bchw)
        alone = FrameFeatures(tuple(levels), (masks,), (), ())
        seen = tuple(attend(segmentor, alone, memory, scale) for scale in range(len(levels)))
        prediction = segmentor.predict(decode_written_out(scene, seen, masks), scene.conditions)
        memory = memory.remember(remembered_by_scale(segmentor, alone.levels, prediction))
        logits.append(prediction.mask_logits_bqhw)
        F.interpolate(logits[-1], size=pixels.shape[-2:], mode="bilinear", align_corners=False)
    return logits


def compare(exact: Comparison, timed: Comparison, device: torch.device, repeats: int) -> Compared:
    """Results of `exact`, a comparison in float32, and times of `timed`, the same in the measured dtype."""
    pairs = zip(exact.reference(), exact.ours(), strict=True)
    difference = max(float((a - b).norm() / a.norm()) for a, b in pairs)
    reference, ours = interleaved([timed.reference, timed.ours], device, repeats)
    return Compared(timed.name, reference.per(timed.frames), ours.per(timed.frames), difference)


# --- A whole run -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Setting:
    """Where and how it is measured. `repeats`: timed runs of each thing."""

    device: torch.device
    dtype: torch.dtype
    seed: int
    repeats: int

    def scene(self, work: Workload, dtype: torch.dtype | None = None) -> Scene:
        """The workload's scene, the same for a seed."""
        torch.manual_seed(self.seed)
        return build_scene(random_model(work.config, self.device, dtype or self.dtype), work)


@dataclass(frozen=True, slots=True)
class Report:
    """What one run found. `machine`: what it ran on. `ceiling`: GFLOP/s of a matrix product, None if not timed."""

    machine: dict[str, str | int]
    workload: Workload
    ceiling: float | None
    stages: tuple[Measured, ...]
    shot: Steady | None
    comparisons: tuple[Compared, ...]


@torch.inference_mode()
def run(work: Workload, setting: Setting, shot: int) -> Report:
    """Count every stage and, unless the device is "meta", time it, then a shot of so many frames. The reference's
    order is timed last."""
    gflops = count_flops(work, setting.dtype)
    if setting.device.type == "meta":
        counted = tuple(Measured(name, gflop, None, None) for name, gflop in gflops.items())
        return Report(machine(setting), work, None, counted, None, ())
    ceiling = matmul_ceiling(setting.device, setting.dtype, setting.repeats)
    scene = setting.scene(work)
    # As the tracker runs it.
    with fast_attention(setting.device, setting.dtype, work.config.dim):
        measured = tuple(
            measure(stage, gflops.get(stage.name), setting.device, setting.repeats)
            for stage in (*stages(scene), tracker_stage(scene))
        )
        steady = follow_shot(scene, shot) if shot else None
        del scene
        compared = tuple(compare_all(work, setting))
    return Report(machine(setting), work, ceiling, measured, steady, compared)


def compare_all(work: Workload, setting: Setting) -> Iterator[Compared]:
    """Every comparison, of the exact network. Raises AssertionError when the reference's way and ours give different
    results."""
    if work.config.memory.pooled > 1:
        return
    alone = replace(work, config=replace(work.config, language=SMALL_LANGUAGE), language=False)
    exact = setting.scene(alone, torch.float32)
    timed = exact if setting.dtype == torch.float32 else setting.scene(alone)
    for checked, clocked in zip(comparisons(exact), comparisons(timed), strict=True):
        compared = compare(checked, clocked, setting.device, setting.repeats)
        assert compared.difference < SAME, f"{compared.name}: results differ by {compared.difference:.1e}"
        yield compared


def machine(setting: Setting) -> dict[str, str | int]:
    """What it ran on, in general terms."""
    device = setting.device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return {
        "device": name,
        "dtype": str(setting.dtype).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "repeats": setting.repeats,
        "seed": setting.seed,
    }


# --- Agreement of number formats -------------------------------------------------------------------

MASK_LOGITS = "out.low_res_mask_logits"
EXACT, ROUNDED = "float32 | golden", "bfloat16 | float32"
# Largest relative RMS and share of signs. The reference's own bfloat16 is 0.013 to 0.020 and 0.0013 away.
LIMITS = {EXACT: (1e-4, 1e-4), ROUNDED: (0.03, 0.005)}


@dataclass(frozen=True, slots=True)
class CastGolden(Golden):
    """Golden data and network on a device, in a number format."""

    device: torch.device
    dtype: torch.dtype

    def tensors(self, case: str) -> dict[str, Tensor]:
        loaded = Golden.tensors(self, case)
        return {name: tensor.to(self.device, self.dtype) for name, tensor in loaded.items()}


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far mask logits are from others: relative RMS difference, and share of pixels whose sign differs."""

    case: str
    what: str
    rms: float
    signs: float

    @property
    def passed(self) -> bool:
        rms, signs = LIMITS[self.what]
        return self.rms <= rms and self.signs <= signs


@torch.inference_mode()
def agreements(folder: Path, device: torch.device) -> Iterator[Agreement]:
    """Mask logits of every golden segmentor case: float32 against the golden ones, bfloat16 against float32.

    Raises ModelError when the folder holds no golden data.
    """
    golden = Golden.open(folder)
    for case in (case for case in golden.cases() if case.startswith("segmentor")):
        expected = golden.tensors(case)[MASK_LOGITS]
        exact, rounded = (mask_logits(golden, case, device, dtype) for dtype in (torch.float32, torch.bfloat16))
        yield agreement(case, EXACT, exact, expected)
        yield agreement(case, ROUNDED, rounded, exact)


def mask_logits(golden: Golden, case: str, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Our mask logits of a segmentor case, (T, B, Q, h, w) float32 on the CPU."""
    model = copy.deepcopy(golden.model).to(device, dtype)
    boundaries = run_segmentor(CastGolden(golden.folder, golden.index, model, device, dtype), case)
    return next(ours for name, ours, _ in boundaries if name == MASK_LOGITS).float().cpu()


def agreement(case: str, what: str, found: Tensor, expected: Tensor) -> Agreement:
    rms = float((found - expected).norm() / expected.norm())
    return Agreement(case, what, rms, float(((found > 0) != (expected > 0)).float().mean()))


# --- Command line ----------------------------------------------------------------------------------

STAGE_COLUMNS = ("stage, per frame", "GFLOP", "ms", "spread", "GFLOP/s", "of ceiling", "working GiB")
PAIR_COLUMNS = ("same result, per frame", "reference ms (spread)", "ours ms (spread)", "speed-up", "difference")


def show(report: Report) -> None:
    """Print a report as tables."""
    facts = ", ".join(f"{key} {value}" for key, value in report.machine.items())
    work = report.workload
    ceiling = "" if report.ceiling is None else f"; matrix product {report.ceiling:,.0f} GFLOP/s"
    title = f"{work.config.name}: chunk {work.chunk}, memory {work.memory}; {facts}{ceiling}"
    _print(title, STAGE_COLUMNS, [_stage_row(stage, report.ceiling) for stage in report.stages])
    if report.shot is not None:
        peak = _cell(report.shot.peak_bytes, ", {:.2f} GiB held at most", 2**-30)
        print(
            f"{report.shot.frames} frames through the tracker: the first after {report.shot.first:.2f} s, "
            f"in the second half {report.shot.rate:.2f} frames/s{peak}"
        )
    if report.comparisons:
        _print("against the reference's order of work, same run", PAIR_COLUMNS, map(_pair_row, report.comparisons))


def show_agreements(found: Sequence[Agreement]) -> None:
    rows = [
        (each.case, each.what, f"{each.rms:.2e}", f"{each.signs:.3%}", "yes" if each.passed else "NO")
        for each in found
    ]
    _print("mask logits", ("case", "what", "relative RMS", "signs that differ", "within limits"), rows)


def _stage_row(stage: Measured, ceiling: float | None) -> tuple[str, ...]:
    seconds, spread = (stage.timing.seconds, stage.timing.spread) if stage.timing else (None, None)
    return (
        stage.name,
        _cell(stage.gflop, "{:,.1f}"),
        _cell(seconds, "{:,.2f}", 1000),
        _cell(spread, "{:.0%}"),
        _cell(stage.rate, "{:,.1f}"),
        _cell(stage.rate, "{:.0%}", 1 / (ceiling or 1)),
        _cell(stage.working_bytes, "{:.2f}", 2**-30),
    )


def _pair_row(pair: Compared) -> tuple[str, ...]:
    times = (f"{timing.seconds * 1000:,.2f} ({timing.spread:.0%})" for timing in (pair.reference, pair.ours))
    return (pair.name, *times, f"{pair.speedup:.2f}x", f"{pair.difference:.1e}")


def _cell(value: float | None, form: str, factor: float = 1) -> str:
    return "" if value is None else form.format(value * factor)


def _print(title: str, columns: Sequence[str], rows: Iterable[tuple[str, ...]]) -> None:
    table = Table(title=title, title_justify="left")
    for index, column in enumerate(columns):
        table.add_column(column, justify="right" if index else "left")
    for row in rows:
        table.add_row(*row)
    Console(width=None if sys.stdout.isatty() else 140).print(table)


def main(
    size: Annotated[Size | None, typer.Option(help="Default: full on a GPU, small elsewhere.")] = None,
    device: Annotated[str, typer.Option(help='"meta" counts operations and times nothing.')] = "",
    dtype: Annotated[Dtype | None, typer.Option(help="Default: bfloat16 on a GPU, float32 elsewhere.")] = None,
    frames: Annotated[int, typer.Option(min=1, help="Frames of a whole-frame measurement.")] = 4,
    chunk: Annotated[int, typer.Option(min=1, help="Frames encoded at once.")] = 4,
    memory: Annotated[int, typer.Option(min=1, help="Frames remembered; the memory is full throughout.")] = 5,
    language: Annotated[bool, typer.Option(help="Also the vision tower, the prompt and a region.")] = True,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads.")] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Timed runs of each thing, after a warm-up.")] = 3,
    quality: Annotated[Quality, typer.Option(help="As --quality of segment.")] = Quality.EXACT,
    shot: Annotated[int, typer.Option(min=0, help="Also a shot of so many frames through the tracker.")] = 0,
    seed: Annotated[int, typer.Option(help="Of random weights and inputs.")] = 0,
    parity: Annotated[
        Path | None, typer.Option(help="Instead, compare number formats on this golden folder.")
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write everything here.")] = None,
) -> None:
    """Time, arithmetic and memory of every stage of the network, with random weights."""
    # Float32 means float32, on every GPU.
    torch.backends.cudnn.allow_tf32 = False
    if threads is not None:
        torch.set_num_threads(threads)
    where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if where.type == "cuda":
        torch.cuda.set_device(where)
    if parity is not None:
        found = tuple(agreements(parity, where))
        show_agreements(found)
        _write(json_file, [asdict(each) for each in found])
        raise typer.Exit(not all(each.passed for each in found))
    gpu = where.type == "cuda"
    number = dtype or (Dtype.BFLOAT16 if gpu else Dtype.FLOAT32)
    work = workload(
        size or (Size.FULL if gpu else Size.SMALL),
        language=language,
        frames=frames,
        chunk=chunk,
        memory=memory,
        quality=quality,
    )
    report = run(work, Setting(where, getattr(torch, number), seed, repeats), shot)
    show(report)
    _write(json_file, asdict(report))


def _write(path: Path | None, value: object) -> None:
    if path is not None:
        path.write_text(json.dumps(value, indent=1) + "\n")


if __name__ == "__main__":
    typer.run(main)
