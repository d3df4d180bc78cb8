"""Clips on disk: pictures, soft mattes, label maps, region prompts and everything that is said, one folder each."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from x2roto.export.atomic import committed, write_bytes
from x2roto.export.davis import palette
from x2roto.export.drawing import font
from x2roto.prompt import slug
from x2roto.train.footage.dataset import FilmedClip
from x2roto.train.footage.regions import KINDS, region

Layout = Literal["clips", "davis"]

_TINTS = ((255, 70, 60), (70, 220, 90), (80, 130, 255), (255, 200, 40), (230, 80, 230), (60, 220, 220))


def write_clip(clip: FilmedClip, name: str, out: Path, layout: Layout) -> None:
    """One clip under `out`. Raises OutputError when a file cannot be written.

    "clips": `NAME/frames/%05d.png`, `NAME/mattes/ID_NOUN/%05d.png` (8-bit coverage), `NAME/ids/%05d.png`,
    `NAME/regions/ID_FRAME_KIND.png`, `NAME/language.json`. "davis": `JPEGImages/480p/NAME/%05d.jpg`,
    `Annotations/480p/NAME/%05d.png`, `Language/NAME.json`; `list_clips` writes the rest. Ids count from 1 in the
    order of the JSON's objects.
    """
    if layout == "davis":
        _pictures(_frames(clip), out / "JPEGImages" / "480p" / name, ".jpg")
        _label_maps(clip, out / "Annotations" / "480p" / name)
        _write_json(language_json(clip), out / "Language" / f"{name}.json")
        return
    folder = out / name
    _pictures(_frames(clip), folder / "frames", ".png")
    _label_maps(clip, folder / "ids")
    for number, alpha in enumerate(clip.rendered.alpha, start=1):
        matte = np.round(alpha * 255).astype(np.uint8)
        _pictures(matte, folder / "mattes" / f"{number}_{_called(clip, number - 1)}", ".png")
    for file, mask in _regions(clip):
        _save(Image.fromarray(mask.astype(np.uint8) * 255), folder / "regions" / file)
    _write_json(language_json(clip), folder / "language.json")


def language_json(clip: FilmedClip) -> dict[str, Any]:
    """Everything said of a clip, as plain values; objects are named by their ids."""
    scene, said = clip.scene, clip.language
    return {
        "seed": list(scene.seed),
        "backdrop": scene.backdrop.name,
        "objects": [
            {
                "id": number,
                "names": list(actor.label.nouns),
                "colours": sorted(actor.label.colours),
                "dressed": actor.label.dressed,
                "visible_frames": int(clip.rendered.masks[number - 1].any((1, 2)).sum()),
            }
            for number, actor in enumerate(scene.actors, start=1)
        ],
        "expressions": [{"text": e.text, "objects": _ids(e.actors)} for e in said.expressions],
        "questions": [{"text": e.text, "objects": _ids(e.actors)} for e in said.questions],
        "absent": [e.text for e in said.absent],
        "classes": {
            name: _ids(members) for name, members in zip(said.classes.names, said.classes.actors, strict=True)
        },
        "caption": said.caption
        and {
            "text": said.caption.text,
            "phrases": [
                {"start": phrase.start, "stop": phrase.stop, "objects": _ids(phrase.actors)}
                for phrase in said.caption.phrases
            ],
        },
    }


def contact_sheet(clips: Sequence[FilmedClip], path: Path, columns: int = 4) -> None:
    """First, middle and last frame of each clip, what an expression means tinted in the last, as PNG or JPEG."""
    strips = [_strip(clip, number) for number, clip in enumerate(clips)]
    wide, high = strips[0].size
    sheet = Image.new("RGB", (columns * (wide + 8) + 8, -(-len(strips) // columns) * (high + 8) + 8), (24, 24, 26))
    for number, strip in enumerate(strips):
        row, column = divmod(number, columns)
        sheet.paste(strip, (8 + column * (wide + 8), 8 + row * (high + 8)))
    _save(sheet, path)


def _strip(clip: FilmedClip, number: int) -> Image.Image:
    frames = _frames(clip)
    expression = _shown_expression(clip, number)
    last = len(frames) - 1
    if expression:
        last = int(np.argmax(clip.rendered.masks[expression.actors[0]].sum((1, 2))))
    picked = [frames[0], frames[len(frames) // 2], frames[last].copy()]
    if expression:
        mask = clip.rendered.alpha[expression.actors[0], last][..., None] * 0.55
        picked[2] = np.asarray(picked[2] * (1 - mask) + np.array(_TINTS[number % len(_TINTS)]) * mask, np.uint8)
    joined = Image.fromarray(np.concatenate(picked, 1))
    strip = Image.new("RGB", (joined.width, joined.height + 18), (24, 24, 26))
    strip.paste(joined, (0, 0))
    words = expression.text if expression else "(nothing can be named)"
    ImageDraw.Draw(strip).text((3, joined.height + 2), words, font=font(12), fill=(225, 225, 225))
    return strip


def _shown_expression(clip: FilmedClip, number: int) -> Any:
    said = (*clip.language.expressions, *clip.language.questions)
    return said[(number * 7919) % len(said)] if said else None


def _frames(clip: FilmedClip) -> NDArray[np.uint8]:
    assert clip.rendered.frames is not None
    return clip.rendered.frames


def _ids(actors: Sequence[int]) -> list[int]:
    return [k + 1 for k in actors]


def _called(clip: FilmedClip, k: int) -> str:
    nouns = clip.scene.actors[k].label.nouns
    return slug(nouns[0]) if nouns else "nameless"


def _regions(clip: FilmedClip) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    """All four kinds of region for each object, on a frame that shows it."""
    rng = np.random.default_rng([*clip.scene.seed, 23])
    for k, masks in enumerate(clip.rendered.masks):
        shown = np.flatnonzero(masks.any((1, 2)))
        if len(shown):
            frame = int(rng.choice(shown))
            for kind in KINDS:
                yield f"{k + 1}_{frame:05d}_{kind}.png", region(kind, masks[frame], rng)


def _label_maps(clip: FilmedClip, folder: Path) -> None:
    masks = clip.rendered.masks
    numbers = np.arange(1, len(masks) + 1, dtype=np.uint8).reshape(-1, 1, 1, 1)
    for frame, ids in enumerate((masks * numbers).max(0, initial=0)):
        picture = Image.fromarray(ids.astype(np.uint8))
        picture.putpalette(palette())
        _save(picture, folder / f"{frame:05d}.png")


def _pictures(frames: NDArray[np.uint8], folder: Path, suffix: str) -> None:
    for number, frame in enumerate(frames):
        _save(Image.fromarray(frame), folder / f"{number:05d}{suffix}")


def list_clips(out: Path) -> int:
    """Write the list of DAVIS 2017's split "val": the clips under `out` that show something on their first frame, as
    all of DAVIS's do. Gives their number. Raises OutputError.
    """
    firsts = sorted((out / "Annotations" / "480p").glob("*/00000.png"))
    names = [path.parent.name for path in firsts if np.asarray(Image.open(path)).any()]
    write_bytes(out / "ImageSets" / "2017" / "val.txt", "".join(f"{name}\n" for name in names).encode())
    return len(names)


def _save(picture: Image.Image, path: Path) -> None:
    with committed(path) as temporary:
        picture.save(temporary, quality=85)


def _write_json(value: object, path: Path) -> None:
    write_bytes(path, (json.dumps(value, indent=1) + "\n").encode())
