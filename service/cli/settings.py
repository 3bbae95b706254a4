"""Settings of a command; invalid ones are reported by variable, without a traceback."""

import typer
from pydantic import ValidationError
from pydantic_settings import SettingsError

from service.settings import Settings


def read_settings(**options: object) -> Settings:
    """Return the settings, overridden by `options` that are not None. Exits with 2 on errors."""
    overrides = {name: value for name, value in options.items() if value is not None}
    try:
        return Settings(**overrides)  # type: ignore[arg-type]  # checked by pydantic
    except SettingsError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(2) from None
    except ValidationError as error:
        for item in error.errors():
            name = "_".join(str(part) for part in item["loc"])
            message = item["msg"].removeprefix("Value error, ")
            # An error about several settings names them itself.
            if name in overrides:
                message = f"--{name.replace('_', '-')}: {message}"
            elif name:
                message = f"FAIRTUNE_{name.upper()}: {message}"
            typer.echo(message, err=True)
        raise typer.Exit(2) from None
