"""Footage as training data: endless seeded clips, one data set for each task, and labelled pictures brought to life.

An index is a seed: reading it twice gives the same sample, whatever was read before.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, count, zip_longest
from typing import Literal
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from x2roto.clip import spread
from x2roto.engine.tasks import full_stop, tag_caption
from x2roto.train.footage.close import Close
from x2roto.train.footage.labelled import PhotoClip, film_labelled
from x2roto.train.footage.language import PLACES, TARGET_AREA, Expression, Language, describe
from x2roto.train.footage.material import Labelled, Material
from x2roto.train.footage.regions import KINDS, region
from x2roto.train.footage.render import Rendered, render
from x2roto.train.footage.scatter import scatter
from x2roto.train.footage.scene import Scene, cast, compose
from x2roto.train.footage.survey import survey
from x2roto.train.footage.vocabulary import COLOURS, Label, named, names_known, nouns
from x2roto.train.samples import ClipSample

Masks = NDArray[np.bool_]
FootageTask = Literal["refseg", "reaseg", "genseg", "gcgseg", "vgdseg", "objseg", "intseg", "chat"]

ABSENT_SHARE = 0.15  # of referring samples that ask for a thing that is not there
ABSENT_SHARE_APART = 0.35  # of the phrases of a sample where each is asked for apart
PLAIN_SHARE = 0.5  # of what is often elsewhere and asked for in vain, the rest with a rank or a colour
MOST_PHRASES = 3
_RANKS = ("the largest {}", "the smallest {}", *chain.from_iterable(PLACES.values()))
_SHOWING = frozenset({"objseg", "intseg", "vgdseg"})  # tasks that ask by regions


@dataclass(frozen=True, slots=True)
class Shape:
    """The size of the samples. `frames`: the lengths clips are drawn from; a still has one frame. `close`: how single
    objects are looked at, None: whole frames. `phrases`: most of one referring or reasoning sample. `apart`: instead,
    so many phrases, questions or names at once, each in a conversation of its own (`ClipSample.apart`). `every`:
    names are all those of which it is clear whether they fit, in one conversation.
    `kept`: frames of a procedural clip that a sample keeps, evenly from first to last, of those words are about."""

    height: int
    width: int
    frames: tuple[int, ...]
    close: Close | None = None
    phrases: int = MOST_PHRASES
    apart: int = 0
    every: bool = False
    kept: int = 0

    @property
    def aspect(self) -> float:
        return self.width / self.height

    def length(self, seed: int, index: int) -> int:
        """The number of frames of a clip."""
        return int(np.random.default_rng([seed, index, 3]).choice(self.frames))

    def shown(self, count: int) -> list[int]:
        """Which of so many frames a sample keeps."""
        return spread(self.kept or count, range(count))


@dataclass(frozen=True, slots=True)
class FilmedClip:
    """A procedural clip and all that is known about it. `rivals`: names of things that are not there, as often as
    they are in other clips."""

    scene: Scene
    rendered: Rendered
    language: Language
    rivals: tuple[str, ...] = ()


def film(material: Material, seed: Sequence[int], shape: Shape, frames: int, device: str = "cpu") -> FilmedClip:
    """The clip of a seed, with its words."""
    scene = compose(material, seed, frames=frames, aspect=shape.aspect)
    rendered = render(scene, shape.height, shape.width, device)
    language = describe(scene, survey(rendered))
    return FilmedClip(scene, rendered, language, _rivals(material, seed, language.elsewhere))


def _rivals(material: Material, seed: Sequence[int], elsewhere: Sequence[str]) -> tuple[str, ...]:
    """What others would be asked for: the names of the cast of two other scenes."""
    rng = np.random.default_rng([*seed, 17])
    props = [*cast(rng, material), *cast(rng, material)]
    names = dict.fromkeys(name for prop in props if prop.noun for name in sorted(nouns()[prop.noun].names))
    missing = set(elsewhere)
    return tuple(name for name in names if name in missing)


class _Endless:
    """What all footage has in common: one task, one shape, samples counted but never stored."""

    def __init__(self, title: str, task: FootageTask, shape: Shape, *, seed: int, length: int, device: str) -> None:
        self._title, self._task, self._shape = title, task, shape
        self._seed, self._length, self._device = seed, length, device

    @property
    def name(self) -> str:
        return f"{self._title}-{self.modality}-{self._task}"

    @property
    def _asks(self) -> bool:
        """Whether a region asks for a single object."""
        return self._task in ("objseg", "intseg")

    @property
    def modality(self) -> Literal["image", "video"]:
        return "image" if self._shape.frames == (1,) else "video"

    def __len__(self) -> int:
        return self._length

    def frame_count(self, index: int) -> int:
        return self._shape.length(self._seed, index)


class ProceduralFootage(_Endless):
    """Endless clips for one task; a `ClipDataset` of `length` samples. All in memory, nothing is written."""

    def __init__(
        self, material: Material, task: FootageTask, shape: Shape, *, seed: int = 0, length: int = 1 << 20,
        device: str = "cpu",
    ) -> None:  # fmt: skip
        super().__init__("footage", task, shape, seed=seed, length=length, device=device)
        self._material = material

    def __getitem__(self, index: int) -> ClipSample:
        """The sample of an index. Scenes that leave nothing to ask for are passed over."""
        if not 0 <= index < self._length:
            raise IndexError(f"clip {index} of {self._length}")
        frames = self._shape.length(self._seed, index)
        for attempt in count():
            seed = (self._seed, crc32(self.name.encode()), index, attempt)
            clip = film(self._material, seed, self._shape, frames, self._device)
            rng = np.random.default_rng([*seed, 5])
            sample = (
                _object(clip, rng, self._shape.close) if self._asks else _MAKERS[self._task](clip, rng, self._shape)
            )
            if sample is not None:
                return _thinned(sample, self._kept(frames))
        raise AssertionError("the counter never ends")

    def frame_count(self, index: int) -> int:
        return len(self._kept(super().frame_count(index)))

    def _kept(self, count: int) -> list[int]:
        """Which frames of a clip a sample keeps: all where a region on one of them asks."""
        return list(range(count)) if self._task in _SHOWING else self._shape.shown(count)


def _thinned(sample: ClipSample, kept: Sequence[int]) -> ClipSample:
    """The same question about some of the frames."""
    if len(kept) == len(sample.frames):
        return sample
    masks = None if sample.masks is None else sample.masks[:, kept]
    return replace(sample, frames=sample.frames[kept], masks=masks)


# ---- a clip as a sample -----------------------------------------------------------------------------------


def _referring(clip: FilmedClip, rng: np.random.Generator, shape: Shape) -> ClipSample | None:
    absent = clip.language.absent
    if shape.apart:
        absent = (*absent, *(Expression(_worded(name, rng), ()) for name in clip.rivals))
    return _phrases(clip, "refseg", clip.language.expressions, absent, rng, shape)


def _worded(name: str, rng: np.random.Generator) -> str:
    """A phrase for a thing that is not there: a rank among none does not make one."""
    if rng.random() < PLAIN_SHARE:
        return f"the {name}"
    colours = [f"the {colour} {{}}" for colour in rng.permutation(COLOURS)[:3] if colour != name]
    wordings = (*_RANKS, *colours)
    return wordings[rng.integers(len(wordings))].format(name)


def _reasoning(clip: FilmedClip, rng: np.random.Generator, shape: Shape) -> ClipSample | None:
    return _phrases(clip, "reaseg", clip.language.questions, (), rng, shape)


def _phrases(
    clip: FilmedClip,
    task: str,
    said: Sequence[Expression],
    absent: Sequence[Expression],
    rng: np.random.Generator,
    shape: Shape,
) -> ClipSample | None:
    """Words for different things, and now and then for a thing that is not there."""
    if shape.apart:
        return _many(clip, task, said, absent, rng, shape.apart)
    most = shape.phrases
    chosen: list[Expression] = []
    for k in rng.permutation(len(said))[:40]:
        if said[k].actors[0] not in {expression.actors[0] for expression in chosen}:
            chosen.append(said[k])
    chosen = chosen[: int(rng.integers(1, most + 1))]
    if absent and rng.random() < ABSENT_SHARE:
        chosen = [*chosen[: most - 1], absent[int(rng.integers(len(absent)))]]
    if not chosen:
        return None
    chosen = [chosen[k] for k in rng.permutation(len(chosen))]
    return _sample(clip, task, [e.text for e in chosen], [list(e.actors) for e in chosen])


def _many(
    clip: FilmedClip,
    task: str,
    said: Sequence[Expression],
    absent: Sequence[Expression],
    rng: np.random.Generator,
    most: int,
) -> ClipSample | None:
    """Words for one thing after the other and round again, and some for things that are not there."""
    about: dict[tuple[int, ...], list[Expression]] = {}
    for k in rng.permutation(len(said)):
        about.setdefault(said[k].actors, []).append(said[k])
    turns = [e for round_ in zip_longest(*about.values()) for e in round_ if e is not None]
    others = [absent[k] for k in rng.permutation(len(absent))[: max(1, round(ABSENT_SHARE_APART * most))]]
    chosen = [*turns[: most - len(others)], *others] if turns else []
    if not chosen:
        return None
    sample = _sample(clip, task, [e.text for e in chosen], [list(e.actors) for e in chosen])
    return replace(sample, apart=True)


def _classes(clip: FilmedClip, rng: np.random.Generator, shape: Shape) -> ClipSample | None:
    classes = clip.language.classes
    if shape.every:
        bare = [kind for kind in clip.language.kinds if kind.text in names_known()]
        names = [*bare, *(Expression(name, ()) for name in clip.language.elsewhere)]
        return _sample(clip, "genseg", [e.text for e in names], [e.actors for e in names]) if bare else None
    if shape.apart:
        # As many that are often somewhere as of all names: what is mostly there must be missed where it is not.
        rare = rng.permutation(clip.language.elsewhere)[: len(clip.rivals)]
        others = [Expression(name, ()) for name in dict.fromkeys((*clip.rivals, *map(str, rare)))]
        return _many(clip, "genseg", clip.language.kinds, others, rng, shape.apart)
    if not any(classes.actors):
        return None
    return _sample(clip, "genseg", classes.names, classes.actors)


def _caption(clip: FilmedClip, rng: np.random.Generator, shape: Shape) -> ClipSample | None:
    caption = clip.language.caption
    if caption is None:
        return None
    masks = [clip.rendered.masks[list(phrase.actors)].any(0) for phrase in caption.phrases]
    spans = [(phrase.start, phrase.stop) for phrase in caption.phrases]
    return ClipSample(
        _frames(clip),
        "gcgseg",
        masks=np.stack(masks),
        condition=np.arange(len(masks), dtype=np.int64),
        answer=tag_caption(caption.text, spans),
    )


_ASKED = (
    "Describe this {media}.",
    "Describe this {media} in one sentence.",
    "What do you see?",
    "What can you see in this {media}?",
    "What is shown in this {media}?",
)


def _conversation(clip: FilmedClip, rng: np.random.Generator, shape: Shape) -> ClipSample | None:
    caption = clip.language.caption
    if caption is None:
        return None
    frames = _frames(clip)
    asked = _ASKED[int(rng.integers(len(_ASKED)))].format(media="video" if len(frames) > 1 else "image")
    return ClipSample(frames, "chat", (asked,), answer=full_stop(caption.text))


def _object(clip: FilmedClip, rng: np.random.Generator, close: Close | None) -> ClipSample | None:
    return _one_object(_frames(clip), clip.rendered.masks, rng, close)


def _one_object(
    frames: NDArray[np.uint8], masks: Masks, rng: np.random.Generator, close: Close | None
) -> ClipSample | None:
    """One of the things, shown by a region on any frame that shows it well; mostly the first such frame. Looked at
    closely the clip begins there."""
    shown = masks.mean((2, 3)) >= TARGET_AREA
    things = np.flatnonzero(shown.any(1))
    if not len(things):
        return None
    k = int(rng.choice(things))
    frame = _prompt_frame(shown[k], rng)
    kind = KINDS[rng.integers(len(KINDS))]
    target = region(kind, masks[k, frame], rng)
    task = "objseg" if len(frames) > 1 else "intseg"
    if close is None:
        return ClipSample(frames, task, (target,), masks[[k]], np.zeros(1, np.int64), prompt_frame=frame)
    # Forward or backward from there, whichever is longer; to and fro for as long as clips are.
    order = np.arange(frame, len(frames)) if 2 * frame < len(frames) else np.arange(frame, -1, -1)
    order = np.resize(np.concatenate([order, order[-2:0:-1]]), len(frames))
    sample = ClipSample(frames[order], task, (target,), masks[[k]][:, order], np.zeros(1, np.int64))
    return close.look(sample, rng, pointed=kind in ("point", "scribble"))


def _prompt_frame(shown: NDArray[np.bool_], rng: np.random.Generator) -> int:
    frames = np.flatnonzero(shown)
    return int(frames[0] if rng.random() < 0.6 else rng.choice(frames))


def _lookalikes(clip: FilmedClip, rng: np.random.Generator, shape: Shape) -> ClipSample | None:
    """Every kind of thing seen on one frame, each shown by one region of one of its kind."""
    shown = clip.rendered.masks.mean((2, 3)) >= TARGET_AREA
    if not shown.any():
        return None
    frame = int(np.argmax(shown.sum(0)))
    groups = [group for group in _alike(clip.scene) if shown[group, frame].any()]
    targets = []
    for group in groups:
        k = int(rng.choice([k for k in group if shown[k, frame]]))
        targets.append(region(KINDS[rng.integers(len(KINDS))], clip.rendered.masks[k, frame], rng))
    return _sample(clip, "vgdseg", targets, groups, frame)


def _alike(scene: Scene) -> list[list[int]]:
    """The actors by noun; a nameless one is a kind of its own."""
    groups: dict[str, list[int]] = {}
    for k, actor in enumerate(scene.actors):
        groups.setdefault(actor.label.nouns[0] if actor.label.nouns else f"#{k}", []).append(k)
    return list(groups.values())


def _sample(
    clip: FilmedClip,
    task: str,
    targets: Sequence[str | Masks],
    actors: Sequence[Sequence[int]],
    prompt_frame: int = 0,
) -> ClipSample:
    return _grouped(_frames(clip), clip.rendered.masks, task, targets, actors, prompt_frame=prompt_frame)


def _grouped(
    frames: NDArray[np.uint8],
    masks: Masks,
    task: str,
    targets: Sequence[str | Masks],
    groups: Sequence[Sequence[int]],
    *,
    prompt_frame: int = 0,
    ignored: Masks | None = None,
) -> ClipSample:
    """A sample that asks for each of `targets`: the things of one of `groups`, by their places in `masks`."""
    members = [k for group in groups for k in group]
    condition = np.array([number for number, group in enumerate(groups) for _ in group], np.int64)
    return ClipSample(frames, task, tuple(targets), masks[members], condition, ignored, prompt_frame=prompt_frame)


def _frames(clip: FilmedClip) -> NDArray[np.uint8]:
    assert clip.rendered.frames is not None
    return clip.rendered.frames


_MAKERS: Mapping[FootageTask, Callable[[FilmedClip, np.random.Generator, Shape], ClipSample | None]] = {
    "refseg": _referring,
    "reaseg": _reasoning,
    "genseg": _classes,
    "gcgseg": _caption,
    "chat": _conversation,
    "vgdseg": _lookalikes,
}


# ---- things strewn about ------------------------------------------------------------------------------------


class ScatteredThings(_Endless):
    """Stills of things strewn over a backdrop, and all names of which it is clear whether they fit."""

    def __init__(self, material: Material, shape: Shape, *, seed: int = 0, length: int = 1 << 20) -> None:
        super().__init__("scatter", "genseg", replace(shape, frames=(1,)), seed=seed, length=length, device="cpu")
        self._material = material

    def __getitem__(self, index: int) -> ClipSample:
        """The sample of an index; stills on which nothing has a clear name are passed over."""
        if not 0 <= index < self._length:
            raise IndexError(f"still {index} of {self._length}")
        for attempt in count():
            still = scatter(self._material, (self._seed, index, attempt, 19), self._shape.height)
            sample = _every_name(still.frame[None], still.masks[:, None], still.labels, still.holds)
            if sample is not None:
                return sample
        raise AssertionError("the counter never ends")


# ---- labelled photographs and clips -----------------------------------------------------------------------


class LabelledFootage(_Endless):
    """Labelled photographs moved by a camera, or labelled real clips, for `objseg`, `intseg`, `genseg` or `refseg`.

    Where labels are incomplete, pixels without one are `ignored` by tasks that name classes: what is asked for
    could be there. A region asks for one known thing, so nothing is ignored.
    """

    def __init__(
        self, sources: Sequence[Labelled], task: FootageTask, shape: Shape, *, name: str, seed: int = 0,
        length: int = 1 << 20, device: str = "cpu",
    ) -> None:  # fmt: skip
        super().__init__(name, task, shape, seed=seed, length=length, device=device)
        self._sources = tuple(sources)

    def __getitem__(self, index: int) -> ClipSample:
        """The sample of an index; pictures that show nothing labelled are passed over."""
        if not 0 <= index < self._length:
            raise IndexError(f"clip {index} of {self._length}")
        for attempt in count():
            rng = np.random.default_rng([self._seed, crc32(self.name.encode()), index, attempt, 13])
            source = self._sources[rng.integers(len(self._sources))]
            clip = film_labelled(
                source, rng, self._shape.height, self._shape.width, self.frame_count(index), self._device
            )
            sample = self._sample(clip, rng)
            if sample is not None:
                return replace(sample, apart=not self._asks and self._shape.apart > 0)
        raise AssertionError("the counter never ends")

    def _sample(self, clip: PhotoClip, rng: np.random.Generator) -> ClipSample | None:
        if self._asks:
            return _known_object(clip, rng, self._shape.close)
        if self._shape.every and self._task == "genseg":
            return _every_name(clip.frames, clip.masks, [named(name) for name in clip.names], (), _ignored(clip))
        return _LABELLED_MAKERS[self._task](clip, rng, self._rivals(rng))

    def _rivals(self, rng: np.random.Generator) -> list[str]:
        """Names that are often somewhere: those of three other pictures."""
        others = rng.integers(len(self._sources), size=3)
        return list(dict.fromkeys(name for other in others for name in self._sources[other].names.values()))


def _known_object(clip: PhotoClip, rng: np.random.Generator, close: Close | None) -> ClipSample | None:
    return _one_object(clip.frames, clip.masks, rng, close)


def _known_classes(clip: PhotoClip, rng: np.random.Generator, rivals: Sequence[str]) -> ClipSample | None:
    seen = [k for k in range(len(clip.masks)) if clip.masks[k].any()]
    if not seen:
        return None
    present = sorted({clip.names[k] for k in seen})
    labels = [named(name) for name in clip.names]
    others = [noun for noun in nouns() if not any(label.may_be_a(noun) for label in labels)]
    rare = rng.permutation(others)[: rng.integers(1, 6)].tolist()
    names = list(dict.fromkeys([*present, *rare, *(name for name in rivals[:3] if name in others)]))
    names = [names[k] for k in rng.permutation(len(names))]
    condition = np.array([names.index(clip.names[k]) for k in seen], np.int64)
    return ClipSample(clip.frames, "genseg", tuple(names), clip.masks[seen], condition, _ignored(clip))


def _every_name(
    frames: NDArray[np.uint8],
    masks: Masks,
    labels: Sequence[Label],
    holds: Collection[str] = (),
    ignored: Masks | None = None,
) -> ClipSample | None:
    """All names of which it is clear, for everything labelled, whether they fit it. `holds`: names that the rest of
    the picture may go by."""
    fitting = {
        name: [k for k, label in enumerate(labels) if label.is_a(name)]
        for name in names_known()
        if name not in holds and all(label.is_a(name) or not label.may_be_a(name) for label in labels)
    }
    if not any(fitting.values()):
        return None
    return _grouped(frames, masks, "genseg", tuple(fitting), tuple(fitting.values()), ignored=ignored)


def _known_phrase(clip: PhotoClip, rng: np.random.Generator, rivals: Sequence[str]) -> ClipSample | None:
    """ "the dog", where one dog is labelled."""
    lone = [
        k
        for k, name in enumerate(clip.names)
        if clip.names.count(name) == 1 and (clip.masks[k].mean((1, 2)) >= 3 * TARGET_AREA).any()
    ]
    if not lone:
        return None
    k = int(rng.choice(lone))
    return ClipSample(
        clip.frames, "refseg", (f"the {clip.names[k]}",), clip.masks[[k]], np.zeros(1, np.int64), _ignored(clip)
    )


def _ignored(clip: PhotoClip) -> Masks | None:
    return clip.unknown if clip.unknown.any() else None


_LABELLED_MAKERS: Mapping[
    FootageTask, Callable[[PhotoClip, np.random.Generator, Sequence[str]], ClipSample | None]
] = {
    "genseg": _known_classes,
    "refseg": _known_phrase,
}


def footage_datasets(
    material: Material, shape: Shape, *, seed: int = 0, length: int = 1 << 20, device: str = "cpu"
) -> tuple[ProceduralFootage | LabelledFootage | ScatteredThings, ...]:
    """Every data set this material gives: procedural clips and stills, photographs, real clips; things strewn about
    where every name is asked for."""
    still = replace(shape, frames=(1,))
    videos: tuple[FootageTask, ...] = ("refseg", "reaseg", "genseg", "gcgseg", "vgdseg", "objseg", "chat")
    images: tuple[FootageTask, ...] = ("refseg", "genseg", "intseg")
    labelled: tuple[FootageTask, ...] = ("objseg", "genseg", "refseg")
    more = {"seed": seed, "length": length}
    return (
        *(ProceduralFootage(material, task, shape, **more, device=device) for task in videos),
        *(ProceduralFootage(material, task, still, **more, device=device) for task in images),
        *(
            LabelledFootage(sources, task, shape, name=name, **more, device=device)
            for name, sources in (("photo", material.photos), ("clip", material.clips))
            if sources
            for task in labelled
        ),
        *([ScatteredThings(material, shape, **more)] if shape.every else []),
    )
