"""Going back to an earlier step: what was recorded past it no longer stands."""

from pathlib import PurePosixPath
from typing import NamedTuple

from sqlalchemy import delete
from sqlmodel import Session, col, select

from service.domain.job_kinds import job_kind
from service.domain.states import JobStatus
from service.store import jobs, merges
from service.store.tables import Artifact, Checkpoint, Evaluation, Job, Metric

_UNFINISHED = (JobStatus.QUEUED, JobStatus.RUNNING, JobStatus.PAUSED)


class Dropped(NamedTuple):
    """Files that no row names any more: the caller's to delete after the commit."""

    prefix: str
    step: int | None = None
    """Of a checkpoint; None for an evaluation's predictions or a merged model."""


def rewind(session: Session, job: Job, step: int | None) -> list[Dropped]:
    """Supersede what lies past `step` (None: everything, step 0 included).

    Metrics, checkpoints and evaluations of the job's weights go, and every file of a result that
    an attempt did not live to be done with: the report of other weights must gate nothing. So do
    the evaluations and merges of such weights that were asked for; those not yet made are
    cancelled.
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
    log = job_kind(job.kind).log_path(job.id)
    session.execute(
        delete(Artifact).where(col(Artifact.job_id) == job.id, col(Artifact.path) != log)
    )
    statement = select(Checkpoint).where(Checkpoint.run_id == job.run_id, Checkpoint.step > past)
    dropped = list(session.exec(statement))
    for checkpoint in dropped:
        session.delete(checkpoint)
    taken_back = _take_back(session, job, past)
    left = select(Metric.name, Metric.value).where(Metric.run_id == job.run_id)
    job.metrics = dict(session.exec(left.order_by(col(Metric.step))).all())
    job.step = max(past, 0)
    job.eta_seconds = None
    session.add(job)
    session.flush()
    return [*(Dropped(one.prefix, one.step) for one in dropped), *taken_back]


def _take_back(session: Session, job: Job, past: int) -> list[Dropped]:
    """Of the evaluations and merges asked for, those of the adapter, and of checkpoints past that
    step, or of a model that such weights were merged into.
    """

    def is_of_other_weights(one: Job) -> bool:
        target, step = merges.weights_of(session, one)
        return target == "adapter" or (target == "checkpoint" and (step or 0) > past)

    asked = select(Job).where(Job.run_id == job.run_id, Job.id != job.id)
    unfinished = asked.where(col(Job.status).in_(_UNFINISHED)).order_by(col(Job.id))
    # All at once: a worker of one that writes an event holds its job first, and then the run.
    for one in list(session.exec(unfinished.with_for_update())):
        if is_of_other_weights(one):
            why = f"the run went back to step {max(past, 0)}: its weights will be others"
            jobs.switch_status(session, one, JobStatus.CANCELLED, why={"detail": why})
    gone = set[str]()
    for one in list(session.exec(asked)):
        if is_of_other_weights(one):
            made = session.exec(select(Evaluation).where(Evaluation.job_id == one.id))
            made_of_them: list[Evaluation | Artifact] = [*made, *merges.files_of(session, one)]
            for row in made_of_them:
                gone.add(str(PurePosixPath(row.key).parent))
                session.delete(row)
    return [Dropped(place) for place in sorted(gone)]
