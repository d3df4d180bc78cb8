"""Options that several verbs share, each spelled once."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, StrEnum
from typing import Annotated, Any

import typer

CLIP, PROMPTS, MATTE, OUTPUT, ENGINE, RUN = "Clip", "Prompts", "Matte", "Output", "Engine", "Run"


class OnBadFrame(StrEnum):
    """What stands in for a frame that cannot be read."""

    ERROR = "error"
    HOLD = "hold"
    BLACK = "black"


class Edge(StrEnum):
    """How the edge of a matte is drawn."""

    AUTO = "auto"
    SOFT = "soft"
    HARD = "hard"
    REFINED = "refined"


class Quality(StrEnum):
    """What is given up for speed."""

    EXACT = "exact"
    FAST = "fast"
    DRAFT = "draft"


class Dtype(StrEnum):
    """Number format the network runs in."""

    AUTO = "auto"
    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"


Clip = Annotated[
    str,
    typer.Argument(
        help="A movie, a sequence (shot.%04d.exr, shot.####.png, a folder, a frame of it), a still, or - for a pipe.",
        show_default=False,
    ),
]


def option(*names: str, help: str, panel: str, **more: Any) -> Any:
    return typer.Option(*names, help=help, rich_help_panel=panel, show_default=False, **more)


Frames = Annotated[
    str | None,
    option("--frames", help="Frame range in the clip's numbers: 1001-1050, 1001-1050x2, lists.", panel=CLIP),
]
SourceFrames = Annotated[
    str | None, option("--source-frames", help="Frame range in 0-based decode order.", panel=CLIP)
]
StartFrame = Annotated[
    int | None,
    option("--start-frame", help="Number of the first frame; movies: 1001, sequences keep theirs.", panel=CLIP),
]
BadFrame = Annotated[
    OnBadFrame | None,
    option("--on-bad-frame", help="A frame that cannot be read: stop, hold the last, black.", panel=CLIP),
]
Stream = Annotated[int | None, option("--stream", help="Which video stream of a movie, from 0.", panel=CLIP)]
Layer = Annotated[str | None, option("--layer", help="Layer or part of OpenEXR files.", panel=CLIP)]
Size = Annotated[
    str | None, option("--size", help="Frame size of headerless frames on a pipe: 1920x1080.", panel=CLIP)
]
Rate = Annotated[str | None, option("--rate", help="Frames per second: 24, 23.976, 24000/1001.", panel=CLIP)]
PixFmt = Annotated[
    str | None, option("--pix-fmt", help="Pixel format of headerless frames (ffmpeg's name).", panel=CLIP)
]

Text = Annotated[
    list[str] | None, option("--text", help="An object in words: '[NAME=]the right man[@FRAME]'.", panel=PROMPTS)
]
Ask = Annotated[
    list[str] | None, option("--ask", help="An object by a question: '[NAME=]what keeps him dry?'.", panel=PROMPTS)
]
Classes = Annotated[
    list[str] | None, option("--classes", help="All of these: 'person, dog; sky' (things; stuff).", panel=PROMPTS)
]
Box = Annotated[
    list[str] | None, option("--box", help="[NAME=]x0,y0,x1,y1[@FRAME], pixels or each with %.", panel=PROMPTS)
]
Point = Annotated[
    list[str] | None, option("--point", help="[NAME=]x,y[;x,y…][@FRAME], pixels or each with %.", panel=PROMPTS)
]
Scribble = Annotated[
    list[str] | None, option("--scribble", help="[NAME=]x,y;x,y;…[@FRAME]: a stroke.", panel=PROMPTS)
]
Mask = Annotated[
    list[str] | None, option("--mask", help="[NAME=]FILE[@FRAME]: a drawn mask of the plate's size.", panel=PROMPTS)
]
DescribeIt = Annotated[
    bool, option("--describe", help="A caption, and a matte for each thing it names.", panel=PROMPTS)
]

Model = Annotated[
    str | None, option("--model", "-m", help="Name or folder of a model; also $X2ROTO_MODEL.", panel=ENGINE)
]
Device = Annotated[str | None, option("--device", help="auto, cpu, cuda, cuda:1 or mps.", panel=ENGINE)]
QualityOption = Annotated[
    Quality | None,
    option("--quality", help="What is given up for speed: exact (nothing), fast, draft.", panel=ENGINE),
]
DtypeOption = Annotated[
    Dtype | None,
    option("--dtype", help="float32, bfloat16, float16 or auto: bfloat16 where the device has it.", panel=ENGINE),
]
Seed = Annotated[int | None, option("--seed", help="Seed of everything random.", panel=ENGINE)]


EdgeKind = Annotated[
    Edge | None,
    option(
        "--edge", help="soft, hard, refined (follows the plate's colours), or auto (as fits the model).", panel=MATTE
    ),
]
Grow = Annotated[float | None, option("--grow", help="Pixels outwards; negative: inwards.", panel=MATTE)]
Feather = Annotated[float | None, option("--feather", help="Pixels of fade on either side.", panel=MATTE)]
Smooth = Annotated[float | None, option("--smooth", help="0 to 1: steadier edges where nothing moves.", panel=MATTE)]
Invert = Annotated[bool | None, option("--invert", help="Hold-out mattes: everything but the object.", panel=MATTE)]
PresetName = Annotated[
    str | None, option("--preset", "-p", help="Named defaults: see 'x2roto presets list'.", panel=OUTPUT)
]
Shot = Annotated[str | None, option("--shot", help="Name of the shot in file names.", panel=OUTPUT)]
Instances = Annotated[
    int | None,
    option("--instances", help="Mattes per thing class that are told apart; 0: one per class.", panel=OUTPUT),
]
Chunk = Annotated[int | None, option("--chunk", help="Frames encoded at once.", panel=ENGINE)]
Memory = Annotated[int | None, option("--memory", help="Past frames remembered.", panel=ENGINE)]
MaxVram = Annotated[float | None, option("--max-vram", help="GB of the card to stay below.", panel=ENGINE)]
Presence = Annotated[float | None, option("--presence", help="Least score of an object that is there.", panel=ENGINE)]


def plain(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options by name as the library takes them."""
    return {name: value.value if isinstance(value, Enum) else value for name, value in options.items()}
