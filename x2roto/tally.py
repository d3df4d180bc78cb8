"""What of a run's frames its summary needs; grows only by the frames below the threshold."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any


class Tally:
    """Counts frame records, those of an interrupted run first."""

    def __init__(self, min_score: float) -> None:
        self._min_score = min_score
        self.frames = 0
        self.matched = False
        self.below: list[int] = []
        self.held: dict[int, str] = {}
        self.spans: dict[str, tuple[int, int]] = {}

    def recall(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Count the frames of an interrupted run."""
        for row in rows:
            self.add(row)

    def add(self, row: Mapping[str, Any]) -> dict[str, float]:
        """Count a frame; gives its scores by object."""
        number, scores = row["number"], {label: facts["score"] for label, facts in row["objects"].items()}
        best = max(scores.values(), default=0.0)
        self.frames += 1
        self.matched = self.matched or best > 0
        if best < self._min_score:
            self.below.append(number)
        if "warning" in row:
            self.held[number] = row["warning"]
        for label in (label for label, score in scores.items() if score > 0):
            self.spans[label] = (self.spans.get(label, (number,))[0], number)
        return scores
