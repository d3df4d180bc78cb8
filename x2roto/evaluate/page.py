"""A report as one HTML page. Everything that comes from outside is escaped; the page asks nothing of the network."""

from __future__ import annotations

import io
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from importlib.resources import files
from itertools import groupby
from math import ceil, floor, isfinite, log10
from string import Template

import numpy as np
from numpy.typing import NDArray

from x2roto import __version__
from x2roto.evaluate.report import PICTURE_COUNT, PICTURE_WIDTH, Cell, Column, Picture, Report, Series, Table

WIDTH, HEIGHT = 460, 180  # of a plot, in its own units, about a CSS pixel each
LEFT, RIGHT, TOP, BOTTOM = 38, 6, 6, 22
CURVE_POINTS, HOVER_POINTS = 480, 120
COLOURS = 6
DASH = "–"
ARROWS = {"higher": " ↑", "lower": " ↓"}


def as_html(report: Report) -> str:
    """The page; equal reports give equal bytes."""
    template = Template(files("x2roto.evaluate").joinpath("report.html").read_text(encoding="utf-8"))
    return template.substitute(
        title=escape(report.title),
        facts=_facts(report.facts),
        body="\n".join(_sections(report)),
        version=escape(__version__),
    )


def _sections(report: Report) -> Iterator[str]:
    yield from map(_table, report.tables)
    if report.pictures:
        yield _pictures(report.pictures)
    if report.series:
        yield '<h2>Over time</h2>\n<div class="plots">\n' + "\n".join(map(_plot, report.series)) + "\n</div>"
    if report.notes:
        items = "\n".join(f"<li>{escape(note)}</li>" for note in report.notes)
        yield f'<h2>Notes</h2>\n<ul class="notes">\n{items}\n</ul>'


def _facts(facts: Mapping[str, str]) -> str:
    items = "\n".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in facts.items())
    return f'<dl class="facts">\n{items}\n</dl>'


def _table(table: Table) -> str:
    numeric = [_is_numeric(row[at] for row in table.rows) for at in range(len(table.columns))]
    heads = "".join(map(_head, table.columns, numeric))
    rows = [_row(table.columns, numeric, row) for row in table.rows]
    body, foot = (rows[:-1], rows[-1:]) if table.total else (rows, [])
    note = f'\n<p class="note">{escape(table.note)}</p>' if table.note else ""
    return (
        f'<section>\n<h2>{escape(table.title)}</h2>\n<div class="card scroll fit"><table>\n'
        f"<thead><tr>{heads}</tr></thead>\n<tbody>\n{_lines(body)}</tbody>\n<tfoot>\n{_lines(foot)}</tfoot>\n</table></div>{note}\n</section>"
    )


def _lines(rows: Sequence[str]) -> str:
    return "".join(f"{row}\n" for row in rows)


def _is_numeric(cells: Iterator[Cell]) -> bool:
    return not any(isinstance(cell, str) for cell in cells)


def _head(column: Column, numeric: bool) -> str:
    kind = ' class="number"' if numeric else ""
    arrow = ARROWS[column.better] if column.better else ""
    return f'<th scope="col"{kind}><button type="button">{escape(column.title)}{arrow}</button></th>'


def _row(columns: Sequence[Column], numeric: Sequence[bool], row: Sequence[Cell]) -> str:
    return f"<tr>{''.join(map(_cell, columns, numeric, row))}</tr>"


def _cell(column: Column, numeric: bool, cell: Cell) -> str:
    kinds = ["number"] if numeric else []
    if isinstance(cell, str):
        return f"<td>{escape(cell)}</td>"
    if cell is None or not isfinite(cell):
        return f'<td class="{" ".join((*kinds, "none"))}">{DASH}</td>'
    if column.signed and round(cell, column.digits):
        kinds.append("plus" if cell > 0 else "minus")
    return f'<td class="{" ".join(kinds)}" data-value="{cell}">{_number(column, cell)}</td>'


def _number(column: Column, value: float) -> str:
    if isinstance(value, int) and not column.signed:
        return str(value)
    sign = "+" if column.signed and round(value, column.digits) > 0 else ""
    return (sign + f"{value:.{column.digits}f}").replace("-", "−")


def _pictures(pictures: Sequence[Picture]) -> str:
    figures = "\n".join(map(_figure, pictures[:PICTURE_COUNT]))
    key = (
        '<p class="key"><span><i style="background:var(--truth)"></i>truth</span>'
        '<span><i style="background:var(--prediction)"></i>prediction</span></p>'
    )
    return f'<h2>Worst frames</h2>\n{key}\n<div class="pictures">\n{figures}\n</div>'


def _figure(picture: Picture) -> str:
    caption = escape(picture.caption)
    source = f"data:image/jpeg;base64,{b64encode(_jpeg(picture.rgb)).decode()}"
    return f'<figure class="card"><img src="{source}" alt="{caption}"><figcaption>{caption}</figcaption></figure>'


def _jpeg(rgb: NDArray[np.uint8]) -> bytes:
    from PIL import Image

    image = Image.fromarray(rgb)
    if image.width > PICTURE_WIDTH:
        size = (PICTURE_WIDTH, max(1, round(image.height * PICTURE_WIDTH / image.width)))
        image = image.resize(size, Image.Resampling.LANCZOS)
    # Full chroma: thin coloured outlines are what is to be seen.
    image.save(buffer := io.BytesIO(), format="JPEG", quality=85, subsampling=0, optimize=True)
    return buffer.getvalue()


def _plot(series: Series) -> str:
    axes = _Axes(series)
    keys = "".join(map(_key, range(len(series.lines)), series.lines, series.lines.values()))
    curves = "".join(_curve(axes, number, values) for number, values in enumerate(series.lines.values()))
    title = escape(series.title)
    return (
        f'<div class="card plot"><h3>{title}</h3><div class="key">{keys}</div>\n'
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{title}">'
        f"{_grid(axes)}{curves}{_hovers(axes)}</svg></div>"
    )


class _Axes:
    """Where frames and values lie in a plot."""

    def __init__(self, series: Series) -> None:
        self.series = series
        self.frames = (series.frames[0], series.frames[-1]) if series.frames else (0, 0)
        self.span = series.span or _span([v for values in series.lines.values() for v in values if isfinite(v)])

    def x(self, frame: float) -> float:
        first, last = self.frames
        return round(LEFT + (WIDTH - LEFT - RIGHT) * ((frame - first) / (last - first) if last > first else 0.5), 1)

    def y(self, value: float) -> float:
        low, high = self.span
        share = min(1.0, max(0.0, (value - low) / (high - low)))
        return round(TOP + (HEIGHT - TOP - BOTTOM) * (1 - share), 1)


def _span(values: Sequence[float]) -> tuple[float, float]:
    """A span with round ends that holds all values."""
    if not values:
        return 0.0, 1.0
    low, high = min(values), max(values)
    if low == high:
        low, high = min(0.0, low), max(0.0, high) or 1.0
    step = _step(low, high)
    return floor(low / step) * step, ceil(high / step) * step


def _step(low: float, high: float, count: int = 5) -> float:
    """1, 2 or 5 times a power of ten that divides the span into about `count`."""
    rough = (high - low) / count
    power = 10.0 ** floor(log10(rough))
    return power * next(factor for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)


def _ticks(low: float, high: float, step: float) -> list[float]:
    return [number * step for number in range(ceil(low / step - 1e-9), floor(high / step + 1e-9) + 1)]


def _grid(axes: _Axes) -> str:
    step = _step(*axes.span)
    digits = max(0, -floor(log10(step) + 1e-9))
    rows = "".join(
        f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{axes.y(at)}" y2="{axes.y(at)}"/>'
        f'<text x="{LEFT - 6}" y="{axes.y(at) + 3.5:.1f}" text-anchor="end">{at:.{digits}f}</text>'
        for at in _ticks(*axes.span, step)
    )
    return rows + "".join(
        f'<text x="{axes.x(frame)}" y="{HEIGHT - 6}" text-anchor="middle">{frame:.0f}</text>'
        for frame in _frame_ticks(*axes.frames)
    )


def _frame_ticks(first: int, last: int) -> list[float]:
    return _ticks(first, last, max(1.0, _step(first, last, 6))) if last > first else [first]


def _key(number: int, name: str, values: Sequence[float]) -> str:
    counted = [value for value in values if isfinite(value)]
    mean = f" <b>{np.mean(counted):.4g}</b>" if counted else ""
    return f'<span><i style="background:var(--c{number % COLOURS})"></i>{escape(name)}{mean}</span>'


def _curve(axes: _Axes, number: int, values: Sequence[float]) -> str:
    kept = _kept(np.asarray(values, float))
    runs = groupby(kept, key=lambda at: isfinite(values[at]))
    path = "".join(_run(axes, values, list(run)) for finite, run in runs if finite)
    return f'<path class="curve" style="stroke:var(--c{number % COLOURS})" d="{path}"/>' if path else ""


def _run(axes: _Axes, values: Sequence[float], places: Sequence[int]) -> str:
    points = [(axes.x(axes.series.frames[at]), axes.y(values[at])) for at in places]
    if len(points) == 1:
        (x, y), half = points[0], 2
        points = [(x - half, y), (x + half, y)]
    return "M" + "L".join(f"{x:g} {y:g}" for x, y in points)


def _kept(values: NDArray[np.float64]) -> list[int]:
    """Which values to draw: of long clips the lowest, the highest and a gap of each stretch."""
    stretch = max(1, ceil(2 * len(values) / CURVE_POINTS)) if len(values) > CURVE_POINTS else 1
    kept: set[int] = set()
    for start in range(0, len(values), stretch):
        part = values[start : start + stretch]
        gaps = np.flatnonzero(np.isnan(part))
        kept.update((start + gaps[:1]).tolist())
        if len(gaps) < len(part):
            kept.update((start + int(np.nanargmin(part)), start + int(np.nanargmax(part))))
    return sorted(kept)


def _hovers(axes: _Axes) -> str:
    """Stripes that show the frame's values when pointed at."""
    frames = axes.series.frames
    places = range(0, len(frames), max(1, ceil(len(frames) / HOVER_POINTS)))
    width = round((WIDTH - LEFT - RIGHT) / max(1, len(places)), 1)
    return "".join(_hover(axes, at, width) for at in places)


def _hover(axes: _Axes, at: int, width: float) -> str:
    frame, x = axes.series.frames[at], axes.x(axes.series.frames[at])
    values = ", ".join(
        f"{escape(name)} {line[at]:.4g}" for name, line in axes.series.lines.items() if isfinite(line[at])
    )
    return (
        f'<g class="at"><rect x="{x - width / 2:.1f}" y="{TOP}" width="{width}" height="{HEIGHT - TOP - BOTTOM}"/>'
        f'<line x1="{x}" x2="{x}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>'
        f"<title>frame {frame}: {values or 'nothing'}</title></g>"
    )
