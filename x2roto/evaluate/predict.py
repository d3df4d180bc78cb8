"""What a model finds on the frames of a sample, one frame at a time; nothing grows with the length of a video.

Standard: a video goes through one tracker, from the frame its regions are on, and objects keep their identities.
Reference: the chunks of `chunks`, each asked anew with an empty memory, each frame post-processed by itself, as in
wanghao9610/X2SAM@5b0b106 x2sam/x2sam/dataset/vid_*_dataset.py and process_fns/postprocess_fns.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, count
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from x2roto.clip import Frame, both_ways, spread
from x2roto.data.annotations import read_rgb
from x2roto.data.sample import Sample
from x2roto.data.video.clips import shown
from x2roto.engine import postprocess as post
from x2roto.engine.identity import Following, Kind
from x2roto.engine.segmenter import READING, Reading, Rgb, Segmenter
from x2roto.engine.shot import Query
from x2roto.engine.tasks import TASKS
from x2roto.engine.tracker import FOLLOWING, FrameResult
from x2roto.errors import PromptError
from x2roto.evaluate.asking import Answer, Targets, ask, numbered, placed, prompts_of, task_of, unfollowed
from x2roto.evaluate.benchmarks import Benchmark, Cut, Mode
from x2roto.passes import chunked
from x2roto.prompt import Describe, Prompt

# Least score of the instances of a class that are listed: average precision weighs them by their scores.
RANKED = Following(presence=0.1)
UNITED = 0.6
# What is asked by words, which a finder looks for.
BY_WORDS = ("referring", "generic")
CHUNK = 8


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """What is predicted on a frame: n masks, which may overlap.

    `frame`: its place in the sample. `masks`: bool (n, H, W). `condition`: int64 (n,), the target of each.
    `identity`: int64 (n,), equal for the same object on all frames where the protocol links them, else only unique
    on the frame. `scores`: float (n,) in [0, 1]. `place`: its number among the frames the protocol has. `chunk`,
    `answer`: which chunk of the video it is in, and what was said of that.
    """

    frame: int
    masks: NDArray[np.bool_]
    condition: NDArray[np.int64]
    identity: NDArray[np.int64]
    scores: NDArray[np.float64]
    place: int = 0
    chunk: int = 0
    answer: Answer = field(default_factory=Answer)


@dataclass(frozen=True, slots=True)
class Failed:
    """Frames that the model gave no masks for, and why."""

    frames: tuple[int, ...]
    chunk: int
    reason: str


@dataclass(frozen=True, slots=True, eq=False)
class Chunk:
    """Frames in the order the network sees them, its memory empty before the first.

    `start`: how many frames the chunks before have. `glimpse`: those shown to the language model. `targets`: what is
    asked, regions lying on the first frame.
    """

    number: int
    start: int
    frames: tuple[int, ...]
    glimpse: tuple[int, ...]
    targets: Targets


def nothing(sample: Sample, frame: int) -> Found:
    """A prediction without masks."""
    none = np.zeros(0, np.int64)
    return Found(frame, np.zeros((0, *sample.size), np.bool_), none, none, np.zeros(0))


class Predictor:
    """A model under the protocol of a benchmark."""

    def __init__(
        self, segmenter: Segmenter, benchmark: Benchmark, mode: Mode = "standard", reading: Reading = READING
    ) -> None:
        self.segmenter = segmenter
        self.benchmark = benchmark
        self.reference = mode == "reference"
        self.reading = reading

    def predict(self, sample: Sample) -> Iterator[Found | Failed]:
        """What is found on the frames the protocol has, in its order. Raises InputError for a picture it cannot read,
        DeviceMemoryError."""
        ids = SegmentIds(sample)
        for chunk in self.chunks(sample):
            try:
                queries, answer = self._ask(sample, chunk)
            except PromptError as error:
                yield Failed(chunk.frames, chunk.number, str(error))
                continue
            for place, found in enumerate(self._follow(sample, chunk, queries, ids), chunk.start):
                yield replace(found, place=place, chunk=chunk.number, answer=answer)

    def chunks(self, sample: Sample) -> Iterator[Chunk]:
        """The chunks a sample is seen in: one, or in the reference's protocol those it cuts videos into."""
        if not self.reference or sample.media == "image":
            frames = tuple(range(sample.prompt_frame, len(sample.frames)))
            glimpse = spread(task_of(sample).glimpse, range(len(sample.frames)))
            yield Chunk(0, 0, frames, tuple(glimpse), sample.targets)
            return
        start = 0
        for number, frames in enumerate(self._cut(sample)):
            yield Chunk(number, start, frames, reference_glimpse(sample, frames), _targets(sample, frames[0], number))
            start += len(frames)

    def _cut(self, sample: Sample) -> Iterable[tuple[int, ...]]:
        # Its reader has cut what is asked by regions of many classes already.
        if sample.task == "vgdseg":
            return [tuple(range(len(sample.frames)))]
        return cut_frames(sample, self.benchmark.cut)

    def _ask(self, sample: Sample, chunk: Chunk) -> tuple[Sequence[Query], Answer]:
        """One query for all that is asked, or where a finder looks for words those that follow what it found."""
        first = chunk.frames[0]
        pictures = {index: read_rgb(sample.frames[index], sample.size) for index in {*chunk.glimpse, first}}
        prompts = prompts_of(sample, chunk.targets, first)
        glimpse: dict[int | None, Rgb] = {index: pictures[index] for index in chunk.glimpse}
        plates = {None: pictures[first], first: pictures[first]}
        if self._seeks(sample):
            return self._sought(prompts, glimpse, plates)
        # Whatever kind of region is shown, it comes as a filled mask.
        reading = replace(self.reading, outlined=sample.prompt == "mask")
        query, answer = ask(self.segmenter, task_of(sample), prompts, [*glimpse.values()], plates, reading)
        return [query], answer

    def _seeks(self, sample: Sample) -> bool:
        """Whether a finder looks for what the sample asks by words, or for all that it can name."""
        kind, names = TASKS[sample.task].postprocess, self.segmenter.names
        return self.segmenter.model.finder is not None and (kind in BY_WORDS or (kind == "grounded" and bool(names)))

    def _sought(
        self, prompts: Sequence[Prompt], glimpse: Mapping[int | None, Rgb], plates: Mapping[int | None, Rgb]
    ) -> tuple[Sequence[Query], Answer]:
        """What a finder finds, and what it says where nothing is asked for."""
        (first, *_), pictures = prompts, [*glimpse.values()]
        if isinstance(first, Describe):
            sentence, found = self.segmenter.describe(pictures, self.reading, glimpse)
            described = [numbered(query, Kind.OBJECT, place) for place, (_, query) in enumerate(found)]
            return described, Answer(sentence, tuple(name for name, _ in found))
        reading = replace(self.reading, presence=RANKED.presence) if self._ranked else self.reading
        queries = self.segmenter.read(prompts, pictures, plates, reading, glimpse)
        return [placed(query, prompts) for query in queries], Answer()

    @property
    def _ranked(self) -> bool:
        return self.benchmark.kind == "instance"

    def _both_ways(self, sample: Sample, chunk: Chunk, queries: Sequence[Query], ids: SegmentIds) -> Iterator[Found]:
        """What a finder found, followed from the frames where it did, as a shot is cut by words."""
        about, known = self._about(sample, chunk, ids), Known()

        def stream(query: Query) -> Iterator[Found]:
            start = 0 if query.start is None else chunk.frames.index(query.start)
            return both_ways(
                lambda frames: followed(self._tracked(sample, query, frames), about, known), chunk.frames, start
            )

        for found in map(gathered, zip(*map(stream, queries), strict=True)):
            yield apart(found, ids.stuff) if self.benchmark.kind == "panoptic" else found

    def _tracked(
        self, sample: Sample, query: Query, frames: Sequence[int], following: Following = FOLLOWING
    ) -> Iterator[FrameResult]:
        tracker = self.segmenter.track(query, chunk=CHUNK, following=following)
        return chain.from_iterable(tracker.step(_frames(sample, part)) for part in chunked(frames, CHUNK))

    def _follow(self, sample: Sample, chunk: Chunk, queries: Sequence[Query], ids: SegmentIds) -> Iterator[Found]:
        if self._seeks(sample):
            return self._both_ways(sample, chunk, queries, ids)
        (query,) = queries
        # What a window shows only the tracker can put back into the frame.
        close = bool(query.windows)
        linked = close or (not self.reference and sample.media == "video" and self.benchmark.linked)
        ranked = self._ranked and not close
        query = numbered(query, Kind.THINGS if ranked else Kind.OBJECT) if linked else unfollowed(query)
        results = self._tracked(sample, query, chunk.frames, RANKED if ranked else FOLLOWING)
        about = self._about(sample, chunk, ids)
        return (followed if linked else FINDERS[self._finder(sample)])(results, about)

    def _about(self, sample: Sample, chunk: Chunk, ids: SegmentIds) -> About:
        return About(sample, self._geometry(sample), chunk, self.reference, self.benchmark.united, ids)

    def _finder(self, sample: Sample) -> str:
        kind = TASKS[sample.task].postprocess
        return self.benchmark.kind if kind == "generic" else kind

    def _geometry(self, sample: Sample) -> post.Geometry:
        square = (self.segmenter.model.config.image_size,) * 2
        return post.Geometry(sample.size, square, square)


def _frames(sample: Sample, indices: Sequence[int]) -> list[Frame]:
    return [Frame(index, None, read_rgb(sample.frames[index], sample.size)) for index in indices]


# ---- the reference's chunks -------------------------------------------------------------------------------


def cut_frames(sample: Sample, cut: Cut) -> Iterator[tuple[int, ...]]:
    """The chunks of a video; those of one frame are left out. Source: `vid_base_dataset.py`, `_sample_frames`."""
    frames = list(range(len(sample.frames)))
    if cut.drop == "before":
        frames = [frame for frame in frames if visible(sample, frame)]
    if cut.spread:
        frames = spread_over(frames, cut.size)
    for part in chunked(frames, cut.size):
        kept = tuple(frame for frame in part if cut.drop != "within" or visible(sample, frame))
        if len(kept) > 1:
            yield kept


def spread_over(frames: Sequence[int], size: int) -> list[int]:
    """The frames so ordered that `size` in a row lie over the whole video; some come twice, some not at all."""
    step = max(1, len(frames) // size)
    starts = range(-(-len(frames) // size))
    return [frame for start in starts for frame in frames[start::step][:size]]


def visible(sample: Sample, frame: int) -> bool:
    """Whether a frame is annotated and shows something asked for that is no crowd."""
    return bool(sample.annotated[frame]) and not bool(sample.truth(frame).crowd.all())


def reference_glimpse(sample: Sample, frames: Sequence[int]) -> tuple[int, ...]:
    """What the language model sees of a chunk: all, but for regions what its processor samples at 2 of 24 frames a
    second, at least 4 (tasks spec, section 4.2)."""
    if sample.task not in ("vgdseg", "objseg"):
        return tuple(frames)
    number = min(len(frames), max(4, len(frames) * 2 // 24))
    return tuple(frames[int(place)] for place in np.linspace(0, len(frames) - 1, number).round())


def _targets(sample: Sample, first: int, number: int) -> Targets:
    """An object is shown anew in each chunk, by its true mask on the first frame."""
    if sample.task != "objseg" or sample.prompt is None:
        return sample.targets
    mask = np.asarray(sample.truth(first).masks.any(0))
    return (shown(mask, sample.prompt, f"{sample.key}/{number}"),)


# ---- from logits to masks ---------------------------------------------------------------------------------


class SegmentIds:
    """Ids of panoptic segments: a stuff class has one, a thing one never given before in the sample.

    Stands for the reference's id generator, `postprocess.ColourIds`, whose numbers are colours.
    """

    def __init__(self, sample: Sample) -> None:
        self.stuff = {place for place, category in enumerate(sample.categories) if not category.thing}
        self._next = count(1 + len(sample.categories))

    def __call__(self, category: int) -> int:
        return 1 + category if category in self.stuff else next(self._next)


@dataclass(frozen=True, slots=True, eq=False)
class About:
    """What is the same for all frames of a chunk."""

    sample: Sample
    geometry: post.Geometry
    chunk: Chunk
    reference: bool
    united: bool
    ids: SegmentIds

    def region(self, device: torch.device) -> Tensor:
        """The one region that is asked about, bool (H, W)."""
        (region,) = self.chunk.targets
        return torch.as_tensor(np.asarray(region), device=device)


Results = Iterable[FrameResult]
Finder = Callable[[Results, About], Iterator[Found]]


def _logits(result: FrameResult) -> tuple[Tensor, Tensor]:
    """Scores (Q, C) and mask logits (Q, h, w)."""
    prediction = result.prediction
    return post.softmax_scores(prediction.class_logits_bqc[0]), prediction.mask_logits_bqhw[0]


def _found(
    result: FrameResult,
    masks: Tensor,
    condition: Sequence[int] | Tensor,
    identity: Sequence[int] | Tensor | None = None,
    scores: Sequence[float] | Tensor | None = None,
) -> Found:
    """By default identities count the masks of the frame, and all score 1."""
    number = len(masks)
    return Found(
        result.frame.index,
        masks.cpu().numpy(),
        _array(condition).astype(np.int64),
        np.arange(number) if identity is None else _array(identity).astype(np.int64),
        np.ones(number) if scores is None else _array(scores).astype(np.float64),
    )


def _array(values: Sequence[float] | Tensor) -> NDArray[Any]:
    return torch.as_tensor(values).cpu().numpy()


def _selected(result: FrameResult, selected: post.Selected) -> Found:
    return _found(result, selected.mask[None], [0], scores=[selected.score])


Known = dict[str, int]  # identities by the names that trackers give


def followed(results: Results, about: About, known: Known | None = None) -> Iterator[Found]:
    """The objects that the tracker sees, under the identities it gives them; `known`: to those of other trackers."""
    known = {} if known is None else known
    for result in results:
        there = [seen for seen in result.seen if seen.present]
        identity = [known.setdefault(seen.name, len(known)) for seen in there]
        masks = torch.zeros((0, *about.geometry.frame), dtype=torch.bool)
        if there:
            masks = torch.stack([post.resize_back(seen.logits[None], about.geometry)[0] > 0 for seen in there])
        yield _found(result, masks, [int(seen.label) for seen in there], identity, [seen.score for seen in there])


def gathered(parts: Sequence[Found]) -> Found:
    """What several queries each found on the same frame, the surest last."""
    masks, condition, identity, scores = (
        np.concatenate([getattr(part, name) for part in parts])
        for name in ("masks", "condition", "identity", "scores")
    )
    order = np.argsort(scores, kind="stable")
    return Found(parts[0].frame, masks[order], condition[order], identity[order], scores[order])


def apart(found: Found, stuff: Collection[int]) -> Found:
    """Each pixel in the last of its masks alone, all that is of one class of `stuff` as one mask."""
    identity = np.where(np.isin(found.condition, list(stuff)), 0, found.identity)
    owners, number = np.unique(np.stack([found.condition, identity]), axis=1, return_inverse=True)
    height, width = found.masks.shape[1:]
    owner = post.label_map(map(torch.from_numpy, found.masks), number.tolist(), -1, (height, width)).numpy()
    scores = np.zeros(owners.shape[1])
    np.maximum.at(scores, number, found.scores)
    seen = np.unique(owner[owner >= 0])
    condition, identity = owners[:, seen]
    return Found(found.frame, owner == seen[:, None, None], condition, identity, scores[seen])


def semantic(results: Results, about: About) -> Iterator[Found]:
    """A class for every pixel."""
    for result in results:
        classes = post.semantic(*_logits(result), about.geometry)
        present = classes.unique()
        yield _found(result, classes == present[:, None, None], present, present)


def panoptic(results: Results, about: About) -> Iterator[Found]:
    """Segments that do not overlap, linked from frame to frame."""
    memory, new_id = post.LinkMemory(), about.ids if about.reference else None
    for result in results:
        cut = post.panoptic(*_logits(result), about.geometry, stuff=about.ids.stuff, threshold=0, new_id=new_id)
        linked, memory = post.link(cut, memory, reference=about.reference)
        ids = [segment.id for segment in linked.segments]
        masks = linked.id_map == torch.tensor(ids, dtype=torch.int32, device=linked.id_map.device)[:, None, None]
        condition = [segment.category for segment in linked.segments]
        yield _found(result, masks, condition, ids, [segment.score for segment in linked.segments])


def instance(results: Results, about: About) -> Iterator[Found]:
    """The best pairs of query and class, however low they score."""
    for result in results:
        found = post.instances(*_logits(result), about.geometry, threshold=0)
        yield _found(result, found.masks, found.classes, scores=found.scores)


def referring(results: Results, about: About) -> Iterator[Found]:
    """The best query. Where answers may be several or none, all that score enough; the reference has one at least."""
    for result in results:
        if not about.united:
            yield _selected(result, post.referring(*_logits(result), about.geometry))
            continue
        found = post.generalised_referring(*_logits(result), about.geometry, threshold=UNITED)
        kept = about.reference or found.score >= UNITED
        yield _selected(result, found if kept else replace(found, mask=torch.zeros_like(found.mask)))


def interactive(results: Results, about: About) -> Iterator[Found]:
    """Of the likely queries the one that fits the region best."""
    for result in results:
        scores, logits = _logits(result)
        region = about.region(logits.device)
        yield _selected(result, post.interactive(scores, logits, about.geometry, region, threshold=0.5))


def tracked_object(results: Results, about: About) -> Iterator[Found]:
    """The object that looks most like the last ones; of the region itself the reference sees nothing (tasks spec,
    section 11)."""
    memory: post.ObjectMemory | None = None
    for result in results:
        scores, logits = _logits(result)
        if memory is None:
            region = about.region(logits.device)
            memory = post.ObjectMemory(post.anchor_of(region.to(torch.uint8), reference=about.reference))
        found, memory = post.video_object(scores, logits, about.geometry, memory)
        yield _selected(result, found)


def grounded(results: Results, about: About) -> Iterator[Found]:
    """The best query of each phrase; in the reference later phrases cover earlier ones."""
    for result in results:
        found = post.phrases(*_logits(result), about.geometry)
        masks = found.masks
        if about.reference:
            numbers = torch.arange(len(masks), device=masks.device)
            painted = post.label_map(masks.unbind(), numbers.tolist(), -1, about.geometry.frame)
            masks = painted.to(masks.device) == numbers[:, None, None]
        yield _found(result, masks, found.classes, scores=found.scores)


FINDERS: dict[str, Finder] = {
    "semantic": semantic,
    "panoptic": panoptic,
    "instance": instance,
    "regions": instance,
    "referring": referring,
    "interactive": interactive,
    "object": tracked_object,
    "grounded": grounded,
}
