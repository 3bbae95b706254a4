"""Evaluations as jobs of their own: what may be asked for, and what was made of that."""

from collections.abc import Collection

from pydantic import BaseModel, ConfigDict, Field

from service.domain.spec import Split
from service.domain.task import Target, Task


class EvaluationRequest(BaseModel):
    """What POST /v1/runs/{id}/evaluations takes. What is left out is the run's own."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    target: Target = Field(
        "adapter", description="Which weights; merged: the run's newest finished merge."
    )
    step: int | None = Field(
        None, ge=0, le=2**31 - 1, description="Of the checkpoint; for the target checkpoint alone."
    )
    dataset_id: str | None = Field(
        None, max_length=100, description="Null: the run's. Its rows may lack labels."
    )
    split: Split = Field("test", description="Whose rows are scored.")
    template: str | None = Field(
        None,
        max_length=100,
        description="Null: the run's; for the base model its evaluation.baseline_template, where "
        "it has one.",
    )
    max_samples: int | None = Field(
        None,
        ge=1,
        le=2**31 - 1,
        description="Score so many rows at most: those whose ids have the smallest SHA-256, which "
        "are the same ones for every run and target.",
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


def report_split(wanted: Collection[str], labelled: Collection[str]) -> Split | None:
    """The split that a run's bias report is about: test, else validation, else train.

    One of the `wanted` that has labels; None: there is no report.
    """
    order: tuple[Split, ...] = ("test", "validation", "train")
    return next((one for one in order if one in wanted and one in labelled), None)
