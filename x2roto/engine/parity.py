"""Parity with golden tensors made by running the reference code: cases, boundaries, tolerances.

A golden folder holds `index.json` (sizes in the reference's vocabulary, every tensor), `checkpoint.safetensors`,
`base_vlm.safetensors` and one safetensors file per case. Used by `x2roto models verify --golden` and the tests.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from math import inf, isqrt
from pathlib import Path
from typing import Any, Self

import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F

from x2roto.engine.assembly import VISUAL, Conditions, Spliced, generated_ids
from x2roto.engine.memory import Memory
from x2roto.engine.model.config import (
    MaskDecoderConfig,
    MaskEncoderConfig,
    MemoryConfig,
    ModelConfig,
    PixelDecoderConfig,
    RegionConfig,
)
from x2roto.engine.model.encodings import centres, rope, sine, temporal
from x2roto.engine.model.language import Visual
from x2roto.engine.model.segmentor import FrameFeatures, Maps, Segmentor
from x2roto.engine.model.x2sam import X2SAM
from x2roto.engine.weights import build, merged_state
from x2roto.errors import ModelError


def golden_config(index: dict[str, Any]) -> ModelConfig:
    """Our config from the three configs of a golden index, in the vocabulary of the reference's libraries.

    Raises ModelError for a variant of the reference that was never released.
    """
    sam2, m2f, language = index["sam2_config"], index["mask2former_config"], dict(index["vlm_config"])
    released = {"use_mask_guidance": sam2, "use_class_guidance": sam2, "use_text_cross_attn": m2f}
    for switch, config in released.items():
        if not config.get(switch, True):
            raise ModelError(f"golden index: {switch} is off, which no released model has")
    backbone = sam2["vision_config"]["backbone_config"]
    base_rows = language["text_config"]["vocab_size"]
    rows = index["token_ids"]["pe"] + 1
    language["text_config"] = {**language["text_config"], "vocab_size": min(rows, base_rows)}
    optional = {
        "pos_embed_size": backbone.get("window_positional_embedding_background_size"),
        "fpn_top_down_levels": sam2["vision_config"].get("fpn_top_down_levels"),
    }
    return ModelConfig(
        name="golden",
        image_size=sam2["image_size"],
        dim=m2f["hidden_dim"],
        encoder=MaskEncoderConfig(
            embed_dims=tuple(backbone["embed_dim_per_stage"]),
            blocks=tuple(backbone["blocks_per_stage"]),
            heads=tuple(backbone["num_attention_heads_per_stage"]),
            windows=tuple(backbone["window_size_per_stage"]),
            global_blocks=tuple(backbone["global_attention_blocks"]),
            query_stages=backbone.get("num_query_pool_stages", 3),
            fpn_dim=sam2["vision_config"]["fpn_hidden_size"],
            **{key: tuple(value) for key, value in optional.items() if value},
        ),
        pixel_decoder=PixelDecoderConfig(
            layers=m2f["encoder_layers"],
            heads=m2f["num_attention_heads"],
            feedforward=m2f["encoder_feedforward_dim"],
        ),
        memory=MemoryConfig(
            capacity=sam2["num_maskmem"],
            layers=sam2["memory_attention_num_layers"],
            feedforward=sam2["memory_attention_feed_forward_hidden_size"],
            feature_strides=tuple(sam2["feature_downsampler_scale_strides"]),
            mask_stride=sam2["mask_downsampler_scale_strides"][0],
            fuser_layers=sam2.get("memory_fuser_num_layers", 2),
            fuser_feedforward=sam2["memory_fuser_intermediate_dim"],
        ),
        decoder=MaskDecoderConfig(
            queries=m2f["num_queries"],
            layers=m2f["decoder_layers"] - 1,
            heads=m2f["num_attention_heads"],
            feedforward=m2f["dim_feedforward"],
        ),
        region=RegionConfig(points=index["sampler"]["num_points"], pool=index["sampler"]["pool"]),
        language=language,
    )


@dataclass(frozen=True, slots=True)
class Boundary:
    """The largest differences between our tensor and the golden one at one place of one case.

    `max_rel` is relative to the golden tensor's largest magnitude. `passed`: every element within
    `tolerance` absolutely or relative to itself.
    """

    case: str
    boundary: str
    max_abs: float
    max_rel: float
    tolerance: float
    passed: bool


def verify(folder: Path) -> list[Boundary]:
    """Run every engine case of a golden folder (or of its `engine/` subfolder), fp32 on the CPU.

    Raises ModelError when the folder holds no golden index, or a case nothing here can run.
    """
    golden = Golden.open(folder)
    return [boundary for case in golden.cases() for boundary in golden.run(case)]


# What a case compares: a name, our tensor, the golden tensor.
Compared = Iterator[tuple[str, Tensor, Tensor]]


@dataclass(frozen=True, slots=True)
class Golden:
    """An opened golden folder and the network loaded from its checkpoint."""

    folder: Path
    index: dict[str, Any]
    model: X2SAM

    @classmethod
    def open(cls, folder: Path) -> Self:
        folder = folder / "engine" if (folder / "engine").is_dir() else folder
        path = folder / "index.json"
        if not path.is_file():
            raise ModelError(f"{path} not found: a golden folder holds index.json and its tensors", path)
        index = json.loads(path.read_text())
        model = build(
            golden_config(index),
            merged_state(
                folder / "checkpoint.safetensors",
                folder / "base_vlm.safetensors",
                lora_alpha=index["lora"]["alpha"],
                dtype=torch.float32,
            ),
        )
        return cls(folder, index, model)

    def cases(self) -> list[str]:
        """Names of the golden files that hold cases."""
        return [
            name.removesuffix(".safetensors")
            for name, facts in self.index["files"].items()
            if isinstance(facts, dict)
        ]

    def facts(self, case: str) -> dict[str, Any]:
        return self.index["files"][f"{case}.safetensors"]  # type: ignore[no-any-return]

    def tensors(self, case: str) -> dict[str, Tensor]:
        return load_file(self.folder / f"{case}.safetensors")

    @torch.inference_mode()
    def run(self, case: str) -> Iterator[Boundary]:
        """Compare every boundary of one case."""
        compare = next((run for prefix, run in RUNNERS.items() if case.startswith(prefix)), None)
        if compare is None:
            raise ModelError(f"{case}: no runner for this golden case", self.folder)
        unread = {name for name in self.tensors(case) if not INPUT.search(name)}
        for boundary, ours, golden in compare(self, case):
            unread.discard(boundary)
            end = case.startswith("x2sam") and END_TO_END.match(boundary)
            yield measure(case, boundary, ours, golden, 1e-3 if end else 1e-4)
        if unread:
            raise ModelError(f"{case}: golden tensors nothing compares: {sorted(unread)}", self.folder)


# Names of golden tensors that go into the network, and of those at its very end.
INPUT = re.compile(r"^in\.|^(image|video|mrope\.\w+)\.(pixel_values|grid_thw|input_ids|position_ids)$")
END_TO_END = re.compile(r"out\.(class_queries_logits|low_res_mask_logits|masks_queries_logits)")


def measure(case: str, boundary: str, ours: Tensor, golden: Tensor, tolerance: float) -> Boundary:
    """Differences of two tensors, which must have the same shape."""
    if ours.shape != golden.shape:
        shapes = f"{boundary} {tuple(ours.shape)} for {tuple(golden.shape)}"
        return Boundary(case, shapes, inf, inf, tolerance, False)
    ours, golden = ours.double(), golden.double()
    error = float((ours - golden).abs().max())
    largest = max(float(golden.abs().max()), 1e-30)
    passed = bool(torch.allclose(ours, golden, rtol=tolerance, atol=tolerance))
    return Boundary(case, boundary, error, error / largest, tolerance, passed)


def run_mask_encoder(golden: Golden, case: str) -> Compared:
    tensors = golden.tensors(case)
    pixels, encoder = tensors["in.pixel_values"], golden.model.segmentor.encoder
    for name, expected in tensors.items():
        if match := re.fullmatch(r"out\.frame(\d+)\.(stage|fpn)(\d)", name):
            frame, level = pixels[int(match[1])][None], int(match[3])
            if match[2] == "stage":
                yield name, encoder.backbone(frame).intermediate_hidden_states[level], expected
            else:
                yield name, encoder(frame).levels_bchw[level], expected
        elif match := re.fullmatch(r"out\.fpn(\d)_all", name):
            yield name, encoder(pixels).levels_bchw[int(match[1])][:, None], expected


def run_position_encodings(golden: Golden, case: str) -> Compared:
    for name, expected in golden.tensors(case).items():
        kind = name.split(".")[0]
        if kind == "sine":
            yield name, sine(*expected.shape), expected
        elif kind == "rope":
            side, dim = isqrt(expected.shape[0]), expected.shape[1]
            table = rope(dim, side, side)[name.endswith("sin")]
            yield name, table.repeat_interleave(2, dim=-1), expected
        elif kind == "temporal":
            yield (
                name,
                temporal(int(name.removeprefix("temporal.gap")), expected.numel())[None, None],
                expected,
            )
        else:
            height, width = expected.shape[1:3]
            yield name, golden.model.segmentor.encoder.backbone._get_pos_embed((height, width)), expected


def run_bf16_tables(golden: Golden, case: str) -> Compared:
    """What the reference computes in bfloat16; our own tables are computed in float32."""
    compute = torch.bfloat16
    for name, expected in golden.tensors(case).items():
        if match := re.fullmatch(r"sine(\d+)\.([xy])", name):
            half, length = expected.shape
            table = sine(half * 2, length, length, compute=compute)
            yield name, table[half:, 0] if match[2] == "x" else table[:half, :, 0], expected
        elif name.startswith("refpoints"):
            yield name, centres(expected.numel(), compute=compute), expected
        else:
            gap = int(name.removeprefix("temporal.gap"))
            yield name, temporal(gap, expected.numel(), compute=compute)[None, None], expected


def run_segmentor(golden: Golden, case: str) -> Compared:
    tensors = golden.tensors(case)
    segmentor = golden.model.segmentor
    conditions = Conditions(
        tensors["in.cond_embeds"],
        tensors["in.token_embeds"],
        tensors["in.seg_embeds"],
        tensors["in.embed_masks"].bool(),
        tensors["in.token_masks"].bool(),
    )
    image = "in.pixel_values" in tensors
    pixels = tensors["in.pixel_values"] if image else golden.tensors("mask_encoder")["in.pixel_values"]
    outputs: dict[str, list[Tensor]] = defaultdict(list)
    memory = Memory(golden.model.config.memory.capacity)
    for time, (pyramid, features) in enumerate(_clip(segmentor, pixels, image=image)):
        yield from _frame_boundaries(segmentor, tensors, f"t{time}.", pyramid, features, memory, conditions)
        layers = list(segmentor.decoder.layers(*_decoder_input(segmentor, features, memory), conditions))
        prediction = segmentor.predict(layers[-1], conditions)
        memory = segmentor.remember(features, prediction, memory)
        outputs["low_res_mask_logits"].append(prediction.mask_logits_bqhw)
        outputs["memory_class_logits"].append(prediction.class_logits_bqc)
        outputs["decoder_queries"].append(torch.stack([layer.queries_bqc for layer in layers]).transpose(1, 2))
        outputs["last_hidden_state"].append(layers[-1].hidden_bqc)
        for scale, maps in enumerate(memory.entries[-1].maps_bchw):
            outputs[f"memory.scale{scale}"].append(maps)
    for name, frames in outputs.items():
        yield f"out.{name}", torch.stack(frames), tensors[f"out.{name}"]
    classes = torch.cat(outputs["memory_class_logits"])
    yield "out.class_queries_logits", classes, tensors["out.class_queries_logits"]
    side = memory.entries[0].maps_bchw[0].shape[-2:]
    yield "out.memory_pos", sine(golden.model.config.dim, *side), tensors["out.memory_pos"]
    for name, expected in tensors.items():
        if match := re.fullmatch(r"out\.masks_queries_logits\.frame(\d+)", name):
            low = outputs["low_res_mask_logits"][int(match[1])]
            yield name, upsampled(low, golden.model.config.image_size)[0], expected


def _clip(segmentor: Segmentor, pixels: Tensor, *, image: bool) -> Iterator[tuple[Maps, FrameFeatures]]:
    """Pyramid and features of each frame of a clip, or of a batch of images at once."""
    pyramid = segmentor.encoder(pixels).levels_bchw
    if image:
        yield pyramid, segmentor.features(pyramid, first=True)
        return
    for time in range(len(pixels)):
        levels = tuple(level[time : time + 1] for level in pyramid)
        yield levels, segmentor.features(levels, first=time == 0)


def _decoder_input(segmentor: Segmentor, features: FrameFeatures, memory: Memory) -> tuple[Maps, Tensor]:
    return segmentor.recall(features, memory)


def _frame_boundaries(
    segmentor: Segmentor,
    tensors: dict[str, Tensor],
    prefix: str,
    pyramid: Maps,
    features: FrameFeatures,
    memory: Memory,
    conditions: Conditions,
) -> Compared:
    wanted = {name: value for name, value in tensors.items() if name.startswith(prefix)}
    if not wanted:
        return
    levels, masks = _decoder_input(segmentor, features, memory)
    ours: dict[str, Tensor] = {"pixel_decoder.mask_features": masks}
    absent = 0 if memory.entries else segmentor.no_memory_embedding.view(1, -1, 1, 1)
    for index, level in enumerate(pyramid):
        ours[f"pixel_decoder.in{index}"] = level + absent
    for scale, level in enumerate(features.levels):
        ours[f"pixel_decoder.scale{scale}"] = level
        if memory.entries:
            ours[f"retrieved.scale{scale}"] = memory.tokens(scale).transpose(0, 1)
            ours[f"retrieved_pos.scale{scale}"] = segmentor.memory_positions(memory)[:, None]
            ours[f"memory_attention.scale{scale}"] = levels[scale].flatten(2).mT[None]
    for index, decoded in enumerate(segmentor.decoder.layers(levels, masks, conditions)):
        ours[f"decoder.mask_logits{index}"] = decoded.mask_logits_bqhw
    for name, expected in wanted.items():
        yield name, ours[name.removeprefix(prefix)], expected


def run_region_sampler(golden: Golden, case: str) -> Compared:
    tensors = golden.tensors(case)
    rows = tensors["in.features"][0, 0]
    side = isqrt(len(rows))
    tokens = golden.model.region_rows(rows.view(side, side, -1), tensors["in.points"])
    yield "out.tokens", tokens, tensors["out.tokens"]


def run_vlm(golden: Golden, case: str) -> Compared:
    tensors, language = golden.tensors(case), golden.model.vlm
    ids = golden.index["token_ids"]
    for medium in ("image", "video"):
        visual = language.see(tensors[f"{medium}.pixel_values"], tensors[f"{medium}.grid_thw"])
        yield f"{medium}.embeds", visual.rows, tensors[f"{medium}.embeds"]
        for index, rows in enumerate(visual.deepstack):
            yield f"{medium}.deepstack{index}", rows, tensors[f"{medium}.deepstack{index}"]
        tokens = tensors[f"mrope.{medium}.input_ids"]
        # With true three-axis positions, which segmentation never uses: the stock path of the library.
        marked = tokens.masked_fill(tokens == ids[medium], VISUAL)
        rows_here = int((marked == VISUAL).sum())
        shown = Visual(visual.rows[:rows_here], tuple(rows[:rows_here] for rows in visual.deepstack))
        prompt = replace(golden.model.assemble(marked, shown), position_ids=tensors[f"mrope.{medium}.position_ids"])
        states = {0: prompt.embeds_bld}
        layer = language.model.language_model.layers[1]
        handle = layer.register_forward_pre_hook(lambda _, args, into=states: into.update({1: args[0]}))
        states[len(language.model.language_model.layers)] = language.think(prompt, shown)
        handle.remove()
        for depth, state in states.items():
            name = f"mrope.{medium}.hidden{depth}"
            if name in tensors:
                yield name, state, tensors[name]


def run_x2sam(golden: Golden, case: str) -> Compared:
    tensors, facts, model = golden.tensors(case), golden.facts(case), golden.model
    video = "in.pixel_values_videos" in tensors
    frames = len(tensors["out.low_res_mask_logits"])
    pixels = (
        golden.tensors("mask_encoder")["in.pixel_values"][:frames]
        if video
        else golden.tensors("segmentor_image_b2")["in.pixel_values"]
    )
    patches = tensors["in.pixel_values_videos" if video else "in.pixel_values"]
    visual = model.vlm.see(patches, tensors["in.video_grid_thw" if video else "in.image_grid_thw"])
    regions = None
    if "in.points" in tensors:
        encoded = model.segmentor.encoder(pixels[:1])
        regions = model.region_rows(model.region_map(encoded.region_bhwc)[0], tensors["in.points"])
    prompt = model.assemble(
        tensors["in.input_ids"],
        visual,
        regions,
        attention_mask=tensors["in.attention_mask"],
        cond_ids=tensors["in.cond_ids"],
        seg_ids=tensors["in.seg_ids"],
    )
    sequence, states, cond_ids, seg_ids = _states(golden, facts, tensors, prompt, visual)
    conditions = model.conditions(states, cond_ids, seg_ids, shared=facts["cond_lens"] is not None)
    ours = {
        "inputs_embeds": prompt.embeds_bld,
        "position_ids": prompt.position_ids.expand(3, -1, -1),
        "sequences": sequence,
        "hidden_last": states,
        "logits": model.vlm.logits(states),
        "cond_embeds": conditions.cond_embeds,
        "token_embeds": conditions.token_embeds,
        "seg_embeds": conditions.seg_embeds,
        "embed_masks": conditions.embed_mask.float(),
        "token_masks": conditions.token_mask.float(),
    }
    memory = Memory(model.config.memory.capacity)
    predictions = []
    for _, features in _clip(model.segmentor, pixels, image=not video):
        decoded = model.segmentor.decode(features, memory, conditions)
        predictions.append(model.segmentor.predict(decoded, conditions))
        memory = model.segmentor.remember(features, predictions[-1], memory)
    low = torch.stack([prediction.mask_logits_bqhw for prediction in predictions])
    ours["class_queries_logits"] = torch.cat([prediction.class_logits_bqc for prediction in predictions])
    ours["low_res_mask_logits"] = low
    ours["masks_queries_logits"] = upsampled(low[-1], model.config.image_size)[-1]
    for name, value in ours.items():
        key = f"out.{name}.last" if name == "masks_queries_logits" else f"out.{name}"
        if key in tensors:
            yield key, value, tensors[key]


def _states(
    golden: Golden, facts: dict[str, Any], tensors: dict[str, Tensor], prompt: Spliced, visual: Visual
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Ids, language states, phrase and <SEG> numbers: of one pass, or of generation forced to the golden ids."""
    language, ids = golden.model.vlm, golden.index["token_ids"]
    if facts["mode"] == "tensor":
        return prompt.seg_ids, language.think(prompt, visual), prompt.cond_ids, prompt.seg_ids
    forced = iter(tensors["out.sequences"][0].tolist())
    written = language.write(prompt, visual, {ids["eos"]}, choose=lambda _: next(forced))
    sequence = torch.tensor(written.ids)
    cond_ids, seg_ids = generated_ids(
        prompt.cond_ids,
        prompt.cond_ids.shape[1],
        sequence,
        p_start=ids["p"],
        p_end=ids["pe"],
        seg=ids["SEG"],
    )
    return sequence[None], written.states_bld, cond_ids, seg_ids


def upsampled(mask_logits_bqhw: Tensor, side: int) -> Tensor:
    """Mask logits at the side of the network's input."""
    return F.interpolate(mask_logits_bqhw, size=(side, side), mode="bilinear", align_corners=False)


RUNNERS: dict[str, Callable[[Golden, str], Compared]] = {
    "mask_encoder": run_mask_encoder,
    "position_encodings": run_position_encodings,
    "bf16_tables": run_bf16_tables,
    "segmentor": run_segmentor,
    "region_sampler": run_region_sampler,
    "vlm": run_vlm,
    "x2sam": run_x2sam,
}
