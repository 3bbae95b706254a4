"""The command line: fairtune up, api, worker, migrate."""

import ipaddress
from pathlib import Path
from typing import Annotated

import typer

from service import __version__, lifeline
from service.settings import Settings

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="Fine-tune language models into classifiers and learn whom they get wrong.",
)

Host = Annotated[str | None, typer.Option(help="Address to listen on; loopback only.")]
Port = Annotated[int | None, typer.Option(help="Port to listen on.")]
Lifeline = Annotated[
    bool, typer.Option(lifeline.OPTION, hidden=True, help="Stop when standard input closes.")
]
DataDir = Annotated[Path | None, typer.Option(help="Where everything is kept.")]


def _settings(**given: object) -> Settings:
    from pydantic import ValidationError

    try:
        return Settings(**{name: value for name, value in given.items() if value is not None})  # type: ignore[arg-type]  # checked by pydantic
    except ValidationError as error:
        for item in error.errors():
            name = "_".join(str(part) for part in item["loc"]).upper()
            typer.echo(f"FAIRTUNE_{name}: {item['msg']}", err=True)
        raise typer.Exit(2) from None


def _loopback_only(settings: Settings) -> None:
    """Open access is for this machine alone; there are no API keys yet to open it further."""
    try:
        open_to_all = not ipaddress.ip_address(settings.host).is_loopback
    except ValueError:
        open_to_all = settings.host != "localhost"
    if open_to_all:
        typer.echo(
            f"Refusing to listen on {settings.host}: this version has no API keys, so anyone who "
            "can reach that address could use it. Listen on 127.0.0.1 and put an authenticating "
            "proxy in front.",
            err=True,
        )
        raise typer.Exit(2)


@app.command()
def up(
    host: Host = None,
    port: Port = None,
    data_dir: DataDir = None,
    held: Lifeline = False,
) -> None:
    """Everything on one machine: database, queue, API and one worker. Ctrl-C stops it."""
    from service import up as stack

    settings = _settings(host=host, port=port, data_dir=data_dir)
    _loopback_only(settings)
    if held:
        lifeline.hold()
    raise typer.Exit(stack.run(settings))


@app.command()
def demo(data_dir: DataDir = None) -> None:
    """Fine-tune the bundled model on the bundled sample and print the report."""
    from service import demo as demonstration

    raise typer.Exit(demonstration.run(_settings(data_dir=data_dir)))


@app.command()
def api(host: Host = None, port: Port = None, held: Lifeline = False) -> None:
    """The HTTP API alone."""
    from service.api.server import serve

    settings = _settings(host=host, port=port)
    _loopback_only(settings)
    if held:
        lifeline.hold()
    serve(settings)


@app.command()
def worker(held: Lifeline = False) -> None:
    """One worker: takes jobs from the queue until it is told to stop."""
    from importlib import import_module

    settings = _settings()
    if held:
        lifeline.hold()
    # By name: the control plane does not depend on the data plane, which may not be installed.
    try:
        tasks = import_module("worker.tasks")
    except ModuleNotFoundError as error:
        typer.echo(f"The worker needs the package {error.name}: pip install 'fairtune[worker]'")
        raise typer.Exit(2) from None
    tasks.run_worker(settings)


@app.command()
def migrate() -> None:
    """Bring the database to this version's schema."""
    from service.store import migrate as migrations
    from service.store.database import Database

    settings = _settings()
    migrations.upgrade(Database(settings.database_url))
    typer.echo("The database is at this version's schema.")


def _version(value: bool) -> None:
    if value:
        typer.echo(f"fairtune {__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Say which.")
    ] = False,
) -> None:
    pass


if __name__ == "__main__":
    app()
