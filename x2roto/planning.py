"""What a run will do, known without the model: the clip's frames, the objects, the files. Knows no engine.

`plan(job)` raises whatever can be known to be wrong before a model is loaded; `--dry-run` shows the rest.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from x2roto import __version__
from x2roto.clip import ALL_FRAMES, ClipInfo, FrameRange, frame_indices, parse_frames
from x2roto.errors import PromptError
from x2roto.export import Take, Template, Writer, load_exporter, make_options, open_writer
from x2roto.export.images import ImageWriter
from x2roto.job import PIPE, ClipSpec, ExportSpec, Job
from x2roto.matte import Track
from x2roto.prompt import Classes, Describe, Prompt, Question, Region, Text, check_prompts, region_mask, slug
from x2roto.source import FrameSource, clip_files, open_source

FRAME_TOKEN = re.compile(r"%0?\d*d|#+|@+|\$F\d*|<frame>", re.IGNORECASE)
PICTURES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".dpx", ".exr", ".webp", ".bmp")


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run will do. `numbers`: the artist's, None when the clip's length is unknown. `objects`: the mattes
    but those a caption will name. `files`: per format those of the first frame. `file_count`: of all frames.
    """

    info: ClipInfo
    numbers: tuple[int, ...] | None
    objects: tuple[str, ...]
    files: dict[str, tuple[str, ...]] = field(default_factory=dict)
    file_count: int | None = None

    def memory_bytes(self, job: Job) -> int:
        """About what the frames under way take on the host: three chunks decoded, one frame's mattes."""
        pixels = self.info.width * self.info.height
        component = {8: 1, 32: 4}.get(self.info.depth, 2)
        return pixels * (3 * 3 * job.engine.chunk * component + 4 * max(1, len(self.objects)))


def plan(job: Job) -> Plan:
    """Check a job as far as that goes without the model, and tell what it will do. Raises what `run` would."""
    with open_clip(job.clip) as source:
        shot = Shot.of(job, source)
        first = _first_files(job, shot)
        files = {spec.format: tuple(map(str, paths)) for spec, paths in first}
        labels = tuple(track.label for track in named_tracks(job))
        frames = len(shot.indices) if shot.indices is not None else None
        counts = [len(paths) * (frames or 0) if per_frame(spec) else len(paths) for spec, paths in first]
        return Plan(shot.info, shot.numbers, labels, files, None if frames is None else sum(counts))


def checked(job: Job, source: FrameSource) -> tuple[Shot, list[Path]]:
    """The shot of a job whose writers can be made, and the files of its first frame. Raises what `run` would."""
    shot = Shot.of(job, source)
    return shot, [path for _, paths in _first_files(job, shot) for path in paths]


def _first_files(job: Job, shot: Shot) -> list[tuple[ExportSpec, tuple[Path, ...]]]:
    writers = open_writers(job, writers_take(job, shot, named_tracks(job)))
    return [(spec, writer.paths(shot.info.number(shot.first))) for spec, writer in writers]


def model_facts(model: str | None) -> dict[str, Any]:
    """What the record says of a model: folder, digest of its weights, licences. Raises ModelError."""
    from x2roto.engine.model_folder import find_model, read_header

    folder = find_model(model)
    header = read_header(folder)
    files = json.dumps(header.files, sort_keys=True)
    return {
        "name": header.config.name,
        "weights": hashlib.sha256(files.encode()).hexdigest()[:12],
        "files": header.files,
        "licences": [asdict(licence) for licence in header.licences],
    }


@dataclass(frozen=True, slots=True)
class Shot:
    """The frames of an open clip that a job cuts, and its prompts with source indices for the artist's numbers.

    `indices`: None when the clip's length is unknown. A prompt's frame is None on the first of them.
    """

    info: ClipInfo
    ranges: tuple[FrameRange, ...]
    indices: tuple[int, ...] | None
    prompts: tuple[Prompt, ...]

    @classmethod
    def of(cls, job: Job, source: FrameSource) -> Shot:
        """Raises PromptError for frames the clip has not, and for prompts that fit neither frames nor plate."""
        check_prompts(job.prompts)
        info = source.info
        ranges = ranges_of(job.clip, info)
        indices = None if info.frame_count is None else tuple(frame_indices(ranges, info.frame_count))
        _check_lengths(job, info)
        shot = cls(info, ranges, indices, ())
        return replace(shot, prompts=tuple(shot.placed(prompt) for prompt in job.prompts))

    @property
    def first(self) -> int:
        """Source index of the first frame."""
        return self.indices[0] if self.indices else max(0, min(span.start for span in self.ranges))

    @property
    def numbers(self) -> tuple[int, ...] | None:
        """The artist's numbers of the frames."""
        return None if self.indices is None else tuple(map(self.info.number, self.indices))

    def ranges_from(self, position: int) -> tuple[FrameRange, ...]:
        """The frames from the `position`-th on."""
        if not position:
            return self.ranges
        if self.indices is None or position >= len(self.indices):
            return (FrameRange(0, 0),)
        return tuple(_from(span, self.indices[position]) for span in self.ranges)

    def placed(self, prompt: Prompt) -> Prompt:
        """The prompt with a source index in place of its frame number."""
        if isinstance(prompt, Text | Region) and prompt.frame is not None:
            prompt = replace(prompt, frame=self._index(prompt.name, prompt.frame))
        if isinstance(prompt, Region):
            region_mask(prompt, self.info.width, self.info.height)
        return prompt

    def _index(self, name: str, number: int) -> int | None:
        index = number - self.info.first_frame
        if index == self.first:
            return None
        if self.indices is None:
            raise PromptError(
                f"{name!r} starts on frame {number}, but a pipe is read once, forwards: start every prompt on "
                f"the first frame, {self.info.number(self.first)}"
            )
        if index not in self.indices:
            raise PromptError(f"{name!r} starts on frame {number}, which is not among the frames to cut")
        return index


def _from(span: FrameRange, index: int) -> FrameRange:
    skipped = max(0, -(-(index - span.start) // span.step))
    return replace(span, start=span.start + skipped * span.step)


def _check_lengths(job: Job, info: ClipInfo) -> None:
    for name in ("grow", "feather"):
        pixels = getattr(job.refine, name)
        if abs(pixels) > max(info.width, info.height):
            raise PromptError(f"--{name} is {pixels:g} pixels: the plate is only {info.width}x{info.height}")


def open_clip(clip: ClipSpec) -> FrameSource:
    """The source of a job's clip. Raises InputError."""
    raw, rate, size = None, clip.exact_rate(), clip.frame_size()
    if size is not None and rate is not None and clip.pix_fmt is not None:
        from x2roto.source.stream import RawFormat

        raw, rate = RawFormat(*size, rate, clip.pix_fmt), None
    return open_source(
        clip.path,
        on_bad_frame=clip.on_bad_frame,
        start_frame=clip.start_frame,
        rate=rate,
        stream=clip.stream,
        layer=clip.layer,
        raw=raw,
    )


def ranges_of(clip: ClipSpec, info: ClipInfo) -> tuple[FrameRange, ...]:
    """The frames a job asks for. Raises PromptError when the clip has none of them."""
    if clip.frames:
        ranges = parse_frames(clip.frames, info.first_frame)
    elif clip.source_frames:
        ranges = parse_frames(clip.source_frames)
    else:
        return ALL_FRAMES
    if info.frame_count is not None and not frame_indices(ranges, info.frame_count):
        first, last = (0, -info.first_frame) if clip.source_frames else (info.first_frame, 0)
        raise PromptError(
            f"frame range {clip.frames or clip.source_frames!r} has no frame of the clip, "
            f"which runs {first}-{info.number(info.frame_count - 1) + last}"
        )
    return ranges


# ---- objects and files -----------------------------------------------------------------------------------


def named_tracks(job: Job) -> tuple[Track, ...]:
    """The mattes that prompts make, in the order of the prompts; captions are named by the model and left out.

    Raises PromptError when two of them would have one name.
    """
    labels = [label for prompt in job.prompts for label in _labels(prompt, job.engine.instances)]
    names = [name for name, _ in labels]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise PromptError(f"two prompts would make a matte called {twice[0]!r}: name one of them, 'other=…'")
    return tuple(Track(number, name, said) for number, (name, said) in enumerate(labels, start=1))


def _labels(prompt: Prompt, instances: int) -> list[tuple[str, str]]:
    """Name and wording of each matte of a prompt."""
    match prompt:
        case Classes():
            numbers = [f"_{number}" for number in range(1, instances + 1)] or [""]
            things = [(slug(thing) + number, thing) for thing in prompt.things for number in numbers]
            return [*things, *((slug(stuff), stuff) for stuff in prompt.stuff)]
        case Describe():
            return []
        case Text() | Question():
            return [(slug(prompt.name), prompt.text)]
    return [(slug(prompt.name), prompt.name)]


def writers_take(job: Job, shot: Shot, tracks: Sequence[Track], *, resume: bool = False) -> Take:
    """What the writers of a job share."""
    clip = Path(job.clip.path)
    return Take(
        shot=shot_name(job),
        clip=shot.info,
        tracks=tuple(tracks),
        numbers=shot.numbers,
        source=clip if clip.is_file() else None,
        metadata={"version": __version__, "source": clip.name, "job": job.digest()},
        resume=resume,
    )


def open_writers(job: Job, take: Take) -> list[tuple[ExportSpec, Writer]]:
    """A writer per format, not yet entered. Raises PromptError and OutputError, also for names that collide."""
    writers = [
        (spec, open_writer(spec.format, template_of(job), take, make_options(spec.format, dict(spec.options))))
        for spec in job.exports
    ]
    owners = {path.resolve(): "the clip itself" for path in clip_files(job.clip.path)}
    for spec, writer in writers:
        for path in writer.paths(take.clip.number(take.first_index)):
            owner = owners.setdefault(path.resolve(), f"format {spec.format!r}")
            if owner != f"format {spec.format!r}":
                raise PromptError(f"{path} would be written by format {spec.format!r} and is {owner}'s: change -o")
    return writers


def per_frame(spec: ExportSpec) -> bool:
    """Whether a format writes images, one or more per frame."""
    exporter = load_exporter(spec.format)
    return isinstance(exporter, type) and issubclass(exporter, ImageWriter)


def template_of(job: Job) -> Template:
    """Where the outputs of a job go; standard output has no files."""
    return Template.parse("." if job.piped else job.out)


def take_folder(job: Job) -> Path:
    """The folder that holds all of a job's outputs and its record."""
    template = template_of(job)
    fixed = template.pattern.split("{")[0]
    return template.folder / fixed.rpartition("/")[0] if "/" in fixed else template.folder


def shot_name(job: Job) -> str:
    """The shot's name in files: as given, else the clip's without frame number and extension, else its folder's."""
    if job.shot is not None:
        return job.shot
    if job.clip.path == PIPE:
        return "stdin"
    path = Path(job.clip.path)
    if path.is_dir():
        return path.resolve().name
    if token := FRAME_TOKEN.search(path.stem):
        plain = path.stem[: token.start()].rstrip("._-")
    else:
        # Only pictures are numbered by frame: the number of a movie is its shot's.
        plain = re.sub(r"[._-]*\d+$", "", path.stem) if path.suffix.lower() in PICTURES else path.stem
    return plain or path.resolve().parent.name
