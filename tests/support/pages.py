"""Measured results as pages in Markdown."""

from collections.abc import Iterable
from pathlib import Path


def write(page: Path, title: str, command: str, text: str) -> None:
    """Write a page of results that names the command it is made by."""
    page.write_text(f"# {title}\n\nWritten by `{command}`; do not edit.\n\n{text.strip()}\n")


def table(head: list[str], lines: Iterable[list[str]]) -> str:
    """Return a Markdown table."""
    rows = [head, ["---"] * len(head), *lines]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)
