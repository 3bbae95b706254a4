"""Use case: compare runs and checkpoints side by side on stored predictions."""

import json
import re
from collections.abc import Sequence
from typing import NamedTuple

from service.context import Context
from service.domain.errors import Conflict, InvalidRequest
from service.domain.wording import agree, count
from service.fairness.compare import Entry, compare
from service.fairness.report_warnings import TRAINING_ROWS_UNKNOWN
from service.fairness.schema import ReportWarning
from service.fairness.schema_compare import Comparison
from service.fairness.thresholds import decide
from service.store.tables import Evaluation
from service.usecases.reports import build as reports
from service.usecases.reports import evaluation_data as stored
from service.usecases.reports.counterparts import fitted_threshold
from service.usecases.reports.evaluation_data import ADAPTER_TARGETS, RunData, groups_of
from service.usecases.reports.seen import seen_by

MAX_MODELS = 20
"""Models in one comparison, which tests every pair of them."""

_MODEL = re.compile(r"(?P<run>[^@]+)(@(?P<step>[0-9]{1,9}))?")
_LISTED = r"\s*[^\s@,\u0000][^@,\u0000]*(@[0-9]{1,9}\s*)?"
PATTERN = rf"^{_LISTED}(,{_LISTED}){{1,{MAX_MODELS - 1}}}$"
"""Pattern of a list of models, for JSON Schema."""
_POINTER = "/query/runs"


class ModelRef(NamedTuple):
    """Reference to a run's model, as in the request."""

    text: str
    run_id: str
    step: int | None
    """Step of a checkpoint; None: the run's own adapter."""


class _Candidate(NamedTuple):
    """A referenced model, and the evaluation that stands for it."""

    model: ModelRef
    data: RunData
    evaluation: Evaluation


def parse(text: str) -> list[ModelRef]:
    """Parse ``run,run@step,…``. Raises InvalidRequest."""
    models: list[ModelRef] = []
    for part in (piece.strip() for piece in text.split(",")):
        match = _MODEL.fullmatch(part)
        if match is None:
            raise InvalidRequest.at(_POINTER, f"{part!r} is neither a run's id nor RUN@STEP")
        step = match["step"]
        model = ModelRef(part, match["run"], None if step is None else int(step))
        if any((model.run_id, model.step) == (other.run_id, other.step) for other in models):
            raise InvalidRequest.at(_POINTER, f"{part} is listed twice")
        models.append(model)
    if not 2 <= len(models) <= MAX_MODELS:
        raise InvalidRequest.at(
            _POINTER,
            f"list 2 to {MAX_MODELS} runs, separated by commas; there "
            f"{agree(len(models), 'is', 'are')} {len(models)}",
        )
    return models


def build(context: Context, models: Sequence[ModelRef], split: str | None = None) -> Comparison:
    """Compare the models on the rows of the first one.

    A run stands for the evaluation that certifies it, or on another `split` for its adapter's
    evaluation there; RUN@STEP stands for the checkpoint of that step. Caps, min_f1 and confidence
    are the first run's; each model is judged by its own run's threshold rule. Raises NotFound,
    InvalidRequest if they cannot be compared, Conflict if predictions are missing, and Busy.
    """
    with context.database.read() as session:
        runs = {model.run_id: stored.read_run(session, model.run_id) for model in models}
    first = runs[models[0].run_id]
    fairness = first.spec.fairness
    for model in models:
        positive = runs[model.run_id].spec.fairness.positive_label
        if positive != fairness.positive_label:
            raise InvalidRequest.at(
                _POINTER,
                f"{model.text} has the positive label {positive!r} and {models[0].text} has "
                f"{fairness.positive_label!r}: their error rates are not comparable",
            )
    if split is None:
        split = _split_of(context, models[0], first)
    content_hash: str | None = None
    candidates: list[_Candidate] = []
    for model in models:
        data = runs[model.run_id]
        evaluation = _evaluation(model, data, split, content_hash)
        content_hash = content_hash or data.content(evaluation)
        candidates.append(_Candidate(model, data, evaluation))
    with reports.LIMITER.acquire():
        return _compared(context, candidates, first, split, content_hash)


def _compared(
    context: Context,
    candidates: Sequence[_Candidate],
    first: RunData,
    split: str,
    content_hash: str | None,
) -> Comparison:
    fairness = first.spec.fairness
    entries = [_entry(context, candidate) for candidate in candidates]
    try:
        return compare(
            entries,
            positive_label=fairness.positive_label,
            split=split,
            caps=fairness.caps,
            min_f1=fairness.min_f1,
            confidence=fairness.confidence,
            min_support=fairness.min_support,
            dataset_hash=content_hash,
            settings_of=candidates[0].model.run_id,
            dataset_groups=groups_of([first.datasets[candidates[0].evaluation.dataset_id]]),
            warnings=[*_warnings(candidates), *_seen_warnings(context, candidates)],
        )
    except ValueError as error:
        raise InvalidRequest.at(_POINTER, str(error)) from error


def _split_of(context: Context, model: ModelRef, data: RunData) -> str:
    """Return the split of the run's certificate; for a checkpoint of a run without one, test.

    Raises Conflict for a run without a certificate.
    """
    certificate = data.certificate(context)
    if certificate is not None and certificate.verdicts is not None:
        return certificate.verdicts.meta.split
    if model.step is None:
        raise Conflict(
            f"run {model.run_id} is {data.job.status} and has no bias report; set a split that its "
            "adapter was evaluated on, or use one of its checkpoints as RUN@STEP"
        )
    return "test"


def _evaluation(model: ModelRef, data: RunData, split: str, content_hash: str | None) -> Evaluation:
    """Return the stored evaluation that stands for a model, on rows of that hash (None: any).

    The run's own dataset and template are preferred, then RunData.rank decides. Raises Conflict if
    the model was not scored on the split, and InvalidRequest if it was, but on other rows.
    """

    def matches(evaluation: Evaluation) -> bool:
        if evaluation.split != split:
            return False
        if model.step is None:
            return evaluation.target == "adapter"
        return evaluation.target in ADAPTER_TARGETS and evaluation.step == model.step

    scored = [evaluation for evaluation in data.evaluations if matches(evaluation)]
    if not scored:
        target = "adapter" if model.step is None else "checkpoint"
        body = {"target": target, "split": split}
        if model.step is not None:
            body["step"] = model.step  # type: ignore[assignment]  # JSON
        raise Conflict(
            f"{model.text} was not scored on the {split} split; request it with POST /v1/runs/"
            f"{model.run_id}/evaluations {json.dumps(body)} and compare after it has succeeded"
        )

    def rank(evaluation: Evaluation) -> tuple[bool, bool, tuple[bool, bool, str]]:
        own_rows = evaluation.dataset_id == data.run.dataset_id
        own_template = evaluation.template == data.spec.template
        return own_rows, own_template, data.rank(evaluation)

    same = [row for row in scored if content_hash in (None, data.content(row))]
    if not same:
        raise InvalidRequest.at(
            _POINTER,
            f"{model.text} was scored on other rows: its {split} split is that of "
            f"{scored[-1].dataset_id}, whose content differs from that of the first run; evaluate "
            "it on the same dataset (POST …/evaluations with dataset_id)",
        )
    return max(same, key=rank)


def _entry(context: Context, candidate: _Candidate) -> Entry:
    """Read a model's predictions under its run's threshold rule. Raises NotFound, Conflict."""
    model, data, evaluation = candidate
    spec = data.spec
    positive = spec.fairness.positive_label
    predictions = stored.load(context, evaluation, positive).predictions
    rule, threshold = spec.evaluation.threshold, None
    if rule == "fitted":
        threshold = fitted_threshold(context, data, evaluation, spec.fairness)
        predictions = decide(predictions, positive, threshold)
    return Entry(
        entry=model.text,
        predictions=predictions,
        name=data.run.name,
        base_model=spec.base_model,
        template=evaluation.template,
        run_id=model.run_id,
        step=model.step,
        evaluation_id=evaluation.id,
        rule=rule,
        threshold=threshold,
    )


def _warnings(candidates: Sequence[_Candidate]) -> list[ReportWarning]:
    """Return a warning if settings differ from the first run's, which apply to all."""

    def settings(candidate: _Candidate) -> object:
        fairness = candidate.data.spec.fairness
        caps = sorted((cap.group, cap.metric, cap.max) for cap in fairness.caps)
        return caps, fairness.min_f1, fairness.confidence

    first = settings(candidates[0])
    others = [candidate.model.text for candidate in candidates if settings(candidate) != first]
    if not others:
        return []
    return [
        ReportWarning(
            code="other_settings",
            detail=f"Caps, min_f1 and confidence are those of {candidates[0].model.text}; "
            f"those of {', '.join(others)} differ.",
        )
    ]


def _seen_warnings(context: Context, candidates: Sequence[_Candidate]) -> list[ReportWarning]:
    """Return a warning for each model that was trained or chosen on some of the compared rows."""
    warnings = []
    for model, data, evaluation in candidates:
        seen = seen_by(context, data, evaluation)
        if seen is None:
            detail = f"{model.text}: {TRAINING_ROWS_UNKNOWN}"
            warnings.append(ReportWarning(code="training_rows_unknown", detail=detail))
            continue
        for code, rows, influence in (
            ("seen_in_training", seen.in_training, "was trained on"),
            ("seen_in_validation", seen.in_validation, "may have been chosen on"),
        ):
            if rows:
                detail = (
                    f"{model.text} {influence} the text of {count(len(rows), 'compared row')}: its "
                    "figures are likely to be better than on unseen rows."
                )
                warnings.append(ReportWarning(code=code, detail=detail))
    return warnings
