"""A training run as frozen values, read from TOML; unknown keys are errors. Needs no torch.

Defaults are the released code's; where the paper says otherwise the field names the paper's value. Source:
wanghao9610/X2SAM@5b0b106 `x2sam/x2sam/configs/x2sam/` and arXiv 2605.00891, tables 10 to 12.
"""

from __future__ import annotations

import hashlib
import json
import os
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

from x2roto.engine.model.config import ModelConfig
from x2roto.engine.model_folder import Licence, read_config
from x2roto.errors import PromptError
from x2roto.job import from_values
from x2roto.preset import folders

Stage = Literal["segmentor", "joint", "finder", "outliner", "sight"]


@dataclass(frozen=True, slots=True)
class Initial:
    """Where the parameters start; what no file gives is drawn at random from the run's seed.

    `model`: a model folder, complete; `image_size`: another side of the square that its mask encoder sees from now
    on, 0 for its own; `anchored` and `reading`: as `ModelConfig` has them, from now on; what is new is drawn so that
    it changes nothing yet. `finder`: width of a finder; `outliner`: width of an outliner; `outline_side`: as
    `OutlinerConfig.side`, from now on; `outline_blocks`: as `OutlinerConfig.blocks`, from now on, of which new
    ones change nothing yet; `outline_alone`: as `OutlinerConfig.alone`. `plain`: `carry` and `reading` are left out
    from now on.

    Or in parts: `language`, the folder of Qwen3-VL; `mask_encoder`, the folder of SAM 2.1 as `transformers` has it;
    `segmentor`, the weights of a stage "segmentor" run, taken by name and shape. `tokenizer`: the folder of
    tokenizer.json, None for that of `model` or `language`; "bytes" and "learnt" (`train/words.py`) need no file.
    `spread`: standard deviation of drawn weights of memory and decoder where no recipe of theirs says otherwise; 0:
    by the number of inputs, which narrow layers need.
    """

    model: str | None = None
    image_size: int = 0
    anchored: bool = False
    reading: int = 0
    finder: int = 0
    outliner: int = 0
    outline_side: int = 0
    outline_blocks: int = 0
    outline_alone: bool = False
    plain: bool = False
    language: str | None = None
    mask_encoder: str | None = None
    segmentor: str | None = None
    tokenizer: str | None = None
    spread: float = 0.02


@dataclass(frozen=True, slots=True)
class Language:
    """How the text layers learn: by low-rank updates, with all parameters, or not at all.

    `rank`, `alpha` and `dropout` belong to "lora". Under "lora" the vision tower is frozen but for its mergers.
    """

    learn: Literal["lora", "full", "frozen"] = "lora"
    rank: int = 128
    alpha: int = 256
    dropout: float = 0.05


@dataclass(frozen=True, slots=True)
class Batches:
    """How samples become optimiser steps. Batches count clips per device, accumulation counts micro-batches.

    `image_echo`: how often a batch of images is learnt from before the next, for footage that takes longer to draw
    than to learn from (arXiv 1907.05550); stages "finder" and "sight" see other parts in other light each time.
    `resample`: the t of dataset-balanced resampling, 0 for none. `region_glimpse`: frames of a clip the
    language model sees in region tasks; the released code shows it 4 of 8, 0 shows all (paper).
    `workers`: processes that load data, per device.
    """

    image_batch: int = 4
    video_batch: int = 1
    image_accumulation: int = 1
    video_accumulation: int = 4
    image_echo: int = 1
    resample: float = 0.1
    region_glimpse: int = 4
    workers: int = 4


@dataclass(frozen=True, slots=True)
class Optimiser:
    """AdamW with decay on every parameter, warm-up, cosine to zero; both run by micro-batch over all epochs.

    `encoder_rate`: learning rate of the mask encoder, in stages "finder" and "sight" of the finder's eyes, as a share
    of `rate`, 0 freezes it; None is 0.1 in stage "joint", 0 in stage "segmentor" and 1 for eyes. `muon`: the hidden
    matrices of finder and outliner step as Muon does. `clip_norm`: largest gradient norm, 0 for any. `warmup`: share
    of the run. `steps`: stop after that many micro-batches, 0 for whole epochs.
    """

    rate: float = 1e-4
    encoder_rate: float | None = None
    beta1: float = 0.9
    beta2: float = 0.999
    weight_decay: float = 0.05
    muon: bool = False
    clip_norm: float = 1.0
    warmup: float = 0.03
    warmup_start: float = 1e-5
    epochs: int = 1
    steps: int = 0


@dataclass(frozen=True, slots=True)
class Losses:
    """Weights and sampling of the losses, which also weigh the matching.

    `classes`: cross entropy over conditions and background as released, or the paper's focal loss over the tokens
    of the conditions. `points`: per mask; `oversample` times as many candidates are drawn and `uncertain` of the
    points are the candidates nearest to a mask's edge. 0: every pixel of the masks made smaller by `stride`.
    `dense_weight`: of masks and dice of all that is asked for, straight from the per-pixel embedding; stage "joint".
    """

    classes: Literal["cross_entropy", "focal"] = "cross_entropy"
    class_weight: float = 2.0
    mask_weight: float = 5.0
    dice_weight: float = 5.0
    language_weight: float = 1.0
    dense_weight: float = 0.0
    background_weight: float = 0.1
    points: int = 12544
    stride: int = 1
    oversample: float = 3.0
    uncertain: float = 0.75
    focal_alpha: float = 0.25
    focal_gamma: float = 2.0


@dataclass(frozen=True, slots=True)
class Run:
    """How the run proceeds; intervals count micro-batches, 0 for never.

    `store`: numbers of the finished model's parameters; None: those of `precision`.
    `precision` "bf16": autocast; parameters stay float32, but those of the language model that do not learn are
    bfloat16 unless sharded. `checkpointing`: recompute activations in the backward pass. `sharding` "fsdp":
    parameters, gradients and optimiser state are spread over the processes; otherwise every process holds all.
    `blend`: share of what was learnt in the finished model's parameters, at most 1, the rest being those of the model
    `blend_with` (None: what the run began with), so that less of that is forgotten (arXiv 2109.01903).
    """

    seed: int = 0
    precision: Literal["fp32", "bf16"] = "bf16"
    store: Literal["float32", "bfloat16", "float16"] | None = None
    checkpointing: bool = False
    sharding: Literal["none", "fsdp"] = "none"
    save_every: int = 2000
    keep: int = 2
    log_every: int = 10
    validate_every: int = 2000
    blend: float = 1.0
    blend_with: str | None = None


@dataclass(frozen=True, slots=True)
class DataSource:
    """Training data: `open` is "module:callable", called with `options`; it gives a `samples.ClipDataset` or a tuple
    of them."""

    open: str
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """One run. `out`: folder for checkpoints, logs, pictures and the finished model, which takes its name.

    `licences`: of what the model is made from, written into it, beside those of `Initial.language`.
    `model`: sizes of the network; `Initial` overrides those its files tell.
    """

    stage: Stage
    out: Path
    data: tuple[DataSource, ...]
    validation: tuple[DataSource, ...] = ()
    model: ModelConfig = field(default_factory=ModelConfig)
    initial: Initial = field(default_factory=Initial)
    language: Language = field(default_factory=Language)
    batches: Batches = field(default_factory=Batches)
    optimiser: Optimiser = field(default_factory=Optimiser)
    losses: Losses = field(default_factory=Losses)
    run: Run = field(default_factory=Run)
    licences: tuple[Licence, ...] = ()

    def digest(self) -> str:
        """Equal for configs that give the same training; where and how often it reports does not count."""
        values = asdict(self)
        del values["out"], values["validation"], values["licences"], values["batches"]["workers"]
        for free in ("store", "save_every", "keep", "log_every", "validate_every", "blend", "blend_with"):
            del values["run"][free]
        return hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode()).hexdigest()[:12]


SECTIONS: Mapping[str, type[Any]] = {
    "initial": Initial,
    "language": Language,
    "batches": Batches,
    "optimiser": Optimiser,
    "losses": Losses,
    "run": Run,
}


def find_config(name: str) -> Path:
    """The file of that path, or of that name among the presets' `train` folders. Raises PromptError."""
    if name.endswith(".toml") or os.sep in name:
        return Path(name)
    found = [folder / "train" / f"{name}.toml" for folder in folders()]
    known = sorted({path.stem for folder in folders() for path in (folder / "train").glob("*.toml")})
    if existing := [path for path in found if path.is_file()]:
        return existing[0]
    raise PromptError(f"no training preset is called {name!r}: use one of {', '.join(known)}, or a .toml file")


def load_config(path: Path, out: Path | None = None) -> TrainConfig:
    """The run a TOML file describes; `out` replaces the file's. Raises PromptError or ModelError, naming the key."""
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise PromptError(f"{path} cannot be read: {error}") from error
    config = parse_config(values, path)
    return config if out is None else replace(config, out=out)


def parse_config(values: Mapping[str, Any], path: Path) -> TrainConfig:
    """`load_config` for values already read from `path`."""
    known = {"stage", "out", "data", "validation", "model", "licences", *SECTIONS}
    if unknown := sorted(values.keys() - known):
        raise PromptError(f"{path}: unknown key {unknown[0]!r}: use one of {', '.join(sorted(known))}")
    if values.get("stage") not in get_args(Stage):
        raise PromptError(f"{path}: stage is {values.get('stage')!r}: use one of {', '.join(get_args(Stage))}")
    if not values.get("data"):
        raise PromptError(f"{path}: no [[data]]: name at least one data set")
    sections = {name: from_values(kind, values.get(name, {}), f"{path} [{name}]") for name, kind in SECTIONS.items()}
    _check_ranges(sections, path)
    return TrainConfig(
        stage=values["stage"],
        out=Path(values.get("out", f"runs/{path.stem}")),
        data=_sources(values["data"], f"{path} [[data]]"),
        validation=_sources(values.get("validation", []), f"{path} [[validation]]"),
        model=read_config(values.get("model", {}), path),
        licences=tuple(from_values(Licence, each, f"{path} [[licences]]") for each in values.get("licences", [])),
        **sections,
    )


def _sources(tables: Any, where: str) -> tuple[DataSource, ...]:
    for table in tables:
        if not isinstance(table, dict) or not {"open"} <= table.keys() <= {"open", "options"}:
            raise PromptError(f'{where}: each needs open = "module:callable" and takes options = {{…}}, nothing else')
    return tuple(DataSource(table["open"], table.get("options", {})) for table in tables)


def _check_ranges(sections: Mapping[str, Any], path: Path) -> None:
    least = {
        "batches": {
            "image_batch": 1,
            "video_batch": 1,
            "image_accumulation": 1,
            "video_accumulation": 1,
            "image_echo": 1,
        },
        "optimiser": {"epochs": 1, "rate": 0, "clip_norm": 0},
        "language": {"rank": 1},
        "run": {"keep": 1, "blend": 0},
        "losses": {"points": 0, "stride": 1, "oversample": 1},
    }
    for section, bounds in least.items():
        for key, bound in bounds.items():
            value = getattr(sections[section], key)
            if value < bound:
                raise PromptError(f"{path} [{section}]: {key} is {value}: it must be at least {bound}")
    if sections["run"].blend > 1:
        raise PromptError(f"{path} [run]: blend is {sections['run'].blend}: it must be at most 1")
    whole = {"[run]: blend_with": sections["run"].blend_with, "[optimiser]: muon": sections["optimiser"].muon}
    for key, asked in whole.items():
        if asked and sections["run"].sharding != "none":
            raise PromptError(f"{path} {key} needs whole parameters: set sharding to none")
    if sections["batches"].image_echo > 1 < sections["batches"].image_accumulation:
        raise PromptError(f"{path} [batches]: image_echo is for steps of one batch: set image_accumulation to 1")
