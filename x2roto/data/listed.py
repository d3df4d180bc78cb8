"""A data set as a list of requests and the function that makes a sample of one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from x2roto.data.sample import Category, Sample


@dataclass(frozen=True, slots=True, eq=False)
class Listed:
    """A `Dataset` over `items`, cheap records of one request each; `make` gives the sample of one.

    `make` must be picklable, a function or a `functools.partial`, so that loader processes can have the data set.
    """

    name: str
    categories: tuple[Category, ...]
    items: Sequence[Any]
    make: Callable[[Any], Sample]

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Sample:
        """The sample of an index. Raises IndexError outside the data set, InputError when a file is damaged."""
        return self.make(self.items[index])
