"""Use cases on runs: resolve a request into a specification, submit, clone."""

import contextlib
import fnmatch
from collections.abc import Callable
from typing import Any, NamedTuple

import structlog
from pydantic import ValidationError
from sqlalchemy.exc import IntegrityError
from sqlmodel import Session

from service.context import Context
from service.datasets.stats import DatasetStats
from service.datasets.templates import builtin_templates
from service.domain.errors import (
    InvalidRequest,
    NotFound,
    QuotaExceeded,
    Unavailable,
    pointer_of,
)
from service.domain.ids import new_id
from service.domain.job_kinds import TRAIN
from service.domain.spec import MODEL_NAME, RunSpec, overlay
from service.domain.steps import StepPlan
from service.domain.validation import invalid
from service.presets import FALLBACK, presets
from service.queue import celery_app
from service.store import datasets as dataset_store
from service.store import idempotency, jobs
from service.store import runs as rows
from service.store.idempotency import IdempotencyKey
from service.store.tables import DEFAULT_PROJECT, Job, Run
from service.usecases.retention import check_quota
from service.usecases.run_checks import cap_warnings, check_choosing

log = structlog.get_logger()


class Plan(NamedTuple):
    """What a run would do, as far as it can be said without the model."""

    spec: RunSpec
    effective_batch_size: int
    steps_per_epoch: int
    total_steps: int
    warnings: list[str]


def _check_text(value: Any, location: tuple[str | int, ...] = ()) -> None:
    """Refuse what JSON can say and a database cannot keep: NUL and lone surrogates."""
    if isinstance(value, dict):
        for key, item in value.items():
            _check_text(key, location)
            _check_text(item, (*location, key))
    elif isinstance(value, list):
        for number, item in enumerate(value):
            _check_text(item, (*location, number))
    elif isinstance(value, str) and any(c == "\0" or "\ud800" <= c <= "\udfff" for c in value):
        where = pointer_of(part for part in location if isinstance(part, int) or part.isprintable())
        raise InvalidRequest.at(where, "the text holds a NUL or half a surrogate pair")


def resolve(
    context: Context, session: Session, body: dict[str, Any], base: dict[str, Any] | None = None
) -> Plan:
    """Lay `body` over `base` (None: its preset), check it against the dataset and plan it.

    Raises InvalidRequest.
    """
    return _with_quota(context, session, _plan(*_checked(context, session, body, base)))


def _checked(
    context: Context, session: Session, body: dict[str, Any], base: dict[str, Any] | None = None
) -> tuple[RunSpec, DatasetStats]:
    _check_text(body)
    if base is None:
        name = body.get("preset", FALLBACK)
        known = presets()
        if not isinstance(name, str) or name not in known:
            raise InvalidRequest.at("/preset", f"no such preset; there are {', '.join(known)}")
        base = known[name].values
    try:
        spec = RunSpec.model_validate(overlay(base, body))
    except ValidationError as error:
        raise invalid(error) from error
    if spec.name is None:
        spec = spec.model_copy(update={"name": f"{spec.preset} on {spec.base_model}"})
    _check_model(context, spec)
    try:
        dataset = dataset_store.get_dataset(session, spec.dataset_id)
    except NotFound as error:
        raise InvalidRequest.at("/dataset_id", error.detail) from error
    stats = DatasetStats.model_validate(dataset.stats)
    _check_template(spec, body, stats)
    _check_labels(spec, body, stats)
    check_choosing(spec, stats)
    return spec, stats


def _check_model(context: Context, spec: RunSpec) -> None:
    if not MODEL_NAME.fullmatch(spec.base_model):
        raise InvalidRequest.at(
            "/base_model",
            "name a hub id such as openai/gpt-oss-20b or a directory below the models directory; "
            "a path is not accepted",
        )
    allowed = context.settings.allowed_models
    if not any(fnmatch.fnmatchcase(spec.base_model, pattern) for pattern in allowed):
        detail = f"this server allows only {', '.join(allowed)} (FAIRTUNE_ALLOWED_MODELS)"
        raise InvalidRequest.at("/base_model", detail)


def _check_template(spec: RunSpec, body: dict[str, Any], stats: DatasetStats) -> None:
    templates = builtin_templates()
    named = {
        "/template": spec.template,
        "/evaluation/baseline_template": spec.evaluation.baseline_template,
    }
    for pointer, name in named.items():
        if name is None:
            continue
        if name not in templates:
            known = ", ".join(templates)
            raise InvalidRequest.at(pointer, f"no such template; there are {known}")
        if stats.kind == "messages":
            if pointer != "/template" or "template" in body:
                raise InvalidRequest.at(
                    pointer, "this dataset's rows are chats with prompts of their own; leave it out"
                )
            continue
        words = templates[name].labels
        missing = [label for label in stats.labels if words is not None and label not in words]
        if missing:
            raise InvalidRequest.at(
                pointer,
                f"the template {name} has no word for the label {missing[0]!r}; use label_only",
            )


def _check_labels(spec: RunSpec, body: dict[str, Any], stats: DatasetStats) -> None:
    """What the request itself named must be in the data; what a preset brought need not be."""
    fairness = spec.fairness
    learned = stats.splits["train"].labels
    if learned and fairness.positive_label not in learned:
        raise InvalidRequest.at(
            "/fairness/positive_label",
            f"the training rows have no label {fairness.positive_label!r}; they have "
            f"{', '.join(learned)}: name the one that counts as positive",
        )
    if "caps" in (body.get("fairness") or {}):
        scored = {
            group
            for split in ("train", *spec.evaluation.splits)
            if split in stats.splits
            for group in stats.splits[split].groups
        }
        for number, cap in enumerate(fairness.caps):
            if cap.group not in scored:
                has = ", ".join(sorted(scored)) if scored else "no groups"
                raise InvalidRequest.at(
                    f"/fairness/caps/{number}/group",
                    f"the dataset has no group {cap.group!r}; it has {has}",
                )
    if "splits" in (body.get("evaluation") or {}):
        for number, split in enumerate(spec.evaluation.splits):
            if split not in stats.splits:
                has = ", ".join(stats.splits)
                raise InvalidRequest.at(
                    f"/evaluation/splits/{number}",
                    f"the dataset has no split {split}; it has {has}",
                )


def _plan(spec: RunSpec, stats: DatasetStats) -> Plan:
    world, training = spec.resources.num_processes, spec.training
    steps = StepPlan.of(training, stats.splits["train"].rows, world)
    warnings = [text] if (text := steps.warmup_warning()) else []
    if world > 1:
        warnings.append(
            f"with {world} processes an optimizer step takes {spec.effective_batch_size} rows "
            f"(per_device_train_batch_size {training.per_device_train_batch_size} * "
            f"gradient_accumulation_steps {training.gradient_accumulation_steps} * {world}); a "
            f"worker's machine with GPUs must have {world} of them"
        )
    if "validation" not in stats.splits:
        warnings.append(
            "the dataset has no validation split: no evaluation while training, no early stopping, "
            "and the last checkpoint counts as the best"
        )
    wanted = ", ".join(spec.evaluation.splits)
    if not stats.splits["train"].labels:
        warnings.append("the training rows have no labels: there will be no bias report")
    elif not any(
        split in stats.splits and stats.splits[split].has_labels for split in spec.evaluation.splits
    ):
        warnings.append(
            f"the dataset has no labelled rows of the split {wanted}: there will be no bias report"
        )
    warnings += [
        f"the dataset lacks the group {cap.group}: the cap on it will be not_applicable"
        for cap in spec.fairness.caps
        if cap.group not in stats.groups
    ]
    warnings += cap_warnings(spec, stats)
    if shared := sum(stats.shared_rows.values()):
        warnings.append(
            f"{shared} rows of validation and test stand in an earlier split too: "
            "the figures will look better than they are"
        )
    return Plan(
        spec,
        spec.effective_batch_size,
        steps.steps_per_epoch,
        steps.total_steps,
        warnings,
    )


def _with_quota(context: Context, session: Session, plan: Plan) -> Plan:
    try:
        check_quota(session, context.settings.store_quota_bytes)
    except QuotaExceeded as error:
        return plan._replace(warnings=[*plan.warnings, f"it would be refused now: {error.detail}"])
    return plan


def submit(
    context: Context,
    body: dict[str, Any],
    key: IdempotencyKey | None = None,
    *,
    by: str | None = None,
) -> tuple[Run, Job, bool]:
    """Store the run with its queued job in one commit, then send a queue message. `by`: who asks.

    Returns the run, its job, and whether it was made now (False: the key was used before). A
    broker that is unreachable does not lose the run: an idle worker finds it in the database.
    Raises InvalidRequest, QuotaExceeded.
    """
    return _make(context, key, by, lambda session: (_checked(context, session, body)[0], None))


def clone(
    context: Context,
    run_id: str,
    changes: dict[str, Any],
    key: IdempotencyKey | None = None,
    *,
    by: str | None = None,
) -> tuple[Run, Job, bool]:
    """A new run of the same specification with `changes` laid over it; else as `submit`.

    Raises NotFound, InvalidRequest, QuotaExceeded.
    """
    return _make(
        context,
        key,
        by,
        lambda session: (_checked_clone(context, session, run_id, changes)[0], run_id),
    )


def plan_clone(context: Context, session: Session, run_id: str, changes: dict[str, Any]) -> Plan:
    """What `clone` would make. Raises NotFound, InvalidRequest."""
    return _with_quota(context, session, _plan(*_checked_clone(context, session, run_id, changes)))


def _checked_clone(
    context: Context, session: Session, run_id: str, changes: dict[str, Any]
) -> tuple[RunSpec, DatasetStats]:
    run, _ = rows.get_run(session, run_id)
    if "preset" in changes:
        raise InvalidRequest.at(
            "/preset", "a clone keeps every value of its run; submit a new run for another preset"
        )
    return _checked(context, session, changes, run.spec)


def _make(
    context: Context,
    key: IdempotencyKey | None,
    by: str | None,
    specify: Callable[[Session], tuple[RunSpec, str | None]],
) -> tuple[Run, Job, bool]:
    """Store a run of the specification that `specify` gives, unless `key` made one before."""
    try:
        with context.database.write() as session:
            known = idempotency.recall(session, key)
            if known is not None:
                return (*rows.get_run(session, known), False)
            check_quota(session, context.settings.store_quota_bytes)
            spec, cloned_from = specify(session)
            run = Run(
                id=new_id("run"),
                project_id=DEFAULT_PROJECT,
                name=spec.name or "",
                preset=spec.preset,
                base_model=spec.base_model,
                dataset_id=spec.dataset_id,
                spec=spec.model_dump(mode="json"),
                tags=list(spec.tags),
                cloned_from=cloned_from,
                created_by=by,
            )
            session.add(run)
            session.flush()
            job = jobs.create(session, run.id, TRAIN, by=by)
            idempotency.remember(session, key, run.id)
    except IntegrityError:
        # The same key at the same time: the other request was first.
        with context.database.read() as session:
            made = idempotency.recall(session, key)
            if made is None:
                raise
            return (*rows.get_run(session, made), False)
    log.info("job queued", run_id=run.id, job_id=job.id)
    with contextlib.suppress(Unavailable):
        celery_app.notify(context.celery, TRAIN.queue)
    with context.database.read() as session:
        return (*rows.get_run(session, run.id), True)
