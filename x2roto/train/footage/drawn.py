"""Things drawn from nothing: walking figures, dogs, cars, trees, balls, boxes, houses and nameless blobs.

Each is a short cycle of straight-alpha pictures with shading, cloth and fur patterns, whose colours are known
because they were chosen. They make footage possible without a single file, and give "the man in red" a walk.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, zoom

from x2roto.train.footage.vocabulary import NAMELESS, Label, label, recoloured

Array = NDArray[np.float32]

HEIGHT = 128  # pixels, of the longer side of a drawing
PHASES = 8  # pictures of one walking cycle

_RGB: Mapping[str, tuple[float, float, float]] = {
    "red": (0.75, 0.1, 0.1),
    "orange": (0.93, 0.48, 0.08),
    "yellow": (0.9, 0.8, 0.15),
    "green": (0.15, 0.55, 0.2),
    "blue": (0.14, 0.27, 0.7),
    "purple": (0.46, 0.2, 0.65),
    "pink": (0.95, 0.55, 0.7),
    "brown": (0.42, 0.26, 0.13),
    "black": (0.09, 0.09, 0.1),
    "grey": (0.5, 0.5, 0.5),
    "white": (0.92, 0.92, 0.9),
}
_SKIN = ((0.93, 0.76, 0.65), (0.82, 0.6, 0.46), (0.6, 0.4, 0.28), (0.38, 0.25, 0.18))
_HAIR = ((0.1, 0.07, 0.05), (0.3, 0.18, 0.1), (0.6, 0.45, 0.22), (0.55, 0.55, 0.55))
_CLOTH = tuple(_RGB)
_FUR = ("brown", "black", "white", "grey")


@dataclass(frozen=True, slots=True, eq=False)
class Sprite:
    """What a thing looks like: `pictures` (F, h, w, 4) uint8, straight alpha, one motion cycle; and its label."""

    pictures: NDArray[np.uint8]
    label: Label


def drawn_nouns() -> tuple[str, ...]:
    """What can be drawn by name."""
    return tuple(_DRAWERS)


def draw(noun: str | None, variant: int, texture: NDArray[np.uint8] | None = None) -> Sprite:
    """The same drawing for the same `noun` and `variant`; `noun` None: a blob, of `texture` (h, w, 3) if given."""
    rng = np.random.default_rng([variant, *(noun or "blob").encode()])
    if noun is None:
        return Sprite(_pictures([_blob(rng, texture)]), NAMELESS)
    canvases, colours, dressed = _DRAWERS[noun](rng)
    known = recoloured(label(noun, dressed=dressed), colours)
    return Sprite(_pictures(canvases), known)


def value_noise(rng: np.random.Generator, height: int, width: int, cells: int) -> Array:
    """Smooth noise in 0..1 with about `cells` bumps along the longer side."""
    step = max(height, width) / cells
    coarse = rng.random((int(height / step) + 3, int(width / step) + 3), dtype=np.float32)
    fine = zoom(coarse, step, order=1)[:height, :width]
    return np.asarray(gaussian_filter(fine, step / 3), np.float32)


# ---- canvas -----------------------------------------------------------------------------------------------


class _Canvas:
    """A premultiplied picture that shaded parts are laid over, nearest last. Unit: the drawing's height."""

    def __init__(self, width: float, rng: np.random.Generator, height: float = 1.0) -> None:
        scale = HEIGHT / max(height, width)
        self.rows, self.columns = np.mgrid[: round(height * scale), : round(width * scale)].astype(np.float32) / scale
        self.rgba = np.zeros((*self.rows.shape, 4), np.float32)
        self._scale = scale
        self._noise = value_noise(rng, self.rows.shape[0], self.rows.shape[1], 24)

    def limb(
        self,
        start: tuple[float, float],
        stop: tuple[float, float],
        radius: float,
        colour: Array,
        *,
        taper: float = 1.0,
        pattern: Callable[[Array, Array], Array] | None = None,
    ) -> tuple[float, float]:
        """A round bar from `start` to `stop` (x, y), `taper` times as thick at its end. Returns `stop`."""
        (x0, y0), (x1, y1) = start, stop
        dx, dy = x1 - x0, y1 - y0
        length = max(dx * dx + dy * dy, 1e-8)
        along = np.clip(((self.columns - x0) * dx + (self.rows - y0) * dy) / length, 0, 1)
        off_x, off_y = self.columns - x0 - along * dx, self.rows - y0 - along * dy
        reach = radius * (1 + (taper - 1) * along)
        distance = np.hypot(off_x, off_y)
        round_ = np.sqrt(np.clip(1 - (distance / reach) ** 2, 0, 1))
        light = 0.55 + 0.4 * round_ - 0.22 * np.clip(off_x / reach, -1, 1) - 0.12 * np.clip(off_y / reach, -1, 1)
        shade = light * (0.85 + 0.3 * self._noise)
        paint = colour * (pattern(self.columns, self.rows)[..., None] if pattern else 1)
        self.lay(paint * shade[..., None], np.clip((reach - distance) * self._scale + 0.5, 0, 1))
        return stop

    def polygon(self, corners: list[tuple[float, float]], colour: Array, *, roundness: float = 0.0) -> None:
        """A convex polygon (x, y corners, clockwise on screen), its corners rounded."""
        inside = np.full(self.rows.shape, np.inf, np.float32)
        for (x0, y0), (x1, y1) in zip(corners, [*corners[1:], corners[0]], strict=True):
            normal = np.hypot(x1 - x0, y1 - y0)
            edge = ((x1 - x0) * (self.rows - y0) - (y1 - y0) * (self.columns - x0)) / normal
            inside = np.minimum(inside, edge) if not roundness else _smooth_minimum(inside, edge, roundness)
        light = 0.75 + 0.25 * np.clip(1 - self.rows, 0, 1) + 0.12 * (self._noise - 0.5)
        self.lay(colour * light[..., None], np.clip(inside * self._scale + 0.5, 0, 1))

    def lay(self, colour: Array, coverage: Array) -> None:
        """`colour` (h, w, 3) over what is there where `coverage` (h, w) is."""
        cover = coverage[..., None]
        self.rgba[..., :3] = self.rgba[..., :3] * (1 - cover) + np.clip(colour, 0, 1) * cover
        self.rgba[..., 3:] = self.rgba[..., 3:] * (1 - cover) + cover


def _smooth_minimum(a: Array, b: Array, width: float) -> Array:
    blend = np.clip(0.5 + 0.5 * (np.minimum(b, 9) - np.minimum(a, 9)) / width, 0, 1)
    mixed = np.minimum(b, 9) * (1 - blend) + np.minimum(a, 9) * blend - width * blend * (1 - blend)
    return np.asarray(mixed, np.float32)


def _pictures(canvases: list[Array]) -> NDArray[np.uint8]:
    """Straight-alpha bytes of premultiplied pictures, cropped together to what is drawn."""
    stack = np.stack(canvases)
    seen = stack[..., 3].max(0) > 0.02
    rows, columns = np.flatnonzero(seen.any(1)), np.flatnonzero(seen.any(0))
    stack = stack[:, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    stack[..., :3] /= np.maximum(stack[..., 3:], 1e-4)
    return np.asarray(np.clip(stack, 0, 1) * 255 + 0.5, np.uint8)


def _rgb(colour: str, rng: np.random.Generator) -> Array:
    return np.clip(
        np.array(_RGB[colour], np.float32) * rng.uniform(0.93, 1.07) + rng.normal(0, 0.01, 3), 0, 1
    ).astype(np.float32)


def _pick(rng: np.random.Generator, palette: tuple[tuple[float, float, float], ...]) -> Array:
    return np.array(palette[rng.integers(len(palette))], np.float32) * np.float32(rng.uniform(0.9, 1.1))


def _pattern(rng: np.random.Generator) -> Callable[[Array, Array], Array] | None:
    """Faint stripes or checks, too faint to change the colour's name."""
    kind, pitch, depth = rng.integers(4), rng.uniform(60, 160), rng.uniform(0.1, 0.2)
    if kind == 0:
        return lambda x, y: 1 - depth * (np.sin(pitch * y) > 0)
    if kind == 1:
        return lambda x, y: 1 - depth * ((np.sin(pitch * y) > 0) ^ (np.sin(pitch * x) > 0))
    return None


# ---- drawings ---------------------------------------------------------------------------------------------

_Drawing = tuple[list[Array], tuple[str, ...], bool]


def _figure(rng: np.random.Generator, female: bool) -> _Drawing:
    shirt = _CLOTH[rng.integers(len(_CLOTH))]
    legs = ("black", "blue", "grey", "brown", shirt)[rng.integers(5)]
    look = _Look(
        shirt=_rgb(shirt, rng),
        legs=_rgb(legs, rng),
        shoes=_rgb(("black", "brown", "white")[rng.integers(3)], rng),
        skin=_pick(rng, _SKIN),
        hair=_pick(rng, _HAIR),
        pattern=_pattern(rng),
        build=float(rng.uniform(0.85, 1.2)),
        stride=float(rng.uniform(0.25, 0.6)),
        skirt=female and rng.random() < 0.6,
        female=female,
    )
    frames = [_walker(look, 2 * np.pi * phase / PHASES, rng) for phase in range(PHASES)]
    return frames, (shirt,), True


@dataclass(frozen=True, slots=True, eq=False)
class _Look:
    shirt: Array
    legs: Array
    shoes: Array
    skin: Array
    hair: Array
    pattern: Callable[[Array, Array], Array] | None
    build: float
    stride: float
    skirt: bool
    female: bool


def _walker(look: _Look, phase: float, rng: np.random.Generator) -> Array:
    canvas = _Canvas(0.62, rng)
    lift = 0.012 * np.cos(2 * phase)
    hip, chest = (0.31, 0.53 + lift), (0.315, 0.24 + lift)
    swing = look.stride * np.sin(phase)
    _arm(canvas, look, (chest[0] - 0.02, chest[1]), swing)
    _leg(canvas, look, hip, -swing)
    _leg(canvas, look, hip, swing)
    _trunk(canvas, look, hip, chest)
    _head(canvas, look, (chest[0] + 0.005, 0.1 + lift))
    _arm(canvas, look, (chest[0] + 0.01, chest[1]), -swing)
    return canvas.rgba


def _leg(canvas: _Canvas, look: _Look, hip: tuple[float, float], swing: float) -> None:
    cloth = look.skin if look.skirt else look.legs
    knee = (hip[0] + 0.22 * np.sin(swing), hip[1] + 0.22 * np.cos(swing))
    bend = swing - 0.5 * abs(swing) - 0.05
    foot = (knee[0] + 0.2 * np.sin(bend), knee[1] + 0.2 * np.cos(bend))
    canvas.limb(hip, knee, 0.058 * look.build, cloth, taper=0.8)
    canvas.limb(knee, foot, 0.045 * look.build, cloth, taper=0.75)
    canvas.limb(foot, (foot[0] + 0.055, foot[1] + 0.005), 0.027, look.shoes)


def _arm(canvas: _Canvas, look: _Look, shoulder: tuple[float, float], swing: float) -> None:
    elbow = (shoulder[0] + 0.16 * np.sin(swing), shoulder[1] + 0.16 * np.cos(swing))
    hand = (elbow[0] + 0.15 * np.sin(swing + 0.35), elbow[1] + 0.15 * np.cos(swing + 0.35))
    canvas.limb(elbow, hand, 0.026 * look.build, look.skin, taper=0.9)
    canvas.limb(shoulder, elbow, 0.036 * look.build, look.shirt, taper=0.85, pattern=look.pattern)


def _trunk(canvas: _Canvas, look: _Look, hip: tuple[float, float], chest: tuple[float, float]) -> None:
    if look.skirt:
        hem = (hip[0], hip[1] + 0.17)
        canvas.limb((hip[0], hip[1] - 0.05), hem, 0.075 * look.build, look.legs, taper=1.5)
    canvas.limb(chest, (hip[0], hip[1] - 0.03), 0.092 * look.build, look.shirt, taper=0.82, pattern=look.pattern)


def _head(canvas: _Canvas, look: _Look, centre: tuple[float, float]) -> None:
    x, y = centre
    canvas.limb((x, y + 0.03), (x, y + 0.11), 0.03, look.skin)
    if look.female:
        canvas.limb((x - 0.02, y - 0.01), (x - 0.045, y + 0.13), 0.05, look.hair, taper=0.8)
    canvas.limb((x, y - 0.022), (x + 0.002, y + 0.03), 0.05, look.skin, taper=0.85)
    canvas.limb((x - 0.012, y - 0.045), (x - 0.02, y - 0.01), 0.05, look.hair, taper=0.8)


def _man(rng: np.random.Generator) -> _Drawing:
    return _figure(rng, female=False)


def _woman(rng: np.random.Generator) -> _Drawing:
    return _figure(rng, female=True)


def _dog(rng: np.random.Generator) -> _Drawing:
    name = _FUR[rng.integers(len(_FUR))]
    coat, build = _rgb(name, rng), rng.uniform(0.8, 1.25)
    return [_hound(coat, build, 2 * np.pi * phase / PHASES, rng) for phase in range(PHASES)], (name,), False


def _hound(coat: Array, build: float, phase: float, rng: np.random.Generator) -> Array:
    canvas = _Canvas(1.25, rng)
    swing = 0.45 * np.sin(phase)
    for hip, turn in ((0.3, swing), (0.83, -swing), (0.38, -swing), (0.9, swing)):
        knee = canvas.limb((hip, 0.55), (hip + 0.16 * np.sin(turn), 0.72), 0.062 * build, coat * 0.92, taper=0.7)
        canvas.limb(knee, (knee[0] + 0.12 * np.sin(turn - 0.3), 0.93), 0.042 * build, coat * 0.92, taper=0.8)
    canvas.limb((0.25, 0.47), (0.1, 0.27 + 0.05 * np.sin(2 * phase)), 0.035, coat, taper=0.5)
    canvas.limb((0.32, 0.5), (0.88, 0.48), 0.13 * build, coat, taper=1.1)
    canvas.limb((0.9, 0.45), (1.0, 0.26), 0.09 * build, coat, taper=0.85)
    canvas.limb((1.0, 0.23), (1.15, 0.28), 0.085, coat, taper=0.55)
    canvas.limb((0.97, 0.18), (0.93, 0.31), 0.04, coat * 0.75, taper=0.7)
    canvas.limb((1.185, 0.265), (1.19, 0.27), 0.022, np.zeros(3, np.float32) + 0.05)
    return canvas.rgba


def _car(rng: np.random.Generator) -> _Drawing:
    name = ("red", "yellow", "green", "blue", "black", "white", "grey", "orange")[rng.integers(8)]
    paint, canvas, roof = _rgb(name, rng), _Canvas(2.0, rng, 0.9), rng.uniform(0.05, 0.16)
    glass, tyre = np.array([0.2, 0.26, 0.3], np.float32), np.array([0.07, 0.07, 0.07], np.float32)
    canvas.polygon([(0.55, roof), (1.2, roof), (1.55, 0.42), (0.3, 0.42)], paint, roundness=0.06)
    canvas.polygon([(0.62, roof + 0.06), (0.88, roof + 0.06), (0.88, 0.38), (0.45, 0.38)], glass, roundness=0.03)
    canvas.polygon([(0.94, roof + 0.06), (1.16, roof + 0.06), (1.4, 0.38), (0.94, 0.38)], glass, roundness=0.03)
    canvas.polygon([(0.1, 0.38), (1.86, 0.4), (1.93, 0.7), (0.07, 0.7)], paint, roundness=0.1)
    for x in (0.47, 1.5):
        canvas.limb((x, 0.7), (x + 1e-3, 0.7), 0.17, tyre)
        canvas.limb((x, 0.7), (x + 1e-3, 0.7), 0.09, np.array([0.6, 0.6, 0.62], np.float32))
    return [canvas.rgba], (name,), False


def _tree(rng: np.random.Generator) -> _Drawing:
    canvas, bark = _Canvas(0.8, rng), _rgb("brown", rng)
    canvas.limb((0.4, 0.97), (0.4, 0.45), rng.uniform(0.03, 0.06), bark, taper=0.7)
    leaf = _rgb("green", rng) * np.array([rng.uniform(0.7, 1.3), 1, rng.uniform(0.5, 1)], np.float32)
    for _ in range(42):
        angle, reach = rng.uniform(0, 2 * np.pi), 0.25 * np.sqrt(rng.random())
        at = (0.4 + reach * np.cos(angle), 0.34 + reach * np.sin(angle))
        canvas.limb(at, (at[0] + 0.01, at[1]), rng.uniform(0.04, 0.1), leaf * np.float32(rng.uniform(0.65, 1.15)))
    return [canvas.rgba], ("green",), False


def _ball(rng: np.random.Generator) -> _Drawing:
    name = _CLOTH[rng.integers(len(_CLOTH))]
    canvas, stripe, turn = _Canvas(1.0, rng), rng.uniform(5, 16), rng.uniform(0, 3)
    canvas.limb(
        (0.5, 0.5),
        (0.501, 0.5),
        0.48,
        _rgb(name, rng),
        pattern=lambda x, y: 1 - 0.22 * (np.sin(stripe * (x * np.cos(turn) + y * np.sin(turn))) > 0.6),
    )
    return [canvas.rgba], (name,), False


def _box(rng: np.random.Generator) -> _Drawing:
    name = _CLOTH[rng.integers(len(_CLOTH))]
    canvas, paint, depth = _Canvas(1.0, rng), _rgb(name, rng), rng.uniform(0.12, 0.3)
    canvas.polygon([(0.02, depth), (depth, 0.02), (0.98, 0.02), (0.98 - depth, depth)], paint * 1.1)
    canvas.polygon([(0.98 - depth, depth), (0.98, 0.02), (0.98, 0.98 - depth), (0.98 - depth, 0.98)], paint * 0.72)
    canvas.polygon([(0.02, depth), (0.98 - depth, depth), (0.98 - depth, 0.98), (0.02, 0.98)], paint)
    return [canvas.rgba], (name,), False


def _house(rng: np.random.Generator) -> _Drawing:
    name = ("red", "yellow", "white", "grey", "brown", "orange")[rng.integers(6)]
    canvas, dark = _Canvas(1.1, rng), np.array([0.15, 0.17, 0.2], np.float32)
    canvas.polygon([(0.12, 0.42), (0.98, 0.42), (0.98, 0.98), (0.12, 0.98)], _rgb(name, rng))
    canvas.polygon([(0.55, 0.05), (1.07, 0.45), (0.03, 0.45)], _rgb(name, rng) * 0.75)
    for x in (0.25, 0.7):
        canvas.polygon([(x, 0.52), (x + 0.15, 0.52), (x + 0.15, 0.68), (x, 0.68)], dark)
    canvas.polygon([(0.48, 0.68), (0.62, 0.68), (0.62, 0.98), (0.48, 0.98)], dark * 1.6)
    return [canvas.rgba], (name,), False


_DRAWERS: Mapping[str, Callable[[np.random.Generator], _Drawing]] = {
    "man": _man,
    "woman": _woman,
    "dog": _dog,
    "car": _car,
    "tree": _tree,
    "ball": _ball,
    "box": _box,
    "house": _house,
}


def _blob(rng: np.random.Generator, texture: NDArray[np.uint8] | None) -> Array:
    """A closed outline with a surface, or a bar when it is to stand like a pole."""
    y, x = np.mgrid[-1 : 1 : HEIGHT * 1j, -1 : 1 : HEIGHT * 1j].astype(np.float32)
    angle, outline = np.arctan2(y, x), np.full(x.shape, 0.68, np.float32)
    for wave in range(2, 7):
        outline += rng.normal(0, 0.16 / wave) * np.cos(wave * angle + rng.uniform(0, 2 * np.pi))
    if rng.random() < 0.3:
        inside = np.minimum(0.95 - np.abs(y), rng.uniform(0.1, 0.4) - np.abs(x))
    else:
        inside = np.minimum(outline, 0.97) - np.hypot(x, y)
    surface = _surface(rng, texture)
    shade = 0.75 + 0.25 * np.clip(inside * 4, 0, 1) - 0.2 * (x + y) / 2
    rgba = np.concatenate([surface * shade[..., None], np.ones((*x.shape, 1), np.float32)], axis=-1)
    return np.asarray(rgba * np.clip(inside * HEIGHT / 2 + 0.5, 0, 1)[..., None], np.float32)


def _surface(rng: np.random.Generator, texture: NDArray[np.uint8] | None) -> Array:
    if texture is None:
        noise = value_noise(rng, HEIGHT, HEIGHT, int(rng.integers(4, 30)))[..., None]
        first, second = rng.random((2, 3), dtype=np.float32)
        return np.asarray(first * noise + second * (1 - noise), np.float32)
    rows = np.linspace(0, texture.shape[0] - 1, HEIGHT).astype(int)
    columns = np.linspace(0, texture.shape[1] - 1, HEIGHT).astype(int)
    return np.asarray(texture[rows][:, columns] / np.float32(255))
