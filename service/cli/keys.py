"""`fairtune keys create`, `list` and `revoke`; they access the database directly."""

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from service.cli.errors import refuse
from service.cli.figures import time_text
from service.cli.settings import read_settings
from service.cli.tables import print_table
from service.domain.access import Role
from service.settings import Settings

if TYPE_CHECKING:
    from service.store.database import Database
    from service.usecases.api_keys import NewKey

DataDir = Annotated[
    Path | None, typer.Option(help="Data directory of `fairtune up`; default: FAIRTUNE_DATA_DIR.")
]
app = typer.Typer(no_args_is_help=True, help="Create, list and revoke API keys.")

_UNITS = {"h": 3600, "d": 24 * 3600, "w": 7 * 24 * 3600}
_DURATION = re.compile(r"([0-9]{1,6})([hdw])")


def parse_duration(text: str) -> int:
    """Return the seconds of `12h`, `90d` or `4w`; without an upper limit."""
    match = _DURATION.fullmatch(text)
    if match is None or int(match[1]) == 0:
        raise typer.BadParameter(
            f"{text!r} is not a duration; write a number and h, d or w: 12h, 90d, 4w"
        )
    return int(match[1]) * _UNITS[match[2]]


@contextmanager
def _database(data_dir: Path | None) -> Iterator["Database"]:
    with migrated(read_settings(data_dir=data_dir)) as database:
        yield database


@contextmanager
def migrated(settings: Settings) -> Iterator["Database"]:
    """Open the migrated database; a missing one is not created. Raises Exit."""
    from service.store import migrate
    from service.store.database import Database, sqlite_file

    remedy = f"run: fairtune migrate{settings.data_dir_option}"
    file = sqlite_file(settings.database_url)
    if file is not None and not file.exists():
        place = "--data-dir or FAIRTUNE_DATA_DIR to its data directory"
        if not settings.data_dir_option:
            place = "FAIRTUNE_DATABASE_URL to its database"
        refuse(
            f"There is no database at {file}. If the service has one elsewhere, set {place}; to "
            f"create one here, {remedy}"
        )
    database = Database(settings.database_url)
    try:
        if not migrate.is_current(database):
            refuse(f"The database does not have this version's schema; {remedy}")
        yield database
    finally:
        database.dispose()


@app.command()
def create(
    name: Annotated[
        str, typer.Argument(help="Name of the key; events record it. A name is never reused.")
    ],
    role: Annotated[
        Role,
        typer.Option(
            help="viewer may read and request reports; operator may also write; admin may also "
            "manage keys."
        ),
    ],
    expires: Annotated[
        int | None,
        typer.Option(
            parser=parse_duration,
            metavar="DURATION",
            help="Lifetime of the key: 12h, 90d, 4w; by default it never expires.",
        ),
    ] = None,
    data_dir: DataDir = None,
) -> None:
    """Create an API key and print its token, once. Standard output has only the token."""
    from service.usecases import api_keys as keys

    with _database(data_dir) as database:
        new_key = keys.create(database, name, role, expires)
    row = new_key.key.row
    until = "" if row.expires_at is None else f", until {time_text(row.expires_at)}"
    typer.echo(
        f"Key {row.id}, {row.role}{until}. Its token is shown only once; store it safely:", err=True
    )
    typer.echo(new_key.token)
    typer.echo("Send it as `Authorization: Bearer ft_…`.", err=True)


@app.command(name="list")
def list_(data_dir: DataDir = None) -> None:
    """List all API keys, newest first. Tokens are not stored and cannot be shown."""
    from service.store import keys

    with _database(data_dir) as database, database.read() as session:
        rows, _ = keys.page(session, limit=None, after=None)
    headers = ("ID", "NAME", "ROLE", "STATE", "CREATED", "EXPIRES", "LAST USED")
    print_table(
        headers,
        [
            (
                row.id,
                row.name,
                row.role,
                state.value,
                *map(time_text, (row.created_at, row.expires_at, row.last_used_at)),
            )
            for row, state in rows
        ],
        elastic={"NAME"},
    )


@app.command()
def revoke(
    key: Annotated[str, typer.Argument(help="Id or name of the key.")],
    data_dir: DataDir = None,
) -> None:
    """Revoke an API key permanently, effective with the next request."""
    from service.usecases import api_keys as keys

    with _database(data_dir) as database:
        row = keys.revoke_named(database, key).row
    typer.echo(f"The key {row.name!r} ({row.id}) is revoked.")


def announce_first(new_key: "NewKey | None", file: Path) -> None:
    """Show the first key on a terminal, or write it to `file`: a container's log keeps all lines.

    An existing file is not overwritten; if none can be written, the key is printed all the same,
    since nobody could use the service without it.
    """
    if new_key is None:
        typer.echo("There are API keys already: no first key was created.")
        return
    subject = f"The first API key, {new_key.key.row.name!r} (admin),"
    if not sys.stdout.isatty():
        try:
            _write_secret(file, new_key.token)
        except OSError as error:
            typer.echo(f"{file} cannot be written: {error.strerror}", err=True)
        else:
            typer.echo(f"{subject} is in {file}. Store it safely and delete the file.")
            return
    typer.echo(f"{subject} is shown only once; store it safely:")
    typer.echo(new_key.token)


def _write_secret(file: Path, secret: str) -> None:
    """Create a file that only this user can read. Raises OSError, also if it exists."""
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as writer:
        writer.write(f"{secret}\n")
