"""Runs and datasets as command-line arguments: an id, or `last` for the newest one."""

from typing import TYPE_CHECKING, Annotated

import typer

from service.cli.errors import ExitStatus, refuse

if TYPE_CHECKING:
    from fairtune import Client, Dataset, Run

LAST = "last"
RunRef = Annotated[
    str, typer.Argument(metavar="RUN", help="Id of the run, or `last` for the newest run.")
]
DatasetRef = Annotated[
    str,
    typer.Argument(metavar="DATASET", help="Id of the dataset, or `last` for the newest dataset."),
]


def run_of(client: "Client", reference: str) -> "Run":
    """Return the run. Raises NotFound, Exit."""
    if reference != LAST:
        return client.runs.get(_checked(reference, "run"))
    run = next(iter(client.runs.list(limit=1)), None)
    if run is None:
        refuse("There is no run yet.", status=ExitStatus.NOT_FOUND)
    return run


def dataset_of(client: "Client", reference: str) -> "Dataset":
    """Return the dataset. Raises NotFound, Exit."""
    if reference != LAST:
        return client.datasets.get(_checked(reference, "dataset"))
    dataset = next(iter(client.datasets.list(limit=1)), None)
    if dataset is None:
        refuse("There is no dataset yet.", status=ExitStatus.NOT_FOUND)
    return dataset


def _checked(reference: str, kind: str) -> str:
    if not reference.strip():
        refuse(f"the {kind}'s id is empty", status=ExitStatus.USAGE)
    return reference
