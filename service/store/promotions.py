"""Names that runs are served by: every query on them."""

from collections.abc import Collection

from sqlalchemy import update
from sqlmodel import Session, col, select

from service.domain.errors import NotFound
from service.store.database import db_now
from service.store.tables import DEFAULT_PROJECT, Project, Promotion


def lock(session: Session) -> None:
    """Give names one at a time until the commit, so that one supersedes the other in order.

    On SQLite every write transaction does so already. On PostgreSQL rows that refer to the project
    can still be inserted meanwhile.
    """
    statement = select(Project.id).where(Project.id == DEFAULT_PROJECT)
    session.exec(statement.with_for_update(key_share=True)).one()


def current(session: Session, name: str, stage: str) -> Promotion | None:
    statement = select(Promotion).where(
        Promotion.project_id == DEFAULT_PROJECT,
        Promotion.name == name,
        Promotion.stage == stage,
        col(Promotion.superseded_at).is_(None),
    )
    return session.exec(statement).one_or_none()


def get_current(session: Session, name: str, stage: str) -> Promotion:
    """Raises NotFound."""
    found = current(session, name, stage)
    if found is None:
        raise NotFound(f"no run has the name {name}@{stage}")
    return found


def get(session: Session, promotion_id: str) -> Promotion:
    """Raises NotFound."""
    found = session.get(Promotion, promotion_id)
    if found is None or found.project_id != DEFAULT_PROJECT:
        raise NotFound(f"there is no promotion {promotion_id!r}")
    return found


def supersede(session: Session, promotion: Promotion) -> None:
    """Take the name from its run. To be called with the lock held, before another is added."""
    session.execute(
        update(Promotion)
        .where(col(Promotion.id) == promotion.id)
        .values(superseded_at=db_now())
        .execution_options(synchronize_session=False)
    )
    session.expire(promotion)


def page(
    session: Session, *, limit: int, after: str | None, name: str | None, stage: str | None
) -> tuple[list[Promotion], bool]:
    """Newest first, those older than the promotion `after`; and whether there are more."""
    statement = select(Promotion).where(Promotion.project_id == DEFAULT_PROJECT)
    if after is not None:
        statement = statement.where(Promotion.id < after)
    if name is not None:
        statement = statement.where(Promotion.name == name)
    if stage is not None:
        statement = statement.where(Promotion.stage == stage)
    rows = list(session.exec(statement.order_by(col(Promotion.id).desc()).limit(limit + 1)))
    return rows[:limit], len(rows) > limit


def names_of(session: Session, run_ids: Collection[str]) -> dict[str, list[str]]:
    """The names that these runs have now, as name@stage and sorted; runs without one left out."""
    statement = select(Promotion.run_id, Promotion.name, Promotion.stage).where(
        Promotion.project_id == DEFAULT_PROJECT,
        col(Promotion.run_id).in_(run_ids),
        col(Promotion.superseded_at).is_(None),
    )
    found: dict[str, list[str]] = {}
    for run_id, name, stage in session.exec(statement):
        found.setdefault(run_id, []).append(f"{name}@{stage}")
    return {run_id: sorted(names) for run_id, names in found.items()}
