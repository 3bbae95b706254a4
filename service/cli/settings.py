"""Settings for a command: what is wrong with them is said by variable, without a traceback."""

import typer
from pydantic import ValidationError

from service.settings import Settings


def read_settings(**given: object) -> Settings:
    """The settings, with options that were `given` (not None) over them. Exits with 2."""
    try:
        return Settings(**{name: value for name, value in given.items() if value is not None})  # type: ignore[arg-type]  # checked by pydantic
    except ValidationError as error:
        for item in error.errors():
            name = "_".join(str(part) for part in item["loc"]).upper()
            said = item["msg"].removeprefix("Value error, ")
            # What concerns several settings names them itself.
            typer.echo(f"FAIRTUNE_{name}: {said}" if name else said, err=True)
        raise typer.Exit(2) from None
