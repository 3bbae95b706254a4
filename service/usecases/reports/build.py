"""Use case: a bias report on predictions that are stored already. Nothing is scored or kept."""

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
from service.ops.capacity_limiter import CapacityLimiter
from service.store import datasets as dataset_store
from service.store import evaluations
from service.store import runs as rows
from service.store.tables import Dataset, Evaluation
from service.usecases.reports import certifying as certificates
from service.usecases.reports import evaluation_data as stored
from service.usecases.reports.certifying import Certificate
from service.usecases.reports.evaluation_data import RunData
from service.usecases.reports.options import ReportRequest, as_the_run, check_caps, settings_of

# A report on a hundred thousand rows takes a core for many seconds and hundreds of megabytes.
LIMITER = CapacityLimiter("reports and comparisons", at_once=2, waiting=6, seconds=30)


class Built(NamedTuple):
    report: BiasReport
    dataset: Dataset
    """Whose rows the report is on."""


def build(
    context: Context, run_id: str, evaluation_id: str, request: ReportRequest | None = None
) -> Built:
    """The report on one evaluation of a run.

    It is exploratory unless it is asked for as the run itself was, on the evaluation that certifies
    it. Raises NotFound, InvalidRequest, Conflict where predictions that it needs are not there, and
    Busy.
    """
    request = request or ReportRequest()
    with context.database.read() as session:
        data = stored.read_run(session, run_id)
        evaluation = evaluations.predictions(session, run_id, evaluation_id)
        dataset = dataset_store.get_dataset(session, evaluation.dataset_id)
    data.datasets[dataset.id] = dataset  # also where it was made since
    fairness, rule = settings_of(data.spec, request)
    check_caps(request, [dataset, data.dataset])
    certificate = data.certificate(context)
    certifying = data.certifying(certificate)
    certifies = certifying is not None and certifying.id == evaluation.id
    positive = fairness.positive_label
    with LIMITER.acquire():
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
                    and as_the_run(data.spec, fairness, rule)
                    and _beside_its_own_base(data, evaluation, request)
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
    return Built(report, dataset)


def texts(context: Context, dataset: Dataset, report: BiasReport) -> dict[str, str]:
    """The texts of the report's worst mistakes by row id; of a chat the last turn of its user's."""
    wanted = {mistake.id for mistake in report.worst_mistakes}
    if not wanted:
        return {}
    with context.store.local(dataset.key, StoredFile(dataset.size, dataset.content_hash)) as path:
        return dataset_rows.texts(path, wanted)


class _Base(NamedTuple):
    predictions: Predictions
    template: str
    truncated: int | None
    """Rows; None: not known."""


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
    """The base model's predictions on the same rows; None where none are."""
    positive = data.spec.fairness.positive_label

    def same_rows(one: Evaluation, base: Predictions) -> bool:
        place = data.content(one), one.split  # other texts may have the same ids and labels
        return place == (data.content(evaluation), evaluation.split) and tuned.same_rows_as(base)

    if "base_evaluation" not in request.model_fields_set:
        found = data.own("base", evaluation.split)
        if found is None or evaluation.target == "base":
            return None
        known = stored.load_if_labelled(context, found, positive)
        if known is None or not same_rows(found, known.predictions):
            return None
        return _Base(known.predictions, found.template, known.truncated)
    if request.base_evaluation is None:
        return None
    by_id = {one.id: one for one in data.evaluations}
    asked = by_id.get(request.base_evaluation)
    pointer = "/base_evaluation"
    if asked is None:
        detail = f"the run has no evaluation {request.base_evaluation!r} with predictions"
        raise InvalidRequest.at(pointer, detail)
    if asked.target != "base":
        detail = f"{asked.id} is of the target {asked.target}; name one of the base model"
        raise InvalidRequest.at(pointer, detail)
    base = stored.load(context, asked, positive)
    if not same_rows(asked, base.predictions):
        raise InvalidRequest.at(
            pointer,
            f"{asked.id} is of other rows ({asked.dataset_id}, split {asked.split}) than "
            f"{evaluation.id} ({evaluation.dataset_id}, split {evaluation.split})",
        )
    return _Base(base.predictions, asked.template, base.truncated)


def _beside_its_own_base(data: RunData, evaluation: Evaluation, request: ReportRequest) -> bool:
    """Whether the base model beside it is as the run scored it: `success` rests on that."""
    own = data.own("base", evaluation.split)
    usual = None if own is None else own.id
    return "base_evaluation" not in request.model_fields_set or request.base_evaluation == usual


def _validation(
    context: Context, data: RunData, evaluation: Evaluation, positive: str, *, needed: bool
) -> _Validation | None:
    """What a threshold is fitted on. Raises Conflict where it is `needed` and not there."""
    found = data.validation_of(evaluation)
    scored = stored.load_if_labelled(context, found, positive)
    if found is None or scored is None:
        if needed:
            raise Conflict(missing_validation(data, evaluation))
        return None
    return _Validation(scored.predictions, found.id in data.sampled)


def missing_validation(data: RunData, evaluation: Evaluation) -> str:
    stats = DatasetStats.model_validate(data.dataset.stats)
    split = stats.splits.get("validation")
    if split is None or not split.labels:
        return (
            "a threshold is fitted on labelled validation rows, and the run's dataset has none: "
            "ask for threshold argmax or a number"
        )
    body = json.dumps(stored.request_for(data.spec, evaluation, "validation"))
    step = "" if evaluation.step is None else f" at step {evaluation.step}"
    return (
        "a threshold is fitted on the run's validation rows, and there are no predictions of "
        f"them by the {evaluation.target}{step} under {evaluation.template}: make them with POST "
        f"/v1/runs/{data.run.id}/evaluations {body}, or ask for threshold argmax or a number"
    )


def fitted(
    context: Context, data: RunData, evaluation: Evaluation, fairness: FairnessSection
) -> float:
    """The threshold that the run's own rule gives an evaluation. Raises Conflict."""
    positive = fairness.positive_label
    validation = _validation(context, data, evaluation, positive, needed=True)
    assert validation is not None
    try:
        return fit_threshold(validation.predictions, positive, fairness.caps, fairness.min_f1)[0]
    except ValueError as error:
        raise Conflict(f"no threshold can be fitted for {evaluation.id}: {error}") from error


def _shown(dataset: Dataset, template: str, truncated: int | None) -> Shown | None:
    known = builtin_templates().get(template)
    if known is None:
        return None
    if DatasetStats.model_validate(dataset.stats).kind == "messages":
        return Shown(system=None, user=None, completion=None, group=False, truncated=truncated)
    return Shown(
        system=known.system,
        user=known.user,
        completion=known.completion,
        group=known.shows_group,
        truncated=truncated,
    )


def certificate(context: Context, run_id: str) -> Certificate:
    """The run's stored report. Raises NotFound, and Conflict, saying why, where it has none."""
    with context.database.read() as session:
        _, job = rows.get_run(session, run_id)
        found = rows.find_artifact(session, run_id, BIAS_REPORT_FILE)
    if found is not None:
        return certificates.read(context.store, found)
    if job.status == JobStatus.SUCCEEDED:
        why = "its dataset has no labels on the split to be scored, so there is no report"
    elif job.status in RESTING:
        why = f"the run {job.status} before its report was written"
    else:
        why = f"the run is {job.status}; its report comes at the end"
    raise Conflict(why)


def certified(context: Context, run_id: str) -> Built:
    """The run's stored report; one of an older form is built anew from the stored predictions.

    Raises NotFound, Conflict where there is none, or nothing to build it from, and Busy.
    """
    stored_report = certificate(context, run_id)
    with context.database.read() as session:
        data = stored.read_run(session, run_id)
    try:
        return Built(BiasReport.model_validate_json(stored_report.content), data.dataset)
    except ValidationError:
        evaluation = data.certifying(stored_report)
    refusal = "the run's report was stored in an older form and can be had as it is: ?format=json"
    if evaluation is None:
        raise Conflict(refusal)
    try:
        return build(context, run_id, evaluation.id)
    except NotFound as error:
        raise Conflict(f"{refusal} ({error.detail})") from error
