"""Plot of models: F1 upwards, the largest excess over a cap to the right."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from service.fairness.html.figures import count, plain, points, signed
from service.fairness.html.svg import Axis, Frame, diamond, line, path, picture, tag, words

SIZE = (460.0, 340.0)


@dataclass(frozen=True, slots=True)
class Dot:
    """One model; `excess` is its largest rate minus cap, `pareto` True on the Pareto front."""

    number: int
    name: str
    f1: float
    excess: float
    pareto: bool


def plane(dots: Sequence[Dot], min_f1: float | None) -> Markup:
    """Draw every model with its number; those on the Pareto front are filled and joined.

    Left of the vertical line every cap is satisfied, by point estimates. Up and left is better.
    """
    width, height = SIZE
    x = _axis([0.0, *(dot.excess for dot in dots)], 46, width - 14)
    y = _axis([dot.f1 for dot in dots] + ([] if min_f1 is None else [min_f1]), height - 38, 12)
    frame = Frame(x, y)
    drawn = frame.grid(
        [(value, signed(value * 100, 1).replace(".0", "")) for value in _ticks(x)],
        [(value, f"{value:.3g}") for value in _ticks(y)],
        "largest rate minus cap, percentage points",
        "F1",
    )
    drawn.append(line(x.at(0), y.start, x.at(0), y.end, "cap"))
    if min_f1 is not None:
        drawn += [
            line(x.start, y.at(min_f1), x.end, y.at(min_f1), "threshold"),
            words(x.end - 2, y.at(min_f1) - 4, "minimum F1", "end"),
        ]
    front = sorted((dot.excess, dot.f1) for dot in dots if dot.pareto)
    drawn.append(path((frame.at(*corner) for corner in _stairs(front)), "line front"))
    for dot in dots:
        position = frame.at(dot.excess, dot.f1)
        drawn.append(
            tag("circle", cx=position[0], cy=position[1], r=5, class_="mark tuned")
            if dot.pareto
            else diamond(*position, 5.5, "mark base")
        )
        drawn.append(words(position[0] + 9, position[1] - 6, str(dot.number), class_="mark-word"))
    descriptions = [
        f"{dot.number}, {plain(dot.name, 30)}: F1 {dot.f1:.3f}, {points(dot.excess)}"
        + (", on the Pareto front" if dot.pareto else "")
        for dot in dots
    ]
    desc = f"{count(len(dots), 'model')}. {'; '.join(descriptions)}."
    return picture(*SIZE, "F1 and largest excess over a cap", desc, *drawn, class_="plane")


def _stairs(front: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the corners of the edge of the dominated area."""
    corners: list[tuple[float, float]] = []
    for excess, f1 in front:
        if corners:
            corners.append((excess, corners[-1][1]))
        corners.append((excess, f1))
    return corners


def _axis(values: Sequence[float], start: float, end: float) -> Axis:
    """Return an axis that includes the values and a margin, with round ends."""
    low, high = min(values, default=0.0), max(values, default=1.0)
    step = _step(max(high - low, 0.04) * 1.2)
    return Axis(
        math.floor(round((low - step / 4) / step, 6)) * step,
        math.ceil(round((high + step / 4) / step, 6)) * step,
        start,
        end,
    )


def _step(reach: float) -> float:
    """Return 1, 2 or 5 times a power of ten, so that about five steps span `reach`."""
    size = 10.0 ** math.floor(math.log10(reach / 5))
    return next(times * size for times in (1, 2, 5, 10) if times * size >= reach / 5)


def _ticks(axis: Axis) -> list[float]:
    step = _step((axis.high - axis.low) * 0.999)
    first = math.ceil(round(axis.low / step, 6))
    last = math.floor(round(axis.high / step, 6))
    return [n * step for n in range(first, last + 1)]
