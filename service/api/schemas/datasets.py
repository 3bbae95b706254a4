"""Datasets and their rows."""

from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field
from pydantic.config import JsonDict

from service.api.schemas.base import View
from service.datasets.findings import DatasetWarning
from service.datasets.problems import Dropped
from service.datasets.stats import DatasetStats
from service.store.tables import Dataset

_EXAMPLE: JsonDict = {
    "id": "ds_01jz8x0m3c9v5k2q7w4t6y8n1a",
    "name": "my posts",
    "content_hash": "1433523cf7afa0997dcf114b74f1f09f6699c6c4151facc7783337adf391d8a5",
    "stats": {
        "kind": "text",
        "rows": 3,
        "has_labels": True,
        "has_groups": True,
        "labels": {"hate": 1, "normal": 2},
        "groups": {"mexican": 3},
        "group_labels": {"mexican": {"hate": 1, "normal": 2}},
        "splits": {
            "train": {
                "rows": 2,
                "has_labels": True,
                "has_groups": True,
                "labels": {"hate": 1, "normal": 1},
                "groups": {"mexican": 2},
                "group_labels": {"mexican": {"hate": 1, "normal": 1}},
            },
            "test": {
                "rows": 1,
                "has_labels": True,
                "has_groups": True,
                "labels": {"normal": 1},
                "groups": {"mexican": 1},
                "group_labels": {"mexican": {"normal": 1}},
            },
        },
        "text_length": {"min": 16, "median": 22, "p90": 24, "p99": 24, "max": 24},
        "repeated_rows": 0,
        "shared_rows": {"test": 0},
        "conflicting_rows": 0,
        "zero_weight_rows": 0,
    },
    "warnings": [
        {
            "code": "missing_class",
            "detail": "No row of test is labelled 'hate': what needs rows of the class, such as "
            "its recall, and F1 and AUC if it is the positive label, cannot be measured on test.",
            "count": 0,
        }
    ],
    "dropped": {"total": 0, "by_kind": {}, "rows": []},
    "created_at": "2026-11-26T12:00:00Z",
}
"""The answer to the first example of a request (service.api.examples.DATASETS)."""


class DatasetView(View):
    """A dataset. Its rows never change after the upload."""

    model_config = ConfigDict(frozen=True, json_schema_extra={"example": _EXAMPLE})

    id: str = Field(description="Identifier of the dataset; a run's `dataset_id`.")
    name: str = Field(description="Name from the upload.")
    content_hash: str = Field(description="SHA-256 of the canonical rows (Parquet).")
    stats: DatasetStats = Field(description="Row counts by split, label and group; text lengths.")
    warnings: list[DatasetWarning] = Field(
        description="Findings that may impair training or the report; none of them prevents a run."
    )
    dropped: Dropped = Field(description="Rows that `on_invalid=drop` left out.")
    created_at: datetime = Field(description="Time of the upload.")

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
    """A message of a chat."""

    model_config = ConfigDict(from_attributes=True)

    role: str = Field(description="Author of the message: system, user or assistant.")
    content: str = Field(description="Text of the message.")
    weight: int = Field(1, description="0 if the message must not be learned, otherwise 1.")


class RowView(BaseModel):
    """A canonical row: either `text` or `messages` is set."""

    model_config = ConfigDict(from_attributes=True)

    id: str = Field(description="Identifier of the row within its dataset.")
    split: str = Field(description="train, validation or test.")
    text: str | None = Field(description="Text to classify; null for a chat.")
    messages: list[MessageView] | None = Field(
        description="Messages of a chat, the answer last; null for a text."
    )
    label: str | None = Field(description="Gold label; null if the row is unlabelled.")
    group: str | None = Field(description="Group that the row is about; null if unknown.")
    source: str | None = Field(description="Data set that the row was taken from.")
    detail: str | None = Field(description="Finer label, such as a functionality of HateCheck.")
    rationale: str | None = Field(description="Annotators' explanation of the label.")
