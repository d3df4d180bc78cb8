"""How a run tells where it is: a live line on a terminal, plain or farm lines elsewhere, JSON, or nothing.

A reporter is a context manager that takes every `Progress`. All of them write to stderr, so that stdout stays data.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from x2roto.errors import RotoError

if TYPE_CHECKING:
    from x2roto.pipeline import Progress


class Style(StrEnum):
    """Kinds of progress; auto is rich on a terminal and plain elsewhere."""

    AUTO = "auto"
    RICH = "rich"
    PLAIN = "plain"
    OPENJD = "openjd"
    TRACTOR = "tractor"
    JSON = "json"
    NONE = "none"


Reporter = Callable[["Progress"], None]


@contextmanager
def reporting(style: Style, title: str, log: Path | None = None) -> Iterator[Reporter]:
    """A reporter in the wanted style; `log`: a file, or - for stdout, that gets one JSON line per event besides."""
    if style is Style.AUTO:
        style = Style.RICH if sys.stderr.isatty() else Style.PLAIN
    with ExitStack() as stack:
        reporters = [stack.enter_context(_live(title)) if style is Style.RICH else _Lines(style)]
        if log is not None:
            reporters.append(stack.enter_context(_logged(log)))

        def report(progress: Progress) -> None:
            for reporter in reporters:
                reporter(progress)

        yield report


@contextmanager
def _logged(path: Path) -> Iterator[Reporter]:
    """JSON lines: start, every step, and how it ended. Raises OutputError when they cannot be written."""
    from x2roto.export.atomic import output_errors

    with ExitStack() as stack:
        with output_errors(path):
            log = sys.stdout if path == Path("-") else stack.enter_context(path.open("a", encoding="utf-8"))

        def say(event: str, level: str = "info", **facts: Any) -> None:
            line = {"t": round(time.time(), 3), "level": level, "event": event, **facts}
            with output_errors(path):
                log.write(json.dumps(line) + "\n")
                log.flush()

        say("start")
        try:
            yield lambda progress: say("frame", "warning" if progress.held else "info", **row(progress))
        except RotoError as error:
            say("error", "error", message=str(error))
            raise
        except SystemExit as stop:
            say("stop", "warning", code=stop.code)
            raise
        say("end")


def row(progress: Progress) -> dict[str, Any]:
    """A progress as JSON has it."""
    timing = {name: round(seconds, 3) for name, seconds in asdict(progress.timing).items()}
    return {
        "frame": progress.number,
        "done": progress.done,
        "total": progress.total,
        "scores": dict(progress.scores),
        "held": progress.held,
        **timing,
    }


# Least time between two lines about the percentage.
EVERY_S = 1.0
SPELLINGS = {
    Style.PLAIN: "Progress: {}%",
    Style.OPENJD: "openjd_progress: {}",
    Style.TRACTOR: "TR_PROGRESS {:02d}%",
}


class _Lines:
    """One line when the whole percentage changes, at most one a second; the spelling is the farm's."""

    def __init__(self, style: Style) -> None:
        self.style = style
        self._last: int | None = None
        self._said = 0.0

    def __call__(self, progress: Progress) -> None:
        if self.style is Style.JSON:
            self._say(json.dumps(row(progress)))
        elif self.style in SPELLINGS:
            self._percent(progress)

    def _percent(self, progress: Progress) -> None:
        ended = progress.done == progress.total
        if not ended and time.monotonic() - self._said < EVERY_S:
            return
        percent = progress.total and 100 * progress.done // progress.total
        if percent is None or percent != self._last:
            self._last = percent
            self._say(f"Frame {progress.number}" if percent is None else SPELLINGS[self.style].format(percent))

    def _say(self, line: str) -> None:
        self._said = time.monotonic()
        sys.stderr.write(line + "\n")
        sys.stderr.flush()


@contextmanager
def _live(title: str) -> Iterator[Reporter]:
    """A bar with frames, speed and time left; below it where the time goes."""
    from rich.console import Console, Group
    from rich.live import Live
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("[bold]{task.description}"), BarColumn(), MofNCompleteColumn())
    bar = Bar(*columns, TextColumn("{task.fields[speed]}"), TimeRemainingColumn())
    detail = Bar(TextColumn("[dim]{task.description}"))
    frames, line = bar.add_task(title, total=None, speed=""), detail.add_task("reading the prompts")
    started, before = time.monotonic(), None

    def report(progress: Progress) -> None:
        nonlocal before
        # A resumed run begins with frames that took none of its time.
        before = progress.done - 1 if before is None else before
        speed = f"{(progress.done - before) / max(time.monotonic() - started, 1e-6):.1f} fps"
        bar.update(frames, completed=progress.done, total=progress.total, speed=speed)
        facts = f"frame {progress.number}   {stages(progress)}   {memory_mb():.0f} MB"
        detail.update(line, description=facts)

    with Live(Group(bar, detail), console=Console(stderr=True)):
        yield report


def stages(progress: Progress) -> str:
    """Share of the time by stage, in percent."""
    timing = progress.timing
    parts = {
        "decode": timing.decode_s,
        "network": timing.network_s,
        "alpha": timing.alpha_s,
        "write": timing.write_s,
    }
    total = sum(parts.values()) or 1.0
    return " ".join(f"{name} {100 * seconds / total:.0f}%" for name, seconds in parts.items())


def memory_mb() -> float:
    """Peak resident memory of this process."""
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Bytes on macOS, kilobytes elsewhere.
    return peak / (1e6 if sys.platform == "darwin" else 1e3)
