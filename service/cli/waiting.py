"""Waiting for jobs."""

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from fairtune import Evaluation, Merge, Run

Wait = Annotated[
    bool,
    typer.Option("--wait", help="Wait for the end; shows the progress on standard error."),
]
Timeout = Annotated[
    float | None,
    typer.Option(
        min=0,
        metavar="SECONDS",
        help="Maximum time to wait with --wait; the job continues. Default: no limit.",
    ),
]


def wait_for(job: "Run | Evaluation | Merge", timeout: float | None, *, cancel: str = "") -> None:
    """Wait until the job rests. Ctrl-C leaves it running; `cancel` is the command that ends it."""
    try:
        job.wait(timeout=timeout, progress=True, check=False)
    except KeyboardInterrupt:
        remedy = f"; to cancel it: {cancel}" if cancel else ""
        typer.echo(f"\n{job.id} continues on the server{remedy}", err=True)
        raise


def check_succeeded(job: "Run | Evaluation | Merge") -> None:
    """Raise JobFailed unless the job has succeeded."""
    from fairtune import JobFailed

    if job.status != "succeeded":
        raise JobFailed(job)
