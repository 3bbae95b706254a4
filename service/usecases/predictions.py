"""Use cases: request predictions of texts as a job of its own, read them, cancel it."""

from sqlmodel import Session

from service.artifacts import DamagedFile, StoredFile
from service.context import Context
from service.datasets.rows import Kind
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
from service.store.tables import Job, Run
from service.usecases import job_submission
from service.usecases.evaluations import template_for, weights_for
from service.usecases.job_submission import ResultHandle
from service.usecases.learned import learned
from service.usecases.reports import build
from service.usecases.template_checks import check_template_name

_OTHER_THRESHOLD = "set a number from 0 to 1, or argmax"


def submit(
    context: Context,
    run_id: str,
    request: PredictionRequest,
    key: IdempotencyKey | None = None,
    *,
    by: str | None = None,
) -> tuple[StoredPrediction, bool]:
    """Store the queued job, then send a queue message.

    Returns the prediction, and True if it is new (False: the key was used before). `by` is the name
    of the caller's API key. Raises NotFound, InvalidRequest, and Conflict if the run has no weights
    to predict with.
    """
    with context.database.read() as session:
        run, _ = rows.get_run(session, run_id)
        kind = learned(session, run).kind
    _check_kind(request, kind)
    if request.template is not None and kind == "text":
        check_template_name("/template", request.template)
    threshold = _threshold(context, run, request)

    def create(session: Session, run: Run, trained: Job) -> ResultHandle:
        task = resolve(session, run, trained, request, threshold)
        params = task.model_dump(mode="json")
        job = jobs.create(session, run.id, PREDICT, by=by, params=params)
        return ResultHandle(PREDICT.result_id(job.id), job)

    return job_submission.submit(context, run_id, key, predictions.find, create)


def cancel(
    context: Context, run_id: str, prediction: str, *, by: str | None = None
) -> StoredPrediction:
    """Cancel a waiting prediction at once, a running one soon. Raises NotFound, Conflict."""
    with context.database.write() as session:
        rows.get_run(session, run_id)
        job_control.cancel(session, predictions.find(session, run_id, prediction).job, by)
    with context.database.read() as session:
        return predictions.find(session, run_id, prediction)


def resolve(
    session: Session, run: Run, trained: Job, request: PredictionRequest, threshold: float | None
) -> PredictionTask:
    """Resolve the request's defaults into a task. Raises InvalidRequest, Conflict."""
    spec = RunSpec.model_validate(run.spec)
    own = learned(session, run)
    labels = own.labels
    if not labels:
        raise Conflict("the run's training rows have no labels, so there is nothing to predict")
    instead = ("use a checkpoint, or wait for the adapter", "wait for its adapter")
    step, merge = weights_for(session, run, trained, request.target, request.step, instead)
    assert step is not None
    return PredictionTask(
        target=request.target,
        step=step,
        merge=merge,
        template=template_for(request.template, spec.template, own.kind, own.kind, labels),
        labels=labels,
        positive_label=spec.fairness.positive_label,
        threshold=threshold,
        texts=request.texts,
        messages=[[turn.model_dump() for turn in chat] for chat in request.messages],
    )


def _check_kind(request: PredictionRequest, trained_on: Kind) -> None:
    """Raise InvalidRequest unless the request has what the run was trained on, and only that."""
    if request.texts and request.messages:
        raise InvalidRequest.at("/messages", "send either texts or messages, not both")
    if trained_on == "text" and not request.texts:
        pointer = "/messages" if request.messages else "/texts"
        raise InvalidRequest.at(pointer, "the run was trained on texts: send texts")
    if trained_on == "messages" and not request.messages:
        raise InvalidRequest.at(
            "/texts" if request.texts else "/messages",
            "the run was trained on chats: send messages, a list of chats, with the system turn "
            "that the training chats have",
        )
    for number, text in enumerate(request.texts):
        if not text.strip():
            raise InvalidRequest.at(f"/texts/{number}", "the text is blank; leave it out")
    for number, chat in enumerate(request.messages):
        if chat[-1].role != "user":
            raise InvalidRequest.at(
                f"/messages/{number}/{len(chat) - 1}/role",
                f"the last turn must be the user's, not the {chat[-1].role}'s: the assistant's "
                "answer is what is scored",
            )
        for index, turn in enumerate(chat):
            if turn.role != "system" and not turn.content.strip():
                raise InvalidRequest.at(
                    f"/messages/{number}/{index}/content", f"the {turn.role}'s turn is empty"
                )


def _threshold(context: Context, run: Run, request: PredictionRequest) -> float | None:
    """Return the threshold to apply, None for argmax.

    Raises InvalidRequest if the run's own threshold is requested and does not apply or exist.
    """
    spec = RunSpec.model_validate(run.spec)
    rule = request.threshold if request.threshold is not None else spec.evaluation.threshold
    if rule == "argmax":
        return None
    if rule != "fitted":
        return float(rule)
    if request.target == "checkpoint" or request.template not in (None, spec.template):
        other = "another template" if request.target != "checkpoint" else "a checkpoint"
        raise InvalidRequest.at(
            "/threshold",
            f"the run's threshold was fitted to its adapter under {spec.template} and does not "
            f"apply to {other}: {_OTHER_THRESHOLD}",
        )
    try:
        thresholds = build.certified(context, run.id).report.thresholds
    except Conflict as error:
        raise InvalidRequest.at(
            "/threshold",
            f"the run's threshold is fitted and stored in its report, which is missing "
            f"({error.detail}): {_OTHER_THRESHOLD}",
        ) from error
    fitted = next((row.threshold for row in thresholds if row.rule == "fitted"), None)
    if fitted is None:
        raise InvalidRequest.at(
            "/threshold", f"no threshold could be fitted for the run: {_OTHER_THRESHOLD}"
        )
    return fitted


def read(context: Context, stored: StoredPrediction) -> list[Prediction] | None:
    """Return the prediction for each text, in their order; None before the job has succeeded.

    Raises Conflict if the stored scores are missing or damaged.
    """
    if stored.job.status != JobStatus.SUCCEEDED:
        return None
    if stored.file is None:
        raise Conflict(f"the scores of {stored.id} are missing; request the predictions again")
    expected = StoredFile(stored.file.size, stored.file.sha256)
    try:
        content = b"".join(context.store.verified(stored.file.key, expected))
    except (NotFound, DamagedFile) as error:
        raise Conflict(
            f"the scores of {stored.id} are damaged; request the predictions again"
        ) from error
    return apply_threshold(stored.task, Scores.model_validate_json(content))
