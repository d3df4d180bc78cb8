"""The FIFO mask memory as a value: the caller owns it, hands it in, gets the next one back, saves it, restores it.

Frame t sees t-1 … t-capacity: it is read before it is remembered (arXiv 2605.00891 §3; engine spec of
wanghao9610/X2SAM@5b0b106 `segmentors/x_segmentor.py`: five past frames, oldest dropped first).
"""

from __future__ import annotations

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

    Raises ValueError for a capacity below 1.
    """

    capacity: int
    step: int = 0
    entries: tuple[MemoryEntry, ...] = ()

    def __post_init__(self) -> None:
        if self.capacity < 1:
            raise ValueError(f"the mask memory must hold at least 1 frame, not {self.capacity}")

    def remember(self, maps_bchw: tuple[Tensor, ...]) -> Self:
        """The memory after a frame whose maps are kept."""
        entry = MemoryEntry(self.step, maps_bchw)
        return replace(self, step=self.step + 1, entries=(*self.entries, entry)[-self.capacity :])

    def pass_over(self) -> Self:
        """The memory after a frame that must not be remembered (a damaged one, say)."""
        return replace(self, step=self.step + 1)

    def gaps(self) -> tuple[int, ...]:
        """Distance in frames from the frame about to be read to each entry."""
        return tuple(self.step - entry.step for entry in self.entries)

    def tokens(self, scale: int) -> Tensor:
        """All entries of one scale as tokens (B, entries * h * w, C)."""
        return torch.cat([entry.maps_bchw[scale].flatten(2).mT for entry in self.entries], dim=1)

    def to(self, device: torch.device | str) -> Self:
        """The same memory on another device."""
        entries = tuple(
            MemoryEntry(entry.step, tuple(m.to(device) for m in entry.maps_bchw)) for entry in self.entries
        )
        return replace(self, entries=entries)
