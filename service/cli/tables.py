"""Tables on standard output."""

from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text


def print_table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table, fitted to the terminal; in a pipe each row is one line, however long."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for header in headers:
        table.add_column(header, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))  # Text: a cell is never read as markup
    console = Console()
    if not console.is_terminal:
        options = console.options.update(max_width=10_000)
        console = Console(width=console.measure(table, options=options).maximum)
    console.print(table)
