"""A server for one command: the one that runs, or `fairtune up` until the command ends."""

import contextlib
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import typer

from service.cli.errors import refuse
from service.cli.settings import read_settings

if TYPE_CHECKING:
    from fairtune import Client
    from service.settings import Settings

_START_SECONDS = 90


class Address(NamedTuple):
    """The address of a started server, and a temporary API key if it requires keys."""

    url: str
    key: str | None


class ServerInUse(NamedTuple):
    """A client of the server that a command uses."""

    client: "Client"
    is_temporary: bool
    """True if the command started the server and stops it at its end."""


@contextlib.contextmanager
def connected_or_started(
    server: str | None,
    key: str | None,
    *,
    purpose: str,
    models_dir: Path | None = None,
) -> Iterator[ServerInUse]:
    """Connect to `server`, else to the one at the default address, else start one until the end.

    `purpose` names the temporary API key; `models_dir` is the models directory of a server that is
    started here. Exits with a message if the server does not start.
    """
    from fairtune import Client

    if server is not None or _answers(key):
        with Client(server, key) as client:
            yield ServerInUse(client, is_temporary=False)
        return
    settings = read_settings(models_dir=models_dir)
    typer.echo(
        f"No server is running: one is started for this command, with {settings.data_dir}.",
        err=True,
    )
    with started(settings, purpose) as address, Client(address.url, address.key) as client:
        yield ServerInUse(client, is_temporary=True)


def _answers(key: str | None) -> bool:
    """Return True if a Fairtune server answers at FAIRTUNE_URL or the default address."""
    from fairtune import Client, FairtuneError

    if os.environ.get("FAIRTUNE_URL"):
        return True  # if it does not answer, the user wants to know
    with Client(None, key) as client:
        try:
            client.health()
        except FairtuneError:
            return False
    return True


@contextlib.contextmanager
def started(settings: "Settings", purpose: str) -> Iterator[Address]:
    """Run `fairtune up` on a free port until the end. Exits with a message if it does not start.

    Its output goes to service.log in the data directory, since commands use the terminal.
    """
    from service.ops import parent_pipe
    from service.settings import Settings

    settings = Settings(**(settings.model_dump() | {"host": "127.0.0.1", "port": free_port()}))
    settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    log = settings.data_dir / "service.log"
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603 - our own module, no shell
            [sys.executable, "-m", "service.cli.main", "up", parent_pipe.OPTION],
            stdin=subprocess.PIPE,
            env=os.environ | settings.variables,
            stdout=output,
            stderr=subprocess.STDOUT,
            # Ctrl-C reaches the command alone, which stops the server when it has finished.
            start_new_session=True,
        )
    url = f"http://{settings.host}:{settings.port}"
    try:
        _wait_until_ready(process, url, log)
        with _key_if_required(settings.database_url, purpose) as key:
            yield Address(url, key)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        with process:  # waits, then closes its standard input
            pass


def free_port() -> int:
    """Return a port of the loopback interface that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait_until_ready(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    from fairtune import Client, FairtuneError

    deadline = time.monotonic() + _START_SECONDS
    with Client(url) as client:
        while True:
            if process.poll() is not None or time.monotonic() > deadline:
                typer.echo(log.read_text(errors="replace"), err=True)
                refuse("The server did not start; its output is above.", see=str(log))
            with contextlib.suppress(FairtuneError):
                if client.readiness().status == "ok":
                    return
            time.sleep(0.1)


@contextlib.contextmanager
def _key_if_required(database_url: str, purpose: str) -> Iterator[str | None]:
    """Yield a temporary API key if the server requires keys, else None."""
    from service.domain.access import Role
    from service.store import keys as key_rows
    from service.store.database import Database
    from service.usecases import api_keys

    database = Database(database_url)
    try:
        with database.read() as session:
            is_open = not key_rows.has_any(session)
        if is_open:
            yield None
            return
        name = f"{purpose} {secrets.token_hex(4)}"
        new_key = api_keys.create(database, name, Role.OPERATOR, 24 * 3600)
        try:
            yield new_key.token
        finally:
            api_keys.revoke(database, new_key.key.row.id)
    finally:
        database.dispose()
