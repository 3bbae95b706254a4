"""Queries on metric series: windows of steps, page by page, and batches of new points."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, func, tuple_
from sqlalchemy.dialects import postgresql, sqlite
from sqlmodel import Session, col, select

from service.store.database import Database
from service.store.tables import Metric

_PAGE = 5000


class Point(NamedTuple):
    name: str
    step: int
    epoch: float
    value: float


class Window(NamedTuple):
    """A part of a run's series; both steps are included."""

    run_id: str
    names: Sequence[str] | None = None
    from_step: int | None = None
    to_step: int | None = None

    def conditions(self) -> list[ColumnElement[bool]]:
        conditions = [col(Metric.run_id) == self.run_id]
        if self.names:
            conditions.append(col(Metric.name).in_(self.names))
        if self.from_step is not None:
            conditions.append(col(Metric.step) >= self.from_step)
        if self.to_step is not None:
            conditions.append(col(Metric.step) <= self.to_step)
        return conditions


def counts(session: Session, window: Window) -> dict[str, int]:
    """Return the number of points of each series in the window."""
    statement = select(Metric.name, func.count()).where(*window.conditions())
    return dict(session.exec(statement.group_by(col(Metric.name)).order_by(col(Metric.name))).all())


def step_after(session: Session, window: Window, name: str, points: int) -> int | None:
    """Return the step of the point that follows the first `points` of a series; None at its end."""
    statement = (
        select(Metric.step)
        .where(*window._replace(names=[name]).conditions())
        .order_by(col(Metric.step))
        .offset(points)
        .limit(1)
    )
    return session.exec(statement).one_or_none()


def pages(database: Database, window: Window) -> Iterator[list[Point]]:
    """Yield the points by name, then step. A session is held only while a page is read."""
    key = tuple_(col(Metric.name), col(Metric.step))
    columns = select(Metric.name, Metric.step, Metric.epoch, Metric.value)
    statement = columns.where(*window.conditions()).order_by(col(Metric.name), col(Metric.step))
    last: tuple[str, int] | None = None
    while True:
        page = statement if last is None else statement.where(key > last)
        with database.read() as session:
            rows = [Point(*row) for row in session.exec(page.limit(_PAGE))]
        yield rows
        if len(rows) < _PAGE:
            return
        last = rows[-1].name, rows[-1].step


def put(session: Session, rows: Sequence[dict[str, Any]]) -> None:
    """Store points by one statement; a point that exists is replaced. No two have one key."""
    if not rows:
        return
    dialect = session.get_bind().dialect.name
    insert: Any = sqlite.insert if dialect == "sqlite" else postgresql.insert
    statement = insert(Metric)
    replaced = {name: statement.excluded[name] for name in ("epoch", "value", "job_id", "token")}
    session.execute(
        statement.on_conflict_do_update(index_elements=["run_id", "name", "step"], set_=replaced),
        list(rows),
    )
