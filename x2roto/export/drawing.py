"""Pictures for people: coloured mattes with outlines, name tags, text. Eight-bit RGB, display-encoded."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

# Imported here and not where it is used: drawing threads that import it first, at once, can find scipy half made.
from scipy.ndimage import minimum_filter

from x2roto.matte import FloatArray, Matte, MatteFrame, Track, bounds

RGB = tuple[int, int, int]
# Bright, apart from each other also for most colour-blind people; used in turn.
COLOURS: tuple[RGB, ...] = (
    (0, 190, 255),
    (255, 140, 0),
    (70, 220, 110),
    (255, 80, 150),
    (250, 220, 40),
    (150, 110, 255),
    (0, 220, 200),
    (255, 95, 70),
    (170, 220, 30),
    (210, 140, 255),
)
FILL = 0.42
INK: RGB = (245, 245, 245)
DIM: RGB = (165, 165, 170)
PAPER: RGB = (24, 24, 27)
SHADE = 0.62


def colour_of(track: Track) -> RGB:
    """The colour an object has in every picture of a take."""
    return COLOURS[(track.id - 1) % len(COLOURS)]


@lru_cache(maxsize=32)
def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's own typeface at a size in pixels."""
    return ImageFont.load_default(size)


def tinted(plate: NDArray[np.uint8], result: MatteFrame) -> NDArray[np.uint8]:
    """The plate with every matte in its colour and a bright outline on its edge."""
    picture = plate.astype(np.float32)
    line = max(1, round(plate.shape[0] / 540))
    for matte in result.mattes:
        region = bounds(matte.alpha, margin=line)
        if region is not None:
            _tint(picture[region], matte.alpha[region], colour_of(matte.track), line)
    return (picture + 0.5).astype(np.uint8)


def _tint(picture: FloatArray, alpha: FloatArray, colour: RGB, line: int) -> None:
    ink = np.array(colour, np.float32)
    picture += (FILL * alpha)[..., None] * (ink - picture)
    picture += outline(alpha, line)[..., None] * (ink - picture)


def outline(alpha: FloatArray, width: int) -> FloatArray:
    """Coverage of a line of `width` pixels just inside the edge of a matte, soft as the matte is."""
    inner = minimum_filter(alpha, size=2 * width + 1, mode="nearest")
    return np.asarray(alpha - inner, np.float32)


def tag(canvas: Image.Image, matte: Matte) -> None:
    """The object's name on a plate of its colour above its matte, whatever the canvas's scale; none if empty."""
    region = bounds(matte.alpha >= 0.5)
    if region is None:
        return
    rows, columns = region
    down, across = canvas.height / matte.alpha.shape[0], canvas.width / matte.alpha.shape[1]
    letters = font(max(12, canvas.height // 40))
    pad = max(3, canvas.height // 180)
    left, top, right, bottom = letters.getbbox(matte.track.label)
    width, height = int(right - left) + 2 * pad, int(bottom - top) + 2 * pad
    x = round(min(max(0, (columns.start + columns.stop) * across / 2 - width / 2), max(0, canvas.width - width)))
    y = round(max(0, rows.start * down - height - 2 * pad))
    draw = ImageDraw.Draw(canvas)
    draw.rounded_rectangle((x, y, x + width, y + height), radius=pad, fill=colour_of(matte.track))
    draw.text((x + pad - left, y + pad - top), matte.track.label, font=letters, fill=(10, 10, 12))


def footer(canvas: Image.Image, left: str, right: str) -> None:
    """A darkened strip along the bottom with text at both ends."""
    size = max(12, canvas.height // 40)
    strip = canvas.height - round(size * 1.9)
    box = (0, strip, canvas.width, canvas.height)
    shaded = Image.blend(canvas.crop(box), Image.new("RGB", (box[2], box[3] - box[1])), SHADE)
    canvas.paste(shaded, box)
    draw, middle = ImageDraw.Draw(canvas), strip + (canvas.height - strip) / 2
    draw.text((size, middle), left, font=font(size), fill=INK, anchor="lm")
    draw.text((canvas.width - size, middle), right, font=font(size), fill=INK, anchor="rm")


def marked_up(plate: NDArray[np.uint8], result: MatteFrame, size: tuple[int, int] | None = None) -> Image.Image:
    """The plate with coloured mattes and name tags, scaled to `size` (width, height) before the tags are set."""
    canvas = Image.fromarray(tinted(plate, result))
    if size is not None:
        canvas = canvas.resize(size, Image.Resampling.LANCZOS)
    for matte in result.mattes:
        tag(canvas, matte)
    return canvas
