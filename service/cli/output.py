"""Output of commands: the server's JSON, or text for people."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

AsJson = Annotated[
    bool, typer.Option("--json", help="Print the server's JSON instead of text for people.")
]
Output = Annotated[
    Path | None,
    typer.Option("--output", "-o", metavar="FILE", help="File to write; default: standard output."),
]


def print_json(content: Any) -> None:
    """Print a JSON document on standard output."""
    typer.echo(json.dumps(content, ensure_ascii=False, indent=2))


def print_json_line(content: Any) -> None:
    """Print a JSON document on one line, as items of a list or a stream are printed."""
    typer.echo(json.dumps(content, ensure_ascii=False))


def write_text(output: Path | None, text: str) -> None:
    """Write a text to a file in UTF-8, or to standard output, byte by byte. Raises OSError."""
    if output is not None:
        output.write_text(text, encoding="utf-8", newline="")
    else:
        sys.stdout.write(text)
