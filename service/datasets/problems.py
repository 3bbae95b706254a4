"""What is wrong with an upload: flaws of single rows, and their bounded list."""

from collections import Counter
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, Field

from service.domain.errors import FieldError, InvalidRequest

OnInvalid = Literal["refuse", "drop"]

LISTED_ERRORS = 20
LISTED_DROPS = 100


@dataclass(frozen=True, slots=True)
class Flaw:
    """`path` is the pointer below the row, without a leading slash; empty: the row itself.

    After a fatal flaw the rest of the file cannot be read, so that it is never dropped.
    """

    kind: str
    detail: str
    path: str = ""
    fatal: bool = False


class DroppedRow(BaseModel):
    pointer: str = Field(description="Form field, line (from 1) or item (from 0), and column.")
    detail: str


class Dropped(BaseModel):
    """Rows left out because the upload asked for on_invalid=drop."""

    total: int = Field(0, description="Rows left out.")
    by_kind: dict[str, int] = Field({}, description="Rows left out by their first problem.")
    rows: list[DroppedRow] = Field([], description=f"The first {LISTED_DROPS} of them.")


def shown(value: object) -> str:
    """`value` quoted for an error: short, printable, and always encodable."""
    text = value if isinstance(value, str) else str(value)
    return repr(text if len(text) <= 60 else text[:57] + "...")


def bad_character(value: str) -> str | None:
    """Why `value` cannot be stored as UTF-8 text everywhere; None: it can."""
    if "\0" in value:
        return "holds a NUL character"
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            return "holds half of a surrogate pair (an escape \\ud800 to \\udfff that stands alone)"
    return None


class Problems:
    """Collects flaws; memory does not grow with their number."""

    def __init__(self, on_invalid: OnInvalid) -> None:
        self.on_invalid = on_invalid
        self.rows = 0
        self.fatal: FieldError | None = None
        self._flaws = 0
        self._kinds: Counter[str] = Counter()
        self._listed: list[FieldError] = []

    def add(self, row: str, flaws: list[Flaw]) -> None:
        """Note the flaws of the row at the pointer `row`."""
        self.rows += 1
        self._flaws += len(flaws)
        self._kinds[flaws[0].kind] += 1
        for flaw in flaws:
            error = FieldError(f"{row}/{flaw.path}" if flaw.path else row, flaw.detail)
            if flaw.fatal and self.fatal is None:
                self.fatal = error
            if len(self._listed) < LISTED_DROPS:
                self._listed.append(error)

    def add_more(self, kind: str, listed: list[FieldError], total: int) -> None:
        """Note `total` flawed rows of one kind, of which the first are `listed`."""
        self.rows += total
        self._flaws += total
        self._kinds[kind] += total
        self._listed.extend(listed[: LISTED_DROPS - len(self._listed)])

    def check(self) -> None:
        """Raise InvalidRequest if the dataset is refused for what was noted so far."""
        if self._flaws and (self.on_invalid == "refuse" or self.fatal is not None):
            raise self._refusal([])

    def refuse(self, pointer: str, detail: str) -> InvalidRequest:
        """An error about the dataset as a whole, followed by what was wrong with single rows."""
        return self._refusal([FieldError(pointer, detail)])

    def _refusal(self, first: list[FieldError]) -> InvalidRequest:
        if self.fatal is not None and self.on_invalid == "drop":
            first = [*first, self.fatal]
        rest = [error for error in self._listed if error not in first]
        errors = (first + rest)[:LISTED_ERRORS]
        total = len(first) + self._flaws - (self.fatal in first)
        lead = f"{errors[0].pointer}: {errors[0].detail}"
        if total > 1:
            shown_here = f", the first {len(errors)} listed" if total > len(errors) else ""
            lead += f" ({total:,} problems in all{shown_here})"
        return InvalidRequest(lead, tuple(errors))

    def dropped(self) -> Dropped:
        """What was left out; empty unless on_invalid is drop and no error was raised."""
        rows = [DroppedRow(pointer=item.pointer, detail=item.detail) for item in self._listed]
        return Dropped(total=self.rows, by_kind=dict(self._kinds.most_common()), rows=rows)
