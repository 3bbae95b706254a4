"""Displays of a run that is watched: a live view, lines of text or JSON lines."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import typer
from rich.console import Console

from service.cli.output import print_json_line
from service.cli.run_events import line_of

if TYPE_CHECKING:
    from rich.live import Live

    from fairtune import FairtuneError, Run
    from fairtune.models import EventView
    from service.cli.live_view import LiveView


class Display(ABC):
    """Shows the state of a run and its events."""

    @abstractmethod
    def show(self, run: "Run", events: "Sequence[EventView]") -> None:
        """Show the state, and the events since the last call."""

    def lost(self, error: "FairtuneError") -> None:
        """Say that the server does not answer."""
        typer.echo(f"{datetime.now(UTC):%H:%M:%S}  waiting for the server: {error}", err=True)

    def found(self) -> None:
        """Say that the server answers again."""
        typer.echo(f"{datetime.now(UTC):%H:%M:%S}  the server answers again", err=True)


class _JsonLines(Display):
    def show(self, _run: "Run", events: "Sequence[EventView]") -> None:
        for event in events:
            print_json_line(event.raw)


class _TextLines(Display):
    def __init__(self, *, to_stderr: bool) -> None:
        self._to_stderr = to_stderr

    def show(self, _run: "Run", events: "Sequence[EventView]") -> None:
        for event in events:
            typer.echo(line_of(event), err=self._to_stderr)


class _Screen(Display):
    def __init__(self, live: "Live", view: "LiveView") -> None:
        self._live = live
        self._view = view

    def show(self, run: "Run", events: "Sequence[EventView]") -> None:
        self._view.update(run)
        self._view.add(events)
        self._live.refresh()

    def lost(self, error: "FairtuneError") -> None:
        self._view.notice = f"Since {datetime.now(UTC):%H:%M:%S} UTC: {error}"
        self._live.refresh()

    def found(self) -> None:
        self._view.notice = ""


@contextmanager
def opened(*, as_json: bool, to_stderr: bool) -> Iterator[Display]:
    """Open the display: JSON lines, on a terminal a live view, elsewhere a line per event."""
    console = Console(stderr=to_stderr, highlight=False, markup=False)
    if as_json:
        yield _JsonLines()
    elif not console.is_terminal:
        yield _TextLines(to_stderr=to_stderr)
    else:
        from rich.live import Live

        from service.cli.live_view import LiveView

        view = LiveView(console)
        # Refreshed by each poll: a thread would read the view while it changes.
        with Live(view, console=console, auto_refresh=False) as live:
            yield _Screen(live, view)
