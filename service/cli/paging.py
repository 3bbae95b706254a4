"""Options of commands that list."""

from typing import Annotated

import typer

Limit = Annotated[int, typer.Option("--limit", "-n", min=1, help="Maximum number of entries.")]
All = Annotated[bool, typer.Option("--all", help="List all entries.")]


def maximum_of(limit: int, everything: bool) -> int | None:
    """Return the maximum number of entries; None: no limit."""
    return None if everything else limit


def mention_more(count: int, maximum: int | None) -> None:
    """Tell on standard error that there may be more entries than those printed."""
    if count == maximum:
        typer.echo(f"The newest {count}; more with --limit or --all.", err=True)
