"""Whether a group's error rate is shown to be under its cap, and what it would take to show it."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from typing import Literal, Protocol

from service.fairness.rates import check_confidence, clopper_pearson_limits
from service.fairness.schema import CapVerdict, Metric, RateEstimate, Verdict

MAX_FURTHER = 1_000_000
"""Rows: past this many further ones, a verdict is said not to be settled by more data."""

TIE = 1e-9
"""A limit this near the cap lies on it, whatever the last digits of its computation say."""


class Cap(Protocol):
    """A bound on a group's error rate; anything with these three attributes is one."""

    @property
    def group(self) -> str: ...
    @property
    def metric(self) -> Metric: ...
    @property
    def max(self) -> float: ...


def judge(count: int, total: int, cap: float, confidence: float) -> Verdict:
    """pass, fail or inconclusive, by one-sided Clopper-Pearson limits at the confidence.

    The chance of `pass` where the true rate is at or over the cap, and of `fail` where it is at or
    under it, is at most 1 - confidence each. `total` must be positive.
    """
    lower, upper = clopper_pearson_limits(count, total, confidence)
    return _compare(lower, upper, cap)


def _compare(lower: float, upper: float, cap: float) -> Verdict:
    return "pass" if upper < cap - TIE else "fail" if lower > cap + TIE else "inconclusive"


def further_needed(count: int, total: int, cap: float, confidence: float) -> int | None:
    """The fewest further rows, at the observed rate, that would turn `inconclusive` into a verdict.

    That is the least m >= 1 with `judge(K, N, cap, confidence)` settled, where N = total + m and
    the errors are K = count x N / total, rounded against the verdict: up where the observed rate is
    under the cap and `pass` is sought, down where it is over and `fail` is. Because of the rounding
    the limits jump with each further error, so a few more rows than m may be unsettled again.
    None when the observed rate is the cap itself or when m would exceed `MAX_FURTHER`.
    """
    check_confidence(confidence)
    if count / total == cap:
        return None
    if count / total < cap:
        return _further_to_pass(count, total, cap, confidence)
    return _further_to_pass(total - count, total, 1 - cap, confidence)  # fail, seen mirrored


def _further_to_pass(count: int, total: int, cap: float, confidence: float) -> int | None:
    """`further_needed` for pass.

    The upper limit is a quantile of Beta(K + 1, N - K), which takes the unrounded K as well and
    then falls steadily with N: bisection finds the first N that can settle. Rounding K up can only
    raise the limit, so the answer is there or above, in one of the next stretches of N that share a
    K. Within a stretch the limit falls with N again: its last N says whether it holds the answer.
    """
    from scipy.special import betaincinv

    def settled(errors: float, rows: int) -> bool:
        return bool(betaincinv(errors + 1, rows - errors, confidence) < cap - TIE)

    last = total + MAX_FURTHER
    candidates = range(total + 1, last + 1)
    rows = candidates.start + bisect_left(
        candidates, True, key=lambda n: settled(count * n / total, n)
    )
    while rows <= last:
        errors = -(-count * rows // total)
        end = min(last, errors * total // count) if count else last
        if settled(errors, end):
            stretch = range(rows, end + 1)
            return rows + bisect_left(stretch, True, key=lambda n: settled(errors, n)) - total
        rows = end + 1
    return None


def judge_cap(cap: Cap, observed: RateEstimate | None, confidence: float) -> CapVerdict:
    """The verdict on a cap, given the group's rate, or None where the data has no such group.

    A group that is in the data but has nothing to count is `inconclusive`, not `not_applicable`: a
    release must not slip through because its test split left the group out.
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
                reason = (
                    "the observed rate is the cap itself: more rows at this rate settle nothing"
                )
            else:
                reason = f"more than {MAX_FURTHER:,} further rows at the observed rate are needed"
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
    """One verdict on all caps: fail if any fails, pass only if every applicable one passes."""
    applicable = {cap.verdict for cap in verdicts} - {"not_applicable"}
    if not applicable:
        return "not_applicable"
    if "fail" in applicable:
        return "fail"
    return "pass" if applicable == {"pass"} else "inconclusive"
