"""Line plots: ROC curves and threshold sweeps."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from markupsafe import Markup

from service.fairness.html.figures import percent, plain
from service.fairness.html.svg import UNIT, Frame, Point, line, path, picture, unit_frame, words
from service.fairness.schema import CapVerdict
from service.fairness.schema_curves import RocCurve, Sweep
from service.fairness.schema_verdicts import AtThreshold

PANEL = (230.0, 210.0)
WIDE = (420.0, 290.0)


def roc(curve: RocCurve, whole: RocCurve | None) -> Markup:
    """Draw a ROC curve, with that of all rows (`whole`) dashed and the diagonal dotted."""
    frame = unit_frame(*PANEL)
    name = "all rows" if curve.group is None else plain(curve.group)
    drawn = [
        *frame.grid(UNIT, UNIT, "false-positive rate", "true-positive rate"),
        line(*frame.at(0, 0), *frame.at(1, 1), "ideal"),
    ]
    if whole is not None:
        drawn.append(path(_corners(frame, whole.fpr, whole.tpr), "line whole"))
    drawn.append(path(_corners(frame, curve.fpr, curve.tpr), "line first"))
    tpr = _at_rate(curve, 0.1)
    desc = f"At a false-positive rate of at most 10%, the true-positive rate is {percent(tpr)}."
    return picture(*PANEL, f"ROC curve of {name}", desc, *drawn, class_="panel")


def _at_rate(curve: RocCurve, fpr: float) -> float:
    """Return the highest true-positive rate at a false-positive rate of at most `fpr`."""
    reached = (tpr for x, tpr in zip(curve.fpr, curve.tpr, strict=True) if x <= fpr)
    return max(reached, default=0.0)


def sweep_overall(sweep: Sweep, marks: Sequence[AtThreshold]) -> Markup:
    """Draw F1, precision and recall of all rows over the thresholds."""
    lines = [
        ("F1", sweep.f1, "line first"),
        ("precision", sweep.precision, "line second"),
        ("recall", sweep.recall, "line third"),
    ]
    return _sweep(WIDE, "all rows", sweep.thresholds, lines, marks, ())


def sweep_group(
    sweep: Sweep, group: str, marks: Sequence[AtThreshold], caps: Iterable[CapVerdict]
) -> Markup:
    """Draw a group's FPR and FNR over the thresholds, with its caps."""
    lines = [
        ("FPR", sweep.fpr[group], "line first"),
        ("FNR", sweep.fnr[group], "line second"),
    ]
    return _sweep(PANEL, plain(group), sweep.thresholds, lines, marks, caps)


def _sweep(
    size: tuple[float, float],
    name: str,
    thresholds: Sequence[float],
    lines: Sequence[tuple[str, Sequence[float | None], str]],
    marks: Sequence[AtThreshold],
    caps: Iterable[CapVerdict],
) -> Markup:
    frame = unit_frame(*size)
    names = [label for label, _, _ in lines]
    drawn = frame.grid(UNIT, UNIT, "threshold", ", ".join(names))
    sentences = []
    for cap in caps:
        y = frame.y.at(cap.max)
        drawn += [
            line(frame.x.start, y, frame.x.end, y, "cap"),
            words(frame.x.end - 2, y - 3, f"{cap.metric.upper()} cap", "end", "tick cap-word"),
        ]
        sentences.append(f"{cap.metric.upper()} is capped at {percent(cap.max)}.")
    for mark in marks:
        if mark.threshold is not None:
            x = frame.x.at(mark.threshold)
            drawn.append(line(x, frame.y.start, x, frame.y.end, f"threshold {mark.rule}"))
            sentences.append(f"The {mark.rule} threshold is {mark.threshold:.3g}.")
    for label, series, class_ in lines:
        drawn.append(path(_points(frame, thresholds, series), class_))
        values = [value for value in series if value is not None]
        sentences.append(_range(label, values))
    title = f"{', '.join(names)} of {name} by threshold"
    return picture(*size, title, " ".join(sentences), *drawn, class_="panel")


def _range(label: str, values: Sequence[float]) -> str:
    if not values:
        return f"{label} cannot be computed at any threshold."
    return f"{label} ranges from {min(values):.2f} to {max(values):.2f}."


def _points(
    frame: Frame, xs: Iterable[float], ys: Iterable[float | None]
) -> Iterable[Point | None]:
    return (None if y is None else frame.at(x, y) for x, y in zip(xs, ys, strict=True))


def _corners(frame: Frame, xs: Iterable[float], ys: Iterable[float]) -> Iterable[Point]:
    return (frame.at(x, y) for x, y in zip(xs, ys, strict=True))
