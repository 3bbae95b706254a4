"""Error messages of commands: one line instead of a traceback."""

from enum import IntEnum
from typing import Any, NoReturn

import typer
from typer.core import TyperGroup

from service.cli.figures import printable
from service.observability import logs

_DATABASE = "FAIRTUNE_DATABASE_URL"
_PATHS = "FAIRTUNE_DATA_DIR, or the URL that names it"


class ExitStatus(IntEnum):
    """Exit statuses of all commands; docs/command-line.md lists them."""

    OK = 0
    REFUSED = 1
    """The request or the input is invalid, or the state forbids it."""
    USAGE = 2
    """The command line or the settings are invalid."""
    JOB_FAILED = 3
    """A job that was waited for failed, was cancelled or is paused."""
    UNREACHABLE = 4
    """The server, or something that it depends on, does not answer."""
    NO_ACCESS = 5
    """The API key is missing or invalid, or its role does not permit the call."""
    NOT_FOUND = 6
    TIMEOUT = 7
    """A job did not finish within --timeout; it continues."""
    NOT_PASSED = 8
    """A report does not pass its caps, and the command was to check them."""
    INTERRUPTED = 130
    """Ctrl-C."""


class PlainGroup(TyperGroup):
    """Prints errors that the user can correct on standard error, with the setting to check.

    The exit status is an ExitStatus. Any other error is a bug and keeps its traceback.
    """

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except (BrokenPipeError, RuntimeError):
            # A broken pipe, as in `fairtune keys list | head`, lets click exit quietly; typer's own
            # exits are RuntimeErrors.
            raise
        except KeyboardInterrupt:
            raise typer.Exit(ExitStatus.INTERRUPTED) from None
        except Exception as error:
            _refuse_plainly(error)
            raise


def _refuse_plainly(error: Exception) -> None:
    """Exit with a message if the user can correct the error; else return. Raises Exit."""
    # Imported when an error occurs: commands that only talk to a server need no database.
    import fairtune
    from service.domain import errors

    match error:
        case errors.RefusedToStart():
            refuse(error.detail, status=ExitStatus.USAGE)
        case errors.Unavailable():
            refuse(error.detail, see=_DATABASE)
        case errors.InvalidRequest():
            # The pointers are those of a request's body.
            refuse("; ".join(item.detail for item in error.errors) or error.detail)
        case errors.FairtuneError():
            refuse(error.detail)
        case fairtune.InvalidRequest():
            _refuse_all(
                [f"{item.pointer}: {item.detail}".lstrip(": ") for item in error.errors]
                or [error.detail]
            )
        case fairtune.NotReleasable():
            _refuse_all(
                ["The certifying report does not let this run be promoted:"]
                + [f"- {item.detail}" for item in error.hindrances]
                + ["To promote it all the same: --override REASON, which stays on record"]
            )
        case fairtune.FairtuneError():
            refuse(str(error), status=_status(error))
        case UnicodeEncodeError():
            # The arguments, and what is read with errors="surrogateescape".
            refuse("the command line is not valid UTF-8", status=ExitStatus.USAGE)
        case OSError() if not isinstance(error, ConnectionError):
            refuse(f"{error.strerror or error}: {error.filename}", see=_PATHS)
        case _ if type(error).__module__.startswith("sqlalchemy"):
            refuse(f"the database cannot be used: {getattr(error, 'orig', error)}", see=_DATABASE)


def _refuse_all(lines: list[str]) -> NoReturn:
    """Print several reasons, each on a line, and exit. Raises Exit."""
    for line in lines[:-1]:
        typer.echo(_plain(line), err=True)
    refuse(lines[-1])


def _status(error: Exception) -> ExitStatus:
    import fairtune

    match error:
        case fairtune.ServerUnreachable() | fairtune.Unavailable():
            return ExitStatus.UNREACHABLE
        case fairtune.Unauthorized() | fairtune.Forbidden():
            return ExitStatus.NO_ACCESS
        case fairtune.NotFound():
            return ExitStatus.NOT_FOUND
        case fairtune.JobFailed():
            return ExitStatus.JOB_FAILED
        case fairtune.WaitTimeout():
            return ExitStatus.TIMEOUT
        case _:
            return ExitStatus.REFUSED


def refuse(detail: str, *, see: str | None = None, status: int = 1) -> NoReturn:
    """Print the reason, with passwords in it masked, and exit. Raises Exit."""
    line = _plain(detail)
    typer.echo(line if see is None else f"{line}; see {see}", err=True)
    raise typer.Exit(status) from None


def _plain(text: str) -> str:
    """Return the text on one line, without passwords and characters that control a terminal."""
    return printable(logs.mask(" ".join(text.split())))
