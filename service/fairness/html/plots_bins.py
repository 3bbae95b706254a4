"""Plots of binned scores: histograms and reliability diagrams."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from service.domain.wording import agree, count
from service.fairness.html.figures import plain
from service.fairness.html.plots_lines import PANEL
from service.fairness.html.svg import UNIT, Axis, Frame, line, picture, tag, unit_frame
from service.fairness.schema_curves import ScoreHistogram
from service.fairness.schema_groups import Calibration
from service.fairness.schema_verdicts import AtThreshold

BAR = 1.0
"""Gap between two bars, in pixels."""


def histogram(bins: ScoreHistogram, marks: Sequence[AtThreshold], positive_label: str) -> Markup:
    """Draw positive rows upwards and negative rows downwards, on one scale."""
    width, height = PANEL
    maximum = max(1, *bins.positives, *bins.negatives)
    frame = Frame(Axis(0, 1, 38, width - 8), Axis(-maximum, maximum, height - 36, 8))
    drawn = frame.grid(
        UNIT, ((maximum, f"{maximum:,}"), (0, "0"), (-maximum, f"{maximum:,}")), "score", "rows"
    )
    zero, step = frame.y.at(0), 1 / len(bins.positives)
    for n, (positives, negatives) in enumerate(zip(bins.positives, bins.negatives, strict=True)):
        left, right = frame.x.at(n * step) + BAR / 2, frame.x.at((n + 1) * step) - BAR / 2
        drawn += [
            tag("rect", x=left, y=y, width=right - left, height=bar, class_=class_)
            for y, bar, class_ in (
                (frame.y.at(positives), zero - frame.y.at(positives), "bar positive"),
                (zero, frame.y.at(-negatives) - zero, "bar negative"),
            )
            if bar > 0
        ]
    drawn.append(line(frame.x.start, zero, frame.x.end, zero, "base-line"))
    for mark in marks:
        if mark.threshold is not None:
            x = frame.x.at(mark.threshold)
            drawn.append(line(x, frame.y.start, x, frame.y.end, f"threshold {mark.rule}"))
    name = "all rows" if bins.group is None else plain(bins.group)
    desc = (
        f"{count(sum(bins.positives), 'row')} labelled {plain(positive_label)}, mean score "
        f"{_mean(bins.positives)}; {count(sum(bins.negatives), 'other row')}, mean score "
        f"{_mean(bins.negatives)} (from the bins)."
    )
    return picture(*PANEL, f"Scores of {name}", desc, *drawn, class_="panel")


def _mean(rows: Sequence[int]) -> str:
    """Return the mean score, with every row at the centre of its bin."""
    total = sum(rows)
    if total == 0:
        return "not available"
    return f"{sum((n + 0.5) * of for n, of in enumerate(rows)) / len(rows) / total:.2f}"


def reliability(calibration: Calibration, name: str) -> Markup:
    """Draw the share of positive rows over the mean score, one mark per bin, with intervals."""
    frame = unit_frame(*PANEL)
    drawn = [
        *frame.grid(UNIT, UNIT, "mean score", "share positive"),
        line(*frame.at(0, 0), *frame.at(1, 1), "ideal"),
    ]
    bins_with_rows = 0
    for part in calibration.bins:
        share = part.positives
        if part.mean_score is None or share.value is None:
            continue
        bins_with_rows += 1
        x = frame.x.at(part.mean_score)
        if share.lower is not None and share.upper is not None:
            drawn.append(
                line(x, frame.y.at(share.lower), x, frame.y.at(share.upper), "whisker tuned")
            )
        drawn.append(tag("circle", cx=x, cy=frame.y.at(share.value), r=3.5, class_="mark tuned"))
    error = calibration.error.value
    desc = (
        f"{bins_with_rows} of {count(len(calibration.bins), 'bin')} "
        f"{agree(bins_with_rows, 'has', 'have')} rows. Expected calibration error: "
    )
    desc += "not available." if error is None else f"{error:.3f}."
    return picture(*PANEL, f"Reliability diagram of {plain(name)}", desc, *drawn, class_="panel")
