"""Release criteria: caps on error rates, the minimum F1, and the original success criterion."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from service.fairness import rates, verdicts
from service.fairness.schema import (
    CapVerdict,
    Estimate,
    MinF1,
    OverallMetrics,
    RateEstimate,
    ReportMeta,
)
from service.fairness.schema_verdicts import GroupRates, Success


@dataclass(frozen=True, slots=True, kw_only=True)
class Criteria:
    """Positive label, confidence and other settings of an evaluation, and the release criteria."""

    positive_label: str
    caps: Sequence[verdicts.Cap] = ()
    min_f1: float | None = None
    confidence: float = 0.95
    """Level of the two-sided intervals and, separately, of each one-sided limit."""
    min_support: int = 30
    """Rows; a smaller group is marked as a small sample."""
    threshold: float | None = None
    """Threshold of the rule `given`; None for the other rules."""
    bootstrap_seed: int = 0
    """Seed of the bootstrap resamples; it changes no point estimate."""


def judge_caps(
    caps: Iterable[verdicts.Cap],
    groups: Sequence[GroupRates],
    dataset_groups: Collection[str],
    confidence: float,
) -> tuple[CapVerdict, ...]:
    """Return a verdict on every cap.

    `dataset_groups` are the groups in any split of the dataset: the verdict on a group that only
    other splits have is inconclusive, since the data could prove it; without any it is
    not_applicable.
    """
    by_name = {group.group: group for group in groups}

    def observed(cap: verdicts.Cap) -> RateEstimate | None:
        if cap.group in by_name:
            group = by_name[cap.group]
            return group.fpr if cap.metric == "fpr" else group.fnr
        if cap.group in dataset_groups:
            return rates.unknown_rate("no labelled rows in this split")
        return None

    return tuple(verdicts.judge_cap(cap, observed(cap), confidence) for cap in caps)


def min_f1(minimum: float | None, f1: Estimate) -> MinF1 | None:
    """Compare F1 with the required minimum; return None if no minimum is required."""
    if minimum is None:
        return None
    value = f1.value
    if value is None:
        return MinF1(min_f1=minimum, value=None, verdict=None, reason=f1.reason)
    return MinF1(min_f1=minimum, value=value, verdict="met" if value >= minimum else "not_met")


def success(
    tuned: OverallMetrics, base: OverallMetrics | None, minimum: float | None, meta: ReportMeta
) -> Success:
    """Compare the tuned model's F1 with the base model's and with the required minimum.

    Each model is scored with its own template. An F1 below the minimum suffices for `not_met`,
    with or without a base model.
    """
    after, before = tuned.f1.value, None if base is None else base.f1.value
    verdict: Literal["met", "not_met"] | None = None
    reason = None
    if after is None:
        reason = f"tuned: {tuned.f1.reason}"
    elif minimum is not None and after < minimum:
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
        min_f1=minimum,
        verdict=verdict,
        reason=reason,
    )
