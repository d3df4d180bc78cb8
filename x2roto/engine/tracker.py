"""`Tracker`: all state of one shot. Frames flow through in chunks; memory and identities are a value it owns.

Whatever sees only its own frame runs batched per chunk; the recurrent rest runs frame by frame. The chunk size
changes speed and memory, not results.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Self

import torch
from torch import Tensor

from x2roto.clip import Frame
from x2roto.engine import shot
from x2roto.engine.identity import EMPTY, Candidates, Following, Identity, Seen, follow, nowhere
from x2roto.engine.kernels import fast_attention
from x2roto.engine.memory import Memory
from x2roto.engine.model.outliner import Sight
from x2roto.engine.model.segmentor import STRIDE, FrameFeatures, Prediction
from x2roto.engine.outlining import Trace, outlined, traced
from x2roto.engine.palette import SHOWN, Palette, by_colour, colour_bins, cover_of, taught
from x2roto.engine.shot import Query, Shot, ShotState
from x2roto.engine.window import MOVED, Window, widened
from x2roto.errors import DeviceMemoryError

if TYPE_CHECKING:
    from x2roto.engine.segmenter import Segmenter


FOLLOWING = Following()
UNSURE = 5e-4  # what is left of doubt where a mask was drawn
# Kinds of devices that are no faster with many frames at once; alone, a frame gives the same bits in any chunk.
ALONE = frozenset({"cpu"})
NOTHING = torch.zeros(1, 1)  # the cover of an object that was not seen


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
    """What of a frame is known before memory is read. `windows`, `squares`: where each set looks, and what it sees
    there, uint8 (S, S, 3); empty where all see the whole frame. `sight`: what the outliner sees there."""

    features: FrameFeatures
    windows: Sequence[Window] = ()
    squares: Sequence[Tensor] = ()
    sight: Sight | None = None


class Tracker:
    """Follows a query through frames given in order, forward or backward in time.

    `state` may be read, kept and set back at any frame; `save` writes it with the query to one file.
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

    def step(self, frames: Sequence[Frame]) -> Iterator[FrameResult]:
        """Results of the next frames, in the order given.

        Out of device memory the chunk is halved, then features wait on the host, then DeviceMemoryError is
        raised; the frames yielded and the state are right in every case, and the step can be taken again.
        """
        if self.query.absent:
            yield from map(self._nothing, frames)
            return
        position, ready = 0, deque[Encoded]()
        while position < len(frames):
            try:
                if not ready:
                    # Where a window stands is known once the frame before is.
                    chunk = 1 if self.state.windows else self.budget.chunk
                    ready.extend(self._encode(frames[position : position + chunk]))
                result, state = self._advance(frames[position], ready[0])
            except torch.OutOfMemoryError as error:
                ready.clear()
                self._tighten(error)
                continue
            ready.popleft()
            position += 1
            self.state = state
            yield result

    def _nothing(self, frame: Frame) -> FrameResult:
        """What there is to say of a frame where nothing can be found; the network is not asked."""
        side = self.segmenter.model.config.image_size
        blank = torch.zeros(side, side, device=self.segmenter.device)
        seen = [nowhere(target, blank) for targets in self.query.targets for target in targets]
        none = blank.new_zeros(len(self.query.targets), 0, side // STRIDE, side // STRIDE)
        return FrameResult(frame, tuple(seen), Prediction(none, none[..., 0]))

    def save(self, path: Path) -> None:
        """Write query and state to a file for `Segmenter.resume`. Raises OutputError when that fails."""
        shot.save(path, Shot(self.query, self.state), self.segmenter.fingerprint)

    @torch.inference_mode()
    def _encode(self, frames: Sequence[Frame]) -> list[Encoded]:
        windows = self._windows(frames[0])
        with self._attention():
            found = self._encode_windows(frames[0], windows) if windows else self._encode_frames(frames)
        host = torch.device("cpu")
        return [replace(each, features=each.features.to(host)) for each in found] if self.budget.offload else found

    def _attention(self) -> AbstractContextManager[None]:
        model = self.segmenter.model
        return fast_attention(model.device, model.dtype, model.config.dim)

    def _encode_windows(self, frame: Frame, windows: Sequence[Window]) -> list[Encoded]:
        model = self.segmenter.model
        squares = self.segmenter.squares([window.crop(frame.rgb) for window in windows])
        pixels = self.segmenter.normalised(squares)
        pyramid = model.segmentor.encoder(pixels).levels_bchw
        sight = model.look(pixels) if model.outliner is not None else None
        features = model.segmentor.features(pyramid, first=self.state.memory.empty)
        return [Encoded(features, windows, tuple(squares), sight)]

    def _encode_frames(self, frames: Sequence[Frame]) -> list[Encoded]:
        segmentor = self.segmenter.model.segmentor
        first = self._without_memory(frames)
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

    def _windows(self, frame: Frame) -> tuple[Window, ...]:
        """Where each set looks on a frame: wider the more frames were left out since the last one."""
        windows = self.state.windows
        if self.state.index is not None:
            for _ in range(abs(frame.index - self.state.index) - 1):
                if all(window.whole(window.width, window.height) == window for window in windows):
                    break
                windows = tuple(window.following(NOTHING, self.segmenter.model.config.room) for window in windows)
        return windows

    def _without_memory(self, frames: Sequence[Frame]) -> int:
        """How many of the next frames find the memory empty: up to the first one that will be remembered."""
        if not self.state.memory.empty:
            return 0
        return 1 + next((index for index, frame in enumerate(frames) if not frame.held), len(frames))

    @torch.inference_mode()
    def _advance(self, frame: Frame, encoded: Encoded) -> tuple[FrameResult, ShotState]:
        model, query, memory = self.segmenter.model, self.query, self.state.memory
        features, windows = encoded.features.to(model.device), encoded.windows
        bins = [colour_bins(square) for square in encoded.squares] if model.config.palette or encoded.sight else []
        with self._attention():
            decoded = model.segmentor.decode(features, memory, query.conditions)
        bounds, plain = self._bounds(frame, windows), model.segmentor.predict(decoded, query.conditions)
        coloured = replace(plain, mask_logits_bqhw=self._coloured(plain, bins, bounds))
        own = prediction = self._corrected(coloured, bounds)
        if encoded.sight is not None:
            drawn = self._outlined(coloured, encoded, encoded.sight, bins)[:, None]
            outlines = replace(coloured, mask_logits_bqhw=drawn.expand_as(coloured.mask_logits_bqhw))
            prediction = self._corrected(outlines, bounds)
        seen, known = self._follow(prediction, decoded.queries_bqc)
        placed = self._placed(seen, windows, frame)
        result = FrameResult(frame, placed, prediction)
        if frame.held:
            # A picture that stands in for a damaged one says nothing of the shot: nothing of it is kept.
            return result, replace(self.state, memory=memory.pass_over(), index=frame.index)
        # The network remembers its own masks and not the outlines: it learnt from those, and two that err each in
        # their own way find each other's losses again (0.56 for 0.45, `docs/nano.md`).
        remembered = model.segmentor.remember(features, own, memory)
        # One object for each window.
        covers = [(one.logits > 0).cpu() for one in seen] if windows else []
        moved = tuple(w.following(cover, model.config.room) for w, cover in zip(windows, covers, strict=True))
        palettes = self._taught([one.logits for one in seen], bins)
        shown = tuple(one.logits > 0 for one in placed) if windows else ()
        trace = self._traced(prediction, encoded)
        return result, ShotState(remembered, known, moved, palettes, shown, trace, frame.index)

    def _bounds(self, frame: Frame, windows: Sequence[Window]) -> list[Tensor | None]:
        """Cells (h, w) outside of which the object of each set is not: on the first frame by its prompt, later by
        where it was in the frame before. None where nothing is known."""
        if self.state.index is None:
            return [targets[0].bounds if targets else None for targets in self.query.targets]
        if not self.state.shown or abs(frame.index - self.state.index) > 1:
            return [None] * len(self.query.targets)
        side = self.segmenter.model.config.image_size // STRIDE
        last = [window.look(mask, (side, side)) for window, mask in zip(windows, self.state.shown, strict=True)]
        return [widened(mask, MOVED) if mask.any() else None for mask in last]

    def _corrected(self, prediction: Prediction, bounds: Sequence[Tensor | None]) -> Prediction:
        """The same with what is known of the objects: their bounds, on the first frame their masks."""
        first = self.state.index is None
        covers = [targets[0].cover if first and targets else None for targets in self.query.targets]
        if all(each is None for each in (*bounds, *covers)):
            return prediction
        masks, classes = prediction.mask_logits_bqhw.clone(), prediction.class_logits_bqc.clone()
        for row, inside in enumerate(bounds):
            if inside is not None:
                masks[row].masked_fill_(~inside, EMPTY)
        for row, cover in enumerate(covers):
            if cover is not None:
                # Shown, so certainly there and exactly so (as SAM 2 takes a mask for its own output).
                masks[row] = cover.logit(eps=UNSURE)
                classes[row, :, 0] = classes[row, :, -1] - math.log(UNSURE)
        return Prediction(masks, classes)

    def _outlined(self, prediction: Prediction, encoded: Encoded, sight: Sight, bins: Sequence[Tensor]) -> Tensor:
        """Logits (G, h, w) of the object each set asks for, as the outliner draws it."""
        outliner, own = self.segmenter.model.outliner, prediction.best()
        assert outliner is not None
        drawn = [targets[0].drawn for targets in self.query.targets]
        prompt = torch.stack([own[row].sigmoid() if each is None else each for row, each in enumerate(drawn)])
        state, edges = self.state, _edges(encoded.windows, own.device)
        return outlined(outliner, sight, own, bins, state.trace, state.palettes, edges, prompt)[-1]

    def _traced(self, prediction: Prediction, encoded: Encoded) -> Trace | None:
        """What the outliner keeps after this frame."""
        if encoded.sight is None:
            return None
        cover = prediction.best().sigmoid()
        return traced(self.state.trace, encoded.sight, cover, _edges(encoded.windows, cover.device))

    def _coloured(self, own: Prediction, bins: Sequence[Tensor], bounds: Sequence[Tensor | None]) -> Tensor:
        """The network's mask logits with what colours add to those of the object each set asks for."""
        weight = self.segmenter.model.config.palette
        if not weight or not bins:
            return own.mask_logits_bqhw
        shown = [SHOWN if targets[0].cover is not None else 1.0 for targets in self.query.targets]
        known = self.state.palettes or (None,) * len(bins)
        each = zip(own.best(), bins, known, bounds, [weight * share for share in shown], strict=True)
        return own.mask_logits_bqhw + torch.stack([by_colour(*one) for one in each])[:, None]

    def _taught(self, logits: Sequence[Tensor], bins: Sequence[Tensor]) -> tuple[Palette | None, ...]:
        """The colours of each set's object after this frame."""
        if not bins:
            return ()
        newer = [Palette.of(each, cover_of(one, each)) for one, each in zip(logits, bins, strict=True)]
        return taught(self.state.palettes or (None,) * len(newer), newer)

    def _placed(self, seen: tuple[Seen, ...], windows: Sequence[Window], frame: Frame) -> tuple[Seen, ...]:
        """The same on the whole frame, where the model looks at windows: all on one grid, as fine as its input."""
        if not self.segmenter.model.config.room:
            return seen
        height, width = frame.rgb.shape[:2]
        windows = windows or [Window.whole(width, height)] * len(seen)
        size = self.segmenter.model.config.image_size
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
        if self.segmenter.device.type == "cuda":
            torch.cuda.empty_cache()


def _edges(windows: Sequence[Window], device: torch.device) -> Tensor:
    return torch.tensor([window.edges for window in windows], dtype=torch.float32, device=device)


def _part(levels: tuple[torch.Tensor, ...], start: int, stop: int | None) -> tuple[torch.Tensor, ...]:
    return tuple(level[start:stop] for level in levels)
