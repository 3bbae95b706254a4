"""Tables on standard output."""

from collections.abc import Collection, Iterable, Sequence

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from service.cli.figures import printable

_MIN_ELASTIC_WIDTH = 12
_GAP = 2
_PIPE_WIDTH = 1_000_000


def print_table(
    headers: Sequence[str], rows: Iterable[Sequence[str]], *, elastic: Collection[str] = ()
) -> None:
    """Print a table, fitted to the terminal; in a pipe each row is one line, however long.

    The columns `elastic` wrap. If the others leave them no space, the last columns are left out.
    """
    cells = [[printable(cell) for cell in row] for row in rows]
    console = Console(highlight=False)
    columns = range(len(headers))
    if console.is_terminal:
        columns = range(_columns_that_fit(headers, cells, elastic, console.width))
    table = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), header_style="bold")
    for index in columns:
        table.add_column(headers[index], overflow="fold", no_wrap=headers[index] not in elastic)
    for row in cells:
        table.add_row(*(Text(row[index]) for index in columns))  # a cell is never read as markup
    _print(console, table)


def print_facts(facts: Iterable[tuple[str, str]], *, indent: int = 2) -> None:
    """Print names and values, one pair a line; long values wrap beside their names."""
    table = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in facts:
        table.add_row(Text(" " * indent + name), Text(printable(value)))
    _print(Console(highlight=False), table)


def _columns_that_fit(
    headers: Sequence[str], rows: list[list[str]], elastic: Collection[str], width: int
) -> int:
    """Return the number of leading columns whose minimum widths fit, at least one."""
    total = 0
    for index, header in enumerate(headers):
        widest = max(Text(row[index]).cell_len for row in [list(headers), *rows])
        total += min(widest, _MIN_ELASTIC_WIDTH) if header in elastic else widest
        if total > width and index:
            return index
        total += _GAP
    return len(headers)


def _print(console: Console, table: Table) -> None:
    if console.is_terminal:
        console.print(table)
        return
    options = console.options.update(max_width=_PIPE_WIDTH)
    whole = Console(width=console.measure(table, options=options).maximum, highlight=False)
    with whole.capture() as captured:
        whole.print(table)
    for line in captured.get().splitlines():
        typer.echo(line.rstrip())
