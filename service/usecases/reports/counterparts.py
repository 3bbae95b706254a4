"""Predictions that a report needs beside those it covers: the base model's, and validation."""

import json
from typing import NamedTuple

from service.context import Context
from service.datasets.stats import DatasetStats
from service.domain.errors import Conflict, InvalidRequest
from service.domain.spec import FairnessSection
from service.fairness import Predictions
from service.fairness.thresholds import fit_threshold
from service.store.tables import Evaluation
from service.usecases.reports import evaluation_data as stored
from service.usecases.reports.evaluation_data import RunData
from service.usecases.reports.options import ReportRequest


class BasePredictions(NamedTuple):
    predictions: Predictions
    template: str
    truncated: int | None
    """Number of truncated rows; None: unknown."""


class ValidationPredictions(NamedTuple):
    predictions: Predictions
    is_sample: bool


def base_predictions(
    context: Context,
    data: RunData,
    evaluation: Evaluation,
    tuned: Predictions,
    request: ReportRequest,
) -> BasePredictions | None:
    """Return the base model's predictions on the same rows; None if there are none.

    Raises InvalidRequest if the requested evaluation does not match.
    """
    positive = data.spec.fairness.positive_label

    def same_rows(other: Evaluation, base: Predictions) -> bool:
        # Other texts may have the same ids and labels.
        same_content = data.content(other) == data.content(evaluation)
        return same_content and other.split == evaluation.split and tuned.same_rows_as(base)

    if "base_evaluation" not in request.model_fields_set:
        own = data.own("base", evaluation.split)
        if own is None or evaluation.target == "base":
            return None
        scored = stored.load_if_labelled(context, own, positive)
        if scored is None or not same_rows(own, scored.predictions):
            return None
        return BasePredictions(scored.predictions, own.template, scored.truncated)
    if request.base_evaluation is None:
        return None
    by_id = {row.id: row for row in data.evaluations}
    requested = by_id.get(request.base_evaluation)
    pointer = "/base_evaluation"
    if requested is None:
        detail = f"the run has no evaluation {request.base_evaluation!r} with predictions"
        raise InvalidRequest.at(pointer, detail)
    if requested.target != "base":
        detail = (
            f"{requested.id} has the target {requested.target}; set an evaluation of the base model"
        )
        raise InvalidRequest.at(pointer, detail)
    base = stored.load(context, requested, positive)
    if not same_rows(requested, base.predictions):
        raise InvalidRequest.at(
            pointer,
            f"{requested.id} covers other rows ({requested.dataset_id}, split {requested.split}) "
            f"than {evaluation.id} ({evaluation.dataset_id}, split {evaluation.split})",
        )
    return BasePredictions(base.predictions, requested.template, base.truncated)


def has_own_base(data: RunData, evaluation: Evaluation, request: ReportRequest) -> bool:
    """Return True if the base model is the one that the run scored: `success` depends on it."""
    own = data.own("base", evaluation.split)
    default = None if own is None else own.id
    return "base_evaluation" not in request.model_fields_set or request.base_evaluation == default


def validation_predictions(
    context: Context, data: RunData, evaluation: Evaluation, positive: str, *, needed: bool
) -> ValidationPredictions | None:
    """Return the predictions to fit a threshold on. Raises Conflict if `needed` and missing."""
    validation = data.validation_of(evaluation)
    scored = stored.load_if_labelled(context, validation, positive)
    if validation is None or scored is None:
        if needed:
            raise Conflict(_missing_validation(data, evaluation))
        return None
    return ValidationPredictions(scored.predictions, validation.id in data.sampled)


def _missing_validation(data: RunData, evaluation: Evaluation) -> str:
    """Return why there are no validation predictions to fit a threshold on, and the remedy."""
    stats = DatasetStats.model_validate(data.dataset.stats)
    split = stats.splits.get("validation")
    if split is None or not split.labels:
        return (
            "a threshold is fitted on labelled validation rows, and the run's dataset has none: "
            "set threshold to argmax or a number"
        )
    body = json.dumps(stored.request_for(data.spec, evaluation, "validation"))
    step = "" if evaluation.step is None else f" at step {evaluation.step}"
    return (
        "a threshold is fitted on the run's validation rows, and there are no predictions for "
        f"them by the {evaluation.target}{step} under {evaluation.template}: request them with "
        f"POST /v1/runs/{data.run.id}/evaluations {body}, or set threshold to argmax or a number"
    )


def fitted_threshold(
    context: Context, data: RunData, evaluation: Evaluation, fairness: FairnessSection
) -> float:
    """Return the threshold that the run's own rule fits for an evaluation. Raises Conflict."""
    positive = fairness.positive_label
    validation = validation_predictions(context, data, evaluation, positive, needed=True)
    assert validation is not None
    try:
        return fit_threshold(validation.predictions, positive, fairness.caps, fairness.min_f1)[0]
    except ValueError as error:
        raise Conflict(f"no threshold can be fitted for {evaluation.id}: {error}") from error
