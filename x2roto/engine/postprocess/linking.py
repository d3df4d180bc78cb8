"""Panoptic ids that stay the same through a shot."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from x2roto.engine.postprocess.segments import VOID, Panoptic


@dataclass(frozen=True, slots=True)
class LinkMemory:
    """What `link` knows of the shot so far.

    `id_map` (H, W) of the previous frame and its `things`, id to category; `stuff`, category to id, and the
    `last_id` given, both of the whole shot. A shot starts with `LinkMemory()`.
    """

    id_map: Tensor | None = None
    things: Mapping[int, int] = field(default_factory=dict)
    stuff: Mapping[int, int] = field(default_factory=dict)
    last_id: int = VOID


def link(
    frame: Panoptic, memory: LinkMemory, *, threshold: float = 0.5, reference: bool = False
) -> tuple[Panoptic, LinkMemory]:
    """The frame with the shot's ids, and the memory for the next one.

    A thing keeps the id of the previous frame's thing of its class that it overlaps most, if by more than
    `threshold` IoU; others get ids never used before; a stuff class has one id. With `reference`, only
    matched ids change, as in wanghao9610/X2SAM@5b0b106 `x2sam/x2sam/dataset/utils/process.py`
    (`VideoInstanceTracker`): other ids stay those of the frame and may collide.
    """
    # As a dict the last of several segments with one id stands for them all; only the reference has such.
    things = {id: s.category for id, s in {s.id: s for s in frame.segments}.items() if s.is_thing}
    matches = _matches(things, memory.things, _ious(frame.id_map, memory.id_map), threshold)
    if reference:
        return _renamed_as_the_reference(frame, memory, things, matches)
    return _renamed(frame, memory, matches)


def _ious(current: Tensor, previous: Tensor | None) -> dict[tuple[int, int], float]:
    """IoU of each pair of ids, current and previous, that share a pixel."""
    if previous is None:
        return {}
    ids, index = current.unique(return_inverse=True)
    previous_ids, previous_index = previous.unique(return_inverse=True)
    pairs = (index * len(previous_ids) + previous_index).flatten()
    shared = pairs.bincount(minlength=len(ids) * len(previous_ids)).reshape(len(ids), -1)
    iou = shared.double() / (shared.sum(1)[:, None] + shared.sum(0) - shared)
    touching = (shared > 0).nonzero().T
    rows, columns = touching
    keys = zip(ids[rows].tolist(), previous_ids[columns].tolist(), strict=True)
    return dict(zip(keys, iou[rows, columns].tolist(), strict=True))


def _matches(
    things: Mapping[int, int],
    previous: Mapping[int, int],
    ious: Mapping[tuple[int, int], float],
    threshold: float,
) -> dict[int, int]:
    """Current id to previous id, each used once; things choose in their order."""
    matches: dict[int, int] = {}
    for id, category in things.items():
        free = [old for old, kind in previous.items() if kind == category and old not in matches.values()]
        best = max(free, key=lambda old: ious.get((id, old), 0.0), default=None)
        if best is not None and ious.get((id, best), 0.0) > threshold:
            matches[id] = best
    return matches


def _renamed(frame: Panoptic, memory: LinkMemory, matches: Mapping[int, int]) -> tuple[Panoptic, LinkMemory]:
    names, stuff, last_id = dict(matches), dict(memory.stuff), memory.last_id
    for segment in frame.segments:
        if not segment.is_thing and segment.category in stuff:
            names[segment.id] = stuff[segment.category]
        elif segment.id not in names:
            last_id += 1
            names[segment.id] = last_id
        if not segment.is_thing:
            stuff[segment.category] = names[segment.id]
    linked = _with_names(frame, names)
    things = {s.id: s.category for s in linked.segments if s.is_thing}
    return linked, LinkMemory(linked.id_map, things, stuff, last_id)


def _renamed_as_the_reference(
    frame: Panoptic, memory: LinkMemory, things: Mapping[int, int], matches: Mapping[int, int]
) -> tuple[Panoptic, LinkMemory]:
    linked = _with_names(frame, matches)
    if memory.things:
        things = {s.id: s.category for s in linked.segments if s.is_thing}
    return linked, LinkMemory(linked.id_map, things)


def _with_names(frame: Panoptic, names: Mapping[int, int]) -> Panoptic:
    ids, index = frame.id_map.unique(return_inverse=True)
    renamed = torch.tensor([names.get(id, id) for id in ids.tolist()], dtype=ids.dtype, device=ids.device)
    segments = tuple(replace(s, id=names.get(s.id, s.id)) for s in frame.segments)
    return Panoptic(renamed[index], segments)
