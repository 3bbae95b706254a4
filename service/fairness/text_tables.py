"""Tables of the terminal report (rich)."""

from __future__ import annotations

from collections.abc import Iterator

from rich import box
from rich.console import RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from service.domain.wording import count
from service.fairness.schema import BiasReport
from service.fairness.schema_base import Estimate, Metric, RateEstimate
from service.fairness.schema_groups import GroupReport, ParityDifference
from service.fairness.schema_verdicts import AtThreshold, CapVerdict, Success, UnseenRows
from service.fairness.support import is_small

METRICS = {
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
    "demographic_parity": "predicted positive",
    "false_positive_rate": "FPR",
    "true_positive_rate": "recall (1 - FNR)",
    "equalized_odds": "equalized odds",
}

STYLES = {"pass": "green", "met": "green", "fail": "red", "not_met": "red"}


class Tables:
    """Tables of one report; every method yields the parts of a section, or nothing.

    Without `utf` the ellipsis of long names is in ASCII.
    """

    def __init__(self, report: BiasReport, *, utf: bool) -> None:
        self.report, self._utf = report, utf
        self._level = f"{report.settings.confidence * 100:.6g}%"
        self._positive = report.settings.positive_label

    def _table(self, title: str) -> Table:
        return Table(
            title=Text(printable(title), style="bold"),
            title_justify="left",
            box=box.SIMPLE_HEAD,
            show_edge=False,
            width=100,
            pad_edge=True,
        )

    def _name(self, name: str, width: int = 22, mark: str = "") -> str:
        """Return a name from the data, shortened to `width`, with the mark after it."""
        name, ellipsis = printable(name), "…" if self._utf else "..."
        if len(name) > width:
            name = name[: width - len(ellipsis)] + ellipsis
        return name + mark

    def overall(self) -> Iterator[RenderableType]:
        overall, baselines = self.report.overall, self.report.baselines
        table = self._table("Overall metrics")
        table.add_column("metric", no_wrap=True)
        headings = ["base", "tuned", "change"] if overall.base else ["tuned"]
        headings += [f"{self._level} interval", f"always {self._positive}", "group majority"]
        for heading in headings:
            table.add_column(printable(heading), justify="right")
        for name, title in METRICS.items():
            tuned = getattr(overall.tuned, name)
            cells = [decimal(tuned)]
            if overall.base and overall.difference:
                change = decimal(getattr(overall.difference, name), sign="+")
                cells = [decimal(getattr(overall.base, name)), cells[0], change]
            cells += [interval(tuned)]
            cells += [decimal(getattr(baselines.always_positive, name))]
            cells += [decimal(getattr(baselines.group_majority, name))]
            table.add_row(title, *cells)
        yield table
        yield note(
            "The intervals are those of the tuned model: two-sided Wilson intervals for rates, "
            "bootstrap intervals for F1, AUC and calibration error."
        )

    def rates(self, metric: Metric) -> Iterator[RenderableType]:
        if not self.report.groups:
            return
        name, of_rows, predicted = (
            ("False-positive rate", "other rows", self._positive)
            if metric == "fpr"
            else ("False-negative rate", f"{self._positive} rows", "other")
        )
        table = self._table(f"{name} by group: {of_rows} that are predicted {predicted}")
        table.add_column("group", no_wrap=True)
        table.add_column("negatives" if metric == "fpr" else "positives", justify="right")
        for model in ("base", "tuned") if self.report.overall.base else ("tuned",):
            table.add_column(model, justify="right")
            table.add_column(f"{self._level} interval", justify="right")
        starred = False
        for group in self.report.groups:
            total = group.negatives if metric == "fpr" else group.positives
            small = "*" if is_small(total, self.report.settings.min_support) else ""
            starred = starred or bool(small)
            cells = [
                cell for rate in _rates(group, metric) for cell in (_percent(rate), _span(rate))
            ]
            table.add_row(self._name(group.group, mark=small), f"{total:,}", *cells)
        yield table
        if starred:
            kind = "negative" if metric == "fpr" else "positive"
            yield note(f"* fewer than {count(self.report.settings.min_support, kind)}")

    def caps(self) -> Iterator[RenderableType]:
        caps, minimum = self.report.caps, self.report.min_f1
        if not caps and minimum is None:
            return
        table = self._table(
            f"Verdicts on caps (by one-sided {self._level} Clopper-Pearson limits)"
            if caps
            else "Minimum F1"
        )
        table.add_column("group", no_wrap=True)
        for heading in ("criterion", "verdict", "observed", "limits"):
            table.add_column(heading)
        for cap in caps:
            observed = limits = "n/a"
            if cap.observed is not None and cap.lower is not None and cap.upper is not None:
                observed = f"{cap.observed:.1%} ({cap.numerator:,} of {cap.denominator:,})"
                limits = f"{cap.lower:.1%} to {cap.upper:.1%}"
            criterion = f"{cap.metric.upper()} under {cap.max:.1%}"
            table.add_row(self._name(cap.group), criterion, verdict(cap.verdict), observed, limits)
        if caps:
            table.add_row("all caps", "", verdict(self.report.caps_verdict), "", "")
        if minimum is not None:
            criterion = f"F1 at least {minimum.min_f1:.3f}"
            f1 = decimal(self.report.overall.tuned.f1)
            table.add_row("all rows", criterion, verdict(minimum.verdict), f1, "")
        yield table
        for cap in caps:
            if (sentence := _outlook(cap)) is not None:
                yield note(sentence)
        if self.report.unseen is not None:
            yield note(_without_seen(self.report.unseen))

    def thresholds(self) -> Iterator[RenderableType]:
        table = self._table("Decision rules (a row is predicted positive from the threshold on)")
        table.add_column("rule")
        for heading in ("threshold", "F1", "FPR", "FNR"):
            table.add_column(heading, justify="right")
        table.add_column("caps")
        for entry in self.report.thresholds:
            if entry.reason is not None:
                table.add_row(entry.rule, *["n/a"] * 5)
                continue
            threshold = "" if entry.threshold is None else f"{entry.threshold:.4f}"
            metrics = (entry.overall.f1, entry.overall.fpr, entry.overall.fnr)
            cells = [decimal(metric) for metric in metrics]
            table.add_row(entry.rule, threshold, *cells, verdict(entry.caps_verdict))
        yield table
        for entry in self.report.thresholds:
            if (sentence := _fit(entry)) is not None:
                yield note(sentence)

    def parity(self) -> Iterator[RenderableType]:
        parity = self.report.parity
        if parity is None:
            return
        table = self._table("Differences between groups (largest minus smallest rate)")
        table.add_column("rate", no_wrap=True)
        models = [("base", parity.base)] if parity.base is not None else []
        for model, _ in [*models, ("tuned", parity.tuned)]:
            table.add_column(model, justify="right", min_width=5)
            table.add_column(f"{self._level} interval", justify="right", min_width=14)
        table.add_column("tuned highest", no_wrap=True)
        table.add_column("tuned lowest", no_wrap=True)
        for name, title in PARITY.items():
            tuned: ParityDifference = getattr(parity.tuned, name)
            differences = [getattr(model, name) for _, model in models] + [tuned]
            cells = [cell for gap in differences for cell in (decimal(gap), interval(gap))]
            # If the difference is 0, no group is the highest.
            names = (tuned.highest, tuned.lowest) if tuned.value else (None, None)
            table.add_row(title, *cells, *(self._name(group or "", 12) for group in names))
        yield table
        yield note(f"The intervals are basic bootstrap intervals ({parity.resamples:,} resamples).")

    def paired(self) -> Iterator[RenderableType]:
        """Yield McNemar's test and the success criterion."""
        before_after, success = self.report.before_after, self.report.success
        if before_after is None and success.min_f1 is None:
            return
        if before_after is not None:
            table = self._table("Base and tuned model, row by row (McNemar's exact test)")
            table.add_column("rows", no_wrap=True)
            for heading in ("number", "only base right", "only tuned right", "p", "p (Holm)"):
                table.add_column(heading, justify="right")
            tests = [("all rows", before_after.overall)]
            tests += [(self._name(group.group), group.paired) for group in before_after.groups]
            for name, test in tests:
                counts = (test.rows, test.only_first, test.only_second)
                holm = "" if test.p_holm is None else p_value(test.p_holm)
                cells = [f"{number:,}" for number in counts]
                table.add_row(name, *cells, p_value(test.p_value), holm)
            yield table
        yield Padding(_success(success), (1 if before_after is not None else 0, 0, 0, 0))


def _rates(group: GroupReport, metric: Metric) -> list[RateEstimate]:
    models = [group.base, group.tuned] if group.base else [group.tuned]
    return [model.fpr if metric == "fpr" else model.fnr for model in models]


def _outlook(cap: CapVerdict) -> str | None:
    """Return a sentence about the rows that would settle a cap, or why there are none."""
    name = f"{cap.group} {cap.metric.upper()}"
    if cap.needed_further is not None:
        kind = "more negative" if cap.metric == "fpr" else "more positive"
        rows = count(cap.needed_further, kind)
        return f"{name}: {rows} at this rate would make the verdict {cap.would_settle}."
    return None if cap.reason is None else f"{name}: {cap.reason}."


def _without_seen(unseen: UnseenRows) -> str:
    """Return a sentence with the verdicts on the rows that the model has not seen."""
    words = [f"caps {verdict(unseen.caps_verdict)}", f"F1 {number(unseen.f1.value)}"]
    if unseen.min_f1 is not None:
        words.append(f"minimum F1 {verdict(unseen.min_f1.verdict)}")
    return f"On the {count(unseen.rows, 'row')} that the model has not seen: {', '.join(words)}."


def _fit(entry: AtThreshold) -> str | None:
    """Return a sentence about the fit of a threshold, or why none was fitted."""
    if entry.reason is not None:
        return f"No threshold was fitted: {entry.reason}."
    if (fit := entry.fit) is None:
        return None
    outcome = (
        "It satisfies every cap and the minimum F1 there."
        if fit.feasible
        else "No threshold satisfies every cap and the minimum F1 there; this one has the smallest "
        f"total violation, {fit.violation:.3f}."
    )
    return (
        f"The threshold was fitted on {count(fit.rows, 'row')} of the {fit.split} split, where its "
        f"F1 is {number(fit.f1)}. {outcome}"
    )


def _success(success: Success) -> Text:
    word = verdict(success.verdict)
    sentence = f". F1 is {number(success.tuned_f1)} with {success.tuned_template}"
    if success.base_template is not None:
        sentence += f"; the base model's is {number(success.base_f1)} with {success.base_template}"
    if success.min_f1 is not None:
        sentence += f"; the required minimum is {success.min_f1:.3f}"
    if success.reason is not None:
        sentence += f" ({success.reason})"
    return Text.assemble("Success criterion: ", word, printable(sentence + "."))


def note(sentence: str) -> RenderableType:
    return Padding(Text(printable(sentence)), (0, 0, 0, 1))


def printable(text: str) -> str:
    """Return the text without characters that could control a terminal (names come from data)."""
    return "".join(char if char.isprintable() else "?" for char in text)


def verdict(word: str | None) -> Text:
    return Text((word or "unknown").replace("_", " ").upper(), style=STYLES.get(word or "", ""))


def decimal(figure: Estimate | RateEstimate | ParityDifference, sign: str = "") -> str:
    return "n/a" if figure.value is None else f"{figure.value:{sign}.3f}"


def number(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.3f}"


def p_value(value: float) -> str:
    return f"{value:.3f}" if value >= 0.001 else f"{value:.1e}"


def interval(figure: Estimate | RateEstimate | ParityDifference) -> str:
    if figure.value is None or figure.lower is None or figure.upper is None:
        return ""
    return f"{figure.lower:.3f} to {figure.upper:.3f}"


def _percent(rate: RateEstimate) -> str:
    return "n/a" if rate.value is None else f"{rate.value:.1%}"


def _span(rate: RateEstimate) -> str:
    if rate.value is None or rate.lower is None or rate.upper is None:
        return ""
    return f"{rate.lower:.1%} to {rate.upper:.1%}"
