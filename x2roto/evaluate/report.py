"""What a measurement says to a person: one HTML file that needs nothing else, and the same as JSON.

The page makes no request and loads no library: style, plots (SVG) and pictures are inside it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import isfinite
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from x2roto.export.atomic import write_bytes

SCHEMA = "x2roto.report"
VERSION = 1
PICTURE_WIDTH, PICTURE_COUNT = 640, 24
TRUTH_COLOUR, PREDICTION_COLOUR = (0, 190, 255), (255, 140, 0)

Cell = str | int | float | None


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table. `digits`: decimals shown of its floats. `better`: which end of it is good, if any; the
    page says so with an arrow. `signed`: a plus before what is above 0."""

    title: str
    digits: int = 1
    better: Literal["higher", "lower"] | None = None
    signed: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of cells, one per column; None and not-a-number are shown as a dash. The page sorts by a click on a
    column's title. `total`: the last row sums up the others and stays last. Raises ValueError for a row of another
    length."""

    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str = ""
    total: bool = False

    def __post_init__(self) -> None:
        if wrong := [row for row in self.rows if len(row) != len(self.columns)]:
            raise ValueError(
                f"table {self.title!r} has {len(self.columns)} columns and a row of {len(wrong[0])} cells"
            )


@dataclass(frozen=True, slots=True)
class Series:
    """Curves over the frames of one clip, drawn as one plot.

    `frames`: ascending frame numbers. `lines`: by name, one value per frame; a gap where one is not a number.
    `span`: lowest and highest value of the axis; None: from the values. Raises ValueError for a line of
    another length.
    """

    title: str
    frames: tuple[int, ...]
    lines: Mapping[str, Sequence[float]]
    span: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if wrong := [name for name, values in self.lines.items() if len(values) != len(self.frames)]:
            raise ValueError(f"plot {self.title!r} has {len(self.frames)} frames and another number in {wrong[0]!r}")


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """A frame worth a look, as `contour_picture` draws it. `rgb`: uint8 (H, W, 3), display-encoded; the page scales
    it down to `PICTURE_WIDTH`."""

    caption: str
    rgb: NDArray[np.uint8]


@dataclass(frozen=True, slots=True, eq=False)
class Report:
    """Everything one page says, in its order: `facts` (model, mode, data, versions; by name), `tables` (the main one
    first), `series`, `pictures` (the worst first; the page shows `PICTURE_COUNT`), `notes` (one sentence each)."""

    title: str
    facts: Mapping[str, str]
    tables: tuple[Table, ...] = ()
    series: tuple[Series, ...] = ()
    pictures: tuple[Picture, ...] = ()
    notes: tuple[str, ...] = ()


def scores_table(
    title: str,
    scores: Mapping[str, float],
    paper: Mapping[str, float] | None = None,
    *,
    digits: int = 1,
    note: str = "",
) -> Table:
    """A main table: a row per measure, higher better; beside ours the paper's number and the difference, where given.

    Raises ValueError when the paper has a measure that `scores` lacks.
    """
    if missing := set(paper or ()) - set(scores):
        raise ValueError(f"no score for {', '.join(sorted(missing))}, which the paper gives")
    ours = Column("ours", digits, "higher")
    if not paper:
        return Table(title, (Column("measure"), ours), tuple(scores.items()), note)
    columns = (Column("measure"), ours, Column("paper", digits), Column("difference", digits, signed=True))
    rows = tuple(
        (name, score, paper.get(name), _difference(score, paper.get(name))) for name, score in scores.items()
    )
    return Table(title, columns, rows, note)


def _difference(ours: float, paper: float | None) -> float | None:
    return None if paper is None else ours - paper


def contour_picture(caption: str, plate: NDArray[np.uint8], truth: NDArray[Any], prediction: NDArray[Any]) -> Picture:
    """The plate, uint8 (H, W, 3), with the outlines of both mattes, bool or alpha (H, W), at one half: the truth in
    `TRUTH_COLOUR`, the prediction in `PREDICTION_COLOUR`, one within the other where they agree."""
    from scipy.ndimage import binary_erosion

    rgb = plate.copy()
    width = max(1, round(1.5 * plate.shape[1] / PICTURE_WIDTH))
    for mask, colour, depth in ((prediction, PREDICTION_COLOUR, 2 * width), (truth, TRUTH_COLOUR, width)):
        inside = np.asarray(mask >= 0.5)
        rgb[inside & ~binary_erosion(inside, iterations=depth, border_value=1)] = colour
    return Picture(caption, rgb)


def as_json(report: Report) -> dict[str, Any]:
    """The report as plain values: all of it but the pixels of pictures; what is not a number becomes None."""
    return {
        "schema": SCHEMA,
        "version": VERSION,
        "title": report.title,
        "facts": dict(report.facts),
        "tables": [_finite(asdict(table)) for table in report.tables],
        "series": [_plain_series(series) for series in report.series],
        "pictures": [
            {"caption": each.caption, "width": each.rgb.shape[1], "height": each.rgb.shape[0]}
            for each in report.pictures
        ],
        "notes": list(report.notes),
    }


def _plain_series(series: Series) -> dict[str, Any]:
    lines = {name: [_finite(float(value)) for value in values] for name, values in series.lines.items()}
    return {"title": series.title, "frames": list(series.frames), "lines": lines, "span": series.span}


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not isfinite(value) else value


def write_report(report: Report, folder: Path, name: str = "report") -> Path:
    """Write `<name>.html` and `<name>.json` into the folder, made if needed, each whole or not at all.

    Returns the page's path; raises OutputError when either cannot be written.
    """
    from x2roto.evaluate.page import as_html

    page, data = folder / f"{name}.html", folder / f"{name}.json"
    write_bytes(data, json.dumps(as_json(report), indent=1, ensure_ascii=False, allow_nan=False).encode())
    write_bytes(page, as_html(report).encode())
    return page
