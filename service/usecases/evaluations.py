"""Use cases: request an evaluation as a job of its own, cancel it."""

from collections.abc import Sequence

from sqlmodel import Session

from service.context import Context
from service.datasets.stats import DatasetStats
from service.datasets.templates import builtin_templates
from service.domain.errors import Conflict, InvalidRequest, NotFound
from service.domain.evaluation import EvaluationRequest, EvaluationTask
from service.domain.job import ADAPTER_FILES
from service.domain.job_kinds import EVALUATE
from service.domain.spec import RunSpec
from service.domain.states import RESTING
from service.domain.task import Target
from service.store import datasets as dataset_store
from service.store import evaluations, job_control, jobs, merges
from service.store import runs as rows
from service.store.evaluations import StoredEvaluation
from service.store.idempotency import IdempotencyKey
from service.store.tables import Job, Run
from service.usecases import job_submission
from service.usecases.job_submission import ResultHandle
from service.usecases.learned import Learned, learned
from service.usecases.template_checks import check_template_name, check_template_words


def submit(
    context: Context,
    run_id: str,
    request: EvaluationRequest,
    key: IdempotencyKey | None = None,
    *,
    by: str | None = None,
) -> tuple[StoredEvaluation, bool]:
    """Store the evaluation's queued job, then send a queue message.

    Returns the evaluation, and True if it is new (False: the key was used before). `by` is the name
    of the caller's API key. The run's own state never changes. Raises NotFound, InvalidRequest, and
    Conflict if the run lacks the weights to score.
    """

    def create(session: Session, run: Run, trained: Job) -> ResultHandle:
        task = resolve(session, run, trained, request)
        try:
            dataset_store.hold(session, task.dataset_id)
        except NotFound as error:
            raise InvalidRequest.at("/dataset_id", error.detail) from error
        params = task.model_dump(mode="json")
        job = jobs.create(session, run.id, EVALUATE, by=by, params=params)
        return ResultHandle(EVALUATE.result_id(job.id), job)

    return job_submission.submit(context, run_id, key, evaluations.find, create)


def cancel(
    context: Context, run_id: str, evaluation: str, *, by: str | None = None
) -> StoredEvaluation:
    """Cancel a waiting evaluation at once, a running one soon. Raises NotFound, Conflict."""
    with context.database.write() as session:
        rows.get_run(session, run_id)
        stored = evaluations.find(session, run_id, evaluation)
        if stored.task is None:
            raise Conflict("this evaluation is part of the run itself; there is nothing to cancel")
        job_control.cancel(session, stored.job, by)
    with context.database.read() as session:
        return evaluations.find(session, run_id, evaluation)


def resolve(session: Session, run: Run, trained: Job, request: EvaluationRequest) -> EvaluationTask:
    """Resolve the request's defaults into a task. Raises InvalidRequest, Conflict."""
    spec = RunSpec.model_validate(run.spec)
    own = learned(session, run)
    labels = own.labels
    if not labels:
        raise Conflict(
            "the run's training rows have no labels, so there are no labels to score; train on "
            "labelled rows"
        )
    stats = own.stats
    if own.imported is not None and not own.imported.has_dataset and request.dataset_id is None:
        raise InvalidRequest.at(
            "/dataset_id", "is required: the run's adapter was imported without a dataset"
        )
    if request.dataset_id is not None:
        try:
            dataset = dataset_store.get_dataset(session, request.dataset_id)
        except NotFound as error:
            raise InvalidRequest.at("/dataset_id", error.detail) from error
        stats = DatasetStats.model_validate(dataset.stats)
    _check_rows(request, stats, own)
    instead = ("evaluate a checkpoint or the base model", "evaluate the base model")
    step, merge = weights_for(session, run, trained, request.target, request.step, instead)
    usual = spec.template
    if request.target == "base":
        usual = spec.evaluation.baseline_template or usual
    return EvaluationTask(
        target=request.target,
        step=step,
        merge=merge,
        dataset_id=request.dataset_id or run.dataset_id,
        split=request.split,
        template=template_for(request.template, usual, own.kind, stats.kind, labels),
        labels=labels,
        max_samples=request.max_samples,
    )


def weights_for(
    session: Session,
    run: Run,
    trained: Job,
    target: Target,
    step: int | None,
    instead: tuple[str, str],
) -> tuple[int | None, str | None]:
    """Return the step of the weights to score, and the id of the merge, if any.

    The weights exist. `instead` are the remedies without an adapter, and without any checkpoint.
    Raises InvalidRequest, Conflict.
    """
    if target != "checkpoint" and step is not None:
        raise InvalidRequest.at(
            "/step", f"applies only to target checkpoint; the target is {target}: omit it"
        )
    match target:
        case "base":
            return None, None
        case "adapter":
            return adapter_step(session, run, trained, instead[0]), None
        case "checkpoint":
            return checkpoint_step(session, run, trained, step, "/step", instead[1]), None
        case "merged":
            try:
                merge = merges.newest_published(session, run.id)
            except NotFound as error:
                raise Conflict(error.detail) from error
            return merge.task.step, merge.id


def adapter_step(session: Session, run: Run, trained: Job, instead: str) -> int:
    """Return the step of the run's adapter. Raises Conflict, with the remedy, if it has none."""
    if any(rows.find_artifact(session, run.id, name) is None for name in ADAPTER_FILES):
        raise Conflict(
            f"the run {_state(trained)} and has no adapter, which is written at its end; {instead}"
        )
    return evaluations.adapter_step(session, run, trained)


def checkpoint_step(
    session: Session, run: Run, trained: Job, step: int | None, pointer: str, instead: str
) -> int:
    """Return `step` if the run has a checkpoint of it.

    Raises Conflict, with the remedy `instead`, if the run has no checkpoint at all, and
    InvalidRequest at `pointer` if it has others.
    """
    steps = [checkpoint.step for checkpoint in rows.checkpoints(session, run.id)]
    if not steps:
        raise Conflict(f"the run {_state(trained)} and has no checkpoint; {instead}")
    if step is None or step not in steps:
        problem = "is required" if step is None else f"there is no checkpoint {step}"
        raise InvalidRequest.at(pointer, f"{problem}; the run has {describe_checkpoints(steps)}")
    return step


def describe_checkpoints(steps: Sequence[int]) -> str:
    if len(steps) == 1:
        return f"a checkpoint of step {steps[0]}"
    return f"checkpoints of steps {', '.join(map(str, steps))}"


def _state(job: Job) -> str:
    return job.status if job.status in RESTING else f"is {job.status}"


def _check_rows(request: EvaluationRequest, stats: DatasetStats, own: Learned) -> None:
    """Check that the split exists and has only labels of the run; rows may lack labels.

    Raises InvalidRequest.
    """
    if request.split not in stats.splits:
        raise InvalidRequest.at(
            "/split", f"the dataset has no split {request.split}; it has {', '.join(stats.splits)}"
        )
    unknown = [label for label in stats.splits[request.split].labels if label not in own.labels]
    if unknown:
        raise InvalidRequest.at(
            "/split" if request.dataset_id is None else "/dataset_id",
            f"rows of the split {request.split} have the label {unknown[0]!r}, which no "
            f"{own.owner}; its labels are {', '.join(own.labels)}: upload the rows with those",
        )


def template_for(
    requested: str | None, default: str, trained_kind: str, scored_kind: str, labels: list[str]
) -> str:
    """Return the name of the template for scoring; for chats, the source of the label words.

    `default` is the run's template. The kinds of the training rows and of the rows to score are
    text or messages. Raises InvalidRequest.
    """
    if requested is None and trained_kind == "messages" and scored_kind == "text":
        raise InvalidRequest.at(
            "/template",
            "the run was trained on chats and has no template for texts; set one of "
            f"{', '.join(builtin_templates())}",
        )
    if requested is not None and scored_kind == "messages":
        raise InvalidRequest.at(
            "/template", "the rows of this dataset are chats with their own prompts; omit it"
        )
    name = default if requested is None else requested
    check_template_name("/template", name)
    if not trained_kind == scored_kind == "messages":
        check_template_words("/template", name, labels)
    return name
