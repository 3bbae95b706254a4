"""A bias report as plain text for a terminal, at most 100 columns wide."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from service.fairness.schema import (
    BiasReport,
    CapVerdict,
    Estimate,
    GroupReport,
    Metric,
    RateEstimate,
)
from service.fairness.schema_groups import ParityDifference

WIDTH = 100
NAME = 16
"""Columns for a group's name; longer ones are cut with an ellipsis."""

FIGURES = {
    "f1": "F1",
    "accuracy": "accuracy",
    "precision": "precision",
    "recall": "recall",
    "fpr": "FPR",
    "fnr": "FNR",
    "auc": "AUC",
    "calibration_error": "calibration error",
}


PARITY = {
    "demographic_parity": "called positive",
    "false_positive_rate": "FPR",
    "true_positive_rate": "recall (1 - FNR)",
    "equalized_odds": "equalized odds",
}


def render_text(report: BiasReport) -> str:
    """The report's figures in tables, ending with a newline; n/a stands for a null figure."""
    parts = [
        _head(report),
        _overall(report),
        _rates(report, "fpr"),
        _rates(report, "fnr"),
        _caps(report),
        _thresholds(report),
        _parity(report),
        _training(report),
        _warnings(report),
    ]
    sections = ("\n".join(_printable(line) for line in part) for part in parts)
    return "\n\n".join(section for section in sections if section) + "\n"


def _head(report: BiasReport) -> Iterator[str]:
    meta, data, positive = report.meta, report.data, report.settings.positive_label
    title = f"Bias report: {meta.base_model}, template {meta.template}"
    yield from _wrap(title + (f", run {meta.run_id}" if meta.run_id else ""))
    yield "═" * WIDTH
    step = "" if meta.checkpoint_step is None else f", checkpoint at step {meta.checkpoint_step}"
    part = "" if meta.max_samples is None else ", a sample"
    yield from _wrap(
        f"{meta.split} split{part}, {_count(data.rows, 'row')} ({data.positives} {positive}, "
        f"{data.negatives} other), threshold {meta.threshold}{step}"
    )


def _overall(report: BiasReport) -> Iterator[str]:
    overall, baselines = report.overall, report.baselines
    headings = ["base", "→ tuned", "change"] if overall.base else ["tuned"]
    headings += [f"always {_cut(report.settings.positive_label, 8)}", "group majority"]
    yield f"{'Overall':<22}" + "".join(f"{heading:>15}" for heading in headings)
    yield "─" * WIDTH
    for name, title in FIGURES.items():
        cells = [_figure(getattr(overall.tuned, name))]
        if overall.base and overall.difference:
            change = _figure(getattr(overall.difference, name), sign="+")
            cells = [_figure(getattr(overall.base, name)), f"→ {cells[0]}", change]
        cells.append(_figure(getattr(baselines.always_positive, name)))
        cells.append(_figure(getattr(baselines.group_majority, name)))
        yield f"  {title:<20}" + "".join(f"{cell:>15}" for cell in cells)
    intervals = [
        f"{title} {_ends(figure)}"
        for name in ("f1", "auc", "calibration_error")
        if (figure := getattr(overall.tuned, name)).lower is not None
        for title in [FIGURES[name]]
    ]
    if intervals:
        yield from _wrap(
            f"{_level(report)} bootstrap intervals: {', '.join(intervals)}",
            indent="    ",
            first="  ",
        )


def _rates(report: BiasReport, metric: Metric) -> Iterator[str]:
    if not report.groups:
        return
    positive = _cut(report.settings.positive_label, 20)
    meaning = (
        f"False-positive rate: other rows called {positive}"
        if metric == "fpr"
        else f"False-negative rate: {positive} rows called other"
    )
    yield f"{meaning}  (with two-sided {_level(report)} Wilson intervals)"
    yield "─" * WIDTH
    among = "negatives" if metric == "fpr" else "positives"
    models = f"{'base':<23}  → tuned" if report.overall.base else "tuned"
    yield f"  {'group':<{NAME}}{among:>10}    {models}"
    for group in report.groups:
        total = group.negatives if metric == "fpr" else group.positives
        models = "  → ".join(_interval(rate) for rate in _before_after(group, metric))
        small = "  few rows" if group.small_sample else ""
        yield f"  {_cut(group.group, NAME):<{NAME}}{total:>10}    {models}{small}"


def _before_after(group: GroupReport, metric: Metric) -> list[RateEstimate]:
    models = [group.base, group.tuned] if group.base else [group.tuned]
    return [model.fpr if metric == "fpr" else model.fnr for model in models]


def _caps(report: BiasReport) -> Iterator[str]:
    if report.caps:
        yield f"Caps  (judged by one-sided {_level(report)} Clopper-Pearson limits)"
        yield "─" * WIDTH
    for cap in report.caps:
        yield from _cap(cap)
    if report.caps:
        yield f"  {'all caps':<{NAME + 18}}{_verdict(report.caps_verdict)}"
    if (least := report.min_f1) is not None:
        verdict = {"met": "MET", "not_met": "NOT MET", None: "UNKNOWN"}[least.verdict]
        figure = f"{_figure(report.overall.tuned.f1)} point estimate on all rows"
        yield f"  {'F1':<{NAME}}{f'at least {least.min_f1:.3f}':<18}{verdict:<15}{figure}"


def _cap(cap: CapVerdict) -> Iterator[str]:
    bound = f"{cap.metric.upper()} under {_percent(cap.max)}"
    line = f"  {_cut(cap.group, NAME - 1):<{NAME}}{bound:<18}{_verdict(cap.verdict):<15}"
    if cap.observed is not None and cap.lower is not None and cap.upper is not None:
        line += (
            f"{_percent(cap.observed)} ({cap.numerator} of {cap.denominator}), "
            f"limits {_percent(cap.lower)} and {_percent(cap.upper)}"
        )
    yield line
    indent = " " * (NAME + 20)
    if cap.needed_further is not None:
        rows = _count(
            cap.needed_further, "more negative" if cap.metric == "fpr" else "more positive"
        )
        yield f"{indent}{rows} at this rate would make it {cap.would_settle}"
    elif cap.reason is not None:
        yield from _wrap(cap.reason, indent=indent, first=indent)


def _thresholds(report: BiasReport) -> Iterator[str]:
    yield "Thresholds  (a row is called positive from there on; argmax: the most probable label)"
    yield "─" * WIDTH
    yield f"  {'rule':<{NAME}}{'threshold':>9}{'F1':>9}{'FPR':>9}{'FNR':>9}    caps"
    for under in report.thresholds:
        if under.reason is not None:
            yield f"  {under.rule:<{NAME}}{'n/a':>9}    {under.reason}"
            continue
        at = "" if under.threshold is None else f"{under.threshold:.4f}"
        figures = (under.overall.f1, under.overall.fpr, under.overall.fnr)
        yield (
            f"  {under.rule:<{NAME}}{at:>9}"
            + "".join(f"{_figure(figure):>9}" for figure in figures)
            + f"    {_verdict(under.caps_verdict)}"
        )
        if (fit := under.fit) is not None:
            f1 = "n/a" if fit.f1 is None else f"{fit.f1:.3f}"
            holds = (
                "every cap holds there"
                if fit.feasible
                else f"no threshold holds every cap there (passed by {fit.violation:.3f} in all)"
            )
            indent = " " * (NAME + 4)
            rows = _count(fit.rows, "row")
            where = f"fitted on {fit.split}, {rows}: F1 {f1}, {holds}"
            yield from _wrap(where, indent=indent, first=indent)


def _parity(report: BiasReport) -> Iterator[str]:
    if report.parity is None:
        return
    yield f"Between groups  (largest minus smallest, with {_level(report)} bootstrap intervals)"
    yield "─" * WIDTH
    for name, title in PARITY.items():
        tuned: ParityDifference = getattr(report.parity.tuned, name)
        cells = _difference(tuned)
        if report.parity.base is not None:
            cells = f"{_difference(getattr(report.parity.base, name))}  → {cells}"
        # Of no difference no group is the higher one.
        if tuned.value and tuned.highest is not None and tuned.lowest is not None:
            cells += f"  {_cut(tuned.highest, 9)} over {_cut(tuned.lowest, 9)}"
        yield f"  {title:<18}{cells}"


def _difference(difference: ParityDifference) -> str:
    value = "n/a" if difference.value is None else f"{difference.value:.3f}"
    return f"{value:>6} {_ends(difference):<16}"


def _training(report: BiasReport) -> Iterator[str]:
    """Base against tuned, row by row, and the criterion of success."""
    paired, success = report.before_after, report.success
    if paired is None and success.min_f1 is None:
        return
    yield "Did training help?"
    yield "─" * WIDTH
    if paired is not None:
        test = paired.overall
        yield from _wrap(
            f"McNemar, exact: {test.only_second} rows right only after training, "
            f"{test.only_first} only before, p = {_p(test.p_value)}",
            indent="    ",
            first="  ",
        )
        changed = [
            f"{_cut(group.group, NAME)} p = {_p(group.paired.p_holm)}"
            for group in paired.groups
            if group.paired.p_holm is not None
        ]
        if changed:
            yield from _wrap(f"by group, Holm: {', '.join(changed)}", indent="    ", first="  ")
    verdict = {"met": "MET", "not_met": "NOT MET", None: "UNKNOWN"}[success.verdict]
    f1 = f"F1 {_number(success.tuned_f1)} with {success.tuned_template}"
    if success.base_template is not None:
        f1 += f" against the base model's {_number(success.base_f1)} with {success.base_template}"
    if success.min_f1 is not None:
        f1 += f", at least {success.min_f1:.3f} asked for"
    if success.reason is not None:
        f1 += f" ({success.reason})"
    yield from _wrap(f"success criterion {verdict}: {f1}", indent="    ", first="  ")


def _warnings(report: BiasReport) -> Iterator[str]:
    if report.warnings:
        yield "Warnings"
        yield "─" * WIDTH
    for warning in report.warnings:
        yield from _wrap(warning.detail, indent="    ", first="  - ")


def _printable(line: str) -> str:
    """The line without trailing blanks or what could steer a terminal (names come from data)."""
    return "".join(char if char.isprintable() else "?" for char in line).rstrip()


def _wrap(text: str, *, indent: str = "", first: str = "") -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent=first, subsequent_indent=indent)


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"


def _count(rows: int, noun: str) -> str:
    return f"{rows:,} {noun}{'' if rows == 1 else 's'}"


def _verdict(verdict: str) -> str:
    return verdict.replace("_", " ").upper()


def _figure(figure: Estimate | RateEstimate, sign: str = "") -> str:
    return "n/a" if figure.value is None else f"{figure.value:{sign}.3f}"


def _number(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.3f}"


def _p(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.3f}" if value >= 0.001 else f"{value:.1e}"


def _ends(figure: Estimate | ParityDifference) -> str:
    if figure.lower is None or figure.upper is None:
        return ""
    return f"[{figure.lower:.3f}, {figure.upper:.3f}]"


def _level(report: BiasReport) -> str:
    return f"{report.settings.confidence * 100:.6g}%"


def _percent(share: float) -> str:
    return f"{share * 100:.1f}%"


def _interval(rate: RateEstimate) -> str:
    if rate.value is None or rate.lower is None or rate.upper is None:
        return f"{'n/a':>6}{'':<19}"
    return f"{_percent(rate.value):>6} [{_percent(rate.lower):>6}, {_percent(rate.upper):>6}]"
