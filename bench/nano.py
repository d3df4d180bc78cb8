"""What a model can do with each kind of prompt: `python bench/nano.py procedural`, `python bench/nano.py real`.

`procedural`: clips of a seed range that no training preset uses, every prompt kind, and things that are not there.
`real`: the clips with ground truth of a footage folder, whole, streaming, with the prompts of its manifest; beside
them, in the same run, GrabCut carried along by optical flow, and the box left where it was drawn.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from statistics import fmean, median
from typing import Annotated, Any

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.table import Table
from torch.nn.attention import SDPBackend, sdpa_kernel

from x2roto.clip import Frame, both_ways, spread
from x2roto.engine.model import pixel_decoder
from x2roto.engine.model.config import ModelConfig
from x2roto.engine.model.mask_decoder import ClassPredictor, MaskDecoder
from x2roto.engine.segmenter import Segmenter, load_segmenter
from x2roto.engine.shot import Query
from x2roto.engine.tracker import FrameResult
from x2roto.evaluate.metrics.boundary import boundary_accuracy, region_similarity
from x2roto.evaluate.metrics.tracking import IdentitySwitches
from x2roto.matte import Refine
from x2roto.prompt import Box, Classes, MaskPrompt, Points, Prompt, Question, Text
from x2roto.refine import alpha_from_logits
from x2roto.train.footage import Material, Shape, film
from x2roto.train.footage.dataset import FilmedClip
from x2roto.train.footage.language import TARGET_AREA
from x2roto.train.footage.regions import KINDS, asking

app = typer.Typer(add_completion=False)
Masks = NDArray[np.bool_]
HELD_BACK = 20_260  # first number of the seeds of clips that are only measured
GLIMPSE = 16
PARTS = ("windows", "palette", "carry", "match", "reading", "outliner", "alone")


@dataclass(slots=True)
class Scores:
    """J and F of frames under one kind of prompt."""

    j: list[float] = field(default_factory=list)
    f: list[float] = field(default_factory=list)

    def add(self, truth: Masks, found: Masks) -> None:
        self.j.append(region_similarity(truth, found))
        self.f.append(boundary_accuracy(truth, found))

    def row(self) -> dict[str, float]:
        j, f = fmean(self.j), fmean(self.f)
        return {"J": round(j, 4), "F": round(f, 4), "J&F": round((j + f) / 2, 4), "frames": len(self.j)}


# ---- running a model ----------------------------------------------------------------------------------------


def follow(segmenter: Segmenter, frames: NDArray[np.uint8], prompts: Sequence[Prompt]) -> Iterator[list[Any]]:
    """For each frame, what every query sees (`identity.Seen`), in the order of the queries."""
    for results in zip(*trackers(segmenter, frames, prompts), strict=True):
        yield [seen for result in results for seen in result.seen]


def trackers(
    segmenter: Segmenter, frames: NDArray[np.uint8], prompts: Sequence[Prompt]
) -> list[Iterator[FrameResult]]:
    """Prompts are drawn on the first frame of a clip; words are followed from where they are found, both ways."""
    looked = spread(GLIMPSE, range(len(frames)))
    glimpse = [frames[index] for index in looked]
    plates: dict[int | None, Any] = {None: frames[0], 0: frames[0]}
    queries = segmenter.read(prompts, glimpse, plates, looked=dict(zip(looked, glimpse, strict=True)))
    shots = [Frame(index, Fraction(index), rgb) for index, rgb in enumerate(frames)]
    return [tracked(segmenter, query, shots) for query in queries]


def tracked(segmenter: Segmenter, query: Query, shots: Sequence[Frame]) -> Iterator[FrameResult]:
    return both_ways(lambda part: segmenter.track(query).step(part), shots, query.start or 0)


def matte(logits: torch.Tensor, rgb: NDArray[np.uint8], edge: str, reach: float) -> Masks:
    """The binary matte at plate size, as the command line writes it with that `--edge`. `reach`: the model's."""
    colours = torch.from_numpy(rgb).to(logits.device).float() / 255
    alpha, _ = alpha_from_logits(logits[None], colours, Refine(edge=edge), reach=reach)  # type: ignore[arg-type]
    found: Masks = alpha[0].cpu().numpy() > 0.5
    return found


# ---- procedural clips ---------------------------------------------------------------------------------------


@app.command()
def procedural(
    model: Annotated[str | None, typer.Option(help="Name or folder of a model.")] = None,
    material: Annotated[Path | None, typer.Option(help="Folder of training material; none: all drawn.")] = None,
    count: Annotated[int, typer.Option(min=1, help="Clips.")] = 200,
    frames: Annotated[int, typer.Option(min=2, help="Frames of a clip.")] = 12,
    size: Annotated[str, typer.Option(help="Width and height, as WxH.")] = "416x240",
    edge: Annotated[str, typer.Option(help="As --edge of segment.")] = "auto",
    prompts: Annotated[str, typer.Option(help="Kinds, with commas; none: all.")] = "",
    threads: Annotated[int, typer.Option(min=1, help="Threads of torch.")] = 1,
    out: Annotated[Path | None, typer.Option(help="Write the numbers here as JSON.")] = None,
) -> None:
    """J&F of every prompt kind, whether absent things are left alone, identity switches of class lists."""
    torch.set_num_threads(threads)
    width, height = (int(side) for side in size.split("x"))
    segmenter, stock = load_segmenter(model), Material.open(material)
    scores: dict[str, Scores] = {}
    presence: dict[str, list[bool]] = {}
    switches, seen = IdentitySwitches(), 0
    for number in range(count):
        clip = film(stock, (HELD_BACK, number), Shape(height, width, (frames,)), frames)
        for kind, prompt, truth in asked(clip, np.random.default_rng([HELD_BACK, number])):
            if prompts and kind not in prompts.split(","):
                continue
            rgbs = clip.rendered.frames
            assert rgbs is not None
            for index, objects in enumerate(follow(segmenter, rgbs, [prompt])):
                if kind.startswith("absent"):
                    presence.setdefault(kind, []).append(not any(each.present for each in objects))
                    continue
                found = np.zeros(truth[index].shape, np.bool_)
                if objects:
                    found = matte(
                        torch.stack([each.logits for each in objects]).amax(0), rgbs[index], edge, segmenter.reach
                    )
                scores.setdefault(kind, Scores()).add(truth[index], found)
                if kind == "classes":
                    seen += 1
                    count_switches(switches, f"clip {number}", clip, index, objects)
        if (number + 1) % 20 == 0:
            typer.echo(f"{number + 1} of {count} clips", err=True)
    rows = {kind: each.row() for kind, each in scores.items()}
    for kind, right in presence.items():
        rows[kind] = {"right": round(fmean(right), 4), "frames": len(right)}
    if seen:
        rows["classes"]["switches per 100 frames"] = round(100 * switches.result()["IDSW"] / seen, 2)
    show(f"{count} procedural clips, {size}, {frames} frames, seeds ({HELD_BACK}, 0…{count - 1})", rows)
    write(out, rows)


def asked(clip: FilmedClip, random: np.random.Generator) -> Iterator[tuple[str, Prompt, Masks]]:
    """One prompt of every kind that the clip gives words or regions for, with the right mattes (T, H, W)."""
    masks, said = clip.rendered.masks, clip.language
    nothing = np.zeros(masks.shape[1:], np.bool_)
    for kind, expressions, make in (("text", said.expressions, Text), ("question", said.questions, Question)):
        if expressions:
            one = expressions[int(random.integers(len(expressions)))]
            yield kind, make("it", one.text), masks[list(one.actors)].any(0)
    if said.absent:
        one = said.absent[int(random.integers(len(said.absent)))]
        yield "absent", Text("it", one.text), nothing
    if any(said.classes.actors):
        actors = [actor for group in said.classes.actors for actor in group]
        yield "classes", Classes("all", said.classes.names), masks[actors].any(0)
    shown = np.flatnonzero(masks[:, 0].mean((1, 2)) >= TARGET_AREA)
    if len(shown):
        actor = int(random.choice(shown))
        for kind in KINDS:
            yield kind, asking(kind, masks[actor, 0], random), masks[actor]
    if clip.rivals:
        yield "absent (often seen)", Text("it", f"the {random.choice(clip.rivals)}"), nothing


def count_switches(
    switches: IdentitySwitches, name: str, clip: FilmedClip, index: int, objects: Sequence[Any]
) -> None:
    """Add a frame of a class list. True objects are the actors; found ones are numbered by name in order."""
    there = np.flatnonzero(clip.rendered.masks[:, index].any((1, 2)))
    size = clip.rendered.masks.shape[-2:]
    found = [
        (position, torch.nn.functional.interpolate(each.logits[None, None], size, mode="bilinear")[0, 0].numpy() > 0)
        for position, each in enumerate(objects)
        if each.present
    ]
    predicted = np.stack([mask for _, mask in found]) if found else np.zeros((0, *size), np.bool_)
    numbers = np.array([position for position, _ in found], np.int64)
    switches.add(name, clip.rendered.masks[there, index], there.astype(np.int64), predicted, numbers)


# ---- real clips ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RealClip:
    """A clip of a footage manifest: frames (T, H, W, 3), the mask of one object per annotated frame."""

    name: str
    frames: NDArray[np.uint8]
    masks: Mapping[int, Masks]
    box: tuple[float, float, float, float]
    point: tuple[float, float]
    text: str


@app.command()
def real(
    footage: Annotated[Path, typer.Option(help="Folder with MANIFEST.json and gt/.")],
    model: Annotated[str | None, typer.Option(help="Name or folder of a model.")] = None,
    edge: Annotated[str, typer.Option(help="As --edge of segment.")] = "auto",
    prompts: Annotated[str, typer.Option(help="Kinds, with commas.")] = "box,point,mask,text",
    baseline: Annotated[bool, typer.Option(help="Also measure GrabCut with optical flow (needs OpenCV).")] = True,
    limit: Annotated[int, typer.Option(min=0, help="Frames per clip, 0 for all.")] = 0,
    without: Annotated[str, typer.Option(help=f"Parts to leave out, with commas: {', '.join(PARTS)}.")] = "",
    threads: Annotated[int, typer.Option(min=1, help="Threads of torch.")] = 1,
    pictures: Annotated[Path | None, typer.Option(help="Write some frames with their mattes here.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write the numbers here as JSON.")] = None,
) -> None:
    """J&F of each clip under each prompt, all frames, from the first frame the object is on."""
    torch.set_num_threads(threads)
    segmenter = lessened(load_segmenter(model), [part for part in without.split(",") if part])
    rows: dict[str, dict[str, float]] = {}
    for clip in clips(footage, limit):
        ways: dict[str, Callable[[], Iterator[Masks]]] = {
            kind: lambda prompt=prompt, clip=clip: found_by(segmenter, clip, prompt, edge)
            for kind, prompt in prompts_of(clip).items()
            if kind in prompts.split(",")
        }
        if baseline:
            ways |= {"static box": lambda clip=clip: standing(clip), "GrabCut + flow": lambda clip=clip: flowed(clip)}
        row: dict[str, float] = {}
        for way, run in ways.items():
            started, scores = time.perf_counter(), Scores()
            for index, mask in enumerate(run()):
                if index in clip.masks:
                    scores.add(clip.masks[index], mask)
                if pictures and way == "box" and index in (0, len(clip.frames) // 2, len(clip.frames) - 1):
                    draw(pictures / f"{clip.name}-{index:03d}.jpg", clip.frames[index], mask)
            row[way] = scores.row()["J&F"]
            typer.echo(
                f"{clip.name}: {way} {row[way]:.3f}, {len(clip.frames) / (time.perf_counter() - started):.1f} fps",
                err=True,
            )
        rows[clip.name] = row
    ways_seen = {way: None for row in rows.values() for way in row}
    rows["mean"] = {way: round(fmean(row[way] for row in rows.values() if way in row), 4) for way in ways_seen}
    show(f"J&F, {footage.name}, --edge {edge}", rows)
    write(out, rows)


def lessened(segmenter: Segmenter, parts: Sequence[str]) -> Segmenter:
    """The same model with some of its parts left out or silent."""
    model, segmentor = segmenter.model, segmenter.model.segmentor
    for part in parts:
        if part == "windows":
            model.config = replace(model.config, room=0.0)
        elif part == "palette":
            model.config = replace(model.config, palette=0.0)
        elif part == "outliner":
            model.outliner = None
        elif part == "alone":
            model.config = always_asked(model.config)
        elif (named := getattr(segmentor, part)) is None:
            raise typer.BadParameter(f"{model.config.name} has no {part}", param_hint="--without")
        else:
            named.silence()
    return segmenter


def clips(footage: Path, limit: int) -> Iterator[RealClip]:
    """The clips of a manifest whose masks are there; of each its first object."""
    for item in json.loads((footage / "MANIFEST.json").read_text())["items"]:
        if item["kind"] != "gt-sequence":
            continue
        folder, thing = footage / item["file"], item["objects"][0]
        files = sorted((folder / "frames").iterdir())[thing["first_frame"] :][: limit or None]
        masks = {
            index: np.asarray(Image.open(path)) == thing["mask_value"]
            for index, file in enumerate(files)
            if (path := folder / "masks" / f"{file.stem}.png").is_file()
        }
        frames = np.stack([np.asarray(Image.open(file).convert("RGB")) for file in files])
        yield RealClip(folder.name, frames, masks, tuple(thing["box_xyxy"]), tuple(thing["point_xy"]), thing["text"])


def prompts_of(clip: RealClip) -> dict[str, Prompt]:
    return {
        "box": Box("it", *clip.box, 0),
        "point": Points("it", (clip.point,), 0),
        "mask": MaskPrompt("it", clip.masks[0], 0),
        "text": Text("it", clip.text),
    }


def found_by(segmenter: Segmenter, clip: RealClip, prompt: Prompt, edge: str) -> Iterator[Masks]:
    for index, (seen, *_) in enumerate(follow(segmenter, clip.frames, [prompt])):
        yield matte(seen.logits, clip.frames[index], edge, segmenter.reach)


def standing(clip: RealClip) -> Iterator[Masks]:
    """The box, left where it was drawn."""
    mask = boxed(clip)
    return (mask for _ in clip.frames)


def boxed(clip: RealClip) -> Masks:
    mask = np.zeros(clip.frames.shape[1:3], np.bool_)
    x0, y0, x1, y1 = (round(edge) for edge in clip.box)
    mask[y0:y1, x0:x1] = True
    return mask


def flowed(clip: RealClip) -> Iterator[Masks]:
    """GrabCut in the box, then carried by dense flow and cut anew around where it was carried to."""
    import cv2

    greys = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in clip.frames]
    flow = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    labels = np.where(boxed(clip), cv2.GC_PR_FGD, cv2.GC_BGD).astype(np.uint8)
    rows, columns = np.indices(greys[0].shape).astype(np.float32)
    mask = boxed(clip)
    for index, frame in enumerate(clip.frames):
        if index:
            back = flow.calc(greys[index], greys[index - 1], None)
            carried = cv2.remap(mask.astype(np.uint8), columns + back[..., 0], rows + back[..., 1], cv2.INTER_NEAREST)
            near = cv2.dilate(carried, np.ones((15, 15), np.uint8))
            sure = cv2.erode(carried, np.ones((15, 15), np.uint8))
            labels = np.where(near > 0, cv2.GC_PR_FGD, cv2.GC_BGD).astype(np.uint8)
            labels[(near > 0) & (carried == 0)] = cv2.GC_PR_BGD
            labels[sure > 0] = cv2.GC_FGD
        if (labels & 1).any() and not (labels & 1).all():
            cv2.setRNGSeed(0)
            cv2.grabCut(frame, labels, None, np.zeros((1, 65)), np.zeros((1, 65)), 3, cv2.GC_INIT_WITH_MASK)
        mask = (labels & 1).astype(np.bool_)
        yield mask


# ---- speed --------------------------------------------------------------------------------------------------

STAGES = (
    "encoder",
    "pixel_decoder",
    "memory_encoder",
    "memory_attention",
    "match",
    "carry",
    "mask_recall",
    "reading",
    "decoder",
)


@app.command()
def speed(
    footage: Annotated[Path, typer.Option(help="Folder with MANIFEST.json and gt/.")],
    model: Annotated[str | None, typer.Option(help="Name or folder of a model.")] = None,
    limit: Annotated[int, typer.Option(min=4, help="Frames of the clip.")] = 24,
    repeats: Annotated[int, typer.Option(min=1, help="Turns.")] = 5,
    threads: Annotated[int, typer.Option(min=1, help="Threads of torch.")] = 2,
) -> None:
    """Frames/s with one box on the first clip: ours, the same in single precision, that with the network asked on
    every frame, and that in the reference's order of work, in turns; then where ours spends its time."""
    torch.set_num_threads(threads)
    segmenter, single = load_segmenter(model), load_segmenter(model, dtype=torch.float32)
    clip = next(clips(footage, limit))
    ways: dict[str, tuple[Segmenter, Callable[[Segmenter], AbstractContextManager[None]]]] = {
        "reference's order": (single, reference_order),
        "the network on every frame": (single, whole_network),
        "ours in float32": (single, nullcontext),
        "ours": (segmenter, nullcontext),
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    found: dict[str, torch.Tensor] = {}
    for _ in range(repeats):
        for name, (engine, way) in ways.items():
            with way(engine):
                started = time.perf_counter()
                *_, last = follow(engine, clip.frames, [Box("it", *clip.box)])
                times[name].append((time.perf_counter() - started) / len(clip.frames))
            found[name] = last[0].logits > 0
    seconds = {name: median(each) for name, each in times.items()}
    rows = {
        name: {
            "ms per frame": 1e3 * each,
            "frames/s": 1 / each,
            "speed-up": seconds["reference's order"] / each,
            "IoU with ours": region_similarity(found["ours"].numpy(), found[name].numpy()),
        }
        for name, each in seconds.items()
    }
    show(f"{clip.name}, {len(clip.frames)} frames, {threads} threads; of the last mattes their IoU", rows)
    shares = stage_times(segmenter, clip)
    show("where ours spends its time", {name: {"ms per frame": 1e3 * each} for name, each in shares.items()})


def always_asked(config: ModelConfig) -> ModelConfig:
    """The whole network on every frame, where an outliner may draw alone."""
    return replace(config, outliner=replace(config.outliner, alone=False))


@contextmanager
def whole_network(segmenter: Segmenter) -> Iterator[None]:
    """The same for a while."""
    model, config = segmenter.model, segmenter.model.config
    model.config = always_asked(config)
    try:
        yield
    finally:
        model.config = config


@contextmanager
def reference_order(segmenter: Segmenter) -> Iterator[None]:
    """The whole network on every frame, deformable sampling by `grid_sample`, attention weights written out, class
    logits and upsampled masks of every query after every decoder layer, as the reference has them
    (wanghao9610/X2SAM@5b0b106)."""
    bags, plain = pixel_decoder.sample_in_bags, MaskDecoder.forward

    def forward(self: MaskDecoder, levels: Any, masks: torch.Tensor, conditions: Any) -> Any:
        every = list(self.layers(levels, masks, conditions))
        for decoded in every:
            ClassPredictor().to(masks)(decoded.queries_bqc, conditions)
            side = 4 * masks.shape[-1]
            torch.nn.functional.interpolate(decoded.mask_logits_bqhw, size=(side, side), mode="bilinear")
        return every[-1]

    pixel_decoder.sample_in_bags = pixel_decoder.sample_on_grids
    MaskDecoder.forward = forward  # type: ignore[method-assign]
    try:
        with whole_network(segmenter), sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        pixel_decoder.sample_in_bags, MaskDecoder.forward = bags, plain  # type: ignore[method-assign]


def stage_times(segmenter: Segmenter, clip: RealClip) -> dict[str, float]:
    """Seconds per frame in each part of the segmentor, in the finder's eyes and the outliner, and in all the rest."""
    model, handles = segmenter.model, []
    parts = {name: getattr(model.segmentor, name) for name in STAGES}
    parts |= {"eyes": model.finder and model.finder.eyes, "outliner": model.outliner}
    spent = {name: 0.0 for name, module in parts.items() if module is not None}
    for name in spent:
        module, begun = parts[name], [0.0]
        before = partial(_begin, begun)
        after = partial(_end, begun, spent, name)
        handles += [module.register_forward_pre_hook(before), module.register_forward_hook(after)]
    started = time.perf_counter()
    list(follow(segmenter, clip.frames, [Box("it", *clip.box)]))
    whole = time.perf_counter() - started
    for handle in handles:
        handle.remove()
    spent["everything else"] = whole - sum(spent.values())
    return {name: seconds / len(clip.frames) for name, seconds in spent.items()}


def _begin(begun: list[float], *_: Any) -> None:
    begun[0] = time.perf_counter()


def _end(begun: list[float], spent: dict[str, float], name: str, *_: Any) -> None:
    spent[name] += time.perf_counter() - begun[0]


# ---- output -------------------------------------------------------------------------------------------------


def draw(path: Path, frame: NDArray[np.uint8], mask: Masks) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    tinted = frame.astype(np.float32)
    tinted[mask] = 0.45 * tinted[mask] + 0.55 * np.array([255, 40, 160], np.float32)
    Image.fromarray(tinted.astype(np.uint8)).save(path, quality=88)


def show(title: str, rows: Mapping[str, Mapping[str, float]]) -> None:
    columns = list({column: None for row in rows.values() for column in row})
    table = Table("", *columns, title=title, title_justify="left")
    for name, row in rows.items():
        table.add_row(name, *(f"{row[column]:g}" if column in row else "" for column in columns))
    Console(width=160).print(table)


def write(path: Path | None, rows: Mapping[str, Any]) -> None:
    if path is not None:
        path.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    app()
