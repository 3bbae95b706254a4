"""Use case: several runs and checkpoints side by side, on predictions that are stored already."""

import json
import re
from collections.abc import Sequence
from typing import NamedTuple

from service.context import Context
from service.domain.errors import Conflict, InvalidRequest
from service.fairness.compare import Entry, compare
from service.fairness.schema import ReportWarning
from service.fairness.schema_compare import Comparison
from service.fairness.thresholds import decide
from service.store.tables import Evaluation
from service.usecases.reports import build as reports
from service.usecases.reports import evaluation_data as stored
from service.usecases.reports.evaluation_data import RunData

MOST = 20
"""Models in one comparison: it tests every two of them."""

_NAMED = re.compile(r"(?P<run>[^@]+)(@(?P<step>[0-9]{1,9}))?")
_POINTER = "/query/runs"


class Named(NamedTuple):
    """An entry as it was asked for."""

    text: str
    run_id: str
    step: int | None
    """Of a checkpoint; None: the run's own adapter."""


class _Candidate(NamedTuple):
    named: Named
    data: RunData
    evaluation: Evaluation


def parse(text: str) -> list[Named]:
    """Read ``run,run@step,…``. Raises InvalidRequest."""
    named: list[Named] = []
    for part in (piece.strip() for piece in text.split(",")):
        found = _NAMED.fullmatch(part)
        if found is None:
            raise InvalidRequest.at(_POINTER, f"{part!r} is neither a run's id nor RUN@STEP")
        step = found["step"]
        one = Named(part, found["run"], None if step is None else int(step))
        if any((one.run_id, one.step) == (other.run_id, other.step) for other in named):
            raise InvalidRequest.at(_POINTER, f"{part} is named twice")
        named.append(one)
    if not 2 <= len(named) <= MOST:
        raise InvalidRequest.at(
            _POINTER, f"name 2 to {MOST} runs, with commas between them; there are {len(named)}"
        )
    return named


def build(context: Context, named: Sequence[Named], split: str | None = None) -> Comparison:
    """Compare them on the rows of the first one.

    A run stands for the evaluation that certifies it, or where `split` is another one for its own
    adapter's there; RUN@STEP for the checkpoint of that step. Caps, min_f1 and confidence are the
    first run's; each model is decided by its own run's threshold rule. Raises NotFound,
    InvalidRequest where they cannot be compared, Conflict where predictions are missing, and Busy.
    """
    with context.database.read() as session:
        runs = {one.run_id: stored.read_run(session, one.run_id) for one in named}
    first = runs[named[0].run_id]
    fairness = first.spec.fairness
    for one in named:
        theirs = runs[one.run_id].spec.fairness.positive_label
        if theirs != fairness.positive_label:
            raise InvalidRequest.at(
                _POINTER,
                f"{one.text} has the positive label {theirs!r} and {named[0].text} has "
                f"{fairness.positive_label!r}: their error rates are of different things",
            )
    if split is None:
        split = _split_of(context, named[0], first)
    rows_of: str | None = None
    chosen: list[_Candidate] = []
    for one in named:
        data = runs[one.run_id]
        evaluation = _evaluation(one, data, split, rows_of)
        rows_of = rows_of or data.content(evaluation)
        chosen.append(_Candidate(one, data, evaluation))
    with reports.LIMITER.acquire():
        return _compared(context, chosen, first, split, rows_of)


def _compared(
    context: Context, chosen: Sequence[_Candidate], first: RunData, split: str, rows_of: str | None
) -> Comparison:
    fairness = first.spec.fairness
    entries = [_entry(context, one) for one in chosen]
    try:
        return compare(
            entries,
            positive_label=fairness.positive_label,
            split=split,
            caps=fairness.caps,
            min_f1=fairness.min_f1,
            confidence=fairness.confidence,
            min_support=fairness.min_support,
            dataset_hash=rows_of,
            settings_of=chosen[0].named.run_id,
            train_counts=first.train_counts(),
            warnings=_warnings(chosen),
        )
    except ValueError as error:
        raise InvalidRequest.at(_POINTER, str(error)) from error


def _split_of(context: Context, named: Named, data: RunData) -> str:
    """The split that certifies the first one's run; of a run without a certificate the test split.

    Raises Conflict where a run that has none stands for itself.
    """
    certificate = data.certificate(context)
    if certificate is not None and certificate.verdicts is not None:
        return certificate.verdicts.meta.split
    if named.step is None:
        raise Conflict(
            f"run {named.run_id} is {data.job.status} and has no bias report; name a split that "
            "its adapter was evaluated on, or a checkpoint of it as RUN@STEP"
        )
    return "test"


def _evaluation(named: Named, data: RunData, split: str, rows_of: str | None) -> Evaluation:
    """The stored evaluation that an entry stands for; with `rows_of`, on rows of that content hash.

    One of the run's own dataset and under its own template before others, then as RunData.rank
    says. Raises Conflict where the model was not scored on the split, and
    InvalidRequest where it was, but on other rows.
    """

    def fits(one: Evaluation) -> bool:
        if one.split != split:
            return False
        if named.step is None:
            return one.target == "adapter"
        return one.target in ("adapter", "checkpoint") and one.step == named.step

    scored = [one for one in data.evaluations if fits(one)]
    if not scored:
        target = "adapter" if named.step is None else "checkpoint"
        body = {"target": target, "split": split}
        if named.step is not None:
            body["step"] = named.step  # type: ignore[assignment]  # JSON
        raise Conflict(
            f"{named.text} was not scored on the {split} split; do so with POST /v1/runs/"
            f"{named.run_id}/evaluations {json.dumps(body)} and compare when it has succeeded"
        )

    def rank(one: Evaluation) -> tuple[bool, bool, tuple[bool, bool, str]]:
        own_rows = one.dataset_id == data.run.dataset_id
        return own_rows, one.template == data.spec.template, data.rank(one)

    same = [one for one in scored if rows_of in (None, data.content(one))]
    if not same:
        raise InvalidRequest.at(
            _POINTER,
            f"{named.text} was scored on other rows: its {split} split is that of "
            f"{scored[-1].dataset_id}, whose content differs from the first one's; evaluate it on "
            "the same dataset (POST …/evaluations with dataset_id)",
        )
    return max(same, key=rank)


def _entry(context: Context, one: _Candidate) -> Entry:
    """Read its predictions, decided as its run decides. Raises NotFound, Conflict."""
    evaluation, spec = one.evaluation, one.data.spec
    positive = spec.fairness.positive_label
    predictions = stored.load(context, evaluation, positive).predictions
    rule, threshold = spec.evaluation.threshold, None
    if rule == "fitted":
        threshold = reports.fitted(context, one.data, evaluation, spec.fairness)
        predictions = decide(predictions, positive, threshold)
    return Entry(
        entry=one.named.text,
        predictions=predictions,
        name=one.data.run.name,
        base_model=spec.base_model,
        template=evaluation.template,
        run_id=one.named.run_id,
        step=one.named.step,
        evaluation_id=evaluation.id,
        rule=rule,
        threshold=threshold,
    )


def _warnings(chosen: Sequence[_Candidate]) -> list[ReportWarning]:
    """Of what the runs have otherwise than the first one, whose settings hold for all."""

    def settings(one: _Candidate) -> object:
        fairness = one.data.spec.fairness
        caps = sorted((cap.group, cap.metric, cap.max) for cap in fairness.caps)
        return caps, fairness.min_f1, fairness.confidence

    others = [one.named.text for one in chosen if settings(one) != settings(chosen[0])]
    if not others:
        return []
    return [
        ReportWarning(
            code="other_settings",
            detail=f"Caps, min_f1 and confidence are those of {chosen[0].named.text}; "
            f"{', '.join(others)} had others.",
        )
    ]
