"""Promotions, the names under which runs are served: every query on them."""

from collections.abc import Collection

from sqlalchemy import update
from sqlmodel import Session, col, select

from service.domain.errors import NotFound
from service.store.database import db_now
from service.store.tables import DEFAULT_PROJECT, Promotion


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
    promotion = current(session, name, stage)
    if promotion is None:
        raise NotFound(f"no run has the name {name}@{stage}")
    return promotion


def get(session: Session, promotion_id: str) -> Promotion:
    """Raises NotFound."""
    promotion = session.get(Promotion, promotion_id)
    if promotion is None or promotion.project_id != DEFAULT_PROJECT:
        raise NotFound(f"there is no promotion {promotion_id!r}")
    return promotion


def supersede(session: Session, promotion: Promotion) -> None:
    """Take the name from its run, under `projects.lock` and before another promotion is added."""
    session.execute(
        update(Promotion)
        .where(col(Promotion.id) == promotion.id)
        .values(superseded_at=db_now())
        .execution_options(synchronize_session=False)
    )
    session.expire(promotion)


def withdraw(session: Session, promotion: Promotion, by: str | None) -> None:
    """Take the name from its run without giving it to another, under `projects.lock`."""
    session.execute(
        update(Promotion)
        .where(col(Promotion.id) == promotion.id)
        .values(superseded_at=db_now(), withdrawn_at=db_now(), withdrawn_by=by)
        .execution_options(synchronize_session=False)
    )
    session.expire(promotion)


def page(
    session: Session, *, limit: int, after: str | None, name: str | None, stage: str | None
) -> tuple[list[Promotion], bool]:
    """Return promotions older than `after`, newest first, and True if there are more."""
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
    """Return the runs' current names, as sorted name@stage; runs without a name are omitted."""
    statement = select(Promotion.run_id, Promotion.name, Promotion.stage).where(
        Promotion.project_id == DEFAULT_PROJECT,
        col(Promotion.run_id).in_(run_ids),
        col(Promotion.superseded_at).is_(None),
    )
    names_by_run: dict[str, list[str]] = {}
    for run_id, name, stage in session.exec(statement):
        names_by_run.setdefault(run_id, []).append(f"{name}@{stage}")
    return {run_id: sorted(names) for run_id, names in names_by_run.items()}
