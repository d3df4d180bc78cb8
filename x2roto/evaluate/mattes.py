"""Mattes against the true ones, ours or another tool's, frame by frame and object by object."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from x2roto.clip import FrameRange, format_frames
from x2roto.errors import InputError
from x2roto.evaluate.metrics.boundary import RegionBoundary
from x2roto.evaluate.metrics.matting import FrameErrors, MattingErrors, Pair
from x2roto.evaluate.report import Cell, Column, Picture, Report, Series, Table, contour_picture
from x2roto.evaluate.takes import Take, listed, open_take, paired
from x2roto.export.picture import eight_bit
from x2roto.matte import FloatArray
from x2roto.source import FrameSource, open_source

Missing = Literal["error", "zero"]

PICTURES = 12
_EMPTY = "or count what is missing as empty with --missing zero"
# Frames between two pictures of an object: what is wrong once is wrong on the frames around.
APART = 6
# How measures are called on the page; all but J and F are better when lower.
TITLES = {
    "J": "J",
    "F": "F",
    "sad_thousands": "SAD k",
    "mad_x1000": "MAD ‰",
    "mse_x1000": "MSE ‰",
    "grad_thousands": "Grad k",
    "conn_thousands": "Conn k",
    "boundary_mean_px": "edge px",
    "boundary_p95_px": "edge p95 px",
    "dtssd_x100": "dtSSD %",
    "flicker": "flicker",
}
DIGITS = {"J": 3, "F": 3, "flicker": 3}
PLOTS: tuple[tuple[str, tuple[str, ...], tuple[float, float] | None], ...] = (
    ("overlap and outline", ("J", "F"), (0, 1)),
    ("alpha, and its change", ("mad_x1000", "dtssd_x100"), None),
    ("edge", ("boundary_mean_px", "boundary_p95_px"), None),
)
MEANINGS = (
    "J is the overlap and F the agreement of the outlines of the mattes cut at one half, as in DAVIS; 1 is best.",
    "SAD (in thousands of pixels), MAD and MSE (in thousandths) are differences of alpha, Grad of its gradients, "
    "Conn of how its parts hang together (both in thousands; Rhemann et al. 2009), over the whole picture.",
    "The edge is how far apart the outlines are, both ways, on average and in the 95th percentile; where only one "
    "side has an outline it is the diagonal of the picture, so frames that are missed altogether stand out.",
    "dtSSD (in hundredths) is how the change from frame to frame differs from the true one (Erofeev et al. 2015); "
    "flicker is change beyond what the truth does nearby, as a share of the object's area. "
    "Both need frames that follow each other.",
    "Numbers are means over the frames of each object, and then over objects.",
)


@dataclass(frozen=True, slots=True)
class FrameScore:
    """One object on one frame. `region`, `outline`: J and F of the mattes cut at one half."""

    object: str
    number: int
    region: float
    outline: float
    errors: FrameErrors

    def values(self) -> dict[str, float]:
        """All measures by the keys of `TITLES`."""
        return dict(zip(TITLES, (self.region, self.outline, *astuple(self.errors)), strict=True))


@dataclass(frozen=True, slots=True)
class Comparison:
    """What `compare` found. `pairs`: the prediction's name of each object, None where it has none.

    `frames`: in order of frames, then objects. `objects`: means over frames; `overall`: over objects, by the keys of
    `TITLES`. `assumed`: (object, frame number) taken as empty since there was no prediction. `unused`: objects of the
    prediction that the truth lacks. `offset`: added to the prediction's frame numbers.
    """

    prediction: Path
    truth: Path
    offset: int
    pairs: Mapping[str, str | None]
    frames: tuple[FrameScore, ...]
    objects: Mapping[str, Mapping[str, float]]
    overall: Mapping[str, float]
    assumed: tuple[tuple[str, int], ...]
    unused: tuple[str, ...]


def compare(
    prediction: Path,
    truth: Path,
    *,
    offset: int = 0,
    missing: Missing = "error",
    names: Mapping[str, str] | None = None,
    on_frame: Callable[[int, int], None] = lambda done, count: None,
) -> Comparison:
    """Score the mattes at `prediction` against those at `truth`; `takes.open_take` says what both may be.

    Every frame of the truth counts, others do not. `offset` is added to the prediction's frame numbers. `missing`:
    what a frame or object without prediction is, an error or an empty matte. `names`: the truth's name of an object
    of the prediction, where they differ. `on_frame`: told after each frame how many are done. Keeps two frames.

    Raises InputError for what cannot be read or paired, is missing, or has another size.
    """
    wanted, found = open_take(truth), open_take(prediction)
    found = found.knowing(wanted.objects)
    pairs = paired(wanted.objects, found.objects, names or {})
    assumed = tuple(_absent(wanted, found, pairs, offset))
    if assumed and missing == "error":
        raise InputError(_missing(assumed, wanted, found, pairs, offset), prediction)
    scorer = _Scorer()
    numbers = sorted(set().union(*(source.numbers for source in wanted.sources)))
    for done, number in enumerate(numbers, start=1):
        for name, alpha, other in _frame(wanted, found, pairs, number, offset):
            scorer.add(name, number, alpha, other)
        on_frame(done, len(numbers))
    unused = tuple(name for name in found.objects if name not in pairs.values() and name not in wanted.objects)
    return Comparison(
        prediction, truth, offset, pairs, tuple(scorer.frames), scorer.objects(), scorer.overall(), assumed, unused
    )


def _absent(wanted: Take, found: Take, pairs: Mapping[str, str | None], offset: int) -> Iterator[tuple[str, int]]:
    """(object, number) of the truth without a prediction."""
    for name, other in pairs.items():
        there = frozenset[int]() if other is None else found.source(other).numbers
        yield from ((name, number) for number in sorted(wanted.source(name).numbers) if number - offset not in there)


def _missing(
    absent: Sequence[tuple[str, int]], wanted: Take, found: Take, pairs: Mapping[str, str | None], offset: int
) -> str:
    """The one line that says what is not there of the first object that lacks something."""
    name = absent[0][0]
    other = pairs[name]
    if other is None:
        there = listed(found.objects)
        return f"{found.path}: has no object {name!r}, only {there}: say which name means it, {_EMPTY}"
    numbers = [number for each, number in absent if each == name]
    source, first = found.source(other), min(wanted.source(name).numbers)
    if len(numbers) == len(wanted.source(name).numbers):
        begins = min(source.numbers)
        return (
            f"{source.where}: shares no frame with the truth, they begin with {begins + offset} and {first}: "
            f"give --offset {first - begins}"
        )
    return f"{source.where}: {len(numbers)} frames are missing: {format_frames(numbers)}: add them, {_EMPTY}"


def _frame(
    wanted: Take, found: Take, pairs: Mapping[str, str | None], number: int, offset: int
) -> Iterator[tuple[str, FloatArray, FloatArray]]:
    """(object, true matte, predicted matte) of a frame; empty where there is no prediction."""
    predictions = found.read(number - offset)
    for name, alpha in wanted.read(number).items():
        other = predictions.get(pairs[name] or "", np.zeros_like(alpha))
        if other.shape != alpha.shape:
            sizes = [f"{each.shape[1]}x{each.shape[0]}" for each in (other, alpha)]
            raise InputError(
                f"{found.path}: object {name!r} is {sizes[0]} on frame {number}, the truth {sizes[1]}: render it at "
                "that size",
                found.path,
            )
        yield name, alpha, other


class _Scorer:
    """Counts mattes in, frame by frame; keeps the frame before of each object."""

    def __init__(self) -> None:
        self.frames: list[FrameScore] = []
        self._before: dict[str, tuple[int, Pair]] = {}
        self._masks, self._mattes = RegionBoundary(), MattingErrors()

    def add(self, name: str, number: int, truth: FloatArray, prediction: FloatArray) -> None:
        last, before = self._before.get(name, (None, None))
        follows = last is not None and number == last + 1
        errors = self._mattes.add(name, truth, prediction, before=before if follows else None)
        self._masks.add(name, truth >= 0.5, prediction >= 0.5)
        self._before[name] = number, Pair(truth, prediction)
        self.frames.append(FrameScore(name, number, *self._masks.values[name][-1], errors))

    def objects(self) -> dict[str, dict[str, float]]:
        return {name: self._of(name) for name in self._masks.values}

    def _of(self, name: str) -> dict[str, float]:
        region, outline = np.mean(self._masks.values[name], axis=0).tolist()
        return {"J": region, "F": outline} | self._mattes.of(name)

    def overall(self) -> dict[str, float]:
        masks = self._masks.result()
        return {"J": masks["J"], "F": masks["F"]} | self._mattes.result()


def matte_report(result: Comparison, plate: str | Path | None = None, pictures: int = PICTURES) -> Report:
    """The page of a comparison; the worst frames are read again, on `plate` (any clip with the truth's frame numbers)
    or, without one, on the predicted matte in grey.

    Raises InputError when the plate cannot be read, lacks a frame or has another size.
    """
    return Report(
        title=f"{result.prediction.name} against {result.truth.name}",
        facts=_facts(result, plate),
        tables=(_scores(result),),
        series=tuple(series for name in result.objects for series in _over_time(result, name)),
        pictures=tuple(_worst_pictures(result, plate, pictures)),
        notes=(*_remarks(result), *MEANINGS),
    )


def _facts(result: Comparison, plate: str | Path | None) -> dict[str, str]:
    numbers = sorted({frame.number for frame in result.frames})
    facts = {
        "prediction": str(result.prediction),
        "truth": str(result.truth),
        "frames": f"{format_frames(numbers)} ({len(numbers)})",
        "objects": ", ".join(_pair(name, other) for name, other in result.pairs.items()),
    }
    facts |= {"plate": str(plate)} if plate is not None else {}
    facts |= {"offset": f"{result.offset:+d}"} if result.offset else {}
    return facts


def _pair(name: str, other: str | None) -> str:
    return name if other in (name, None) else f"{name} (predicted as {other})"


def _remarks(result: Comparison) -> Iterator[str]:
    for name in result.pairs:
        if numbers := [number for each, number in result.assumed if each == name]:
            yield f"There is no prediction of {name} on {format_frames(numbers)}: counted as empty."
    if result.unused:
        yield f"The truth does not have {listed(result.unused)}: not counted."


def _column(key: str) -> Column:
    return Column(TITLES[key], DIGITS.get(key, 2), "higher" if key in ("J", "F") else "lower")


def _scores(result: Comparison) -> Table:
    columns = (Column("object"), Column("frames"), *map(_column, TITLES))
    counts = Counter(frame.object for frame in result.frames)
    rows = [_row(name, counts[name], scores) for name, scores in result.objects.items()]
    total = [_row("all", len(result.frames), result.overall)] if len(rows) > 1 else []
    return Table("Scores", columns, (*rows, *total), total=bool(total))


def _row(name: str, count: int, scores: Mapping[str, float]) -> tuple[Cell, ...]:
    return (name, count, *(scores[key] for key in TITLES))


def _over_time(result: Comparison, name: str) -> Iterator[Series]:
    frames = [frame for frame in result.frames if frame.object == name]
    numbers = tuple(frame.number for frame in frames)
    for title, keys, span in PLOTS if len(frames) > 1 else ():
        lines = {TITLES[key]: [frame.values()[key] for frame in frames] for key in keys}
        yield Series(f"{name}: {title}", numbers, lines, span)


def worst(frames: Iterable[FrameScore], count: int) -> list[FrameScore]:
    """The `count` frames of the greatest SAD, worst first; of one object none nearer than `APART` to a worse one."""
    chosen: list[FrameScore] = []
    for frame in sorted(frames, key=lambda frame: -frame.errors.sad_thousands):
        near = any(each.object == frame.object and abs(each.number - frame.number) < APART for each in chosen)
        if len(chosen) < count and frame.errors.sad_thousands and not near:
            chosen.append(frame)
    return chosen


def _worst_pictures(result: Comparison, plate: str | Path | None, count: int) -> Iterator[Picture]:
    wanted, found = open_take(result.truth), open_take(result.prediction)
    found = found.knowing(wanted.objects)
    with ExitStack() as stack:
        source = None if plate is None else stack.enter_context(open_source(plate))
        for score in worst(result.frames, count):
            mattes = _frame(wanted, found, result.pairs, score.number, result.offset)
            truth, prediction = next((truth, other) for name, truth, other in mattes if name == score.object)
            picture = _shaded(prediction) if source is None else _plate(source, score.number, truth.shape)
            yield contour_picture(_caption(score), picture, truth, prediction)


def _caption(score: FrameScore) -> str:
    errors = score.errors
    return (
        f"{score.object}, frame {score.number}: J {score.region:.3f}, F {score.outline:.3f}, "
        f"SAD {errors.sad_thousands:.3g} k"
    )


def _shaded(alpha: FloatArray) -> NDArray[np.uint8]:
    return np.repeat(np.asarray(40 + 150 * alpha, np.uint8)[..., None], 3, axis=2)


def _plate(source: FrameSource, number: int, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    index = number - source.info.first_frame
    frame = next(iter(source.frames((FrameRange(index, index + 1),))), None)
    if frame is None:
        raise InputError(f"the plate has no frame {number}, it begins with {source.info.first_frame}: give another")
    if frame.rgb.shape[:2] != shape:
        size = f"{frame.rgb.shape[1]}x{frame.rgb.shape[0]}"
        raise InputError(f"the plate is {size}, the mattes are {shape[1]}x{shape[0]}: give the plate of that size")
    return eight_bit(frame, source.info)
