"""Bias report as two CSV tables, with the columns of the original scripts.

One line per strategy: tuned (always argmax), tuned_fitted and tuned_given (if there is such a
threshold), base, always_positive, group_majority. The tuned model is first, so that line 2 has its
F1, where the original scripts' users read it. A cell is empty if the figure cannot be computed.
Lines end in CR LF, as in RFC 4180: only then does Python's writer quote a name that contains
either.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator

from service.fairness.schema import AtThreshold, BiasReport, Confusion, OverallMetrics

PERFORMANCE = (
    "strategy",
    "accuracy",
    "precision",
    "recall",
    "f1_score",
    "true_positive",
    "true_negative",
    "false_positive",
    "false_negative",
)
BIAS = (
    "strategy",
    "persona_tag",
    "sample_count",
    "false_positive_rate",
    "false_negative_rate",
    "true_positive",
    "true_negative",
    "false_positive",
    "false_negative",
)


def performance_csv(report: BiasReport) -> str:
    """Return performance_metrics.csv: a line per strategy, with three more columns per group."""
    header: list[object] = [*PERFORMANCE]
    for group in report.groups:
        header += [f"{group.group}_{column}" for column in ("fpr", "fnr", "samples")]
    lines = [header]
    for strategy, overall, groups in _strategies(report):
        figures = (overall.accuracy, overall.precision, overall.recall, overall.f1)
        line: list[object] = [strategy, *(figure.value for figure in figures)]
        line += _counts(overall.confusion)
        for group in report.groups:
            line += [*_error_rates(groups.get(group.group)), group.n]
        lines.append(line)
    return _csv(lines)


def bias_csv(report: BiasReport) -> str:
    """Return bias_metrics.csv: a line per strategy and group."""
    lines: list[list[object]] = [list(BIAS)]
    for strategy, _, groups in _strategies(report):
        for group in report.groups:
            counts = groups.get(group.group)
            lines.append([strategy, group.group, group.n, *_error_rates(counts), *_counts(counts)])
    return _csv(lines)


def _strategies(report: BiasReport) -> Iterator[tuple[str, OverallMetrics, dict[str, Confusion]]]:
    """Yield the name of each strategy, its overall figures, and its counts by group."""
    base = {group.group: group.base.confusion for group in report.groups if group.base is not None}
    for under in report.thresholds:
        if under.rule == "argmax" or under.threshold is not None:
            name = "tuned" if under.rule == "argmax" else f"tuned_{under.rule}"
            yield name, under.overall, _counts_under(under)
    if report.overall.base is not None:
        yield "base", report.overall.base, base
    everywhere = {group.group: True for group in report.groups}
    for name, metrics, calls in [
        ("always_positive", report.baselines.always_positive, everywhere),
        ("group_majority", report.baselines.group_majority, report.baselines.majority_positive),
    ]:
        called = {
            group.group: _all_called(group.positives, group.negatives, calls[group.group])
            for group in report.groups
            if calls is not None and group.group in calls
        }
        yield name, metrics, called


def _counts_under(under: AtThreshold) -> dict[str, Confusion]:
    return {
        group.group: Confusion(
            true_positive=group.fnr.denominator - group.fnr.numerator,
            true_negative=group.fpr.denominator - group.fpr.numerator,
            false_positive=group.fpr.numerator,
            false_negative=group.fnr.numerator,
        )
        for group in under.groups
    }


def _all_called(positives: int, negatives: int, positive: bool) -> Confusion:
    """Return the counts if all rows are predicted positive, or all negative."""
    return Confusion(
        true_positive=positives if positive else 0,
        true_negative=0 if positive else negatives,
        false_positive=negatives if positive else 0,
        false_negative=0 if positive else positives,
    )


def _error_rates(counts: Confusion | None) -> list[float | None]:
    if counts is None:
        return [None, None]
    negatives = counts.false_positive + counts.true_negative
    positives = counts.false_negative + counts.true_positive
    return [
        counts.false_positive / negatives if negatives else None,
        counts.false_negative / positives if positives else None,
    ]


def _counts(counts: Confusion | None) -> list[int | None]:
    if counts is None:
        return [None] * 4
    return [
        counts.true_positive,
        counts.true_negative,
        counts.false_positive,
        counts.false_negative,
    ]


def _csv(lines: Iterable[Iterable[object]]) -> str:
    written = io.StringIO()
    writer = csv.writer(written)
    for line in lines:
        writer.writerow([_cell(value) for value in line])
    return written.getvalue()


def _cell(value: object) -> object:
    """Return the value; text that a spreadsheet would run as a formula gets an apostrophe first."""
    runs = isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r"))
    return f"'{value}" if runs else value
