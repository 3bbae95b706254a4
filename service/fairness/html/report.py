"""HTML page of a bias report: the variables of its templates."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from service.domain.wording import count
from service.fairness.html import plots_rates
from service.fairness.html.figures import decimal
from service.fairness.html.page import render
from service.fairness.schema import BiasReport, CapVerdict, Verdict
from service.fairness.schema_groups import Calibration, FunctionalCell
from service.fairness.schema_verdicts import AtThreshold

OPEN_ROWS = 40
"""Maximum number of rows of a table that is open initially."""

OPEN_PANELS = 12
"""Maximum number of small plots, or columns of functionalities, that are open initially."""

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
    "confusion": "Confusion matrices",
    "strata": "Sources and finer labels",
    "functional": "Functional tests",
    "answers": "Freely generated answers",
    "mistakes": "Most confident errors",
    "shown": "Prompt",
    "methods": "Methods",
}
"""Titles of the sections by template name, which is also the anchor, in order."""

OUTCOMES: dict[Verdict, str] = {
    "fail": "failed",
    "inconclusive": "inconclusive",
    "pass": "passed",
    "not_applicable": "not applicable",
}


def render_report(report: BiasReport, texts: Mapping[str, str] = MappingProxyType({})) -> str:
    """Return the page; `texts` maps row ids to the texts of errors that may be shown."""
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
    """Return one sentence that counts the caps by verdict."""
    if not caps:
        return "The report has no caps."
    counts = Counter(cap.verdict for cap in caps)
    clauses = [f"{counts[kind]} {words}" for kind, words in OUTCOMES.items() if counts[kind]]
    return f"{count(len(caps), 'cap')}: {', '.join(clauses)}."


def _caps_by_group(caps: Sequence[CapVerdict]) -> dict[str, list[CapVerdict]]:
    by_group: dict[str, list[CapVerdict]] = {}
    for cap in caps:
        by_group.setdefault(cap.group, []).append(cap)
    return by_group


def _rates_at(thresholds: Sequence[AtThreshold]) -> list[dict[str, object]]:
    """Return, for each rule, its rates by group; rules may have different groups."""
    return [{rates.group: rates for rates in rule.groups} for rule in thresholds]


def _matrix(report: BiasReport) -> tuple[list[str], list[dict[str, FunctionalCell]]]:
    """Return the groups of all functionalities, and the cells of each functionality by group."""
    cells = [{cell.group: cell for cell in part.by_group} for part in report.functional]
    return sorted({group for row in cells for group in row}), cells


def _judged_by(rule: AtThreshold, cap: CapVerdict) -> CapVerdict | None:
    """Return the verdict of that rule on the same cap, or None."""
    key = (cap.group, cap.metric, cap.max)
    verdicts = (v for v in rule.caps if (v.group, v.metric, v.max) == key)
    return next(verdicts, None)


def _ece(calibration: Calibration) -> str:
    error = calibration.error
    return f"ECE n/a: {error.reason}" if error.value is None else f"ECE {decimal(error.value)}"
