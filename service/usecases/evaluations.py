"""Use cases on evaluations: ask for one as a job of its own, cancel it."""

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
from service.store.tables import Dataset, Job, Run
from service.usecases import job_submission
from service.usecases.job_submission import Order


def submit(
    context: Context,
    run_id: str,
    asked: EvaluationRequest,
    key: IdempotencyKey | None = None,
    *,
    by: str | None = None,
) -> tuple[StoredEvaluation, bool]:
    """Store the evaluation's queued job, then send a queue message. `by`: who asks.

    Returns the evaluation, and whether it was made now (False: the key was used before). The run
    itself stays as it is, whatever comes of it. Raises NotFound, InvalidRequest, and Conflict where
    the run has nothing of what is to be scored.
    """

    def create(session: Session, run: Run, trained: Job) -> Order:
        params = resolve(session, run, trained, asked).model_dump(mode="json")
        job = jobs.create(session, run.id, EVALUATE, by=by, params=params)
        return Order(EVALUATE.result_id(job.id), job)

    return job_submission.submit(context, run_id, key, evaluations.find, create)


def cancel(
    context: Context, run_id: str, evaluation: str, *, by: str | None = None
) -> StoredEvaluation:
    """Cancel a waiting one at once; a running one stops soon. Raises NotFound, Conflict."""
    with context.database.write() as session:
        rows.get_run(session, run_id)
        found = evaluations.find(session, run_id, evaluation)
        if found.task is None:
            raise Conflict("the run made this evaluation itself; there is nothing to cancel")
        job_control.cancel(session, found.job, by)
    with context.database.read() as session:
        return evaluations.find(session, run_id, evaluation)


def resolve(session: Session, run: Run, trained: Job, asked: EvaluationRequest) -> EvaluationTask:
    """What exactly is to be scored. Raises InvalidRequest, Conflict."""
    spec = RunSpec.model_validate(run.spec)
    learned = session.get_one(Dataset, run.dataset_id)
    own = DatasetStats.model_validate(learned.stats)
    labels = sorted(own.splits["train"].labels)
    if not labels:
        raise Conflict(
            "the run's training rows have no labels, so there are no answers to score; train on "
            "labelled rows"
        )
    stats = own
    if asked.dataset_id is not None:
        try:
            given = dataset_store.get_dataset(session, asked.dataset_id)
        except NotFound as error:
            raise InvalidRequest.at("/dataset_id", error.detail) from error
        stats = DatasetStats.model_validate(given.stats)
    _check_rows(asked, stats, labels)
    instead = ("evaluate a checkpoint or the base model", "evaluate the base model")
    step, merge = weights_for(session, run, trained, asked.target, asked.step, instead)
    usual = spec.template
    if asked.target == "base":
        usual = spec.evaluation.baseline_template or usual
    return EvaluationTask(
        target=asked.target,
        step=step,
        merge=merge,
        dataset_id=asked.dataset_id or run.dataset_id,
        split=asked.split,
        template=template_for(asked.template, usual, own.kind, stats.kind, labels),
        labels=labels,
        max_samples=asked.max_samples,
    )


def weights_for(
    session: Session,
    run: Run,
    trained: Job,
    target: Target,
    step: int | None,
    instead: tuple[str, str],
) -> tuple[int | None, str | None]:
    """The step of the weights that are to be scored, and the merge, if any; they are there.

    Raises InvalidRequest, and Conflict with what to do `instead` without an adapter, or without
    any checkpoint.
    """
    if target != "checkpoint" and step is not None:
        raise InvalidRequest.at(
            "/step", f"only a checkpoint has a step; the target is {target}: leave it out"
        )
    match target:
        case "base":
            return None, None
        case "adapter":
            return adapter_step(session, run, trained, instead[0]), None
        case "checkpoint":
            found = checkpoint_step(session, run, trained, step, "/step", instead[1])
            return found, None
        case "merged":
            try:
                merge = merges.newest_published(session, run.id)
            except NotFound as error:
                raise Conflict(error.detail) from error
            return merge.task.step, merge.id


def adapter_step(session: Session, run: Run, trained: Job, instead: str) -> int:
    """The step of the run's adapter. Raises Conflict, with what to do `instead`, without one."""
    if any(rows.find_artifact(session, run.id, name) is None for name in ADAPTER_FILES):
        raise Conflict(
            f"the run {_stands(trained)} and has no adapter, which comes at its end; {instead}"
        )
    return evaluations.adapter_step(session, run, trained)


def checkpoint_step(
    session: Session, run: Run, trained: Job, step: int | None, pointer: str, instead: str
) -> int:
    """`step`, of which the run has a checkpoint.

    Raises Conflict, with what to do `instead`, where it has none at all, and InvalidRequest at
    `pointer` where it has others.
    """
    steps = [checkpoint.step for checkpoint in rows.checkpoints(session, run.id)]
    if not steps:
        raise Conflict(f"the run {_stands(trained)} and has no checkpoint; {instead}")
    if step is None or step not in steps:
        has = ", ".join(map(str, steps))
        problem = "name one" if step is None else f"there is no checkpoint {step}"
        raise InvalidRequest.at(pointer, f"{problem}; the run keeps the steps {has}")
    return step


def _stands(job: Job) -> str:
    return job.status if job.status in RESTING else f"is {job.status}"


def _check_rows(asked: EvaluationRequest, stats: DatasetStats, labels: list[str]) -> None:
    """The split is there, and the run knows its labels. Rows without any are scored, too."""
    if asked.split not in stats.splits:
        raise InvalidRequest.at(
            "/split", f"the dataset has no split {asked.split}; it has {', '.join(stats.splits)}"
        )
    unknown = [label for label in stats.splits[asked.split].labels if label not in labels]
    if unknown:
        raise InvalidRequest.at(
            "/split" if asked.dataset_id is None else "/dataset_id",
            f"rows of the split {asked.split} have the label {unknown[0]!r}, which no training row "
            f"of the run has; it knows {', '.join(labels)}: upload the rows with those",
        )


def template_for(asked: str | None, usual: str, own: str, scored: str, labels: list[str]) -> str:
    """Under which template the rows are scored; of chats, whose words the answers are.

    `usual` is the run's, `own` and `scored` are the kinds of the rows that the run was trained on
    and of those to be scored: text or messages. Raises InvalidRequest.
    """
    templates = builtin_templates()
    name = usual
    if asked is None:
        if own == "messages" and scored == "text":
            raise InvalidRequest.at(
                "/template",
                "the run was trained on chats and has no template for texts; name one of "
                f"{', '.join(templates)}",
            )
    elif scored == "messages":
        raise InvalidRequest.at(
            "/template", "this dataset's rows are chats with prompts of their own; leave it out"
        )
    else:
        name = asked
    if name not in templates:
        known = ", ".join(templates)
        raise InvalidRequest.at("/template", f"no such template; there are {known}")
    words = templates[name].labels
    missing = [label for label in labels if words is not None and label not in words]
    if missing and not (own == scored == "messages"):
        raise InvalidRequest.at(
            "/template",
            f"the template {name} has no word for the label {missing[0]!r}; use label_only",
        )
    return name
