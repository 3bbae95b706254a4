"""What stands in the way of a command, in a line instead of a traceback."""

from typing import Any, NoReturn

import typer
from typer.core import TyperGroup

from service.domain.errors import FairtuneError, RefusedToStart, Unavailable
from service.observability import logs

_DATABASE = "FAIRTUNE_DATABASE_URL"
_PATHS = "FAIRTUNE_DATA_DIR, or the URL that names it"


class PlainGroup(TyperGroup):
    """Says on standard error what whoever runs a command can mend, and where to look.

    The exit status is 2 where settings forbid the start, 1 else. Any other error is one of ours and
    keeps its traceback.
    """

    def invoke(self, ctx: Any) -> Any:
        from sqlalchemy.exc import SQLAlchemyError

        try:
            return super().invoke(ctx)
        except RefusedToStart as refusal:
            refuse(refusal.detail, status=2)
        except Unavailable as error:
            refuse(error.detail, see=_DATABASE)
        except FairtuneError as error:
            refuse(error.detail)
        except SQLAlchemyError as error:
            reason = getattr(error, "orig", None) or error
            refuse(f"the database cannot be used: {reason}", see=_DATABASE)
        except BrokenPipeError:
            raise  # of `fairtune keys list | head`, say: click ends it quietly
        except OSError as error:
            refuse(f"{error.strerror or error}: {error.filename}", see=_PATHS)


def refuse(detail: str, *, see: str | None = None, status: int = 1) -> NoReturn:
    """Say why, without a password that a library put into its message. Raises Exit."""
    line = logs.mask(" ".join(detail.split()))
    typer.echo(line if see is None else f"{line}; see {see}", err=True)
    raise typer.Exit(status) from None
