"""All prompts of a job over one shot: frames in, mattes at plate size out. Knows neither sources' files nor writers.

`Cutter.cut` is the way of a frame: every pass looks at it, logits become alpha on the device, facts are taken there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, tee
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from x2roto.clip import ClipInfo, FrameRange
from x2roto.color import network_rgb
from x2roto.device import device_memory
from x2roto.engine import shot as shots
from x2roto.engine.identity import EMPTY
from x2roto.engine.postprocess.masks import boxes_of
from x2roto.engine.segmenter import Reading, Segmenter
from x2roto.errors import PromptError
from x2roto.job import Job
from x2roto.matte import Matte, MatteFrame, Refine, Track
from x2roto.passes import Observed, Pass, Plate
from x2roto.planning import Shot, named_tracks
from x2roto.refine import Previous, alpha_from_logits
from x2roto.source import FrameSource, overlapped
from x2roto.timing import Clock

PREVIOUS = "previous.npz"


@dataclass(frozen=True, slots=True)
class Facts:
    """What the record says of an object on a frame. `area`: mean alpha. `box`: where alpha is above one half, as
    x0, y0, x1, y1 in pixels, exclusive. `presence`, `score`: in [0, 1].
    """

    area: float
    box: tuple[int, int, int, int] | None
    presence: float
    score: float


@dataclass(frozen=True, slots=True, eq=False)
class State:
    """All that the next frame depends on, as a value: it can be written while the run goes on."""

    shots: tuple[shots.Shot, ...]
    previous: Previous | None
    segmenter: Segmenter

    def save(self, folder: Path) -> None:
        """Write it into an existing folder. Raises OutputError or OSError."""
        for number, each in enumerate(self.shots):
            shots.save(folder / f"shot-{number}.safetensors", each, self.segmenter.fingerprint)
        if self.previous is not None:
            alpha, rgb = self.previous.alpha.cpu().numpy(), self.previous.rgb.cpu().numpy()
            np.savez(folder / PREVIOUS, alpha=alpha, rgb=rgb)


@dataclass(frozen=True, slots=True, eq=False)
class Cut:
    """One finished frame, the facts of each object by its label, and the state after it."""

    result: MatteFrame
    facts: Mapping[str, Facts]
    state: State


class Cutter:
    """All passes of a job and the way from their logits to mattes."""

    def __init__(
        self,
        segmenter: Segmenter,
        passes: Sequence[Pass],
        tracks: Sequence[Track],
        refine: Refine,
        notes: Sequence[str] = (),
    ) -> None:
        """`notes`: what to tell of how the prompts were read."""
        labels = [label for each in passes for label in each.labels]
        self.passes = passes
        self.tracks = _with_found(tracks, labels)
        # A prompt and a caption may name the same thing: that is one matte.
        self._rows = [[row for row, label in enumerate(labels) if label == track.label] for track in self.tracks]
        self.notes = tuple(notes)
        self._segmenter = segmenter
        self._refine = refine
        self._previous: Previous | None = None

    @classmethod
    def read(cls, job: Job, shot: Shot, segmenter: Segmenter, source: FrameSource, work: Path) -> Self:
        """Read the prompts, with a glimpse of the shot. `work`: a folder for spools, made when one is needed.

        Raises PromptError for prompts the model cannot follow, DeviceMemoryError when it does not fit.
        """
        torch.manual_seed(job.engine.seed)
        colour = shot.info.colour
        seen = source.sample(segmenter.glimpse_count(shot.prompts), shot.ranges)
        if not seen:
            raise PromptError("the frames to cut begin too late in the pipe: let it begin closer to them")
        drawn_on = [index for index in segmenter.prompt_frames(shot.prompts) if index is not None]
        ranges = [FrameRange(index, index + 1) for index in sorted(drawn_on)]
        plates: dict[int | None, NDArray[Any]] = {}
        if ranges:
            plates = {frame.index: network_rgb(frame.rgb, colour) for frame in source.frames(ranges)}
        glimpse = [network_rgb(frame.rgb, colour) for frame in seen]
        engine = job.engine
        reading = Reading(seed=engine.seed, presence=engine.presence, instances=engine.instances)
        # What a pipe has given is gone: words there are followed from the first frame on.
        looked: dict[int | None, NDArray[Any]] = {}
        if shot.info.frame_count is not None:
            looked = {frame.index: rgb for frame, rgb in zip(seen, glimpse, strict=True) if not frame.held}
        queries = segmenter.read(shot.prompts, glimpse, plates, reading, looked)
        passes = [
            Pass(segmenter, query, shot.first, job.engine, work / f"back-{number}")
            for number, query in enumerate(queries)
        ]
        return cls(segmenter, passes, named_tracks(job), job.refine, segmenter.notes(shot.prompts))

    @property
    def captions(self) -> tuple[str, ...]:
        """What the model wrote about the clip."""
        return tuple(caption for each in self.passes for caption in each.query.captions if caption)

    def before(self, indices: Sequence[int]) -> int:
        """How many frames `look_back` has to go through."""
        return sum(len(each.before(indices)) for each in self.passes)

    def look_back(self, source: FrameSource, indices: Sequence[int]) -> Iterator[int]:
        """Follow each prompt backward from its frame; yields every source index once done. Goes before `cut`."""
        for each in self.passes:
            yield from each.look_back(source, indices)

    def cut(self, blocks: Iterable[Sequence[Plate]], info: ClipInfo, clock: Clock) -> Iterator[Cut]:
        """The mattes of the frames of one block after the other, in order. A GPU is given the next frame, and its
        block, before a frame is finished; on a CPU a thread finishes it while the network looks at the next."""
        ours, *theirs = tee(blocks, 1 + len(self.passes))
        observed = zip(
            *(
                each.follow([plate.shown for plate in block] for block in copy)
                for each, copy in zip(self.passes, theirs, strict=True)
            ),
            strict=True,
        )
        calls = (
            partial(self._finish, plate, objects, info, self._shots())
            for plate, objects in zip(chain.from_iterable(ours), clock.each("network", observed), strict=True)
        )
        on_a_thread = self._segmenter.device.type == "cpu"
        yield from clock.each("alpha", overlapped(calls) if on_a_thread else (call() for call in calls))

    def still(self, plates: Mapping[int, Plate], index: int, info: ClipInfo) -> Cut:
        """The mattes of one frame alone. `plates`: it, and the start frames of anchored passes, by index.

        Regions are followed there straight from the frame they are drawn on; words are looked for on the frame.
        """
        objects = []
        for each in self.passes:
            order = [each.start, index] if each.anchored and each.start != index else [index]
            *_, last = each.step([[plates[wanted].shown for wanted in order]])
            objects.append(last)
        return self._finish(plates[index], objects, info, self._shots())

    def _shots(self) -> tuple[shots.Shot, ...]:
        """What the passes know after the frame that they looked at last."""
        return tuple(shots.Shot(each.query, each.tracker.state) for each in self.passes)

    def restore(self, folder: Path) -> None:
        """Go on from a state that was saved by the same job and model. Raises ModelError."""
        for number, each in enumerate(self.passes):
            each.tracker.state = self._segmenter.resume(folder / f"shot-{number}.safetensors").state
        if (folder / PREVIOUS).is_file():
            with np.load(folder / PREVIOUS) as stored:
                alpha, rgb = (torch.from_numpy(stored[name]).to(self._segmenter.device) for name in ("alpha", "rgb"))
            self._previous = Previous(alpha, rgb)

    @torch.inference_mode()
    def _finish(
        self, plate: Plate, objects: Sequence[Observed], info: ClipInfo, known: tuple[shots.Shot, ...]
    ) -> Cut:
        with device_memory(self._segmenter.device, "a frame's alpha"):
            rgb = torch.tensor(plate.shown.rgb, device=self._segmenter.device).float() / 255
            every = torch.cat([one.logits for one in objects])
            logits = torch.stack(
                [every[rows].amax(0) if rows else torch.full_like(every[0], EMPTY) for rows in self._rows]
            )
            alpha, previous = alpha_from_logits(logits, rgb, self._refine, self._previous, self._segmenter.reach)
            self._previous = previous if self._refine.smooth else None
            presence = self._best([value for one in objects for value in one.presence])
            scores = self._best([value for one in objects for value in one.scores])
            facts = dict(zip((track.label for track in self.tracks), _facts(alpha, presence, scores), strict=True))
            layers = zip(self.tracks, alpha.cpu().numpy(), scores, strict=True)
            mattes = tuple(Matte(track, layer, score) for track, layer, score in layers)
            state = State(known, self._previous, self._segmenter)
            return Cut(MatteFrame(plate.frame, info.number(plate.index), mattes), facts, state)

    def _best(self, values: Sequence[float]) -> list[float]:
        """The greatest value of each track; 0 where nothing was found to follow."""
        return [max((values[row] for row in rows), default=0.0) for rows in self._rows]


def _with_found(tracks: Sequence[Track], labels: Sequence[str]) -> tuple[Track, ...]:
    """The tracks that prompts name, then those that only the model's caption names."""
    known = {track.label for track in tracks}
    found = dict.fromkeys(label for label in labels if label not in known)
    return (*tracks, *(Track(number, label) for number, label in enumerate(found, start=len(tracks) + 1)))


def _facts(alpha_nhw: Tensor, presence: Sequence[float], scores: Sequence[float]) -> Iterator[Facts]:
    areas = alpha_nhw.mean((1, 2)).tolist()
    boxes = boxes_of(alpha_nhw > 0.5).tolist()
    for area, box, there, score in zip(areas, boxes, presence, scores, strict=True):
        yield Facts(round(area, 6), tuple(box) if any(box) else None, round(there, 4), round(score, 4))
