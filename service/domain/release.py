"""Giving a run a name that others serve by, and what may hinder that."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Name = Annotated[
    str,
    Field(
        min_length=1,
        max_length=100,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
        description="Letters, digits, dots, dashes and underscores.",
    ),
]

DEFAULT_STAGE = "production"


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Override(_Part):
    """Promote although the certifying report does not pass."""

    reason: str = Field(
        min_length=1,
        max_length=2000,
        pattern=r"^[^\x00]*[^\s\x00][^\x00]*$",  # not blank, and nothing PostgreSQL cannot keep
        description="Why. It is kept with the promotion, and so is who said it and what hindered.",
    )


class PromotionRequest(_Part):
    """What POST /v1/runs/{id}/promote takes."""

    name: Name
    stage: Name = DEFAULT_STAGE
    override: Override | None = None


class Hindrance(_Part):
    """One thing for which a certifying report does not let its run be promoted."""

    kind: Literal["no_report", "exploratory", "not_test", "cap", "no_cap_applies", "min_f1"] = (
        Field(
            description="What hinders. cap and min_f1: the figure did not meet what was asked for."
        )
    )
    detail: str = Field(description="The same in a sentence, with the figures.")
    group: str | None = Field(default=None, description="Of a cap: the group that it is about.")
    metric: Literal["fpr", "fnr"] | None = Field(
        default=None, description="Of a cap: which error rate."
    )
    limit: float | None = Field(default=None, description="The cap, or the least F1 asked for.")
    observed: float | None = Field(
        default=None, description="The measured figure; null: not to be had."
    )
    verdict: str | None = Field(default=None, description="As it stands in the report.")
    needed_further: int | None = Field(
        default=None,
        description="Of an inconclusive cap: the fewest further negatives (fpr) or positives (fnr) "
        "at the observed rate that would settle it; null when none would.",
    )
    would_settle: Literal["pass", "fail"] | None = Field(
        default=None, description="The verdict that needed_further would give."
    )
