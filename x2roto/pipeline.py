"""`run(job)`: the one loop from clip to mattes. Decode ahead, network, alpha, writers; nothing grows with length.

Read `run` and `_cut` first. What is known before is in `planning.py`, a frame's way to mattes in `cutter.py`, what is
written down and how a stopped run goes on in `record.py`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field, replace
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from x2roto.errors import PromptError
from x2roto.job import Job
from x2roto.planning import Shot, checked, model_facts, open_clip, take_folder, template_of, writers_take
from x2roto.preset import build_job, find_preset
from x2roto.prompt import Prompt
from x2roto.record import (
    Checkpoints,
    Journal,
    Record,
    Standing,
    at_checkpoint,
    clip_facts,
    input_identity,
    require_writable,
)
from x2roto.source import FrameSource, prefetch
from x2roto.tally import Tally
from x2roto.timing import Clock, Timing
from x2roto.writing import Outputs

if TYPE_CHECKING:
    from x2roto.cutter import Cut, Cutter
    from x2roto.engine.segmenter import Segmenter


@dataclass(frozen=True, slots=True)
class Progress:
    """After one step: how far the run is. A step is a frame cut, or one looked at backward before its prompt.

    `total`: None when the length of the clip is unknown. `number`: the frame's, as the artist sees it. `scores`:
    by object, none while looking back. `held`: why a stand-in was used for the frame, None if none was.
    """

    done: int
    total: int | None
    number: int
    timing: Timing
    scores: Mapping[str, float] = field(default_factory=dict)
    held: str | None = None


@dataclass(frozen=True, slots=True)
class Summary:
    """What a run did. Frame numbers are the artist's.

    `matched`: whether anything was found on any frame. `held`: frames a stand-in was used for, with the reason.
    `outputs`: the files that hold more than a frame. `notes`: a line on each thing that was looked for in other words
    than were said. `resumed`: how many of the frames an earlier run had made.
    `seconds`: of this run, from the first frame on.
    """

    frames: int
    objects: tuple[str, ...]
    matched: bool
    below_min_score: tuple[int, ...]
    held: Mapping[int, str]
    captions: tuple[str, ...]
    outputs: tuple[Path, ...]
    notes: tuple[str, ...] = ()
    resumed: int = 0
    seconds: float = 0.0
    timing: Timing = field(default_factory=Timing)


OnFrame = Callable[[Progress], None]


def ignore(_: Progress) -> None:
    """Take a progress and do nothing."""


def segment(
    clip: str | Path,
    *,
    prompts: Sequence[Prompt] = (),
    preset: str | None = None,
    segmenter: Segmenter | None = None,
    on_frame: OnFrame = ignore,
    resume: bool = False,
    overwrite: bool = False,
    **options: Any,
) -> Summary:
    """Cut objects out of a clip, as `x2roto segment` does.

    `options`: those of the command line under their names there, such as `text="the right man"`,
    `box=["4,8,30,30", "ball=1,1,9,9@1010"]`, `frames="1001-1050"`, `output="mattes"`, `format=["exr", "prores"]`,
    `edge="refined"`, `device="cuda"`; `prompts` go before those spelled out. The rest is as for `run`.
    """
    job = build_job(clip, options, prompts, find_preset(preset) if preset else None)
    return run(job, segmenter, on_frame, resume=resume, overwrite=overwrite)


def run(
    job: Job,
    segmenter: Segmenter | None = None,
    on_frame: OnFrame = ignore,
    *,
    resume: bool = False,
    overwrite: bool = False,
) -> Summary:
    """Cut a clip: read the job's prompts, follow them over its frames, write its outputs.

    `segmenter`: one that is loaded already, None to load the job's. `on_frame`: called after every step; a
    SystemExit or KeyboardInterrupt from it stops the run in good order. `resume`: go on with a stopped run of the
    same job in the same folder, or begin; files are those of a run without a stop. `overwrite`: replace a take that
    is there. Raises InputError, PromptError, ModelError, DeviceMemoryError and OutputError.
    """
    with open_clip(job.clip) as source, _folder(job, resume=resume) as folder:
        shot, files = checked(job, source)
        record = _record(job, shot, folder, segmenter)
        standing = record.standing(files, resume=resume, overwrite=overwrite)
        if standing is Standing.COMPLETE:
            record.tidy()
            return _recorded(record)
        from x2roto.cutter import Cutter

        segmenter = segmenter or _loaded(job, record, standing)
        record = replace(record, model={**record.model, **_runs_on(segmenter)})
        cutter = Cutter.read(job, shot, segmenter, source, record.work)
        with record.claimed(standing):
            started = _Run(job, shot, source, cutter, record, Clock(), on_frame)
            return started.cut(resume=standing is Standing.STARTED)


@dataclass(frozen=True, slots=True)
class _Run:
    """One run, with the clip open, the prompts read and the folder claimed."""

    job: Job
    shot: Shot
    source: FrameSource
    cutter: Cutter
    record: Record
    clock: Clock
    on_frame: OnFrame

    def cut(self, *, resume: bool) -> Summary:
        """Every frame. What is finished stays whatever ends the run; resuming goes on from a checkpoint."""
        tally = Tally(self.job.min_score)
        checkpoints = Checkpoints(self.record.work)
        take = writers_take(self.job, self.shot, self.cutter.tracks, resume=resume)
        with Outputs(self.job, take, self.clock) as outputs:
            position = checkpoints.newest(outputs.finished(self.shot.numbers or ())) if resume else 0
            if position:
                self.cutter.restore(checkpoints.folder(position))
            with Journal(self.record, keep=position) as journal, checkpoints:
                tally.recall(self.record.frames())
                report = self._reporter(position)
                for index in self.cutter.look_back(self.source, self.shot.indices or ()):
                    report(index)
                for cut in self._cuts(position):
                    outputs.write(cut.result)
                    row = self._row(cut, outputs.images(cut.result.number))
                    journal.append(row)
                    tally.add(row)
                    if self._at_checkpoint(tally.frames):
                        checkpoints.offer(tally.frames, cut.state.save, journal.sync)
                    report(cut.result.frame.index, cut, row.get("warning"))
        return self._finish(tally, outputs.others(), position)

    def _cuts(self, position: int) -> Iterator[Cut]:
        """The frames from `position` on, decoded ahead on a thread and cut in chunks."""
        from x2roto.passes import chunked, plates

        chunk = self.job.engine.chunk
        with closing(prefetch(plates(self.source, self.shot.ranges_from(position)), 2 * chunk)) as ahead:
            blocks = self.clock.each("decode", chunked(ahead, chunk))
            # Who feeds a pipe may wait for mattes before the next frames.
            for some in ([block] for block in blocks) if self.job.piped else (blocks,):
                yield from self.cutter.cut(some, self.shot.info, self.clock)

    def _at_checkpoint(self, frames: int) -> bool:
        return not self.job.piped and at_checkpoint(frames, self.job.engine.chunk)

    def _row(self, cut: Cut, files: Sequence[Path]) -> dict[str, Any]:
        """One frame's record."""
        frame = cut.result.frame
        row = {
            "number": cut.result.number,
            "index": frame.index,
            "objects": {label: asdict(facts) for label, facts in cut.facts.items()},
            "files": [os.path.relpath(path, self.record.folder) for path in files],
            "ms": round(self.clock.lap() * 1000, 1),
        }
        if frame.held:
            row["warning"] = self.source.bad_frames[frame.index]
        return row

    def _reporter(self, position: int) -> Callable[..., None]:
        """A call that counts a step and tells `on_frame`."""
        before = self.cutter.before(self.shot.indices or ())
        total = None if self.shot.indices is None else before + len(self.shot.indices)
        steps = count(position + 1)

        def report(index: int, cut: Cut | None = None, held: str | None = None) -> None:
            scores = {label: facts.score for label, facts in cut.facts.items()} if cut else {}
            number = self.shot.info.number(index)
            self.on_frame(Progress(next(steps), total, number, self.clock.timing, scores, held))

        return report

    def _finish(self, tally: Tally, others: Sequence[Path], resumed: int) -> Summary:
        summary = Summary(
            frames=tally.frames,
            objects=tuple(track.label for track in self.cutter.tracks),
            matched=tally.matched,
            below_min_score=tuple(tally.below),
            held=tally.held,
            captions=self.cutter.captions,
            outputs=tuple(others),
            notes=self.cutter.notes,
            resumed=resumed,
            seconds=self.clock.seconds,
            timing=self.clock.timing,
        )
        objects = [
            {"id": track.id, "name": track.label, "prompt": track.prompt, "frames": tally.spans.get(track.label)}
            for track in self.cutter.tracks
        ]
        if not self.job.piped:
            plain = {key: value for key, value in asdict(summary).items() if key != "outputs"}
            self.record.finish({**plain, "objects": objects}, others)
        return summary


def _recorded(record: Record) -> Summary:
    """The summary of a complete take."""
    said = record.before() or {}
    summary = said["summary"]
    return Summary(
        frames=summary["frames"],
        objects=tuple(each["name"] for each in summary["objects"]),
        matched=summary["matched"],
        below_min_score=tuple(summary["below_min_score"]),
        held={int(number): reason for number, reason in summary["held"].items()},
        captions=tuple(summary["captions"]),
        outputs=tuple(record.folder / movie["file"] for movie in said["movies"]),
        notes=tuple(summary.get("notes", ())),
        resumed=summary["frames"],
    )


@contextmanager
def _folder(job: Job, *, resume: bool) -> Iterator[Path]:
    """The folder of a job's files; a pipe's record goes to a temporary one."""
    if not job.piped:
        folder = take_folder(job)
        require_writable(folder)
        yield folder
        return
    if resume:
        raise PromptError("--resume cannot go on with a pipe: standard output keeps nothing")
    with TemporaryDirectory(prefix="x2roto-") as temporary:
        yield Path(temporary)


def _record(job: Job, shot: Shot, folder: Path, segmenter: Segmenter | None) -> Record:
    model = model_facts(job.engine.model) if segmenter is None else {"weights": segmenter.fingerprint}
    identity = {**input_identity(job), "name": template_of(job).pattern, "weights": model["weights"]}
    return Record(folder, job, identity, clip_facts(shot.info), model)


def _loaded(job: Job, record: Record, standing: Standing) -> Segmenter:
    """The job's model. A run that is gone on with computes in the numbers it began with, which on another machine
    need not be those that this one is fast in."""
    from x2roto.device import load

    engine = job.engine
    if standing is Standing.STARTED and (before := record.before()) is not None:
        engine = replace(engine, dtype=before["model"].get("dtype", engine.dtype))
    return load(engine)


def _runs_on(segmenter: Segmenter) -> dict[str, str]:
    """What the record says of how a model runs."""
    return {"device": str(segmenter.device), "dtype": str(segmenter.model.dtype).removeprefix("torch.")}
