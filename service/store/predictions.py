"""Queries on predictions of texts, in whatever state."""

from typing import NamedTuple

from sqlmodel import Session

from service.domain.errors import NotFound
from service.domain.prediction import (
    PREDICTIONS_FILE,
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
