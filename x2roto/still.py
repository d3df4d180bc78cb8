"""One labelled still before the long run: what the prompts find on a frame."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from x2roto.clip import FrameRange
from x2roto.errors import PromptError
from x2roto.job import Job
from x2roto.planning import Shot, open_clip, shot_name, writers_take
from x2roto.prompt import Prompt, Region, Text

if TYPE_CHECKING:
    from x2roto.cutter import Cut
    from x2roto.engine.segmenter import Segmenter
    from x2roto.source import FrameSource


def preview(
    job: Job, still: Path | None = None, frame: int | None = None, segmenter: Segmenter | None = None
) -> tuple[Path, Cut]:
    """Cut one frame of a job and draw its mattes over the plate, as PNG; gives the file and the mattes.

    `still`: the file, by default `{shot}_preview.{frame}.png` here. `frame`: the artist's number, by default the
    first of the range. Prompts without a frame of their own are looked for there, regions with one are followed
    from it. Raises InputError, PromptError, ModelError, DeviceMemoryError and OutputError.
    """
    with open_clip(job.clip) as source:
        shot = Shot.of(job, source)
        index = _index(shot, frame)
        path = _still_path(job, shot, still, index)
        cut = _cut(job, _moved(job, shot, index), source, segmenter, index)
        _draw(path, job, shot, cut)
    return path, cut


def _index(shot: Shot, number: int | None) -> int:
    info = shot.info
    index = shot.first if number is None else number - info.first_frame
    if info.frame_count is None and index != shot.first:
        raise PromptError(f"a pipe is read once, forwards: only its frame {info.number(shot.first)} can be shown")
    if index < 0 or (info.frame_count is not None and index >= info.frame_count):
        last = info.number((info.frame_count or 1) - 1)
        raise PromptError(f"--frame {number} is not in the clip, which runs {info.first_frame}-{last}")
    return index


def _still_path(job: Job, shot: Shot, still: Path | None, index: int) -> Path:
    path = still or Path(f"{shot_name(job)}_preview.{shot.info.number(index):04d}.png")
    if path.suffix.lower() != ".png":
        raise PromptError(f"{path} is no name for a PNG: end it in .png")
    return path


def _moved(job: Job, shot: Shot, index: int) -> Shot:
    """The shot with the prompts that state no frame on this one."""

    def moved(asked: Prompt, placed: Prompt) -> Prompt:
        if isinstance(placed, Text | Region) and getattr(asked, "frame", None) is None and index != shot.first:
            return replace(placed, frame=index)
        return placed

    return replace(shot, prompts=tuple(map(moved, job.prompts, shot.prompts)))


def _cut(job: Job, shot: Shot, source: FrameSource, segmenter: Segmenter | None, index: int) -> Cut:
    from x2roto.cutter import Cutter
    from x2roto.device import load
    from x2roto.passes import plates

    # Nothing is followed backward here, so the folder for that is never made.
    cutter = Cutter.read(job, shot, segmenter or load(job.engine), source, Path())
    wanted = sorted({index, *(each.start for each in cutter.passes if each.anchored)})
    ranges = [FrameRange(each, each + 1) for each in wanted]
    seen = {plate.index: plate for plate in plates(source, ranges)}
    return cutter.still(seen, index, shot.info)


def _draw(path: Path, job: Job, shot: Shot, cut: Cut) -> None:
    from x2roto.export.atomic import committed
    from x2roto.export.drawing import footer, marked_up
    from x2roto.export.overlay import frame_caption
    from x2roto.export.picture import eight_bit

    tracks = tuple(matte.track for matte in cut.result.mattes)
    take = writers_take(job, shot, tracks)
    canvas = marked_up(eight_bit(cut.result.frame, shot.info), cut.result)
    footer(canvas, take.shot, frame_caption(take, cut.result))
    with committed(path) as temporary:
        canvas.save(temporary, format="PNG")
