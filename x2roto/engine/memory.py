"""The FIFO mask memory as a value: the caller owns it, hands it in, gets the next one back, saves it, restores it.

Frame t sees t-1 … t-capacity: it is read before it is remembered (arXiv 2605.00891 §3; engine spec of
wanghao9610/X2SAM@5b0b106 `segmentors/x_segmentor.py`: five past frames, oldest dropped first).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class MemoryEntry:
    """One remembered frame. `step`: its position in the order of tracking. `maps_bchw`: one map per scale."""

    step: int
    maps_bchw: tuple[Tensor, ...]


@dataclass(frozen=True, slots=True)
class Memory:
    """The last `capacity` remembered frames, oldest first. `step`: how many frames have passed.

    `anchored`: the first frame remembered stays, and counts as `capacity` frames ago once it is older. `prompt`: one
    map per scale of the region that asked, if the model remembers it; kept for the whole shot and not
    counted. Raises ValueError for a capacity below 1.
    """

    capacity: int
    step: int = 0
    entries: tuple[MemoryEntry, ...] = ()
    prompt: tuple[Tensor, ...] = ()
    anchored: bool = False

    def __post_init__(self) -> None:
        if self.capacity < 1:
            raise ValueError(f"the mask memory must hold at least 1 frame, not {self.capacity}")

    def remember(self, maps_bchw: tuple[Tensor, ...]) -> Self:
        """The memory after a frame whose maps are kept."""
        entries = (*self.entries, MemoryEntry(self.step, maps_bchw))
        if len(entries) > self.capacity:
            kept = self.anchored and self.capacity > 1
            entries = (entries[0], *entries[2:]) if kept else entries[1:]
        return replace(self, step=self.step + 1, entries=entries)

    def pass_over(self) -> Self:
        """The memory after a frame that must not be remembered (a damaged one, say)."""
        return replace(self, step=self.step + 1)

    @property
    def empty(self) -> bool:
        """Whether there is nothing to look at."""
        return not (self.prompt or self.entries)

    def gaps(self) -> tuple[int, ...]:
        """Distance in frames from the frame about to be read to each entry; 0, which no frame has, for the prompt."""
        longest = self.capacity if self.anchored else self.step
        return (*(0 for _ in self.prompt[:1]), *(min(self.step - entry.step, longest) for entry in self.entries))

    def maps(self, scale: int) -> list[Tensor]:
        """The maps of one scale, the prompt's first."""
        return [*self.prompt[scale : scale + 1], *(entry.maps_bchw[scale] for entry in self.entries)]

    def newest(self) -> tuple[Tensor, ...]:
        """The maps of the frame remembered last, else those of the prompt."""
        return self.entries[-1].maps_bchw if self.entries else self.prompt

    def first(self) -> tuple[Tensor, ...]:
        """The maps of the oldest frame remembered, else those of the prompt."""
        return self.entries[0].maps_bchw if self.entries else self.prompt

    def tokens(self, scale: int) -> Tensor:
        """All maps of one scale as tokens (B, maps * h * w, C)."""
        return torch.cat([map_bchw.flatten(2).mT for map_bchw in self.maps(scale)], dim=1)

    def to(self, device: torch.device | str) -> Self:
        """The same memory on another device."""
        return self._each(lambda map_bchw: map_bchw.to(device))

    def cloned(self) -> Self:
        """The same memory in tensors of its own."""
        return self._each(torch.clone)

    def tensors(self) -> Iterator[Tensor]:
        """All maps, in a fixed order."""
        yield from self.prompt
        for entry in self.entries:
            yield from entry.maps_bchw

    def _each(self, change: Callable[[Tensor], Tensor]) -> Self:
        entries = tuple(MemoryEntry(entry.step, tuple(map(change, entry.maps_bchw))) for entry in self.entries)
        return replace(self, entries=entries, prompt=tuple(map(change, self.prompt)))
