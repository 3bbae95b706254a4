"""The certifying report of a run: reading it, and the obstacles to promotion that it contains."""

import hashlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, ValidationError

from service.artifacts import ArtifactStore
from service.domain.errors import Conflict
from service.domain.release import Hindrance
from service.domain.wording import count
from service.fairness.schema import CapVerdict, FormatSample, MinF1, Verdict
from service.store.tables import Artifact


class _Lenient(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class _Unseen(_Lenient):
    rows: int
    caps: tuple[CapVerdict, ...]
    min_f1: MinF1 | None


class _Data(_Lenient):
    rows: int = 0


class _Meta(_Lenient):
    split: str
    checkpoint_step: int | None = None
    exploratory: bool = False


class Verdicts(_Lenient):
    """Fields that every schema version of the bias report has in common."""

    schema_version: int
    meta: _Meta
    caps: tuple[CapVerdict, ...]
    caps_verdict: Verdict
    min_f1: MinF1 | None
    format_sample: FormatSample | None = None
    data: _Data = _Data()
    unseen: _Unseen | None = None
    """Verdicts on unseen rows; None if all are, or in a report of an earlier version."""


class Certificate(NamedTuple):
    """Stored `bias_report.json` of a run."""

    content: bytes
    sha256: str
    verdicts: Verdicts | None
    """None if the file is not a valid bias report."""


def read(store: ArtifactStore, artifact: Artifact) -> Certificate:
    """Read a run's report, which never changes once the run has succeeded.

    Raises NotFound if the file is missing, and Conflict if it is not the one that was stored.
    """
    with store.open(artifact.key) as file:
        content = file.read()
    sha256 = hashlib.sha256(content).hexdigest()
    if sha256 != artifact.sha256:
        raise Conflict(
            f"the stored {artifact.path} has the SHA-256 {sha256}, but {artifact.sha256} was "
            "recorded when it was stored: it was modified or damaged since"
        )
    try:
        verdicts = Verdicts.model_validate_json(content)
    except ValidationError:
        verdicts = None
    return Certificate(content, sha256, verdicts)


def hindrances(certificate: Certificate | None, *, is_imported: bool = False) -> list[Hindrance]:
    """Return the obstacles to the promotion of a succeeded run; empty if its report passes.

    The report must cover the test split; every applicable cap must pass, and min_f1 must be met if
    it is set. Both must hold without the rows that the model has seen, too. Caps none of which
    applies prove nothing, so they are an obstacle, and so is having none.
    """
    verdicts = None if certificate is None else certificate.verdicts
    if is_imported:
        return [
            Hindrance(
                kind="no_report",
                detail="the run's adapter was imported: it is unknown on which rows it was "
                "trained, so no report certifies it",
            )
        ]
    if verdicts is None:
        why = "the run has no bias report: its dataset has no labels in the scored splits"
        if certificate is not None:
            why = "the run's stored report is not a valid bias report"
        return [Hindrance(kind="no_report", detail=why)]
    return list(_obstacles(verdicts))


def _obstacles(report: Verdicts) -> Iterator[Hindrance]:
    if report.meta.exploratory:
        yield Hindrance(kind="exploratory", detail="the report is exploratory, which gates nothing")
    if report.meta.split != "test":
        yield Hindrance(
            kind="not_test",
            detail=f"the report covers the {report.meta.split} split; only the test split "
            "certifies a run, since it is used neither for training nor for choosing",
        )
    if not report.caps:
        yield Hindrance(
            kind="no_cap_applies",
            detail="the run has no caps, so the report shows nothing about any group",
        )
    elif all(cap.verdict == "not_applicable" for cap in report.caps):
        groups = ", ".join(sorted({cap.group for cap in report.caps}))
        yield Hindrance(
            kind="no_cap_applies",
            detail=f"the data has none of the groups of the caps ({groups})",
            verdict="not_applicable",
        )
    hindering = list(_of_limits(report.caps, report.min_f1))
    yield from hindering
    if report.unseen is not None and report.meta.split == "test" and not hindering:
        yield from _of_unseen_rows(report.data.rows, report.unseen)


def _of_unseen_rows(rows: int, unseen: _Unseen) -> Iterator[Hindrance]:
    """Yield an obstacle if the report passes only because of rows that the model has seen."""
    seen = f"the model was trained or chosen on {rows - unseen.rows} of {count(rows, 'row')}"
    if not unseen.rows:
        yield Hindrance(kind="not_test", detail=f"{seen}, so nothing is shown on unseen rows")
        return
    for hindrance in _of_limits(unseen.caps, unseen.min_f1):
        detail = f"{seen}; on the other {unseen.rows}: {hindrance.detail}"
        yield hindrance.model_copy(update={"detail": detail})


def _of_limits(caps: Sequence[CapVerdict], minimum: MinF1 | None) -> Iterator[Hindrance]:
    for cap in caps:
        if cap.verdict in ("fail", "inconclusive"):
            yield _of_cap(cap)
    if minimum is not None and minimum.verdict != "met":
        value = f"is {minimum.value:.4f}" if minimum.value is not None else f"({minimum.reason})"
        yield Hindrance(
            kind="min_f1",
            detail=f"F1 {value}; the minimum is {minimum.min_f1:g}",
            limit=minimum.min_f1,
            observed=minimum.value,
            verdict=minimum.verdict,
        )


def _of_cap(cap: CapVerdict) -> Hindrance:
    detail = f"{cap.metric} of {cap.group} at most {cap.max:g}: {cap.verdict}"
    if cap.observed is None or cap.lower is None or cap.upper is None:
        detail += f" ({cap.reason})"
    else:
        detail += (
            f", {cap.numerator} of {cap.denominator} = {cap.observed:.4f}, one-sided limits "
            f"{cap.lower:.4f} and {cap.upper:.4f}"
        )
        if cap.needed_further is not None:
            kind = "negatives" if cap.metric == "fpr" else "positives"
            detail += (
                f"; {cap.needed_further} further {kind} at this rate would make it a "
                f"{cap.would_settle}"
            )
        elif cap.verdict == "inconclusive" and cap.reason:
            detail += f"; {cap.reason}"
    return Hindrance(
        kind="cap",
        detail=detail,
        group=cap.group,
        metric=cap.metric,
        limit=cap.max,
        observed=cap.observed,
        verdict=cap.verdict,
        needed_further=cap.needed_further,
        would_settle=cap.would_settle,
    )
