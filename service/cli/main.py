"""The command line: fairtune up, api, worker, migrate, keys, predict, gc, export."""

from pathlib import Path
from typing import Annotated

import typer

from service import __version__
from service.cli import files, predict
from service.cli import keys as cli_keys
from service.cli.errors import PlainGroup
from service.cli.settings import read_settings
from service.ops import parent_pipe

app = typer.Typer(
    cls=PlainGroup,
    no_args_is_help=True,
    add_completion=False,
    help="Fine-tune language models into classifiers and learn whom they get wrong.",
)
app.add_typer(cli_keys.app, name="keys")
app.command()(files.gc)
app.command()(files.export)
app.command("predict")(predict.predict)

Host = Annotated[
    str | None, typer.Option(help="Address to listen on; other than loopback it takes an API key.")
]
Port = Annotated[int | None, typer.Option(help="Port to listen on.")]
Lifeline = Annotated[
    bool, typer.Option(parent_pipe.OPTION, hidden=True, help="Stop when standard input closes.")
]
DataDir = Annotated[Path | None, typer.Option(help="Where everything is kept.")]


@app.command()
def up(
    host: Host = None,
    port: Port = None,
    data_dir: DataDir = None,
    held: Lifeline = False,
) -> None:
    """Everything on one machine: database, queue, API and one worker. Ctrl-C stops it."""
    from service.cli import up as stack

    settings = read_settings(host=host, port=port, data_dir=data_dir)
    if held:
        parent_pipe.stop_with_parent()
    raise typer.Exit(stack.run(settings))


@app.command()
def demo(data_dir: DataDir = None) -> None:
    """Fine-tune the bundled model on the bundled sample and print the report."""
    from service.cli import demo as demonstration

    raise typer.Exit(demonstration.run(read_settings(data_dir=data_dir)))


@app.command()
def api(host: Host = None, port: Port = None, held: Lifeline = False) -> None:
    """The HTTP API alone."""
    from service.api.server import serve

    settings = read_settings(host=host, port=port)
    if held:
        parent_pipe.stop_with_parent()
    serve(settings)


@app.command()
def worker(held: Lifeline = False) -> None:
    """One worker: takes jobs from the queue until it is told to stop."""
    from importlib import import_module

    settings = read_settings()
    if held:
        parent_pipe.stop_with_parent()
    # By name: the control plane does not depend on the data plane, which may not be installed.
    try:
        tasks = import_module("worker.tasks")
    except ModuleNotFoundError as error:
        typer.echo(f"The worker needs the package {error.name}: pip install 'fairtune[worker]'")
        raise typer.Exit(2) from None
    tasks.run_worker(settings)


@app.command()
def migrate(
    first_key: Annotated[
        bool,
        typer.Option(
            "--first-key", help="Then make an admin's API key if none was ever made, and print it."
        ),
    ] = False,
    data_dir: DataDir = None,
) -> None:
    """Bring the database to this version's schema."""
    from service.observability import logs
    from service.ops import startup
    from service.store import migrate as migrations
    from service.store.database import Database
    from service.usecases import api_keys

    settings = read_settings(data_dir=data_dir)
    logs.configure("migrate", settings.log_format, settings.log_level)
    startup.wait_for("migrate", settings)
    database = Database(settings.database_url)
    said = "The database is at this version's schema."
    if first_key:
        made = api_keys.migrate_with_first(database)
        typer.echo(said)
        cli_keys.announce_first(made)
    else:
        migrations.upgrade(database)
        typer.echo(said)
    database.dispose()


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
