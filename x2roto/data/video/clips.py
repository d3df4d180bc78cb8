"""What the video readers share: a video as pictures, the truth of a frame, prompts from a first mask."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from x2roto.data.annotations import Size, list_folder, missing, picture_size, read_labels
from x2roto.data.sample import FrameTruth, PromptKind, Sample
from x2roto.data.truth import Marked, Mask, frame_truth
from x2roto.data.vprompt import visual_prompt
from x2roto.errors import InputError

# ---- a video as pictures ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Clip:
    """A video that lies as pictures in a folder. `files`: paths below `folder`, in order of time."""

    name: str
    folder: Path
    files: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.files)

    @property
    def frames(self) -> tuple[Path, ...]:
        return tuple(self.folder / file for file in self.files)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(PurePosixPath(file).stem for file in self.files)

    def size(self) -> Size:
        """(height, width) of the first picture, from its header. Raises InputError."""
        return picture_size(self.folder / self.files[0])

    def sample(
        self,
        key: str,
        task: str,
        targets: Sequence[str | Mask],
        truth: Callable[[int], FrameTruth],
        size: Size,
        annotated: NDArray[np.bool_] | None = None,
        **more: Any,
    ) -> Sample:
        """A request about this video; every frame is annotated unless `annotated` says otherwise."""
        known = np.ones(len(self), np.bool_) if annotated is None else annotated
        return Sample(key, task, self.frames, self.names, size, tuple(targets), truth, known, **more)


def listed_clip(name: str, folder: Path, inside: str = "", suffix: str = ".jpg") -> Clip:
    """The pictures of `folder / inside` by name. Raises InputError when there are none."""
    prefix = f"{inside}/" if inside else ""
    files = sorted(file for file in list_folder(folder / inside) if file.endswith(suffix))
    if not files:
        raise InputError(f"{folder / inside} holds no {suffix} pictures: unpack the data set there", folder / inside)
    return Clip(name, folder, tuple(f"{prefix}{file}" for file in files))


def as_png(files: Iterable[str]) -> tuple[str, ...]:
    """The names of the masks that go with pictures."""
    return tuple(str(PurePosixPath(file).with_suffix(".png")) for file in files)


# ---- the truth of a frame ---------------------------------------------------------------------------------


def label_mask(frame: int, folder: Path, files: Sequence[str], value: int, size: Size) -> Mask:
    """Where the label picture of a frame has `value`."""
    return np.asarray(read_labels(folder / files[frame], size) == value)


def binary_mask(frame: int, folder: Path, files: Sequence[str], size: Size) -> Mask:
    """Where the black and white picture of a frame is white."""
    return np.asarray(read_labels(folder / files[frame], size) > 127)


def object_truth(frame: int, read: Callable[[int], Mask], identity: int, size: Size) -> FrameTruth:
    """The truth where one object is asked for; `read` gives its mask on a frame."""
    return frame_truth([Marked(read(frame), identity=identity)], size)


# ---- prompts from a first mask ----------------------------------------------------------------------------


def prompted(
    clip: Clip,
    key: str,
    read: Callable[[int], Mask],
    identity: int,
    size: Size,
    prompt: PromptKind,
    annotated: NDArray[np.bool_] | None = None,
    **more: Any,
) -> Sample:
    """One object to follow, shown by a region drawn from its mask on the first annotated frame it is seen on.

    All frames stay, before that one and without the object too. Raises InputError when it is seen on none.
    """
    known = range(len(clip)) if annotated is None else np.flatnonzero(annotated).tolist()
    start, mask = first_seen(read, known, clip.folder, key)
    truth = partial(object_truth, read=read, identity=identity, size=size)
    region = shown(mask, prompt, key)
    return clip.sample(key, "objseg", [region], truth, size, annotated, prompt=prompt, prompt_frame=start, **more)


def first_seen(read: Callable[[int], Mask], frames: Iterable[int], path: Path, key: str) -> tuple[int, Mask]:
    """The first of `frames` whose mask has pixels, and that mask. Raises InputError when none has."""
    for frame in frames:
        mask = read(frame)
        if mask.any():
            return frame, mask
    raise InputError(f"{path}: object {key} is on none of its annotated frames: the annotations are damaged", path)


def shown(mask: Mask, prompt: PromptKind, key: str) -> Mask:
    """The region that shows an object: its mask as it is, or a prompt drawn from it, the same for a key."""
    if prompt == "mask":
        return mask
    return visual_prompt(mask, prompt, np.random.default_rng(zlib.crc32(f"{key} {prompt}".encode())))


# ---- lists ------------------------------------------------------------------------------------------------


def read_lines(path: Path, encoding: str = "utf-8") -> tuple[str, ...]:
    """The lines of a text file that have something on them, stripped. Raises InputError when there are none."""
    try:
        lines = path.read_text(encoding).splitlines()
    except FileNotFoundError as error:
        raise missing(path) from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}", path) from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not text in {encoding}: download it again", path) from error
    found = tuple(line.strip() for line in lines if line.strip())
    if not found:
        raise InputError(f"{path} is empty: download it again", path)
    return found
