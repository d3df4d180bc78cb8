"""`Segmenter`: the weights. Reads prompts once, with a glimpse of the clip, and starts trackers for shots.

It knows no clip and keeps no state: the same segmenter serves many shots, and equal input gives equal output.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from x2roto.clip import Frame, both_ways, spread
from x2roto.engine import preprocess, shot, tasks
from x2roto.engine.assembly import Conditions, Spliced, decodable, generated_ids, phrase_ids, stack
from x2roto.engine.deeds import Course, Deed, doing, told
from x2roto.engine.describing import Masks, told_of
from x2roto.engine.finding import Thing, best, boxes, nameable, sightings, things
from x2roto.engine.identity import Kind, Target
from x2roto.engine.model.language import Visual
from x2roto.engine.model.region_sampler import cell_cover, draw_points
from x2roto.engine.model.x2sam import X2SAM
from x2roto.engine.prompting import SpecialIds, TokenStream, Turn, conversation, tokenise, vision_text
from x2roto.engine.shot import Query
from x2roto.engine.window import DRAWN, Window, first_window, pointed, widened
from x2roto.engine.wording import Lexicon, asks_what_there_is, notes, readings
from x2roto.errors import DeviceMemoryError, ModelError, PromptError
from x2roto.job import Quality
from x2roto.prompt import (
    Box,
    Classes,
    Describe,
    MaskPrompt,
    Points,
    Prompt,
    Question,
    Region,
    Scribble,
    Text,
    check_prompts,
    distinct,
    region_mask,
    slug,
)
from x2roto.refine import upsample

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from x2roto.engine.tracker import Tracker

Rgb = NDArray[Any]

# Training joined at most this many phrases or regions of one clip.
JOINED = 8
# Frames of a clip that most tasks show the language model.
GLIMPSE = 16
# How sure the finder must be of what moves as it is told, as a share of how sure it must be else.
HINT = 0.25
STOP_TEXTS = ("<|im_end|>", "<|endoftext|>")


@dataclass(frozen=True, slots=True)
class Reading:
    """How prompts are read. `template`: which of the trained questions, with the answer of that number. `generate`:
    let the model write the answer instead of forcing it (captions always do). `limit`: most tokens written.
    `seed`: of the region points. `presence`: least score of what words find, where they are looked for before they
    are followed; `instances`: most things of a class, 0 for any number. `outlined`: mask prompts are objects' own
    masks, and not boxes or strokes filled in.
    """

    template: int = 0
    generate: bool = False
    limit: int = 2048
    seed: int = 0
    presence: float = 0.5
    instances: int = 0
    outlined: bool = True


READING = Reading()


@dataclass(frozen=True, slots=True)
class _Request:
    """Prompts that are asked together. `start`: the frame they start on, None for the first of the range."""

    task: tasks.Task
    prompts: tuple[Prompt, ...]
    start: int | None


@dataclass(frozen=True, slots=True)
class _Glimpse:
    """The clip as the language model sees it."""

    media: tasks.Media
    text: str
    visual: Visual


class Segmenter:
    """An X2SAM network with its tokenizer, ready on a device."""

    def __init__(
        self,
        model: X2SAM,
        tokenizer: Tokenizer,
        patches: preprocess.PatchConfig | None = None,
        lexicon: Lexicon | None = None,
    ) -> None:
        """`lexicon`: the words it knows; None: any may be one."""
        self.model = model
        self.tokenizer = tokenizer
        self.lexicon = lexicon
        self.special = SpecialIds.of(tokenizer)
        self.patches = patches or patch_config(model)

    @property
    def device(self) -> torch.device:
        return self.model.device

    @property
    def reach(self) -> float:
        """How far from its outlines true edges may be, in longer sides of the object; 0: nearer than a cell."""
        return self.model.config.outliner.reach if self.model.outliner is not None else 0.0

    def glimpse_count(self, prompts: Sequence[Prompt]) -> int:
        """How many frames of the range the language model, or what looks in its place, wants to see for these
        prompts."""
        return max(
            GLIMPSE if self.names and isinstance(prompt, Describe) else tasks.task_for(prompt, "video").glimpse
            for prompt in prompts
        )

    @property
    def names(self) -> tuple[str, ...]:
        """What it can find and name by itself; () for models whose language model describes."""
        return tuple(self.lexicon.names) if self.model.finder is not None and self.lexicon is not None else ()

    def notes(self, prompts: Sequence[Prompt]) -> list[str]:
        """What to tell of how prompts are read: one line each."""
        return notes(prompts, self.lexicon)

    def prompt_frames(self, prompts: Sequence[Prompt]) -> set[int | None]:
        """Source indices whose plates `read` needs: where regions are drawn and words are to be looked for (None: the
        first of the range)."""
        wanted = Region if self.model.finder is None else Region | Text
        return {prompt.frame for prompt in prompts if isinstance(prompt, wanted)}

    def read(
        self,
        prompts: Sequence[Prompt],
        glimpse: Sequence[Rgb],
        plates: Mapping[int | None, Rgb] | None = None,
        reading: Reading = READING,
        looked: Mapping[int | None, Rgb] | None = None,
    ) -> tuple[Query, ...]:
        """What to follow, from prompts of any kinds: one query per frame that prompts start on, first things first.

        `glimpse`: frames (H, W, 3) sampled over the whole range, a single one for a still. `plates`: the frames
        that regions are drawn on (`prompt_frames`); a missing None means the first of the glimpse. Phrases,
        questions and regions are joined by up to 8 into one decode, as in training; all sets of conditions of a
        query then run as one batch. A model that remembers region prompts reads each by itself.

        A model with a finder looks for words on the frames `looked` at, by source index, and follows what they mean
        from where it is seen best; by default that is the first of the glimpse alone. One that has a lexicon too
        describes by what it finds of all its names there, without its language model.

        Raises PromptError for prompts that cannot be used or that the model answers without a mask, DeviceMemoryError
        when the language model does not fit.
        """
        check_prompts(prompts)
        plates = {None: glimpse[0], **(plates or {})}
        with self._looking(glimpse) as seen:
            config = self.model.config
            regions = 1 if config.memory.prompts or config.room else JOINED
            words = 1 if config.decoder.reading else JOINED
            asked: list[Query] = []
            for request in requests(prompts, seen.media, regions=regions, words=words):
                if self.model.finder is not None and isinstance(request.prompts[0], Text | Question | Classes):
                    asked.extend(self._find(request, seen, plates, reading, looked or {None: glimpse[0]}))
                elif self.names and isinstance(request.prompts[0], Describe):
                    asked.extend(self._describe(seen, reading, looked or {None: glimpse[0]}))
                elif self.model.outliner is not None and isinstance(request.prompts[0], Points):
                    query, _ = self._ask(request, seen, plates, reading)
                    asked.append(self._again(query, request, seen, plates, reading))
                else:
                    asked.append(self._ask(request, seen, plates, reading)[0])
        alike: dict[tuple[int | None, bool, bool, bool], list[Query]] = {}
        for part in asked:
            # What is remembered of regions belongs to all sets of a batch or to none.
            alike.setdefault((part.start, bool(part.prompt), bool(part.windows), part.absent), []).append(part)
        return tuple(join(parts, start) for (start, *_), parts in alike.items())

    def ask(
        self,
        task: tasks.Task,
        prompts: Sequence[Prompt],
        glimpse: Sequence[Rgb],
        plates: Mapping[int | None, Rgb] | None = None,
        reading: Reading = READING,
    ) -> tuple[Query, str]:
        """One query for prompts of a kind that start together, all its conditions in their order, in one turn or as
        `task` says; and what the model wrote, its markup included, "" if forced.

        For data sets, which fix what `read` decides by itself. Frames and errors as there.
        """
        with self._looking(glimpse) as seen:
            request = _Request(task, tuple(prompts), _start(prompts[0]))
            query, written = self._ask(request, seen, {None: glimpse[0], **(plates or {})}, reading)
        return query, str(self.tokenizer.decode(list(written), skip_special_tokens=False)).strip()

    def describe(
        self, glimpse: Sequence[Rgb], reading: Reading = READING, looked: Mapping[int | None, Rgb] | None = None
    ) -> tuple[str, list[tuple[str, Query]]]:
        """A sentence of all that a model with `names` can name, and each name with what to follow of it, the surest
        first. Frames and errors as of `read`."""
        with self._looking(glimpse) as seen:
            found = self._named(seen, reading, looked or {None: glimpse[0]})
        return self._sentence(found), found

    def chat(self, question: str, glimpse: Sequence[Rgb], reading: Reading = READING) -> str:
        """The model's answer to a question about a clip or, with a single frame, a still. One that names by itself
        what it finds says that, and has no other answers.

        Raises PromptError for an empty question and for one that it has no answer to, DeviceMemoryError when the
        language model does not fit.
        """
        if self.names:
            glimpse = [glimpse[at] for at in spread(GLIMPSE, range(len(glimpse)))]
        with self._looking(glimpse) as seen:
            turn = Turn(tasks.question(tasks.TASKS["chat"], seen.media, [question]))
            if self.names:
                if not asks_what_there_is(question):
                    raise PromptError("this small model can only say what there is: ask 'What do you see?'")
                return self._sentence(self._named(seen, reading, dict(enumerate(glimpse))))
            prompt = self._assemble(self._tokens([turn], seen), seen, None)
            return self._text(self._write(prompt, seen, reading)[0])

    def track(self, query: Query, **options: Any) -> Tracker:
        """A tracker for one shot; options as `Tracker` takes them."""
        from x2roto.engine.tracker import Tracker

        return Tracker(self, query, **options)

    def resume(self, path: Path, **options: Any) -> Tracker:
        """The tracker that `Tracker.save` wrote, on this machine; its memory keeps its size.

        Raises ModelError if another model wrote it.
        """
        saved = shot.load(path, self.fingerprint, self.device)
        tracker = self.track(saved.query, **options, memory=saved.state.memory.capacity)
        tracker.state = saved.state
        return tracker

    @cached_property
    def fingerprint(self) -> str:
        """A short digest of the weights and of how they run: the conditions and memory of a shot fit only the model
        that made them."""
        config, outliner = self.model.config, self.model.outliner
        sizes = torch.tensor([config.image_size, config.memory.pooled, config.outliner.side, config.outliner.alone])
        outlines = {} if outliner is None else outliner.state_dict(prefix="outliner.")
        return shot.digest({**self.model.segmentor.decoder.state_dict(), **outlines, "sizes": sizes})

    def pixels(self, frames: Sequence[Rgb]) -> Tensor:
        """Frames (H, W, 3) as the mask encoder's input (T, 3, S, S) on the device."""
        return self.normalised(self.squares(frames))

    def squares(self, frames: Sequence[Rgb], side: int = 0) -> Tensor:
        """Frames (H, W, 3) as the mask encoder sees them, not yet normalised: uint8 (T, S, S, 3) on the device;
        `side`: another S than its own."""
        size = side or self.model.config.image_size
        if self.device.type == "cuda":
            return preprocess.segmentor_frames_on(self.device, frames, size)
        return preprocess.segmentor_frames(frames, size).to(self.device)

    def normalised(self, squares: Tensor) -> Tensor:
        """`squares` as the mask encoder's input."""
        return preprocess.normalise(squares, self.model.dtype)

    @contextmanager
    def _looking(self, glimpse: Sequence[Rgb]) -> Iterator[_Glimpse]:
        """The clip as the language model sees it, while it is asked."""
        try:
            with torch.inference_mode():
                yield self._look(glimpse)
        except torch.OutOfMemoryError as error:
            raise DeviceMemoryError(
                f"the language model and a glimpse of {len(glimpse)} frames do not fit into the memory of "
                f"{self.device}: show it fewer frames or use a larger device"
            ) from error

    def _look(self, glimpse: Sequence[Rgb]) -> _Glimpse:
        patches = preprocess.vision_patches(glimpse, self.patches)
        rows = preprocess.patch_values(patches.rows.to(self.device), self.patches, self.model.dtype)
        visual = self.model.vlm.see(rows, torch.tensor([patches.grid], device=self.device))
        return _Glimpse(patches.media, vision_text(patches.media, patches.grid, merge=self.patches.merge), visual)

    def _ask(
        self, request: _Request, seen: _Glimpse, plates: Mapping[int | None, Rgb], reading: Reading
    ) -> tuple[Query, tuple[int, ...]]:
        """The query, and the tokens the model wrote."""
        generate = reading.generate or request.task.generates
        question, answer = _template(request.task, reading.template)
        asked = tasks.questions(request.task, seen.media, wordings(request.prompts), index=question)
        forced = None if generate else tasks.answer(request.task, index=answer)
        stream = self._tokens([Turn(text, forced) for text in asked], seen)
        masks = self._region_masks(request.prompts, plates)
        windows: tuple[Window, ...] = ()
        if masks and self._looks_close(request, masks):
            (region,) = (prompt for prompt in request.prompts if isinstance(prompt, Region))
            windows = (first_window(masks[0], self.model.config.room, pointed=pointed(region)),)
            plates = {request.start: windows[0].crop(plates[request.start])}
            masks = [windows[0].crop(masks[0])]
        rows, remembered = self._regions(request, masks, plates, reading.seed) if masks else (None, ())
        prompt = self._assemble(stream, seen, rows)
        if generate:
            written, states = self._write(prompt, seen, reading)
            cond_ids, seg_ids = self._generated(prompt, stream, written)
        else:
            written, states = (), self.model.vlm.think(prompt, seen.visual)
            cond_ids, seg_ids = prompt.cond_ids, prompt.seg_ids
        shared = request.task.conditions == "shared"
        if not (decodable(cond_ids, seg_ids) or (shared and (cond_ids >= 0).any() and (seg_ids >= 0).any())):
            raise PromptError(f"the model answered without a mask: {self._text(written)!r}; ask in other words")
        conditions = self.model.conditions(states, cond_ids, seg_ids, shared=shared)
        caption = self._text(written)
        # An answer with phrases of its own is about those, whatever was asked.
        asked_for = self._targets(request.prompts, masks, close=bool(windows), outlined=reading.outlined)
        targets = described(self.tokenizer, self.special, written) or asked_for
        query = Query((targets,), _last_turn(conditions), request.start, (caption,), remembered, windows)
        return query, written

    def _find(
        self,
        request: _Request,
        seen: _Glimpse,
        plates: Mapping[int | None, Rgb],
        reading: Reading,
        looked: Mapping[int | None, Rgb],
    ) -> Iterator[Query]:
        """What to follow of words: each thing that they are found to mean, as if a box had been drawn around it."""
        if request.start is not None:
            looked = {request.start: plates[request.start]}
        words = [understood for prompt in request.prompts for _, understood in readings(prompt, self.lexicon)]
        targets = self._targets(request.prompts, (), close=True, outlined=False)
        classes = isinstance(request.prompts[0], Classes)
        known = [phrase for phrase in words if phrase is not None]
        motions = {} if classes or len(looked) == 1 else {phrase: told(phrase) for phrase in known}
        asked = [*known, *(motion.who for motion in motions.values() if motion is not None)]
        everywhere = dict(zip(asked, sightings(self, asked, looked, apart=classes), strict=True))
        for target, phrase in zip(targets, words, strict=True):
            apart = target.kind is Kind.THINGS
            if phrase is None:
                yield self._absent(replace(target, kind=Kind.ABSENT, number=int(apart)))
                continue
            sighting, motion = best(everywhere[phrase]), motions.get(phrase)
            # Whether anything leaves or enters no single frame can tell.
            sure = sighting.presence >= reading.presence and not (motion is not None and motion.event)
            found = boxes(sighting, apart=apart) if sure else []
            if motion is not None:
                could = things([*everywhere[motion.who], *everywhere[phrase]])
                found = self._doing(motion.deed, could, seen, looked, reading, sure=sure) or found
            if not found:
                yield self._absent(replace(target, kind=Kind.ABSENT, number=int(apart)))
            for number, box in enumerate(found[: reading.instances or None], start=1):
                query = self._boxed(replace(box, name=target.name), seen, {**plates, **looked}, reading)
                ((one,),) = query.targets
                yield replace(query, targets=((replace(one, number=number if apart else 0),),))

    def _doing(
        self, deed: Deed, could: Sequence[Thing], seen: _Glimpse, looked: Mapping[int | None, Rgb], reading: Reading,
        *, sure: bool,
    ) -> list[Box]:  # fmt: skip
        """What of all that could be meant moves as it is told, if anything does; `sure`: that something does."""

        def follow(box: Box) -> Course:
            return Course.of(self._followed(self._boxed(box, seen, looked, reading), looked))

        likely = [thing for thing in could if thing.score >= HINT * reading.presence]
        box = doing(deed, likely, list(looked), follow, sure=sure)
        return [] if box is None else [box]

    def _describe(self, seen: _Glimpse, reading: Reading, looked: Mapping[int | None, Rgb]) -> Iterator[Query]:
        """What to follow of all that can be named, and a sentence of it."""
        found = self._named(seen, reading, looked)
        labels = distinct([slug(name) for name, _ in found])
        captions = [self._sentence(found), *[""] * (len(found) - 1)]
        for (_, query), label, caption in zip(found, labels, captions, strict=True):
            ((one,),) = query.targets
            yield replace(query, targets=((replace(one, name=label),),), captions=(caption,))

    def _sentence(self, found: Sequence[tuple[str, Query]]) -> str:
        """What is told of all that was named."""
        assert self.lexicon is not None
        return self.lexicon.told([name for name, _ in found])

    def _named(self, seen: _Glimpse, reading: Reading, looked: Mapping[int | None, Rgb]) -> list[tuple[str, Query]]:
        """All that can be named, the surest first, and what to follow of it."""
        asked: dict[Box, Query] = {}

        def follow(box: Box) -> Masks:
            asked[box] = self._boxed(box, seen, looked, reading)
            return dict(zip(looked, self._followed(asked[box], looked), strict=True))

        if found := told_of(nameable(self, self.names, looked), follow):
            return [(each.name, asked[each.box]) for each in found]
        raise PromptError("the model is sure of nothing it could name: name something yourself, or draw a box")

    def _followed(self, query: Query, looked: Mapping[int | None, Rgb]) -> list[NDArray[np.bool_]]:
        """Masks (h, w) of the one thing that is asked for, on each frame that is looked at."""
        shots = [Frame(place, None, rgb) for place, rgb in enumerate(looked.values())]
        results = both_ways(lambda part: self.track(query).step(part), shots, list(looked).index(query.start))
        return [(result.seen[0].logits > 0).cpu().numpy() for result in results]

    def _boxed(self, box: Box, seen: _Glimpse, plates: Mapping[int | None, Rgb], reading: Reading) -> Query:
        """What to follow of a box."""
        query, _ = self._ask(_Request(tasks.task_for(box, seen.media), (box,), box.frame), seen, plates, reading)
        return query

    def _again(
        self, query: Query, request: _Request, seen: _Glimpse, plates: Mapping[int | None, Rgb], reading: Reading
    ) -> Query:
        """The query of a click, asked again: what is drawn of it on its frame is looked at in a window of that size
        as if it had been painted roughly. A click says nothing of how large a thing is, so the first look is at too
        much of the plate or too little."""
        plate = plates[request.start]
        ((found,),) = (result.seen for result in self.track(query).step([Frame(0, None, plate)]))
        mask = (upsample(found.logits[None], *plate.shape[:2])[0] > 0).cpu().numpy()
        if not mask.any():
            return query
        painted = MaskPrompt(found.label, mask, request.start)
        shown = _Request(tasks.task_for(painted, seen.media), (painted,), request.start)
        again, _ = self._ask(shown, seen, plates, replace(reading, outlined=False))
        # Nobody has said where it ends.
        ((target,),) = again.targets
        return replace(again, targets=((replace(target, bounds=None),),))

    def _absent(self, target: Target) -> Query:
        """Nothing to follow."""
        nothing = Conditions.without_language(1, self.model.config.dim, self.device, self.model.dtype)
        return Query(((target,),), nothing, None, ("",))

    def _tokens(self, turns: Sequence[Turn], seen: _Glimpse) -> TokenStream:
        return tokenise(conversation(turns, seen.text), self.tokenizer, self.special)

    def _assemble(self, stream: TokenStream, seen: _Glimpse, regions: Tensor | None) -> Spliced:
        def batch(array: NDArray[np.int64] | None) -> Tensor | None:
            return None if array is None else torch.from_numpy(array)[None].to(self.device)

        ids = batch(stream.input_ids)
        assert ids is not None
        return self.model.assemble(
            ids, seen.visual, regions, cond_ids=batch(stream.cond_ids), seg_ids=batch(stream.seg_ids)
        )

    def _write(self, prompt: Spliced, seen: _Glimpse, reading: Reading) -> tuple[tuple[int, ...], Tensor]:
        stops = [id for text in STOP_TEXTS if (id := self.tokenizer.token_to_id(text)) is not None]
        written = self.model.vlm.write(prompt, seen.visual, stops, reading.limit)
        return written.ids, written.states_bld

    def _generated(self, prompt: Spliced, stream: TokenStream, written: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        return generated_ids(
            None if stream.cond_ids is None else prompt.cond_ids,
            prompt.cond_ids.shape[1],
            torch.tensor(written, device=self.device),
            p_start=self.special.phrase_start,
            p_end=self.special.phrase_end,
            seg=self.special.seg,
        )

    def _text(self, ids: Sequence[int]) -> str:
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True)).strip()

    def _region_masks(self, prompts: Sequence[Prompt], plates: Mapping[int | None, Rgb]) -> list[NDArray[np.bool_]]:
        regions = [prompt for prompt in prompts if isinstance(prompt, Region)]
        for region in regions:
            if region.frame not in plates:
                raise PromptError(f"{region.name!r} is drawn on frame {region.frame}, which is not in the range")
        return [region_mask(region, *plates[region.frame].shape[1::-1]) for region in regions]

    def _regions(
        self, request: _Request, masks: Sequence[NDArray[np.bool_]], plates: Mapping[int | None, Rgb], seed: int
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Language rows of the regions, read from the frame they are drawn on, and what memory keeps of them."""
        model, config = self.model, self.model.config
        generator = torch.Generator().manual_seed(seed)
        squares = preprocess.prompt_masks(masks, config.image_size)
        points = torch.stack([draw_points(mask, config.region.points, generator) for mask in squares])
        encoded = model.segmentor.encoder(self.pixels([plates[request.start]]))
        rows = model.region_rows(model.region_map(encoded.region_bhwc)[0], points.to(self.device))
        if not (config.memory.prompts and request.task.single and len(masks) == 1):
            return rows, ()
        cover = cell_cover(squares).to(self.device, self.model.dtype)
        return rows, model.segmentor.imprint(encoded.levels_bchw, cover)

    def _looks_close(self, request: _Request, masks: Sequence[NDArray[np.bool_]]) -> bool:
        """Whether the object that is asked for is followed in a window."""
        return bool(self.model.config.room) and request.task.single and len(masks) == 1

    def _targets(
        self, prompts: Sequence[Prompt], masks: Sequence[NDArray[np.bool_]], *, close: bool, outlined: bool
    ) -> tuple[Target, ...]:
        """One target per condition, in the order of the conditions. `close`: a single one, followed in a window."""
        (first, *_) = prompts
        if isinstance(first, Classes):
            named = [(name, Kind.THINGS) for name in first.things] + [(name, Kind.STUFF) for name in first.stuff]
            return tuple(Target(slug(name), kind) for name, kind in named)
        if not masks:
            return tuple(Target(slug(prompt.name)) for prompt in prompts)
        squares = preprocess.prompt_masks(masks, self.model.config.image_size)
        covers = cell_cover(squares)[:, 0].to(self.device)
        anchors = anchor_masks(covers)
        targets = [
            Target(slug(prompt.name), anchor=anchor, drawn=cover)
            for prompt, anchor, cover in zip(prompts, anchors, covers, strict=True)
        ]
        # A small network takes what a person drew at its word, where it asks for that and not for things like it.
        match prompts:
            case [MaskPrompt()] if close and outlined:
                targets = [replace(targets[0], cover=covers[0])]
            case [Box() | MaskPrompt()] if close:
                targets = [replace(targets[0], bounds=widened(anchors[0], DRAWN))]
        return tuple(targets)


def anchor_masks(covers_nhw: Tensor) -> Tensor:
    """Regions (N, h, w) as masks, from how much they cover of each cell: those at least half covered, or touched if
    none is."""
    half = covers_nhw >= 0.5
    return torch.where(half.flatten(1).any(1)[:, None, None], half, covers_nhw > 0)


def requests(
    prompts: Sequence[Prompt], media: tasks.Media, regions: int = JOINED, words: int = JOINED
) -> Iterator[_Request]:
    """Prompts in sets that are asked together: alike, starting on the same frame, at most `regions` of those that are
    drawn and `words` of the others."""
    for prompt in prompts:
        if isinstance(prompt, Classes | Describe):
            yield _Request(tasks.task_for(prompt, media), (prompt,), None)
    for kind in (Text, Question, (Box, Points, Scribble, MaskPrompt)):
        alike = [prompt for prompt in prompts if isinstance(prompt, kind)]
        for start in dict.fromkeys(_start(prompt) for prompt in alike):
            together = [prompt for prompt in alike if _start(prompt) == start]
            most = regions if together and isinstance(together[0], Region) else words
            for first in range(0, len(together), most):
                part = tuple(together[first : first + most])
                task = tasks.task_for(part[0], media)
                if isinstance(part[0], Region) and len(part) > 1:
                    task = tasks.TASKS["vgdseg"]
                yield _Request(task, part, start)


def _start(prompt: Prompt) -> int | None:
    return getattr(prompt, "frame", None)


def wordings(prompts: Sequence[Prompt]) -> list[str]:
    """What stands for each target in the question."""
    (first, *_) = prompts
    match first:
        case Classes():
            return [*first.things, *first.stuff]
        case Describe():
            return []
        case Text() | Question():
            return [prompt.text for prompt in prompts if isinstance(prompt, Text | Question)]
    return [prompt.name for prompt in prompts]


def described(tokenizer: Tokenizer, special: SpecialIds, written: Sequence[int]) -> tuple[Target, ...]:
    """The targets of a generated answer: one per condition, told apart by number where phrases repeat."""
    tokens = torch.tensor(written[:-1], dtype=torch.long)
    numbers = phrase_ids(tokens, special.phrase_start, special.phrase_end)
    words = (tokens != special.phrase_start) & (tokens != special.phrase_end)
    phrases = [
        slug(str(tokenizer.decode(tokens[words & (numbers == number)].tolist(), skip_special_tokens=True)))
        for number in numbers.unique()
        if number >= 0
    ]
    return tuple(map(Target, distinct(phrases)))


def _template(task: tasks.Task, index: int) -> tuple[int, int]:
    """Question and answer of one wording. There are fewer answers, so their numbers go round."""
    wording = task.wordings["plain"]
    if not 0 <= index < len(wording.questions):
        raise PromptError(f"{task.id} has no template {index}: choose one of 0 to {len(wording.questions) - 1}")
    return index, index % len(wording.answers)


def join(parts: Sequence[Query], start: int | None) -> Query:
    """Queries that start on the same frame as one, their conditions a batch."""
    return Query(
        tuple(targets for part in parts for targets in part.targets),
        stack([part.conditions for part in parts]),
        start,
        tuple(caption for part in parts for caption in part.captions),
        tuple(torch.cat(maps) for maps in zip(*(part.prompt for part in parts), strict=True)),
        tuple(window for part in parts for window in part.windows),
    )


def _last_turn(conditions: Conditions) -> Conditions:
    """One batch entry: the <SEG> of the last turn, as training took it, and a mask of its own."""
    mask = conditions.embed_mask
    return replace(
        conditions, seg_embeds=conditions.seg_embeds[-1:], embed_mask=mask if mask.ndim == 2 else mask[None]
    )


def patch_config(model: X2SAM) -> preprocess.PatchConfig:
    """How the model's vision tower cuts pictures up."""
    vision = model.vlm.model.visual.config
    config = preprocess.PatchConfig(
        patch=vision.patch_size, temporal=vision.temporal_patch_size, merge=vision.spatial_merge_size
    )
    if not model.config.glimpse_pixels:
        return config
    (least_image, _), (least_video, _) = config.image_pixels, config.video_pixels
    return replace(
        config,
        image_pixels=(least_image, model.config.glimpse_pixels),
        video_pixels=(least_video, model.config.glimpse_pixels * GLIMPSE),
    )


def load_segmenter(
    model: str | Path | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
    quality: Quality = "exact",
    max_vram: float | None = None,
) -> Segmenter:
    """The named model, or the default one, on a device. `quality`: as `engine.quality` has it. `max_vram`: GB of
    device memory to stay below; the language model's layers wait on the host if need be.

    `dtype` None: the stored one, but for float16, which overflows on a CPU and is slow, what that computes in fast.
    Raises ModelError when it is missing or damaged.
    """
    from tokenizers import Tokenizer

    from x2roto.engine.model_folder import find_model, read_header
    from x2roto.engine.weights import fast_dtype, laid_out, load_model

    folder = find_model(model)
    device = torch.device(device)
    if dtype is None and device.type == "cpu" and read_header(folder).dtype == "float16":
        dtype = fast_dtype(device)
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise ModelError(f"{folder} has no tokenizer.json: convert or pull the model again", folder)
    network = laid_out(load_model(folder, device, dtype, quality, max_vram))
    return Segmenter(network, Tokenizer.from_file(str(path)), lexicon=Lexicon.read(folder))
