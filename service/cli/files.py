"""The command line: fairtune gc, export. Both work on the database and the store themselves."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from service.cli.errors import refuse
from service.cli.keys import DataDir, migrated, parse_duration
from service.cli.settings import read_settings
from service.domain.job_kinds import MERGE

if TYPE_CHECKING:
    from service.artifacts import ArtifactStore
    from service.store.database import Database
    from service.usecases.retention import Garbage


@contextmanager
def _opened(data_dir: Path | None) -> Iterator[tuple["Database", "ArtifactStore"]]:
    """The migrated database and its store. Raises Exit."""
    from service.artifacts import ArtifactStore, StoreAway

    settings = read_settings(data_dir=data_dir)
    with migrated(settings) as database:
        try:
            yield database, ArtifactStore(settings.artifacts_url)
        except StoreAway as error:
            refuse(f"the artifact store cannot be used: {error.strerror}", see="AWS_* variables")


def gc(
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be removed, and remove nothing.")
    ] = False,
    older_than: Annotated[
        int,
        typer.Option(
            parser=parse_duration,
            metavar="DURATION",
            help="Leave younger files alone, whose rows may be on their way: 12h, 7d, 2w.",
        ),
    ] = "24h",  # type: ignore[assignment]  # the parser's input
    data_dir: DataDir = None,
) -> None:
    """Find files that no row knows and rows whose files are gone; say which, and remove them."""
    from service.usecases import retention

    with _opened(data_dir) as (database, store):
        found = retention.look(database, store, older_than)
        _say(found)
        if found and not dry_run:
            retention.collect(database, store, found)
            typer.echo("They are removed; a dataset's row stays where its file is gone.")
        elif found:
            typer.echo("Nothing was removed.")


def _say(found: "Garbage") -> None:
    if not found:
        typer.echo("There is nothing to remove.")
    for run_id in found.half_deleted:
        typer.echo(f"run, its deletion was cut short: {run_id}")
    for job in found.half_deleted_merges:
        typer.echo(
            f"merged model, its deletion was cut short: {MERGE.result_id(job.id)} of {job.run_id}"
        )
    for entry in found.unknown:
        what = "half of a file" if entry.half else "file, no row knows it"
        typer.echo(f"{what}: {entry.key} ({entry.size} bytes, {entry.modified:%Y-%m-%dT%H:%M:%SZ})")
    for row in found.lost:
        typer.echo(f"row, its files are gone: {row.what}")
    if found.unknown:
        total = sum(entry.size for entry in found.unknown)
        typer.echo(f"{len(found.unknown)} files of {total} bytes")


def export(
    run: Annotated[str, typer.Argument(help="The run's id.")],
    to: Annotated[Path, typer.Option(help="A directory that is not there yet, or empty.")],
    data_dir: DataDir = None,
) -> None:
    """Write a run's adapter, model card and figures as a model hub takes them."""
    from service.usecases import export as exports

    with _opened(data_dir) as (database, store):
        written = exports.export(database, store, run, to)
    for path in written:
        typer.echo(path)
    typer.echo(
        f"{len(written)} files in {to}. To publish them: hf upload REPOSITORY {to}", err=True
    )
