"""The command line `fairtune`; a module for each resource has its commands."""

from pathlib import Path
from typing import Annotated

import typer

from service import __version__
from service.cli import catalog, datasets, files, original, predict, promotions, runs
from service.cli import keys as cli_keys
from service.cli.errors import PlainGroup
from service.cli.settings import read_settings
from service.ops import parent_pipe

app = typer.Typer(
    cls=PlainGroup,
    no_args_is_help=True,
    add_completion=True,
    help="Fine-tune language models into classifiers and measure which groups they misclassify.",
)

Host = Annotated[
    str | None,
    typer.Option(help="Address to listen on; any other than loopback requires an API key."),
]
Port = Annotated[int | None, typer.Option(help="Port to listen on.")]
Lifeline = Annotated[
    bool, typer.Option(parent_pipe.OPTION, hidden=True, help="Stop when standard input closes.")
]
DataDir = Annotated[
    Path | None,
    typer.Option(help="Directory for all data; default: FAIRTUNE_DATA_DIR or .fairtune."),
]


@app.command()
def up(
    host: Host = None,
    port: Port = None,
    data_dir: DataDir = None,
    lifeline: Lifeline = False,
) -> None:
    """Start everything on one machine: database, queue, API and one worker. Ctrl-C stops it."""
    from service.cli import up as stack

    settings = read_settings(host=host, port=port, data_dir=data_dir)
    if lifeline:
        parent_pipe.stop_with_parent(stack.stop_seconds(settings))
    raise typer.Exit(stack.run(settings))


@app.command()
def demo(data_dir: DataDir = None) -> None:
    """Fine-tune the bundled model on the bundled sample and print the report."""
    from service.cli import demo as demonstration

    raise typer.Exit(demonstration.run(read_settings(data_dir=data_dir)))


@app.command()
def api(host: Host = None, port: Port = None, lifeline: Lifeline = False) -> None:
    """Start the HTTP API only."""
    from service.api.server import STOP_SECONDS, serve

    settings = read_settings(host=host, port=port)
    if lifeline:
        parent_pipe.stop_with_parent(STOP_SECONDS)
    serve(settings)


@app.command()
def worker(lifeline: Lifeline = False) -> None:
    """Start one worker, which runs queued jobs until it is stopped."""
    from importlib import import_module

    settings = read_settings()
    if lifeline:
        parent_pipe.stop_with_parent(settings.stop_grace_seconds + parent_pipe.STOP_SECONDS)
    # Imported by name: the control plane must not depend on the data plane, which is optional.
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
            "--first-key",
            help="Also create an admin's API key, if there has never been a key. A terminal shows "
            "it once; otherwise it is written to a file.",
        ),
    ] = False,
    first_key_file: Annotated[
        Path | None,
        typer.Option(help="File for the first key; default: first-key in the data directory."),
    ] = None,
    data_dir: DataDir = None,
) -> None:
    """Migrate the database to this version's schema."""
    from service.observability import logs
    from service.ops import startup
    from service.store import migrate as migrations
    from service.store.database import Database
    from service.usecases import api_keys

    settings = read_settings(data_dir=data_dir)
    logs.configure("migrate", settings.log_format, settings.log_level)
    startup.wait_for("migrate", settings)
    database = Database(settings.database_url)
    message = "The database has this version's schema."
    if first_key:
        new_key = api_keys.migrate_with_first(database)
        typer.echo(message)
        cli_keys.announce_first(new_key, first_key_file or settings.data_dir / "first-key")
    else:
        migrations.upgrade(database)
        typer.echo(message)
    database.dispose()


def _version(value: bool) -> None:
    if value:
        typer.echo(f"fairtune {__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    pass


app.add_typer(runs.app, name="runs")
app.add_typer(datasets.app, name="datasets")
app.add_typer(promotions.app, name="promotions")
app.command()(catalog.presets)
app.command()(catalog.templates)
app.command()(catalog.models)
app.command("predict")(predict.predict)
app.add_typer(cli_keys.app, name="keys")
app.command()(files.export)
app.command()(files.gc)
original.add_to(app)

if __name__ == "__main__":
    app()
