"""Problems of an upload: flaws of single rows, and their bounded list."""

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
    """One thing that is wrong with a row.

    `path` is the pointer below the row, without a leading slash; empty: the row itself.
    A fatal flaw makes the remainder of the file unreadable, so that such a row is never dropped.
    """

    kind: str
    detail: str
    path: str = ""
    fatal: bool = False


class DroppedRow(BaseModel):
    pointer: str = Field(
        description="JSON pointer: form field, line (from 1) or item (from 0), and column."
    )
    detail: str = Field(description="The reason.")


class Dropped(BaseModel):
    """Rows left out because the upload set on_invalid to drop."""

    total: int = Field(0, description="Number of rows left out.")
    by_kind: dict[str, int] = Field(
        {}, description="Number of rows left out, by the kind of their first problem."
    )
    rows: list[DroppedRow] = Field([], description=f"The first {LISTED_DROPS} problems.")


def quoted(value: object) -> str:
    """Return `value` in quotes for an error: short, printable and always encodable."""
    text = value if isinstance(value, str) else str(value)
    return repr(text if len(text) <= 60 else text[:57] + "...")


def bad_character(value: str) -> str | None:
    """Return the reason that `value` cannot be stored as UTF-8 text everywhere, if any."""
    if "\0" in value:
        return "holds a NUL character"
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            return "holds an unpaired surrogate (an escape \\ud800 to \\udfff without its partner)"
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
        """Record the flaws of the row at the pointer `row`."""
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
        """Record `total` flawed rows of one kind, of which `listed` are the first."""
        self.rows += total
        self._flaws += total
        self._kinds[kind] += total
        self._listed.extend(listed[: LISTED_DROPS - len(self._listed)])

    def check(self) -> None:
        """Raise InvalidRequest if the recorded flaws make the dataset invalid."""
        if self._flaws and (self.on_invalid == "refuse" or self.fatal is not None):
            raise self._refusal([])

    def refuse(self, pointer: str, detail: str) -> InvalidRequest:
        """Return an error about the whole dataset, followed by the flaws of single rows."""
        return self._refusal([FieldError(pointer, detail)])

    def _refusal(self, first: list[FieldError]) -> InvalidRequest:
        if self.fatal is not None and self.on_invalid == "drop":
            first = [*first, self.fatal]
        others = [error for error in self._listed if error not in first]
        errors = (first + others)[:LISTED_ERRORS]
        total = len(first) + self._flaws - (self.fatal in first)
        lead = f"{errors[0].pointer}: {errors[0].detail}"
        if total > 1:
            listed = f", the first {len(errors)} listed" if total > len(errors) else ""
            lead += f" ({total:,} problems in total{listed})"
        return InvalidRequest(lead, tuple(errors))

    def dropped(self) -> Dropped:
        """Return the rows left out: none, unless on_invalid is drop and no error was raised."""
        rows = [DroppedRow(pointer=item.pointer, detail=item.detail) for item in self._listed]
        return Dropped(total=self.rows, by_kind=dict(self._kinds.most_common()), rows=rows)
