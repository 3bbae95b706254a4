"""Options and connection of the commands that talk to a running server."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from fairtune import Client

Server = Annotated[
    str | None,
    typer.Option(
        "--server",
        "--url",
        envvar="FAIRTUNE_URL",
        help="Address of the server; default: http://127.0.0.1:8000.",
        rich_help_panel="Connection",
    ),
]
Key = Annotated[
    str | None,
    typer.Option(
        envvar="FAIRTUNE_KEY",
        help="API key, if the server requires one.",
        rich_help_panel="Connection",
    ),
]


@contextmanager
def connected(server: str | None, key: str | None) -> Iterator["Client"]:
    """Open a client of the server. Its errors become one line and an exit status."""
    # httpx and the types of the API take a moment, which --help does not need.
    from fairtune import Client

    with Client(server, key) as client:
        yield client
