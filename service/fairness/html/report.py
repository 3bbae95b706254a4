"""The bias report's page: what its templates need beyond the report itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from service.fairness.html import plots_rates
from service.fairness.html.figures import decimal
from service.fairness.html.page import render
from service.fairness.schema import BiasReport, CapVerdict, Verdict
from service.fairness.schema_detail import AtThreshold, Calibration, FunctionalCell

OPEN_ROWS = 40
"""A longer table of strata stands behind a click."""

OPEN_PANELS = 12
"""So do more small plots than this, and a matrix of functionalities with more columns."""

SECTIONS = {
    "verdicts": "Verdicts",
    "warnings": "Warnings",
    "overall": "Overall",
    "groups": "Errors by group",
    "changes": "Before and after training",
    "parity": "Parity between groups",
    "thresholds": "Thresholds",
    "scores": "Scores",
    "calibration": "Calibration",
    "confusion": "Counts",
    "strata": "Sources and finer labels",
    "functional": "Functional results",
    "answers": "Free answers",
    "mistakes": "Worst mistakes",
    "shown": "What the model was shown",
    "methods": "Methods",
}
"""Sections in order: the template's name, which is also the anchor, and the title."""

OUTCOMES: dict[Verdict, str] = {
    "fail": "shown to be broken",
    "inconclusive": "not settled by these rows",
    "pass": "shown to hold",
    "not_applicable": "about groups that the data does not have",
}


def render_report(report: BiasReport, texts: Mapping[str, str] = MappingProxyType({})) -> str:
    """The page; `texts` (row id to text) are those of the worst mistakes that may be shown."""
    return render(
        "report.html.j2",
        report=report,
        sections=SECTIONS,
        texts=texts,
        end=plots_rates.forest_end(report),
        cap_end=plots_rates.axis_end((), report.caps),
        cap_of={(cap.group, cap.metric): cap for cap in report.caps},
        caps_of=_caps_by_group(report.caps),
        caps_sentence=caps_sentence(report.caps),
        marks=[rule for rule in report.thresholds if rule.threshold is not None],
        judged_by=_judged_by,
        ece=_ece,
        matrix=_matrix(report),
        rates_at=_rates_at(report.thresholds),
        OPEN_ROWS=OPEN_ROWS,
        OPEN_PANELS=OPEN_PANELS,
    )


def caps_sentence(caps: Sequence[CapVerdict]) -> str:
    """What the verdicts come to, in one sentence."""
    if not caps:
        return "No cap was asked for."
    found = Counter(cap.verdict for cap in caps)
    said = [f"{found[kind]} {words}" for kind, words in OUTCOMES.items() if found[kind]]
    return f"Of {len(caps)} cap{'' if len(caps) == 1 else 's'}: {', '.join(said)}."


def _caps_by_group(caps: Sequence[CapVerdict]) -> dict[str, list[CapVerdict]]:
    by_group: dict[str, list[CapVerdict]] = {}
    for cap in caps:
        by_group.setdefault(cap.group, []).append(cap)
    return by_group


def _rates_at(thresholds: Sequence[AtThreshold]) -> list[dict[str, object]]:
    """Per rule, its groups' rates by name: rules may know different groups."""
    return [{rates.group: rates for rates in rule.groups} for rule in thresholds]


def _matrix(report: BiasReport) -> tuple[list[str], list[dict[str, FunctionalCell]]]:
    """The groups that any functionality has rows about, and each one's cells by group."""
    cells = [{cell.group: cell for cell in part.by_group} for part in report.functional]
    return sorted({group for row in cells for group in row}), cells


def _judged_by(rule: AtThreshold, cap: CapVerdict) -> CapVerdict | None:
    """What that rule says of the same cap."""
    asked = (cap.group, cap.metric, cap.max)
    same = (one for one in rule.caps if (one.group, one.metric, one.max) == asked)
    return next(same, None)


def _ece(calibration: Calibration) -> str:
    error = calibration.error
    return f"ECE n/a: {error.reason}" if error.value is None else f"ECE {decimal(error.value)}"
