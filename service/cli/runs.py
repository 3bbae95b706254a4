"""`fairtune runs`: list, show and control runs; the other commands have modules of their own."""

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from service.cli import run_comparison, run_creation, run_jobs, run_report, run_results, run_watch
from service.cli.connection import Key, Server, connected
from service.cli.figures import duration_text, number_text, time_text
from service.cli.output import AsJson, print_json
from service.cli.paging import All, Limit, maximum_of, mention_more
from service.cli.plan_text import print_spec
from service.cli.questions import Yes, confirm
from service.cli.references import RunRef, run_of
from service.cli.tables import print_facts, print_table

if TYPE_CHECKING:
    from fairtune import Run

app = typer.Typer(no_args_is_help=True, help="Start and follow runs, and use their results.")

Status = Literal["queued", "running", "paused", "succeeded", "failed", "cancelled"]


@app.command(name="list")
def list_(
    status: Annotated[Status | None, typer.Option(help="List only runs in this state.")] = None,
    name: Annotated[str | None, typer.Option(help="List only runs with exactly this name.")] = None,
    dataset: Annotated[str | None, typer.Option(help="List only runs on this dataset.")] = None,
    tag: Annotated[str | None, typer.Option(help="List only runs with this tag.")] = None,
    limit: Limit = 20,
    everything: All = False,
    as_json: AsJson = False,
    server: Server = None,
    key: Key = None,
) -> None:
    """List runs, newest first."""
    maximum = maximum_of(limit, everything)
    with connected(server, key) as client:
        runs = list(client.runs.list(maximum, status=status, name=name, dataset=dataset, tag=tag))
    if as_json:
        print_json([run.raw for run in runs])
        return
    if not runs:
        typer.echo("There are no such runs.", err=True)
        return
    headers = ("ID", "STATUS", "PROGRESS", "NAME", "BASE MODEL", "CREATED")
    print_table(
        headers,
        [
            (
                run.id,
                run.status,
                _progress(run),
                run.name,
                run.spec.base_model,
                time_text(run.created_at),
            )
            for run in runs
        ],
        elastic={"NAME", "BASE MODEL"},
    )
    mention_more(len(runs), maximum)


def _progress(run: "Run") -> str:
    if run.queue_position is not None:
        return f"#{run.queue_position}"
    return f"{run.percent:.0f} %"


@app.command()
def show(
    run: RunRef,
    spec: Annotated[
        bool, typer.Option("--spec", help="Print the run's specification instead.")
    ] = False,
    as_json: AsJson = False,
    server: Server = None,
    key: Key = None,
) -> None:
    """Show a run's state, figures and, if it failed, the reason with advice."""
    with connected(server, key) as client:
        shown = run_of(client, run)
    content = shown.raw["spec"] if spec else shown.raw
    if as_json:
        print_json(content)
    elif spec:
        print_spec(content)
    else:
        typer.echo(f"Run {shown.id}")
        print_facts((name, value) for name, value in _facts(shown) if value)


def _facts(run: "Run") -> list[tuple[str, str]]:
    spec = run.spec
    state = run.status if run.requested is None else f"{run.status}, {run.requested} requested"
    if run.queue_position is not None:
        state += f" at position {run.queue_position}"
    progress = f"{run.percent:.0f} %, step {run.step} of {run.total_steps}"
    if run.status == "running":
        progress = f"{run.phase}, {progress}"
        if run.eta_seconds is not None:
            progress += f", {duration_text(run.eta_seconds)} left"
    until = "" if run.started_at is None or run.finished_at is None else _seconds(run)
    failure = run.failure
    return [
        ("name", run.name),
        ("status", state),
        ("progress", progress),
        ("reason", "" if failure is None else f"{failure.reason}: {failure.detail}"),
        ("advice", "" if failure is None else failure.advice),
        ("preset", str(spec.preset)),
        ("base model", spec.base_model),
        ("dataset", spec.dataset_id or ""),
        ("template", spec.template),
        ("tags", ", ".join(spec.tags)),
        ("promoted as", ", ".join(run.promoted_as)),
        ("cloned from", run.cloned_from or ""),
        (
            "created",
            time_text(run.created_at) + (f" by {run.created_by}" if run.created_by else ""),
        ),
        ("started", "" if run.started_at is None else time_text(run.started_at)),
        ("finished", "" if run.finished_at is None else f"{time_text(run.finished_at)}{until}"),
        ("attempts", "" if run.attempts < 2 else str(run.attempts)),
        *((name, number_text(value)) for name, value in sorted(run.metrics.items())),
    ]


def _seconds(run: "Run") -> str:
    assert run.started_at is not None
    assert run.finished_at is not None
    return f" after {duration_text((run.finished_at - run.started_at).total_seconds())}"


@app.command()
def cancel(run: RunRef, as_json: AsJson = False, server: Server = None, key: Key = None) -> None:
    """Cancel a run: immediately if it is queued or paused, at its next step if it is running."""
    with connected(server, key) as client:
        cancelled = run_of(client, run).cancel()
    _print_control(cancelled, as_json=as_json)


@app.command()
def pause(run: RunRef, as_json: AsJson = False, server: Server = None, key: Key = None) -> None:
    """Pause a run at its next step, after writing a checkpoint; frees the worker."""
    with connected(server, key) as client:
        paused = run_of(client, run).pause()
    _print_control(paused, as_json=as_json)


@app.command()
def resume(run: RunRef, as_json: AsJson = False, server: Server = None, key: Key = None) -> None:
    """Return a paused run to the queue; it resumes from its newest checkpoint."""
    with connected(server, key) as client:
        resumed = run_of(client, run).resume()
    _print_control(resumed, as_json=as_json)


@app.command()
def retry(
    run: RunRef,
    from_start: Annotated[
        bool,
        typer.Option("--from-start", help="Discard checkpoints and metrics; start at step 0."),
    ] = False,
    as_json: AsJson = False,
    server: Server = None,
    key: Key = None,
) -> None:
    """Run a failed run again, from its newest checkpoint."""
    with connected(server, key) as client:
        retried = run_of(client, run).retry(from_start=from_start)
    _print_control(retried, as_json=as_json)


def _print_control(run: "Run", *, as_json: bool) -> None:
    if as_json:
        print_json(run.raw)
    elif run.requested is not None:
        typer.echo(f"{run.id} is {run.status}; requested: {run.requested}")
    else:
        typer.echo(f"{run.id} is {run.status}")


@app.command()
def delete(
    run: RunRef, yes: Yes = False, as_json: AsJson = False, server: Server = None, key: Key = None
) -> None:
    """Delete a run with its checkpoints, results, evaluations and events permanently."""
    with connected(server, key) as client:
        deleted = run_of(client, run)
        confirm(f"Delete the run {deleted.name!r} ({deleted.id}) with all its files?", yes=yes)
        deleted.delete()
    if as_json:
        print_json({"id": deleted.id, "deleted": True})
    else:
        typer.echo(f"{deleted.id} is deleted")


@app.command()
def checkpoints(
    run: RunRef, as_json: AsJson = False, server: Server = None, key: Key = None
) -> None:
    """List the stored checkpoints of a run."""
    with connected(server, key) as client:
        stored = run_of(client, run).checkpoints()
    if as_json:
        print_json([checkpoint.raw for checkpoint in stored])
    elif not stored:
        typer.echo("The run has no checkpoint.", err=True)
    else:
        run_results.print_checkpoints(stored)


app.command("create")(run_creation.create)
app.command("clone")(run_creation.clone)
app.command("watch")(run_watch.watch)
app.command("logs")(run_watch.logs)
app.command("report")(run_report.report)
app.command("compare")(run_comparison.compare)
app.command("evaluate")(run_jobs.evaluate)
app.command("merge")(run_jobs.merge)
app.command("download")(run_results.download)
app.command("promote")(run_results.promote)
