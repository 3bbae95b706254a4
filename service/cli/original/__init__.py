"""The commands of the scripts that Fairtune replaces: train, evaluate, merge.

They take the scripts' flat configuration and flags and leave the scripts' files.
"""

import typer

from service.cli.original import train


def add_to(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.command(
        "train",
        cls=train.TrainCommand,
        context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
    )(train.train)
