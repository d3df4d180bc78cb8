"""The benchmarks: what data set, how its answers are made and scored, what the paper reports. One row each.

Needs no torch. The protocols are those of evaluation spec section 2, the numbers those of its section 3: the released
X2SAM (arXiv 2605.00891), in percent, by our names of measures; "mIoU" of interactive segmentation is gIoU.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from x2roto.data.sample import PromptKind
from x2roto.errors import PromptError

# standard: whole videos, all frames, objects shown once, linked over time. reference: as the paper's numbers came
# about, chunk by chunk (evaluation spec, first table).
Mode = Literal["standard", "reference"]
MODES: tuple[Mode, ...] = ("standard", "reference")
# What is scored. masks: one per image. objects: J and F. grounded: captions with masks.
Kind = Literal["panoptic", "semantic", "instance", "masks", "objects", "grounded"]
# Files of predictions that the data set's own tools read.
Format = Literal["panoptic", "labels", "coco", "tracks", "requests", "objects", "folders", "captions"]


@dataclass(frozen=True, slots=True)
class Cut:
    """How the reference cuts a video into chunks.

    `size`: most frames of a chunk; those of one frame are left out. `spread`: a chunk's frames lie over the whole
    video. `drop`: leave out frames that show nothing asked for, before cutting or within each chunk.
    """

    size: int = 8
    spread: bool = False
    drop: Literal["never", "before", "within"] = "never"


@dataclass(frozen=True, slots=True)
class Published:
    """Numbers of the paper, in percent, and what they are for: any split, any prompt, the whole data set."""

    scores: Mapping[str, float]
    split: str | None = None
    prompt: PromptKind | None = None
    part: str = ""


@dataclass(frozen=True, slots=True)
class Benchmark:
    """One row; its name is the layout's.

    `united`: an answer may be several masks together, or nothing. `inner`: in standard mode first and last annotated
    frames do not count, as in the data set's own toolkit. `remark`: what to know beside the numbers.
    """

    name: str
    kind: Kind
    format: Format
    paper: tuple[Published, ...] = ()
    cut: Cut = Cut()
    united: bool = False
    inner: bool = False
    remark: str = ""

    @property
    def linked(self) -> bool:
        """Whether the tracker's identities are what is scored; class maps and panoptic segments are made anew."""
        return self.kind not in ("panoptic", "semantic")

    def published(self, split: str, prompt: PromptKind | None, part: str = "") -> Mapping[str, float]:
        """The paper's numbers for these choices, empty where it has none."""
        fitting = (
            each.scores
            for each in self.paper
            if each.split in (None, split) and each.prompt in (None, prompt) and each.part == part
        )
        return next(fitting, {})


def benchmark_named(name: str) -> Benchmark:
    """The benchmark of that name. Raises PromptError listing those there are."""
    if name not in BENCHMARKS:
        raise PromptError(f"no benchmark is called {name!r}: use one of {', '.join(sorted(BENCHMARKS))}")
    return BENCHMARKS[name]


# ---- the paper's numbers ----------------------------------------------------------------------------------


def _ap(ap: float, ap50: float, prompt: PromptKind | None = None) -> Published:
    return Published({"AP": ap, "AP50": ap50}, prompt=prompt)


def _overlap(split: str, ciou: float, giou: float | None = None, part: str = "") -> Published:
    scores = {"cIoU": ciou} if giou is None else {"cIoU": ciou, "gIoU": giou}
    return Published(scores, split, part=part)


def _outline(
    region: float, boundary: float, both: float, part: str = "", prompt: PromptKind | None = None
) -> Published:
    return Published({"J": region, "F": boundary, "J&F": both}, prompt=prompt, part=part)


def _told(split: str, meteor: float, cider: float, ap50: float, miou: float) -> Published:
    return Published({"METEOR": meteor, "CIDEr": cider, "AP50": ap50, "mIoU": miou}, split)


def _shown(prompt: PromptKind, giou: float, ciou: float) -> Published:
    return Published({"gIoU": giou, "cIoU": ciou}, prompt=prompt)


_VPQ = {"VPQ1": 59.3, "VPQ2": 48.4, "VPQ4": 42.4, "VPQ6": 38.9, "VPQ": 47.3}
_GCG = (
    "The paper gives means of Video-GCG, MeViS-GCG and VidSTG-GCG: METEOR 16.6, CIDEr 43.2, Recall 42.0, mIoU 75.8."
)
_WITHIN, _CAPTIONED = Cut(drop="within"), Cut(16, spread=True)

_ROWS = (
    # ---- images
    Benchmark("coco_panoptic", "panoptic", "panoptic", (Published({"PQ": 54.1, "PQ_th": 60.3, "PQ_st": 44.9}),)),
    Benchmark("coco_semantic", "semantic", "labels", (Published({"mIoU": 64.8}),)),
    Benchmark("coco_instance", "instance", "coco", (Published({"AP": 45.8}),)),
    Benchmark("ade20k_panoptic", "panoptic", "panoptic", (Published({"PQ": 31.2}),)),
    Benchmark("ade20k_semantic", "semantic", "labels", (Published({"mIoU": 38.2}),)),
    Benchmark("ade20k_instance", "instance", "coco", (Published({"AP": 20.2}),)),
    Benchmark(
        "refcoco", "masks", "requests", (_overlap("val", 84.0), _overlap("testA", 85.5), _overlap("testB", 81.8))
    ),
    Benchmark(
        "refcocop", "masks", "requests", (_overlap("val", 78.4), _overlap("testA", 82.4), _overlap("testB", 74.3))
    ),
    Benchmark("refcocog", "masks", "requests", (_overlap("val", 81.9), _overlap("test", 83.2))),
    Benchmark(
        "grefcoco",
        "masks",
        "requests",
        (_overlap("val", 63.1, 68.1), _overlap("testA", 67.3, 71.2), _overlap("testB", 63.4, 66.7)),
        united=True,
    ),
    Benchmark(
        "reasonseg",
        "masks",
        "requests",
        (
            _overlap("val", 64.5, 71.1),
            _overlap("test", 65.6, 68.5),
            _overlap("test", 53.5, 60.0, "short"),
            _overlap("test", 66.7, 68.9, "long"),
        ),
    ),
    Benchmark(
        "grandf",
        "grounded",
        "captions",
        (_told("val", 15.2, 35.6, 33.1, 67.1), _told("test", 14.8, 33.6, 31.3, 65.2)),
    ),
    Benchmark(
        "coco_int",
        "masks",
        "requests",
        (
            _shown("point", 67.7, 67.1),
            _shown("scribble", 66.3, 69.2),
            _shown("box", 70.3, 75.7),
            _shown("mask", 71.6, 81.5),
        ),
    ),
    Benchmark("coco_vgd", "instance", "coco", (_ap(45.9, 68.2, "point"), _ap(48.5, 71.6, "box"))),
    # ---- videos
    Benchmark("vipseg", "panoptic", "panoptic", (Published(_VPQ),)),
    Benchmark("vspw", "semantic", "labels", (Published({"mIoU": 65.1, "mVC8": 90.0, "mVC16": 86.5}),)),
    Benchmark("ytvis19", "instance", "tracks", (_ap(69.9, 88.4),), Cut(drop="before")),
    Benchmark("ytvis21", "instance", "tracks", (_ap(60.3, 78.0),), Cut(drop="before")),
    Benchmark("ref_ytvos", "objects", "folders", (_outline(76.0, 80.9, 78.5),), _WITHIN),
    Benchmark("ref_davis17", "objects", "folders", (_outline(75.2, 82.8, 79.0),), _WITHIN),
    Benchmark(
        "revos",
        "objects",
        "folders",
        (
            _outline(66.7, 73.0, 69.9),
            _outline(66.2, 72.4, 69.3, "referring"),
            _outline(67.5, 74.0, 70.3, "reasoning"),
        ),
        Cut(spread=True, drop="within"),
    ),
    Benchmark("video_gcg", "grounded", "captions", cut=_CAPTIONED, remark=_GCG),
    Benchmark("mevis_gcg", "grounded", "captions", cut=_CAPTIONED, remark=_GCG),
    Benchmark("vidstg_gcg", "grounded", "captions", cut=_CAPTIONED, remark=_GCG),
    Benchmark(
        "ytvos19",
        "objects",
        "objects",
        (
            _outline(72.2, 75.9, 74.0, prompt="mask"),
            _outline(74.3, 77.7, 76.0, "seen", "mask"),
            _outline(58.6, 64.1, 61.4, "unseen", "mask"),
        ),
        _WITHIN,
    ),
    Benchmark("yt19_vgd", "instance", "tracks", (_ap(73.8, 93.5, "point"), _ap(74.4, 93.9, "box"))),
    Benchmark("vipseg_vgd", "instance", "tracks", (_ap(55.5, 75.4, "point"), _ap(57.8, 78.3, "box"))),
    Benchmark("davis16", "objects", "objects", cut=_WITHIN, inner=True),
    Benchmark("davis17", "objects", "objects", cut=_WITHIN, inner=True),
    Benchmark("sa_v", "objects", "folders", cut=_WITHIN, inner=True),
    Benchmark("footage", "objects", "objects", cut=_WITHIN),
)
BENCHMARKS: Mapping[str, Benchmark] = {row.name: row for row in _ROWS}
