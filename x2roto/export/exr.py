"""OpenEXR sequences: half-float mattes or RGBA, one file per object, layered, or multipart."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import OpenEXR
from numpy.typing import NDArray

from x2roto.export.images import ImageWriter, Save
from x2roto.export.naming import Template
from x2roto.export.picture import scene_linear
from x2roto.export.take import Take
from x2roto.export.timecode import timecode_at
from x2roto.matte import FloatArray, MatteFrame, Track, bounds, foreground, premultiply

Channels = dict[str, NDArray[Any]]
Compression = Literal["none", "rle", "zips", "zip", "piz", "dwaa", "dwab", "htj2k256", "htj2k32"]


@dataclass(frozen=True, slots=True)
class ExrOptions:
    """How mattes are laid out in OpenEXR files.

    `content`: the matte, or scene-linear RGBA. `layout`: "files" one file per object; "single" one file with a
    layer `<object>.A` per object (with "rgba" beside the R, G, B, A of all of them); "multipart" one file with a
    part per object. `channels`: how a matte alone is stored: R=G=B=A, bare A, or bare Y. `alpha`: state of the
    colour. `crop`: data window around the matte. `foreground`: clean soft edges from the background.
    """

    content: Literal["matte", "rgba"] = "matte"
    layout: Literal["files", "single", "multipart"] = "files"
    channels: Literal["rgba", "a", "y"] = "rgba"
    compression: Compression = "zip"
    pixel: Literal["half", "float"] = "half"
    alpha: Literal["premultiplied", "straight"] = "premultiplied"
    crop: bool = False
    foreground: bool = True


class ExrWriter(ImageWriter):
    """Writes OpenEXR files; the channel list is the same on every frame."""

    Options = ExrOptions
    kind = "exr"
    ext = "exr"

    def __init__(self, template: Template, take: Take, options: ExrOptions) -> None:
        per_object = options.layout == "files"
        items = tuple(take.name(track) for track in take.tracks) if per_object else ("mattes",)
        super().__init__(template, take, items)
        self._options = options

    def saves(self, result: MatteFrame) -> Iterator[tuple[str, Save]]:
        """One file per track, or one for all."""
        if self._options.layout == "files":
            for track in self.take.tracks:
                yield self.take.name(track), partial(self._save_file, result, track)
        elif self._options.layout == "single":
            yield self.items[0], partial(self._save_layers, result)
        else:
            yield self.items[0], partial(self._save_parts, result)

    def _save_file(self, result: MatteFrame, track: Track, path: Path) -> None:
        alpha = result.alpha(track)
        header = self._header(result, (track,), alpha)
        save_exr(path, [(header, self._picture(result, alpha), None)])

    def _save_layers(self, result: MatteFrame, path: Path) -> None:
        union = result.union()
        channels = self._picture(result, union) if self._options.content == "rgba" else {}
        for track in self.take.tracks:
            channels[f"{self.take.name(track)}.A"] = self._pixels(result.alpha(track))
        save_exr(path, [(self._header(result, self.take.tracks, union), channels, None)])

    def _save_parts(self, result: MatteFrame, path: Path) -> None:
        parts = []
        for track in self.take.tracks:
            alpha = result.alpha(track)
            header = self._header(result, (track,), alpha)
            parts.append((header, self._picture(result, alpha), self.take.name(track)))
        save_exr(path, parts)

    def _picture(self, result: MatteFrame, alpha: FloatArray) -> Channels:
        """The channels of one matte or one RGBA picture."""
        options = self._options
        if options.content == "matte":
            pixels = self._pixels(alpha)
            return dict.fromkeys({"rgba": "RGBA", "a": "A", "y": "Y"}[options.channels], pixels)
        colour = scene_linear(result.frame, self.take.clip)
        if options.foreground:
            colour = foreground(colour, alpha)
        if options.alpha == "premultiplied":
            colour = premultiply(colour, alpha)
        rgb = {name: self._pixels(colour[..., index]) for index, name in enumerate("RGB")}
        return rgb | {"A": self._pixels(alpha)}

    def _pixels(self, values: FloatArray) -> NDArray[Any]:
        return np.ascontiguousarray(values, np.float16 if self._options.pixel == "half" else np.float32)

    def _header(self, result: MatteFrame, tracks: tuple[Track, ...], alpha: FloatArray) -> dict[str, Any]:
        window = bounds(alpha) if self._options.crop else None
        if self._options.crop and window is None:
            window = (slice(0, 1), slice(0, 1))  # OpenEXR has no empty window.
        header = exr_header(self.take, result, self._options.compression, window)
        header |= track_attributes(self.take, result, tracks)
        if self._options.content == "rgba":
            header["x2roto/alpha"] = self._options.alpha
        return header


def exr_header(
    take: Take, result: MatteFrame, compression: Compression, window: tuple[slice, slice] | None = None
) -> dict[str, Any]:
    """The attributes every file of a take has. `window`: rows and columns that are stored, None for all."""
    clip = take.clip
    rows, columns = window or (slice(0, clip.height), slice(0, clip.width))
    header: dict[str, Any] = {
        "compression": getattr(
            OpenEXR, "NO_COMPRESSION" if compression == "none" else f"{compression.upper()}_COMPRESSION"
        ),
        "type": OpenEXR.scanlineimage,
        "dataWindow": (_corner(columns.start, rows.start), _corner(columns.stop - 1, rows.stop - 1)),
        "displayWindow": (_corner(0, 0), _corner(clip.width - 1, clip.height - 1)),
        "pixelAspectRatio": float(clip.pixel_aspect),
        "framesPerSecond": clip.rate,
        "imageCounter": result.number,
        "x2roto/sourceFrame": str(result.frame.index),
    }
    if clip.timecode is not None:
        header["timeCode"] = _time_code(clip.timecode, result.frame.index, take)
    return header | {f"x2roto/{key}": value for key, value in take.metadata.items()}


def track_attributes(take: Take, result: MatteFrame, tracks: tuple[Track, ...]) -> dict[str, str]:
    """The objects of a file: their prompts as text, and all facts as JSON."""
    objects = [
        {
            "id": track.id,
            "name": take.name(track),
            "label": track.label,
            "prompt": track.prompt,
            "score": round(result.score(track), 6),
        }
        for track in tracks
    ]
    prompts = "; ".join(track.prompt for track in tracks)
    return {"x2roto/prompt": prompts, "x2roto/objects": json.dumps(objects, ensure_ascii=False)}


def save_exr(path: Path, parts: Sequence[tuple[dict[str, Any], Channels, str | None]]) -> None:
    """Write one file of parts `(header, channels, name)`; pixels outside the data window are left out.

    Raises OSError with OpenEXR's words when it cannot be written.
    """
    built = []
    for header, channels, name in parts:
        (x0, y0), (x1, y1) = header["dataWindow"]
        stored = {key: np.ascontiguousarray(v[y0 : y1 + 1, x0 : x1 + 1]) for key, v in channels.items()}
        built.append(OpenEXR.Part(header, stored, name) if name else (header, stored))
    try:
        with OpenEXR.File(built) if len(built) > 1 or parts[0][2] else OpenEXR.File(*built[0]) as file:
            file.write(str(path))
    except RuntimeError as error:
        raise OSError(str(error)) from error


def _corner(x: int, y: int) -> NDArray[np.int32]:
    return np.array([x, y], np.int32)


def _time_code(start: str, offset: int, take: Take) -> Any:
    code = timecode_at(start, offset, take.clip.rate)
    # Above 30 frames per second SMPTE ST 12-1 counts pairs and marks the second of a pair.
    fast = round(take.clip.rate) > 30
    frames, phase = divmod(code.frames, 2) if fast else (code.frames, 0)
    colour_frame, user_bits = 0, (0,) * 11
    clock = (code.hours, code.minutes, code.seconds, frames)
    return OpenEXR.TimeCode(*clock, int(code.drop), colour_frame, phase, *user_bits)
