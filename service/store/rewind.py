"""Rewinding a run to an earlier step: records past it are deleted."""

from pathlib import PurePosixPath
from typing import NamedTuple

from sqlalchemy import delete
from sqlmodel import Session, col, select

from service.domain.job_kinds import job_kind
from service.domain.states import JobStatus
from service.store import jobs, merges
from service.store.tables import Artifact, Checkpoint, Evaluation, Job, Metric

_UNFINISHED = (JobStatus.QUEUED, JobStatus.RUNNING, JobStatus.PAUSED)


class UnusedFiles(NamedTuple):
    """Files that no row names any more: the caller deletes them after the commit."""

    prefix: str
    step: int | None = None
    """Step of a checkpoint; None for an evaluation's predictions or a merged model."""


def rewind(session: Session, job: Job, step: int | None) -> list[UnusedFiles]:
    """Supersede the records past `step` (None: all of them, step 0 included); return their files.

    Deletes metrics, checkpoints and evaluations of the job's weights, and every file of an
    incomplete result: the report of other weights must gate nothing. Also deletes the results of
    requested evaluations and merges of such weights, and cancels the unfinished ones.
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
    checkpoints = list(session.exec(statement))
    for checkpoint in checkpoints:
        session.delete(checkpoint)
    superseded = _supersede_results(session, job, past)
    remaining = select(Metric.name, Metric.value).where(Metric.run_id == job.run_id)
    job.metrics = dict(session.exec(remaining.order_by(col(Metric.step))).all())
    job.step = max(past, 0)
    job.eta_seconds = None
    session.add(job)
    session.flush()
    unused = (UnusedFiles(checkpoint.prefix, checkpoint.step) for checkpoint in checkpoints)
    return [*unused, *superseded]


def _supersede_results(session: Session, job: Job, past: int) -> list[UnusedFiles]:
    """Cancel jobs and delete results that use weights past the step; return the results' files.

    Those are requested evaluations, merges and predictions of the adapter, of checkpoints past that
    step, and of models that such weights were merged into.
    """

    def uses_superseded_weights(user: Job) -> bool:
        target, step = merges.weights_of(session, user)
        return target == "adapter" or (target == "checkpoint" and (step or 0) > past)

    of_run = select(Job).where(Job.run_id == job.run_id, Job.id != job.id)
    unfinished = of_run.where(col(Job.status).in_(_UNFINISHED)).order_by(col(Job.id))
    # All at once: a worker that writes an event locks its job first, and then the run.
    for user in list(session.exec(unfinished.with_for_update())):
        if uses_superseded_weights(user):
            why = f"the run was rewound to step {max(past, 0)}: its weights will differ"
            jobs.switch_status(session, user, JobStatus.CANCELLED, why={"detail": why})
    prefixes = set[str]()
    for user in list(session.exec(of_run)):
        if uses_superseded_weights(user):
            evaluations = session.exec(select(Evaluation).where(Evaluation.job_id == user.id))
            rows: list[Evaluation | Artifact] = [*evaluations, *merges.files_of(session, user)]
            for row in rows:
                prefixes.add(str(PurePosixPath(row.key).parent))
                session.delete(row)
    return [UnusedFiles(prefix) for prefix in sorted(prefixes)]
