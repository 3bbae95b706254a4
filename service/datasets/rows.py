"""The canonical row, and the Parquet file that holds a dataset's rows."""

import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import pyarrow as pa
import pyarrow.parquet as pq

from service.domain.row_keys import KeyedRow

Split = Literal["train", "validation", "test"]
Kind = Literal["text", "messages"]
Role = Literal["system", "user", "assistant"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")

SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("text", pa.string()),
        pa.field("messages", pa.string()),
        pa.field("label", pa.string()),
        pa.field("group", pa.string()),
        pa.field("source", pa.string()),
        pa.field("detail", pa.string()),
        pa.field("rationale", pa.string()),
        pa.field("split", pa.string(), nullable=False),
    ]
)
"""`messages` holds a JSON array of {role, content}, of which those that must not be learned have
the key weight, 0; exactly one of it and `text` is null."""

_BATCH_ROWS = 8192
_BATCH_CHARACTERS = 8_000_000
_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))
_DICTIONARY_ENCODED = ["label", "group", "source", "detail", "split"]


@dataclass(frozen=True, slots=True)
class Message:
    role: Role
    content: str
    weight: int = 1
    """0: the message must not be learned, whatever training.train_on says. That of the last is 1.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A canonical row. Either `text` or `messages` is set; `id` is unique in the dataset."""

    id: str
    split: Split
    text: str | None = None
    messages: tuple[Message, ...] | None = None
    """Ends with the assistant's turn, which is what the model learns to generate."""
    label: str | None = None
    group: str | None = None
    source: str | None = None
    detail: str | None = None
    """A finer label, for the report's breakdown."""
    rationale: str | None = None


class RowWriter:
    """Writes rows to one Parquet file, in order, with one batch in memory.

    Equal rows in equal order give equal bytes with the same version of pyarrow.
    """

    def __init__(self, path: Path) -> None:
        self._writer = pq.ParquetWriter(
            path,
            SCHEMA,
            compression="zstd",
            use_dictionary=_DICTIONARY_ENCODED,
            write_statistics=["split"],
        )
        self._columns: dict[str, list[str | None]] = {name: [] for name in SCHEMA.names}
        self._characters = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self._flush()
        self._writer.close()

    def add(self, row: Row) -> None:
        columns = self._columns
        messages = None if row.messages is None else _dump(row.messages)
        columns["id"].append(row.id)
        columns["text"].append(row.text)
        columns["messages"].append(messages)
        columns["label"].append(row.label)
        columns["group"].append(row.group)
        columns["source"].append(row.source)
        columns["detail"].append(row.detail)
        columns["rationale"].append(row.rationale)
        columns["split"].append(row.split)
        self._characters += len(row.text or messages or "") + len(row.rationale or "")
        if len(columns["id"]) >= _BATCH_ROWS or self._characters >= _BATCH_CHARACTERS:
            self._flush()

    def _flush(self) -> None:
        if self._columns["id"]:
            self._writer.write_batch(pa.RecordBatch.from_pydict(self._columns, schema=SCHEMA))
        self._columns = {name: [] for name in SCHEMA.names}
        self._characters = 0


def _dump(messages: tuple[Message, ...]) -> str:
    turns: list[dict[str, str | int]] = []
    for message in messages:
        turn: dict[str, str | int] = {"role": message.role, "content": message.content}
        turns.append(turn if message.weight else turn | {"weight": 0})
    return _ENCODER.encode(turns)


def _load(text: str) -> tuple[Message, ...]:
    """Decode a value of the column `messages`."""
    return tuple(
        Message(turn["role"], turn["content"], turn.get("weight", 1)) for turn in json.loads(text)
    )


def batches(path: Path, columns: list[str]) -> Iterator[dict[str, list[Any]]]:
    """Yield columns of a row file as Python lists, a bounded number of rows at a time."""
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=_BATCH_ROWS, columns=columns):
            yield batch.to_pydict()


def read_rows(path: Path, split: Split | None = None) -> Iterator[Row]:
    """Yield the rows of `split` (null: of all splits) in the order of the upload."""
    for batch in batches(path, SCHEMA.names):
        for index, row_split in enumerate(batch["split"]):
            if split is None or row_split == split:
                fields = {name: values[index] for name, values in batch.items()}
                if fields["messages"] is not None:
                    fields["messages"] = _load(fields["messages"])
                yield Row(**fields)


def preview(path: Path, split: Split | None = None, limit: int = 20) -> list[Row]:
    """Return the first `limit` rows of `split` (null: of all splits)."""
    return list(islice(read_rows(path, split), limit))


def texts(path: Path, ids: Collection[str]) -> dict[str, str]:
    """Return id -> text for the rows with these ids; for a chat, the user's last turn.

    Ids that no row has are omitted. Reading stops at the batch that completes the texts.
    """
    missing, texts_by_id = set(ids), {}
    for batch in batches(path, ["id", "text", "messages"]):
        if not missing:
            break
        for row, text, messages in zip(batch["id"], batch["text"], batch["messages"], strict=True):
            if row in missing:
                missing.remove(row)
                texts_by_id[row] = _last_user_turn(_load(messages)) if text is None else text
    return texts_by_id


def keyed_rows(path: Path) -> Iterator[KeyedRow]:
    """Yield the rows of all splits as far as their texts identify them."""
    for batch in batches(path, ["id", "split", "text", "messages"]):
        for row_id, split, text, messages in zip(*batch.values(), strict=True):
            turns = None if messages is None else json.loads(messages)
            yield KeyedRow(row_id, split, text, turns)


def _last_user_turn(messages: tuple[Message, ...]) -> str:
    """Return the last turn of a chat's user; empty if there is none."""
    return next((turn.content for turn in reversed(messages) if turn.role == "user"), "")
