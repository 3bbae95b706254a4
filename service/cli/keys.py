"""The command line: fairtune keys create, list, revoke. Works on the database itself."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from service.cli.errors import refuse
from service.cli.settings import read_settings
from service.domain.access import Role
from service.settings import Settings

if TYPE_CHECKING:
    from service.store.database import Database
    from service.usecases.api_keys import Made

DataDir = Annotated[
    Path | None, typer.Option(help="As given to `fairtune up`; default: FAIRTUNE_DATA_DIR.")
]
app = typer.Typer(no_args_is_help=True, help="API keys: make, list and revoke them.")

_UNITS = {"h": 3600, "d": 24 * 3600, "w": 7 * 24 * 3600}
_DURATION = re.compile(r"([0-9]{1,6})([hdw])")


def parse_duration(text: str) -> int:
    """Seconds of `12h`, `90d` or `4w`. How long is too long is not decided here."""
    match = _DURATION.fullmatch(text)
    if match is None or int(match[1]) == 0:
        raise typer.BadParameter(
            f"{text!r} is no duration; write a number and h, d or w: 12h, 90d, 4w"
        )
    return int(match[1]) * _UNITS[match[2]]


@contextmanager
def _database(data_dir: Path | None) -> Iterator["Database"]:
    with migrated(read_settings(data_dir=data_dir)) as database:
        yield database


@contextmanager
def migrated(settings: Settings) -> Iterator["Database"]:
    """The migrated database. Nothing is made where there is none. Raises Exit."""
    from service.store import migrate
    from service.store.database import Database, sqlite_file

    remedy = f"run: fairtune migrate{settings.data_dir_option}"
    file = sqlite_file(settings.database_url)
    if file is not None and not file.exists():
        refuse(f"There is no database at {file}; {remedy}")
    database = Database(settings.database_url)
    try:
        if not migrate.is_current(database):
            refuse(f"The database is not at this version's schema; {remedy}")
        yield database
    finally:
        database.dispose()


@app.command()
def create(
    name: Annotated[
        str, typer.Argument(help="Stands in the events of what the key does; used once.")
    ],
    role: Annotated[
        Role,
        typer.Option(
            help="viewer reads and may ask for reports; operator also writes; admin also manages "
            "keys."
        ),
    ],
    expires: Annotated[
        int | None,
        typer.Option(
            parser=parse_duration,
            metavar="DURATION",
            help="After how long: 12h, 90d, 4w. Never, if left out.",
        ),
    ] = None,
    data_dir: DataDir = None,
) -> None:
    """Make a key and print its token, this once. The token alone goes to standard output."""
    from service.usecases import api_keys as keys

    with _database(data_dir) as database:
        made = keys.create(database, name, role, expires)
    row = made.key.row
    until = "" if row.expires_at is None else f", until {_time(row.expires_at)}"
    typer.echo(f"Key {row.id}, {row.role}{until}. It is shown this once; keep it safe:", err=True)
    typer.echo(made.token)
    typer.echo("Send it as `Authorization: Bearer ft_…`.", err=True)


@app.command(name="list")
def list_(data_dir: DataDir = None) -> None:
    """Every key, newest first. Tokens are kept nowhere and cannot be shown."""
    from service.store import keys

    with _database(data_dir) as database, database.read() as session:
        found, _ = keys.page(session, limit=None, after=None)
    table = [("ID", "NAME", "ROLE", "STATE", "CREATED", "EXPIRES", "LAST USED")]
    for row, state in found:
        times = (row.created_at, row.expires_at, row.last_used_at)
        table.append((row.id, row.name, row.role, state.value, *map(_time, times)))  # type: ignore[arg-type]  # three times
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for cells in table:
        line = "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
        typer.echo(line.rstrip())


@app.command()
def revoke(
    key: Annotated[str, typer.Argument(help="Its id or its name.")],
    data_dir: DataDir = None,
) -> None:
    """Revoke a key, for good and from the next request on."""
    from service.usecases import api_keys as keys

    with _database(data_dir) as database:
        row = keys.revoke_named(database, key).row
    typer.echo(f"The key {row.name!r} ({row.id}) is revoked.")


def announce_first(made: "Made | None") -> None:
    """What `fairtune migrate --first-key` says."""
    if made is None:
        typer.echo("There are API keys already: no first one was made.")
        return
    typer.echo(f"The first API key, {made.key.row.name!r} (admin), shown this once; keep it safe:")
    typer.echo(made.token)
    typer.echo("Send it as `Authorization: Bearer ft_…`; `fairtune keys create` makes others.")


def _time(value: datetime | None) -> str:
    return "-" if value is None else value.strftime("%Y-%m-%dT%H:%M:%SZ")
