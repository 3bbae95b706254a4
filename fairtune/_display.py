"""Notebook representations; none needs a notebook's packages."""

from html import escape
from typing import Any

from fairtune.models import BiasReport, DatasetView, Estimate, RateEstimate, RunView

_STYLE = 'style="padding:2px 10px;text-align:left"'


def in_notebook() -> bool:
    """Tell whether the code runs in a notebook's kernel."""
    try:
        shell = get_ipython()  # type: ignore[name-defined]  # IPython adds it to the builtins
    except NameError:
        return False
    return type(shell).__name__ == "ZMQInteractiveShell"


def table(headers: list[str], rows: list[list[Any]], caption: str = "") -> str:
    """Return an HTML table; all texts are escaped."""

    def line(cells: list[Any], tag: str) -> str:
        texts = ("" if cell is None else escape(str(cell)) for cell in cells)
        return "<tr>" + "".join(f"<{tag} {_STYLE}>{text}</{tag}>" for text in texts) + "</tr>"

    head = line(headers, "th") if headers else ""
    body = "".join(line(row, "td") for row in rows)
    title = f"<caption>{escape(caption)}</caption>" if caption else ""
    return f"<table>{title}{head}{body}</table>"


def framed(page: str) -> str:
    """Return a whole page as a frame of its own, whose styles do not reach the notebook."""
    return (
        f'<iframe srcdoc="{escape(page)}" sandbox="allow-popups" '
        'style="width:100%;height:720px;border:1px solid #ccc"></iframe>'
    )


def run_table(run: RunView) -> str:
    progress = f"{run.phase}, step {run.step} of {run.total_steps}, {run.percent:.0f} %"
    rows: list[list[Any]] = [
        ["id", run.id],
        ["status", run.status],
        ["progress", progress],
        ["base model", run.spec.base_model],
        ["dataset", run.spec.dataset_id],
        *([name, f"{value:.4g}"] for name, value in sorted(run.metrics.items())),
    ]
    if run.failure is not None:
        rows.append(["failure", f"{run.failure.detail} {run.failure.advice}"])
    return table([], rows, f"Run {run.name}")


def dataset_table(dataset: DatasetView) -> str:
    rows = [
        [split, stats.rows, ", ".join(f"{label}: {n:,}" for label, n in stats.labels.items())]
        for split, stats in dataset.stats.splits.items()
    ]
    return table(["split", "rows", "labels"], rows, f"Dataset {dataset.name} ({dataset.id})")


def report_tables(report: BiasReport) -> str:
    caps = [
        [cap.group, cap.metric.upper(), f"≤ {cap.max:g}", _number(cap.observed), cap.verdict]
        for cap in report.caps
    ]
    groups = [
        [group.group, group.n, interval(group.tuned.fpr), interval(group.tuned.fnr)]
        for group in report.groups
    ]
    f1 = interval(report.overall.tuned.f1)
    return (
        f"<p>F1 {escape(f1)}, caps: {escape(report.caps_verdict)}</p>"
        + table(["group", "rate", "cap", "observed", "verdict"], caps, "Caps")
        + table(["group", "rows", "FPR", "FNR"], groups, "Error rates by group")
    )


def interval(estimate: RateEstimate | Estimate) -> str:
    """Return a value with its confidence interval, or the reason why there is none."""
    if estimate.value is None:
        return estimate.reason or "-"
    if estimate.lower is None or estimate.upper is None:
        return f"{estimate.value:.3f}"
    return f"{estimate.value:.3f} [{estimate.lower:.3f}, {estimate.upper:.3f}]"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
