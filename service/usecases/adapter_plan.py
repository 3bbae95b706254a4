"""Resolve the options of an import, and the adapter's own configuration, into a specification."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from pydantic import TypeAdapter, ValidationError
from sqlmodel import Session

from service.adapters.weights import AdapterWeights
from service.context import Context
from service.datasets.lines import DECODER, decoding_flaw
from service.datasets.mapping import DEFAULT_LABELS, Name
from service.datasets.stats import DatasetStats
from service.datasets.templates import builtin_templates
from service.domain.adapter_config import AdapterConfig
from service.domain.errors import FieldError, InvalidRequest, NotFound
from service.domain.spec import MODEL_NAME, RunSpec, overlay
from service.domain.storable import check_storable
from service.domain.training_spec import LoraSection
from service.domain.validation import UNKNOWN_FIELD, invalid, invalid_request
from service.presets import FALLBACK, presets
from service.store import datasets as dataset_store
from service.usecases.run_checks import check_cap_groups
from service.usecases.run_plan import check_model, check_names
from service.usecases.template_checks import check_template_name, check_template_words

FIELDS = (
    "name",
    "preset",
    "base_model",
    "dataset_id",
    "template",
    "labels",
    "tags",
    "quantization",
    "training",
    "fairness",
    "evaluation",
    "resources",
)
SECTIONS = {
    "training": ("max_seq_length", "bf16", "per_device_eval_batch_size"),
    "fairness": ("positive_label", "caps", "min_f1", "confidence", "min_support"),
    "evaluation": ("threshold", "baseline_template"),
}
"""Fields of sections that scoring uses; the others are about training."""

_LABELS: TypeAdapter[list[Name]] = TypeAdapter(list[Name])
_MAX_LABELS = 100


class ImportPlan(NamedTuple):
    spec: RunSpec
    """Its `dataset_id` is empty if the import has no dataset."""
    labels: list[str]


def parse_options(text: str) -> dict[str, Any]:
    """Parse the form field `options`. Raises InvalidRequest with pointers below ``/options``."""
    if not text.strip():
        return {}
    try:
        value = DECODER.decode(text.strip())
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise InvalidRequest.at("/options", f"is not JSON: {error.msg} ({where})") from error
    except (ValueError, RecursionError) as error:
        raise InvalidRequest.at("/options", decoding_flaw(error).detail) from error
    if not isinstance(value, dict):
        raise InvalidRequest.at("/options", "must be an object")
    with _below_options():
        check_storable(value)
        _check_fields(value)
    return value


def resolve(
    context: Context,
    session: Session,
    options: dict[str, Any],
    config: AdapterConfig,
    weights: AdapterWeights,
) -> ImportPlan:
    """Merge the options into their preset and check them. Raises InvalidRequest."""
    with _below_options():
        return _resolve(context, session, options, config, weights)


def _resolve(
    context: Context,
    session: Session,
    options: dict[str, Any],
    config: AdapterConfig,
    weights: AdapterWeights,
) -> ImportPlan:
    check_names(options)
    preset, available = options.get("preset", FALLBACK), presets()
    if not isinstance(preset, str) or preset not in available:
        raise InvalidRequest.at(
            "/preset", f"no such preset; available presets: {', '.join(available)}"
        )
    changes = {name: value for name, value in options.items() if name != "labels"}
    changes |= {
        "preset": preset,
        "base_model": _base_model(options, config),
        "dataset_id": options.get("dataset_id") or "",
        "lora": lora_section(config, weights).model_dump(mode="json"),
    }
    try:
        spec = RunSpec.model_validate(overlay(available[preset].values, changes))
    except ValidationError as error:
        raise invalid(error) from error
    if spec.name is None:
        name = f"{spec.base_model} with an imported adapter"
        spec = spec.model_copy(update={"name": name})
    check_model(context, spec)
    stats, completions = None, dict[str, str]()
    if spec.dataset_id:
        try:
            dataset = dataset_store.get_dataset(session, spec.dataset_id)
        except NotFound as error:
            raise InvalidRequest.at("/dataset_id", error.detail) from error
        stats, completions = DatasetStats.model_validate(dataset.stats), dataset.completions
    if stats is not None and stats.kind == "messages":
        labels = _labels_of_chats(options, completions)
    else:
        labels = _labels(options, stats, spec.template)
        _check_templates(spec, labels)
    _check_fairness(spec, options, labels, stats)
    return ImportPlan(spec, labels)


def lora_section(config: AdapterConfig, weights: AdapterWeights) -> LoraSection:
    """Return what a run's specification can express of the adapter's configuration."""
    modules = [name for name in weights.modules if name.strip()]
    parameters = [name for name in dict.fromkeys(config.target_parameters or ()) if name.strip()]
    return LoraSection(
        r=config.r,
        lora_alpha=min(max(round(config.lora_alpha), 1), 8192),
        lora_dropout=0.0 if config.target_parameters else config.lora_dropout,
        target_modules="all-linear"
        if config.target_modules == "all-linear"
        else modules or "all-linear",
        target_parameters=parameters[:100],
        bias=config.bias,
        use_rslora=config.use_rslora,
        use_dora=config.use_dora and not config.target_parameters,
    )


@contextmanager
def _below_options() -> Iterator[None]:
    """Prefix the pointers of a refusal with ``/options``."""
    try:
        yield
    except InvalidRequest as error:
        if not error.errors:
            raise
        raise invalid_request(
            tuple(FieldError(f"/options{item.pointer}", item.detail) for item in error.errors)
        ) from error


def _check_fields(options: dict[str, Any]) -> None:
    """Raise InvalidRequest for fields that do not apply to an import."""
    errors = []
    for name, value in options.items():
        if name == "lora":
            errors.append(FieldError("/lora", "is read from adapter_config.json; omit it"))
        elif name not in FIELDS:
            detail = f"{UNKNOWN_FIELD}; options has {', '.join(FIELDS)}"
            errors.append(FieldError(_pointer(name), detail))
        elif isinstance(value, dict) and name in SECTIONS:
            errors += [
                FieldError(
                    _pointer(name, field),
                    f"does not apply to an adapter that is trained already; {name} has "
                    f"{', '.join(SECTIONS[name])}",
                )
                for field in value
                if field not in SECTIONS[name]
            ]
    if errors:
        raise invalid_request(tuple(errors[:100]))


def _pointer(*names: str) -> str:
    printable = (name if name.isprintable() else ascii(name) for name in names)
    return "".join(f"/{name[:200].replace('~', '~0').replace('/', '~1')}" for name in printable)


def _base_model(options: dict[str, Any], config: AdapterConfig) -> Any:
    """Return the base model's name. Raises InvalidRequest if the adapter has only a path of it."""
    if options.get("base_model") is not None:
        return options["base_model"]
    name = config.base_model_name_or_path
    if name and MODEL_NAME.fullmatch(name):
        return name
    named = f"names {ascii(name)[:200]}, which is no name of a model" if name else "names none"
    raise InvalidRequest.at(
        "/base_model",
        f"is required, since adapter_config.json {named}: set the hub id of the base model, or the "
        "name of its directory below the models directory",
    )


def _labels(options: dict[str, Any], stats: DatasetStats | None, template: str) -> list[str]:
    """Return the labels of texts: from the options, else the dataset, else the template."""
    if (requested := options.get("labels")) is not None:
        try:
            labels = _LABELS.validate_python(requested, strict=True)
        except ValidationError as error:
            raise invalid(error, "labels") from error
        if not 2 <= len(set(labels)) == len(labels) <= _MAX_LABELS:
            raise InvalidRequest.at(
                "/labels", f"must be 2 to {_MAX_LABELS} labels, each listed once"
            )
        for number, label in enumerate(labels):
            if not label.isprintable():
                raise InvalidRequest.at(f"/labels/{number}", "contains unprintable characters")
        return sorted(labels)
    train = None if stats is None else stats.splits.get("train")
    of_dataset = {} if stats is None else (train.labels if train is not None else stats.labels)
    if len(of_dataset) >= 2:
        return sorted(of_dataset)
    pattern = builtin_templates().get(template)
    words = None if pattern is None else pattern.labels
    return sorted(words or DEFAULT_LABELS)


def _labels_of_chats(options: dict[str, Any], completions: dict[str, str]) -> list[str]:
    """Return the labels of chats, whose answers the dataset's training rows have."""
    if not completions:
        raise InvalidRequest.at(
            "/dataset_id",
            "the dataset's chats do not show the answer of each label, which labelled training "
            "rows would: omit dataset_id, set template and labels, whose words are then the "
            "answers, and evaluate the adapter on the chats",
        )
    if options.get("template") is not None:
        raise InvalidRequest.at(
            "/template", "the rows of this dataset are chats with their own prompts; omit it"
        )
    labels = sorted(completions)
    requested = options.get("labels")
    if requested is not None and (
        not isinstance(requested, list)
        or not all(isinstance(label, str) for label in requested)
        or sorted(requested) != labels
    ):
        raise InvalidRequest.at(
            "/labels", f"are those of the dataset's chats, {', '.join(labels)}: omit it"
        )
    return labels


def _check_templates(spec: RunSpec, labels: list[str]) -> None:
    for pointer, name in (
        ("/template", spec.template),
        ("/evaluation/baseline_template", spec.evaluation.baseline_template),
    ):
        if name is not None:
            check_template_name(pointer, name)
            check_template_words(pointer, name, labels)


def _check_fairness(
    spec: RunSpec, options: dict[str, Any], labels: list[str], stats: DatasetStats | None
) -> None:
    positive = spec.fairness.positive_label
    if positive not in labels:
        raise InvalidRequest.at(
            "/fairness/positive_label",
            f"the adapter has no label {positive!r}; its labels are {', '.join(labels)}: set the "
            "one that counts as positive",
        )
    if stats is not None and "caps" in (options.get("fairness") or {}):
        check_cap_groups("/fairness/caps", spec.fairness.caps, stats.groups)
    validation = None if stats is None else stats.splits.get("validation")
    if spec.evaluation.threshold == "fitted" and (
        validation is None or positive not in validation.labels
    ):
        raise InvalidRequest.at(
            "/evaluation/threshold",
            f"fitted requires a dataset_id with a validation split that has {positive!r} rows: set "
            "one, or set threshold to argmax",
        )
