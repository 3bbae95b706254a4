"""Use case: compute a bias report on stored predictions; nothing is scored or stored."""

import json
from typing import NamedTuple

from pydantic import ValidationError

from service.artifacts import StoredFile
from service.context import Context
from service.datasets import rows as dataset_rows
from service.datasets.stats import DatasetStats
from service.datasets.templates import builtin_templates
from service.domain.errors import Conflict, InvalidRequest, NotFound
from service.domain.job import BIAS_REPORT_FILE
from service.domain.spec import FairnessSection
from service.domain.states import RESTING, JobStatus
from service.fairness import (
    BiasReport,
    Criteria,
    Predictions,
    ReportContext,
    ScoredData,
    build_report,
)
from service.fairness.schema import ReportMeta, ReportWarning, Shown
from service.fairness.thresholds import fit_threshold
from service.ops.capacity_limiter import Turns
from service.store import datasets as dataset_store
from service.store import evaluations
from service.store import runs as rows
from service.store.tables import Dataset, Evaluation
from service.usecases.reports import certifying as certificates
from service.usecases.reports import evaluation_data as stored
from service.usecases.reports.certifying import Certificate
from service.usecases.reports.evaluation_data import RunData
from service.usecases.reports.options import (
    ReportRequest,
    are_the_runs_own,
    check_caps,
    settings_of,
)

# A report on a hundred thousand rows takes a core for many seconds and hundreds of megabytes.
TURNS = Turns("reports and comparisons", at_once=2, waiting=6, seconds=30)


class BuiltReport(NamedTuple):
    report: BiasReport
    dataset: Dataset
    """Dataset whose rows the report covers."""


def build(
    context: Context, run_id: str, evaluation_id: str, request: ReportRequest | None = None
) -> BuiltReport:
    """Return the report on an evaluation of a run.

    It is exploratory unless it has the run's own settings and covers the certifying evaluation.
    Raises NotFound, InvalidRequest, Conflict if predictions that it requires are missing, and Busy.
    """
    request = request or ReportRequest()
    with context.database.read() as session:
        data = stored.read_run(session, run_id)
        evaluation = evaluations.predictions(session, run_id, evaluation_id)
        dataset = dataset_store.get_dataset(session, evaluation.dataset_id)
    data.datasets[dataset.id] = dataset  # also if it was created since
    fairness, rule = settings_of(data.spec, request)
    check_caps(request, [dataset, data.dataset])
    certificate = data.certificate(context)
    certifying = data.certifying(certificate)
    certifies = certifying is not None and certifying.id == evaluation.id
    positive = fairness.positive_label
    with TURNS.taken():
        scored = stored.load(context, evaluation, positive)
        tuned = scored.predictions
        base = _base(context, data, evaluation, tuned, request)
        validation = _validation(context, data, evaluation, positive, needed=rule == "fitted")
        format_sample = None
        if certifies and certificate is not None and certificate.verdicts is not None:
            format_sample = certificate.verdicts.format_sample  # of this model, on these rows
        report = build_report(
            ScoredData(
                tuned=tuned,
                base=None if base is None else base.predictions,
                validation=None if validation is None else validation.predictions,
                validation_is_sample=validation is not None and validation.is_sample,
                train_counts=data.train_counts(),
            ),
            Criteria(
                positive_label=positive,
                caps=fairness.caps,
                min_f1=fairness.min_f1,
                confidence=fairness.confidence,
                min_support=fairness.min_support,
                threshold=None if isinstance(rule, str) else rule,
            ),
            ReportMeta(
                run_id=run_id,
                evaluation_id=evaluation.id,
                base_model=data.spec.base_model,
                target=evaluation.target,  # type: ignore[arg-type]  # a column of text
                template=evaluation.template,
                base_template=None if base is None else base.template,
                dataset_id=evaluation.dataset_id,
                split=evaluation.split,
                max_samples=data.sampled.get(evaluation.id),
                checkpoint_step=evaluation.step,
                threshold=rule if isinstance(rule, str) else "given",  # type: ignore[arg-type]
                exploratory=not (
                    certifies
                    and are_the_runs_own(data.spec, fairness, rule)
                    and _has_own_base(data, evaluation, request)
                ),
            ),
            ReportContext(
                shown=_shown(dataset, evaluation.template, scored.truncated),
                base_shown=None if base is None else _shown(dataset, base.template, base.truncated),
                without_label=scored.without_label,
                format_sample=format_sample,
                dataset_warnings=[
                    ReportWarning(code=warning["code"], detail=warning["detail"])
                    for warning in dataset.warnings
                ],
            ),
        )
    return BuiltReport(report, dataset)


def texts(context: Context, dataset: Dataset, report: BiasReport) -> dict[str, str]:
    """Return the texts of the report's worst mistakes by row id; for a chat, the last user turn."""
    ids = {mistake.id for mistake in report.worst_mistakes}
    if not ids:
        return {}
    with context.store.local(dataset.key, StoredFile(dataset.size, dataset.content_hash)) as path:
        return dataset_rows.texts(path, ids)


class _Base(NamedTuple):
    predictions: Predictions
    template: str
    truncated: int | None
    """Number of truncated rows; None: unpattern."""


class _Validation(NamedTuple):
    predictions: Predictions
    is_sample: bool


def _base(
    context: Context,
    data: RunData,
    evaluation: Evaluation,
    tuned: Predictions,
    request: ReportRequest,
) -> _Base | None:
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
        return _Base(scored.predictions, own.template, scored.truncated)
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
    return _Base(base.predictions, requested.template, base.truncated)


def _has_own_base(data: RunData, evaluation: Evaluation, request: ReportRequest) -> bool:
    """Return True if the base model is the one that the run scored: `success` depends on it."""
    own = data.own("base", evaluation.split)
    default = None if own is None else own.id
    return "base_evaluation" not in request.model_fields_set or request.base_evaluation == default


def _validation(
    context: Context, data: RunData, evaluation: Evaluation, positive: str, *, needed: bool
) -> _Validation | None:
    """Return the predictions to fit a threshold on. Raises Conflict if `needed` and missing."""
    validation = data.validation_of(evaluation)
    scored = stored.load_if_labelled(context, validation, positive)
    if validation is None or scored is None:
        if needed:
            raise Conflict(missing_validation(data, evaluation))
        return None
    return _Validation(scored.predictions, validation.id in data.sampled)


def missing_validation(data: RunData, evaluation: Evaluation) -> str:
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


def fitted(
    context: Context, data: RunData, evaluation: Evaluation, fairness: FairnessSection
) -> float:
    """Return the threshold that the run's own rule fits for an evaluation. Raises Conflict."""
    positive = fairness.positive_label
    validation = _validation(context, data, evaluation, positive, needed=True)
    assert validation is not None
    try:
        return fit_threshold(validation.predictions, positive, fairness.caps, fairness.min_f1)[0]
    except ValueError as error:
        raise Conflict(f"no threshold can be fitted for {evaluation.id}: {error}") from error


def _shown(dataset: Dataset, template: str, truncated: int | None) -> Shown | None:
    pattern = builtin_templates().get(template)
    if pattern is None:
        return None
    if DatasetStats.model_validate(dataset.stats).kind == "messages":
        return Shown(system=None, user=None, completion=None, group=False, truncated=truncated)
    return Shown(
        system=pattern.system,
        user=pattern.user,
        completion=pattern.completion,
        group=pattern.shows_group,
        truncated=truncated,
    )


def certificate(context: Context, run_id: str) -> Certificate:
    """Return the run's stored report. Raises NotFound; Conflict, with why, if it has none."""
    with context.database.read() as session:
        _, job = rows.get_run(session, run_id)
        artifact = rows.find_artifact(session, run_id, BIAS_REPORT_FILE)
    if artifact is not None:
        return certificates.read(context.store, artifact)
    if job.status == JobStatus.SUCCEEDED:
        why = "its dataset has no labels in the scored split, so there is no report"
    elif job.status in RESTING:
        why = f"the run {job.status} before its report was written"
    else:
        why = f"the run is {job.status}; its report is written at the end"
    raise Conflict(why)


def certified(context: Context, run_id: str) -> BuiltReport:
    """Return the run's report; one of an older schema version is recomputed from predictions.

    Raises NotFound, Conflict if there is none, or nothing to recompute it from, and Busy.
    """
    stored_report = certificate(context, run_id)
    with context.database.read() as session:
        data = stored.read_run(session, run_id)
    try:
        return BuiltReport(BiasReport.model_validate_json(stored_report.content), data.dataset)
    except ValidationError:
        evaluation = data.certifying(stored_report)
    refusal = "the run's report has an older schema version; get it unchanged with ?format=json"
    if evaluation is None:
        raise Conflict(refusal)
    try:
        return build(context, run_id, evaluation.id)
    except NotFound as error:
        raise Conflict(f"{refusal} ({error.detail})") from error
