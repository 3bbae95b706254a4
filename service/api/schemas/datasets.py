"""Datasets, their rows and their quality report."""

from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field

from service.api.schemas.base import View
from service.datasets.findings import DatasetWarning
from service.datasets.problems import Dropped
from service.datasets.stats import DatasetStats
from service.store.tables import Dataset


class DatasetView(View):
    id: str
    name: str
    content_hash: str = Field(description="SHA-256 of the canonical rows (Parquet).")
    stats: DatasetStats
    warnings: list[DatasetWarning]
    dropped: Dropped
    created_at: datetime

    @classmethod
    def of(cls, row: Dataset) -> "DatasetView":
        return cls(
            id=row.id,
            name=row.name,
            content_hash=row.content_hash,
            stats=DatasetStats.model_validate(row.stats),
            warnings=[DatasetWarning.model_validate(warning) for warning in row.warnings],
            dropped=Dropped.model_validate(row.dropped),
            created_at=row.created_at,
        )


class MessageView(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    role: str
    content: str


class RowView(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: str
    split: str
    text: str | None
    messages: list[MessageView] | None
    label: str | None
    group: str | None
    source: str | None
    detail: str | None
    rationale: str | None
