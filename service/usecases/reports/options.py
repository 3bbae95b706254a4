"""What a report on stored predictions is asked for with, laid over what the run has."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, PlainValidator, ValidationError, WithJsonSchema
from pydantic_core import PydanticCustomError

from service.domain.errors import InvalidRequest
from service.domain.spec import Cap, FairnessSection, RunSpec, Section
from service.domain.validation import invalid
from service.store.tables import Dataset
from service.usecases.reports.evaluation_data import groups_of


def _rule(value: Any) -> str | float:
    if isinstance(value, str) and value in ("argmax", "fitted"):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1:
        return float(value)
    raise PydanticCustomError("threshold", "say argmax, fitted or a number from 0 to 1")


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
    """What a field is without being said is the run's affair, not this form's."""
    for field in schema["properties"].values():
        field.pop("default", None)


class ReportRequest(Section):
    """What a report is asked for with. What is left out is as the run has it."""

    model_config = ConfigDict(json_schema_extra=_without_defaults)

    caps: list[Cap] = Field(
        default=[], max_length=200, description="Left out: the run's; []: none."
    )
    confidence: float = Field(default=0.95, gt=0.5, lt=1, description="Left out: the run's.")
    min_f1: float | None = Field(
        default=None, ge=0, le=1, description="Left out: the run's; null: none."
    )
    min_support: int = Field(default=30, ge=1, le=10_000_000, description="Left out: the run's.")
    threshold: Threshold = Field(
        default="argmax",
        description="argmax: the most probable label. fitted: the score that gives the best F1 "
        "within the caps on the run's validation split. A number: a row is positive from that "
        "score on. Left out: the run's evaluation.threshold.",
    )
    base_evaluation: str | None = Field(
        default=None,
        max_length=100,
        description="An evaluation of the base model on the same rows, to stand beside it. Left "
        "out: the run's own, where it is of the same rows; null: none.",
    )


def settings_of(spec: RunSpec, request: ReportRequest) -> tuple[FairnessSection, str | float]:
    """What a report is made with, and the threshold rule or number. Raises InvalidRequest."""
    given = request.model_dump(include=request.model_fields_set)
    rule = given.pop("threshold", spec.evaluation.threshold)
    given.pop("base_evaluation", None)
    try:
        fairness = FairnessSection.model_validate(spec.fairness.model_dump() | given)
    except ValidationError as error:
        raise invalid(error) from error
    return fairness, rule


def as_the_run(spec: RunSpec, fairness: FairnessSection, rule: str | float) -> bool:
    """Whether these are the run's own: then a report on what certifies it is no exploration."""

    def settings(section: FairnessSection) -> tuple[Any, ...]:
        caps = sorted((cap.group, cap.metric, cap.max) for cap in section.caps)
        return caps, section.confidence, section.min_f1, section.min_support

    return rule == spec.evaluation.threshold and settings(fairness) == settings(spec.fairness)


def check_caps(request: ReportRequest, datasets: Sequence[Dataset]) -> None:
    """Raise InvalidRequest where a cap that was named is on a group that none of them has."""
    if "caps" not in request.model_fields_set:
        return
    groups = groups_of(datasets)
    for number, cap in enumerate(request.caps):
        if cap.group not in groups:
            has = ", ".join(sorted(groups)) if groups else "no groups"
            raise InvalidRequest.at(
                f"/caps/{number}/group", f"the data has no group {cap.group!r}; it has {has}"
            )
