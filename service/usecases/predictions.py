"""Use cases on predictions of texts: ask for them as a job of its own, read them."""

from sqlmodel import Session

from service.artifacts import DamagedFile, StoredFile
from service.context import Context
from service.datasets.stats import DatasetStats
from service.domain.errors import Conflict, InvalidRequest, NotFound
from service.domain.job_kinds import PREDICT
from service.domain.prediction import (
    Prediction,
    PredictionRequest,
    PredictionTask,
    Scores,
    apply_threshold,
)
from service.domain.spec import RunSpec
from service.domain.states import JobStatus
from service.store import job_control, jobs, predictions
from service.store import runs as rows
from service.store.idempotency import IdempotencyKey
from service.store.predictions import StoredPrediction
from service.store.tables import Dataset, Job, Run
from service.usecases import job_submission
from service.usecases.evaluations import template_for, weights_for
from service.usecases.job_submission import Order
from service.usecases.reports import build


def submit(
    context: Context,
    run_id: str,
    asked: PredictionRequest,
    key: IdempotencyKey | None = None,
    *,
    by: str | None = None,
) -> tuple[StoredPrediction, bool]:
    """Store the queued job, then send a queue message. `by`: who asks.

    Returns the predictions to be, and whether they were made now (False: the key was used
    before). Raises NotFound, InvalidRequest, and Conflict where the run has nothing to predict
    with.
    """
    with context.database.read() as session:
        run, _ = rows.get_run(session, run_id)
    threshold = _threshold(context, run, asked)

    def create(session: Session, run: Run, trained: Job) -> Order:
        task = resolve(session, run, trained, asked, threshold)
        params = task.model_dump(mode="json")
        job = jobs.create(session, run.id, PREDICT, by=by, params=params)
        return Order(PREDICT.result_id(job.id), job)

    return job_submission.submit(context, run_id, key, predictions.find, create)


def cancel(
    context: Context, run_id: str, prediction: str, *, by: str | None = None
) -> StoredPrediction:
    """Cancel waiting ones at once; those under way stop soon. Raises NotFound, Conflict."""
    with context.database.write() as session:
        rows.get_run(session, run_id)
        job_control.cancel(session, predictions.find(session, run_id, prediction).job, by)
    with context.database.read() as session:
        return predictions.find(session, run_id, prediction)


def resolve(
    session: Session, run: Run, trained: Job, asked: PredictionRequest, threshold: float | None
) -> PredictionTask:
    """What exactly is to be scored. Raises InvalidRequest, Conflict."""
    spec = RunSpec.model_validate(run.spec)
    own = DatasetStats.model_validate(session.get_one(Dataset, run.dataset_id).stats)
    labels = sorted(own.splits["train"].labels)
    if not labels:
        raise Conflict("the run's training rows have no labels, so there is nothing to predict")
    instead = ("name a checkpoint, or wait for it", "wait for its adapter")
    step, merge = weights_for(session, run, trained, asked.target, asked.step, instead)
    assert step is not None
    return PredictionTask(
        target=asked.target,
        step=step,
        merge=merge,
        template=template_for(asked.template, spec.template, own.kind, "text", labels),
        labels=labels,
        positive_label=spec.fairness.positive_label,
        threshold=threshold,
        texts=asked.texts,
    )


def _threshold(context: Context, run: Run, asked: PredictionRequest) -> float | None:
    """Null: argmax. Raises InvalidRequest where the run's own is to be used and cannot be."""
    spec = RunSpec.model_validate(run.spec)
    rule = asked.threshold if asked.threshold is not None else spec.evaluation.threshold
    if rule == "argmax":
        return None
    if rule != "fitted":
        return float(rule)
    if asked.target == "checkpoint" or asked.template not in (None, spec.template):
        what = "another template" if asked.target != "checkpoint" else "a checkpoint"
        raise InvalidRequest.at(
            "/threshold",
            f"the run's own was fitted to its adapter under {spec.template}, and this is of "
            f"{what}: name a number from 0 to 1, or argmax",
        )
    try:
        found = build.certified(context, run.id).report.thresholds
    except Conflict as error:
        raise InvalidRequest.at(
            "/threshold",
            f"the run's own is fitted, and only its report has it ({error.detail}): name a number "
            "from 0 to 1, or argmax",
        ) from error
    fitted = next((one.threshold for one in found if one.rule == "fitted"), None)
    if fitted is None:
        raise InvalidRequest.at(
            "/threshold", "none could be fitted for the run: name a number from 0 to 1, or argmax"
        )
    return fitted


def read(context: Context, found: StoredPrediction) -> list[Prediction] | None:
    """What the model makes of each text, in their order; None before it is known.

    Raises Conflict where the scores are not what was stored, or are gone.
    """
    if found.job.status != JobStatus.SUCCEEDED:
        return None
    if found.file is None:
        raise Conflict(f"the scores of {found.id} are gone; ask for the predictions again")
    expected = StoredFile(found.file.size, found.file.sha256)
    try:
        content = b"".join(context.store.verified(found.file.key, expected))
    except (NotFound, DamagedFile) as error:
        raise Conflict(
            f"the scores of {found.id} are not what was stored; ask for the predictions again"
        ) from error
    return apply_threshold(found.task, Scores.model_validate_json(content))
