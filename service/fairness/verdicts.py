"""Verdicts on caps by one-sided Clopper-Pearson limits, and the rows needed to reach one."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from typing import Literal, Protocol

from service.fairness.rates import check_confidence, clopper_pearson_limits
from service.fairness.schema import CapVerdict, Metric, RateEstimate, Verdict

MAX_FURTHER = 1_000_000
"""Rows: a verdict that needs more further rows than this counts as out of reach."""

TIE = 1e-9
"""Limits this close to the cap count as equal to it, because of rounding errors."""


class Cap(Protocol):
    """Protocol of a cap, the maximum of a group's error rate."""

    @property
    def group(self) -> str: ...
    @property
    def metric(self) -> Metric: ...
    @property
    def max(self) -> float: ...


def check_criterion(count: int, total: int, cap: float, confidence: float) -> Verdict:
    """Return pass, fail or inconclusive by one-sided Clopper-Pearson limits at the confidence.

    pass: upper limit < cap. fail: lower limit > cap. If the true rate is at or above the cap,
    `pass` has a probability of at most 1 - confidence; likewise `fail` if it is at or below the
    cap. `total` must be positive.
    """
    lower, upper = clopper_pearson_limits(count, total, confidence)
    return _compare(lower, upper, cap)


def _compare(lower: float, upper: float, cap: float) -> Verdict:
    return "pass" if upper < cap - TIE else "fail" if lower > cap + TIE else "inconclusive"


def further_needed(count: int, total: int, cap: float, confidence: float) -> int | None:
    """Return the minimum number of further rows, at the observed rate, that would settle a verdict.

    This is the smallest m >= 1 for which `check_criterion(K, N, cap, confidence)` is not
    inconclusive, where N = total + m and K = count x N / total, rounded against the verdict: up if
    the observed rate is below the cap (`pass` is possible), down if it is above (`fail`). Because
    of the rounding the limits jump with each further error, so that slightly more rows than m may
    be inconclusive again. Returns None if the observed rate equals the cap or if m would exceed
    `MAX_FURTHER`.
    """
    check_confidence(confidence)
    if count / total == cap:
        return None
    if count / total < cap:
        return _further_to_pass(count, total, cap, confidence)
    return _further_to_pass(total - count, total, 1 - cap, confidence)  # fail is the mirror image


def _further_to_pass(count: int, total: int, cap: float, confidence: float) -> int | None:
    """Return `further_needed` for the verdict `pass`.

    The upper limit is a quantile of Beta(K + 1, N - K). For the unrounded K it falls monotonically
    with N, so bisection finds the first N that can settle. Rounding K up can only raise the limit,
    so the answer is at this N or later, in one of the next intervals of N with the same K. Within
    such an interval the limit falls with N again: its last N tells whether it holds the answer.
    """
    from scipy.special import betaincinv

    def settled(errors: float, rows: int) -> bool:
        return bool(betaincinv(errors + 1, rows - errors, confidence) < cap - TIE)

    last = total + MAX_FURTHER
    totals = range(total + 1, last + 1)
    rows = totals.start + bisect_left(totals, True, key=lambda n: settled(count * n / total, n))
    while rows <= last:
        errors = -(-count * rows // total)
        end = min(last, errors * total // count) if count else last
        if settled(errors, end):
            same_errors = range(rows, end + 1)
            return rows + bisect_left(same_errors, True, key=lambda n: settled(errors, n)) - total
        rows = end + 1
    return None


def judge_cap(cap: Cap, observed: RateEstimate | None, confidence: float) -> CapVerdict:
    """Return the verdict on a cap from the group's rate; None: no split has such a group.

    A group that is in the dataset but has no rows to count is `inconclusive`, not `not_applicable`:
    a release must not pass because its test split lacks the group.
    """
    lower: float | None = None
    upper: float | None = None
    needed: int | None = None
    settles: Literal["pass", "fail"] | None = None
    reason: str | None = None
    verdict: Verdict
    if observed is None:
        verdict, reason = "not_applicable", f"the data has no group {cap.group!r}"
    elif observed.value is None:
        verdict, reason = "inconclusive", f"group {cap.group!r}: {observed.reason}"
    else:
        count, total = observed.numerator, observed.denominator
        lower, upper = clopper_pearson_limits(count, total, confidence)
        verdict = _compare(lower, upper, cap.max)
        if verdict == "inconclusive":
            needed = further_needed(count, total, cap.max, confidence)
            if needed is not None:
                settles = "pass" if observed.value < cap.max else "fail"
            elif observed.value == cap.max:
                reason = "the observed rate equals the cap: more rows at this rate cannot settle it"
            else:
                reason = (
                    f"more than {MAX_FURTHER:,} further rows at the observed rate would be needed"
                )
    return CapVerdict(
        group=cap.group,
        metric=cap.metric,
        max=cap.max,
        observed=observed.value if observed else None,
        numerator=observed.numerator if observed else 0,
        denominator=observed.denominator if observed else 0,
        lower=lower,
        upper=upper,
        verdict=verdict,
        needed_further=needed,
        would_settle=settles,
        reason=reason,
    )


def summarise(verdicts: Iterable[CapVerdict]) -> Verdict:
    """Return one verdict on all caps: fail if any fails, pass if every applicable cap passes."""
    applicable = {cap.verdict for cap in verdicts} - {"not_applicable"}
    if not applicable:
        return "not_applicable"
    if "fail" in applicable:
        return "fail"
    return "pass" if applicable == {"pass"} else "inconclusive"
