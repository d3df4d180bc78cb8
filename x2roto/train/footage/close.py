"""A clip as a model with windows sees it: a window of each frame around the object that is asked for.

The first window comes from the region, each later one from where the object was in the frame before, unsteadily, as
the model's own mattes will be.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from x2roto.engine.window import Window, first_window
from x2roto.train.samples import ClipSample

Masks = NDArray[np.bool_]

JITTER_SIDE = 0.15  # one standard deviation of the logarithm
JITTER_PLACE = 0.04  # of the side


@dataclass(frozen=True, slots=True)
class Close:
    """How a clip is looked at. `room`: as `ModelConfig.room`; `side`: of the pictures it becomes."""

    room: float
    side: int

    def look(self, sample: ClipSample, rng: np.random.Generator, *, pointed: bool) -> ClipSample | None:
        """The windows of a sample with one region, which is on its first frame, and the masks of what it asks for.

        None where the window shows nothing of it.
        """
        assert sample.masks is not None
        (region,) = sample.targets
        assert not isinstance(region, str)
        windows = [self._unsteady(first_window(region, self.room, pointed=pointed), rng)]
        for t in range(len(sample.frames) - 1):
            last = windows[-1]
            shown = last.crop(np.asarray(sample.masks[:, t].any(0)))
            windows.append(self._unsteady(last.following(shown, self.room), rng))
        target = self._masks(windows[0], region[None])[0]
        if not target.any():
            return None
        masks = [self._masks(window, sample.masks[:, t]) for t, window in enumerate(windows)]
        if not masks[0].any():
            return None
        frames = [self._picture(window.crop(frame)) for window, frame in zip(windows, sample.frames, strict=True)]
        return ClipSample(
            np.stack(frames),
            sample.task,
            (target,),
            np.stack(masks, axis=1),
            sample.condition,
            glimpse=sample.frames,
            pointed=pointed,
            windows=np.array([window.edges for window in windows], np.float32),
        )

    def _unsteady(self, window: Window, rng: np.random.Generator) -> Window:
        side = window.side * float(np.exp(rng.normal(0, JITTER_SIDE)))
        x, y = rng.normal(0, JITTER_PLACE * side, 2)
        middle = (window.x0 + window.x1) / 2, (window.y0 + window.y1) / 2
        return Window.around(middle[0] + x, middle[1] + y, side, window.width, window.height)

    def _picture(self, picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return np.asarray(Image.fromarray(picture).resize((self.side, self.side), Image.Resampling.BILINEAR))

    def _masks(self, window: Window, masks_nhw: Masks) -> Masks:
        resized = [
            Image.fromarray(window.crop(mask).astype(np.uint8) * 255).resize(
                (self.side, self.side), Image.Resampling.BILINEAR
            )
            for mask in masks_nhw
        ]
        return np.stack([np.asarray(mask) > 127 for mask in resized])
