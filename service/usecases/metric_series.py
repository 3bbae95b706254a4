"""Use case: read the metric series of a run, thinned to what a page can draw."""

from collections.abc import Iterable, Iterator
from itertools import chain, groupby, islice
from typing import NamedTuple

from sqlmodel import Session

from service.context import Context
from service.store import metrics
from service.store import runs as rows
from service.store.metrics import Point, Window
from service.usecases.large_reads import LARGE_READS

DRAWABLE_POINTS = 1000
"""Maximum number of points of a series by default: more than a page has pixels for."""
MIN_POINTS = 4


class Series(NamedTuple):
    """Points of a window by ascending step, by name."""

    points: dict[str, list[Point]]
    stored: dict[str, int]
    """Number of points of the window that are stored, by name."""
    thinned: bool
    next_step: int | None
    """First step after a limited answer; None if it is complete."""


def read(context: Context, window: Window, *, limit: int | None, max_points: int | None) -> Series:
    """Return the series of the window.

    With `limit` they end, all at the same step, when one has so many points. Each series of more
    than `max_points` (default: DRAWABLE_POINTS; with a limit: all) is thinned. Raises NotFound and
    Busy.
    """
    if max_points is None and limit is None:
        max_points = DRAWABLE_POINTS
    with LARGE_READS.acquire():
        with context.database.read() as session:
            rows.get_run(session, window.run_id)
            stored = metrics.counts(session, window)
            next_step = None if limit is None else _next_step(session, window, stored, limit)
            sent = stored
            if next_step is not None:
                window = window._replace(to_step=next_step - 1)
                sent = metrics.counts(session, window)
        points = {name: list[Point]() for name in sent}
        rows_read = chain.from_iterable(metrics.pages(context.database, window))
        for name, series in groupby(rows_read, lambda point: point.name):
            points[name] = list(thin(series, sent.get(name, 0), max_points))
    thinned = max_points is not None and any(count > max_points for count in sent.values())
    return Series(points, stored, thinned, next_step)


def _next_step(session: Session, window: Window, counts: dict[str, int], limit: int) -> int | None:
    """Return the first step at which some series has more than `limit` points; None if none has."""
    longer = [name for name, count in counts.items() if count > limit]
    steps = [metrics.step_after(session, window, name, limit) for name in longer]
    return min((step for step in steps if step is not None), default=None)


def thin(points: Iterable[Point], count: int, max_points: int | None) -> Iterator[Point]:
    """Yield at most `max_points` of `count` points, extremes included.

    Kept are the first and the last point, and of each of equally long sections between them the
    points with the smallest and the largest value.
    """
    if max_points is None or count <= max_points:
        yield from points
        return
    sections = (max_points - 2) // 2
    section = 0
    extremes: tuple[Point, Point] | None = None
    for number, point in enumerate(islice(points, count)):  # more may be written meanwhile
        is_end = number in (0, count - 1)
        of_point = section if is_end else (number - 1) * sections // (count - 2)
        if is_end or of_point != section:
            yield from _in_order(extremes)
            section, extremes = of_point, None
        if is_end:
            yield point
            continue
        low, high = extremes or (point, point)
        extremes = (
            point if point.value < low.value else low,
            point if point.value > high.value else high,
        )
    yield from _in_order(extremes)


def _in_order(extremes: tuple[Point, Point] | None) -> list[Point]:
    if extremes is None:
        return []
    return sorted(set(extremes), key=lambda point: point.step)
