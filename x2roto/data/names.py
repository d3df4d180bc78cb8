"""Names and numbers in annotations: splits, keys of tables, and how classes are said."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from x2roto.data.sample import Category
from x2roto.errors import InputError

T = TypeVar("T")


def chosen(name: str, choices: Mapping[str, T], layout: str) -> T:
    """The entry of a split. Raises InputError listing those there are."""
    if name not in choices:
        raise InputError(f"{layout} has no split {name!r}: choose one of {', '.join(choices)}")
    return choices[name]


def in_order(numbers: Iterable[Any], path: Path, what: str) -> list[Any]:
    """Keys of a table by rising number or name. Raises InputError when some are numbers and some are names."""
    found = list(numbers)
    if len({type(each) for each in found}) > 1:
        raise InputError(f"{path}: {what} are numbers and names in one: the file is damaged", path)
    return sorted(found)


def whole_numbers(values: Iterable[Any], path: Path, what: str) -> tuple[int, ...]:
    """Numbers written as such or as text. Raises InputError for anything else."""
    found = tuple(values)
    if not all((isinstance(each, int) and not isinstance(each, bool)) or str(each).isdecimal() for each in found):
        raise InputError(f"{path}: {what} has {found}, not whole numbers: the file is damaged", path)
    return tuple(int(each) for each in found)


def spoken(name: str) -> str:
    """A class name as the data sets of the reference say it: no brackets, dots, underscores or hyphens, lower case.

    Source: wanghao9610/X2SAM@5b0b106 x2sam/x2sam/dataset/utils/format.py.
    """
    plain = re.sub(r"\(.*\)|\.", "", name)
    return re.sub(r"[_-]", " ", plain).replace("  ", " ").strip().lower()


def class_targets(categories: Iterable[Category]) -> tuple[str, ...]:
    """The names of all classes, one condition each."""
    return tuple(spoken(category.name) for category in categories)
