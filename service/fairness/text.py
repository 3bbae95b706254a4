"""Bias report for a terminal: tables 100 columns wide, in colour only on a terminal."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import IO, TYPE_CHECKING

from service.domain.wording import count
from service.fairness.schema import BiasReport

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

WIDTH = 100


def render_text(report: BiasReport, encoding: str = "utf-8") -> str:
    """Return the report as text without colour or trailing blanks, ending with a newline.

    With an encoding other than UTF, lines are drawn in ASCII and other characters are replaced.
    """
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="replace", newline="\n")
    _print(report, _console(file, terminal=False))
    file.seek(0)
    return "\n".join(line.rstrip() for line in file.read().splitlines()) + "\n"


def print_report(report: BiasReport, file: IO[str] | None = None) -> None:
    """Print the report to a file, by default standard output, in colour if it is a terminal."""
    _print(report, _console(file))


def _console(file: IO[str] | None, terminal: bool | None = None) -> Console:
    """Return a console of fixed width. Text from the data is never parsed as rich's markup."""
    from rich.console import Console

    return Console(
        file=file,
        width=WIDTH,
        force_terminal=terminal,
        legacy_windows=False,
        markup=False,
        emoji=False,
        highlight=False,
    )


def _print(report: BiasReport, console: Console) -> None:
    # Loaded here, because rich takes 13 ms and most users of a report print nothing.
    from service.fairness import text_tables

    utf = console.encoding.startswith("utf")
    tables = text_tables.Tables(report, utf=utf)
    sections: list[list[RenderableType]] = [
        list(_head(report, utf)),
        list(tables.overall()),
        list(tables.rates("fpr")),
        list(tables.rates("fnr")),
        list(tables.caps()),
        list(tables.thresholds()),
        list(tables.parity()),
        list(tables.paired()),
        list(_warnings(report)),
    ]
    for number, section in enumerate(section for section in sections if section):
        if number:
            console.print()
        for part in section:
            console.print(part)


def _head(report: BiasReport, utf: bool) -> Iterator[RenderableType]:
    from rich.rule import Rule
    from rich.text import Text

    from service.fairness.text_tables import printable

    meta, data, positive = report.meta, report.data, report.settings.positive_label
    title = f"Bias report: {meta.base_model}, template {meta.template}"
    yield Text(printable(title + (f", run {meta.run_id}" if meta.run_id else "")), style="bold")
    yield Rule(characters="═" if utf else "=", style="default")
    sample = "" if meta.max_samples is None else " (a sample)"
    classes = f"{data.positives:,} {positive} and {data.negatives:,} other"
    facts = [f"{meta.split} split{sample}: {count(data.rows, 'row')}, {classes}"]
    facts.append(f"decision rule: {meta.threshold}")
    if meta.checkpoint_step is not None:
        facts.append(f"checkpoint at step {meta.checkpoint_step}")
    yield Text(printable("; ".join(facts)))


def _warnings(report: BiasReport) -> Iterator[RenderableType]:
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    from service.fairness.text_tables import printable

    if not report.warnings:
        return
    yield Text("Warnings", style="bold")
    bullets = Table.grid(padding=(0, 1))
    for warning in report.warnings:
        bullets.add_row("-", Text(printable(warning.detail)))
    yield Padding(bullets, (0, 0, 0, 2))
