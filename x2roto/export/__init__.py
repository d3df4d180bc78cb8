"""Writers: mattes in, files out. One file and one row of `EXPORTERS` per format; nothing here knows the engine.

Read `take.py` (what a writer is given and must do), then `png.py` (an image format) and `prores.py` (a movie).
Importing this package loads no encoder; `open_writer` loads the one module it needs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from importlib import import_module
from typing import Any, Literal, cast, get_args, get_origin, get_type_hints

from x2roto.errors import OutputError, PromptError
from x2roto.export.naming import Template
from x2roto.export.take import Exporter, Take, Writer

__all__ = ["EXPORTERS", "Take", "Template", "Writer", "load_exporter", "make_options", "open_writer"]

# Format name: "module:class". The class is an `Exporter`.
EXPORTERS = {
    "png": "x2roto.export.png:PngWriter",
    "exr": "x2roto.export.exr:ExrWriter",
    "cryptomatte": "x2roto.export.cryptomatte:CryptomatteWriter",
    "tiff": "x2roto.export.tiff:TiffWriter",
    "prores": "x2roto.export.prores:ProResWriter",
    "webm": "x2roto.export.webm:WebmWriter",
    "ffv1": "x2roto.export.ffv1:Ffv1Writer",
    "composite": "x2roto.export.composite:CompositeWriter",
    "overlay": "x2roto.export.overlay:OverlayWriter",
    "contact": "x2roto.export.contact:ContactWriter",
    "y4m": "x2roto.export.stdout:Y4mWriter",
    "raw": "x2roto.export.stdout:RawWriter",
    "davis": "x2roto.export.davis:DavisWriter",
    "coco": "x2roto.export.coco:CocoWriter",
}


def load_exporter(name: str) -> Exporter:
    """The exporter of a format. Raises PromptError for an unknown name, OutputError if its package is missing."""
    if name not in EXPORTERS:
        raise PromptError(f"unknown format {name!r}: use one of {', '.join(EXPORTERS)}")
    module, _, attribute = EXPORTERS[name].partition(":")
    try:
        exporter = getattr(import_module(module), attribute)
    except ModuleNotFoundError as error:
        raise OutputError(
            f"format {name!r} needs the Python package {error.name}, which is not installed: "
            f"run pip install {error.name}"
        ) from error
    return cast(Exporter, exporter)


def open_writer(name: str, template: Template, take: Take, options: object | None = None) -> Writer:
    """A writer of format `name`, to be used as a context manager.

    `options`: the exporter's `Options`, its defaults when None. Raises PromptError for what cannot be asked for
    and OutputError for what cannot be done.
    """
    exporter = load_exporter(name)
    return exporter(template, take, exporter.Options() if options is None else options)


def make_options(name: str, values: Mapping[str, Any]) -> Any:
    """The `Options` of a format from plain or textual values, as presets and the command line give them.

    Raises PromptError for an unknown key or a value that does not fit.
    """
    options = load_exporter(name).Options
    kinds = get_type_hints(options)
    known = [field.name for field in fields(options)]
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise PromptError(f"format {name!r} has no option {unknown[0]!r}: use one of {', '.join(known) or 'none'}")
    return options(**{key: _parsed(name, key, value, kinds[key]) for key, value in values.items()})


def _parsed(name: str, key: str, value: object, kind: Any) -> object:
    if get_origin(kind) is Literal:
        choices = {str(choice): choice for choice in get_args(kind)}
        if str(value) in choices:
            return choices[str(value)]
        raise PromptError(f"{name} {key} is {value!r}: use one of {', '.join(choices)}")
    if kind is bool:
        words = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
        if str(value).lower() in words:
            return words[str(value).lower()]
        raise PromptError(f"{name} {key} is {value!r}: use true or false")
    if kind is int:
        try:
            return int(str(value))
        except ValueError:
            raise PromptError(f"{name} {key} is {value!r}: use a whole number") from None
    return str(value)
