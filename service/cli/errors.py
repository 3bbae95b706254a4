"""Error messages of commands: one line instead of a traceback."""

from typing import Any, NoReturn

import typer
from typer.core import TyperGroup

from service.domain.errors import FairtuneError, InvalidRequest, RefusedToStart, Unavailable
from service.observability import logs

_DATABASE = "FAIRTUNE_DATABASE_URL"
_PATHS = "FAIRTUNE_DATA_DIR, or the URL that names it"


class PlainGroup(TyperGroup):
    """Prints errors that the user can correct on standard error, with the setting to check.

    The exit status is 2 if settings forbid the start, else 1. Any other error is a bug and keeps
    its traceback.
    """

    def invoke(self, ctx: Any) -> Any:
        from sqlalchemy.exc import SQLAlchemyError

        try:
            return super().invoke(ctx)
        except RefusedToStart as refusal:
            refuse(refusal.detail, status=2)
        except Unavailable as error:
            refuse(error.detail, see=_DATABASE)
        except InvalidRequest as error:
            # The pointers are those of a request's body.
            refuse("; ".join(item.detail for item in error.errors) or error.detail)
        except FairtuneError as error:
            refuse(error.detail)
        except SQLAlchemyError as error:
            reason = getattr(error, "orig", None) or error
            refuse(f"the database cannot be used: {reason}", see=_DATABASE)
        except BrokenPipeError:
            raise  # as in `fairtune keys list | head`: click exits quietly
        except OSError as error:
            refuse(f"{error.strerror or error}: {error.filename}", see=_PATHS)


def refuse(detail: str, *, see: str | None = None, status: int = 1) -> NoReturn:
    """Print the reason, with passwords in it masked, and exit. Raises Exit."""
    line = logs.mask(" ".join(detail.split()))
    typer.echo(line if see is None else f"{line}; see {see}", err=True)
    raise typer.Exit(status) from None
