"""Resolve a run request into a specification, and plan the run without storing anything."""

import fnmatch
from collections.abc import Iterator
from typing import Any, NamedTuple

from pydantic import ValidationError
from sqlmodel import Session

from service.context import Context
from service.datasets.stats import DatasetStats
from service.domain.errors import Conflict, InvalidRequest, NotFound, QuotaExceeded
from service.domain.near_names import with_near_names
from service.domain.spec import MODEL_NAME, RunSpec, overlay
from service.domain.steps import StepPlan
from service.domain.storable import check_storable, check_visible
from service.domain.validation import invalid
from service.presets import FALLBACK, presets
from service.store import datasets as dataset_store
from service.store import runs as rows
from service.usecases.catalog import local_models
from service.usecases.plan_warnings import PlanWarning, plan_warnings
from service.usecases.retention import check_quota
from service.usecases.run_checks import check_choosing, check_labels, check_learned
from service.usecases.template_checks import check_template_name, check_template_words


class Plan(NamedTuple):
    """Plan of a run, as far as it can be computed without the model."""

    spec: RunSpec
    effective_batch_size: int
    steps_per_epoch: int
    total_steps: int
    warnings: list[PlanWarning]


def plan(context: Context, session: Session, body: dict[str, Any]) -> Plan:
    """Return the plan of the run that `submit` would create. Raises InvalidRequest."""
    return _with_state_warnings(context, _plan(*resolve(context, session, body)))


def plan_clone(context: Context, session: Session, run_id: str, changes: dict[str, Any]) -> Plan:
    """Return the plan of the run that `clone` would create. Raises NotFound, InvalidRequest."""
    resolved = resolve_clone(context, session, run_id, changes)
    return _with_state_warnings(context, _plan(*resolved))


def resolve(
    context: Context, session: Session, body: dict[str, Any], base: dict[str, Any] | None = None
) -> tuple[RunSpec, DatasetStats]:
    """Merge `body` into `base` (None: its preset) and check it against the dataset.

    Raises InvalidRequest.
    """
    check_storable(body)
    check_names(body)
    if base is None:
        preset = body.get("preset", FALLBACK)
        available = presets()
        if not isinstance(preset, str) or preset not in available:
            names = ", ".join(available)
            raise InvalidRequest.at("/preset", f"no such preset; available presets: {names}")
        base = available[preset].values
    try:
        spec = RunSpec.model_validate(overlay(base, body))
    except ValidationError as error:
        raise with_near_names(invalid(error), RunSpec) from error
    if spec.name is None:
        spec = spec.model_copy(update={"name": f"{spec.preset} on {spec.base_model}"})
    check_model(context, spec)
    try:
        dataset = dataset_store.get_dataset(session, spec.dataset_id)
    except NotFound as error:
        raise InvalidRequest.at("/dataset_id", error.detail) from error
    stats = DatasetStats.model_validate(dataset.stats)
    if "train" not in stats.splits:
        raise InvalidRequest.at(
            "/dataset_id",
            f"the dataset {dataset.id} has no training rows, only {', '.join(stats.splits)}: train "
            "on another one and evaluate the run on this (POST /v1/runs/{id}/evaluations)",
        )
    _check_templates(spec, body, stats)
    check_labels(spec, body, stats)
    check_choosing(spec, stats)
    check_learned(spec, stats)
    return spec, stats


def resolve_clone(
    context: Context, session: Session, run_id: str, changes: dict[str, Any]
) -> tuple[RunSpec, DatasetStats]:
    """Merge `changes` into the specification of a run and check the result.

    Raises NotFound, InvalidRequest, and Conflict if there is no training to repeat.
    """
    run, _ = rows.get_run(session, run_id)
    if run.imported is not None:
        raise Conflict(
            "the run's adapter was imported: there is no training to repeat; submit a new run"
        )
    if "preset" in changes:
        raise InvalidRequest.at(
            "/preset", "a clone keeps every value of its run; submit a new run for another preset"
        )
    return resolve(context, session, changes, run.spec)


def check_names(body: dict[str, Any]) -> None:
    """Refuse a name or a tag that would look like another one, as those of keys and datasets."""
    check_visible("/name", body.get("name"))
    tags = body.get("tags")
    for number, tag in enumerate(tags if isinstance(tags, list) else []):
        check_visible(f"/tags/{number}", tag)


def check_model(context: Context, spec: RunSpec) -> None:
    """Raise InvalidRequest if the base model's name is a path, or not allowed."""
    if not MODEL_NAME.fullmatch(spec.base_model):
        raise InvalidRequest.at(
            "/base_model",
            "must be a hub id such as openai/gpt-oss-20b or the name of a directory below the "
            "models directory; paths are not accepted",
        )
    allowed = context.settings.allowed_models
    if not any(fnmatch.fnmatchcase(spec.base_model, pattern) for pattern in allowed):
        detail = f"this server allows only {', '.join(allowed)} (FAIRTUNE_ALLOWED_MODELS)"
        raise InvalidRequest.at("/base_model", detail)


def _check_templates(spec: RunSpec, body: dict[str, Any], stats: DatasetStats) -> None:
    names = {
        "/template": spec.template,
        "/evaluation/baseline_template": spec.evaluation.baseline_template,
    }
    for pointer, name in names.items():
        if name is None:
            continue
        check_template_name(pointer, name)
        if stats.kind == "messages":
            if pointer != "/template" or "template" in body:
                raise InvalidRequest.at(
                    pointer, "the rows of this dataset are chats with their own prompts; omit it"
                )
            continue
        check_template_words(pointer, name, stats.labels)


def _plan(spec: RunSpec, stats: DatasetStats) -> Plan:
    steps = StepPlan.of(spec.training, stats.splits["train"].rows, spec.resources.num_processes)
    return Plan(
        spec,
        spec.effective_batch_size,
        steps.steps_per_epoch,
        steps.total_steps,
        list(plan_warnings(spec, stats, steps)),
    )


def _with_state_warnings(context: Context, plan: Plan) -> Plan:
    """Add the warnings that depend on the service's state: its quota and its models."""
    warnings = list(plan.warnings)
    try:
        check_quota(context)
    except QuotaExceeded as error:
        detail = f"the run would be refused now: {error.detail}"
        warnings.append(PlanWarning("quota_exceeded", detail))
    warnings.extend(missing_model(context, plan.spec.base_model, "the run fails"))
    return plan._replace(warnings=warnings)


def missing_model(context: Context, name: str, consequence: str) -> Iterator[PlanWarning]:
    """Yield a warning if the API's machine has no such model; one with a slash may be a hub's."""
    if "/" in name or any(
        model.name == name for model in local_models(context.settings.models_dir)
    ):
        return
    detail = (
        f"the models directory of the API's machine has no model {name}: on a worker without "
        f"one {consequence} with model_unavailable; GET /v1/models lists those that are there"
    )
    yield PlanWarning("model_missing", detail)
