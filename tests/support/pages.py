"""Tables in Markdown, put between the markers of a page of the docs."""

from collections.abc import Iterable
from pathlib import Path


def put(page: Path, name: str, text: str) -> None:
    """Replace what stands between the markers of `name`."""
    begin, end = f"<!-- {name}: begin -->\n", f"<!-- {name}: end -->"
    before, found, rest = page.read_text().partition(begin)
    _, closed, after = rest.partition(end)
    if not (found and closed):
        raise ValueError(f"{page} has no markers for {name}")
    page.write_text(f"{before}{begin}{text.strip()}\n{end}{after}")


def table(head: list[str], lines: Iterable[list[str]]) -> str:
    rows = [head, ["---"] * len(head), *lines]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)
