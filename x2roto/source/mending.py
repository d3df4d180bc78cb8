"""What stands in for a frame that cannot be read: the policy, and the count of what it did."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import DTypeLike, NDArray

from x2roto.clip import Frame
from x2roto.errors import InputError

Pixels: TypeAlias = NDArray[np.uint8] | NDArray[np.uint16] | NDArray[np.float32]
OnBadFrame: TypeAlias = Literal["error", "hold", "black"]


@dataclass(slots=True)
class Mender:
    """One clip's policy. `bad_frames`: reason by source index, each frame once however often it is read."""

    policy: OnBadFrame
    path: Path
    first_frame: int
    bad_frames: dict[int, str] = field(default_factory=dict)

    def stand_in(
        self, index: int, pts: Fraction | None, reason: str, before: Callable[[], Pixels | None], like: Pixels
    ) -> Frame:
        """The held frame for `index`: black with `like`'s shape and dtype, or what `before` gives, if anything.

        Raises `InputError` when the policy is "error".
        """
        self.bad_frames[index] = reason
        if self.policy == "error":
            raise InputError(
                f"{self.path}: frame {index + self.first_frame} cannot be used: {reason} "
                "(--on-bad-frame hold or black reads on)",
                self.path,
            )
        held = before() if self.policy == "hold" else None
        return Frame(index, pts, np.zeros_like(like) if held is None else held, held=True)


def odd_one_out(width: int, height: int, dtype: DTypeLike, like: Pixels) -> str | None:
    """Why a picture does not belong to the clip `like` is from (other size or sample type); None when it does."""
    if (height, width) != like.shape[:2]:
        return f"its size is {width}x{height}, the clip's is {like.shape[1]}x{like.shape[0]}"
    if np.dtype(dtype) != like.dtype:
        return f"its samples are {np.dtype(dtype)}, the clip's are {like.dtype}"
    return None
