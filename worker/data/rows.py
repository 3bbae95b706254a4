"""Canonical rows of a dataset."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Row:
    """A canonical row. Exactly one of `text` and `messages` is set.

    A message is {role, content}; one that must not be learned also has weight, 0.
    """

    id: str
    text: str | None
    messages: list[dict[str, str]] | None
    label: str | None
    group: str | None
    source: str | None
    detail: str | None
    split: str


def read_rows(path: Path) -> list[Row]:
    """Return all rows of a canonical Parquet file, in its order."""
    from pyarrow.parquet import ParquetFile

    columns = ["id", "text", "messages", "label", "group", "source", "detail", "split"]
    rows = []
    # Not read_table, which imports pyarrow.dataset and with it pandas.
    with ParquetFile(path) as file:
        table = file.read(columns=columns)
    for values in table.to_pylist():
        messages = values.pop("messages")
        rows.append(Row(**values, messages=None if messages is None else json.loads(messages)))
    return rows


def sample(rows: Sequence[Row], max_rows: int | None) -> list[Row]:
    """Return at most `max_rows` of `rows`, in their order: those whose ids have the least SHA-256.

    The sample depends on the rows alone, so it is the same for every run and target, which can then
    be compared row by row; a smaller sample is a subset of a larger one.
    """
    if max_rows is None or max_rows >= len(rows):
        return list(rows)
    ranked = sorted(rows, key=lambda row: hashlib.sha256(row.id.encode()).digest())
    chosen = {row.id for row in ranked[:max_rows]}
    return [row for row in rows if row.id in chosen]
