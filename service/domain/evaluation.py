"""Evaluations as jobs of their own: the request, and the task resolved from it."""

from collections.abc import Collection

from pydantic import BaseModel, ConfigDict, Field
from pydantic.config import JsonDict

from service.domain.section import refused, together
from service.domain.spec import Split
from service.domain.task import Target, Task

STEP = "Step of the checkpoint; required with target checkpoint, and refused with others."
STEP_MISMATCH: tuple[JsonDict, ...] = (
    together(
        {"target": {"enum": ["base", "adapter", "merged"]}, "step": {"type": "integer"}},
        or_omitted="target",
    ),
    together({"target": {"const": "checkpoint"}, "step": {"type": "null"}}, or_omitted="step"),
)
"""JSON Schema of requests with a step and another target, or without one."""


class EvaluationRequest(BaseModel):
    """Body of POST /v1/runs/{id}/evaluations; omitted fields default to the run's own values."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        json_schema_extra=refused(*STEP_MISMATCH),
    )

    target: Target = Field(
        "adapter",
        description="Weights to score; merged: the model of the run's newest finished merge.",
    )
    step: int | None = Field(None, ge=0, le=2**31 - 1, description=STEP)
    dataset_id: str | None = Field(
        None,
        max_length=100,
        description="Dataset to score; null: the run's. Its rows may lack labels.",
    )
    split: Split = Field("test", description="Split of the dataset to score.")
    template: str | None = Field(
        None,
        max_length=100,
        description="Prompt template; null: the run's, or for the base model its "
        "evaluation.baseline_template if set.",
    )
    max_samples: int | None = Field(
        None,
        ge=1,
        le=2**31 - 1,
        description="Maximum number of rows to score: those whose ids have the smallest SHA-256, "
        "the same rows for every run and target. Null: all.",
    )


class EvaluationTask(Task):
    """Parameters of an evaluation job."""

    target: Target
    dataset_id: str
    split: Split
    template: str
    labels: list[str]
    """Labels of the run's training rows, sorted. Every row is scored against all of them."""
    max_samples: int | None = None


def report_split(scored: Collection[str], labelled: Collection[str]) -> Split | None:
    """Return the split of a run's bias report: test, else validation, else train.

    It is a scored split that has labels; None: there is no report.
    """
    order: tuple[Split, ...] = ("test", "validation", "train")
    return next((split for split in order if split in scored and split in labelled), None)
