"""Going back to an earlier step: what was recorded past it no longer stands."""

from sqlalchemy import delete
from sqlmodel import Session, col, select

from service.domain.job import LOG_FILE
from service.store.tables import Artifact, Checkpoint, Evaluation, Job, Metric


def rewind(session: Session, job: Job, step: int | None) -> list[Checkpoint]:
    """Supersede what lies past `step` (None: everything, step 0 included).

    Metrics, checkpoints and evaluations of the job's weights go, and every file of a result that
    an attempt did not live to be done with: the report of other weights must gate nothing. Returns
    the checkpoints, whose files are the caller's to delete after the commit.
    """
    past = -1 if step is None else step
    session.execute(delete(Metric).where(col(Metric.run_id) == job.run_id, col(Metric.step) > past))
    session.execute(
        delete(Evaluation).where(
            col(Evaluation.job_id) == job.id,
            col(Evaluation.target) != "base",
            col(Evaluation.step) > past,
        )
    )
    session.execute(
        delete(Artifact).where(col(Artifact.job_id) == job.id, col(Artifact.path) != LOG_FILE)
    )
    statement = select(Checkpoint).where(Checkpoint.run_id == job.run_id, Checkpoint.step > past)
    dropped = list(session.exec(statement))
    for checkpoint in dropped:
        session.delete(checkpoint)
    left = select(Metric.name, Metric.value).where(Metric.run_id == job.run_id)
    job.metrics = dict(session.exec(left.order_by(col(Metric.step))).all())
    job.step = max(past, 0)
    job.eta_seconds = None
    session.add(job)
    session.flush()
    return dropped
