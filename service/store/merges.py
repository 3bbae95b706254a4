"""Queries on merges, in whatever state, and on the files of those that are published."""

from typing import NamedTuple

from sqlmodel import Session, col, select
from sqlmodel.sql.expression import SelectOfScalar

from service.domain.errors import Conflict, NotFound
from service.domain.job_kinds import MERGE
from service.domain.merge import MergeTask, merged_path
from service.domain.states import RESTING, JobStatus
from service.store import jobs
from service.store.tables import Artifact, Job


class FoundMerge(NamedTuple):
    """A merge. Its files are all there or none is."""

    job: Job
    task: MergeTask
    files: list[Artifact]
    """By path; none before the merged model is complete."""

    @property
    def id(self) -> str:
        return MERGE.result_id(self.job.id)

    @property
    def is_published(self) -> bool:
        return self.job.status == JobStatus.SUCCEEDED and bool(self.files)

    @property
    def is_superseded(self) -> bool:
        """Whether it was made, and the run went back past the weights that were merged."""
        return self.job.status == JobStatus.SUCCEEDED and not self.files


def task_of(job: Job) -> MergeTask | None:
    """Return the parameters of a merge job; None for a job of another kind."""
    return task if isinstance(task := jobs.task_of(job), MergeTask) else None


def files_of(session: Session, job: Job) -> list[Artifact]:
    """The files of the model that a merge job made; its log is none of them."""
    statement = select(Artifact).where(
        Artifact.run_id == job.run_id,
        Artifact.job_id == job.id,
        col(Artifact.path).startswith(merged_path(MERGE.result_id(job.id)), autoescape=True),
    )
    return list(session.exec(statement.order_by(col(Artifact.path))))


def jobs_of(run_id: str) -> SelectOfScalar[Job]:
    """Select the merge jobs of a run, deleted ones included."""
    return select(Job).where(Job.run_id == run_id, Job.kind == MERGE.name)


def all_of(session: Session, run_id: str) -> list[FoundMerge]:
    """The newest first; none that is deleted."""
    statement = jobs_of(run_id).where(col(Job.deleted_at).is_(None))
    merge_jobs = session.exec(statement.order_by(col(Job.id).desc()))
    return [_found(session, job) for job in list(merge_jobs)]


def _found(session: Session, job: Job) -> FoundMerge:
    task = task_of(job)
    assert task is not None
    return FoundMerge(job, task, files_of(session, job))


def find(session: Session, run_id: str, merge: str | None = None) -> FoundMerge:
    """The merge of that id; None: the newest. Raises NotFound."""
    if merge is None:
        newest = next(iter(all_of(session, run_id)), None)
        if newest is None:
            raise not_found(run_id, None)
        return newest
    job = session.get(Job, MERGE.job_id(merge))
    if job is None or job.run_id != run_id or job.kind != MERGE.name or job.deleted_at:
        raise not_found(run_id, merge)
    return _found(session, job)


def not_found(run_id: str, merge: str | None) -> NotFound:
    if merge is None:
        return NotFound(f"run {run_id} has no merge; POST /v1/runs/{run_id}/merged makes one")
    return NotFound(f"run {run_id} has no merge {merge!r}")


def same(session: Session, run_id: str, task: MergeTask) -> FoundMerge | None:
    """The merge that makes, or has made, what `task` would; None where a new one is needed.

    One that failed, was cancelled or is superseded makes it no more.
    """
    for one in all_of(session, run_id):
        if one.task == task and (one.is_published or one.job.status not in RESTING):
            return one
    return None


def published(session: Session, run_id: str, merge: str | None = None) -> FoundMerge:
    """A merge whose model is there, by default the newest merge. Raises NotFound, Conflict."""
    found = find(session, run_id, merge)
    if found.is_published:
        return found
    status = JobStatus(found.job.status)
    if found.is_superseded:
        why = "was of weights that the run no longer has, having gone back past them: ask anew"
    elif status in RESTING:
        why = f"{status} before it had a model"
    else:
        why = f"is {status}; its model comes at its end"
    earlier = [one.id for one in all_of(session, run_id) if one.is_published]
    if merge is None and earlier:
        why += f" (an earlier one has a model: merge_id={earlier[0]})"
    raise Conflict(f"the merge {found.id} {why}")


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


def newest_published(session: Session, run_id: str) -> FoundMerge:
    """The newest merge whose model is there. Raises NotFound, Conflict where there is none."""
    there = (one for one in all_of(session, run_id) if one.is_published)
    return next(there, None) or published(session, run_id)
