"""Plots of rates with intervals: rows of a forest plot, its axis, and a cap's limits.

A forest plot is a table with a small picture in each row, all on one scale: names can be of any
length, 200 groups break over pages, and every number stands beside its mark.
"""

from __future__ import annotations

from collections.abc import Iterable

from markupsafe import Markup

from service.fairness.html.figures import between, percent, plain
from service.fairness.html.svg import Axis, diamond, line, picture, tag, words
from service.fairness.schema import BiasReport, CapVerdict, RateEstimate

WIDTH = 260.0
MARGIN = 12.0
LINE = 28.0
"""Height of one model's line in a forest plot, equal to the table row's in the stylesheet."""

STEPS = 5
ENDS = (0.1, 0.25, 0.5, 1.0)


def axis_end(rates: Iterable[RateEstimate], caps: Iterable[CapVerdict] = ()) -> float:
    """Return the end of an axis of rates: the first of `ENDS` beyond every interval and cap."""
    reach = [rate.upper for rate in rates if rate.upper is not None]
    reach += [cap.max for cap in caps]
    reach += [cap.upper for cap in caps if cap.upper is not None]
    return next(end for end in ENDS if end >= min(1.0, max(reach, default=0.0)))


def forest_end(report: BiasReport) -> float:
    """Return one axis end for all forest plots of a report, so that they can be compared."""
    models = [model for group in report.groups for model in (group.tuned, group.base) if model]
    return axis_end([rate for model in models for rate in (model.fpr, model.fnr)], report.caps)


def _axis(end: float) -> Axis:
    return Axis(0, end, MARGIN, WIDTH - MARGIN)


def scale(end: float) -> Markup:
    """Draw the axis for the table head, hidden from screen readers: rows have their numbers."""
    axis = _axis(end)
    labels = [
        words(axis.at(end * step / STEPS), 12, f"{end * step / STEPS * 100:g}%", "middle")
        for step in range(STEPS + 1)
    ]
    return tag(
        "svg",
        *labels,
        class_="plot scale",
        viewBox=f"0 0 {WIDTH:g} 16",
        width=WIDTH,
        height=16,
        aria_hidden="true",
    )


def _grid(axis: Axis, end: float, height: float) -> list[Markup]:
    return [
        line(axis.at(end * step / STEPS), 0, axis.at(end * step / STEPS), height, "grid")
        for step in range(STEPS + 1)
    ]


def forest(
    name: str,
    metric: str,
    models: list[tuple[str, RateEstimate]],
    cap: CapVerdict | None,
    end: float,
) -> Markup:
    """Draw a group's rate, one line per model, from 0 to `end`; "base" has its own mark."""
    axis, height = _axis(end), LINE * len(models)
    drawn = _grid(axis, end, height)
    if cap is not None:
        drawn += _cap(axis.at(cap.max), height)
    description = []
    for row, (model, rate) in enumerate(models):
        drawn += _interval(axis, LINE * (row + 0.5), rate, "base" if model == "base" else "tuned")
        description.append(f"{model} {_describe(rate)}")
    if cap is not None:
        description.append(f"cap {percent(cap.max)}")
    title = f"{metric.upper()} of {plain(name)}"
    return picture(WIDTH, height, title, "; ".join(description) + ".", *drawn, class_="forest")


def _describe(rate: RateEstimate) -> str:
    if rate.value is None or rate.lower is None or rate.upper is None:
        return "not available"
    return f"{percent(rate.value)}, interval {between(percent(rate.lower), percent(rate.upper))}"


def _interval(axis: Axis, y: float, rate: RateEstimate, kind: str) -> list[Markup]:
    """Draw a whisker with a mark: a disc for tuned, a hollow diamond for base."""
    if rate.value is None or rate.lower is None or rate.upper is None:
        return [words(axis.start + 4, y + 3.5, "n/a")]
    left, at, right = axis.at(rate.lower), axis.at(rate.value), axis.at(rate.upper)
    drawn = [
        line(left, y, right, y, f"whisker {kind}"),
        line(left, y - 4, left, y + 4, f"end {kind}"),
        line(right, y - 4, right, y + 4, f"end {kind}"),
    ]
    if kind == "base":
        return [*drawn, diamond(at, y, 5, "mark base")]
    return [*drawn, tag("circle", cx=at, cy=y, r=4.5, class_="mark tuned")]


def _cap(x: float, height: float) -> list[Markup]:
    """Draw the cap: a vertical line below a triangle."""
    return [
        line(x, 0, x, height, "cap"),
        tag("path", d=f"M{x - 4.5:.2f} 0h9l-4.5 7z", class_="cap-head"),
    ]


def limits(cap: CapVerdict, end: float) -> Markup:
    """Draw a cap with the one-sided limits of its rate."""
    axis = _axis(end)
    drawn = _grid(axis, end, LINE)
    drawn += _cap(axis.at(cap.max), LINE)
    if cap.observed is None or cap.lower is None or cap.upper is None:
        description = "rate not available"
        drawn.append(words(axis.start + 4, LINE / 2 + 3.5, "n/a"))
    else:
        description = (
            f"{percent(cap.observed)}, limits {percent(cap.lower)} and {percent(cap.upper)}"
        )
        left, at, right = axis.at(cap.lower), axis.at(cap.observed), axis.at(cap.upper)
        drawn += [
            line(left, LINE / 2, right, LINE / 2, "whisker tuned"),
            tag("path", d=f"M{left + 4:.2f} {LINE / 2 - 5:g}h-4v10h4", class_="end tuned"),
            tag("path", d=f"M{right - 4:.2f} {LINE / 2 - 5:g}h4v10h-4", class_="end tuned"),
            tag("circle", cx=at, cy=LINE / 2, r=4.5, class_="mark tuned"),
        ]
    title = f"{cap.metric.upper()} of {plain(cap.group)} compared with its cap"
    desc = f"Observed {description}; cap {percent(cap.max)}."
    return picture(WIDTH, LINE, title, desc, *drawn, class_="limits")
