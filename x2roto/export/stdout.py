"""Frames on standard output, for pipes: YUV4MPEG2 mattes, or raw mattes and RGBA."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import numpy as np

from x2roto.errors import OutputError, PromptError
from x2roto.export.naming import Template
from x2roto.export.picture import quantised
from x2roto.export.still import straight_rgba
from x2roto.export.take import Take
from x2roto.matte import FloatArray, MatteFrame


@dataclass(frozen=True, slots=True)
class Y4mOptions:
    """`object`: the label of one object; empty: all of them in one matte. `depth`: bits, full range."""

    object: str = ""
    depth: Literal[8, 16] = 8


@dataclass(frozen=True, slots=True)
class RawOptions:
    """`content`: gray or straight rgba, without headers; 16 bits are little-endian. Else as for y4m."""

    object: str = ""
    content: Literal["matte", "rgba"] = "matte"
    depth: Literal[8, 16] = 8
    foreground: bool = True


class _StdoutWriter:
    """Base of the two: nothing is kept, so nothing can be resumed."""

    def __init__(self, take: Take, wanted: str) -> None:
        self.take = take
        self._wanted = wanted
        if wanted and wanted not in (track.label for track in take.tracks):
            labels = ", ".join(track.label for track in take.tracks)
            raise PromptError(f"no object is called {wanted!r}: use one of {labels}")

    def paths(self, number: int) -> tuple[Path, ...]:
        """No file."""
        return ()

    def finished(self, number: int) -> bool:
        """Never: a pipe gets every frame anew."""
        return False

    def alpha(self, result: MatteFrame) -> FloatArray:
        """The one matte that is sent."""
        wanted = next((track for track in self.take.tracks if track.label == self._wanted), None)
        return result.alpha(wanted) if wanted else result.union()

    def send(self, data: bytes) -> None:
        """Write to standard output. Raises OutputError when nobody reads it any more."""
        try:
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
        except OSError as error:
            raise OutputError(
                f"cannot write to standard output: {error.strerror}; is the reader still there?"
            ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None


class Y4mWriter(_StdoutWriter):
    """Writes a grey YUV4MPEG2 stream: `ffmpeg -i -` and mpv read it as it is."""

    Options = Y4mOptions

    def __init__(self, template: Template, take: Take, options: Y4mOptions) -> None:
        super().__init__(take, options.object)
        self._depth = options.depth

    def __enter__(self) -> Self:
        clip = self.take.clip
        rate = f"{clip.rate.numerator}:{clip.rate.denominator}"
        aspect = f"{clip.pixel_aspect.numerator}:{clip.pixel_aspect.denominator}"
        mono = "mono" if self._depth == 8 else "mono16"
        header = f"YUV4MPEG2 W{clip.width} H{clip.height} F{rate} Ip A{aspect} C{mono} XCOLORRANGE=FULL\n"
        self.send(header.encode())
        return self

    def write(self, result: MatteFrame) -> None:
        """Send one frame."""
        self.send(b"FRAME\n" + quantised(self.alpha(result), self._depth).tobytes())


class RawWriter(_StdoutWriter):
    """Writes bare pixels, row by row: gray, gray16le, rgba or rgba64le."""

    Options = RawOptions

    def __init__(self, template: Template, take: Take, options: RawOptions) -> None:
        super().__init__(take, options.object)
        self._options = options

    def write(self, result: MatteFrame) -> None:
        """Send one frame."""
        options, alpha = self._options, self.alpha(result)
        if options.content == "rgba":
            values = straight_rgba(result, alpha, self.take, clean=options.foreground)
        else:
            values = alpha
        self.send(np.ascontiguousarray(quantised(values, options.depth)).tobytes())
