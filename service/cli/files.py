"""`fairtune gc` and `export`; they access the database and the artifact store directly."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from service.cli.errors import refuse
from service.cli.keys import DataDir, migrated, parse_duration
from service.cli.settings import read_settings
from service.cli.tables import print_table
from service.domain.job_kinds import MERGE
from service.domain.wording import count

if TYPE_CHECKING:
    from service.artifacts import ArtifactStore
    from service.store.database import Database
    from service.usecases.retention import Garbage


@contextmanager
def _opened(data_dir: Path | None) -> Iterator[tuple["Database", "ArtifactStore"]]:
    """Open the migrated database and its artifact store. Raises Exit."""
    from service.artifacts import ArtifactStore, StoreUnavailable

    settings = read_settings(data_dir=data_dir)
    with migrated(settings) as database:
        try:
            yield database, ArtifactStore(settings.artifacts_url)
        except StoreUnavailable as error:
            refuse(f"the artifact store cannot be used: {error.strerror}", see="AWS_* variables")


def gc(
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List what would be removed without removing it.")
    ] = False,
    older_than: Annotated[
        int,
        typer.Option(
            parser=parse_duration,
            metavar="DURATION",
            help="Keep younger files, whose rows may not be committed yet: 12h, 7d, 2w.",
        ),
    ] = "24h",  # type: ignore[assignment]  # the parser's input
    data_dir: DataDir = None,
) -> None:
    """Remove orphaned files, and rows whose files are missing, after listing them."""
    from service.artifacts.temporary import remove_abandoned
    from service.usecases import retention

    if not dry_run and (folders := remove_abandoned()):
        typer.echo(f"Removed {count(folders, 'temporary folder')} of killed processes.")
    with _opened(data_dir) as (database, store):
        garbage = retention.look(database, store, older_than)
        if not garbage:
            typer.echo("There is nothing to remove.")
            return
        print_table(("KIND", "NAME", "BYTES", "MODIFIED"), _rows(garbage), elastic={"KIND", "NAME"})
        if garbage.unknown:
            total = sum(entry.size for entry in garbage.unknown)
            typer.echo(f"{count(len(garbage.unknown), 'file')} of {count(total, 'byte')}")
        if dry_run:
            typer.echo("Nothing was removed.")
            return
        retention.collect(database, store, garbage)
        typer.echo("Removed, except for rows of datasets whose file is missing.")


def _rows(garbage: "Garbage") -> Iterator[tuple[str, str, str, str]]:
    for run_id in garbage.half_deleted:
        yield "run with an incomplete deletion", run_id, "", ""
    for dataset in garbage.half_deleted_datasets:
        yield "dataset with an incomplete deletion", dataset.id, "", ""
    for job in garbage.half_deleted_merges:
        name = f"{MERGE.result_id(job.id)} of {job.run_id}"
        yield "merged model with an incomplete deletion", name, "", ""
    for entry in garbage.unknown:
        kind = "incomplete file" if entry.half else "file without a row"
        yield kind, entry.key, str(entry.size), f"{entry.modified:%Y-%m-%dT%H:%M:%SZ}"
    for row in garbage.lost:
        yield "row without its files", row.label, "", ""


def export(
    run: Annotated[str, typer.Argument(help="Id of the run.")],
    to: Annotated[Path, typer.Option(help="Target directory; must be new or empty.")],
    data_dir: DataDir = None,
) -> None:
    """Export a run's adapter, model card and metrics in the layout of a model hub."""
    from service.usecases import export as exports

    with _opened(data_dir) as (database, store):
        paths = exports.export(database, store, run, to)
    for path in paths:
        typer.echo(path)
    typer.echo(f"{len(paths)} files in {to}. To publish them: hf upload REPOSITORY {to}", err=True)
