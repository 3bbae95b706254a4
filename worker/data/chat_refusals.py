"""Rows whose chat the base model's chat template refuses.

Many templates call `raise_exception` for two user turns in a row, a system turn or an assistant's
first turn. That is a fault of the row or of the choice of model, never of Fairtune.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from service.domain.errors import ProgramFailure, first_line
from service.domain.states import FailureReason
from worker.data.rows import Row

MAX_LISTED = 5
"""Rows that a failure lists."""

_TEMPLATE_CODE = ("<template>", "<unknown>")
"""File names that jinja gives to the code of a template in tracebacks."""


class ChatRefusals:
    """Collects refused rows, so that one failure names all of them."""

    def __init__(self) -> None:
        self._refusals: list[tuple[Row, str]] = []

    @contextmanager
    def collected(self, row: Row) -> Iterator[None]:
        """Suppress and note what the template raises while `row` is tokenized inside."""
        try:
            yield
        except Exception as error:
            if not _is_of_template(error):
                raise
            self._refusals.append((row, first_line(error).rstrip(". ")))

    def check(self) -> None:
        """Raise ProgramFailure if a row was refused: invalid_data if the row brought the chat."""
        if not self._refusals:
            return
        row, message = self._refusals[0]
        if row.messages is None:
            raise ProgramFailure(
                FailureReason.INVALID_SPEC,
                f"base_model: its chat template refuses the prompt ({message}; row {row.id}). Use "
                "another variant of the model or another prompt template.",
            )
        roles = ", ".join(turn["role"] for turn in row.messages)
        others = [other.id for other, _ in self._refusals[1:]]
        listed = ", ".join(others[: MAX_LISTED - 1])
        if len(others) >= MAX_LISTED:
            listed += f" and {len(others) - MAX_LISTED + 1} more"
        also = f" So are {len(others)} other rows: {listed}." if others else ""
        raise ProgramFailure(
            FailureReason.INVALID_DATA,
            f"Row {row.id} of the {row.split} split: the base model's chat template refuses its "
            f"chat ({roles}): {message}.{also} Change the turns or leave the rows out, and upload "
            "the dataset again; or use a base model whose template allows them.",
        )


@contextmanager
def chat_refusal(row: Row) -> Iterator[None]:
    """Raise ProgramFailure, as ChatRefusals.check does, for a single row."""
    refusals = ChatRefusals()
    with refusals.collected(row):
        yield
    refusals.check()


def _is_of_template(error: Exception) -> bool:
    """Return True if a chat template raised the error, on purpose or by a mistake in it."""
    from jinja2 import TemplateError

    if isinstance(error, TemplateError):
        return True
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename in _TEMPLATE_CODE:
            return not isinstance(error, ProgramFailure)
        trace = trace.tb_next
    return False
