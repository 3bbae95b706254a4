"""Parity between groups: fairlearn's differences, with bootstrap intervals."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, TypeAlias

from service.fairness.bootstrap import RESAMPLES, basic, draw_confusion
from service.fairness.schema import Confusion, GroupReport
from service.fairness.schema_base import DRAWS_AGREE
from service.fairness.schema_groups import Parity, ParityDifference, ParityReport

if TYPE_CHECKING:
    from service.fairness.columns import Floats, Ints

Rates: TypeAlias = "dict[str, Floats]"
"""One or more resamples of each rate, by the name of its field in `Parity`."""

REASONS = {"false_positive_rate": "no negative rows", "true_positive_rate": "no positive rows"}


def parity_report(
    groups: tuple[GroupReport, ...], confidence: float, seed: int
) -> ParityReport | None:
    """Return both models' differences between the groups; None if there are fewer than two."""
    if len(groups) < 2:
        return None
    tuned = {group.group: group.tuned.confusion for group in groups}
    base = {group.group: group.base.confusion for group in groups if group.base is not None}
    return ParityReport(
        tuned=parity(tuned, confidence, seed),
        base=parity(base, confidence, seed) if base else None,
        resamples=RESAMPLES,
    )


def parity(groups: Mapping[str, Confusion], confidence: float, seed: int) -> Parity:
    """Return the largest minus the smallest rate over the groups (Agarwal et al. 2018; fairlearn's
    `demographic_parity_difference` and `equalized_odds_difference`).

    fairlearn uses 0 for the rate of a group without rows to count; here such a group is excluded.
    Rows are resampled within each group, so groups keep their sizes. In a resample that leaves a
    group without rows to count, the difference is between the other groups.
    """
    import numpy as np

    generator = np.random.default_rng(seed)
    highest: Rates = {}
    lowest: Rates = {}
    counted: dict[str, Ints] = {}
    measured: dict[str, dict[str, float]] = {}
    left_out: dict[str, str] = {}
    for group, counts in groups.items():
        drawn = _rates(*draw_confusion(counts, generator).T)
        for name, value in _rates(*np.array([_cells(counts)]).T).items():
            if np.isnan(value[0]):
                left_out[group] = REASONS[name]
                continue
            measured.setdefault(name, {})[group] = float(value[0])
            undefined = np.full(RESAMPLES, np.nan)
            highest[name] = np.fmax(highest.get(name, undefined), drawn[name])
            lowest[name] = np.fmin(lowest.get(name, undefined), drawn[name])
            counted[name] = counted.get(name, 0) + ~np.isnan(drawn[name])
    spreads = {
        name: np.where(counted[name] > 1, highest[name] - lowest[name], np.nan) for name in measured
    }
    differences = {
        name: _difference(measured.get(name, {}), spreads.get(name), confidence)
        for name in ("demographic_parity", "false_positive_rate", "true_positive_rate")
    }
    return Parity(
        **differences,
        equalized_odds=_equalized_odds(differences, spreads, confidence),
        left_out=left_out,
    )


def _cells(counts: Confusion) -> tuple[int, int, int, int]:
    return (
        counts.true_positive,
        counts.false_positive,
        counts.false_negative,
        counts.true_negative,
    )


def _rates(tp: Ints, fp: Ints, fn: Ints, tn: Ints) -> Rates:
    """Return each rate per resample; NaN where there are no rows to count."""
    import numpy as np

    with np.errstate(invalid="ignore"):
        return {
            "demographic_parity": (tp + fp) / (tp + fp + fn + tn),
            "false_positive_rate": fp / (fp + tn),
            "true_positive_rate": tp / (tp + fn),
        }


def _difference(
    measured: Mapping[str, float], spreads: Floats | None, confidence: float
) -> ParityDifference:
    if len(measured) < 2 or spreads is None:
        return ParityDifference(
            value=None,
            lower=None,
            upper=None,
            highest=None,
            lowest=None,
            reason="fewer than two groups have this rate",
        )
    # Ties are broken by name.
    highest = max(measured, key=lambda group: measured[group])
    lowest = min(measured, key=lambda group: measured[group])
    value = measured[highest] - measured[lowest]
    lower, upper = basic(spreads, value, confidence)
    return ParityDifference(
        value=value,
        lower=lower,
        upper=upper,
        highest=highest,
        lowest=lowest,
        interval_reason=DRAWS_AGREE if lower is None else None,
    )


def _equalized_odds(
    differences: Mapping[str, ParityDifference], spreads: Rates, confidence: float
) -> ParityDifference:
    import numpy as np

    fpr, tpr = differences["false_positive_rate"], differences["true_positive_rate"]
    if fpr.value is None or tpr.value is None:
        return fpr if fpr.value is None else tpr
    worse = fpr if fpr.value >= tpr.value else tpr
    assert worse.value is not None
    drawn = np.maximum(spreads["false_positive_rate"], spreads["true_positive_rate"])
    lower, upper = basic(drawn, worse.value, confidence)
    why = DRAWS_AGREE if lower is None else None
    return worse.model_copy(update={"lower": lower, "upper": upper, "interval_reason": why})
