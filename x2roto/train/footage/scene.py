"""The script of a clip: what plays where, how everything moves, how it is lit and filmed. Numbers, no pixels.

`compose` writes one from a seed. Lengths are in frame heights; x runs right and y down from the middle of the
picture. Everything that moves is given at the moments the shutter opens and closes, two per frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from x2roto.train.footage.drawn import Sprite
from x2roto.train.footage.material import Backdrop, Material, Prop
from x2roto.train.footage.vocabulary import Label, Noun, nouns

Track = NDArray[np.float32]  # (2T,): open and close of each frame's shutter


@dataclass(frozen=True, slots=True, eq=False)
class Camera:
    """Where the camera looks: `x`, `y` pan, `zoom` (1: none), `roll` in radians. Near things shift more."""

    x: Track
    y: Track
    zoom: Track
    roll: Track
    held: bool  # whether it does not move on purpose, so that what moves in the picture moves in the world


@dataclass(frozen=True, slots=True, eq=False)
class Actor:
    """A thing and its way through the clip.

    `x`, `y`: its middle, before the camera moves. `height`: of its picture. `depth`: 1 is the plane of focus'
    scale, larger is farther. `angle`: turn in the picture; `yaw`: turn about its vertical axis; radians.
    `cycle`: picture of the sprite at each frame (T,). `bend`: amplitude of its deformation, in its own heights.
    `stands`: whether it throws its shadow on a ground below it.
    """

    sprite: Sprite
    x: Track
    y: Track
    height: Track
    depth: Track
    angle: Track
    yaw: Track
    cycle: NDArray[np.int64]
    mirrored: bool
    bend: float
    stands: bool
    seed: int

    @property
    def label(self) -> Label:
        return self.sprite.label


@dataclass(frozen=True, slots=True, eq=False)
class Light:
    """`gain` (2T,): exposure over time. `tint` (3,): of the light. `slope` (2,): brighter to one side, per height.

    `match`: how far actors take on the backdrop's brightness and tint. `shadow`: 0 none, 1 black; `shadow_x`: how
    far it leans, in object heights.
    """

    gain: Track
    tint: Track
    slope: tuple[float, float]
    match: float
    shadow: float
    shadow_x: float


@dataclass(frozen=True, slots=True)
class Film:
    """What the camera does to the light. `blur` and `actor_blur`: sigma in thousandths of the frame height.

    `focus`: depth that is sharp; `noise`: sigma at mid grey; `grain`: its correlation in pixels;
    `quality`: of the compression, 100 is none.
    """

    blur: float
    defocus: float
    noise: float
    grain: float
    contrast: float
    saturation: float
    vignette: float
    quality: int


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """A clip before it is filmed. `actors` are in the order they were cast."""

    seed: tuple[int, ...]
    frames: int
    aspect: float
    backdrop: Backdrop
    window: tuple[float, float, float]  # of the backdrop: middle x and y (shares of the spare room), size (share)
    first_picture: int
    step: int  # pictures of a footage backdrop per frame
    relief: float  # parallax inside the backdrop
    camera: Camera
    actors: tuple[Actor, ...]
    light: Light
    film: Film


def compose(material: Material, seed: Sequence[int], *, frames: int, aspect: float = 16 / 9) -> Scene:
    """The scene of a seed. The same material, seed, length and aspect give the same scene."""
    rng = np.random.default_rng(list(seed))
    clock = _Clock(rng, frames, aspect)
    props = cast(rng, material)
    backdrop = _choose_backdrop(rng, material, {prop.noun for prop in props})
    place = _place(rng, clock, backdrop, tuple(seed))
    actors = tuple(_stage(rng, clock, props))
    camera = _following(rng, place.camera, actors[0]) if rng.random() < 0.3 else place.camera
    return replace(place, actors=actors, camera=camera)


def empty_scene(rng: np.random.Generator, backdrop: Backdrop, *, frames: int, aspect: float) -> Scene:
    """A camera in a place, and nobody in it."""
    return _place(rng, _Clock(rng, frames, aspect), backdrop, (int(rng.integers(1 << 31)),))


def _place(rng: np.random.Generator, clock: _Clock, backdrop: Backdrop, seed: tuple[int, ...]) -> Scene:
    return Scene(
        seed=seed,
        frames=clock.frames,
        aspect=clock.aspect,
        backdrop=backdrop,
        window=(float(rng.random()), float(rng.random()), float(rng.uniform(0.45, 0.8))),
        first_picture=int(rng.integers(1 << 16)),
        step=int(rng.integers(1, 3)),
        relief=float(rng.uniform(0, 0.6)),
        camera=_camera(rng, clock),
        actors=(),
        light=_light(rng, clock),
        film=_film(rng),
    )


# ---- time -------------------------------------------------------------------------------------------------


# A shorter clip shows the beginning of what happens in so many frames, not all of it in a rush.
_USUAL_FRAMES = 8


class _Clock:
    """The moments of a clip, from 0 to 1 at the end of what happens, and smooth ways through it."""

    def __init__(self, rng: np.random.Generator, frames: int, aspect: float) -> None:
        shutter = rng.uniform(0.08, 0.5)
        opens = np.arange(frames, dtype=np.float64)
        self.frames, self.aspect = frames, aspect
        self.t = (np.stack([opens, opens + shutter], 1).ravel() / max(_USUAL_FRAMES, frames)).astype(np.float32)

    def still(self, value: float) -> Track:
        return np.full(len(self.t), value, np.float32)

    def ramp(self, start: float, stop: float) -> Track:
        return np.asarray(start + (stop - start) * self.t, np.float32)

    def eased(self, start: float, stop: float) -> Track:
        t = self.t
        return np.asarray(start + (stop - start) * t * t * (3 - 2 * t), np.float32)

    def through(self, values: Sequence[float]) -> Track:
        """A smooth curve through evenly spread values."""
        from scipy.interpolate import PchipInterpolator

        curve = PchipInterpolator(np.linspace(0, 1, len(values)), values)
        return np.asarray(curve(np.clip(self.t, 0, 1)), np.float32)

    def sway(self, rng: np.random.Generator, amplitude: float, cycles: float) -> Track:
        """Two slow waves of about `cycles` periods over the clip."""
        first, second = rng.uniform(0.5, 1.5, 2) * cycles
        a, b = rng.uniform(0, 2 * np.pi, 2)
        t = 2 * np.pi * self.t
        return np.asarray(amplitude * (np.sin(first * t + a) + 0.5 * np.sin(2.3 * second * t + b)), np.float32)


# ---- place, camera, light ---------------------------------------------------------------------------------


_PLACES = {"photo": 6.0, "footage": 2.5, "panorama": 1.5, "drawn": 1.5}
# Folders of many pictures of little variety come less often than their number says.
_FOLDERS = {"coco": 4.0, "budgie": 2.0, "wordpress": 2.0, "grocery": 1.2, "trees": 0.5, "set": 3.0}


def _choose_backdrop(rng: np.random.Generator, material: Material, cast: set[str | None]) -> Backdrop:
    """Mostly a place that holds nothing by the name of one of the cast, so that words can tell them apart."""
    clear = [backdrop for backdrop in material.backdrops if not backdrop.holds & cast]
    choices = clear if clear and rng.random() < 0.88 else material.backdrops
    kinds = sorted({backdrop.kind for backdrop in choices})
    weights = np.array([_PLACES[kind] for kind in kinds])
    kind = kinds[rng.choice(len(kinds), p=weights / weights.sum())]
    fitting = [backdrop for backdrop in choices if backdrop.kind == kind]
    folders = sorted({_folder(backdrop) for backdrop in fitting})
    shares = np.array([_FOLDERS.get(folder, 1.0) for folder in folders])
    folder = folders[rng.choice(len(folders), p=shares / shares.sum())]
    inside = [backdrop for backdrop in fitting if _folder(backdrop) == folder]
    return inside[rng.integers(len(inside))]


def _folder(backdrop: Backdrop) -> str:
    return backdrop.name.split("/")[-2]


def _camera(rng: np.random.Generator, clock: _Clock) -> Camera:
    style = rng.choice(["locked", "handheld", "pan", "push", "travel"], p=[0.25, 0.35, 0.2, 0.1, 0.1])
    shake = 0.0 if style == "locked" else float(rng.choice([0.002, 0.006, 0.014]))
    x, y = clock.sway(rng, shake, 3), clock.sway(rng, shake, 3)
    zoom, roll = clock.still(1), clock.sway(rng, shake, 2)
    if style in ("pan", "travel"):
        x = x + clock.eased(0, float(rng.uniform(-0.4, 0.4)))
        y = y + clock.eased(0, float(rng.normal(0, 0.06)))
    if style == "push":
        zoom = clock.eased(1, float(rng.uniform(0.8, 1.3)))
    if style == "travel":
        roll = roll + clock.ramp(0, float(rng.normal(0, 0.06)))
    return Camera(x, y, zoom, roll, held=style in ("locked", "handheld"))


def _following(rng: np.random.Generator, camera: Camera, actor: Actor) -> Camera:
    """The camera keeps an actor more or less where it was, so that the place moves past instead."""
    share = float(rng.uniform(0.6, 1.0))
    x, y = (share * (way - way[0]) * actor.depth for way in (actor.x, actor.y))
    return replace(camera, x=camera.x + x, y=camera.y + y, held=False)


def _light(rng: np.random.Generator, clock: _Clock) -> Light:
    gain = clock.still(float(np.exp(rng.normal(-0.03, 0.12))))
    if rng.random() < 0.3:
        gain = gain * clock.through(np.exp(rng.normal(0, 0.2, 4)).tolist())
    tint = np.exp(rng.normal(0, 0.06, 3)).astype(np.float32)
    slope = (float(rng.normal(0, 0.15)), float(rng.normal(0, 0.1)))
    shadow = float(rng.uniform(0.25, 0.75))
    return Light(gain, tint, slope, float(rng.uniform(0.25, 0.7)), shadow, float(rng.normal(0, 0.35)))


def _film(rng: np.random.Generator) -> Film:
    return Film(
        blur=float(rng.choice([0.0, rng.uniform(1, 4)], p=[0.6, 0.4])),
        defocus=float(rng.choice([0.0, rng.uniform(2, 14)], p=[0.5, 0.5])),
        noise=float(rng.choice([0.004, 0.01, 0.022], p=[0.55, 0.33, 0.12])),
        grain=float(rng.uniform(0.3, 0.9)),
        contrast=float(np.exp(rng.normal(0, 0.09))),
        saturation=float(np.exp(rng.normal(0, 0.12))),
        vignette=float(rng.choice([0.0, rng.uniform(0.05, 0.35)])),
        quality=int(rng.choice([100, 85, 65, 45, 28], p=[0.2, 0.25, 0.25, 0.2, 0.1])),
    )


# ---- casting ----------------------------------------------------------------------------------------------

_LOOKS = {"real": 1.0, "drawn": 0.4, "stylised": 0.22}


def cast(rng: np.random.Generator, material: Material) -> list[Prop]:
    """Who plays: often several of a kind, mostly of one size of world, now and then something nobody can name."""
    world = rng.random() < 0.6
    pool = [noun for noun in material.by_noun if nouns()[noun].large == world or rng.random() < 0.08]
    weights = np.array([weight(noun, material) for noun in pool])
    chosen: list[Prop] = []
    for size in _groups(rng):
        noun = pool[rng.choice(len(pool), p=weights / weights.sum())]
        chosen += [pick(rng, material, noun) for _ in range(size)]
    if material.nameless and (rng.random() < 0.3 or not chosen):
        chosen.append(material.nameless[rng.integers(len(material.nameless))])
    return chosen


def _groups(rng: np.random.Generator) -> list[int]:
    """How many things of each kind."""
    patterns = ([1], [2], [3], [1, 1], [2, 1], [3, 1], [1, 1, 1], [2, 1, 1], [2, 2], [4], [1, 1, 1, 1], [3, 2])
    shares = np.array([2.0, 3.0, 2.0, 2.5, 3.5, 1.5, 2.0, 2.0, 1.5, 0.7, 1.0, 0.7])
    return list(patterns[rng.choice(len(patterns), p=shares / shares.sum())])


def weight(noun: str, material: Material) -> float:
    """Nouns with more and more lifelike pictures come more often; people more often than anything."""
    lifelike = sum(_LOOKS[prop.look] for prop in material.by_noun[noun])
    people = 4.0 if noun in ("man", "woman") else 1.0
    return people * float(np.sqrt(min(lifelike, 40)))


def pick(rng: np.random.Generator, material: Material, noun: str) -> Prop:
    """Who plays a noun: the more lifelike, the more often."""
    props = material.by_noun[noun]
    looks = sorted({prop.look for prop in props})
    shares = np.array([_LOOKS[look] for look in looks])
    look = looks[rng.choice(len(looks), p=shares / shares.sum())]
    alike = [prop for prop in props if prop.look == look]
    return alike[rng.integers(len(alike))]


# ---- staging ----------------------------------------------------------------------------------------------

_WAYS = {
    "still": 0.16,
    "drift": 0.26,
    "wander": 0.24,
    "leave": 0.08,
    "enter": 0.06,
    "return": 0.05,
    "cross": 0.06,
    "approach": 0.06,
    "recede": 0.03,
}


def _stage(rng: np.random.Generator, clock: _Clock, props: Sequence[Prop]) -> list[Actor]:
    """Everyone's place and way. On a ground, height and size follow from the distance to the camera."""
    large = any(prop.noun and nouns()[prop.noun].large for prop in props)
    grounded = rng.random() < (0.8 if large else 0.45)
    horizon, rise = float(rng.uniform(-0.2, 0.08)), float(rng.uniform(0.38, 0.6))
    size = float(np.exp(rng.uniform(np.log(0.4 if large else 0.3), np.log(1.05 if large else 0.8))))
    slots = _slots(rng, len(props), clock.aspect)
    actors: list[Actor] = []
    for prop, slot in zip(props, slots, strict=True):
        row = nouns()[prop.noun] if prop.noun else None
        stands = grounded and not (row and row.floats)
        lead = 1.2 if not actors else 1.0
        place = _Place(slot, stands, horizon, rise, lead * size * float(np.exp(rng.normal(0, 0.22))))
        actors.append(_actor(rng, clock, prop, row, place))
    return actors


def _slots(rng: np.random.Generator, count: int, aspect: float) -> list[float]:
    """Starting columns: spread out, or huddled so that things cover each other."""
    reach = aspect * (0.4 if rng.random() < 0.75 else 0.2)
    spread = np.linspace(-reach, reach, count) if count > 1 else rng.uniform(-reach, reach, 1)
    return [float(x) for x in rng.permutation(spread) + rng.normal(0, 0.06, count)]


@dataclass(frozen=True, slots=True)
class _Place:
    x: float
    stands: bool
    horizon: float
    rise: float
    size: float


def _actor(rng: np.random.Generator, clock: _Clock, prop: Prop, row: Noun | None, place: _Place) -> Actor:
    sprite = prop.load()
    pictures, high, wide = sprite.pictures.shape[:3]
    shape = wide / high
    way = str(rng.choice(list(_WAYS), p=np.array(list(_WAYS.values()))))
    depth = float(rng.uniform(1, 1.9))
    height = place.size / (depth if place.stands else depth**0.5) * min(1.0, (1.2 / shape) ** 0.5)
    middle = (place.horizon + place.rise / depth - height / 2) if place.stands else float(rng.uniform(-0.3, 0.3))
    near = _distance(rng, clock, way)
    x, y = _way(rng, clock, way, place, middle, height * shape, height)
    if place.stands:
        ground = place.horizon + (place.rise / depth) * near
        y = ground - height * near / 2 + (y - middle)
    spin = _spin(rng, clock, row, place.stands, x, height)
    return Actor(
        sprite=sprite,
        x=x,
        y=np.asarray(y, np.float32),
        height=np.asarray(height * near, np.float32),
        depth=np.asarray(depth / near, np.float32),
        angle=spin,
        yaw=clock.sway(rng, float(rng.choice([0.0, 0.25, 0.45])), 0.7),
        cycle=_cycle(rng, clock, pictures),
        mirrored=_mirrored(rng, prop, x),
        bend=_bend(rng, row),
        stands=place.stands,
        seed=int(rng.integers(1 << 31)),
    )


def _distance(rng: np.random.Generator, clock: _Clock, way: str) -> Track:
    """How much larger than at the start it appears."""
    if way == "approach":
        return clock.eased(0.8, float(rng.uniform(1.3, 1.8)))
    if way == "recede":
        return clock.eased(1.2, float(rng.uniform(0.5, 0.75)))
    return clock.eased(1, float(np.exp(rng.normal(0, 0.08))))


def _way(
    rng: np.random.Generator, clock: _Clock, way: str, place: _Place, middle: float, width: float, height: float
) -> tuple[Track, Track]:
    """Where the middle is; ways out of the picture end well outside it."""
    side = 1.0 if rng.random() < 0.5 else -1.0
    out = side * (clock.aspect / 2 + width * 0.75 + 0.08 + 0.1 * rng.random())
    x0, y0 = place.x, middle
    vertical = not place.stands and way in ("leave", "enter") and rng.random() < 0.3
    if vertical:
        out = side * (0.5 + height * 0.75 + 0.1)
        ends = [y0, out] if way == "leave" else [out, y0]
        return clock.ramp(x0, x0 + float(rng.normal(0, 0.1))), clock.through(_held(ends))
    sway = clock.sway(rng, float(rng.choice([0.0, 0.004, 0.012])), 2)
    drop = 0.0 if place.stands else float(rng.normal(0, 0.1))
    y = clock.eased(y0, y0 + drop) + sway
    match way:
        case "leave":
            return clock.through(_held([x0, out])), y
        case "enter":
            return clock.through(_held([out, x0])), y
        case "return":
            return clock.through([x0, x0 + (out - x0) * 0.8, out, out, x0 + (out - x0) * 0.6, x0]), y
        case "cross":
            return clock.ramp(-out, out), y
        case "drift":
            return clock.ramp(x0, x0 + side * float(rng.uniform(0.06, 0.45))), y
        case "wander":
            steps = np.cumsum([0, *rng.normal(0, 0.1, 3)])
            lift = np.cumsum([0, *rng.normal(0, 0.0 if place.stands else 0.08, 3)])
            return clock.through((x0 + steps).tolist()), clock.through((y0 + lift).tolist()) + sway
    return clock.still(x0) + clock.sway(rng, 0.004, 1), y


def _held(ends: Sequence[float]) -> list[float]:
    """From the first to the second, with the stay outside lasting at least the last fifth."""
    start, stop = ends
    moving = [start + (stop - start) * share for share in (0.0, 0.3, 0.65, 1.0)]
    outside = [stop] if abs(stop) > abs(start) else []
    before = [start] if abs(start) > abs(stop) else []
    return [*before, *moving, *outside]


def _spin(rng: np.random.Generator, clock: _Clock, row: Noun | None, stands: bool, x: Track, height: float) -> Track:
    upright = stands and (row is None or row.large)
    if upright:
        return clock.sway(rng, 0.02, 2)
    if row is not None and row.large:
        return clock.ramp(float(rng.normal(0, 0.12)), float(rng.normal(0, 0.2))) + clock.sway(rng, 0.03, 1)
    rolls = row is not None and bool(row.names & {"ball", "fruit"})
    if rolls and stands:
        return np.asarray((x - x[0]) / max(height / 2, 0.05), np.float32)
    return clock.ramp(float(rng.normal(0, 0.35)), float(rng.normal(0, 0.6))) + clock.sway(rng, 0.05, 1)


def _cycle(rng: np.random.Generator, clock: _Clock, pictures: int) -> NDArray[np.int64]:
    if pictures == 1:
        return np.zeros(clock.frames, np.int64)
    pace = float(rng.uniform(0.4, 1.6))
    return np.asarray((rng.integers(pictures) + pace * np.arange(clock.frames)) % pictures, np.int64)


def _mirrored(rng: np.random.Generator, prop: Prop, x: Track) -> bool:
    """Drawn figures look the way they go (they are drawn facing right)."""
    if prop.look == "drawn" and abs(x[-1] - x[0]) > 0.03:
        return bool(x[-1] < x[0])
    return bool(rng.random() < 0.5)


def _bend(rng: np.random.Generator, row: Noun | None) -> float:
    if row is None or row.soft:
        return float(rng.uniform(0.005, 0.045))
    return float(rng.uniform(0, 0.008))
