"""What is kept and for how long: every query on deleting, on the quota, on garbage."""

from collections.abc import Iterable
from typing import Any, NamedTuple

from sqlalchemy import delete, func, or_, union, update
from sqlalchemy.orm import load_only
from sqlmodel import Session, col, select

from service.domain.errors import Conflict, NotFound
from service.domain.job_kinds import MERGE, job_kind
from service.domain.merge import merged_folder
from service.domain.states import RESTING, JobStatus
from service.store import events, jobs, merges, program_events, promotions, runs
from service.store.database import db_now
from service.store.events import NewEvent
from service.store.rewind import Dropped
from service.store.tables import (
    DEFAULT_PROJECT,
    Artifact,
    Checkpoint,
    Dataset,
    Evaluation,
    Event,
    Idempotency,
    Job,
    Metric,
    Promotion,
    Run,
)

_DAY = 24 * 3600
_AT_ONCE = 1000  # values of one statement; PostgreSQL takes 65,535


# -- deleting a run --------------------------------------------------------------------------------


def begin_delete(session: Session, run_id: str, by: str | None) -> None:
    """Hide the run and cancel what waits, so that nobody takes it up while its files go.

    May be called again. Raises NotFound, and Conflict while a worker has one of its jobs or a name
    is its own.
    """
    run = session.get(Run, run_id)
    if run is None or run.project_id != DEFAULT_PROJECT:
        raise NotFound(f"there is no run {run_id!r}")
    promotions.lock(session)
    if names := promotions.names_of(session, [run_id]).get(run_id):
        raise Conflict(
            f"the run has the name {', '.join(names)}: promote another run under it first"
        )
    _put_to_rest(session, run_id, by)
    session.execute(
        update(Run)
        .where(col(Run.id) == run_id, col(Run.deleted_at).is_(None))
        .values(deleted_at=db_now())
    )


def finish_delete(session: Session, run_id: str) -> None:
    """Remove every row of a run whose files are gone.

    Raises Conflict where a worker took up one of its jobs meanwhile.
    """
    found = _put_to_rest(session, run_id, None)
    made = [run_id, *(job.id for job in found)]
    made += [job_kind(job.kind).result_id(job.id) for job in found]
    for first in range(0, len(made), _AT_ONCE):
        some = made[first : first + _AT_ONCE]
        session.execute(delete(Idempotency).where(col(Idempotency.made_id).in_(some)))
    models = (Event, Metric, Checkpoint, Artifact, Evaluation, Promotion, Job)
    for model in models:  # those that refer to others first
        session.execute(delete(model).where(col(model.run_id) == run_id))
    session.execute(delete(Run).where(col(Run.id) == run_id))


def _put_to_rest(session: Session, run_id: str, by: str | None) -> list[Job]:
    """Lock the run's jobs, cancel those that wait; return them. Raises Conflict if one runs."""
    statement = select(Job).where(Job.run_id == run_id).order_by(col(Job.id)).with_for_update()
    # Not `params`: of predictions they hold the texts.
    needed: list[Any] = [Job.run_id, Job.kind, Job.status]
    statement = statement.options(load_only(*needed))
    found = list(session.exec(statement.execution_options(populate_existing=True)))
    for job in found:
        if job.status == JobStatus.RUNNING:
            kind = job_kind(job.kind)
            what = "run" if kind.trains else f"{kind.name} job {job.id} of the run"
            raise Conflict(f"the {what} is running: cancel it and wait until it has stopped")
    for job in found:
        if job.status not in RESTING:
            why = {"detail": "the run is being deleted"}
            jobs.switch_status(session, job, JobStatus.CANCELLED, by=by, why=why)
    return found


def half_deleted(session: Session) -> list[str]:
    """Runs whose deletion was begun and has not come to its end."""
    statement = select(Run.id).where(col(Run.deleted_at).is_not(None)).order_by(col(Run.id))
    return list(session.exec(statement))


# -- deleting a merged model -----------------------------------------------------------------------


def begin_delete_merge(session: Session, run_id: str, merge: str, by: str | None) -> Job:
    """Hide a merge, so that nobody takes its model up while its files go.

    May be called again until `finish_delete_merge` was. Raises NotFound, and Conflict while it, or
    what uses its model, waits or runs.
    """
    job_id = MERGE.job_id(merge)
    merge_id = MERGE.result_id(job_id)
    of_run = merges.jobs_of(run_id)
    has_files = col(Job.id).in_(select(Artifact.job_id).where(Artifact.run_id == run_id))
    there = of_run.where(Job.id == job_id, or_(col(Job.deleted_at).is_(None), has_files))
    # The job before the run, as its worker would. Whoever asks for something locks the run.
    job = session.exec(there.with_for_update()).one_or_none()
    run = select(Run.id).where(Run.id == run_id).with_for_update()
    if job is None or session.exec(run).one_or_none() is None:
        raise merges.not_found(run_id, merge)
    if job.status not in RESTING:
        raise Conflict(
            f"the merge {merge_id} is {job.status}: cancel it and wait until it has stopped"
        )
    if users := _users_of(session, job):
        raise Conflict(
            f"the model of {merge_id} is needed by {', '.join(users)}: cancel that, or wait for "
            "its end"
        )
    if job.deleted_at is None:
        deleted = update(Job).where(col(Job.id) == job_id).values(deleted_at=db_now())
        session.execute(deleted)
        session.execute(delete(Idempotency).where(col(Idempotency.made_id) == merge_id))
        said = {"message": f"the merged model {merge_id} is deleted"}
        said |= {} if by is None else {"by": by}
        events.append(session, run_id, job_id, [NewEvent("log", said)])
    return job


def finish_delete_merge(session: Session, job: Job) -> None:
    """Remove the rows of a merge's files, which are gone."""
    session.execute(delete(Artifact).where(col(Artifact.job_id) == job.id))


def _users_of(session: Session, merge: Job) -> list[str]:
    """The evaluations and predictions, not at their end, of the model that a merge made."""
    statement = select(Job.id, Job.kind).where(
        Job.run_id == merge.run_id,
        col(Job.status).not_in(list(RESTING)),
        col(Job.params)["merge"].as_string() == MERGE.result_id(merge.id),
    )
    found = session.exec(statement.order_by(col(Job.id)))
    return [job_kind(kind).result_id(job_id) for job_id, kind in found]


def half_deleted_merges(session: Session) -> list[Job]:
    """Those whose deletion was begun and has not come to its end."""
    has_files = col(Job.id).in_(select(Artifact.job_id))
    begun = select(Job).where(col(Job.deleted_at).is_not(None), has_files)
    return list(session.exec(begun.order_by(col(Job.id))))


# -- quota and age ---------------------------------------------------------------------------------


def used_bytes(session: Session) -> int:
    """Bytes of all files that rows name; one that several name counts once."""
    files = union(
        select(Artifact.key, Artifact.size),
        select(Evaluation.key, Evaluation.size),
        select(Dataset.key, Dataset.size),
    ).subquery()
    single = session.execute(select(func.coalesce(func.sum(files.c.size), 0))).scalar_one()
    kept = session.execute(select(func.coalesce(func.sum(Checkpoint.size), 0))).scalar_one()
    return int(single) + int(kept)


def expire_checkpoints(session: Session, days: float) -> list[Dropped]:
    """Take away the rows of checkpoints older than that, with an event; the files are the caller's.

    Only of runs that nothing is to be done with any more; of a failed one the newest stays, since a
    retry goes on from it.
    """
    waits = select(Job.run_id).where(col(Job.status).not_in(list(RESTING)))
    statement = (
        select(Checkpoint, Job)
        .join(Job, col(Job.run_id) == col(Checkpoint.run_id))
        .where(
            runs.is_training(),
            col(Checkpoint.created_at) < db_now(-days * _DAY),
            col(Checkpoint.run_id).not_in(waits),
        )
        .order_by(col(Checkpoint.run_id), col(Checkpoint.step))
    )
    gone: dict[str, list[Checkpoint]] = {}
    trained: dict[str, Job] = {}
    for checkpoint, job in session.exec(statement):
        gone.setdefault(checkpoint.run_id, []).append(checkpoint)
        trained[checkpoint.run_id] = job
    dropped = []
    for run_id, found in gone.items():
        if trained[run_id].status == JobStatus.FAILED:
            newest = select(func.max(Checkpoint.step)).where(Checkpoint.run_id == run_id)
            last = session.exec(newest).one()
            found = [one for one in found if one.step != last]
        if not found:
            continue
        for one in found:
            session.delete(one)
        steps = ", ".join(str(one.step) for one in found)
        said = {"message": f"checkpoints older than {days:g} days were removed, of steps {steps}"}
        events.append(session, run_id, trained[run_id].id, [NewEvent("log", said)])
        dropped += [Dropped(one.prefix, one.step) for one in found]
    return dropped


# -- garbage ---------------------------------------------------------------------------------------


class Named(NamedTuple):
    """A row that names files of the store."""

    what: str
    """For people: checkpoint 6 of run_…"""
    keys: tuple[str, ...]
    run_id: str | None
    """None for a dataset, whose row stays: runs were trained on it."""
    table: type[Checkpoint | Artifact | Evaluation | Dataset]
    identity: tuple[Any, ...]
    """Its primary key."""


def named(session: Session) -> list[Named]:
    """Every row that names files."""
    found = [
        Named(
            f"checkpoint {row.step} of {row.run_id}",
            tuple(f"{row.prefix}/{file['path']}" for file in row.files),
            row.run_id,
            Checkpoint,
            (row.run_id, row.step),
        )
        for row in session.exec(select(Checkpoint))
    ]
    models: dict[tuple[str, str], list[str]] = {}
    for artifact in session.exec(select(Artifact).order_by(col(Artifact.path))):
        if (model := merged_folder(artifact.path)) is not None:
            models.setdefault((artifact.run_id, model), []).append(artifact.key)
            continue
        what = f"{artifact.path} of {artifact.run_id}"
        identity = (artifact.run_id, artifact.path)
        found.append(Named(what, (artifact.key,), artifact.run_id, Artifact, identity))
    for (run_id, model), keys in models.items():  # a merged model is all of its files
        what = f"{model.rstrip('/')} of {run_id}"
        found.append(Named(what, tuple(keys), run_id, Artifact, (run_id, model)))
    for one in session.exec(select(Evaluation)):
        what = f"predictions of {one.id} of {one.run_id}"
        found.append(Named(what, (one.key,), one.run_id, Evaluation, (one.id,)))
    for dataset in session.exec(select(Dataset)):
        what = f"dataset {dataset.id}"
        found.append(Named(what, (dataset.key,), None, Dataset, (dataset.id,)))
    return found


def at_work(session: Session) -> tuple[set[str], set[str]]:
    """Of the jobs that workers have: their runs, and the prefixes that they store files under."""
    found = list(session.exec(select(Job).where(Job.status == JobStatus.RUNNING)))
    prefixes = {f"{program_events.prefix(one.run_id, one.id, one.token)}/" for one in found}
    return {one.run_id for one in found}, prefixes


def forget(session: Session, rows: Iterable[Named]) -> int:
    """Remove those of these rows that still name the same files; return how many."""
    removed = 0
    wanted = {(one.table, one.identity): one for one in rows if one.run_id is not None}
    for one in named(session):
        if wanted.get((one.table, one.identity)) != one:
            continue
        if one.table is Artifact and merged_folder(one.identity[1]) is not None:
            run_id, model = one.identity
            of_it = col(Artifact.path).startswith(model, autoescape=True)
            session.execute(delete(Artifact).where(col(Artifact.run_id) == run_id, of_it))
        else:
            session.delete(session.get_one(one.table, one.identity))
        removed += 1
    return removed
