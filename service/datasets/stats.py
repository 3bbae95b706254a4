"""Statistics of a row file, computed from the file alone, so that they are reproducible."""

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
from service.domain.row_keys import prompt_key, text_key

Counts = dict[str, int]


class TextLength(BaseModel):
    """Length of a text, or of all messages of a chat together, in Unicode code points."""

    min: int = Field(description="Length of the shortest text.")
    median: int = Field(description="Median length.")
    p90: int = Field(description="90th percentile of the lengths.")
    p99: int = Field(description="99th percentile of the lengths.")
    max: int = Field(description="Length of the longest text.")


class SplitStats(BaseModel):
    """Statistics of one split."""

    rows: int = Field(description="Number of rows.")
    has_labels: bool = Field(description="True if every row of the split has a label.")
    has_groups: bool = Field(description="True if at least one row of the split has a group.")
    labels: Counts = Field(description="Number of rows per label.")
    groups: Counts = Field(
        description="Number of rows per group; rows without a group are not counted."
    )
    group_labels: dict[str, Counts] = Field(
        description="Number of rows per group and, within it, per label."
    )


class DatasetStats(BaseModel):
    """Statistics of a dataset."""

    kind: Kind = Field(description="text: labelled texts; messages: chats.")
    rows: int = Field(description="Number of rows in all splits.")
    has_labels: bool = Field(description="True if every row of every split has a label.")
    has_groups: bool = Field(description="True if at least one row has a group.")
    labels: Counts = Field(description="Number of rows per label, over all splits.")
    groups: Counts = Field(description="Number of rows per group, over all splits.")
    group_labels: dict[str, Counts] = Field(
        description="Number of rows per group and, within it, per label, over all splits."
    )
    splits: dict[Split, SplitStats] = Field(
        description="Statistics by split, for the splits that have rows."
    )
    text_length: TextLength = Field(
        description="Length of a text, or of all messages of a chat together, in characters "
        "(Unicode code points)."
    )
    repeated_rows: int = Field(
        description="Number of rows whose text occurs earlier in the same split. Texts are "
        "compared exactly, without surrounding white space; chats without their last message."
    )
    shared_rows: dict[Split, int] = Field(
        description="Number of rows of validation and test whose text also occurs in an earlier "
        "split (in the order train, validation, test): leakage from training into evaluation."
    )
    conflicting_rows: int = Field(
        description="Number of rows whose text occurs with another label anywhere in the dataset."
    )
    zero_weight_rows: int = Field(
        0,
        description="Number of chats with a message of weight 0, which must not be learned: runs "
        "on them need training.train_on completion.",
    )


def measure(path: Path) -> DatasetStats:
    """Count the rows of a row file, which has at least one. Texts are read batch by batch."""
    keys, lengths = array("q"), array("q")
    chats = zero_weights = 0
    for batch in batches(path, ["text", "messages"]):
        for text, chat in zip(batch["text"], batch["messages"], strict=True):
            if chat is None:
                keys.append(text_key(text))
                lengths.append(len(text))
            else:
                turns = json.loads(chat)
                keys.append(prompt_key(turns))
                lengths.append(sum(len(turn["content"]) for turn in turns))
                chats += 1
                zero_weights += any(turn.get("weight") == 0 for turn in turns)
    table = pq.read_table(path, columns=["split", "label", "group"])
    table = table.append_column("key", pa.array(keys, pa.int64()))
    cells = table.group_by(["split", "label", "group"], use_threads=False).aggregate(
        [([], "count_all")]
    )
    counted = [
        (row["split"], row["label"], row["group"], row["count_all"]) for row in cells.to_pylist()
    ]
    present = [split for split in SPLITS if any(cell[0] == split for cell in counted)]
    splits = {name: _split(cell for cell in counted if cell[0] == name) for name in present}
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
        zero_weight_rows=zero_weights,
        **_repetition(table),
    )


def _split(cells: Iterable[tuple[str, str | None, str | None, int]]) -> SplitStats:
    labels: Counts = {}
    groups: Counts = {}
    group_labels: dict[str, Counts] = {}
    rows = labelled = 0
    for _, label, group, count in sorted(cells, key=lambda cell: [str(part) for part in cell]):
        rows += count
        if label is not None:
            labelled += count
            labels[label] = labels.get(label, 0) + count
        if group is not None:
            groups[group] = groups.get(group, 0) + count
        if label is not None and group is not None:
            label_counts = group_labels.setdefault(group, {})
            label_counts[label] = label_counts.get(label, 0) + count
    return SplitStats(
        rows=rows,
        has_labels=labelled == rows,
        has_groups=bool(groups),
        labels=dict(sorted(labels.items())),
        groups=dict(sorted(groups.items())),
        group_labels=dict(sorted(group_labels.items())),
    )


def _length(lengths: "array[int]") -> TextLength:
    quantiles = pc.quantile(
        pa.array(lengths, pa.int64()), q=[0, 0.5, 0.9, 0.99, 1], interpolation="nearest"
    ).to_pylist()
    return TextLength(
        **dict(zip(("min", "median", "p90", "p99", "max"), map(int, quantiles), strict=True))
    )


def _repetition(table: pa.Table) -> dict[str, Any]:
    """Count the rows whose text occurs in several rows."""
    by_split = table.group_by(["key", "split"], use_threads=False).aggregate([([], "count_all")])
    shared: dict[str, int] = {}
    for position, split in enumerate(SPLITS[1:], start=1):
        in_split = by_split.filter(pc.equal(by_split["split"], split))
        earlier = pc.is_in(by_split["split"], pa.array(SPLITS[:position]))
        leaked = pc.is_in(in_split["key"], by_split.filter(earlier)["key"])
        if in_split.num_rows:
            shared[split] = pc.sum(in_split.filter(leaked)["count_all"]).as_py() or 0
    by_text = table.group_by("key", use_threads=False).aggregate(
        [("label", "count_distinct"), ([], "count_all")]
    )
    conflicting = by_text.filter(pc.greater(by_text["label_count_distinct"], 1))["count_all"]
    return {
        "repeated_rows": table.num_rows - by_split.num_rows,
        "shared_rows": shared,
        "conflicting_rows": pc.sum(conflicting).as_py() or 0,
    }
