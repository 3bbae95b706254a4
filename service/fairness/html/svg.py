"""Inline SVG as text: elements, axes and a plot's frame.

Coordinates are pixels of the viewBox, y downwards. The stylesheet sets colours, fonts and widths by
class, for light, dark and print; style attributes would be refused by the page's policy. All
content and attributes are escaped here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

Point = tuple[float, float]


def tag(name: str, *inside: str, **attributes: str | float | None) -> Markup:
    """Return an element; None omits an attribute, and `stroke_width_` becomes stroke-width."""
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{_value(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    content = "".join(map(escape, inside))
    return Markup(f"<{name}{written}>{content}</{name}>" if content else f"<{name}{written}/>")  # noqa: S704 - escaped above


def _value(value: str | float) -> str:
    return escape(value) if isinstance(value, str) else number(value)


def number(value: float) -> str:
    """Format a coordinate with at most two decimals."""
    text = f"{value:.2f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def picture(
    width: float, height: float, title: str, desc: str, *inside: str, class_: str
) -> Markup:
    """Return a plot as an image with a name and a description for assistive technology."""
    return tag(
        "svg",
        tag("title", title),
        tag("desc", desc),
        *inside,
        role="img",
        class_=f"plot {class_}",
        viewBox=f"0 0 {number(width)} {number(height)}",
        width=width,
        height=height,
    )


def line(x1: float, y1: float, x2: float, y2: float, class_: str) -> Markup:
    return tag("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=class_)


def words(x: float, y: float, text: str, anchor: str = "start", class_: str = "tick") -> Markup:
    return tag("text", text, x=x, y=y, text_anchor=anchor, class_=class_)


def path(points: Iterable[Point | None], class_: str) -> Markup:
    """Return a line through the points, broken at None; a single point becomes a dot."""
    steps: list[str] = []
    start = True
    alone: Point | None = None
    for point in points:
        if alone is not None and point is None:
            steps.append(f"L{number(alone[0])} {number(alone[1])}")
        if point is not None:
            steps.append(f"{'M' if start else 'L'}{number(point[0])} {number(point[1])}")
        alone = point if start else None
        start = point is None
    if alone is not None:
        steps.append(f"L{number(alone[0])} {number(alone[1])}")
    return tag("path", d="".join(steps), class_=class_) if steps else Markup()


def diamond(x: float, y: float, radius: float, class_: str) -> Markup:
    corners = [(x, y - radius), (x + radius, y), (x, y + radius), (x - radius, y)]
    return tag("polygon", points=_corners(corners), class_=class_)


def _corners(points: Sequence[Point]) -> str:
    return " ".join(f"{number(x)},{number(y)}" for x, y in points)


@dataclass(frozen=True, slots=True)
class Axis:
    """Linear scale that maps values from `low` to `high` to pixels from `start` to `end`."""

    low: float
    high: float
    start: float
    end: float

    def at(self, value: float) -> float:
        """Return the pixel of a value; values outside the axis are clipped to its ends."""
        share = (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)


@dataclass(frozen=True, slots=True)
class Frame:
    """Area of a plot; x increases to the right, y upwards."""

    x: Axis
    y: Axis

    def at(self, x: float, y: float) -> Point:
        return self.x.at(x), self.y.at(y)

    def grid(
        self, xs: Iterable[tuple[float, str]], ys: Iterable[tuple[float, str]], x: str, y: str
    ) -> list[Markup]:
        """Return grid lines and labels at the values, and the names of both axes."""
        left, right, bottom, top = self.x.start, self.x.end, self.y.start, self.y.end
        drawn = []
        for value, label in xs:
            at = self.x.at(value)
            drawn += [line(at, top, at, bottom, "grid"), words(at, bottom + 13, label, "middle")]
        for value, label in ys:
            at = self.y.at(value)
            drawn += [line(left, at, right, at, "grid"), words(left - 5, at + 3.5, label, "end")]
        middle = number((top + bottom) / 2)
        return [
            *drawn,
            words((left + right) / 2, bottom + 28, x, "middle", "axis"),
            tag(
                "text",
                y,
                x=10,
                y=float(middle),
                text_anchor="middle",
                class_="axis",
                transform=f"rotate(-90 10 {middle})",
            ),
        ]


UNIT = ((0.0, "0"), (0.25, ""), (0.5, "0.5"), (0.75, ""), (1.0, "1"))
"""Grid lines of a probability axis."""


def unit_frame(width: float, height: float) -> Frame:
    """Return a frame with both axes from 0 to 1 and room for labels at the left and below."""
    return Frame(Axis(0, 1, 38, width - 8), Axis(0, 1, height - 36, 8))
