"""Promotions of runs."""

from datetime import datetime

from pydantic import Field

from service.api.schemas.base import View
from service.domain.release import Hindrance
from service.store.tables import Promotion


class OverrideView(View):
    reason: str
    overrode: list[Hindrance] = Field(
        description="What hindered at the time; empty where nothing did."
    )


class PromotionView(View):
    id: str
    name: str
    stage: str
    run_id: str
    is_current: bool = Field(description="Whether the run has the name now.")
    override: OverrideView | None = Field(
        description="Null where the certifying report passed and nothing was overridden."
    )
    report_sha256: str | None = Field(
        description="SHA-256 of the bias_report.json that it rests on; null where the run has none."
    )
    created_by: str | None = Field(
        description="Name of the API key that asked for it; null where access was open."
    )
    created_at: datetime
    superseded_at: datetime | None = Field(description="When another run was given the name.")

    @classmethod
    def of(cls, row: Promotion) -> "PromotionView":
        override = None
        if row.override_reason is not None:
            overrode = [Hindrance.model_validate(one) for one in row.overrode]
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
        )
