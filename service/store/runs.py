"""Queries on runs and their metrics, checkpoints and files."""

from typing import Any, TypeVar

from sqlalchemy import ColumnElement
from sqlmodel import Session, SQLModel, col, select
from sqlmodel.sql.expression import SelectOfScalar

from service.domain.errors import NotFound
from service.domain.job_kinds import TRAIN
from service.store.database import unindexed
from service.store.evaluations import predictions
from service.store.tables import (
    DEFAULT_PROJECT,
    Artifact,
    Checkpoint,
    Evaluation,
    Job,
    Run,
    RunTag,
)

Row = TypeVar("Row", bound=SQLModel)


def is_training() -> ColumnElement[bool]:
    """Select the jobs whose state is their run's: a run has one of them."""
    return col(Job.kind) == TRAIN.name


def get_run(session: Session, run_id: str) -> tuple[Run, Job]:
    """Return a run and the train job whose state is the run's. Raises NotFound."""
    statement = (
        select(Run, Job)
        .join(Job, col(Job.run_id) == col(Run.id))
        .where(
            Run.id == run_id,
            Run.project_id == DEFAULT_PROJECT,
            col(Run.deleted_at).is_(None),
            is_training(),
        )
    )
    row = session.exec(statement).one_or_none()
    if row is None:
        raise NotFound(f"there is no run {run_id!r}")
    return row


def lock(session: Session, run: Run) -> None:
    """Lock the run against other locks and writers of its events until the commit.

    Raises NotFound if it was deleted since it was read.
    """
    visible = select(Run.id).where(Run.id == run.id, col(Run.deleted_at).is_(None))
    if session.exec(visible.with_for_update()).one_or_none() is None:
        raise NotFound(f"there is no run {run.id!r}")


def list_runs(
    session: Session,
    *,
    limit: int,
    after: str | None,
    status: str | None = None,
    name: str | None = None,
    dataset_id: str | None = None,
    tag: str | None = None,
) -> tuple[list[tuple[Run, Job]], bool]:
    """Return runs older than `after`, newest first, and True if there are more.

    Every filter but the combination of several has an index in this order.
    """
    by_status_alone = status is not None and name is None and dataset_id is None and tag is None
    # A run has one training job: the column of the table whose index is used gives the order.
    run_id: Any = Job.run_id if by_status_alone else Run.id
    if tag is not None:
        run_id = RunTag.run_id

    def of_job(column: Any) -> Any:
        return column if by_status_alone else unindexed(session, column)

    statement = (
        select(Run, Job)
        .join(Job, col(Job.run_id) == col(Run.id))
        .where(
            unindexed(session, Run.project_id) == DEFAULT_PROJECT,
            col(Run.deleted_at).is_(None),
            of_job(Job.kind) == TRAIN.name,
        )
        .order_by(run_id.desc())
    )
    if after is not None:
        statement = statement.where(run_id < after)
    if status is not None:
        statement = statement.where(of_job(Job.status) == status)
    if name is not None:
        statement = statement.where(Run.name == name)
    if dataset_id is not None:
        statement = statement.where(Run.dataset_id == dataset_id)
    if tag is not None:
        statement = statement.join(RunTag, col(RunTag.run_id) == col(Run.id))
        statement = statement.where(RunTag.tag == tag)
    rows = list(session.exec(statement.limit(limit + 1)))
    return rows[:limit], len(rows) > limit


def get_imported(session: Session, run_id: str) -> tuple[Run, Job]:
    """Return the run of an imported adapter, and its job. Raises NotFound."""
    check_imported(session, run_id)
    return get_run(session, run_id)


def check_imported(session: Session, run_id: str) -> None:
    """Raise NotFound unless the run, which may be half deleted, is an imported adapter."""
    run = session.get(Run, run_id)
    if run is None or run.project_id != DEFAULT_PROJECT or run.imported is None:
        raise NotFound(f"there is no imported adapter {run_id!r}")


def list_imported(
    session: Session, *, limit: int, after: str | None
) -> tuple[list[tuple[Run, Job]], bool]:
    """Return the runs of imported adapters, newest first, and True if there are more."""
    statement = (
        select(Run, Job)
        .join(Job, col(Job.run_id) == col(Run.id))
        .where(
            unindexed(session, Run.project_id) == DEFAULT_PROJECT,
            col(Run.imported).is_not(None),
            col(Run.deleted_at).is_(None),
            is_training(),
        )
        .order_by(col(Run.id).desc())
    )
    if after is not None:
        statement = statement.where(Run.id < after)
    rows = list(session.exec(statement.limit(limit + 1)))
    return rows[:limit], len(rows) > limit


def _of_run(model: type[Row], run_id: str) -> SelectOfScalar[Row]:
    column: Any = model.__table__.c.run_id  # type: ignore[attr-defined]  # set by SQLModel
    return select(model).where(column == run_id)


def checkpoints(session: Session, run_id: str) -> list[Checkpoint]:
    return list(session.exec(_of_run(Checkpoint, run_id).order_by(col(Checkpoint.step))))


def get_checkpoint(session: Session, run_id: str, step: int) -> Checkpoint:
    """Raises NotFound."""
    checkpoint = session.get(Checkpoint, (run_id, step))
    if checkpoint is None:
        raise NotFound(f"run {run_id} has no checkpoint at step {step}")
    return checkpoint


def _visible_files(run_id: str) -> SelectOfScalar[Artifact]:
    """Select the run's files without those of merged models that are being deleted."""
    deleted = select(Job.id).where(Job.run_id == run_id, col(Job.deleted_at).is_not(None))
    return _of_run(Artifact, run_id).where(col(Artifact.job_id).not_in(deleted))


def artifacts(session: Session, run_id: str) -> list[Artifact]:
    return list(session.exec(_visible_files(run_id).order_by(col(Artifact.path))))


def find_artifact(session: Session, run_id: str, path: str) -> Artifact | None:
    return session.exec(_visible_files(run_id).where(Artifact.path == path)).one_or_none()


def evaluations(session: Session, run_id: str) -> list[Evaluation]:
    """Return the evaluations whose predictions are stored."""
    return list(session.exec(_of_run(Evaluation, run_id).order_by(col(Evaluation.id))))


def get_evaluation(session: Session, run_id: str, evaluation_id: str) -> Evaluation:
    """Return an evaluation whose predictions are stored. Raises NotFound, Conflict."""
    return predictions(session, run_id, evaluation_id)
