"""Options of a report on stored predictions, merged into the run's own settings."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, PlainValidator, ValidationError, WithJsonSchema
from pydantic_core import PydanticCustomError

from service.domain.section import Section
from service.domain.spec import Cap, FairnessSection, RunSpec
from service.domain.validation import invalid
from service.store.tables import Dataset
from service.usecases.reports.evaluation_data import groups_of
from service.usecases.run_checks import check_cap_groups


def _rule(value: Any) -> str | float:
    if isinstance(value, str) and value in ("argmax", "fitted"):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1:
        return float(value)
    raise PydanticCustomError("threshold", "must be argmax, fitted or a number from 0 to 1")


Threshold = Annotated[
    Literal["argmax", "fitted"] | float,
    PlainValidator(_rule),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "enum": ["argmax", "fitted"]},
                {"type": "number", "minimum": 0, "maximum": 1},
            ]
        }
    ),
]


def _without_defaults(schema: dict[str, Any]) -> None:
    """Remove the defaults from the schema: an omitted field takes the run's own value."""
    for field in schema["properties"].values():
        field.pop("default", None)


class ReportRequest(Section):
    """Options of a report; omitted fields take the run's own values."""

    model_config = ConfigDict(json_schema_extra=_without_defaults)

    caps: list[Cap] = Field(
        default=[],
        max_length=200,
        description="Release limits, at most one for each group and metric; omitted: the run's; "
        "[]: none.",
    )
    confidence: float = Field(
        default=0.95,
        gt=0.5,
        lt=1,
        description="Confidence level of intervals and verdicts; omitted: the run's.",
    )
    min_f1: float | None = Field(
        default=None, ge=0, le=1, description="Minimum overall F1; omitted: the run's; null: none."
    )
    min_support: int = Field(
        default=30,
        ge=1,
        le=10_000_000,
        description="Groups with fewer negatives (FPR) or positives (FNR) are flagged as small; "
        "omitted: the run's.",
    )
    threshold: Threshold = Field(
        default="argmax",
        description="argmax: predict the most probable label. fitted: predict the positive label "
        "from the score that gives the highest F1 within the caps on the run's validation split. "
        "A number: predict the positive label from that score on. Omitted: the run's "
        "evaluation.threshold.",
    )
    base_evaluation: str | None = Field(
        default=None,
        max_length=100,
        description="Id of an evaluation of the base model on the same rows, for comparison. "
        "Omitted: the run's own, if it is on the same rows; null: none.",
    )


def settings_of(spec: RunSpec, request: ReportRequest) -> tuple[FairnessSection, str | float]:
    """Return the report's criteria, and its threshold rule or number. Raises InvalidRequest."""
    options = request.model_dump(include=request.model_fields_set)
    rule = options.pop("threshold", spec.evaluation.threshold)
    options.pop("base_evaluation", None)
    try:
        fairness = FairnessSection.model_validate(spec.fairness.model_dump() | options)
    except ValidationError as error:
        raise invalid(error) from error
    return fairness, rule


def check_caps(request: ReportRequest, datasets: Sequence[Dataset]) -> None:
    """Raise InvalidRequest if a requested cap is on a group that no dataset has."""
    if "caps" in request.model_fields_set:
        check_cap_groups("/caps", request.caps, groups_of(datasets))
