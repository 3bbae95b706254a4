"""Promotion of a run to a name under which it is served, and the obstacles to it."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Name = Annotated[
    str,
    Field(
        min_length=1,
        max_length=100,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
        description="Starts with a letter or digit; letters, digits, dots, dashes and underscores.",
    ),
]

DEFAULT_STAGE = "production"


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Override(_Part):
    """Promotion although the certifying report does not pass."""

    reason: str = Field(
        min_length=1,
        max_length=2000,
        pattern=r"^[^\x00]*[^\s\x00][^\x00]*$",  # not blank, no NUL (PostgreSQL)
        description="Reason for the override; stored with the promotion, its author and the "
        "obstacles.",
    )


class PromotionRequest(_Part):
    """Body of POST /v1/runs/{id}/promote."""

    name: Name = Field(description="Name under which the run is served.")
    stage: Name = Field(DEFAULT_STAGE, description="Stage of that name, such as production.")
    override: Override | None = Field(
        None, description="Promote even if the certifying report does not pass; null: refuse then."
    )


class Hindrance(_Part):
    """One reason why a certifying report does not let its run be promoted."""

    kind: Literal["no_report", "exploratory", "not_test", "cap", "no_cap_applies", "min_f1"] = (
        Field(
            description="Kind of obstacle. cap, min_f1: the figure does not meet the limit, on all "
            "rows or without those that the model has seen. no_cap_applies: the run has no caps, "
            "or none applies. not_test: the rows are not those of an unseen test split."
        )
    )
    detail: str = Field(description="The obstacle as a sentence, with the figures.")
    group: str | None = Field(default=None, description="The cap's group; null for other kinds.")
    metric: Literal["fpr", "fnr"] | None = Field(
        default=None, description="The cap's error rate; null for other kinds."
    )
    limit: float | None = Field(default=None, description="The cap, or the minimum F1.")
    observed: float | None = Field(
        default=None, description="The measured figure; null if it cannot be computed."
    )
    verdict: str | None = Field(default=None, description="Verdict in the report.")
    needed_further: int | None = Field(
        default=None,
        description="For an inconclusive cap: the minimum number of further negatives (fpr) or "
        "positives (fnr) at the observed rate that would settle it; null if no number would.",
    )
    would_settle: Literal["pass", "fail"] | None = Field(
        default=None, description="Verdict after needed_further more rows."
    )
