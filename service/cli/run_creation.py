"""`fairtune runs create` and `clone`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from service.cli.assignments import Assignments, assigned, with_changes
from service.cli.connection import Key, Server, connected
from service.cli.errors import ExitStatus, refuse
from service.cli.output import AsJson, print_json
from service.cli.plan_text import print_plan
from service.cli.references import LAST, RunRef, dataset_of, run_of
from service.cli.spec_file import read_object
from service.cli.waiting import Timeout, Wait, check_succeeded, wait_for

if TYPE_CHECKING:
    from fairtune import Client, Run

SpecFile = Annotated[
    Path | None,
    typer.Option(
        "--file",
        "-f",
        help="Specification in YAML, JSON or TOML, with the fields of POST /v1/runs; - reads "
        "YAML or JSON on standard input.",
    ),
]
DryRun = Annotated[
    bool,
    typer.Option("--dry-run", help="Print the resolved values, steps and warnings; start nothing."),
]


def create(
    dataset: Annotated[
        str | None,
        typer.Option("--dataset", "-d", help="Id of the dataset, or `last` for the newest one."),
    ] = None,
    base_model: Annotated[
        str | None,
        typer.Option("--base-model", "-m", help="Model to fine-tune; see `fairtune models`."),
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option("--preset", "-p", help="Source of all other values; see `fairtune presets`."),
    ] = None,
    template: Annotated[
        str | None, typer.Option(help="Prompt template; see `fairtune templates`.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the run.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the random numbers.")] = None,
    tag: Annotated[
        list[str] | None, typer.Option(help="Tag by which runs can be listed; repeatable.")
    ] = None,
    assignments: Assignments = None,
    file: SpecFile = None,
    dry_run: DryRun = False,
    wait: Wait = False,
    timeout: Timeout = None,
    as_json: AsJson = False,
    server: Server = None,
    key: Key = None,
) -> None:
    """Start a fine-tuning run; prints its id."""
    options = {
        "dataset_id": dataset,
        "base_model": base_model,
        "preset": preset,
        "template": template,
        "name": name,
        "seed": seed,
        "tags": tag or None,
    }
    values = {field: value for field, value in options.items() if value is not None}
    spec = {} if file is None else read_object("--file", file)
    spec = with_changes(with_changes(spec, values), assigned(assignments or []))
    _check_complete(spec)
    with connected(server, key) as client:
        _resolve_dataset(client, spec)
        if dry_run:
            plan = client.runs.plan(spec=spec)
            if as_json:
                print_json(plan.raw)
            else:
                print_plan(plan)
            return
        _start(client.runs.create(spec=spec), wait=wait, timeout=timeout, as_json=as_json)


def _check_complete(spec: dict[str, Any]) -> None:
    for field, option in (("dataset_id", "--dataset"), ("base_model", "--base-model")):
        if spec.get(field) is None:
            refuse(f"{option} is missing, and so is {field} in --file", status=ExitStatus.USAGE)


def _resolve_dataset(client: "Client", spec: dict[str, Any]) -> None:
    dataset = spec["dataset_id"]
    if dataset == LAST:
        spec["dataset_id"] = dataset_of(client, LAST).id
    elif isinstance(dataset, str) and not dataset.startswith("ds_") and Path(dataset).exists():
        refuse(
            f"--dataset takes an id; upload the file first: fairtune datasets add {dataset}",
            status=ExitStatus.USAGE,
        )


def clone(
    run: RunRef,
    assignments: Assignments = None,
    name: Annotated[str | None, typer.Option(help="Name of the new run.")] = None,
    dry_run: DryRun = False,
    wait: Wait = False,
    timeout: Timeout = None,
    as_json: AsJson = False,
    server: Server = None,
    key: Key = None,
) -> None:
    """Start a run with the values of another one and the changes of --set; prints its id."""
    changes = with_changes({} if name is None else {"name": name}, assigned(assignments or []))
    with connected(server, key) as client:
        source = run_of(client, run)
        if dry_run:
            plan = source.plan_clone(**changes)
            if as_json:
                print_json(plan.raw)
            else:
                print_plan(plan)
            return
        _start(source.clone(**changes), wait=wait, timeout=timeout, as_json=as_json)


def _start(run: "Run", *, wait: bool, timeout: float | None, as_json: bool) -> None:
    """Print a new run, if requested after its end. Raises JobFailed, WaitTimeout."""
    if not as_json:
        typer.echo(run.id)
    if wait:
        wait_for(run, timeout, cancel=f"fairtune runs cancel {run.id}")
    if as_json:
        print_json(run.raw)
    if wait:
        check_succeeded(run)
    else:
        typer.echo(f"{run.status}; to follow it: fairtune runs watch {run.id}", err=True)
