"""Formatting of figures: rounded, but never to a bound that the figure does not have."""

from __future__ import annotations

from service.domain.wording import agree, count
from service.fairness.schema import CapVerdict, Estimate, RateEstimate
from service.fairness.schema_base import DRAWS_AGREE
from service.fairness.schema_groups import ParityDifference

__all__ = ["agree", "count"]  # for the templates

DRAWS_AGREE_TEXTS = frozenset(
    {DRAWS_AGREE, "the figure is the same in every bootstrap draw, which cannot say how sure it is"}
)
"""The reason as it is written now and as stored reports have it."""

MINUS = "\N{MINUS SIGN}"
NARROW = "\N{NARROW NO-BREAK SPACE}"


class Notes:
    """Footnotes of a table: the distinct reasons for its n/a cells, numbered from 1."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def number(self, reason: str | None) -> int:
        """Return the number of a reason, adding it on first use."""
        return self._numbers.setdefault(
            reason or "the report states no reason", len(self._numbers) + 1
        )

    @property
    def reasons(self) -> list[str]:
        return list(self._numbers)


def percent(share: float, digits: int = 1) -> str:
    """Format a fraction as a percentage; only 0 becomes 0.0% and only 1 becomes 100.0%."""
    unit = 10.0**-digits
    if 0 < share < unit / 200:
        return f"<{unit:.{digits}f}%"
    if 1 - unit / 200 < share < 1:
        return f">{100 - unit:.{digits}f}%"
    return signed(share * 100, digits, plus="") + "%"


def points(difference: float) -> str:
    """Format a difference of two fractions in percentage points."""
    return f"{signed(difference * 100, 1)}{NARROW}pp"


def signed(value: float, digits: int, plus: str = "+") -> str:
    """Format with a minus sign or `plus`; without a sign if the value rounds to 0."""
    text = f"{abs(value):.{digits}f}"
    if float(text) == 0:
        return text
    return (MINUS if value < 0 else plus) + text


def decimal(value: float) -> str:
    """Format an F1, AUC or calibration error with three decimals."""
    return signed(value, 3, plus="")


def change(value: float) -> str:
    """Format a difference of two such figures."""
    return signed(value, 3)


def threshold(value: float) -> str:
    """Format a threshold with at most six significant digits."""
    return f"{value:.6g}"


def p_value(value: float) -> str:
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def level(confidence: float) -> str:
    """Format the confidence as a percentage without trailing zeros."""
    return f"{confidence * 100:.6g}%"


def span(figure: RateEstimate | Estimate, *, shares: bool) -> str | None:
    """Format the interval, in percent if `shares`; return None if there is none."""
    if figure.value is None or figure.lower is None or figure.upper is None:
        return None
    write = percent if shares else decimal
    return between(write(figure.lower), write(figure.upper))


def between(lower: str, upper: str) -> str:
    """Format an interval with an en dash, or with "to" if an end has a minus sign."""
    if MINUS in lower + upper:
        return f"{lower} to {upper}"
    if lower[-1:] == upper[-1:] == "%":
        lower = lower[:-1]
    return f"{lower}\N{EN DASH}{upper}"


def draws_agree(figure: Estimate | ParityDifference) -> bool:
    """Return True if there is no interval because every resample gives the same value."""
    return figure.interval_reason in DRAWS_AGREE_TEXTS


def settled_by(cap: CapVerdict) -> str | None:
    """Return the sentence about the rows that would settle a cap, or why there are none."""
    if cap.needed_further is not None:
        rows = count(cap.needed_further, "further " + counted(cap)[:-1])
        return f"{rows} at the observed rate would make it {cap.would_settle}."
    return None if cap.reason is None else cap.reason[:1].upper() + cap.reason[1:] + "."


def counted(cap: CapVerdict) -> str:
    """Return the class of rows that a cap's rate is counted among."""
    return "negatives" if cap.metric == "fpr" else "positives"


def plain(text: str, width: int = 60) -> str:
    """Return text for a plot's name: one printable line of at most `width` characters."""
    text = "".join(char if char.isprintable() else " " for char in text).strip() or "(blank)"
    return text if len(text) <= width else text[: width - 1] + "…"
