"""Rates with their intervals: a row of a forest plot, its axis, and a cap's limits.

A forest plot is a table with a small picture in each row, all to one scale: names can be as long
as they like, 200 groups break over pages, and every number stands beside its mark.
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
"""Height of one model's line in a forest plot: the stylesheet's height of a table row there."""

STEPS = 5
ENDS = (0.1, 0.25, 0.5, 1.0)


def axis_end(rates: Iterable[RateEstimate], caps: Iterable[CapVerdict] = ()) -> float:
    """Where an axis of rates ends: the first of `ENDS` that holds every interval and cap."""
    reach = [rate.upper for rate in rates if rate.upper is not None]
    reach += [cap.max for cap in caps]
    reach += [cap.upper for cap in caps if cap.upper is not None]
    return next(end for end in ENDS if end >= min(1.0, max(reach, default=0.0)))


def forest_end(report: BiasReport) -> float:
    """One scale for all forest plots of a report, so that FPR and FNR can be compared."""
    models = [model for group in report.groups for model in (group.tuned, group.base) if model]
    return axis_end([rate for model in models for rate in (model.fpr, model.fnr)], report.caps)


def _axis(end: float) -> Axis:
    return Axis(0, end, MARGIN, WIDTH - MARGIN)


def scale(end: float) -> Markup:
    """The axis for the head of the table; its numbers are not read out, the rows say theirs."""
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
    """A group's rate, one line a model, over an axis from 0 to `end`. "base" has its own mark."""
    axis, height = _axis(end), LINE * len(models)
    drawn = _grid(axis, end, height)
    if cap is not None:
        drawn += _cap(axis.at(cap.max), height)
    said = []
    for row, (model, rate) in enumerate(models):
        drawn += _interval(axis, LINE * (row + 0.5), rate, "base" if model == "base" else "tuned")
        said.append(f"{model} {_in_words(rate)}")
    if cap is not None:
        said.append(f"cap {percent(cap.max)}")
    title = f"{metric.upper()} of {plain(name)}"
    return picture(WIDTH, height, title, "; ".join(said) + ".", *drawn, class_="forest")


def _in_words(rate: RateEstimate) -> str:
    if rate.value is None or rate.lower is None or rate.upper is None:
        return "not available"
    return f"{percent(rate.value)}, interval {between(percent(rate.lower), percent(rate.upper))}"


def _interval(axis: Axis, y: float, rate: RateEstimate, kind: str) -> list[Markup]:
    """A whisker with ends and a mark: a disc for tuned, a hollow diamond for base."""
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
    """A line from top to bottom under a triangle that points down at it."""
    return [
        line(x, 0, x, height, "cap"),
        tag("path", d=f"M{x - 4.5:.2f} 0h9l-4.5 7z", class_="cap-head"),
    ]


def limits(cap: CapVerdict, end: float) -> Markup:
    """A cap beside the one-sided limits of the rate that it is about."""
    axis = _axis(end)
    drawn = _grid(axis, end, LINE)
    drawn += _cap(axis.at(cap.max), LINE)
    if cap.observed is None or cap.lower is None or cap.upper is None:
        said = "rate not available"
        drawn.append(words(axis.start + 4, LINE / 2 + 3.5, "n/a"))
    else:
        said = f"{percent(cap.observed)}, limits {percent(cap.lower)} and {percent(cap.upper)}"
        left, at, right = axis.at(cap.lower), axis.at(cap.observed), axis.at(cap.upper)
        drawn += [
            line(left, LINE / 2, right, LINE / 2, "whisker tuned"),
            tag("path", d=f"M{left + 4:.2f} {LINE / 2 - 5:g}h-4v10h4", class_="end tuned"),
            tag("path", d=f"M{right - 4:.2f} {LINE / 2 - 5:g}h4v10h-4", class_="end tuned"),
            tag("circle", cx=at, cy=LINE / 2, r=4.5, class_="mark tuned"),
        ]
    title = f"{cap.metric.upper()} of {plain(cap.group)} against its cap"
    desc = f"Observed {said}; cap {percent(cap.max)}."
    return picture(WIDTH, LINE, title, desc, *drawn, class_="limits")
