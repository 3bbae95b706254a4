"""The dataset's canonical rows, as the programs read them."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Row:
    """A canonical row. Exactly one of `text` and `messages` is set."""

    id: str
    text: str | None
    messages: list[dict[str, str]] | None
    label: str | None
    group: str | None
    source: str | None
    detail: str | None
    split: str


def read_rows(path: Path) -> list[Row]:
    from pyarrow.parquet import ParquetFile

    columns = ["id", "text", "messages", "label", "group", "source", "detail", "split"]
    rows = []
    # Not read_table, which loads pyarrow's data sets and they pandas.
    with ParquetFile(path) as file:
        table = file.read(columns=columns)
    for values in table.to_pylist():
        messages = values.pop("messages")
        rows.append(Row(**values, messages=None if messages is None else json.loads(messages)))
    return rows


def sample(rows: Sequence[Row], most: int | None) -> list[Row]:
    """At most so many of `rows`, in their order: those whose ids have the smallest SHA-256.

    So the sample depends on the rows alone and is the same one for every run and target, which can
    be compared on it row by row; a smaller sample lies in a larger one.
    """
    if most is None or most >= len(rows):
        return list(rows)
    ranked = sorted(rows, key=lambda row: hashlib.sha256(row.id.encode()).digest())
    chosen = {row.id for row in ranked[:most]}
    return [row for row in rows if row.id in chosen]
