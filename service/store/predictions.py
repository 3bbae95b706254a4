"""Queries on predictions of texts, in whatever state."""

from typing import Any, NamedTuple

from sqlalchemy import select
from sqlalchemy.orm import defer
from sqlmodel import Session, col

from service.domain.errors import NotFound
from service.domain.prediction import (
    PREDICTIONS_FILE,
    PredictionOrder,
    PredictionTask,
    job_of,
    prediction_id,
)
from service.domain.states import JobKind
from service.store.tables import Artifact, Job


class FoundPrediction(NamedTuple):
    job: Job
    task: PredictionTask
    file: Artifact | None
    """The scores; None before they are there."""

    @property
    def id(self) -> str:
        return prediction_id(self.job.id)


def place_of(prediction: str) -> str:
    """Where the scores lie among the files of the run."""
    return f"predictions/{prediction}/{PREDICTIONS_FILE}"


def task_of(job: Job) -> PredictionTask | None:
    """What a prediction job is to do; None for a job of another kind."""
    return PredictionTask.model_validate(job.params) if job.kind == JobKind.PREDICT else None


def find(session: Session, run_id: str, prediction: str) -> FoundPrediction:
    """Raises NotFound."""
    job = session.get(Job, job_of(prediction))
    if job is None or job.run_id != run_id or job.kind != JobKind.PREDICT:
        raise NotFound(f"run {run_id} has no predictions {prediction!r}")
    task = task_of(job)
    assert task is not None
    return FoundPrediction(job, task, session.get(Artifact, (run_id, place_of(prediction))))


class ListedPrediction(NamedTuple):
    job: Job
    """Without its params, which hold the texts."""
    order: PredictionOrder

    @property
    def id(self) -> str:
        return prediction_id(self.job.id)


def page(
    session: Session, run_id: str, *, limit: int, after: str | None
) -> tuple[list[ListedPrediction], bool]:
    """Newest first, those older than the predictions `after`; and whether there are more."""
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
        .where(col(Job.run_id) == run_id, col(Job.kind) == JobKind.PREDICT)
        .options(defer(whole, raiseload=True))
        .order_by(col(Job.id).desc())
    )
    if after is not None:
        statement = statement.where(col(Job.id) < job_of(after))
    found = [
        ListedPrediction(job, PredictionOrder.model_validate(dict(zip(order, values, strict=True))))
        for job, *values in session.execute(statement.limit(limit + 1))
    ]
    return found[:limit], len(found) > limit
