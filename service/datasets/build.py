"""Uploaded files -> one checked, content-addressed file of canonical rows."""

import secrets
from collections import Counter
from collections.abc import Mapping as AnyMapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from service.datasets.chat import Answers, examine
from service.datasets.findings import (
    DatasetWarning,
    warn_of_answers,
    warn_of_columns,
    warn_of_rows,
)
from service.datasets.intake import Intake
from service.datasets.mapping import Mapping
from service.datasets.problems import Dropped, OnInvalid, Problems
from service.datasets.readers import Format
from service.datasets.rows import SPLITS, RowWriter, Split, read_rows
from service.datasets.stats import DatasetStats, measure
from service.domain.digests import sha256_of
from service.domain.errors import InvalidRequest

MAX_GROUPS = 1000
"""More groups than this are taken for a column that does not hold groups."""


@dataclass(frozen=True, slots=True)
class BuiltDataset:
    """`path` is named after `content_hash`: the SHA-256, in hexadecimal, of its bytes."""

    path: Path
    content_hash: str
    stats: DatasetStats
    warnings: list[DatasetWarning]
    dropped: Dropped
    completions: dict[str, str] | None
    """Label -> assistant turn, for chats with labels in train; null: a template's."""


def build(
    files: AnyMapping[str, BinaryIO],
    directory: Path,
    *,
    file_format: Format = "auto",
    mapping: Mapping | None = None,
    on_invalid: OnInvalid = "refuse",
) -> BuiltDataset:
    """Check the files and write their rows to a file in `directory`.

    `files` has `train` and perhaps `validation` and `test`, whose rows belong to that split, or
    `file` alone, whose split column says it. They are binary, seekable, and read once from their
    start. Raises InvalidRequest, and then leaves nothing in `directory`.
    """
    mapping = mapping or Mapping()
    parts = _parts(files)
    problems = Problems(on_invalid)
    partial = directory / f".{secrets.token_hex(8)}.partial"
    try:
        intake = Intake(mapping, file_format, problems)
        with RowWriter(partial) as writer:
            for field, split, file in parts:
                intake.read(field, split, file, writer)
        unlabelled = intake.finish()
        _check_rows(files, intake, unlabelled, problems)
        if unlabelled:
            _leave_out(partial, unlabelled)
        stats = measure(partial)
        answers = examine(partial) if stats.kind == "messages" else Answers()
        _check_whole("train" if "train" in files else "file", stats, answers, problems)
        hashed = sha256_of(partial)
        path = partial.replace(directory / f"{hashed}.parquet")
    finally:
        partial.unlink(missing_ok=True)
    warnings = [
        *intake.warnings,
        *warn_of_answers(answers),
        *warn_of_rows(stats),
        *warn_of_columns(intake.columns_read, intake.columns_seen),
    ]
    return BuiltDataset(
        path=path,
        content_hash=hashed,
        stats=stats,
        warnings=warnings,
        dropped=problems.dropped(),
        completions=answers.completions or None,
    )


def _parts(files: AnyMapping[str, BinaryIO]) -> list[tuple[str, Split | None, BinaryIO]]:
    for field in files:
        if field not in (*SPLITS, "file"):
            raise InvalidRequest.at(f"/{field}", "send train, validation and test, or file")
    if "file" in files:
        if len(files) > 1:
            raise InvalidRequest.at(
                "/file", "send either file, with a split column, or one file per split, not both"
            )
        return [("file", None, files["file"])]
    if "train" not in files:
        raise InvalidRequest.at(
            "/train", "train is missing: send it, or file with a split column in it"
        )
    return [(split, split, files[split]) for split in SPLITS if split in files]


def _check_rows(
    files: AnyMapping[str, BinaryIO], intake: Intake, unlabelled: set[Split], problems: Problems
) -> None:
    """Every file, and train, must have rows left. Raises InvalidRequest."""
    left = Counter(intake.rows)
    for split in unlabelled:
        left[split] -= intake.unlabelled_rows(split)
    problems.check()
    for field in files:
        split = next((name for name in SPLITS if name == field), SPLITS[0])
        if left[split]:
            continue
        if problems.rows:
            raise problems.refuse(f"/{field}", f"no row of {split} is left")
        if field == "file" and left.total():
            raise InvalidRequest.at("/file", "no row says that its split is train")
        raise InvalidRequest.at(f"/{field}", "the file holds no rows")


def _leave_out(path: Path, unlabelled: set[Split]) -> None:
    """Rewrite a row file without the rows of these splits that have no label."""
    whole = path.replace(path.with_suffix(".whole"))
    try:
        with RowWriter(path) as writer:
            for row in read_rows(whole):
                if row.label is not None or row.split not in unlabelled:
                    writer.add(row)
    finally:
        whole.unlink()


def _check_whole(field: str, stats: DatasetStats, answers: Answers, problems: Problems) -> None:
    """What no single row shows. Raises InvalidRequest."""
    labels = stats.splits["train"].labels
    if not labels and stats.kind == "text":
        raise problems.refuse(
            f"/{field}",
            "no row of train has a label: a text has nothing to teach without one (chats carry "
            "their answer). Is the column named otherwise? mapping.label can say so",
        )
    if len(labels) == 1:
        raise problems.refuse(
            f"/{field}",
            f"every row of train is {next(iter(labels))!r}: a classifier needs two labels",
        )
    if len(stats.groups) > MAX_GROUPS:
        raise problems.refuse(
            "/mapping/group",
            f"the column has {len(stats.groups):,} different values, more than {MAX_GROUPS:,}: "
            "does it hold groups? null leaves it out",
        )
    for same in answers.shared_by:
        raise problems.refuse(
            f"/{field}",
            f"the labels {' and '.join(map(repr, same))} have the same most common assistant "
            "turn in train, so that no score can tell them apart",
        )
