"""Differences of a report from the one that certifies its run, as sentences for its readers."""

from collections.abc import Iterator
from typing import Any

from service.domain.spec import FairnessSection
from service.store.tables import Evaluation
from service.usecases.reports.counterparts import has_own_base
from service.usecases.reports.evaluation_data import RunData
from service.usecases.reports.options import ReportRequest


def differences(
    data: RunData,
    evaluation: Evaluation,
    certifying: Evaluation | None,
    fairness: FairnessSection,
    rule: str | float,
    request: ReportRequest,
) -> list[str]:
    """Return the reasons why a report is exploratory; empty if it certifies the run."""
    return [
        *_of_evaluation(data, evaluation, certifying),
        *_of_settings(data, fairness, rule),
        *_of_base(data, evaluation, request),
    ]


def _of_evaluation(
    data: RunData, evaluation: Evaluation, certifying: Evaluation | None
) -> Iterator[str]:
    if certifying is None and data.is_imported:
        yield "the adapter was imported, and no report certifies it"
        return
    if certifying is None:
        yield f"the run is {data.job.status} and has no certifying report"
        return
    if evaluation.id == certifying.id:
        return
    other = f"the predictions are those of {evaluation.id}, not of {certifying.id}"
    yield from list(_of_predictions(data, evaluation, certifying)) or [other]


def _of_predictions(data: RunData, evaluation: Evaluation, certifying: Evaluation) -> Iterator[str]:
    if _model(evaluation) != _model(certifying):
        yield f"the model is {_model(evaluation)}, not {_model(certifying)}"
    if evaluation.dataset_id != certifying.dataset_id:
        yield f"the rows are those of {evaluation.dataset_id}, not of {certifying.dataset_id}"
    if evaluation.split != certifying.split:
        yield f"the split is {evaluation.split}, not {certifying.split}"
    if evaluation.template != certifying.template:
        yield f"the template is {evaluation.template}, not {certifying.template}"
    if (rows := data.sampled.get(evaluation.id)) is not None:
        yield f"only a sample of the split was scored (max_samples {rows})"


def _model(evaluation: Evaluation) -> str:
    match evaluation.target:
        case "base":
            return "the base model"
        case "checkpoint":
            return f"the checkpoint of step {evaluation.step}"
        case target:
            return f"the {target} of step {evaluation.step}"


def _of_settings(data: RunData, fairness: FairnessSection, rule: str | float) -> Iterator[str]:
    own, own_rule = data.spec.fairness, data.spec.evaluation.threshold

    def caps(section: FairnessSection) -> list[tuple[Any, ...]]:
        return sorted((cap.group, cap.metric, cap.max) for cap in section.caps)

    if caps(fairness) != caps(own):
        yield "the caps are not the run's"
    for name in ("confidence", "min_f1", "min_support"):
        value, own_value = getattr(fairness, name), getattr(own, name)
        if value != own_value:
            yield f"{name} is {_shown(value)}; the run's is {_shown(own_value)}"
    if rule != own_rule:
        yield f"the threshold is {_shown(rule)}; the run's is {own_rule}"


def _of_base(data: RunData, evaluation: Evaluation, request: ReportRequest) -> Iterator[str]:
    if not has_own_base(data, evaluation, request):
        base = request.base_evaluation
        described = "without the base model" if base is None else f"with {base} as the base model"
        yield f"it is {described}, unlike the run's own comparison"


def _shown(value: str | float | None) -> str:
    if value is None:
        return "none"
    return value if isinstance(value, str) else f"{value:g}"
