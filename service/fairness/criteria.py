"""What a release is held to: caps, the least F1, and the original's criterion of success."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

from service.fairness import rates, verdicts
from service.fairness.baselines import LabelCounts
from service.fairness.schema import CapVerdict, MinF1, OverallMetrics, RateEstimate, ReportMeta
from service.fairness.schema_detail import GroupRates, Success


def judge(
    caps: Iterable[verdicts.Cap],
    groups: Sequence[GroupRates],
    train: LabelCounts,
    confidence: float,
) -> tuple[CapVerdict, ...]:
    """A verdict on every cap. A group that only the training split has is inconclusive."""
    by_name = {group.group: group for group in groups}

    def observed(cap: verdicts.Cap) -> RateEstimate | None:
        if cap.group in by_name:
            group = by_name[cap.group]
            return group.fpr if cap.metric == "fpr" else group.fnr
        return rates.unknown_rate("no rows in this split") if cap.group in train else None

    return tuple(verdicts.judge_cap(cap, observed(cap), confidence) for cap in caps)


def min_f1(least: float | None, overall: OverallMetrics) -> MinF1 | None:
    """F1 against the least asked for; None if none was."""
    if least is None:
        return None
    value = overall.f1.value
    if value is None:
        return MinF1(min_f1=least, value=None, verdict=None, reason=overall.f1.reason)
    return MinF1(min_f1=least, value=value, verdict="met" if value >= least else "not_met")


def success(
    tuned: OverallMetrics, base: OverallMetrics | None, least: float | None, meta: ReportMeta
) -> Success:
    """The tuned model against the base model, each under its own template, and the least F1.

    Falling short of the least F1 is enough for `not_met`, with or without a base model.
    """
    after, before = tuned.f1.value, None if base is None else base.f1.value
    verdict: Literal["met", "not_met"] | None = None
    reason = None
    if after is None:
        reason = f"tuned: {tuned.f1.reason}"
    elif least is not None and after < least:
        verdict = "not_met"
    elif base is None:
        reason = "the base model was not scored"
    elif before is None:
        reason = f"base: {base.f1.reason}"
    else:
        verdict = "met" if after > before else "not_met"
    return Success(
        tuned_template=meta.template,
        base_template=None if base is None else meta.base_template or meta.template,
        tuned_f1=after,
        base_f1=before,
        difference=None if after is None or before is None else after - before,
        min_f1=least,
        verdict=verdict,
        reason=reason,
    )
