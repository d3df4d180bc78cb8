"""What footage is made of: cut-outs, backdrops, textures, labelled photographs and clips, decoded once.

`Material.open(folder)` reads a folder with a MANIFEST.json such as `../shared/trainset`; `Material.open(None)` has
only what can be drawn. Pictures are decoded on first use, at working size, and kept.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from x2roto.clip import FrameRange
from x2roto.errors import InputError
from x2roto.train.footage.drawn import Sprite, draw, drawn_nouns, value_noise
from x2roto.train.footage.people import PEOPLE
from x2roto.train.footage.vocabulary import (
    COLOURS,
    QUESTIONS,
    Label,
    colours_of,
    kinds,
    label,
    noun_of_picture,
    nouns,
)

Picture = NDArray[np.uint8]
Look = Literal["real", "stylised", "drawn"]
Loaded = TypeVar("Loaded")

SPRITE_SIDE = 176  # pixels of a cut-out's longer side
BACKDROP_LINES = 360
CLIP_LINES = 216
CLIP_FRAMES = 48
DRAWN_VARIANTS = 40
_DRAWN_BACKDROPS = 64
_SETS = 160
_SMALLEST_CUT = 3500  # pixels of a labelled object that is worth cutting out


@dataclass(frozen=True, slots=True, eq=False)
class Prop:
    """Something that can be cast. `noun` None: nobody could name it. `look`: what it is a picture of."""

    noun: str | None
    look: Look
    load: Callable[[], Sprite]


@dataclass(frozen=True, slots=True, eq=False)
class Backdrop:
    """Where a clip plays. `load` gives uint8 (F, h, w, 3); `holds`: every noun something in it may be called.

    A "panorama" is an equirectangular picture; "footage" has a frame for each frame of the clip.
    """

    name: str
    kind: Literal["photo", "panorama", "footage", "drawn"]
    holds: frozenset[str]
    load: Callable[[], Picture]


@dataclass(frozen=True, slots=True, eq=False)
class Labelled:
    """A labelled photograph or real clip. `load`: pictures (F, h, w, 3), label maps (F, h, w) of object ids, 255
    for unknown. `names`: the class of each id. `whole`: ids worth cutting out. `complete`: whether an unlabelled
    pixel is no object.
    """

    name: str
    names: Mapping[int, str]
    whole: frozenset[int]
    complete: bool
    load: Callable[[], tuple[Picture, Picture]]


@dataclass(frozen=True, eq=False)
class Material:
    """Everything there is to make footage of. The lists keep the manifest's order, so a seed picks the same."""

    props: tuple[Prop, ...]
    backdrops: tuple[Backdrop, ...]
    textures: tuple[Callable[[], Picture], ...]
    photos: tuple[Labelled, ...]
    clips: tuple[Labelled, ...]

    @classmethod
    def open(cls, folder: Path | None) -> Material:
        """The material of `folder`, or drawn material only. Raises InputError for a folder without a manifest."""
        drawn = tuple(_drawn_props())
        if folder is None:
            return cls(drawn, tuple(_drawn_backdrops()), (), (), ())
        items = _manifest(folder)
        textures = tuple(_kept(_texture, folder / item["file"]) for item in items if item["kind"] == "texture")
        photos = tuple(_photo(folder, item) for item in items if item["kind"] == "photo-with-masks")
        clips = tuple(_clip(folder, item) for item in items if item["kind"] == "clip-with-masks")
        blobs = tuple(_blobs(textures))
        props = (*_cutouts(folder, items), *_cut_from(photos), *_walkers(clips), *drawn, *blobs)
        places = (*_backdrops(folder, items), *_as_backdrops(photos), *_sets(textures))
        return cls(props, places, textures, photos, clips)

    @cached_property
    def by_noun(self) -> Mapping[str, tuple[Prop, ...]]:
        """The props of each noun of the table."""
        cast: dict[str, list[Prop]] = {}
        for prop in self.props:
            if prop.noun:
                cast.setdefault(prop.noun, []).append(prop)
        return {noun: tuple(props) for noun, props in cast.items()}

    @cached_property
    def nameless(self) -> tuple[Prop, ...]:
        """The props that have no name."""
        return tuple(prop for prop in self.props if prop.noun is None)


@cache
def opened(folder: Path | None) -> Material:
    """The material of a folder, opened once in a process."""
    return Material.open(folder)


def _manifest(folder: Path) -> list[dict[str, Any]]:
    path = folder / "MANIFEST.json"
    try:
        items: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["items"]
    except OSError as error:
        raise InputError(
            f"cannot read {path}: give a folder of training material, or none to draw it", path
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is not a manifest of training material: {error}; restore the file", path) from error
    for item in items:
        for named in (item, *item.get("objects", ())):
            # COCO's mouse lies beside a keyboard.
            if "/coco/" in item["file"] and named["name"] == "mouse":
                named["name"] = "computer mouse"
    return items


def _kept(load: Callable[..., Loaded], *arguments: Any) -> Callable[[], Loaded]:
    """A loader that remembers what it loaded."""
    return cache(lambda: load(*arguments))


def _read(path: Path, mode: str) -> Image.Image:
    try:
        with Image.open(path) as picture:
            return picture.convert(mode)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error}; restore the file", path) from error


# ---- cut-outs ---------------------------------------------------------------------------------------------


def _cutouts(folder: Path, items: list[dict[str, Any]]) -> list[Prop]:
    looks: Mapping[str, Look] = {"cutout-photo": "real", "cutout-3d": "stylised", "cutout-flat": "stylised"}
    props = []
    for item in items:
        look = looks.get(item["kind"])
        noun = noun_of_picture(item["name"])
        # What its own photograph cut off would end in mid-air anywhere else.
        if look and (noun or look == "real") and not item.get("truncated"):
            load = _kept(_cutout, folder / item["file"], item["name"], tuple(item["alpha_bbox"]))
            props.append(Prop(_seen_as(noun, Path(item["file"]).stem), look, load))
    return props


def _seen_as(noun: str | None, stem: str) -> str | None:
    return PEOPLE[stem][0] if noun == "person" and stem in PEOPLE else noun


def _cutout(path: Path, name: str, box: tuple[int, int, int, int]) -> Sprite:
    picture = _read(path, "RGBA").crop(box)
    picture.thumbnail((SPRITE_SIDE, SPRITE_SIDE), Image.Resampling.LANCZOS)
    rgba = np.asarray(picture).copy()
    if path.suffix == ".webp":
        rgba = _trimmed(rgba)
    return Sprite(rgba[None], _label_of(name, path.stem, rgba))


def _label_of(name: str, stem: str, rgba: Picture) -> Label:
    noun = noun_of_picture(name)
    if noun is None:
        return Label(maybe_nouns=kinds(), maybe_colours=frozenset(COLOURS), maybe_traits=frozenset(QUESTIONS))
    if "person" in nouns()[noun].names:
        noun, colour = PEOPLE.get(stem, (noun, ""))
        others = frozenset(COLOURS) if not colour else colours_of(rgba)[1]
        return label(noun, (colour,) if colour else (), others, dressed=True)
    certain, possible = colours_of(rgba)
    said = frozenset(word for word in name.split() if word in COLOURS and word != noun)
    # A name's colour word is only a hint: what is certain must also be seen.
    return label(noun, certain, possible | said)


def _trimmed(rgba: Picture) -> Picture:
    """The cut-out with the outermost, mixed pixels of a photograph's outline taken off."""
    from scipy.ndimage import gaussian_filter

    alpha = rgba[..., 3].astype(np.float32) / 255
    softened = gaussian_filter(np.pad(alpha, 2), 0.8)[2:-2, 2:-2]
    rgba[..., 3] = np.clip((softened - 0.45) / 0.5, 0, 1) * alpha * 255
    return rgba


def _cut_from(photos: tuple[Labelled, ...]) -> list[Prop]:
    """Props of the larger labelled objects of photographs; found without decoding any, cut on first use.

    Not of people: most are in pieces behind something, and there are enough whole ones.
    """
    return [
        Prop(noun, "real", _kept(_cut, photo, number))
        for photo in photos
        for number, name in photo.names.items()
        if (noun := noun_of_picture(name)) and noun != "person" and number in photo.whole
    ]


def _cut(photo: Labelled, number: int) -> Sprite:
    pictures, labels = photo.load()
    inside = labels[0] == number
    rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
    window = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    rgba = np.dstack([pictures[0][window], inside[window].astype(np.uint8) * 255])
    picture = Image.fromarray(_trimmed(rgba))
    picture.thumbnail((SPRITE_SIDE, SPRITE_SIDE), Image.Resampling.LANCZOS)
    return Sprite(np.asarray(picture)[None], _label_of(photo.names[number], "", np.asarray(picture)))


_WALKERS: Mapping[str, tuple[str, str]] = {
    "walk0": ("woman", "grey"),
    "walk1": ("man", "black"),
    "walk2": ("woman", "black"),
    "walk3": ("man", "black"),
    "walk4": ("woman", ""),
    "walk5": ("man", ""),
}


def _walkers(clips: tuple[Labelled, ...]) -> list[Prop]:
    """Moving cut-outs of the people of the masked clips."""
    return [
        Prop(_WALKERS[clip.name][0], "real", _kept(_walker, clip, *_WALKERS[clip.name]))
        for clip in clips
        if clip.name in _WALKERS
    ]


def _walker(clip: Labelled, noun: str, colour: str) -> Sprite:
    """The stretch of a clip in which the person is whole, as a cycle there and back."""
    pictures, labels = clip.load()
    inside = labels == 1
    whole = [t for t in range(len(inside)) if inside[t].any() and inside[t, [0, -1]].sum() < 20]
    crops = [_standing(pictures[t], inside[t]) for t in whole]
    cycle = np.stack([*crops, *crops[-2:0:-1]])
    others = frozenset(COLOURS) if not colour else colours_of(cycle[0])[1]
    return Sprite(cycle, label(noun, (colour,) if colour else (), others, dressed=True))


def _standing(picture: Picture, inside: NDArray[np.bool_]) -> Picture:
    """The person at a fixed height in the middle of a fixed canvas."""
    rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
    window = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    rgba = _trimmed(np.dstack([picture[window], inside[window].astype(np.uint8) * 255]))
    width = max(1, round(rgba.shape[1] * 160 / rgba.shape[0]))
    canvas = Image.new("RGBA", (96, 160))
    canvas.paste(Image.fromarray(rgba).resize((width, 160), Image.Resampling.BILINEAR), ((96 - width) // 2, 0))
    return np.asarray(canvas)


def _drawn_props() -> list[Prop]:
    return [
        Prop(noun, "drawn", _kept(draw, noun, variant)) for noun in drawn_nouns() for variant in range(DRAWN_VARIANTS)
    ] + [Prop(None, "drawn", _kept(draw, None, variant)) for variant in range(DRAWN_VARIANTS)]


def _blobs(textures: tuple[Callable[[], Picture], ...]) -> list[Prop]:
    return [
        Prop(None, "drawn", cache(lambda variant=variant, texture=texture: draw(None, variant, texture())))
        for variant, texture in enumerate(textures)
    ]


# ---- backdrops --------------------------------------------------------------------------------------------

# What a backdrop may hold without a label, by a pattern of its file; every pattern that fits counts.
_PERSON = "person, clothing, bag, eyeglasses, hat, watch"
_HOLDS: tuple[tuple[str, str], ...] = (
    ("/grocery/", f"{_PERSON}, food, fruit, vegetable, container, bottle, box, can, jar, bag, basket, newspaper"),
    ("/budgie/|/wordpress/|/trees/|/skimage/", "plant, tree, flower, leaf, building, house, chair, bird, insect"),
    ("astronaut", f"{_PERSON}, rocket, vehicle, toy"),
    ("camera|hat|woman|tourist|hike|trail|museum|gallery|piazza|city|street|staircase",
     f"{_PERSON}, camera, car, boat"),
    ("chelsea", "cat, animal"),
    ("rocket", "rocket, vehicle, light bulb"),
    ("otter", "animal"),
    ("coffee|spices", "cup, container, spoon, tool, food"),
    ("clock|coins", "clock, watch"),
    ("typewriter", "keyboard, computer"),
    ("coral", "fish, animal, plant"),
    ("lake|ocean|waves", "boat, ship, vehicle"),
    ("polyhaven/(apartment|hall|lobby|lab|studio|warehouse|workshop)",
     "furniture, chair, couch, bench, tool, ladder, box, container, light bulb, clothing, television, computer, "
     "book, potted plant, plant, vehicle, clock, bag"),
    ("polyhaven/(city|venice|esplanade|bridge|night)",
     f"{_PERSON}, building, house, church, tree, plant, boat, bench, "
     "car, vehicle, furniture, light bulb, chair"),
    ("polyhaven/(forest|park|dawn|sunrise|sunset|sky)", "tree, plant, flower, leaf, house, building"),
    ("gesture", f"{_PERSON}, chair, furniture, book, cup, food, television, computer, clock"),
    ("sam2_|juggle",
     f"{_PERSON}, toy, ball, box, cup, container, bed, furniture, tree, plant, house, building, book, "
     "newspaper, teddy bear"),
    ("highway|intel_cars", "vehicle, car, truck, bus, motorcycle, tree, plant, house, traffic light, stop sign"),
    ("station", f"{_PERSON}, vehicle, train, bag, suitcase, bench, furniture, building, clock, newspaper"),
    ("bottles", "container, bottle, cup, glass, jar, can, furniture"),
)  # fmt: skip
_PHOTOGRAPHED = (
    f"{_PERSON}, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light, fire hydrant, stop "
    "sign, parking meter, bench, bird, cat, dog, horse, sheep, cow, elephant, bear, zebra, giraffe, backpack, "
    "umbrella, handbag, necktie, suitcase, ball, kite, skateboard, scooter, bottle, glass, cup, fork, knife, "
    "spoon, bowl, banana, apple, sandwich, orange, broccoli, carrot, hot dog, pizza, doughnut, cake, chair, "
    "couch, potted plant, bed, toilet, television, laptop, computer, computer mouse, keyboard, mobile phone, "
    "telephone, book, newspaper, clock, vase, scissors, teddy bear, tree, plant, flower, leaf, house, building, "
    "church, animal, vehicle, food, fruit, vegetable, furniture, container, bag, tool, toy, clothing, box, can, "
    "jar, key, camera, ladder, bucket, basket, bread, tomato, lemon, lime, hamburger, candle, light bulb, "
    "envelope, gift"
)


@cache
def possible_names(listed: str) -> frozenset[str]:
    """Every name that something called one of `listed` (nouns and kinds) may also go by.

    A listed kind stands for all its nouns.
    """
    table, found = nouns(), set()
    for name in (part.strip() for part in listed.split(",")):
        members = [row.noun for row in table.values() if name in row.names]
        for noun in members:
            known = label(noun)
            found |= {*known.nouns, *known.maybe_nouns}
    return frozenset(found)


def _held_by(file: str) -> frozenset[str]:
    fitting = [names for pattern, names in _HOLDS if re.search(pattern, file)]
    return frozenset().union(*map(possible_names, fitting))


def _backdrops(folder: Path, items: list[dict[str, Any]]) -> list[Backdrop]:
    kept = []
    for item in items:
        path, file = folder / item["file"], item["file"]
        match item["kind"]:
            case "background-photo":
                kept.append(Backdrop(file, "photo", _held_by(file), _kept(_still, path)))
            case "background-panorama":
                kept.append(Backdrop(file, "panorama", _held_by(file), _kept(_still, path)))
            case "clip":
                kept.append(Backdrop(file, "footage", _held_by(file), _kept(_footage, path)))
    return kept


def _as_backdrops(photos: tuple[Labelled, ...]) -> list[Backdrop]:
    holds = possible_names(_PHOTOGRAPHED)
    return [Backdrop(photo.name, "photo", holds, _kept(lambda photo=photo: photo.load()[0])) for photo in photos]


def _still(path: Path) -> Picture:
    return np.asarray(_scaled(_read(path, "RGB"), BACKDROP_LINES))[None]


def _scaled(picture: Image.Image, lines: int) -> Image.Image:
    """The picture with its shorter side `lines` long, never enlarged."""
    factor = lines / min(picture.size)
    if factor >= 1:
        return picture
    size = round(picture.width * factor), round(picture.height * factor)
    return picture.resize(size, Image.Resampling.LANCZOS if picture.mode == "RGB" else Image.Resampling.NEAREST)


def _texture(path: Path) -> Picture:
    return np.asarray(_read(path, "RGB"))


def _footage(path: Path) -> Picture:
    """Evenly spread frames of a movie, (F, h, w, 3)."""
    from x2roto.source import open_source

    with open_source(str(path)) as source:
        count = source.info.frame_count or CLIP_FRAMES
        wanted = FrameRange(0, None, max(1, round(count / CLIP_FRAMES)))
        frames = [_scaled(Image.fromarray(frame.rgb), CLIP_LINES) for frame in source.frames((wanted,))]
    return np.stack([np.asarray(frame) for frame in frames])


def _drawn_backdrops() -> list[Backdrop]:
    return [Backdrop(f"drawn/{k}", "drawn", frozenset(), _kept(_landscape, k)) for k in range(_DRAWN_BACKDROPS)]


def _sets(textures: tuple[Callable[[], Picture], ...]) -> list[Backdrop]:
    """Walls over floors, papered and paved with textures."""
    return [
        Backdrop(f"set/{number}", "drawn", frozenset(), _kept(_set, textures, number))
        for number in range(_SETS if textures else 0)
    ]


def _set(textures: tuple[Callable[[], Picture], ...], number: int) -> Picture:
    rng = np.random.default_rng([number, 17])
    wall, floor = (textures[rng.integers(len(textures))]().astype(np.float32) for _ in range(2))
    height, width, horizon = 300, 450, int(rng.integers(90, 200))
    y, x = np.mgrid[:height, :width].astype(np.float32)
    upper = _tiled(wall, x * rng.uniform(0.5, 1.2), y * rng.uniform(0.5, 1.2))
    depth = 60 / np.maximum(y - horizon + 22, 1)
    pitch = float(rng.uniform(150, 320))
    lower = _tiled(floor, (x - width / 2) * depth * pitch / 200, depth * pitch)
    lower = lower * np.clip(0.55 + 0.45 * (y - horizon) / (height - horizon), 0.5, 1)[..., None]
    light = rng.uniform(0.7, 1.1) * (1 + rng.uniform(-0.3, 0.3) * (x / width - 0.5))[..., None]
    return np.asarray(np.clip(np.where((y < horizon)[..., None], upper, lower) * light, 0, 255), np.uint8)[None]


def _tiled(texture: NDArray[np.float32], x: NDArray[np.float32], y: NDArray[np.float32]) -> NDArray[np.float32]:
    """The texture repeated in all directions, read between its pixels."""
    from scipy.ndimage import map_coordinates

    channels = [map_coordinates(texture[..., c], [y, x], order=1, mode="grid-wrap") for c in range(3)]
    return np.asarray(np.stack(channels, -1), np.float32)


def _landscape(variant: int) -> Picture:
    """A sky over a textured ground, or a wall over a floor."""
    rng = np.random.default_rng([variant, 7])
    height, width, horizon = 300, 450, int(rng.integers(100, 190))
    upper = _surface(rng, height, width, 3 + int(rng.integers(5)), contrast=rng.uniform(0.1, 0.5))
    lower = _surface(rng, height, width, int(rng.integers(20, 90)), contrast=rng.uniform(0.2, 0.7))
    rows = np.arange(height, dtype=np.float32)[:, None, None]
    share = 0.5 + 0.5 * np.tanh((rows - horizon) / rng.uniform(0.8, 8))
    fall = 0.75 + 0.35 * np.abs(rows - horizon) / height
    return np.asarray(np.clip((upper * (1 - share) + lower * share * fall) * 255, 0, 255), np.uint8)[None]


def _surface(rng: np.random.Generator, height: int, width: int, cells: int, contrast: float) -> NDArray[np.float32]:
    coarse = value_noise(rng, height, width, cells)
    fine = value_noise(rng, height, width, 110) - 0.5
    tint = rng.uniform(0.15, 0.85) + rng.uniform(-0.22, 0.22, 3)
    return np.asarray(tint * (1 - contrast / 2 + contrast * coarse[..., None]) + 0.2 * contrast * fine[..., None])


# ---- labelled pictures ------------------------------------------------------------------------------------


def _photo(folder: Path, item: dict[str, Any]) -> Labelled:
    names = {entry["id"]: entry["name"] for entry in item["objects"]}
    width, height = item["size"]
    whole = frozenset(
        entry["id"]
        for entry in item["objects"]
        if entry["area"] >= _SMALLEST_CUT
        and min(entry["bbox"][:2]) > 2
        and entry["bbox"][2] < width - 2
        and entry["bbox"][3] < height - 2
    )
    return Labelled(
        item["file"], names, whole, False, _kept(_photo_pictures, folder / item["file"], folder / item["masks"])
    )


def _photo_pictures(photo: Path, masks: Path) -> tuple[Picture, Picture]:
    picture, labels = _read(photo, "RGB"), _read(masks, "L")
    return (
        np.asarray(_scaled(picture, BACKDROP_LINES))[None],
        np.asarray(_scaled(labels, BACKDROP_LINES))[None],
    )


def _clip(folder: Path, item: dict[str, Any]) -> Labelled:
    name = Path(item["file"]).parent.name
    noun = noun_of_picture(item["name"]) or item["name"]
    names = dict.fromkeys(item["object_ids"], noun)
    load = _kept(_clip_pictures, folder / item["file"], folder / item["masks"])
    return Labelled(name, names, frozenset(), True, load)


def _clip_pictures(movie: Path, pattern: Path) -> tuple[Picture, Picture]:
    from x2roto.source import open_source

    with open_source(str(movie)) as source:
        frames = [np.asarray(_scaled(Image.fromarray(frame.rgb), CLIP_LINES)) for frame in source.frames()]
    labels = [np.asarray(_scaled(_read(Path(str(pattern) % t), "L"), CLIP_LINES)) for t in range(len(frames))]
    return np.stack(frames), np.stack(labels)
