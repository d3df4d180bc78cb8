"""Composites through ffmpeg: the cut-out over a colour, a picture, a clip or a blur of the plate, or any graph.

The cut-out is gathered losslessly as frames arrive, in segments beside the output; ffmpeg runs once at the end.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import av
import ffmpeg
from PIL import ImageColor

from x2roto.errors import OutputError, PromptError
from x2roto.export.atomic import WorkFolder, committed, output_error, sweep
from x2roto.export.colour import movie_tags, rgb_format, rgb_frame, rgb_tags
from x2roto.export.ffv1 import ffv1_encoding
from x2roto.export.movie import Movie
from x2roto.export.naming import Template
from x2roto.export.picture import encoded, quantised
from x2roto.export.still import straight_rgba
from x2roto.export.take import Take
from x2roto.matte import MatteFrame

STILLS = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".bmp", ".exr", ".dpx")
# ffmpeg's names of the code points in `Tags`, for its scaler and its output tags.
_MATRIX_NAMES = {1: "bt709", 5: "bt470bg", 6: "smpte170m", 7: "smpte240m", 9: "bt2020nc"}


@dataclass(frozen=True, slots=True)
class CompositeOptions:
    """What goes behind the cut-out, and how the result is encoded.

    `background`: a colour (a name or #rrggbb), a picture or clip (stretched to the plate), "blur" or "blur:SIGMA"
    for the blurred plate. `filter`: a graph instead, from [fg] (straight RGBA) and [plate] to [out]. `codec_args`:
    options for the encoder, as `crf=18 preset=slow`. `audio`: carry the source's sound over. `container`: the
    file's kind. `foreground`: clean soft edges from the plate's background.
    """

    background: str = "black"
    filter: str = ""
    codec: str = "libx264"
    codec_args: str = "crf=16 preset=medium"
    pix_fmt: str = "yuv420p"
    container: Literal["mov", "mp4", "mkv"] = "mov"
    audio: bool = True
    foreground: bool = True


class CompositeWriter:
    """Writes one movie of all objects over the background."""

    Options = CompositeOptions

    def __init__(self, template: Template, take: Take, options: CompositeOptions) -> None:
        self.take = take
        self._options = options
        self._binary = ffmpeg_binary()
        self._path = template.path(shot=take.shot, kind="composite", ext=options.container, item="composite")
        self._complete = take.resume and self._path.is_file()
        self._work = WorkFolder(self._path, take.resume)
        self._bits = 16 if take.clip.depth > 8 else 8
        self._cut = self._element("fg.nut", channels=4)
        self._plate = self._element("plate.nut", channels=3)
        self._stack = ExitStack()
        self._check()

    @property
    def _needs_plate(self) -> bool:
        blurred = self._options.background.startswith("blur")
        return "[plate]" in self._options.filter if self._options.filter else blurred

    def paths(self, number: int) -> tuple[Path, ...]:
        """The one movie."""
        return (self._path,)

    def finished(self, number: int) -> bool:
        """Whether the frame's cut-out, and its plate if it is needed, or the whole movie is there."""
        parts = [movie.finished(number) for movie in self._movies()]
        return self._complete or all(parts)

    def write(self, result: MatteFrame) -> None:
        """Queue one frame."""
        if not self._complete:
            self._cut.write(result.number, partial(self._draw_cut, result))
            if self._needs_plate:
                self._plate.write(result.number, partial(self._draw_plate, result))

    def __enter__(self) -> Self:
        if not self._complete:
            with ExitStack() as opened:
                sweep([self._path])
                opened.enter_context(self._work)
                opened.push(self._compose)
                for movie in self._movies():
                    opened.enter_context(movie)
                self._stack = opened.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def _movies(self) -> list[Movie]:
        return [self._cut, self._plate] if self._needs_plate else [self._cut]

    def _element(self, name: str, channels: int) -> Movie:
        """A lossless movie that ffmpeg reads at the end.

        NUT keeps exact times; Matroska's milliseconds would pair frames with their neighbours'.
        """
        encoding = ffv1_encoding(rgb_format(channels, self._bits), rgb_tags(self.take.clip), "nut")
        return Movie(self._work.path / name, self.take, encoding)

    def _draw_cut(self, result: MatteFrame) -> av.VideoFrame:
        rgba = straight_rgba(result, result.union(), self.take, clean=self._options.foreground)
        return rgb_frame(quantised(rgba, self._bits))

    def _draw_plate(self, result: MatteFrame) -> av.VideoFrame:
        return rgb_frame(quantised(encoded(result.frame, self.take.clip), self._bits))

    def _check(self) -> None:
        """Fail before the run, not after it."""
        graph, background = self._options.filter, self._options.background
        if graph and not ("[fg]" in graph and graph.rstrip().endswith("[out]")):
            raise PromptError("the composite's filter must read [fg] and end in [out]")
        if background.startswith("blur"):
            _sigma(background)
        elif not Path(background).is_file():
            _hex_colour(background)
        _keywords(self._options.codec_args)

    def _compose(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            with committed(self._path) as temporary:
                self._run(self._output(temporary))

    def _output(self, path: Path) -> Any:
        options, take = self._options, self.take
        tags = movie_tags(take.clip)
        matrix = _MATRIX_NAMES[tags.matrix]
        keywords: dict[str, Any] = {
            "vcodec": options.codec,
            "pix_fmt": options.pix_fmt,
            "r": _rate(take),
            "fflags": "+bitexact",
            "colorspace": matrix,
            "color_primaries": tags.primaries,
            "color_trc": tags.transfer,
            "color_range": "tv",
            "f": {"mkv": "matroska"}.get(options.container, options.container),
        }
        if take.timecode is not None:
            keywords["timecode"] = take.timecode
        video = self._graph().filter("scale", out_color_matrix=matrix, out_range="tv", flags="accurate_rnd")
        video = video.filter("format", options.pix_fmt)
        if "420" in options.pix_fmt:
            video = video.filter("pad", "ceil(iw/2)*2", "ceil(ih/2)*2")
        video = video.filter("setsar", str(take.clip.pixel_aspect))
        streams = [video, *self._sound()]
        return ffmpeg.output(*streams, str(path), **keywords, **_keywords(options.codec_args))

    def _graph(self) -> Any:
        """The picture as ffmpeg nodes."""
        if not self._options.filter:
            cut = ffmpeg.input(str(self._cut.path))
            return self._background().overlay(cut, format=f"gbrp{'10' * (self._bits > 8)}", shortest=1)
        # A graph with labels of its own is one input to ffmpeg-python: libavfilter's virtual device.
        sources = [f"movie={_escaped(self._cut.path)}[fg]"]
        if self._needs_plate:
            sources.append(f"movie={_escaped(self._plate.path)}[plate]")
        graph = self._options.filter.rstrip().removesuffix("[out]") + "[out0]"
        return ffmpeg.input(";".join([*sources, graph]), f="lavfi").video

    def _background(self) -> Any:
        background, clip = self._options.background, self.take.clip
        size = {"w": clip.width, "h": clip.height}
        if self._needs_plate:
            return ffmpeg.input(str(self._plate.path)).filter("gblur", sigma=_sigma(background))
        path = Path(background)
        if not path.is_file():
            source = f"color=c={_hex_colour(background)}:s={clip.width}x{clip.height}:r={_rate(self.take)}"
            return ffmpeg.input(source, f="lavfi").filter("format", "gbrp")
        still = path.suffix.lower() in STILLS
        repeat = {"loop": 1, "framerate": _rate(self.take)} if still else {"stream_loop": -1}
        picture = ffmpeg.input(str(path), **repeat).video
        return picture.filter("fps", _rate(self.take)).filter("scale", **size).filter("setsar", 1)

    def _sound(self) -> list[Any]:
        take = self.take
        if not (self._options.audio and take.clip.has_audio and take.source and take.contiguous):
            return []
        assert take.numbers is not None
        start, length = take.first_index / take.clip.rate, len(take.numbers) / take.clip.rate
        return [ffmpeg.input(str(take.source), ss=f"{float(start):.6f}", t=f"{float(length):.6f}").audio]

    def _run(self, output: Any) -> None:
        command = ffmpeg.compile(output, cmd=self._binary, overwrite_output=True)
        done = subprocess.run(
            [*command, "-hide_banner", "-loglevel", "error", "-nostdin"], capture_output=True, text=True
        )
        if done.returncode:
            raise output_error(self._path, None, f"ffmpeg says: {_reason(done.stderr)}")


def ffmpeg_binary() -> str:
    """The system's ffmpeg, else the one that the `imageio-ffmpeg` wheel brings. Raises OutputError without."""
    system = shutil.which("ffmpeg")
    if system:
        return system
    import imageio_ffmpeg

    try:
        return str(imageio_ffmpeg.get_ffmpeg_exe())
    except RuntimeError as error:
        raise OutputError("no ffmpeg found: install ffmpeg, or run pip install imageio-ffmpeg") from error


def _rate(take: Take) -> str:
    return f"{take.clip.rate.numerator}/{take.clip.rate.denominator}"


def _sigma(background: str) -> float:
    word, _, size = background.partition(":")
    try:
        sigma = float(size or 20)
    except ValueError:
        sigma = -1.0
    if word != "blur" or not 0 < sigma <= 1024:
        raise PromptError(f"background {background!r} is no blur: write blur or blur:SIGMA, up to 1024 pixels")
    return sigma


def _hex_colour(background: str) -> str:
    try:
        red, green, blue = ImageColor.getrgb(background)[:3]
    except ValueError:
        raise PromptError(
            f"background {background!r} is neither a file, a colour (a name or #rrggbb) nor blur"
        ) from None
    return f"0x{red:02x}{green:02x}{blue:02x}"


def _keywords(arguments: str) -> dict[str, str]:
    """`crf=18 preset=slow` as keywords of an ffmpeg output."""
    pairs = [argument.lstrip("-").partition("=") for argument in shlex.split(arguments)]
    broken = [name for name, equals, _ in pairs if not equals]
    if broken:
        raise PromptError(f"codec argument {broken[0]!r} has no value: write name=value, as in crf=18")
    return {name: value for name, _, value in pairs}


def _escaped(path: Path) -> str:
    """A path inside a filter graph: quoted once for the option, once for the graph."""
    option = re.sub(r"([\\':])", r"\\\1", str(path))
    return re.sub(r"([\\'\[\],;])", r"\\\1", option)


def _reason(log: str) -> str:
    """The line of ffmpeg's log that says why: its first."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    full = [line for line in lines if "No space left" in line]
    return (full or lines or ["nothing, but it failed"])[0]
