"""How figures are written: rounded for a reader, never rounded into a bound that they are not."""

from __future__ import annotations

from service.fairness.schema import CapVerdict, Estimate, RateEstimate
from service.fairness.schema_base import DRAWS_AGREE

__all__ = ["DRAWS_AGREE"]  # for the templates, beside what is defined here

MINUS = "\N{MINUS SIGN}"
NARROW = "\N{NARROW NO-BREAK SPACE}"


class Notes:
    """The reasons for a table's n/a, numbered from 1 as they come up, each once."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def number(self, reason: str | None) -> int:
        """The reason's number; the same again for the same reason."""
        return self._numbers.setdefault(reason or "no reason was given", len(self._numbers) + 1)

    @property
    def reasons(self) -> list[str]:
        return list(self._numbers)


def percent(share: float, digits: int = 1) -> str:
    """A fraction as a percentage. Only 0 is written 0.0% and only 1 is written 100.0%."""
    least = 10.0**-digits
    if 0 < share < least / 200:
        return f"<{least:.{digits}f}%"
    if 1 - least / 200 < share < 1:
        return f">{100 - least:.{digits}f}%"
    return signed(share * 100, digits, plus="") + "%"


def points(difference: float) -> str:
    """A difference of two fractions, in percentage points."""
    return f"{signed(difference * 100, 1)}{NARROW}pp"


def signed(value: float, digits: int, plus: str = "+") -> str:
    """With a true minus sign; `plus` stands before what is over 0. No sign where it rounds to 0."""
    text = f"{abs(value):.{digits}f}"
    if float(text) == 0:
        return text
    return (MINUS if value < 0 else plus) + text


def decimal(value: float) -> str:
    """An F1, an area or an error: three decimals."""
    return signed(value, 3, plus="")


def change(value: float) -> str:
    """A difference of two such figures."""
    return signed(value, 3)


def threshold(value: float) -> str:
    """A score to be used again: as many digits as say it, at most six."""
    return f"{value:.6g}"


def p_value(value: float) -> str:
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def level(confidence: float) -> str:
    """The confidence as a percentage, without zeros at its end."""
    return f"{confidence * 100:.6g}%"


def count(rows: int, noun: str) -> str:
    return f"{rows:,} {noun}{'' if rows == 1 else 's'}"


def span(figure: RateEstimate | Estimate, *, shares: bool) -> str | None:
    """The interval from lower to upper, in percent where `shares`; None where there is none."""
    if figure.value is None or figure.lower is None or figure.upper is None:
        return None
    write = percent if shares else decimal
    return between(write(figure.lower), write(figure.upper))


def between(lower: str, upper: str) -> str:
    """An interval: an en dash, or "to" where a minus sign would be beside it; one percent sign."""
    if MINUS in lower + upper:
        return f"{lower} to {upper}"
    if lower[-1:] == upper[-1:] == "%":
        lower = lower[:-1]
    return f"{lower}\N{EN DASH}{upper}"


def settled_by(cap: CapVerdict) -> str | None:
    """What it would take to settle an inconclusive cap, in words, or why that is not known."""
    if cap.needed_further is not None:
        rows = count(cap.needed_further, "further " + counted(cap)[:-1])
        return f"{rows} at the observed rate would make it {cap.would_settle}."
    return None if cap.reason is None else cap.reason[:1].upper() + cap.reason[1:] + "."


def counted(cap: CapVerdict) -> str:
    """What a cap's rate is counted among."""
    return "negatives" if cap.metric == "fpr" else "positives"


def plain(text: str, width: int = 60) -> str:
    """For a plot's name: one line, nothing unprintable or that turns text round, cut to `width`."""
    text = "".join(char if char.isprintable() else " " for char in text).strip() or "(blank)"
    return text if len(text) <= width else text[: width - 1] + "…"
