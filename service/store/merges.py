"""Queries on merges, in whatever state, and on the files of those that are published."""

from typing import NamedTuple

from sqlmodel import Session, col, select

from service.domain.errors import Conflict, NotFound
from service.domain.evaluation import EvaluationTask
from service.domain.merge import MergeTask, job_of, merge_id, merged_path
from service.domain.prediction import PredictionTask
from service.domain.states import RESTING, JobKind, JobStatus
from service.store.tables import Artifact, Job


class FoundMerge(NamedTuple):
    """A merge. Its files are all there or none is."""

    job: Job
    task: MergeTask
    files: list[Artifact]
    """By path; none before the merged model is complete."""

    @property
    def id(self) -> str:
        return merge_id(self.job.id)

    @property
    def is_published(self) -> bool:
        return self.job.status == JobStatus.SUCCEEDED and bool(self.files)

    @property
    def is_superseded(self) -> bool:
        """Whether it was made, and the run went back past the weights that were merged."""
        return self.job.status == JobStatus.SUCCEEDED and not self.files


def task_of(job: Job) -> MergeTask | None:
    """What a merge job is to do; None for a job of another kind."""
    return MergeTask.model_validate(job.params) if job.kind == JobKind.MERGE else None


def files_of(session: Session, job: Job) -> list[Artifact]:
    """The files of the model that a merge job made; its log is none of them."""
    statement = select(Artifact).where(
        Artifact.run_id == job.run_id,
        Artifact.job_id == job.id,
        col(Artifact.path).startswith(merged_path(merge_id(job.id)), autoescape=True),
    )
    return list(session.exec(statement.order_by(col(Artifact.path))))


def all_of(session: Session, run_id: str) -> list[FoundMerge]:
    """The newest first; none that is deleted."""
    statement = select(Job).where(
        Job.run_id == run_id, Job.kind == JobKind.MERGE, col(Job.deleted_at).is_(None)
    )
    jobs = session.exec(statement.order_by(col(Job.id).desc()))
    return [_found(session, job) for job in list(jobs)]


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
    job = session.get(Job, job_of(merge))
    if job is None or job.run_id != run_id or job.kind != JobKind.MERGE or job.deleted_at:
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


def weights_of(session: Session, job: Job) -> tuple[str, int | None]:
    """Which of the run's weights a job other than the training is about: adapter or checkpoint and
    the step, or base. A merged model stands for what was merged.
    """
    if job.kind == JobKind.MERGE:
        task = task_of(job)
        assert task is not None
        return task.target, task.step
    order: EvaluationTask | PredictionTask
    if job.kind == JobKind.PREDICT:
        order = PredictionTask.model_validate(job.params)
    else:
        order = EvaluationTask.model_validate(job.params)
    if order.merge is not None:
        return weights_of(session, session.get_one(Job, job_of(order.merge)))
    return order.target, order.step


def newest_published(session: Session, run_id: str) -> FoundMerge:
    """The newest merge whose model is there. Raises NotFound, Conflict where there is none."""
    there = (one for one in all_of(session, run_id) if one.is_published)
    return next(there, None) or published(session, run_id)
