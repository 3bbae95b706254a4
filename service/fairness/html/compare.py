"""HTML page of a comparison: the variables of its template."""

from __future__ import annotations

from collections.abc import Sequence

from service.fairness.html import plots_rates
from service.fairness.html.page import render
from service.fairness.html.plots_plane import Dot
from service.fairness.schema import CapVerdict, Metric, RateEstimate
from service.fairness.schema_compare import Compared, ComparedCap, Comparison

OPEN_PAIRS = 40
"""Maximum number of pairs in a table that is open initially."""

SECTIONS = {
    "models": "Models",
    "plane": "F1 and caps",
    "caps": "Caps",
    "groups": "Errors by group",
    "pairs": "Pairwise tests",
    "warnings": "Warnings",
    "methods": "Methods",
}
"""Titles of the sections by anchor, in order."""


def render_compare(comparison: Comparison) -> str:
    """Return the page; models are numbered from 1 in the requested order."""
    entries = comparison.entries
    rates = [rate for entry in entries for group in entry.groups for rate in (group.fpr, group.fnr)]
    dots = _dots(entries)
    return render(
        "compare.html.j2",
        comparison=comparison,
        sections=SECTIONS,
        numbers={entry.entry: number for number, entry in enumerate(entries, 1)},
        rates={"fpr": _by_group(entries, "fpr"), "fnr": _by_group(entries, "fnr")},
        end=plots_rates.axis_end(rates, [cap for entry in entries for cap in entry.caps]),
        cap_of=_tightest(entries),
        dots=dots,
        unplaced=[
            number
            for number in range(1, len(entries) + 1)
            if number not in {dot.number for dot in dots}
        ],
        judged_by=_judged_by,
        OPEN_PAIRS=OPEN_PAIRS,
    )


def _dots(entries: Sequence[Compared]) -> list[Dot]:
    """Return the models that have both figures."""
    return [
        Dot(number, entry.name, entry.f1.value, entry.worst_excess.value, entry.pareto)
        for number, entry in enumerate(entries, 1)
        if entry.f1.value is not None and entry.worst_excess.value is not None
    ]


def _by_group(
    entries: Sequence[Compared], metric: Metric
) -> list[tuple[str, list[tuple[str, RateEstimate]]]]:
    """Return, for each group, the number and the rate of every model that has the group."""
    groups: dict[str, list[tuple[str, RateEstimate]]] = {}
    for number, entry in enumerate(entries, 1):
        for rates in entry.groups:
            rate = rates.fpr if metric == "fpr" else rates.fnr
            groups.setdefault(rates.group, []).append((str(number), rate))
    return list(groups.items())


def _tightest(entries: Sequence[Compared]) -> dict[tuple[str, str], CapVerdict]:
    """Return the lowest cap on each group's rate; the caps are the same for all models."""
    tightest: dict[tuple[str, str], CapVerdict] = {}
    for cap in (cap for entry in entries[:1] for cap in entry.caps):
        key = (cap.group, cap.metric)
        if key not in tightest or cap.max < tightest[key].max:
            tightest[key] = cap
    return tightest


def _judged_by(entry: Compared, cap: ComparedCap) -> CapVerdict | None:
    """Return the model's verdict on that cap, or None."""
    key = (cap.group, cap.metric, cap.max)
    verdicts = (v for v in entry.caps if (v.group, v.metric, v.max) == key)
    return next(verdicts, None)
