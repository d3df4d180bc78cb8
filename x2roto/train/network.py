"""One training step of each stage: a batch in, its losses out. The modules are what DDP and FSDP wrap.

Stage "segmentor" learns masks without a class and without language: every frame is a picture of its own. Stage
"joint" runs the whole network as inference does, through time with memory, with gradients through it all (arXiv
2605.00891 §3; wanghao9610/X2SAM@5b0b106 `model/x2sam.py` `compute_loss`, `segmentors/x_segmentor.py`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import accumulate, chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer

from x2roto.engine import preprocess
from x2roto.engine.assembly import Conditions, Spliced, splice, stack
from x2roto.engine.memory import Memory
from x2roto.engine.model.config import ModelConfig
from x2roto.engine.model.mask_decoder import Decoded
from x2roto.engine.model.mask_encoder import Pyramid
from x2roto.engine.model.segmentor import FrameFeatures, Maps, Prediction, Segmentor
from x2roto.engine.model.x2sam import X2SAM
from x2roto.train.collate import Batch, Regions, Text
from x2roto.train.config import Losses
from x2roto.train.losses import Counts, dense_loss, language_loss, set_losses
from x2roto.train.matching import PADDING, Answers, FrameTarget
from x2roto.train.points import Draw, uniform

# Calls a function now and, in training with checkpointing, again in the backward pass.
Call = Callable[..., Any]
# The mean of a tensor over all devices.
Mean = Callable[[Tensor], Tensor]

MASK_CLASSES = 2  # stage "segmentor" tells masks from background, no more


@dataclass(frozen=True, slots=True)
class StepLosses:
    """Losses of a batch. `total` has the gradient; the others are for reading: `language`, and of the last decoder
    layer `classes`, `masks` and `dice`, all unweighted."""

    total: Tensor
    language: Tensor
    classes: Tensor
    masks: Tensor
    dice: Tensor


@dataclass(frozen=True, slots=True)
class Answered:
    """What the network makes of a batch: of every decoder layer the answers for all frames, time first, none in
    chat; what is added to each clip's labels; the weighted loss of the words; and what sums are divided by.

    `dense_i1hw`: logits of everything asked for, straight from the per-pixel embedding, where that is taught.
    """

    layers: list[Answers]
    offsets: tuple[int, ...]
    language: Tensor
    counts: Counts
    dense_i1hw: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Moment:
    """What the decoder gives for all clips at one time step: the state after each layer, and the per-pixel embedding
    (B, C, h, w) it read."""

    layers: list[Decoded]
    masks_bchw: Tensor


@dataclass(frozen=True, slots=True)
class Asked:
    """Conditions of D clips. `offsets`: what is added to each clip's labels, as conditions are joined.

    `tokens_dn`: number of the condition each token belongs to, -100 where padded.
    """

    conditions: Conditions
    offsets: tuple[int, ...]
    tokens_dn: Tensor


def alone(value: Tensor) -> Tensor:
    """The mean over one device."""
    return value


def call(function: Callable[..., Any], *args: Any) -> Any:
    """Without checkpointing."""
    return function(*args)


class SegmentorAlone(nn.Module):
    """The segmentor without a language model, by the names it has in the whole network."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.segmentor = Segmentor(config)

    @property
    def device(self) -> torch.device:
        return self.segmentor.no_memory_embedding.device


class StageNetwork(nn.Module, ABC):
    """What both stages share. `mean`: over all devices; `checkpointing`: activations are computed again."""

    model: X2SAM | SegmentorAlone

    def __init__(
        self, model: X2SAM | SegmentorAlone, losses: Losses, *, checkpointing: bool = False, mean: Mean = alone
    ) -> None:
        super().__init__()
        self.model = model
        self.losses = losses
        self.mean = mean
        self.call: Call = partial(checkpoint, use_reentrant=False) if checkpointing else call
        if checkpointing:
            _compute_again(model)

    def forward(self, batch: Batch, *, learn: bool = True) -> StepLosses | Answers | None:
        """The losses of a batch; without `learn`, the last layer's answers for all frames, time first, if any.

        One entry for both, because wrapped networks only work when called as a whole.
        """
        said = self.answer(batch)
        if not learn:
            return said.layers[-1] if said.layers else None
        rows = [map(_offset, row, said.offsets) for row in batch.targets]
        draws = [uniform(seed, self.model.device) for seed in batch.seeds] * len(batch.targets)
        return graded(said, list(chain.from_iterable(rows)), draws, self.losses)

    @abstractmethod
    def answer(self, batch: Batch) -> Answered:
        """The network's answers to a batch."""

    def counts(self, batch: Batch, words: int) -> Counts:
        """What this step's sums are divided by, averaged over all devices."""
        targets = [target for row in batch.targets for target in row if target is not None]
        counts = Counts.of(targets, self.model.config.decoder.queries, words, self.losses)
        return Counts(*self.mean(counts.stacked().to(self.model.device)))


class SegmentorStage(StageNetwork):
    """The segmentor with a linear head, on pictures. Its queries read a single zero in place of tokens.

    The token attention is left at its zero start, so that stage "joint" begins with the function learned here.
    """

    model: SegmentorAlone

    def __init__(
        self, model: SegmentorAlone, losses: Losses, *, checkpointing: bool = False, mean: Mean = alone
    ) -> None:
        super().__init__(model, losses, checkpointing=checkpointing, mean=mean)
        with model.device:
            self.head = nn.Linear(model.config.dim, MASK_CLASSES)
        nn.init.normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)

    def answer(self, batch: Batch) -> Answered:
        assert batch.frames is not None
        pictures = batch.frames.flatten(0, 1)
        levels = encode(self.model, pictures).levels_bchw
        conditions = nothing_asked(self.model, len(pictures))
        (moment,) = decode_through_time(self.model, levels, 1, conditions, self.call)
        answers = [Answers(layer.mask_logits_bqhw, self.head(layer.queries_bqc)) for layer in moment.layers]
        language = torch.zeros((), device=self.model.device)
        return Answered(answers, (0,) * len(batch.seeds), language, self.counts(batch, words=0))


class JointStage(StageNetwork):
    """The whole network on clips and their conversations."""

    model: X2SAM

    def __init__(self, model: X2SAM, losses: Losses, *, checkpointing: bool = False, mean: Mean = alone) -> None:
        super().__init__(model, losses, checkpointing=checkpointing, mean=mean)
        # Teaches the per-pixel embedding without the detour over queries; no part of the finished model.
        self.head = None
        if losses.dense_weight:
            with model.device:
                self.head = nn.Conv2d(model.config.dim, 1, 1)

    def answer(self, batch: Batch) -> Answered:
        text = batch.text
        assert text is not None
        pyramid = None if batch.frames is None else encode(self.model, batch.frames.flatten(0, 1))
        prompt, states = self._think(batch, text, pyramid)
        labels = prompt.labels[:, 1:]
        learned = labels != PADDING
        counts = self.counts(batch, int(learned.sum()))
        words = language_loss(self.model.vlm.logits(states[:, :-1][learned]), labels[learned], counts)
        language = self.losses.language_weight * words
        if pyramid is None:
            return Answered([], (), language, counts)
        asked = self._asked(states, prompt, text, batch.decoded)
        layers, dense = self._answers(pyramid, batch, asked, self._imprint(batch, text, pyramid))
        return Answered(layers, asked.offsets, language, counts, dense)

    def _think(self, batch: Batch, text: Text, pyramid: Pyramid | None) -> tuple[Spliced, Tensor]:
        """The embedded conversations and the language model's states of them."""
        vlm = self.model.vlm
        patches = preprocess.patch_values(text.patch_rows)
        visual = vlm.see(patches, text.grids)
        if len(text.glimpses) > len(text.grids):
            visual = visual.again(_rows(text, len(visual.rows)))
        prompt = splice(
            vlm.get_input_embeddings(),
            text.input_ids,
            visual.rows,
            self._region_rows(batch, text, pyramid),
            attention_mask=text.attention_mask,
            cond_ids=text.cond_ids,
            seg_ids=text.seg_ids,
            labels=text.labels,
        )
        return prompt, vlm.think(prompt, visual)

    def _region_rows(self, batch: Batch, text: Text, pyramid: Pyramid | None) -> Tensor | None:
        """Language rows of all regions, each read from the frame it is drawn on."""
        if pyramid is None or not any(text.regions):
            return None
        rows = []
        for frame, regions in _drawn(batch, text):
            features = self.model.region_map(pyramid.region_bhwc[frame : frame + 1])
            rows.append(self.model.region_rows(features[0], regions.points_rp2.to(features.device)))
        return torch.cat(rows)

    def _asked(self, states: Tensor, prompt: Spliced, text: Text, decoded: Sequence[int]) -> Asked:
        """Conditions of the clips to segment; phrases and questions of all samples are everyone's classes."""
        joined = [sample for sample in decoded if text.shared[sample]]
        own = [sample for sample in decoded if not text.shared[sample]]
        parts = {sample: self._conditions(states, prompt, [sample], shared=False) for sample in own}
        tokens = {sample: _token_numbers(prompt.cond_ids[sample]) for sample in decoded}
        offsets = dict.fromkeys(decoded, 0)
        if joined:
            conditions = self._conditions(states, prompt, joined, shared=True)
            parts |= dict(zip(joined, _apart(conditions, prompt.seg_ids[joined]), strict=True))
            counts = [int(prompt.cond_ids[sample].max()) + 1 for sample in joined]
            offsets |= {sample: sum(counts[:i]) for i, sample in enumerate(joined)}
            tokens |= dict.fromkeys(joined, torch.cat([tokens[sample] + offsets[sample] for sample in joined]))
        return Asked(
            stack([parts[sample] for sample in decoded]),
            tuple(offsets[sample] for sample in decoded),
            pad_sequence([tokens[sample] for sample in decoded], batch_first=True, padding_value=PADDING),
        )

    def _conditions(self, states: Tensor, prompt: Spliced, samples: list[int], *, shared: bool) -> Conditions:
        return self.model.conditions(
            states[samples], prompt.cond_ids[samples], prompt.seg_ids[samples], shared=shared
        )

    def _imprint(self, batch: Batch, text: Text, pyramid: Pyramid) -> Maps:
        """Memory maps of the regions that ask for single objects, if the model keeps such and all clips have one."""
        drawn = list(_drawn(batch, text))
        covers = [regions.cover_1hw for _, regions in drawn if regions.cover_1hw is not None]
        if not self.model.config.memory.prompts or len(covers) < len(batch.decoded):
            return ()
        frames = [frame for frame, _ in drawn]
        levels = tuple(level[frames] for level in pyramid.levels_bchw)
        return self.model.segmentor.imprint(levels, torch.stack(covers).to(levels[0].device))

    def _answers(
        self, pyramid: Pyramid, batch: Batch, asked: Asked, prompt: Maps
    ) -> tuple[list[Answers], Tensor | None]:
        """Logits of every decoder layer, and of the dense head if there is one, for all frames, time first."""
        conditions, length = asked.conditions, len(batch.targets)
        time = decode_through_time(
            self.model, pyramid.levels_bchw, length, conditions, self.call, prompt=prompt, clips=batch.clips
        )
        moments = list(time)
        dense = None if self.head is None else self.head(torch.cat([moment.masks_bchw for moment in moments]))
        tokens = asked.tokens_dn.repeat(length, 1) if self.losses.classes == "focal" else None
        if tokens is not None:
            conditions = replace(conditions, cond_embeds=conditions.token_embeds, embed_mask=conditions.token_mask)
        predict = partial(self.model.segmentor.class_predictor, conditions=conditions)
        answers = [
            Answers(
                torch.cat([frame.mask_logits_bqhw for frame in layer]),
                torch.cat([predict(frame.queries_bqc) for frame in layer]),
                tokens,
            )
            for layer in zip(*(moment.layers for moment in moments), strict=True)
        ]
        return answers, dense


# ---- parts of both --------------------------------------------------------------------------------------


def encode(model: X2SAM | SegmentorAlone, frames_nhwc: Tensor) -> Pyramid:
    """Features of uint8 frames (N, S, S, 3)."""
    pyramid: Pyramid = model.segmentor.encoder(preprocess.normalise(frames_nhwc))
    return pyramid


def _compute_again(model: nn.Module) -> None:
    """Let every layer of the libraries' transformers drop its activations in training."""
    layers: list[Any] = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    for layer in layers:
        layer.gradient_checkpointing = True
        layer._gradient_checkpointing_func = partial(checkpoint, use_reentrant=False)


def decode_through_time(
    model: X2SAM | SegmentorAlone,
    levels_bchw: Maps,
    length: int,
    conditions: Conditions,
    call: Call,
    *,
    prompt: Maps = (),
    clips: Sequence[int] = (),
) -> Iterator[Moment]:
    """For each time step, the state after every decoder layer, for all B sets of conditions at once.

    `levels_bchw`: pyramid maps of `length` * P frames, time first. Memory is read and kept as in inference.
    `prompt`: what it holds of region prompts. `clips`: which of the P clips each set asks about, () for each its own.
    """
    segmentor = model.segmentor
    config = model.config.memory
    memory = Memory(config.capacity, prompt=prompt, anchored=config.anchored)
    every = _features(segmentor, levels_bchw, len(levels_bchw[0]) // length, call, alone=memory.empty)
    for step, features in enumerate(every):
        if len(clips) > len(set(clips)):
            features = features.again(torch.tensor(clips, device=levels_bchw[0].device))
        layers, masks = call(_decode, segmentor, features, memory, conditions)
        yield Moment(layers, masks)
        if step + 1 < length:
            memory = call(_remember, segmentor, features, layers[-1], memory, conditions)


def _features(
    segmentor: Segmentor, levels_bchw: Maps, batch: int, call: Call, *, alone: bool
) -> Iterator[FrameFeatures]:
    """`alone`: whether the first step finds no memory."""
    for step, maps in enumerate(zip(*(level.split(batch) for level in levels_bchw), strict=True)):
        yield call(partial(segmentor.features, first=alone and step == 0), maps)


def _decode(
    segmentor: Segmentor, features: FrameFeatures, memory: Memory, conditions: Conditions
) -> tuple[list[Decoded], Tensor]:
    levels, masks = segmentor.read(features, memory, conditions)
    return list(segmentor.decoder.layers(levels, masks, conditions)), masks


def _remember(
    segmentor: Segmentor, features: FrameFeatures, decoded: Decoded, memory: Memory, conditions: Conditions
) -> Memory:
    prediction: Prediction = segmentor.predict(decoded, conditions)
    return segmentor.remember(features, prediction, memory)


def _drawn(batch: Batch, text: Text) -> Iterator[tuple[int, Regions]]:
    """The regions of a batch, each set with the number of its frame among all frames, time first."""
    clips = len(set(batch.clips))
    for clip, sample in zip(batch.clips, batch.decoded, strict=True):
        regions = text.regions[sample]
        if regions is not None:
            yield regions.frame * clips + clip, regions


def _rows(text: Text, total: int) -> Tensor:
    """Which of all `total` vision rows stand in each conversation, one conversation after the other."""
    patches = text.grids.prod(-1)
    counts = (patches * total // patches.sum()).tolist()
    starts = [0, *accumulate(counts)]
    rows = [torch.arange(starts[glimpse], starts[glimpse + 1]) for glimpse in text.glimpses]
    return torch.cat(rows).to(text.grids.device)


def nothing_asked(model: SegmentorAlone, batch: int) -> Conditions:
    """Conditions without language."""
    return Conditions.without_language(batch, model.config.dim, model.device, torch.get_default_dtype())


def graded(
    said: Answered, targets: Sequence[FrameTarget | None], draws: Sequence[Draw], losses: Losses
) -> StepLosses:
    """The losses of a batch; frames without a target are left out."""
    answers, language = said.layers, said.language
    if not answers:
        zero = torch.zeros_like(language)
        return StepLosses(language, language.detach(), zero, zero, zero)
    kept = [index for index, target in enumerate(targets) if target is not None]
    wanted = [target for target in targets if target is not None]
    if not kept:
        # Still a part of the graph, or devices would disagree on gradients.
        nothing = answers[-1].mask_logits_iqhw.flatten()[0] * 0
        return StepLosses(nothing + language, language.detach(), *(nothing.detach(),) * 3)
    if len(kept) < len(targets):
        answers = [_kept(layer, kept) for layer in answers]
    results = set_losses(answers, wanted, [draws[index] for index in kept], losses, said.counts)
    last = results[-1]
    total = torch.stack([result.weighted(losses) for result in results]).sum() + language
    if said.dense_i1hw is not None:
        total = total + losses.dense_weight * dense_loss(said.dense_i1hw[kept], wanted, losses)
    return StepLosses(
        total=total,
        language=language.detach(),
        classes=last.classes.detach(),
        masks=last.masks.detach(),
        dice=last.dice.detach(),
    )


def _kept(answers: Answers, kept: Sequence[int]) -> Answers:
    tokens = answers.token_conditions_ik
    index = list(kept)
    return Answers(
        answers.mask_logits_iqhw[index], answers.class_logits_iqk[index], None if tokens is None else tokens[index]
    )


def _offset(target: FrameTarget | None, by: int) -> FrameTarget | None:
    return target and replace(target, labels_n=target.labels_n + by)


def _token_numbers(cond_ids: Tensor) -> Tensor:
    """The condition of each condition token of a sample, in the order `pool` lays them out."""
    return cond_ids[cond_ids >= 0].sort().values


def _apart(conditions: Conditions, seg_ids: Tensor) -> Iterator[Conditions]:
    """Joined conditions for each sample alone, with the <SEG> of its own last turn.

    The reference takes another sample's for all but the first of a batch.
    """
    last = (seg_ids >= 0).sum(1).cumsum(0) - 1
    for sample, seg in enumerate(last.tolist()):
        yield Conditions(
            cond_embeds=conditions.cond_embeds[sample : sample + 1],
            token_embeds=conditions.token_embeds[sample : sample + 1],
            seg_embeds=conditions.seg_embeds[seg : seg + 1],
            embed_mask=conditions.embed_mask[None],
            token_mask=conditions.token_mask[sample : sample + 1],
        )
