"""`fairtune runs download`, `promote` and the table of checkpoints."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from service.cli.connection import Key, Server, connected
from service.cli.errors import ExitStatus, refuse
from service.cli.figures import number_text, size_text, time_text
from service.cli.output import AsJson, print_json
from service.cli.promotions import Release, split_release
from service.cli.references import RunRef, run_of
from service.cli.tables import print_table

if TYPE_CHECKING:
    from fairtune.models import CheckpointView


def print_checkpoints(checkpoints: "list[CheckpointView]") -> None:
    """Print a row for each checkpoint."""
    print_table(
        ("STEP", "EPOCH", "BEST", "EVAL LOSS", "SIZE", "CREATED"),
        [
            (
                str(checkpoint.step),
                number_text(checkpoint.epoch),
                "yes" if checkpoint.is_best else "",
                number_text(checkpoint.metrics.get("eval_loss")),
                size_text(checkpoint.size),
                time_text(checkpoint.created_at),
            )
            for checkpoint in checkpoints
        ],
    )


def download(
    run: RunRef,
    directory: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="DIRECTORY", help="Directory; default: named after the run."
        ),
    ] = None,
    checkpoint: Annotated[
        int | None, typer.Option(metavar="STEP", help="Download the checkpoint of this step.")
    ] = None,
    merged: Annotated[
        bool, typer.Option("--merged", help="Download the merged model; see `fairtune runs merge`.")
    ] = False,
    merge_id: Annotated[
        str | None,
        typer.Option("--merge", metavar="MERGE", help="Id of the merge; default: the newest."),
    ] = None,
    as_json: AsJson = False,
    server: Server = None,
    key: Key = None,
) -> None:
    """Download a run's adapter, a checkpoint or the merged model; prints the directory.

    Repeat an interrupted download to resume it; files that are complete are not sent again.
    """
    merged = merged or merge_id is not None
    if merged and checkpoint is not None:
        refuse("--merged and --checkpoint exclude each other", status=ExitStatus.USAGE)
    with connected(server, key) as client:
        source = run_of(client, run)
        if merged:
            merge = source.merged(merge_id)
            target = directory or Path(f"{source.id}-merged")
            if merge.status != "succeeded":
                refuse(f"{merge.id} is {merge.status}: there is no merged model")
            merge.download(target, progress=True)
        else:
            suffix = "" if checkpoint is None else f"-checkpoint-{checkpoint}"
            target = directory or Path(f"{source.id}{suffix}")
            source.download(target, checkpoint=checkpoint, progress=True)
    if as_json:
        print_json({"directory": str(target)})
    else:
        typer.echo(target)


def promote(
    run: RunRef,
    release: Release,
    override: Annotated[
        str | None,
        typer.Option(
            metavar="REASON", help="Promote although the report does not pass; recorded with it."
        ),
    ] = None,
    as_json: AsJson = False,
    server: Server = None,
    key: Key = None,
) -> None:
    """Assign a release name to a run whose certifying report passes."""
    name, stage = split_release(release)
    with connected(server, key) as client:
        promotion = run_of(client, run).promote(name, stage, override=override)
    if as_json:
        print_json(promotion.raw)
        return
    typer.echo(f"{promotion.name}@{promotion.stage} is {promotion.run_id}")
    if promotion.override is not None:
        for hindrance in promotion.override.overrode:
            typer.echo(f"overrode: {hindrance.detail}", err=True)
