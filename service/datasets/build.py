"""Conversion of uploaded files into one checked, content-addressed file of canonical rows."""

import secrets
from collections import Counter
from collections.abc import Mapping as AnyMapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from service.datasets.chat import Answers, examine
from service.datasets.findings import (
    DatasetWarning,
    answer_warnings,
    column_warnings,
    message_warnings,
    row_warnings,
    value_warnings,
)
from service.datasets.formats import AUTO
from service.datasets.intake import Intake
from service.datasets.mapping import Mapping
from service.datasets.problems import Dropped, OnInvalid, Problems
from service.datasets.rows import SPLITS, RowWriter, Split, read_rows
from service.datasets.stats import DatasetStats, measure
from service.domain.digests import sha256_of
from service.domain.errors import InvalidRequest
from service.domain.wording import count

MAX_GROUPS = 1000
"""Maximum number of groups; a column with more values is assumed not to hold groups."""


@dataclass(frozen=True, slots=True)
class BuiltDataset:
    """A file of canonical rows, named after `content_hash`, the SHA-256 of its bytes."""

    path: Path
    content_hash: str
    stats: DatasetStats
    warnings: list[DatasetWarning]
    dropped: Dropped
    completions: dict[str, str] | None
    """Label -> assistant turn, for chats with labels in train; null: the template defines them."""


def build(
    files: AnyMapping[str, BinaryIO],
    directory: Path,
    *,
    file_format: str = AUTO,
    mapping: Mapping | None = None,
    on_invalid: OnInvalid = "refuse",
    max_file_bytes: int = 1 << 30,
) -> BuiltDataset:
    """Check the files and write their rows to a file in `directory`.

    `files` has either `train` and optionally `validation` and `test`, each with the rows of that
    split, or only `file`, with a split column. The files are binary, seekable, and read from their
    start; a gzip file may have `max_file_bytes` of content. Raises InvalidRequest, and then leaves
    nothing in `directory`.
    """
    mapping = mapping or Mapping()
    uploads = _uploads(files)
    problems = Problems(on_invalid)
    partial = directory / f".{secrets.token_hex(8)}.partial"
    try:
        intake = Intake(mapping, file_format, problems, max_file_bytes)
        with RowWriter(partial) as writer:
            for field, split, file in uploads:
                intake.read(field, split, file, writer)
        unlabelled = intake.finish()
        _check_splits(files, intake, unlabelled, problems)
        if unlabelled:
            _remove_unlabelled(partial, unlabelled)
        stats = measure(partial)
        answers = examine(partial) if stats.kind == "messages" else Answers()
        _check_dataset("train" if "train" in files else "file", stats, answers, problems)
        content_hash = sha256_of(partial)
        path = partial.replace(directory / f"{content_hash}.parquet")
    finally:
        partial.unlink(missing_ok=True)
    warnings = [
        *intake.warnings,
        *message_warnings(intake.message_findings),
        *value_warnings(intake.missing_values),
        *answer_warnings(answers),
        *row_warnings(stats),
        *column_warnings(intake.columns_read, intake.columns_in_files),
    ]
    return BuiltDataset(
        path=path,
        content_hash=content_hash,
        stats=stats,
        warnings=warnings,
        dropped=problems.dropped(),
        completions=answers.completions or None,
    )


def _uploads(files: AnyMapping[str, BinaryIO]) -> list[tuple[str, Split | None, BinaryIO]]:
    for field in files:
        if field not in (*SPLITS, "file"):
            raise InvalidRequest.at(f"/{field}", "upload train, validation and test, or file")
    if "file" in files:
        if len(files) > 1:
            raise InvalidRequest.at(
                "/file",
                "upload either file, with a split column, or one file per split, not both",
            )
        return [("file", None, files["file"])]
    if not files:
        raise InvalidRequest.at(
            "/train",
            "train is missing: upload it, or file with a split column (validation or test alone "
            "make a dataset for evaluations)",
        )
    return [(split, split, files[split]) for split in SPLITS if split in files]


def _check_splits(
    files: AnyMapping[str, BinaryIO], intake: Intake, unlabelled: set[Split], problems: Problems
) -> None:
    """Raise InvalidRequest if a file has no valid row. Not every dataset is trained on."""
    remaining = Counter(intake.rows)
    for split in unlabelled:
        remaining[split] -= intake.unlabelled_rows(split)
    problems.check()
    for field in files:
        split = next((name for name in SPLITS if name == field), SPLITS[0])
        if remaining.total() if field == "file" else remaining[split]:
            continue
        if problems.rows:
            raise problems.refuse(f"/{field}", f"no valid row of {field} remains")
        raise InvalidRequest.at(f"/{field}", "the file holds no rows")


def _remove_unlabelled(path: Path, unlabelled: set[Split]) -> None:
    """Rewrite a row file without the unlabelled rows of these splits."""
    unfiltered = path.replace(path.with_suffix(".unfiltered"))
    try:
        with RowWriter(path) as writer:
            for row in read_rows(unfiltered):
                if row.label is not None or row.split not in unlabelled:
                    writer.add(row)
    finally:
        unfiltered.unlink()


def _check_dataset(field: str, stats: DatasetStats, answers: Answers, problems: Problems) -> None:
    """Raise InvalidRequest for a problem of the dataset as a whole."""
    train = stats.splits.get("train")
    labels = {} if train is None else train.labels
    if train is not None and not labels and stats.kind == "text":
        raise problems.refuse(
            f"/{field}",
            "no row of train has a label: texts need labels to train on (chats include their "
            "answers). If the column has another name, set mapping.label",
        )
    if len(labels) == 1:
        raise problems.refuse(
            f"/{field}",
            f"every row of train is {next(iter(labels))!r}: a classifier needs at least two labels",
        )
    if len(stats.groups) > MAX_GROUPS:
        raise problems.refuse(
            "/mapping/group",
            f"the column has {count(len(stats.groups), 'different value')}, more than "
            f"{MAX_GROUPS:,}: does it hold groups? Set mapping.group to null to ignore it",
        )
    for alike in answers.indistinguishable_labels:
        raise problems.refuse(
            f"/{field}",
            f"the labels {' and '.join(map(repr, alike))} have the same most common "
            "assistant turn in train, so that no score can distinguish them",
        )
