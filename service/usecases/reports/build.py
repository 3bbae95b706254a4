"""Use case: compute a bias report on stored predictions; nothing is scored or stored."""

from typing import NamedTuple

from pydantic import ValidationError

from service.artifacts import StoredFile
from service.context import Context
from service.datasets import rows as dataset_rows
from service.datasets.stats import DatasetStats
from service.datasets.templates import builtin_templates
from service.domain.errors import Conflict, NotFound
from service.domain.job import BIAS_REPORT_FILE
from service.domain.states import RESTING, JobStatus
from service.fairness import (
    BiasReport,
    Criteria,
    ReportContext,
    ScoredData,
    build_report,
)
from service.fairness.schema import ReportMeta, ReportWarning, Shown
from service.ops.capacity_limiter import CapacityLimiter
from service.store import datasets as dataset_store
from service.store import evaluations
from service.store import runs as rows
from service.store.tables import Dataset
from service.usecases.reports import certifying as certificates
from service.usecases.reports import evaluation_data as stored
from service.usecases.reports.certifying import Certificate
from service.usecases.reports.counterparts import base_predictions, validation_predictions
from service.usecases.reports.differences import differences
from service.usecases.reports.evaluation_data import groups_of
from service.usecases.reports.options import (
    ReportRequest,
    check_caps,
    settings_of,
)
from service.usecases.reports.seen import seen_by

# A report on a hundred thousand rows takes a core for many seconds and hundreds of megabytes.
LIMITER = CapacityLimiter("reports and comparisons", at_once=2, waiting=6, seconds=30)


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
    reasons = differences(data, evaluation, certifying, fairness, rule, request)
    positive = fairness.positive_label
    with LIMITER.acquire():
        scored = stored.load(context, evaluation, positive)
        tuned = scored.predictions
        base = base_predictions(context, data, evaluation, tuned, request)
        validation = validation_predictions(
            context, data, evaluation, positive, needed=rule == "fitted"
        )
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
                dataset_groups=groups_of([dataset]),
                seen=seen_by(context, data, evaluation),
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
                exploratory=bool(reasons),
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
                differences=reasons,
                training_unknown=data.is_imported and evaluation.target != "base",
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
        run, job = rows.get_run(session, run_id)
        artifact = rows.find_artifact(session, run_id, BIAS_REPORT_FILE)
    if artifact is not None:
        return certificates.read(context.store, artifact)
    if run.imported is not None:
        why = (
            "the run's adapter was imported, and no report certifies it: evaluate it (POST "
            f"/v1/runs/{run_id}/evaluations) and get a report on that evaluation"
        )
    elif job.status == JobStatus.SUCCEEDED:
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
