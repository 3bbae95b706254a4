"""What a row file holds, counted from the file itself, so that it can be counted again."""

import hashlib
import json
from array import array
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import BaseModel, Field

from service.datasets.rows import SPLITS, Kind, Split, batches

Counts = dict[str, int]


class TextLength(BaseModel):
    """Characters (Unicode code points) of a text, or of all messages of a chat together."""

    min: int
    median: int
    p90: int
    p99: int
    max: int


class SplitStats(BaseModel):
    rows: int
    has_labels: bool = Field(description="Whether every row of the split has a label.")
    has_groups: bool = Field(description="Whether a row of the split has a group.")
    labels: Counts = Field(description="Label -> rows.")
    groups: Counts = Field(description="Group -> rows; rows without a group are in none.")
    group_labels: dict[str, Counts] = Field(description="Group -> label -> rows.")


class DatasetStats(BaseModel):
    kind: Kind = Field(description="text: classified texts; messages: chats.")
    rows: int
    has_labels: bool = Field(description="Whether every row of every split has a label.")
    has_groups: bool = Field(description="Whether any row has a group.")
    labels: Counts = Field(description="Label -> rows, over all splits.")
    groups: Counts = Field(description="Group -> rows, over all splits.")
    group_labels: dict[str, Counts] = Field(description="Group -> label -> rows, over all splits.")
    splits: dict[Split, SplitStats] = Field(description="Only the splits that have rows.")
    text_length: TextLength
    repeated_rows: int = Field(
        description="Rows whose text stands earlier in the same split. Texts are compared exactly, "
        "without the space around them; of a chat, all but the last message is compared."
    )
    shared_rows: dict[Split, int] = Field(
        description="Of validation and test: rows whose text stands in an earlier split too "
        "(train, validation, test): what leaks from training into measuring."
    )
    conflicting_rows: int = Field(
        description="Rows whose text stands somewhere in the dataset with another label."
    )


def _prompt(turns: list[dict[str, str]]) -> str:
    """All but the last message, as one string that differs where they do."""
    return "\0".join(
        part for turn in turns[:-1] for part in (turn["role"], turn["content"].strip())
    )


def digest(text: str) -> int:
    """64 bits that stand for a text: two of a million differ with a chance of 1 - 3e-8."""
    raw = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(raw, "little", signed=True)


def measure(path: Path) -> DatasetStats:
    """Count the rows of a row file, which has at least one. Texts are read batch by batch."""
    keys, lengths = array("q"), array("q")
    chats = 0
    for batch in batches(path, ["text", "messages"]):
        for text, chat in zip(batch["text"], batch["messages"], strict=True):
            if chat is None:
                keys.append(digest(text.strip()))
                lengths.append(len(text))
            else:
                turns = json.loads(chat)
                keys.append(digest(_prompt(turns)))
                lengths.append(sum(len(turn["content"]) for turn in turns))
                chats += 1
    table = pq.read_table(path, columns=["split", "label", "group"])
    table = table.append_column("key", pa.array(keys, pa.int64()))
    cells = table.group_by(["split", "label", "group"], use_threads=False).aggregate(
        [([], "count_all")]
    )
    counted = [
        (row["split"], row["label"], row["group"], row["count_all"]) for row in cells.to_pylist()
    ]
    found = [split for split in SPLITS if any(cell[0] == split for cell in counted)]
    splits = {name: _split(cell for cell in counted if cell[0] == name) for name in found}
    total = _split(counted)
    return DatasetStats(
        kind="messages" if chats else "text",
        rows=total.rows,
        has_labels=total.has_labels,
        has_groups=total.has_groups,
        labels=total.labels,
        groups=total.groups,
        group_labels=total.group_labels,
        splits=splits,
        text_length=_length(lengths),
        **_repetition(table),
    )


def _split(cells: Iterable[tuple[str, str | None, str | None, int]]) -> SplitStats:
    labels: Counts = {}
    groups: Counts = {}
    crossed: dict[str, Counts] = {}
    rows = labelled = 0
    for _, label, group, count in sorted(cells, key=lambda cell: [str(part) for part in cell]):
        rows += count
        if label is not None:
            labelled += count
            labels[label] = labels.get(label, 0) + count
        if group is not None:
            groups[group] = groups.get(group, 0) + count
        if label is not None and group is not None:
            of_group = crossed.setdefault(group, {})
            of_group[label] = of_group.get(label, 0) + count
    return SplitStats(
        rows=rows,
        has_labels=labelled == rows,
        has_groups=bool(groups),
        labels=dict(sorted(labels.items())),
        groups=dict(sorted(groups.items())),
        group_labels=dict(sorted(crossed.items())),
    )


def _length(lengths: "array[int]") -> TextLength:
    quantiles = pc.quantile(
        pa.array(lengths, pa.int64()), q=[0, 0.5, 0.9, 0.99, 1], interpolation="nearest"
    ).to_pylist()
    return TextLength(
        **dict(zip(("min", "median", "p90", "p99", "max"), map(int, quantiles), strict=True))
    )


def _repetition(table: pa.Table) -> dict[str, Any]:
    """Rows by (text, split), then what the texts that stand in several rows have in common."""
    placed = table.group_by(["key", "split"], use_threads=False).aggregate([([], "count_all")])
    shared: dict[str, int] = {}
    for position, split in enumerate(SPLITS[1:], start=1):
        here = placed.filter(pc.equal(placed["split"], split))
        earlier = pc.is_in(placed["split"], pa.array(SPLITS[:position]))
        leaked = pc.is_in(here["key"], placed.filter(earlier)["key"])
        if here.num_rows:
            shared[split] = pc.sum(here.filter(leaked)["count_all"]).as_py() or 0
    named = table.group_by("key", use_threads=False).aggregate(
        [("label", "count_distinct"), ([], "count_all")]
    )
    conflicting = named.filter(pc.greater(named["label_count_distinct"], 1))["count_all"]
    return {
        "repeated_rows": table.num_rows - placed.num_rows,
        "shared_rows": shared,
        "conflicting_rows": pc.sum(conflicting).as_py() or 0,
    }
