"""Events of a run: numbered by the database, read as a list or as a stream."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import update
from sqlmodel import Session, col, select

from service.domain.job_kinds import KINDS
from service.store.tables import Event, Job, Run


class NewEvent(NamedTuple):
    type: str
    data: dict[str, Any]
    token: int | None = None
    seq: int | None = None


def storable(value: Any) -> Any:
    """Return `value` without NUL characters in its texts, which PostgreSQL rejects."""
    if isinstance(value, str):
        return value.replace("\0", "")
    if isinstance(value, dict):
        return {key: storable(item) for key, item in value.items()}
    if isinstance(value, list):
        return [storable(item) for item in value]
    return value


def append(session: Session, run_id: str, job_id: str, events: Sequence[NewEvent]) -> None:
    """Add `events` in order; they carry the id of what the job produces beside the run.

    The run's row is locked until the commit, so numbers have no gaps and become visible in order:
    after number n no reader ever sees a smaller one appear.
    """
    if not events:
        return
    statement = (
        update(Run)
        .where(col(Run.id) == run_id)
        .values(event_count=col(Run.event_count) + len(events))
        .returning(col(Run.event_count))
    )
    job = session.get_one(Job, job_id)
    kind = KINDS.get(job.kind)  # None for a kind of a newer version
    result = {}
    if kind is not None and kind.result_field is not None:
        result = {kind.result_field: kind.result_id(job_id)}
    last = session.execute(statement).scalar_one()
    first = last - len(events) + 1
    for number, event in enumerate(events, first):
        session.add(
            Event(
                run_id=run_id,
                number=number,
                job_id=job_id,
                token=event.token,
                seq=event.seq,
                type=event.type,
                data=storable(event.data | result),
            )
        )
    session.flush()


def page(session: Session, run_id: str, after: int, limit: int) -> list[Event]:
    """Return up to `limit` events numbered above `after`, oldest first."""
    statement = (
        select(Event)
        .where(Event.run_id == run_id, Event.number > after)
        .order_by(col(Event.number))
        .limit(limit)
    )
    return list(session.exec(statement))


def newest(session: Session, run_ids: Sequence[str]) -> dict[str, int]:
    """Return the number of each run's newest event; deleted runs are omitted."""
    statement = select(Run.id, Run.event_count).where(
        col(Run.id).in_(run_ids), col(Run.deleted_at).is_(None)
    )
    return dict(session.exec(statement).all())
