"""Retention: every query on deletion, the storage quota, expiry and garbage collection."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any, NamedTuple

from sqlalchemy import delete, func, or_, tuple_, union, update
from sqlalchemy.orm import load_only
from sqlmodel import Session, col, select

from service.domain.errors import Conflict, NotFound
from service.domain.job_kinds import KINDS, MERGE, job_kind
from service.domain.merge import merged_folder
from service.domain.states import RESTING, JobStatus
from service.store import events, jobs, merges, program_events, projects, promotions, runs
from service.store.database import db_now
from service.store.events import NewEvent
from service.store.rewind import UnusedFiles
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
MAX_NAMED = 5
"""Names in a refusal; further ones are counted."""
_BATCH_SIZE = 1000  # values of one statement; PostgreSQL takes 65,535


# -- deleting a run --------------------------------------------------------------------------------


def begin_delete(session: Session, run_id: str, by: str | None) -> None:
    """Hide the run and cancel its waiting jobs, so that no worker claims one meanwhile.

    May be called again. Raises NotFound, and Conflict while one of its jobs runs or it is promoted
    under a name.
    """
    run = session.get(Run, run_id)
    if run is None or run.project_id != DEFAULT_PROJECT:
        raise NotFound(f"there is no run {run_id!r}")
    projects.lock(session)
    if names := promotions.names_of(session, [run_id]).get(run_id):
        raise Conflict(
            f"the run has the name {', '.join(names)}: withdraw the name (DELETE "
            "/v1/promotions/{name}/{stage}) or promote another run under it first"
        )
    _cancel_waiting_jobs(session, run_id, by)
    session.execute(
        update(Run)
        .where(col(Run.id) == run_id, col(Run.deleted_at).is_(None))
        .values(deleted_at=db_now())
    )


def finish_delete(session: Session, run_id: str) -> None:
    """Remove every row of a run whose files are gone.

    Raises Conflict if a worker has claimed one of its jobs meanwhile.
    """
    deleted_jobs = _cancel_waiting_jobs(session, run_id, None)
    result_ids = [run_id, *(job.id for job in deleted_jobs)]
    result_ids += [KINDS[job.kind].result_id(job.id) for job in deleted_jobs if job.kind in KINDS]
    for first in range(0, len(result_ids), _BATCH_SIZE):
        batch = result_ids[first : first + _BATCH_SIZE]
        session.execute(delete(Idempotency).where(col(Idempotency.made_id).in_(batch)))
    models = (Event, Metric, Checkpoint, Artifact, Evaluation, Promotion, Job)
    for model in models:  # those that refer to others first
        session.execute(delete(model).where(col(model.run_id) == run_id))
    session.execute(delete(Run).where(col(Run.id) == run_id))


def _cancel_waiting_jobs(session: Session, run_id: str, by: str | None) -> list[Job]:
    """Lock the run's jobs and cancel the waiting ones; return all. Raises Conflict if one runs."""
    statement = select(Job).where(Job.run_id == run_id).order_by(col(Job.id)).with_for_update()
    # Without `params`: those of predictions hold the texts.
    needed: list[Any] = [Job.run_id, Job.kind, Job.status]
    statement = statement.options(load_only(*needed))
    run_jobs = list(session.exec(statement.execution_options(populate_existing=True)))
    for job in run_jobs:
        if job.status == JobStatus.RUNNING:
            kind = KINDS.get(job.kind)
            trains = kind is not None and kind.trains
            what = "run" if trains else f"{job.kind} job {job.id} of the run"
            raise Conflict(f"the {what} is running: cancel it and wait until it has stopped")
    for job in run_jobs:
        if job.status not in RESTING:
            why = {"detail": "the run is being deleted"}
            jobs.switch_status(session, job, JobStatus.CANCELLED, by=by, why=why)
    return run_jobs


def unfinished_deletions(session: Session) -> list[str]:
    """Return the ids of runs whose deletion has begun and not finished."""
    statement = select(Run.id).where(col(Run.deleted_at).is_not(None)).order_by(col(Run.id))
    return list(session.exec(statement))


# -- deleting a merged model -----------------------------------------------------------------------


def begin_delete_merge(session: Session, run_id: str, merge: str, by: str | None) -> Job:
    """Hide a merge, so that no job uses its model while files are deleted.

    May be called again until `finish_delete_merge` was. Raises NotFound, and Conflict while the
    merge, or a job that uses its model, waits or runs.
    """
    job_id = MERGE.job_id(merge)
    merge_id = MERGE.result_id(job_id)
    of_run = merges.jobs_of(run_id)
    has_files = col(Job.id).in_(select(Artifact.job_id).where(Artifact.run_id == run_id))
    visible = of_run.where(Job.id == job_id, or_(col(Job.deleted_at).is_(None), has_files))
    # The job before the run, as its worker locks them. A request for a job locks the run.
    job = session.exec(visible.with_for_update()).one_or_none()
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
        data = {"message": f"the merged model {merge_id} is deleted"}
        data |= {} if by is None else {"by": by}
        events.append(session, run_id, job_id, [NewEvent("log", data)])
    return job


def finish_delete_merge(session: Session, job: Job) -> None:
    """Remove the rows of a merge's files, which are deleted already."""
    session.execute(delete(Artifact).where(col(Artifact.job_id) == job.id))


def _users_of(session: Session, merge: Job) -> list[str]:
    """Return the ids of unfinished evaluations and predictions of a merge's model."""
    statement = select(Job.id, Job.kind).where(
        Job.run_id == merge.run_id,
        col(Job.status).not_in(list(RESTING)),
        col(Job.params)["merge"].as_string() == MERGE.result_id(merge.id),
    )
    users = session.exec(statement.order_by(col(Job.id)))
    return [job_kind(kind).result_id(job_id) for job_id, kind in users]


def unfinished_merge_deletions(session: Session) -> list[Job]:
    """Return the jobs of merges whose deletion has begun and not finished."""
    has_files = col(Job.id).in_(select(Artifact.job_id))
    begun = select(Job).where(col(Job.deleted_at).is_not(None), has_files)
    return list(session.exec(begun.order_by(col(Job.id))))


# -- deleting a dataset ----------------------------------------------------------------------------


def begin_delete_dataset(session: Session, dataset_id: str) -> Dataset:
    """Hide a dataset that nothing uses, so that nothing begins to.

    May be called again. Raises NotFound, and Conflict that names the runs and evaluations that were
    trained or computed on it.
    """
    projects.lock(session)  # a new dataset may be about to share the file
    statement = select(Dataset).where(
        Dataset.id == dataset_id, Dataset.project_id == DEFAULT_PROJECT
    )
    dataset = session.exec(statement.with_for_update()).one_or_none()
    if dataset is None:
        raise NotFound(f"there is no dataset {dataset_id!r}")
    trained = list(
        session.exec(select(Run.id).where(Run.dataset_id == dataset_id).order_by(col(Run.id)))
    )
    if trained:
        raise Conflict(f"the dataset is used by {_listed('run', trained)}; delete runs first")
    if evaluations := _evaluations_on(session, dataset_id):
        raise Conflict(
            f"the dataset is used by {_listed('evaluation', evaluations)}; delete runs first"
        )
    if dataset.deleted_at is None:
        session.execute(
            update(Dataset)
            .where(col(Dataset.id) == dataset_id)
            .values(deleted_at=db_now())
            .execution_options(synchronize_session=False)
        )
    return dataset


def finish_delete_dataset(session: Session, dataset_id: str) -> None:
    """Remove the row of a dataset whose file is gone."""
    session.execute(delete(Idempotency).where(col(Idempotency.made_id) == dataset_id))
    session.execute(delete(Dataset).where(col(Dataset.id) == dataset_id))


def unfinished_dataset_deletions(session: Session) -> list[Dataset]:
    """Return the datasets whose deletion has begun and not finished."""
    begun = select(Dataset).where(col(Dataset.deleted_at).is_not(None))
    return list(session.exec(begun.order_by(col(Dataset.id))))


def _evaluations_on(session: Session, dataset_id: str) -> list[str]:
    """Return "eval_… of run_…" for the evaluations on a dataset, in whatever state."""
    stored = session.exec(
        select(Evaluation.id, Evaluation.run_id).where(Evaluation.dataset_id == dataset_id)
    )
    requested = session.exec(
        select(Job.id, Job.run_id, Job.kind).where(
            col(Job.params)["dataset_id"].as_string() == dataset_id
        )
    )
    evaluations = dict(stored.all())
    evaluations |= {job_kind(kind).result_id(job_id): run for job_id, run, kind in requested}
    return [f"{evaluation} of {run}" for evaluation, run in sorted(evaluations.items())]


def _listed(noun: str, names: Sequence[str]) -> str:
    """Return the first names with their noun: "runs run_a, run_b, run_c and 4 more"."""
    more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
    return f"the {noun}{'s' if len(names) > 1 else ''} {', '.join(names[:MAX_NAMED])}{more}"


# -- quota and age ---------------------------------------------------------------------------------


def used_bytes(session: Session) -> int:
    """Return the bytes of all files that rows name; a file of several rows counts once."""
    files = union(
        select(Artifact.key, Artifact.size),
        select(Evaluation.key, Evaluation.size),
        select(Dataset.key, Dataset.size),
    ).subquery()
    single = session.execute(select(func.coalesce(func.sum(files.c.size), 0))).scalar_one()
    checkpoints = session.execute(select(func.coalesce(func.sum(Checkpoint.size), 0))).scalar_one()
    return int(single) + int(checkpoints)


def expire_checkpoints(session: Session, days: float) -> list[UnusedFiles]:
    """Delete the rows of checkpoints older than `days`, with an event; return their files.

    Only of runs without an unfinished job; the newest of a failed run stays, since a retry resumes
    from it. The caller deletes the files after the commit.
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
    expired: dict[str, list[Checkpoint]] = {}
    trained: dict[str, Job] = {}
    for checkpoint, job in session.exec(statement):
        expired.setdefault(checkpoint.run_id, []).append(checkpoint)
        trained[checkpoint.run_id] = job
    unused = []
    for run_id, checkpoints in expired.items():
        if trained[run_id].status == JobStatus.FAILED:
            newest = select(func.max(Checkpoint.step)).where(Checkpoint.run_id == run_id)
            last = session.exec(newest).one()
            checkpoints = [checkpoint for checkpoint in checkpoints if checkpoint.step != last]
        if not checkpoints:
            continue
        for checkpoint in checkpoints:
            session.delete(checkpoint)
        steps = ", ".join(str(checkpoint.step) for checkpoint in checkpoints)
        data = {"message": f"checkpoints older than {days:g} days were removed, of steps {steps}"}
        events.append(session, run_id, trained[run_id].id, [NewEvent("log", data)])
        unused += [UnusedFiles(checkpoint.prefix, checkpoint.step) for checkpoint in checkpoints]
    return unused


# -- garbage ---------------------------------------------------------------------------------------


class FileRow(NamedTuple):
    """A row that names files of the store."""

    label: str
    """Description for users: checkpoint 6 of run_…"""
    keys: tuple[str, ...]
    run_id: str | None
    """None for a dataset, whose row stays if its file is lost: runs were trained on it."""
    table: type[Checkpoint | Artifact | Evaluation | Dataset]
    identity: tuple[Any, ...]
    """Primary key."""


def file_rows(session: Session) -> Iterator[FileRow]:
    """Yield every row that names files; a page of rows is in memory at a time."""
    for row in _pages(
        session, (Checkpoint.run_id, Checkpoint.step), Checkpoint.prefix, Checkpoint.files
    ):
        run_id, step, prefix, files = row
        yield _checkpoint_row(run_id, step, prefix, files)
    for run_id, artifacts in groupby(
        _pages(session, (Artifact.run_id, Artifact.path), Artifact.key), lambda row: row[0]
    ):
        models: dict[str, list[str]] = {}
        for _, path, key in artifacts:
            if (model := merged_folder(path)) is not None:
                models.setdefault(model, []).append(key)
            else:
                yield _artifact_row(run_id, path, key)
        for model, keys in models.items():
            yield _model_row(run_id, model, keys)
    for evaluation_id, run_id, key in _pages(
        session, (Evaluation.id,), Evaluation.run_id, Evaluation.key
    ):
        yield _evaluation_row(evaluation_id, run_id, key)
    for dataset_id, key, deleted_at in _pages(
        session, (Dataset.id,), Dataset.key, Dataset.deleted_at
    ):
        if deleted_at is None:
            yield FileRow(f"dataset {dataset_id}", (key,), None, Dataset, (dataset_id,))


def _pages(session: Session, primary_key: tuple[Any, ...], *columns: Any) -> Iterator[Any]:
    """Yield these columns of every row of a table in the order of its primary key."""
    statement = select(*primary_key, *columns).order_by(*primary_key).limit(_BATCH_SIZE)
    last: tuple[Any, ...] | None = None
    while True:
        page = statement if last is None else statement.where(tuple_(*primary_key) > last)
        rows = session.exec(page).all()
        yield from rows
        if len(rows) < _BATCH_SIZE:
            return
        last = tuple(rows[-1])[: len(primary_key)]


def _checkpoint_row(run_id: str, step: int, prefix: str, files: list[dict[str, Any]]) -> FileRow:
    keys = tuple(f"{prefix}/{file['path']}" for file in files)
    return FileRow(f"checkpoint {step} of {run_id}", keys, run_id, Checkpoint, (run_id, step))


def _artifact_row(run_id: str, path: str, key: str) -> FileRow:
    return FileRow(f"{path} of {run_id}", (key,), run_id, Artifact, (run_id, path))


def _model_row(run_id: str, model: str, keys: list[str]) -> FileRow:
    """Return the row of a merged model, which is all of its files."""
    label = f"{model.rstrip('/')} of {run_id}"
    return FileRow(label, tuple(keys), run_id, Artifact, (run_id, model))


def _evaluation_row(evaluation_id: str, run_id: str, key: str) -> FileRow:
    label = f"predictions of {evaluation_id} of {run_id}"
    return FileRow(label, (key,), run_id, Evaluation, (evaluation_id,))


def _current(session: Session, row: FileRow) -> FileRow | None:
    """Return what the row of a run names now; None if it is gone."""
    if row.table is Artifact and merged_folder(row.identity[1]) is not None:
        run_id, model = row.identity
        of_model = col(Artifact.path).startswith(model, autoescape=True)
        statement = select(Artifact.key).where(Artifact.run_id == run_id, of_model)
        keys = list(session.exec(statement.order_by(col(Artifact.path))))
        return _model_row(run_id, model, keys) if keys else None
    match session.get(row.table, row.identity):
        case Checkpoint() as checkpoint:
            return _checkpoint_row(
                checkpoint.run_id, checkpoint.step, checkpoint.prefix, checkpoint.files
            )
        case Artifact() as artifact:
            return _artifact_row(artifact.run_id, artifact.path, artifact.key)
        case Evaluation() as evaluation:
            return _evaluation_row(evaluation.id, evaluation.run_id, evaluation.key)
        case _:
            return None


def running_jobs(session: Session) -> tuple[set[str], set[str]]:
    """Return the runs of the running jobs, and the prefixes of the files that they store."""
    running = list(session.exec(select(Job).where(Job.status == JobStatus.RUNNING)))
    prefixes = {f"{program_events.prefix(job.run_id, job.id, job.token)}/" for job in running}
    return {job.run_id for job in running}, prefixes


def delete_rows(session: Session, rows: Iterable[FileRow]) -> int:
    """Delete those of `rows` that still name the same files; return their number."""
    deleted = 0
    for row in rows:
        if row.run_id is None or _current(session, row) != row:
            continue
        if row.table is Artifact and merged_folder(row.identity[1]) is not None:
            run_id, model = row.identity
            of_model = col(Artifact.path).startswith(model, autoescape=True)
            session.execute(delete(Artifact).where(col(Artifact.run_id) == run_id, of_model))
        else:
            session.delete(session.get_one(row.table, row.identity))
        deleted += 1
    return deleted
