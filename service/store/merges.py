"""Queries on merges, in any state, and on the files of published ones."""

from typing import NamedTuple

from sqlmodel import Session, col, select
from sqlmodel.sql.expression import SelectOfScalar

from service.domain.errors import Conflict, NotFound
from service.domain.job_kinds import MERGE
from service.domain.merge import MergeTask, merged_path
from service.domain.states import RESTING, JobStatus
from service.store import jobs
from service.store.tables import Artifact, Job


class StoredMerge(NamedTuple):
    """A merge. All of its files are stored, or none."""

    job: Job
    task: MergeTask
    files: list[Artifact]
    """Sorted by path; empty until the merged model is complete."""

    @property
    def id(self) -> str:
        return MERGE.result_id(self.job.id)

    @property
    def is_published(self) -> bool:
        return self.job.status == JobStatus.SUCCEEDED and bool(self.files)

    @property
    def is_superseded(self) -> bool:
        """True if it succeeded, and the run was rewound past the merged weights."""
        return self.job.status == JobStatus.SUCCEEDED and not self.files


def task_of(job: Job) -> MergeTask | None:
    """Return the parameters of a merge job; None for a job of another kind."""
    return task if isinstance(task := jobs.task_of(job), MergeTask) else None


def files_of(session: Session, job: Job) -> list[Artifact]:
    """Return the files of a merge job's model, without its log."""
    statement = select(Artifact).where(
        Artifact.run_id == job.run_id,
        Artifact.job_id == job.id,
        col(Artifact.path).startswith(merged_path(MERGE.result_id(job.id)), autoescape=True),
    )
    return list(session.exec(statement.order_by(col(Artifact.path))))


def jobs_of(run_id: str) -> SelectOfScalar[Job]:
    """Select the merge jobs of a run, deleted ones included."""
    return select(Job).where(Job.run_id == run_id, Job.kind == MERGE.name)


def all_of(session: Session, run_id: str) -> list[StoredMerge]:
    """Return the merges that are not deleted, newest first."""
    statement = jobs_of(run_id).where(col(Job.deleted_at).is_(None))
    merge_jobs = session.exec(statement.order_by(col(Job.id).desc()))
    return [_stored(session, job) for job in list(merge_jobs)]


def _stored(session: Session, job: Job) -> StoredMerge:
    task = task_of(job)
    assert task is not None
    return StoredMerge(job, task, files_of(session, job))


def find(session: Session, run_id: str, merge: str | None = None) -> StoredMerge:
    """Return the merge of that id; None: the newest. Raises NotFound."""
    if merge is None:
        newest = next(iter(all_of(session, run_id)), None)
        if newest is None:
            raise not_found(run_id, None)
        return newest
    job = session.get(Job, MERGE.job_id(merge))
    if job is None or job.run_id != run_id or job.kind != MERGE.name or job.deleted_at:
        raise not_found(run_id, merge)
    return _stored(session, job)


def not_found(run_id: str, merge: str | None) -> NotFound:
    if merge is None:
        return NotFound(f"run {run_id} has no merge; POST /v1/runs/{run_id}/merged makes one")
    return NotFound(f"run {run_id} has no merge {merge!r}")


def same(session: Session, run_id: str, task: MergeTask) -> StoredMerge | None:
    """Return a published or unfinished merge of the same task; None if a new one is needed.

    Merges that failed, were cancelled or are superseded do not count.
    """
    for merge in all_of(session, run_id):
        if merge.task == task and (merge.is_published or merge.job.status not in RESTING):
            return merge
    return None


def published(session: Session, run_id: str, merge: str | None = None) -> StoredMerge:
    """Return a published merge, by default the newest merge. Raises NotFound, Conflict."""
    stored = find(session, run_id, merge)
    if stored.is_published:
        return stored
    status = JobStatus(stored.job.status)
    if stored.is_superseded:
        why = "merged weights past which the run was rewound; request a new one"
    elif status in RESTING:
        why = f"{status} before it had a model"
    else:
        why = f"is {status}; its model comes at its end"
    others = [earlier.id for earlier in all_of(session, run_id) if earlier.is_published]
    if merge is None and others:
        why += f" (an earlier one has a model: merge_id={others[0]})"
    raise Conflict(f"the merge {stored.id} {why}")


def weights_of(session: Session, job: Job) -> tuple[str | None, int | None]:
    """Return the target and step of the run's weights that a job other than the training uses;
    for a merged model, those of the weights that were merged.
    """
    task = jobs.task_of(job)
    if task is None:
        return None, None
    if task.merge is not None:
        return weights_of(session, session.get_one(Job, MERGE.job_id(task.merge)))
    return task.target, task.step


def newest_published(session: Session, run_id: str) -> StoredMerge:
    """Return the newest published merge. Raises NotFound, Conflict if there is none."""
    published_merges = (merge for merge in all_of(session, run_id) if merge.is_published)
    return next(published_merges, None) or published(session, run_id)
