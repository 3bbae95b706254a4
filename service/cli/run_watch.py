"""`fairtune runs watch` and `logs`: follow a run until its end."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from service.cli.connection import Key, Server, connected
from service.cli.output import print_json_line
from service.cli.references import RunRef, run_of
from service.domain.states import RESTING, JobStatus

if TYPE_CHECKING:
    from fairtune import Run
    from service.cli.run_display import Display

POLL_SECONDS = 1.0
PATIENCE_SECONDS = 600.0
"""Time after which a server that does not answer is given up."""

Timeout = Annotated[
    float | None,
    typer.Option(
        min=0,
        metavar="SECONDS",
        help="Maximum time to watch; the run continues. Default: no limit.",
    ),
]


def watch(
    run: RunRef,
    timeout: Timeout = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the server's events, one JSON object per line.")
    ] = False,
    server: Server = None,
    key: Key = None,
) -> None:
    """Show a run live until its end, then its report; without a terminal a line per event.

    Ctrl-C stops watching, not the run.
    """
    with connected(server, key) as client:
        watched = run_of(client, run)
        with _interruptible(watched, server):
            follow(watched, as_json=as_json, timeout=timeout)
        if as_json:
            check_succeeded(watched)
            return
        finish(watched)


def logs(
    run: RunRef,
    tail: Annotated[
        int | None, typer.Option("--tail", "-n", min=1, help="Print only the last lines.")
    ] = None,
    is_followed: Annotated[
        bool, typer.Option("--follow", "-f", help="Print new lines until the run ends.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON string per line of the log.")
    ] = False,
    server: Server = None,
    key: Key = None,
) -> None:
    """Print the log of a run's training program."""
    with connected(server, key) as client:
        subject = run_of(client, run)
        with _interruptible(subject, server, "logs -f"):
            pieces = subject.follow_logs(tail) if is_followed else iter([subject.logs(tail)])
            for piece in pieces:
                if as_json:
                    for line in piece.removesuffix("\n").split("\n"):
                        print_json_line(line)
                else:
                    typer.echo(piece, nl=not piece.endswith("\n"))


@contextmanager
def _interruptible(run: "Run", server: str | None, command: str = "watch") -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        option = "" if server is None else f" --server {server}"
        typer.echo(
            f"\n{run.id} is {run.status} and continues; to follow it again: "
            f"fairtune runs {command} {run.id}{option}",
            err=True,
        )
        raise


def follow(
    run: "Run", *, as_json: bool = False, timeout: float | None = None, to_stderr: bool = False
) -> None:
    """Show the run until it rests. Raises WaitTimeout, ServerUnreachable after some minutes."""
    from service.cli.run_display import opened

    with opened(as_json=as_json, to_stderr=to_stderr) as display:
        _poll(run, display, timeout)


def _poll(run: "Run", display: "Display", timeout: float | None) -> None:
    """Ask for the state and the new events, so that a restarted server changes nothing."""
    from fairtune import InvalidResponse, ServerUnreachable, Unavailable, WaitTimeout

    began, last = time.monotonic(), 0
    lost_at: float | None = None
    while True:
        try:
            run.refresh()
            events = list(run.events(after=last, follow=False))
        except (InvalidResponse, ServerUnreachable, Unavailable) as error:
            now = time.monotonic()
            if lost_at is None:
                lost_at = now
                display.lost(error)
            if now - lost_at > PATIENCE_SECONDS:
                raise
        else:
            if lost_at is not None:
                lost_at = None
                display.found()
            last = events[-1].id if events else last
            display.show(run, events)
            if run.status in RESTING or run.status == JobStatus.PAUSED:
                return
        waited = time.monotonic() - began
        if timeout is not None and waited >= timeout:
            raise WaitTimeout(run, timeout)
        time.sleep(POLL_SECONDS if timeout is None else min(POLL_SECONDS, timeout - waited))


def finish(run: "Run") -> None:
    """Print the report of a run that has succeeded, or fail. Raises JobFailed, Exit."""
    from fairtune import Conflict, NotFound
    from service.fairness.schema import BiasReport
    from service.fairness.text import print_report

    check_succeeded(run)
    try:
        report = run.report()
    except (Conflict, NotFound) as error:
        typer.echo(f"{run.id} has succeeded; {error.detail}", err=True)
        return
    typer.echo()
    print_report(BiasReport.model_validate(report.raw))


def check_succeeded(run: "Run") -> None:
    """Raise JobFailed unless the run has succeeded."""
    from fairtune import JobFailed

    if run.status == JobStatus.PAUSED:
        typer.echo(f"to continue it: fairtune runs resume {run.id}", err=True)
    if run.status != JobStatus.SUCCEEDED:
        raise JobFailed(run)
