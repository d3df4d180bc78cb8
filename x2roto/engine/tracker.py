"""`Tracker`: all state of one shot. Frames flow through in chunks; memory and identities are a value it owns.

Whatever sees only its own frame runs batched per chunk; the recurrent rest runs frame by frame. The chunk size
changes speed and memory, not results. A GPU is kept busy: the network draws the next frame on a stream of its own
while the objects of the last one are told apart, turned into mattes and written.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Self, TypeVar

import torch
from torch import Tensor

from x2roto.clip import Frame
from x2roto.engine import shot
from x2roto.engine.identity import EMPTY, Candidates, Following, Identity, Seen, follow, nowhere
from x2roto.engine.kernels import fast_attention
from x2roto.engine.memory import Memory
from x2roto.engine.model.config import ModelConfig
from x2roto.engine.model.outliner import Sight
from x2roto.engine.model.segmentor import STRIDE, FrameFeatures, Prediction
from x2roto.engine.outlining import Trace, chosen, on_grid, outlined, traced
from x2roto.engine.palette import SHOWN, Palette, by_colour, colour_bins, cover_of, taught
from x2roto.engine.replay import Replay, Stepped
from x2roto.engine.shot import Query, Shot, ShotState
from x2roto.engine.window import Window
from x2roto.errors import DeviceMemoryError

if TYPE_CHECKING:
    from x2roto.engine.segmenter import Segmenter


Result = TypeVar("Result")

FOLLOWING = Following()
RECORDED_AFTER = 16  # frames: recording takes as long as some of them
UNSURE = 5e-4  # what is left of doubt where a mask was drawn
# Cells of a placed mask's side, in sides of the mask encoder's square: a window is drawn finer than the whole frame.
PLACED = 2
# Kinds of devices that are no faster with many frames at once; alone, a frame gives the same bits in any chunk.
ALONE = frozenset({"cpu"})
NOTHING = torch.zeros(1, 1)  # the cover of an object that was not seen
LOOKS = 2  # more of a frame, where objects reach out of their windows
WORSE = 0.05  # less sameness (`outlining.Trace`) of what is drawn in a window that was moved, which then stays


@dataclass(frozen=True, slots=True)
class Budget:
    """How much a tracker keeps on the device: frames encoded at once, and whether features wait on the host."""

    chunk: int = 8
    offload: bool = False

    def tightened(self) -> Self | None:
        """The next smaller working set, None when there is none."""
        if self.chunk > 1:
            return replace(self, chunk=self.chunk // 2)
        return None if self.offload else replace(self, offload=True)


@dataclass(frozen=True, slots=True)
class FrameResult:
    """One tracked frame. `seen`: every object followed so far, absent ones included, in a fixed order.

    `prediction`: logits of all queries under all sets of conditions, for the reference's post-processing.
    """

    frame: Frame
    seen: tuple[Seen, ...]
    prediction: Prediction


@dataclass(frozen=True, slots=True)
class Encoded:
    """What of a frame is known before memory is read. `features`: None where the outliner draws alone. `windows`,
    `squares`: where each set looks, and what it sees there, uint8 (S, S, 3); empty where all see the whole frame.
    `sight`: what the outliner sees there."""

    features: FrameFeatures | None
    windows: Sequence[Window] = ()
    squares: Sequence[Tensor] = ()
    sight: Sight | None = None

    def to(self, device: torch.device) -> Self:
        """The same with its features there."""
        return self if self.features is None else replace(self, features=self.features.to(device))


@dataclass(frozen=True, slots=True)
class Drawn:
    """A frame as the network has drawn it, its objects not told apart yet: the prediction, the state of its queries,
    colour bins, and the memory after it. `ready`: when a GPU is done with it."""

    frame: Frame
    encoded: Encoded
    bins: Sequence[Tensor]
    prediction: Prediction
    queries_bqc: Tensor
    memory: Memory
    ready: torch.cuda.Event | None

    def hand_over(self) -> None:
        """Let the current stream work on it once it is ready."""
        if self.ready is not None:
            stream = torch.cuda.current_stream(self.queries_bqc.device)
            stream.wait_event(self.ready)
            for tensor in (self.queries_bqc, self.prediction.mask_logits_bqhw, self.prediction.class_logits_bqc):
                tensor.record_stream(stream)


class Tracker:
    """Follows a query through frames given in order, forward or backward in time.

    `state` may be read and kept at any frame and set back between steps; `save` writes it with the query to one file.
    """

    def __init__(
        self,
        segmenter: Segmenter,
        query: Query,
        *,
        chunk: int = 8,
        memory: int | None = None,
        following: Following = FOLLOWING,
    ) -> None:
        """`chunk`: frames encoded at once. `memory`: past frames remembered, None for the model's own number.

        Raises ValueError when either is below 1.
        """
        if chunk < 1:
            raise ValueError(f"a chunk must hold at least 1 frame, not {chunk}")
        self.segmenter = segmenter
        self.query = query
        self.following = following
        self.budget = Budget(chunk)
        config = segmenter.model.config.memory
        capacity = config.capacity if memory is None else memory
        memory_of_prompts = Memory(capacity, prompt=query.prompt, anchored=config.anchored)
        known = tuple(tuple(() for _ in targets) for targets in query.targets)
        self.state = ShotState(memory_of_prompts, known, query.windows)
        # Where a window stands is known once the objects of the frame before are.
        ahead = segmenter.device.type == "cuda" and not query.windows
        self._stream = torch.cuda.Stream(segmenter.device) if ahead else None
        self._records = True
        self._replay: Replay | None = None

    def step(self, frames: Sequence[Frame]) -> Iterator[FrameResult]:
        """Results of the next frames, in the order given."""
        yield from self.run((frames,))

    def run(self, blocks: Iterable[Sequence[Frame]]) -> Iterator[FrameResult]:
        """Results of the frames of one block after the other, in the order given. No chunk ends in the next block.

        Out of device memory the chunk is halved, then features wait on the host, then DeviceMemoryError is
        raised; the frames yielded and the state are right in every case, and the rest can be asked for again.
        """
        if self.query.absent:
            yield from map(self._nothing, chain.from_iterable(blocks))
            return
        if self._stream is not None:
            self._stream.wait_stream(torch.cuda.current_stream(self.segmenter.device))
        before: Drawn | None = None
        for block in blocks:
            encoded = deque[Encoded]()
            for position in range(len(block)):
                state = self.state
                if before is not None:
                    state = replace(state, memory=before.memory, index=before.frame.index)
                drawn = self._drawn(block[position:], encoded, state)
                if before is not None:
                    yield self._settled(before, encoded)
                if self._stream is None:
                    yield self._settled(drawn, encoded)
                else:
                    before = drawn
        if before is not None:
            yield self._settled(before, deque())

    def _drawn(self, frames: Sequence[Frame], encoded: deque[Encoded], state: ShotState) -> Drawn:
        """The first of the frames as the network draws it after `state`. `encoded`: what is known of them so far;
        refilled when it is empty, and the first is taken."""

        def drawn() -> Drawn:
            if not encoded:
                chunk = 1 if state.windows else self.budget.chunk
                encoded.extend(self._encode(frames[:chunk], state, self._windows(frames[0], state)))
            return _recognised(self._whole(self._draw(frames[0], encoded[0], state), state), state.trace)

        with torch.cuda.stream(self._stream):
            first = self._within_memory(encoded, drawn)
        encoded.popleft()
        return first

    def _whole(self, drawn: Drawn, state: ShotState) -> Drawn:
        """The same, or the frame drawn anew in windows that were moved on, where objects reach out of theirs: those
        that move by more than their windows leave room for would end in straight edges."""
        if not state.windows or state.index is None:  # on the first frame the prompt says where to look
            return drawn
        for _ in range(LOOKS):
            masks = (drawn.prediction.best() > 0).cpu()
            windows = tuple(window.towards(mask) for window, mask in zip(drawn.encoded.windows, masks, strict=True))
            if windows == tuple(drawn.encoded.windows):
                break
            (encoded,) = self._encode((drawn.frame,), state, windows)
            before, drawn = drawn, _better(drawn, self._draw(drawn.frame, encoded, state), state.trace)
            if drawn.encoded.windows == before.encoded.windows:
                break
        return drawn

    def _settled(self, drawn: Drawn, encoded: deque[Encoded]) -> FrameResult:
        """The objects of a frame; the state after it becomes the tracker's."""
        result, self.state = self._within_memory(encoded, lambda: self._settle(drawn))
        return result

    def _within_memory(self, encoded: deque[Encoded], work: Callable[[], Result]) -> Result:
        """What the work gives, tried again with less on the device where it runs out of memory."""
        while True:
            try:
                return work()
            except torch.OutOfMemoryError as error:
                encoded.clear()
                self._tighten(error)

    def _nothing(self, frame: Frame) -> FrameResult:
        """What there is to say of a frame where nothing can be found; the network is not asked."""
        config = self.segmenter.model.config
        side, cells = placed_side(config), config.image_size // STRIDE
        blank = torch.zeros(side, side, device=self.segmenter.device)
        seen = [nowhere(target, blank) for targets in self.query.targets for target in targets]
        none = blank.new_zeros(len(self.query.targets), 0, cells, cells)
        return FrameResult(frame, tuple(seen), Prediction(none, none[..., 0]))

    def save(self, path: Path) -> None:
        """Write query and state to a file for `Segmenter.resume`. Raises OutputError when that fails."""
        shot.save(path, Shot(self.query, self.state), self.segmenter.fingerprint)

    @torch.inference_mode()
    def _encode(self, frames: Sequence[Frame], state: ShotState, windows: Sequence[Window]) -> list[Encoded]:
        with self._attention():
            if windows:
                found = self._encode_windows(frames[0], windows, state)
            else:
                found = self._encode_frames(frames, self._without_memory(frames, state.memory))
        host = torch.device("cpu")
        return [each.to(host) for each in found] if self.budget.offload else found

    def _attention(self) -> AbstractContextManager[None]:
        model = self.segmenter.model
        return fast_attention(model.device, model.dtype, model.config.dim)

    def _encode_windows(self, frame: Frame, windows: Sequence[Window], state: ShotState) -> list[Encoded]:
        model, outliner = self.segmenter.model, self.segmenter.model.config.outliner
        shown = [window.crop(frame.rgb) for window in windows]
        squares = self.segmenter.squares(shown)
        pixels = self.segmenter.normalised(squares)
        features = sight = None
        if model.outliner is not None:
            side = outliner.side
            sight = model.look(self.segmenter.normalised(self.segmenter.squares(shown, side)) if side else pixels)
        if not (outliner.alone and state.trace is not None):
            pyramid = model.segmentor.encoder(pixels).levels_bchw
            features = model.segmentor.features(pyramid, first=state.memory.empty)
        return [Encoded(features, windows, tuple(squares), sight)]

    def _encode_frames(self, frames: Sequence[Frame], first: int) -> list[Encoded]:
        """`first`: how many of them find the memory empty."""
        segmentor = self.segmenter.model.segmentor
        size = 1 if self.segmenter.device.type in ALONE else len(frames)
        features: list[FrameFeatures] = []
        for start in range(0, len(frames), size):
            together = [frame.rgb for frame in frames[start : start + size]]
            pyramid = segmentor.encoder(self.segmenter.pixels(together)).levels_bchw
            border = max(0, first - start)
            for levels, starts in ((_part(pyramid, 0, border), True), (_part(pyramid, border, None), False)):
                if len(levels[0]):
                    features.extend(segmentor.features(levels, first=starts).frames())
        return [Encoded(each) for each in features]

    def _windows(self, frame: Frame, state: ShotState) -> tuple[Window, ...]:
        """Where each set looks on a frame: wider the more frames were left out since the last one."""
        windows = state.windows
        if state.index is not None:
            for _ in range(abs(frame.index - state.index) - 1):
                if all(window.whole(window.width, window.height) == window for window in windows):
                    break
                windows = tuple(window.following(NOTHING, self.segmenter.model.config.room) for window in windows)
        return windows

    def _without_memory(self, frames: Sequence[Frame], memory: Memory) -> int:
        """How many of the next frames find the memory empty: up to the first one that will be remembered."""
        if not memory.empty:
            return 0
        return 1 + next((index for index, frame in enumerate(frames) if not frame.held), len(frames))

    @torch.inference_mode()
    def _draw(self, frame: Frame, encoded: Encoded, state: ShotState) -> Drawn:
        """All that the network says of a frame, and what it remembers. Asks a GPU nothing that must be waited for."""
        model, memory = self.segmenter.model, state.memory
        features = encoded.to(model.device).features
        bins = [colour_bins(square) for square in encoded.squares] if model.config.palette or encoded.sight else []
        with self._attention():
            if features is None:
                step = self._redrawn(encoded, bins, state)
            elif recorded := self._recorded(features, state):
                step = recorded(features, memory)
            else:
                step = self._step(features, encoded, bins, state)
        # A picture that stands in for a damaged one says nothing of the shot: nothing of it is kept.
        kept = step.maps_bchw and not frame.held
        after = memory.remember(step.maps_bchw) if kept else memory.pass_over()
        ready = None if self._stream is None else self._stream.record_event()
        return Drawn(frame, encoded, bins, step.prediction, step.queries_bqc, after, ready)

    def _recorded(self, features: FrameFeatures, state: ShotState) -> Replay | None:
        """The step of this frame as a graph, where it depends on nothing but features and a full memory."""
        memory = state.memory
        if self._stream is None or not self._records or memory.step < RECORDED_AFTER:
            return None
        if self._replay is None and memory.gaps()[-memory.capacity :] == tuple(range(memory.capacity, 0, -1)):
            self._replay = Replay(self.segmenter.model.segmentor, features, memory, self.query.conditions)
        return self._replay if self._replay is not None and self._replay.fits(memory) else None

    def _step(self, features: FrameFeatures, encoded: Encoded, bins: Sequence[Tensor], state: ShotState) -> Stepped:
        """What the network makes of a frame, with what is known of its objects."""
        model, query = self.segmenter.model, self.query
        decoded = model.segmentor.decode(features, state.memory, query.conditions)
        plain = model.segmentor.predict(decoded, query.conditions)
        bounds = self._bounds(state)
        coloured = replace(plain, mask_logits_bqhw=self._coloured(plain, bins, bounds, state))
        own = prediction = self._corrected(coloured, bounds, state)
        if encoded.sight is not None:
            drawn = self._outlined(coloured.best(), encoded, encoded.sight, bins, state)[:, None]
            outlines = replace(coloured, mask_logits_bqhw=drawn.expand(-1, plain.mask_logits_bqhw.shape[1], -1, -1))
            prediction = self._corrected(outlines, bounds, state)
        # The network remembers its own masks and not the outlines: it learnt from those, and two that err each in
        # their own way find each other's losses again (0.56 for 0.45, `docs/nano.md`).
        return Stepped(prediction, decoded.queries_bqc, model.segmentor.memory_maps(features, own))

    def _redrawn(self, encoded: Encoded, bins: Sequence[Tensor], state: ShotState) -> Stepped:
        """A frame as the outliner draws it alone: an object is there as surely as the surest of its places is."""
        assert encoded.sight is not None
        drawn = self._outlined(torch.zeros_like(encoded.sight.fine[:, 0]), encoded, encoded.sight, bins, state)
        sure = drawn.flatten(1).amax(1)
        classes = torch.stack([sure, torch.zeros_like(sure)], dim=-1)[:, None]
        queries = sure.new_zeros(len(sure), 1, self.segmenter.model.config.dim)
        return Stepped(Prediction(drawn[:, None], classes), queries, ())

    @torch.inference_mode()
    def _settle(self, drawn: Drawn) -> tuple[FrameResult, ShotState]:
        """The objects of a frame that was drawn after the present state, and the state after it."""
        drawn.hand_over()
        frame, prediction, windows = drawn.frame, drawn.prediction, drawn.encoded.windows
        seen, known = self._follow(prediction, drawn.queries_bqc)
        placed = self._placed(seen, windows, frame)
        result = FrameResult(frame, placed, prediction)
        if frame.held:
            return result, replace(self.state, memory=drawn.memory, index=frame.index)
        # One object for each window.
        covers = [(one.logits > 0).cpu() for one in seen] if windows else []
        room = self.segmenter.model.config.room
        moved = tuple(w.following(cover, room) for w, cover in zip(windows, covers, strict=True))
        palettes = self._taught([one.logits for one in seen], drawn.bins)
        trace = self._traced(prediction, drawn.encoded)
        return result, ShotState(drawn.memory, known, moved, palettes, trace, frame.index)

    def _bounds(self, state: ShotState) -> list[Tensor | None]:
        """Cells (h, w) outside of which the object of each set is not, by its prompt; None where nothing is known, as
        on every frame but the first."""
        first = state.index is None
        return [targets[0].bounds if first and targets else None for targets in self.query.targets]

    def _corrected(self, prediction: Prediction, bounds: Sequence[Tensor | None], state: ShotState) -> Prediction:
        """The same with what is known of the objects: their bounds, on the first frame their masks."""
        first = state.index is None
        covers = [targets[0].cover if first and targets else None for targets in self.query.targets]
        if all(each is None for each in (*bounds, *covers)):
            return prediction
        masks, classes = prediction.mask_logits_bqhw.clone(), prediction.class_logits_bqc.clone()
        grid = masks.shape[-2:]
        for row, inside in enumerate(bounds):
            if inside is not None:
                masks[row].masked_fill_(~_fitting(inside, grid), EMPTY)
        for row, cover in enumerate(covers):
            if cover is not None:
                # Shown, so certainly there and exactly so (as SAM 2 takes a mask for its own output).
                masks[row] = on_grid(cover[None], grid)[0].logit(eps=UNSURE)
                classes[row, :, 0] = classes[row, :, -1] - math.log(UNSURE)
        return Prediction(masks, classes)

    def _outlined(
        self, own_ghw: Tensor, encoded: Encoded, sight: Sight, bins: Sequence[Tensor], state: ShotState
    ) -> Tensor:
        """Logits (G, h, w) of the object each set asks for, as the outliner draws it. `own_ghw`: the network's."""
        outliner = self.segmenter.model.outliner
        assert outliner is not None
        own = own_ghw.to(outliner.trust.dtype)
        prompt = own
        if state.trace is None:
            drawn = [targets[0].drawn for targets in self.query.targets]
            prompt = torch.stack([own[row].sigmoid() if each is None else each for row, each in enumerate(drawn)])
        edges = _edges(encoded.windows, own.device)
        return outlined(outliner, sight, own, bins, state.trace, state.palettes, edges, prompt)[-1]

    def _traced(self, prediction: Prediction, encoded: Encoded) -> Trace | None:
        """What the outliner keeps after this frame."""
        if encoded.sight is None:
            return None
        cover = prediction.best().float().sigmoid()
        return traced(self.state.trace, encoded.sight, cover, _edges(encoded.windows, cover.device))

    def _coloured(
        self, own: Prediction, bins: Sequence[Tensor], bounds: Sequence[Tensor | None], state: ShotState
    ) -> Tensor:
        """The network's mask logits with what colours add to those of the object each set asks for."""
        weight = self.segmenter.model.config.palette
        if not weight or not bins:
            return own.mask_logits_bqhw
        shown = [SHOWN if targets[0].cover is not None else 1.0 for targets in self.query.targets]
        known = state.palettes or (None,) * len(bins)
        each = zip(own.best(), bins, known, bounds, [weight * share for share in shown], strict=True)
        return own.mask_logits_bqhw + torch.stack([by_colour(*one) for one in each])[:, None]

    def _taught(self, logits: Sequence[Tensor], bins: Sequence[Tensor]) -> tuple[Palette | None, ...]:
        """The colours of each set's object after this frame."""
        if not bins:
            return ()
        newer = [Palette.of(each, cover_of(one, each)) for one, each in zip(logits, bins, strict=True)]
        return taught(self.state.palettes or (None,) * len(newer), newer)

    def _placed(self, seen: tuple[Seen, ...], windows: Sequence[Window], frame: Frame) -> tuple[Seen, ...]:
        """The same on the whole frame, where the model looks at windows: all on one grid."""
        if not self.segmenter.model.config.room:
            return seen
        height, width = frame.rgb.shape[:2]
        windows = windows or [Window.whole(width, height)] * len(seen)
        size = placed_side(self.segmenter.model.config)
        return tuple(
            replace(one, logits=window.place(one.logits, size)) for one, window in zip(seen, windows, strict=True)
        )

    def _follow(self, prediction: Prediction, queries_bqc: torch.Tensor) -> tuple[tuple[Seen, ...], shot.Known]:
        everything: list[Seen] = []
        known: list[tuple[tuple[Identity, ...], ...]] = []
        for index, targets in enumerate(self.query.targets):
            candidates = Candidates.of(
                prediction.class_logits_bqc[index], prediction.mask_logits_bqhw[index], queries_bqc[index]
            )
            kept: list[tuple[Identity, ...]] = []
            for condition, target in enumerate(targets):
                # Outlines may be finer than what a prompt was read on.
                if target.anchor is not None:
                    target = replace(target, anchor=_fitting(target.anchor, candidates.logits.shape[-2:]))
                seen, identities = follow(
                    candidates, condition, target, self.state.known[index][condition], self.following
                )
                everything.extend(seen)
                kept.append(tuple(identities))
            known.append(tuple(kept))
        return tuple(everything), tuple(known)

    def _tighten(self, error: torch.OutOfMemoryError) -> None:
        tighter = self.budget.tightened()
        if tighter is None:
            raise DeviceMemoryError(
                f"{self.segmenter.device} ran out of memory with a single frame at a time: "
                "use fewer prompts at once, a smaller --memory or a larger device"
            ) from error
        self.budget = tighter
        # A recorded step keeps what it needs for itself.
        self._records, self._replay = False, None
        if self.segmenter.device.type == "cuda":
            torch.cuda.empty_cache()


def placed_side(config: ModelConfig) -> int:
    """Of the grid on which a model with windows places its masks."""
    return PLACED * config.image_size


def _better(before: Drawn, again: Drawn, trace: Trace | None) -> Drawn:
    """Of two drawings of a frame, the second; where an outliner draws alone, of each object whose second drawing is
    less the object, the first. It may have run off into what surrounds it."""
    one, other = before.encoded.sight, again.encoded.sight
    if trace is None or one is None or other is None or again.encoded.features is not None:
        return again
    same, now = (
        trace.sameness(sight, each.prediction.best().float().sigmoid())
        for sight, each in ((one, before), (other, again))
    )
    worse = now < same - WORSE

    def items(first: Sequence[Result], second: Sequence[Result]) -> tuple[Result, ...]:
        return tuple(old if stays else new for old, new, stays in zip(first, second, worse.tolist(), strict=True))

    encoded = Encoded(
        None,
        items(before.encoded.windows, again.encoded.windows),
        items(before.encoded.squares, again.encoded.squares),
        Sight(
            chosen(worse, one.fine, other.fine),
            chosen(worse, one.tokens, other.tokens),
            other.grid,
            chosen(worse, one.cells, other.cells),
        ),
    )
    prediction = Prediction(
        chosen(worse, before.prediction.mask_logits_bqhw, again.prediction.mask_logits_bqhw),
        chosen(worse, before.prediction.class_logits_bqc, again.prediction.class_logits_bqc),
    )
    return replace(again, encoded=encoded, bins=items(before.bins, again.bins), prediction=prediction)


def _recognised(drawn: Drawn, trace: Trace | None) -> Drawn:
    """A frame that an outliner drew alone, without what is something else than its objects. To be asked of the last
    drawing: what a window cuts is less like itself."""
    sight, prediction = drawn.encoded.sight, drawn.prediction
    if trace is None or sight is None or drawn.encoded.features is not None:
        return drawn
    other = ~trace.itself(sight, prediction.best().float().sigmoid())
    masks = prediction.mask_logits_bqhw.masked_fill(other[:, None, None, None], EMPTY)
    classes = prediction.class_logits_bqc.clone()
    classes[..., 0].masked_fill_(other[:, None], EMPTY)
    return replace(drawn, prediction=Prediction(masks, classes))


def _edges(windows: Sequence[Window], device: torch.device) -> Tensor:
    return torch.tensor([window.edges for window in windows], dtype=torch.float32, device=device)


def _fitting(mask_hw: Tensor, size: torch.Size) -> Tensor:
    """A mask on a grid (h, w) of that size, the same one where it is."""
    return mask_hw if mask_hw.shape == size else on_grid(mask_hw[None].float(), size)[0] >= 0.5


def _part(levels: tuple[torch.Tensor, ...], start: int, stop: int | None) -> tuple[torch.Tensor, ...]:
    return tuple(level[start:stop] for level in levels)
