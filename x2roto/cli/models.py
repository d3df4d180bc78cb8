"""`x2roto models`: list, pull, info, convert and verify models."""

from __future__ import annotations

import typer

app = typer.Typer(help="List, pull, inspect, convert and verify models.", no_args_is_help=True)
