"""File names: the template, safe object names, frame numbers."""

from __future__ import annotations

import re
import string
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from x2roto.errors import PromptError
from x2roto.matte import Track
from x2roto.prompt import NAME_LENGTH, distinct, slug

DEFAULT_PATTERN = "{shot}_{object}.{frame}.{ext}"
FIELDS = ("shot", "object", "frame", "ext", "format")
EXTENSIONS = ("png", "exr", "tif", "tiff", "mov", "mp4", "mkv", "webm", "json")
# Frame tokens of other tools: printf, Nuke and RV (a # or @ per digit), Houdini, and the angle bracket one.
_TOKENS = re.compile(r"%0(?P<printf>\d+)d|(?P<hashes>#+|@+)|\$F(?P<houdini>\d)|(?P<angle><frame>)", re.IGNORECASE)
_LAYER_LENGTH = NAME_LENGTH - len(".A")


@dataclass(frozen=True, slots=True)
class Template:
    """Where outputs go: a folder and a pattern of `{shot}` `{object}` `{frame}` `{ext}` `{format}`.

    `{frame:06}` sets the digits; other tools' tokens (`%04d`, `####`, `@@@@`, `$F4`, `<frame>`) mean the same.
    Raises PromptError for an unknown or broken field.
    """

    folder: Path
    pattern: str = DEFAULT_PATTERN

    def __post_init__(self) -> None:
        object.__setattr__(self, "pattern", _TOKENS.sub(_as_field, self.pattern))
        try:
            names = [name for _, name, _, _ in string.Formatter().parse(self.pattern) if name is not None]
        except ValueError as error:
            raise PromptError(f"output name {self.pattern!r} is broken: {error}") from None
        unknown = [name for name in names if name not in FIELDS]
        if unknown:
            allowed = " ".join(f"{{{name}}}" for name in FIELDS)
            raise PromptError(f"output name has the unknown field {{{unknown[0]}}}: use {allowed}")

    @classmethod
    def parse(cls, output: str) -> Template:
        """A folder, or a name with fields, tokens or a known extension, as `-o` gives it."""
        is_name = "{" in output or _TOKENS.search(output) or Path(output).suffix[1:].lower() in EXTENSIONS
        if is_name and not Path(output).is_dir():
            return cls(Path(), output)
        return cls(Path(output))

    def has(self, field: str) -> bool:
        """Whether the pattern names this field."""
        return f"{{{field}" in self.pattern

    def path(self, *, shot: str, kind: str, ext: str, item: str, number: int | None = None, padding: int = 4) -> Path:
        """The file for `item` (an object's name or what the file holds); without `number` a file of all frames.

        Raises PromptError when the pattern ends in another format's extension.
        """
        pattern = self.pattern
        if number is None:
            pattern = re.sub(r"[._-]?\{frame[^}]*\}", "", pattern)
        pattern = pattern.replace("{frame}", f"{{frame:0{padding}d}}").replace("{format}", kind)
        name = pattern.format(shot=safe(shot), object=item, ext=ext, frame=number)
        if Path(name).suffix[1:].lower() not in (ext, *(("tiff",) if ext == "tif" else ())):
            raise PromptError(f"output name {name!r} does not end in .{ext}, which format {kind!r} writes")
        return self.folder / name


def _as_field(token: re.Match[str]) -> str:
    digits = token["printf"] or token["houdini"] or (token["hashes"] and len(token["hashes"]))
    return f"{{frame:0{int(digits)}d}}" if digits else "{frame}"


def safe(name: str) -> str:
    """A part of a file name, in `[A-Za-z0-9._-]` only."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", name).strip("._") or "shot"


@lru_cache(maxsize=64)
def object_names(tracks: Sequence[Track]) -> dict[int, str]:
    """A name for each track id: the label's slug, numbered where two labels would share one."""
    names = distinct([slug(track.label) for track in tracks], _LAYER_LENGTH)
    return {track.id: name for track, name in zip(tracks, names, strict=True)}
