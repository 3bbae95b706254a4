"""Confirmation of what cannot be undone."""

import sys
from typing import Annotated

import typer

from service.cli.errors import ExitStatus, refuse

Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")]


def confirm(question: str, *, yes: bool) -> None:
    """Ask on the terminal; without one --yes is required. Raises Exit."""
    if yes:
        return
    if not sys.stdin.isatty():
        refuse(f"{question} Add --yes: there is no terminal to ask", status=ExitStatus.USAGE)
    if not typer.confirm(question, err=True):
        refuse("Nothing was changed.")
