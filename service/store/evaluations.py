"""Queries on evaluations: those of a run's own job, and those asked for, in whatever state."""

from typing import NamedTuple

from sqlmodel import Session, col, select

from service.domain.errors import Conflict, NotFound
from service.domain.evaluation import EvaluationTask
from service.domain.job import ADAPTER_FILES
from service.domain.job_kinds import EVALUATE
from service.domain.merge import merged_path
from service.domain.states import RESTING, JobStatus
from service.domain.task import Task
from service.store import jobs, merges
from service.store.tables import Artifact, Checkpoint, Evaluation, Job, Run


class Found(NamedTuple):
    """An evaluation. At least one of `row`, its predictions, and `task`, its order, is there."""

    job: Job
    row: Evaluation | None
    task: EvaluationTask | None
    """None for one that the run's train job made."""

    @property
    def id(self) -> str:
        return EVALUATE.result_id(self.job.id) if self.row is None else self.row.id

    @property
    def is_superseded(self) -> bool:
        """Whether it was made, and the run went back past the weights that it scored."""
        return self.row is None and self.job.status == JobStatus.SUCCEEDED


def task_of(job: Job) -> EvaluationTask | None:
    """Return the parameters of an evaluation job; None for a job of another kind."""
    return task if isinstance(task := jobs.task_of(job), EvaluationTask) else None


def find(session: Session, run_id: str, evaluation: str) -> Found:
    """Raises NotFound."""
    row = session.get(Evaluation, evaluation)
    job = session.get(Job, EVALUATE.job_id(evaluation) if row is None else row.job_id)
    if job is None or job.run_id != run_id or (row is None and job.kind != EVALUATE.name):
        raise NotFound(f"run {run_id} has no evaluation {evaluation!r}")
    return Found(job, row, task_of(job))


def all_of(session: Session, run_id: str) -> list[Found]:
    """In the order in which they were asked for, or made by the run."""
    made = session.exec(
        select(Evaluation, Job)
        .join(Job, col(Job.id) == col(Evaluation.job_id))
        .where(Evaluation.run_id == run_id)
    )
    found = [Found(job, row, task_of(job)) for row, job in made]
    known = {one.job.id for one in found}
    asked = session.exec(select(Job).where(Job.run_id == run_id, Job.kind == EVALUATE.name))
    found += [Found(job, None, task_of(job)) for job in asked if job.id not in known]
    return sorted(found, key=lambda one: one.id)


def page(
    session: Session, run_id: str, *, limit: int, after: str | None
) -> tuple[list[Found], bool]:
    """Newest first, those older than the evaluation `after`; and whether there are more.

    A run has some dozens: they are read whole, since their ids come from two tables.
    """
    found = [one for one in reversed(all_of(session, run_id)) if after is None or one.id < after]
    return found[:limit], len(found) > limit


def predictions(session: Session, run_id: str, evaluation: str) -> Evaluation:
    """The row of an evaluation whose predictions are there. Raises NotFound, and Conflict else."""
    found = find(session, run_id, evaluation)
    if found.row is not None:
        return found.row
    status = JobStatus(found.job.status)
    if found.is_superseded:
        why = "was of weights that the run no longer has, having gone back past them: ask anew"
    elif status in RESTING:
        why = f"{status} before it had predictions"
    else:
        why = f"is {status}; its predictions come at its end"
    raise Conflict(f"the evaluation {evaluation} {why}")


def adapter_step(session: Session, run: Run, job: Job) -> int:
    """The optimizer step whose weights are in the run's adapter, which is there. `job` trained it.

    As the run's own evaluations say; where it has none, as the loop chooses the final weights.
    """
    own = select(Evaluation.step).where(
        Evaluation.job_id == job.id,
        Evaluation.target == "adapter",
        col(Evaluation.step).is_not(None),
    )
    if (step := session.exec(own.order_by(col(Evaluation.id).desc())).first()) is not None:
        return step
    best = select(Checkpoint.step).where(Checkpoint.run_id == run.id, col(Checkpoint.is_best))
    chosen = session.exec(best).first() if run.spec["training"]["load_best_model_at_end"] else None
    return job.step if chosen is None else chosen


class Weights(NamedTuple):
    """A file of an adapter, or of a merged model, in the artifact store."""

    name: str
    key: str
    size: int
    sha256: str


def weight_files(session: Session, run_id: str, task: Task) -> list[Weights]:
    """The adapter or merged model that `task` is about; none for the base model or none at all.

    Raises NotFound if it is gone.
    """
    if task.target is None or task.target == "base":
        return []
    if task.target == "merged":
        return _merged_files(session, run_id, task.merge)
    if task.target == "adapter":
        rows = [session.get(Artifact, (run_id, name)) for name in ADAPTER_FILES]
        found = [Weights(row.path, row.key, row.size, row.sha256) for row in rows if row]
        if len(found) < len(ADAPTER_FILES):
            raise NotFound("the run has no adapter any more")
        return found
    checkpoint = session.get(Checkpoint, (run_id, task.step))
    if checkpoint is None:
        raise NotFound(f"the checkpoint of step {task.step} is not kept any more")
    return [
        Weights(file["path"], f"{checkpoint.prefix}/{file['path']}", file["size"], file["sha256"])
        for file in checkpoint.files
        if file["path"] in ADAPTER_FILES
    ]


def _merged_files(session: Session, run_id: str, name: str | None) -> list[Weights]:
    assert name is not None
    merge = merges.find(session, run_id, name)
    if not merge.is_published:
        raise NotFound(f"the model of the merge {merge.id} is not kept any more")
    start = len(merged_path(merge.id))
    return [Weights(row.path[start:], row.key, row.size, row.sha256) for row in merge.files]
