"""The report that certifies a run: read from the store, and whether it lets the run be promoted."""

import hashlib
from collections.abc import Iterator
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, ValidationError

from service.artifacts import ArtifactStore
from service.domain.errors import Conflict
from service.domain.release import Hindrance
from service.fairness.schema import CapVerdict, FormatSample, MinF1, Verdict
from service.store.tables import Artifact


class _Lenient(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class _Meta(_Lenient):
    split: str
    checkpoint_step: int | None = None
    exploratory: bool = False


class Verdicts(_Lenient):
    """What every version of the bias report's form has in common."""

    schema_version: int
    meta: _Meta
    caps: tuple[CapVerdict, ...]
    caps_verdict: Verdict
    min_f1: MinF1 | None
    format_sample: FormatSample | None = None


class Certificate(NamedTuple):
    """`bias_report.json` as it stands in the store."""

    content: bytes
    sha256: str
    verdicts: Verdicts | None
    """None where the file does not hold a bias report."""


def read(store: ArtifactStore, artifact: Artifact) -> Certificate:
    """Raises NotFound where the file is gone, and Conflict where it is another than was put there.

    A run's report never changes once it has succeeded.
    """
    with store.open(artifact.key) as file:
        content = file.read()
    sha256 = hashlib.sha256(content).hexdigest()
    if sha256 != artifact.sha256:
        raise Conflict(
            f"the stored {artifact.path} has the SHA-256 {sha256}, and {artifact.sha256} was "
            "recorded when it was put there: it was changed or damaged since"
        )
    try:
        verdicts = Verdicts.model_validate_json(content)
    except ValidationError:
        verdicts = None
    return Certificate(content, sha256, verdicts)


def hindrances(certificate: Certificate | None) -> list[Hindrance]:
    """What hinders the promotion of a succeeded run; empty where its report passes.

    The report must be about the test split; every cap that applies must pass, and min_f1 be met,
    where they were asked for. Caps of which not one applies prove nothing, so they hinder too.
    """
    verdicts = None if certificate is None else certificate.verdicts
    if verdicts is None:
        why = "the run has no bias report: its dataset has no labels on the splits to be scored"
        if certificate is not None:
            why = "the run's stored report cannot be read as one"
        return [Hindrance(kind="no_report", detail=why)]
    return list(_found(verdicts))


def _found(report: Verdicts) -> Iterator[Hindrance]:
    if report.meta.exploratory:
        yield Hindrance(kind="exploratory", detail="the report is exploratory, which gates nothing")
    if report.meta.split != "test":
        yield Hindrance(
            kind="not_test",
            detail=f"the report is about the {report.meta.split} split; the test split certifies a "
            "run, since nothing was learned from it or chosen by it",
        )
    if report.caps and all(cap.verdict == "not_applicable" for cap in report.caps):
        groups = ", ".join(sorted({cap.group for cap in report.caps}))
        yield Hindrance(
            kind="no_cap_applies",
            detail=f"caps were asked for, and the data has none of their groups ({groups})",
            verdict="not_applicable",
        )
    for cap in report.caps:
        if cap.verdict in ("fail", "inconclusive"):
            yield _of_cap(cap)
    if (least := report.min_f1) is not None and least.verdict != "met":
        said = f"is {least.value:.4f}" if least.value is not None else f"({least.reason})"
        yield Hindrance(
            kind="min_f1",
            detail=f"F1 {said}, and at least {least.min_f1:g} is asked for",
            limit=least.min_f1,
            observed=least.value,
            verdict=least.verdict,
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
