"""What a person asks for: a phrase, a question, a class list, a description, or a region of the plate.

Plain values, their spelling on the command line and the rasterising of regions. Loads no numpy until a mask
is drawn, and never torch. Pixel coordinates have their origin at the top left of the displayed plate.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from x2roto.errors import InputError, PromptError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Point = tuple[float, float]
Kind = Literal["text", "question", "classes", "box", "points", "scribble", "mask"]

# The longest name that OpenEXR files without the long-name flag can hold.
NAME_LENGTH = 31
# Training drew clicks of radius 10 and strokes of radius 5 in pixels of its own clips, mostly 480 to 720
# lines high. The network sees every frame squashed to one size, so the share of the frame is what counts.
TRAINED_LINES = 600
POINT_RADIUS = 10.0
SCRIBBLE_RADIUS = 5.0
SMALLEST_RADIUS = 3.0


@dataclass(frozen=True, slots=True)
class Text:
    """One object by description: "the man on the right". `frame`: 0-based source index to look at first."""

    name: str
    text: str
    frame: int | None = None


@dataclass(frozen=True, slots=True)
class Question:
    """One object by reasoning: "What could be used to warm clothes?"."""

    name: str
    text: str


@dataclass(frozen=True, slots=True)
class Classes:
    """All of the named classes: `things` are told apart one by one, `stuff` is one region per class."""

    name: str
    things: tuple[str, ...] = ()
    stuff: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Describe:
    """A caption of the clip and a mask for each thing the caption names."""

    name: str = "description"


@dataclass(frozen=True, slots=True)
class Box:
    """A filled rectangle: edges x0 <= x < x1, y0 <= y < y1, so a whole plate is 0, 0, width, height.

    `relative`: edges are fractions of the width and height. `frame`: 0-based source index the box is drawn
    on; None: the first frame of the range. The same two fields mean the same in every region.
    """

    name: str
    x0: float
    y0: float
    x1: float
    y1: float
    frame: int | None = None
    relative: bool = False


@dataclass(frozen=True, slots=True)
class Points:
    """Clicks, each given by the column and row of its pixel; 0 and 1 are the outer pixels when `relative`."""

    name: str
    points: tuple[Point, ...]
    frame: int | None = None
    relative: bool = False


@dataclass(frozen=True, slots=True)
class Scribble:
    """A stroke through `points` (a polyline), in the coordinates of `Points`."""

    name: str
    points: tuple[Point, ...]
    frame: int | None = None
    relative: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class MaskPrompt:
    """A drawn mask of the plate's size: a picture file, or an array (height, width).

    Inside is above half of the range: True, above 127 of uint8, above 32767 of uint16, above 0.5 of floats.
    """

    name: str
    mask: Path | NDArray[Any]
    frame: int | None = None

    def __eq__(self, other: object) -> bool:
        """Equal name, frame and mask; arrays are compared by value."""
        if not isinstance(other, MaskPrompt) or (self.name, self.frame) != (other.name, other.frame):
            return False
        mine, theirs = self.mask, other.mask
        if isinstance(mine, Path) or isinstance(theirs, Path):
            return isinstance(mine, Path) and isinstance(theirs, Path) and mine == theirs
        return mine.shape == theirs.shape and bool((mine == theirs).all())

    def __hash__(self) -> int:
        return hash((self.name, self.frame))


Region = Box | Points | Scribble | MaskPrompt
Prompt = Text | Question | Classes | Describe | Region


# ---- names ------------------------------------------------------------------------------------------------


def slug(text: str) -> str:
    """A name safe for files and EXR layers: `[a-z][a-z0-9_]*`, at most 31 characters, cut between words.

    Accents are dropped. "object" stands in when no Latin letter is left and goes before a leading digit.
    """
    plain = unicodedata.normalize("NFKD", text.casefold()).encode("ascii", "ignore").decode()
    words = re.findall(r"[a-z0-9]+", plain)
    if not words or words[0][0].isdigit():
        words.insert(0, "object")
    name: str = words[0][:NAME_LENGTH]
    for word in words[1:]:
        if len(name) + 1 + len(word) > NAME_LENGTH:
            break
        name = f"{name}_{word}"
    return name


def distinct(names: Sequence[str], length: int = NAME_LENGTH) -> list[str]:
    """The names in order, numbered where one repeats, none longer than `length`."""
    taken: list[str] = []
    for name in names:
        plain = name[:length].rstrip("_")
        unique, count = plain, 1
        while unique in taken:
            count += 1
            unique = f"{plain[: length - len(f'_{count}')]}_{count}"
        taken.append(unique)
    return taken


def check_prompts(prompts: Sequence[Prompt]) -> None:
    """Raises PromptError when there is no prompt or when two names would give the same file or layer name."""
    if not prompts:
        raise PromptError("nothing to cut: give at least one prompt, for example --text 'the man on the right'")
    _check_names([prompt.name for prompt in prompts])
    for prompt in prompts:
        if isinstance(prompt, Classes):
            _check_names([*prompt.things, *prompt.stuff])


def _check_names(names: Sequence[str]) -> None:
    seen: dict[str, str] = {}
    for name in names:
        key = slug(name)
        if key in seen:
            raise PromptError(
                f"two prompts would both be called {key!r} ({seen[key]!r} and {name!r}): "
                f"drop one or name it, for example 'other=...'"
            )
        seen[key] = name


# ---- command-line spelling --------------------------------------------------------------------------------


def parse_prompt(kind: Kind, spelling: str, number: int = 1) -> Prompt:
    """The prompt spelled `[NAME=]VALUE[@FRAME]`. `number` counts default names: `box1`, `box2`.

    NAME is a run of letters, digits, spaces, `_` and `-` before the first `=`; a text that itself begins
    with such a run and an `=` must be given a name. `@FRAME` is a trailing `@` and digits, so other `@` stay
    in the text; questions and class lists belong to no frame and keep theirs. The frame of the result is the
    artist's frame NUMBER as written: the caller turns it into a source index (`dataclasses.replace`).

    VALUE by kind: text and question: the words; classes: `person, car; road` (things; stuff); box: `x0,y0,x1,y1`;
    points and scribble: `x,y` pairs separated by `;` or spaces; mask: a picture file. Coordinates are pixels,
    or fractions when each carries `%`. Raises PromptError.
    """
    name, value = _split_name(spelling)
    frame = None
    if kind not in ("question", "classes"):
        value, frame = _split_frame(value)
    if not value:
        raise PromptError(f"empty {kind} prompt {spelling!r}: write [NAME=]VALUE[@FRAME]")
    return _PARSERS[kind](name, value, frame, number)


def parse_classes(value: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Things and stuff of `person, dog; sky`, or of the grammar of `parse_generic`. Raises PromptError."""
    if re.search(r"\b(ins|sem):", value):
        return parse_generic(value)
    things, _, stuff = value.partition(";")
    named = [tuple(name.strip() for name in part.split(",") if name.strip()) for part in (things, stuff)]
    if not any(named) or ";" in stuff:
        raise PromptError(f"cannot read the classes {value!r}: write 'person, dog; sky' (things; stuff)")
    return named[0], named[1]


def parse_generic(prompt: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Things and stuff of a class list `ins: person, car; sem: road, sky`, in the order written.

    The first `ins:` and the first `sem:` count, each up to `;` or the end of its line; either may be missing.
    Raises PromptError when no class is named. Source: wanghao9610/X2SAM@5b0b106 x2sam/x2sam/demo/demo.py
    `_get_classes_from_prompt`, without its shuffling of the classes.
    """
    things, stuff = _class_list("ins", prompt), _class_list("sem", prompt)
    if not things and not stuff:
        raise PromptError(f"no class named in {prompt!r}: write 'ins: person, car; sem: road, sky'")
    return things, stuff


def _class_list(key: str, prompt: str) -> tuple[str, ...]:
    found = re.search(rf"{key}:\s*([^;\n]+)", prompt)
    names = found.group(1).split(",") if found else []
    return tuple(name.strip() for name in names if name.strip())


def _split_name(spelling: str) -> tuple[str | None, str]:
    found = re.match(r"\s*([A-Za-z0-9_ -]*[A-Za-z0-9_-])\s*=(.*)", spelling, re.DOTALL)
    return (found.group(1), found.group(2).strip()) if found else (None, spelling.strip())


def _split_frame(value: str) -> tuple[str, int | None]:
    found = re.fullmatch(r"(.*?)\s*@(-?\d+)", value, re.DOTALL)
    return (found.group(1), int(found.group(2))) if found else (value, None)


def _text(name: str | None, value: str, frame: int | None, number: int) -> Prompt:
    return Text(name or slug(value), value, frame)


def _question(name: str | None, value: str, frame: int | None, number: int) -> Prompt:
    return Question(name or slug(value), value)


def _classes(name: str | None, value: str, frame: int | None, number: int) -> Prompt:
    return Classes(name or f"classes{number}", *parse_classes(value))


def _box(name: str | None, value: str, frame: int | None, number: int) -> Prompt:
    (edges,), relative = _coordinates([value], 4, value)
    x0, y0, x1, y1 = edges
    return Box(name or f"box{number}", x0, y0, x1, y1, frame, relative)


def _points(name: str | None, value: str, frame: int | None, number: int) -> Prompt:
    return Points(name or f"points{number}", *_pairs(value, frame))


def _scribble(name: str | None, value: str, frame: int | None, number: int) -> Prompt:
    return Scribble(name or f"scribble{number}", *_pairs(value, frame))


def _mask(name: str | None, value: str, frame: int | None, number: int) -> Prompt:
    path = Path(value).expanduser()
    return MaskPrompt(name or slug(path.stem), path, frame)


_PARSERS: dict[Kind, Callable[[str | None, str, int | None, int], Prompt]] = {
    "text": _text,
    "question": _question,
    "classes": _classes,
    "box": _box,
    "points": _points,
    "scribble": _scribble,
    "mask": _mask,
}


def _pairs(value: str, frame: int | None) -> tuple[tuple[Point, ...], int | None, bool]:
    spaced = re.sub(r"\s*,\s*", ",", value)
    pairs, relative = _coordinates(re.split(r"\s*;\s*|\s+", spaced.strip(" ;")), 2, value)
    return tuple((x, y) for x, y in pairs), frame, relative


def _coordinates(groups: Sequence[str], size: int, value: str) -> tuple[list[tuple[float, ...]], bool]:
    """Groups of `size` numbers, as fractions when every number carries `%`."""
    numbers = [[number.strip() for number in group.split(",")] for group in groups]
    percent = {number.endswith("%") for group in numbers for number in group}
    if any(len(group) != size for group in numbers) or len(percent) != 1:
        wanted = "x0,y0,x1,y1" if size == 4 else "x,y pairs"
        raise PromptError(f"cannot read {value!r}: write {wanted} in pixels, or with % on every number")
    scale = 100 if percent == {True} else 1
    return [tuple(_number(number, value) / scale for number in group) for group in numbers], scale == 100


def _number(number: str, value: str) -> float:
    try:
        parsed = float(number.removesuffix("%"))
    except ValueError:
        parsed = math.nan
    if not math.isfinite(parsed):
        raise PromptError(f"cannot read {value!r}: {number!r} is not a number")
    return parsed


# ---- rasterising ------------------------------------------------------------------------------------------


def region_mask(prompt: Region, width: int, height: int) -> NDArray[np.bool_]:
    """The region as a boolean mask (height, width), True inside; never empty.

    Box: filled. Point: a disc. Scribble: a round stroke. Radii are a fixed share of the frame: 10 px (point)
    and 5 px (scribble) when the shorter side is 600 px, which is the middle of the 480 to 720 lines of the
    clips that training drew its 10 and 5 px on; never below 3 px. Mask: as given.

    Raises PromptError for coordinates outside the frame, a box without area, a mask of another size or an
    empty one; InputError for a mask file that cannot be read.
    """
    match prompt:
        case Box():
            mask = _draw_box(prompt, width, height)
        case Points():
            mask = _draw_points(prompt, width, height)
        case Scribble():
            mask = _draw_scribble(prompt, width, height)
        case MaskPrompt():
            mask = _load_mask(prompt, width, height)
    if not mask.any():
        raise PromptError(f"{_called(prompt)} covers no pixel of the {width}x{height} frame: draw it larger")
    return mask


def _called(prompt: Region) -> str:
    return f"{type(prompt).__name__.removesuffix('Prompt').lower()} {prompt.name!r}"


def _draw_box(box: Box, width: int, height: int) -> NDArray[np.bool_]:
    import numpy as np

    across, down = (width, height) if box.relative else (1, 1)
    x0, x1, y0, y1 = box.x0 * across, box.x1 * across, box.y0 * down, box.y1 * down
    if x0 >= x1 or y0 >= y1:
        raise PromptError(f"{_called(box)} has no area: write x0,y0,x1,y1 with x0 < x1 and y0 < y1")
    if min(x0, y0) < 0 or x1 > width or y1 > height:
        raise PromptError(
            f"{_called(box)} ({x0:g}, {y0:g}, {x1:g}, {y1:g}) leaves the {width}x{height} frame: "
            f"keep its edges inside"
        )
    mask = np.zeros((height, width), dtype=np.bool_)
    mask[round(y0) : round(y1), round(x0) : round(x1)] = True
    return mask


def _draw_points(prompt: Points, width: int, height: int) -> NDArray[np.bool_]:
    points = _pixels(prompt, width, height)
    return _strokes([(point, point) for point in points], _radius(POINT_RADIUS, width, height), width, height)


def _draw_scribble(prompt: Scribble, width: int, height: int) -> NDArray[np.bool_]:
    points = _pixels(prompt, width, height)
    if len(points) < 2:
        raise PromptError(f"{_called(prompt)} needs at least two points: use a point prompt for a single click")
    segments = list(pairwise(points))
    return _strokes(segments, _radius(SCRIBBLE_RADIUS, width, height), width, height)


def _radius(trained: float, width: int, height: int) -> float:
    return max(SMALLEST_RADIUS, trained * min(width, height) / TRAINED_LINES)


def _pixels(prompt: Points | Scribble, width: int, height: int) -> list[Point]:
    across, down = (width - 1, height - 1) if prompt.relative else (1, 1)
    points = [(x * across, y * down) for x, y in prompt.points]
    for x, y in points:
        if not (0 <= x < width and 0 <= y < height):
            raise PromptError(
                f"{_called(prompt)} has a point at ({x:g}, {y:g}), outside the {width}x{height} frame: "
                f"columns run 0 to {width - 1}, rows 0 to {height - 1}"
            )
    return points


def _strokes(segments: Sequence[tuple[Point, Point]], radius: float, width: int, height: int) -> NDArray[np.bool_]:
    """Every pixel whose centre is within `radius` of a segment."""
    import numpy as np

    mask = np.zeros((height, width), dtype=np.bool_)
    reach = math.ceil(radius)
    for (x0, y0), (x1, y1) in segments:
        # Only the window a segment can reach is computed: strokes on 4K plates have many segments.
        left, right = max(0, math.floor(min(x0, x1)) - reach), math.ceil(max(x0, x1)) + reach + 1
        top, bottom = max(0, math.floor(min(y0, y1)) - reach), math.ceil(max(y0, y1)) + reach + 1
        window = mask[top:bottom, left:right]
        rows, columns = np.ogrid[top : top + window.shape[0], left : left + window.shape[1]]
        dx, dy = x1 - x0, y1 - y0
        length = dx * dx + dy * dy
        along = np.clip(((columns - x0) * dx + (rows - y0) * dy) / length, 0, 1) if length else 0.0
        window |= (columns - x0 - along * dx) ** 2 + (rows - y0 - along * dy) ** 2 <= radius**2
    return mask


def _load_mask(prompt: MaskPrompt, width: int, height: int) -> NDArray[np.bool_]:
    values = _read_picture(prompt.mask) if isinstance(prompt.mask, Path) else prompt.mask
    if values.shape != (height, width):
        size = "x".join(str(side) for side in reversed(values.shape))
        raise PromptError(
            f"{_called(prompt)} is {size} but the frame is {width}x{height}: draw it at the plate's size"
        )
    return _above_half(values, prompt)


def _above_half(values: NDArray[Any], prompt: MaskPrompt) -> NDArray[np.bool_]:
    import numpy as np

    if values.dtype == np.bool_:
        return values
    if np.issubdtype(values.dtype, np.unsignedinteger):
        return np.asarray(values > np.iinfo(values.dtype).max // 2)
    if np.issubdtype(values.dtype, np.floating):
        return np.asarray(values > 0.5)
    raise PromptError(f"{_called(prompt)} holds {values.dtype} values: give bool, uint8, uint16 or float")


def _read_picture(path: Path) -> NDArray[Any]:
    """Brightest colour channel, held down by alpha: drawn layers, palettes and mattes all read right."""
    import numpy as np
    from PIL import Image

    try:
        with Image.open(path) as image:
            values = np.asarray(image.convert("RGBA") if image.mode in ("P", "LA", "PA") else image)
    except OSError as error:
        raise InputError(f"cannot read the mask {path} ({error}): give a PNG or TIFF", path) from error
    if values.dtype == np.int32:  # how Pillow holds some 16-bit files
        values = values.astype(np.uint16)
    if values.ndim == 2:
        return values
    brightest = values[..., :3].max(axis=-1)
    return np.asarray(np.minimum(brightest, values[..., 3]) if values.shape[-1] == 4 else brightest)
