"""The loop: batches in, steps out, checkpoints between. The same on one CPU, one GPU, many of either, many machines.

`train` is the whole of a run. `Trainer` is its state; `steps` yields one `Step` per micro-batch and ends when
the run does. Devices, processes and mixed precision are `accelerate`'s: start several processes with torchrun or
`accelerate launch`, and give all of them the same command.
"""

from __future__ import annotations

import importlib
import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, fields, replace
from itertools import accumulate, count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedDataParallelKwargs, FullyShardedDataParallelPlugin
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from x2roto.engine.model.x2sam import X2SAM
from x2roto.engine.model_folder import find_model
from x2roto.engine.prompting import SpecialIds
from x2roto.engine.segmenter import patch_config
from x2roto.engine.weights import check_fit, load_model, shapes_of
from x2roto.errors import ModelError, PromptError
from x2roto.train import checkpoint, initial
from x2roto.train.checkpoint import Learner, Position
from x2roto.train.collate import Batch, Pick, PickedSamples, Preparer, Reader, collate
from x2roto.train.config import DataSource, TrainConfig
from x2roto.train.finding import FinderStage, learn_finder
from x2roto.train.matching import Answers
from x2roto.train.muon import Muon
from x2roto.train.network import JointStage, SegmentorStage, StageNetwork, StepLosses
from x2roto.train.outlining import OutlinerStage, learn_outliner
from x2roto.train.report import Journal, Step, View, jaccard
from x2roto.train.samples import ClipDataset
from x2roto.train.sampling import MicroBatch, Source, count_micro_batches, micro_batches, rate_factor, repeat_factors
from x2roto.train.sight import SightStage, learn_sight

# What FSDP gathers and drops one by one; all else stays gathered during a step.
SHARDED_LAYERS = ("Qwen3VLTextDecoderLayer", "Qwen3VLVisionBlock", "Sam2MultiScaleBlock")


def train(
    config: TrainConfig,
    on_step: Callable[[Step], None] = lambda step: None,
    on_views: Callable[[Sequence[View], int], None] = lambda views, step: None,
) -> Trainer:
    """Run to the end, from the newest checkpoint in `config.out` if there is one; gives the trainer.

    Ends with a checkpoint and, the model folder `out/model` or, in stage "segmentor", the file
    `out/segmentor.safetensors`. Callbacks are called on the main process. Raises PromptError for a config that
    cannot run, ModelError for weights that cannot be used or learn no more, OutputError when writing fails.
    """
    trainer = Trainer(config)
    done = trainer.step
    with Journal(config.out, done) if trainer.main else nullcontext() as journal:
        for step in trainer.steps():
            if journal is not None:
                journal.step(step)
                on_step(step)
            if step.gradient_norm is None:
                continue
            if config.validation and _due(config.run.validate_every, done, step):
                views = trainer.validate()
                if journal is not None:
                    journal.views(views, step.number)
                    on_views(views, step.number)
            if _due(config.run.save_every, done, step):
                trainer.save()
            done = step.number
    trainer.finish()
    return trainer


def _due(every: int, done: int, step: Step) -> bool:
    """Whether a multiple of `every` lies after micro-batch `done` up to this one, or the run ends with it."""
    return step.number >= step.steps or (every > 0 and step.number // every > done // every)


SEEING = ("model.segmentor.encoder.", "model.finder.eyes.")
# Whose matrices are hidden, between others of the same part: what Muon is for.
HIDDEN = ("model.finder.eyes.stages.", "model.finder.layers.", "model.finder.words.layers.", "model.outliner.blocks.")


@dataclass(frozen=True, slots=True)
class Feed:
    """The data sets of a run and how an epoch draws on them."""

    sets: tuple[ClipDataset, ...]
    sources: tuple[Source, ...]
    seed: int

    def picks(self, micro: MicroBatch, epoch: int) -> list[Pick]:
        """The samples of a micro-batch. A sample met twice in an epoch is worded differently."""
        start = [0, *accumulate(source.length for source in self.sources)][micro.source]
        count = len(self.sets[micro.source])
        return [
            Pick(micro.source, (index - start) % count, draw_seed(self.seed, epoch, index)) for index in micro.indices
        ]


class Trainer:
    """A run's network, optimiser, data and position; ready to go on."""

    def __init__(self, config: TrainConfig) -> None:
        self.config = config
        self.accelerator = accelerator_for(config)
        self.sets = open_all(config.data)
        self.validation = open_all(config.validation)
        self.feed = Feed(self.sets, sources_of(self.sets, config), config.run.seed)
        stage, reader = (self._segmentor(), None) if config.stage == "segmentor" else self._whole()
        self.model_config = stage.model.config
        close = self.model_config.outliner.side if config.stage in ("outliner", "sight") else 0
        self.prepare = Preparer(self.model_config.image_size, reader, close)
        halve_frozen(stage, config)
        optimiser = Muon(parameter_groups(stage, config), **adamw(config))
        # Draws from here on differ by process; those before gave every process the same network.
        torch.manual_seed(config.run.seed + self.accelerator.process_index)
        self.stage, wrapped = self.accelerator.prepare(stage, optimiser)
        self.learner = Learner(self.stage, wrapped.optimizer, self.accelerator)
        self._rest = self._blended_with() if config.run.blend < 1 else None
        self.per_epoch = count_micro_batches(self.feed.sources, self.accelerator.num_processes)
        self.total = config.optimiser.steps or config.optimiser.epochs * self.per_epoch
        found = checkpoint.restore(config.out, self.learner, config.digest())
        self.position = found or Position(0, 0, 0, config.digest())

    def _segmentor(self) -> StageNetwork:
        model = initial.initial_segmentor(self.config, self.accelerator.device)
        initial.learn_segmentor(model, encoder=encoder_rate(self.config) > 0)
        return SegmentorStage(model, self.config.losses, **self._stage_options())

    def _whole(self) -> tuple[StageNetwork | FinderStage, Reader]:
        config = self.config
        self.tokenizer = initial.load_tokenizer(config)
        model = initial.initial_model(config, self.tokenizer, self.accelerator.device)
        patches, special = patch_config(model), SpecialIds.of(self.tokenizer)
        points, glimpse = model.config.region.points, config.batches.region_glimpse
        makers: Mapping[str, Callable[[X2SAM], StageNetwork | FinderStage]]
        makers = {
            "finder": self._finder, "outliner": self._outliner, "sight": self._sight, "joint": self._joint,
        }  # fmt: skip
        stage = makers[config.stage](model)
        return stage, Reader(self.tokenizer, special, patches, points, glimpse)

    def _joint(self, model: X2SAM) -> StageNetwork:
        initial.learn_all(model, self.config.language, encoder=encoder_rate(self.config) > 0)
        return JointStage(model, self.config.losses, **self._stage_options())

    def _finder(self, model: X2SAM) -> FinderStage:
        if model.finder is None:
            raise PromptError("stage finder needs a network that has one: in [initial] set finder to its width")
        learn_finder(model, eyes=encoder_rate(self.config) > 0)
        return FinderStage(model, self.config.losses)

    def _outliner(self, model: X2SAM) -> StageNetwork:
        self._check_outliner(model)
        learn_outliner(model)
        return OutlinerStage(model, self.config.losses, **self._stage_options())

    def _sight(self, model: X2SAM) -> StageNetwork:
        self._check_outliner(model)
        learn_sight(model, eyes=encoder_rate(self.config) > 0)
        return SightStage(model, self.config.losses, **self._stage_options())

    def _check_outliner(self, model: X2SAM) -> None:
        if model.outliner is None or not model.config.room:
            raise PromptError(
                f"stage {self.config.stage} needs a network that has one and looks at windows: in [initial] set "
                "outliner to its width, and model to one with a finder and a room"
            )

    def _stage_options(self) -> dict[str, Any]:
        return {"checkpointing": self.config.run.checkpointing, "mean": self._mean}

    @property
    def main(self) -> bool:
        """Whether this process reports for all."""
        return bool(self.accelerator.is_main_process)

    @property
    def step(self) -> int:
        """Micro-batches done."""
        return self.position.step

    def steps(self) -> Iterator[Step]:
        """Train on; one `Step` per micro-batch. Stops after the optimiser step that completes the run.

        Raises ModelError when a gradient is not finite.
        """
        self.stage.train()
        for epoch in count(self.position.epoch):
            if self.step >= self.total:
                return
            yield from self._epoch(epoch)

    def _epoch(self, epoch: int) -> Iterator[Step]:
        skipped = self.position.batch if epoch == self.position.epoch else 0
        world, rank = self.accelerator.num_processes, self.accelerator.process_index
        every = micro_batches(self.feed.sources, world, rank, self.config.run.seed + epoch)
        left = list(every)[skipped:]
        started = time.monotonic()
        for number, (micro, batch) in enumerate(zip(left, self._batches(left, epoch), strict=True), skipped + 1):
            rate = self._rate()
            losses, norm = self._learn(batch.to(self.accelerator.device), micro, rate)
            self.position = replace(self.position, epoch=epoch, batch=number, step=self.step + 1)
            source, clips = self.sets[micro.source].name, len(micro.indices) * world
            seconds = time.monotonic() - started
            yield Step(self.step, self.total, epoch, source, clips, rate, norm, seconds, **self._averaged(losses))
            if micro.steps and self.step >= self.total:
                return
            started = time.monotonic()

    def _batches(self, left: Sequence[MicroBatch], epoch: int) -> Iterator[Batch]:
        """What the micro-batches hold; one that is learnt from again is loaded once."""
        fresh = [micro for number, micro in enumerate(left) if not number or not micro.take]
        loaded, batch = iter(self._loader(fresh, epoch)), None
        for micro in left:
            if batch is None or not micro.take:
                batch = next(loaded)
            yield batch.again(micro.take)

    def _loader(self, micro: Sequence[MicroBatch], epoch: int) -> DataLoader[Any]:
        return DataLoader(
            PickedSamples(self.sets, self.prepare),
            batch_sampler=[self.feed.picks(batch, epoch) for batch in micro],
            collate_fn=collate,
            num_workers=self.config.batches.workers,
            # The loader would draw from torch's generator, once more after each resumption.
            generator=torch.Generator(),
        )

    def _rate(self) -> float:
        settings = self.config.optimiser
        step = min(self.step, self.total - 1)
        return settings.rate * rate_factor(step, self.total, settings.warmup, settings.warmup_start)

    def _learn(self, batch: Batch, micro: MicroBatch, rate: float) -> tuple[StepLosses, float | None]:
        """Gradients of a micro-batch and, if it completes a step, the step; gives the gradient's norm then."""
        window = self.feed.sources[micro.source].accumulation
        with nullcontext() if micro.steps else self.accelerator.no_sync(self.stage):
            losses: StepLosses = self.stage(batch)
            self.accelerator.backward(losses.total / window)
        if not micro.steps:
            return losses, None
        limit = self.config.optimiser.clip_norm or math.inf
        norm = float(self.accelerator.clip_grad_norm_(self.stage.parameters(), limit))
        if not math.isfinite(norm):
            raise ModelError(
                f"the gradient of micro-batch {self.step + 1} is not finite: lower the rate and go on from "
                f"the newest checkpoint in {self.config.out}"
            )
        for group in self.learner.optimiser.param_groups:
            group["lr"] = rate * group["share"]
        self.learner.optimiser.step()
        self.learner.optimiser.zero_grad(set_to_none=True)
        return losses, norm

    def _mean(self, value: Tensor) -> Tensor:
        return cast(Tensor, self.accelerator.reduce(value, reduction="mean"))

    def _averaged(self, losses: StepLosses) -> dict[str, float]:
        """The losses of all devices' batches taken as one."""
        names = [field.name for field in fields(losses)]
        values = torch.stack([getattr(losses, name).detach().float() for name in names])
        return dict(zip(names, self._mean(values).tolist(), strict=True))

    def save(self) -> None:
        """Write a checkpoint; every process must call."""
        checkpoint.save(self.config.out, self.learner, self.position, self.config.run.keep)

    def _learning(self) -> Iterator[nn.Parameter]:
        return (each for each in self.stage.parameters() if each.requires_grad)

    def _blended_with(self) -> list[Tensor]:
        """For each parameter that learns, the one that it is blended with in the end."""
        named = self.config.run.blend_with
        if named is None:
            return [each.detach().clone() for each in self._learning()]
        ours = self.accelerator.unwrap_model(self.stage).named_parameters()
        learning = {name.removeprefix("model."): each for name, each in ours if each.requires_grad}
        other = load_model(find_model(named), self.accelerator.device, torch.float32)
        theirs = {name: each.detach() for name, each in other.named_parameters() if name in learning}
        check_fit(shapes_of(theirs), shapes_of(learning), named)
        return [theirs[name] for name in learning]

    @torch.no_grad()
    def _blend(self) -> None:
        """Mix what was learnt with what the run began with, or with another model."""
        if self._rest is not None:
            for learnt, rest in zip(self._learning(), self._rest, strict=True):
                learnt.lerp_(rest, 1 - self.config.run.blend)

    def finish(self) -> None:
        """Write what the run is for; every process must call. Nothing is learnt after that."""
        self._blend()
        if self.config.stage == "segmentor":
            checkpoint.write_segmentor(self.learner, self.config.out)
            return
        with TemporaryDirectory() as folder:
            self.tokenizer.save(str(Path(folder) / "tokenizer.json"))
            if self.model_config.finder.dim and (lexicon := initial.known_words(self.config)) is not None:
                lexicon.write(Path(folder))
            checkpoint.export(self.learner, self.config, self.model_config, Path(folder))

    @torch.no_grad()
    def validate(self) -> list[View]:
        """How the validation samples are seen by now; every process must call."""
        self.stage.eval()
        views = [self._view(data, index) for data in self.validation for index in range(len(data))]
        self.stage.train()
        return [view for view in views if view is not None]

    def _view(self, data: ClipDataset, index: int) -> View | None:
        sample = data[index]
        batch = collate([self.prepare(replace(sample, apart=False), index)]).to(self.accelerator.device)
        answers: Answers | None = self.stage(batch, learn=False)
        if answers is None or sample.masks is None or sample.condition is None:
            return None
        conditions = np.zeros_like(sample.condition) if self.config.stage == "segmentor" else sample.condition
        size = sample.frames.shape[1:3]
        seen = F.interpolate(condition_logits(answers), size=size, mode="bilinear", align_corners=False) > 0
        found = seen.transpose(0, 1).cpu().numpy()
        wanted = np.stack([sample.masks[conditions == number].any(0) for number in range(len(found))])
        return View(f"{data.name}-{index}", sample.frames, wanted, found, jaccard(wanted, found))


# ---- parts ----------------------------------------------------------------------------------------------


def accelerator_for(config: TrainConfig) -> Accelerator:
    """Devices, processes and precision as the config and the launcher say."""
    sharding = FullyShardedDataParallelPlugin(
        fsdp_version=2,
        auto_wrap_policy="transformer_based_wrap",
        transformer_cls_names_to_wrap=list(SHARDED_LAYERS),
        state_dict_type="FULL_STATE_DICT",
        cpu_ram_efficient_loading=False,
    )
    # One process may run stages of different precision in turn; accelerate keeps the first one's otherwise.
    AcceleratorState._reset_state()
    # Chat has no masks, pictures no memory: a step need not use every parameter.
    unused = DistributedDataParallelKwargs(find_unused_parameters=True)
    return Accelerator(
        mixed_precision="bf16" if config.run.precision == "bf16" else "no",
        cpu=not torch.accelerator.is_available(),
        fsdp_plugin=sharding if config.run.sharding == "fsdp" else None,
        kwargs_handlers=[unused],
    )


def open_all(sources: Sequence[DataSource]) -> tuple[ClipDataset, ...]:
    """The data sets. Raises PromptError for one that cannot be found, takes other options or is empty."""
    return tuple(data for source in sources for data in open_source(source))


def open_source(source: DataSource) -> tuple[ClipDataset, ...]:
    """What one entry gives, as `open_all`: a data set or several."""
    module, _, name = source.open.partition(":")
    try:
        make = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise PromptError(f"no data set {source.open!r} ({error}): open must be 'module:callable'") from error
    try:
        opened = make(**source.options)
    except TypeError as error:
        raise PromptError(f"data set {source.open} does not take these options: {error}") from error
    sets = opened if isinstance(opened, tuple) else (opened,)
    if not sets or not all(map(len, sets)):
        raise PromptError(f"data set {source.open} is empty")
    return sets


def sources_of(sets: Sequence[ClipDataset], config: TrainConfig) -> tuple[Source, ...]:
    """The data sets as the sampler sees them, small ones repeated."""
    lengths = [len(data) for data in sets]
    repeats = repeat_factors(lengths, config.batches.resample)
    return tuple(
        _source(data, int(length * repeat), config)
        for data, length, repeat in zip(sets, lengths, repeats, strict=True)
    )


def _source(data: ClipDataset, length: int, config: TrainConfig) -> Source:
    batches = config.batches
    if data.modality == "image":
        return Source(length, batches.image_batch, batches.image_accumulation, echo=batches.image_echo)
    counts = [data.frame_count(index) for index in range(len(data))]
    return Source(length, batches.video_batch, batches.video_accumulation, counts)


def draw_seed(seed: int, epoch: int, index: int) -> int:
    """The seed of everything drawn for one sample of an epoch."""
    return int(np.random.SeedSequence((seed, epoch, index)).generate_state(1)[0])


def halve_frozen(stage: nn.Module, config: TrainConfig) -> None:
    """Keep what of the language model does not learn in bfloat16, under that precision; it is most of the network.

    Shards hold tensors of one type, so not there.
    """
    if config.run.precision == "bf16" and config.run.sharding == "none":
        for name, parameter in stage.named_parameters():
            if name.startswith("model.vlm.") and not parameter.requires_grad:
                parameter.data = parameter.data.bfloat16()


def encoder_rate(config: TrainConfig) -> float:
    """Learning rate of what sees as a share; stage "segmentor" freezes it unless told otherwise."""
    share = config.optimiser.encoder_rate
    return {"segmentor": 0.0, "finder": 1.0, "sight": 1.0}.get(config.stage, 0.1) if share is None else share


def parameter_groups(stage: nn.Module, config: TrainConfig) -> list[dict[str, Any]]:
    """Parameters that learn, those of what sees apart; `share` scales a group's rate, `orthogonal`: Muon steps it.

    Raises PromptError when Muon is asked for and nothing that learns is for it.
    """
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = defaultdict(list)
    for name, parameter in stage.named_parameters():
        if parameter.requires_grad:
            hidden = config.optimiser.muon and parameter.ndim > 1 and name.startswith(HIDDEN)
            groups[name.startswith(SEEING), hidden].append(parameter)
    if config.optimiser.muon and not any(hidden for _, hidden in groups):
        raise PromptError(f"optimiser.muon is for finder and outliner, which do not learn in stage {config.stage}")
    share = encoder_rate(config)
    return [
        {"params": params, "share": share if sees else 1.0, "orthogonal": hidden}
        for (sees, hidden), params in groups.items()
    ]


def adamw(config: TrainConfig) -> dict[str, Any]:
    """AdamW's options; decay is on every parameter, biases and norms included, as in the reference."""
    settings = config.optimiser
    return {
        "lr": settings.rate,
        "betas": (settings.beta1, settings.beta2),
        "weight_decay": settings.weight_decay,
    }


def condition_logits(answers: Answers) -> Tensor:
    """How sure each pixel is of each condition, (T, K, h, w): the surest query, as sure as its class and mask are."""
    masks = answers.mask_logits_iqhw.float()
    sure = condition_scores(answers).logit(eps=1e-6)
    return torch.stack([masks.minimum(score[..., None, None]).amax(1) for score in sure.unbind(-1)], dim=1)


def condition_scores(answers: Answers) -> Tensor:
    """Every query's score for every condition, (T, Q, K)."""
    logits, tokens = answers.class_logits_iqk.float(), answers.token_conditions_ik
    if tokens is None:
        return logits.softmax(-1)[..., :-1]
    numbers = range(int(tokens.max()) + 1)
    return torch.stack([logits[..., tokens[0] == number].sigmoid().mean(-1) for number in numbers], dim=-1)
