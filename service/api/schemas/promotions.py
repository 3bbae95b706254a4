"""Promotions of runs."""

from datetime import datetime

from pydantic import Field

from service.api.schemas.base import View
from service.domain.release import Hindrance
from service.store.tables import Promotion


class OverrideView(View):
    """An override of the release gate."""

    reason: str = Field(description="Reason from the request.")
    overrode: list[Hindrance] = Field(
        description="Obstacles at the time of the promotion; empty if there were none."
    )


class PromotionView(View):
    """The assignment of a release name to a run."""

    id: str = Field(description="Identifier of the promotion.")
    name: str = Field(description="Release name.")
    stage: str = Field(description="Stage of the release, such as staging or production.")
    run_id: str = Field(description="Promoted run.")
    is_current: bool = Field(description="True if the run has the name now.")
    override: OverrideView | None = Field(
        description="Override of the release gate; null if the certifying report passed."
    )
    report_sha256: str | None = Field(
        description="SHA-256 of the certifying bias_report.json; null if the run has none."
    )
    created_by: str | None = Field(
        description="Name of the API key of the request; null without authentication."
    )
    created_at: datetime = Field(description="Time of the promotion.")
    superseded_at: datetime | None = Field(
        description="Time at which the run lost the name, to another run or by withdrawal; null "
        "if current."
    )
    withdrawn_at: datetime | None = Field(
        default=None, description="Time of the withdrawal; null if the name was not withdrawn."
    )
    withdrawn_by: str | None = Field(
        default=None,
        description="Name of the API key that withdrew it; null without authentication.",
    )

    @classmethod
    def of(cls, row: Promotion) -> "PromotionView":
        override = None
        if row.override_reason is not None:
            overrode = [Hindrance.model_validate(entry) for entry in row.overrode]
            override = OverrideView(reason=row.override_reason, overrode=overrode)
        return cls(
            id=row.id,
            name=row.name,
            stage=row.stage,
            run_id=row.run_id,
            is_current=row.superseded_at is None,
            override=override,
            report_sha256=row.report_sha256,
            created_by=row.created_by,
            created_at=row.created_at,
            superseded_at=row.superseded_at,
            withdrawn_at=row.withdrawn_at,
            withdrawn_by=row.withdrawn_by,
        )
