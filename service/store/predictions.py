"""Queries on predictions of texts, in any state."""

from typing import Any, NamedTuple

from sqlalchemy import select
from sqlalchemy.orm import defer
from sqlmodel import Session, col

from service.domain.errors import NotFound
from service.domain.job_kinds import PREDICT
from service.domain.prediction import (
    PREDICTIONS_FILE,
    PredictionOrder,
    PredictionTask,
)
from service.store import jobs
from service.store.tables import Artifact, Job


class StoredPrediction(NamedTuple):
    job: Job
    task: PredictionTask
    file: Artifact | None
    """File of the scores; None until it is stored."""

    @property
    def id(self) -> str:
        return PREDICT.result_id(self.job.id)


def task_of(job: Job) -> PredictionTask | None:
    """Return the parameters of a prediction job; None for a job of another kind."""
    return task if isinstance(task := jobs.task_of(job), PredictionTask) else None


def find(session: Session, run_id: str, prediction: str) -> StoredPrediction:
    """Raises NotFound."""
    job = session.get(Job, PREDICT.job_id(prediction))
    if job is None or job.run_id != run_id or job.kind != PREDICT.name:
        raise NotFound(f"run {run_id} has no predictions {prediction!r}")
    task = task_of(job)
    assert task is not None
    return StoredPrediction(
        job, task, session.get(Artifact, (run_id, PREDICT.path(job.id, PREDICTIONS_FILE)))
    )


class ListedPrediction(NamedTuple):
    job: Job
    """Loaded without its params, which hold the texts."""
    order: PredictionOrder

    @property
    def id(self) -> str:
        return PREDICT.result_id(self.job.id)


def page(
    session: Session, run_id: str, *, limit: int, after: str | None
) -> tuple[list[ListedPrediction], bool]:
    """Return predictions older than `after`, newest first, and True if there are more."""
    params = col(Job.params)
    order = {
        "target": params["target"].as_string(),
        "step": params["step"].as_integer(),
        "merge": params["merge"].as_string(),
        "template": params["template"].as_string(),
        "positive_label": params["positive_label"].as_string(),
        "threshold": params["threshold"].as_float(),
    }
    whole: Any = Job.params
    statement = (
        select(Job, *order.values())
        .where(col(Job.run_id) == run_id, col(Job.kind) == PREDICT.name)
        .options(defer(whole, raiseload=True))
        .order_by(col(Job.id).desc())
    )
    if after is not None:
        statement = statement.where(col(Job.id) < PREDICT.job_id(after))
    predictions = [
        ListedPrediction(job, PredictionOrder.model_validate(dict(zip(order, values, strict=True))))
        for job, *values in session.execute(statement.limit(limit + 1))
    ]
    return predictions[:limit], len(predictions) > limit
