"""Queries on evaluations: those of a run's train job and requested ones, in any state."""

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


class StoredEvaluation(NamedTuple):
    """An evaluation: `row` with its predictions, `task` with its request, or both."""

    job: Job
    row: Evaluation | None
    task: EvaluationTask | None
    """None for an evaluation by the run's train job."""

    @property
    def id(self) -> str:
        return EVALUATE.result_id(self.job.id) if self.row is None else self.row.id

    @property
    def is_superseded(self) -> bool:
        """True if it succeeded, and the run was rewound past the weights that it scored."""
        return self.row is None and self.job.status == JobStatus.SUCCEEDED


def task_of(job: Job) -> EvaluationTask | None:
    """Return the parameters of an evaluation job; None for a job of another kind."""
    return task if isinstance(task := jobs.task_of(job), EvaluationTask) else None


def find(session: Session, run_id: str, evaluation: str) -> StoredEvaluation:
    """Raises NotFound."""
    row = session.get(Evaluation, evaluation)
    job = session.get(Job, EVALUATE.job_id(evaluation) if row is None else row.job_id)
    if job is None or job.run_id != run_id or (row is None and job.kind != EVALUATE.name):
        raise NotFound(f"run {run_id} has no evaluation {evaluation!r}")
    return StoredEvaluation(job, row, task_of(job))


def all_of(session: Session, run_id: str) -> list[StoredEvaluation]:
    """Return them in the order in which they were requested, or recorded by the run."""
    recorded = session.exec(
        select(Evaluation, Job)
        .join(Job, col(Job.id) == col(Evaluation.job_id))
        .where(Evaluation.run_id == run_id)
    )
    evaluations = [StoredEvaluation(job, row, task_of(job)) for row, job in recorded]
    recorded_jobs = {evaluation.job.id for evaluation in evaluations}
    requested = session.exec(select(Job).where(Job.run_id == run_id, Job.kind == EVALUATE.name))
    evaluations += [
        StoredEvaluation(job, None, task_of(job))
        for job in requested
        if job.id not in recorded_jobs
    ]
    return sorted(evaluations, key=lambda evaluation: evaluation.id)


def page(
    session: Session, run_id: str, *, limit: int, after: str | None
) -> tuple[list[StoredEvaluation], bool]:
    """Return those older than the evaluation `after`, newest first, and True if there are more.

    A run has some dozens: all are read, since their ids come from two tables.
    """
    evaluations = [
        evaluation
        for evaluation in reversed(all_of(session, run_id))
        if after is None or evaluation.id < after
    ]
    return evaluations[:limit], len(evaluations) > limit


def predictions(session: Session, run_id: str, evaluation: str) -> Evaluation:
    """Return the row of an evaluation that has predictions. Raises NotFound, Conflict."""
    stored = find(session, run_id, evaluation)
    if stored.row is not None:
        return stored.row
    status = JobStatus(stored.job.status)
    if stored.is_superseded:
        why = "scored weights past which the run was rewound; request a new one"
    elif status in RESTING:
        why = f"{status} before it had predictions"
    else:
        why = f"is {status}; its predictions come at its end"
    raise Conflict(f"the evaluation {evaluation} {why}")


def adapter_step(session: Session, run: Run, job: Job) -> int:
    """Return the optimizer step of the weights in the run's adapter, which `job` trained.

    It comes from the run's own evaluations; without any, from the choice of the final weights.
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
    """Return the files of the adapter or merged model of `task`; none for the base model.

    Raises NotFound if it is gone.
    """
    if task.target is None or task.target == "base":
        return []
    if task.target == "merged":
        return _merged_files(session, run_id, task.merge)
    if task.target == "adapter":
        rows = [session.get(Artifact, (run_id, name)) for name in ADAPTER_FILES]
        files = [Weights(row.path, row.key, row.size, row.sha256) for row in rows if row]
        if len(files) < len(ADAPTER_FILES):
            raise NotFound("the run's adapter was deleted")
        return files
    checkpoint = session.get(Checkpoint, (run_id, task.step))
    if checkpoint is None:
        raise NotFound(f"the checkpoint of step {task.step} was deleted")
    return [
        Weights(file["path"], f"{checkpoint.prefix}/{file['path']}", file["size"], file["sha256"])
        for file in checkpoint.files
        if file["path"] in ADAPTER_FILES
    ]


def _merged_files(session: Session, run_id: str, name: str | None) -> list[Weights]:
    assert name is not None
    merge = merges.find(session, run_id, name)
    if not merge.is_published:
        raise NotFound(f"the model of the merge {merge.id} was deleted")
    start = len(merged_path(merge.id))
    return [Weights(row.path[start:], row.key, row.size, row.sha256) for row in merge.files]
