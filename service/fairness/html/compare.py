"""The comparison's page: what its template needs beyond the comparison itself."""

from __future__ import annotations

from collections.abc import Sequence

from service.fairness.html import plots_rates
from service.fairness.html.page import render
from service.fairness.html.plots_plane import Dot
from service.fairness.schema import CapVerdict, Metric, RateEstimate
from service.fairness.schema_compare import Compared, ComparedCap, Comparison

OPEN_PAIRS = 40
"""A longer table of pairs stands behind a click."""

SECTIONS = {
    "models": "The models",
    "plane": "F1 against the worst cap",
    "caps": "Caps",
    "groups": "Errors by group",
    "pairs": "Row by row",
    "warnings": "Warnings",
    "methods": "Methods",
}
"""Sections in order: the block's anchor and its title."""


def render_compare(comparison: Comparison) -> str:
    """The page. Models are numbered from 1 in the order in which they were asked for."""
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
    """The models that have both figures."""
    return [
        Dot(number, entry.name, entry.f1.value, entry.worst_excess.value, entry.pareto)
        for number, entry in enumerate(entries, 1)
        if entry.f1.value is not None and entry.worst_excess.value is not None
    ]


def _by_group(
    entries: Sequence[Compared], metric: Metric
) -> list[tuple[str, list[tuple[str, RateEstimate]]]]:
    """Groups in order, each with the models that know it: a model's number and its rate."""
    found: dict[str, list[tuple[str, RateEstimate]]] = {}
    for number, entry in enumerate(entries, 1):
        for rates in entry.groups:
            rate = rates.fpr if metric == "fpr" else rates.fnr
            found.setdefault(rates.group, []).append((str(number), rate))
    return list(found.items())


def _tightest(entries: Sequence[Compared]) -> dict[tuple[str, str], CapVerdict]:
    """The lowest cap on each group's rate; all models are held against the same ones."""
    found: dict[tuple[str, str], CapVerdict] = {}
    for cap in (cap for entry in entries[:1] for cap in entry.caps):
        key = (cap.group, cap.metric)
        if key not in found or cap.max < found[key].max:
            found[key] = cap
    return found


def _judged_by(entry: Compared, cap: ComparedCap) -> CapVerdict | None:
    """What a model's verdict on that cap is."""
    asked = (cap.group, cap.metric, cap.max)
    same = (one for one in entry.caps if (one.group, one.metric, one.max) == asked)
    return next(same, None)
