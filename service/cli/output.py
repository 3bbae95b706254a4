"""Output of commands: the server's JSON, or text for people."""

import json
from typing import Annotated, Any

import typer

AsJson = Annotated[
    bool, typer.Option("--json", help="Print the server's JSON instead of text for people.")
]


def print_json(content: Any) -> None:
    """Print a JSON document on standard output."""
    typer.echo(json.dumps(content, ensure_ascii=False, indent=2))


def print_json_line(content: Any) -> None:
    """Print a JSON document on one line, as items of a list or a stream are printed."""
    typer.echo(json.dumps(content, ensure_ascii=False))
