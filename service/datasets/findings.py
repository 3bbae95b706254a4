"""Warnings: what is odd in a dataset that is nevertheless accepted."""

from collections.abc import Mapping as AnyMapping

from pydantic import BaseModel, Field

from service.datasets.chat import Answers
from service.datasets.problems import shown
from service.datasets.stats import DatasetStats


class DatasetWarning(BaseModel):
    code: str = Field(description="A stable name, such as shared_rows.")
    detail: str
    count: int = Field(description="Rows that it concerns.")


def warn_of_splits(field: str, column: str, others: AnyMapping[str, int], rows: int) -> str:
    """The text of split_ignored for one file, whose rows say another split `others` times."""
    said = ", ".join(f"{name} {count:,}" for name, count in sorted(others.items()))
    return (
        f"{sum(others.values()):,} of {rows:,} rows of {field} name another split in their column "
        f"{shown(column)} ({said}). The file decides; the column is ignored."
    )


def warn_of_rows(stats: DatasetStats) -> list[DatasetWarning]:
    found = []
    if shared := sum(stats.shared_rows.values()):
        where = ", ".join(f"{split} {count:,}" for split, count in stats.shared_rows.items())
        detail = (
            f"{shared:,} rows have a text that stands in an earlier split too ({where}): "
            "figures measured on them are too good."
        )
        found.append(DatasetWarning(code="shared_rows", detail=detail, count=shared))
    if count := stats.conflicting_rows:
        detail = f"{count:,} rows have a text that stands elsewhere with another label."
        found.append(DatasetWarning(code="conflicting_labels", detail=detail, count=count))
    if count := stats.repeated_rows:
        detail = f"{count:,} rows repeat a text of their own split."
        found.append(DatasetWarning(code="repeated_rows", detail=detail, count=count))
    found += _of_labels(stats)
    without = stats.rows - sum(stats.groups.values())
    if without:
        detail = (
            f"{without:,} of {stats.rows:,} rows have no group, so no group's figures hold them."
        )
        found.append(DatasetWarning(code="no_group", detail=detail, count=without))
    return found


def _of_labels(stats: DatasetStats) -> list[DatasetWarning]:
    if not stats.labels:
        detail = "No row has a label, so no error rate can be measured."
        return [DatasetWarning(code="no_labels", detail=detail, count=stats.rows)]
    found = []
    for name, split in stats.splits.items():
        if not split.has_labels:
            detail = f"The rows of {name} have no label, so nothing can be measured on them."
            found.append(DatasetWarning(code="no_labels", detail=detail, count=split.rows))
        known = stats.splits["train"].labels
        unseen = {label: rows for label, rows in split.labels.items() if label not in known}
        if known and unseen:
            detail = f"In {name} but never in train: " + ", ".join(map(shown, unseen)) + "."
            count = sum(unseen.values())
            found.append(DatasetWarning(code="unseen_labels", detail=detail, count=count))
    return found


def warn_of_answers(answers: Answers) -> list[DatasetWarning]:
    found = []
    if count := answers.doubled_braces:
        detail = (
            f"{count:,} of {answers.rows:,} assistant turns have doubled braces, as in {{{{…}}}}: "
            "not JSON, and where only some turns have them the first token gives the class away."
        )
        found.append(DatasetWarning(code="doubled_braces", detail=detail, count=count))
    if count := answers.invalid_json:
        detail = f"{count:,} assistant turns start with a brace but are not valid JSON."
        found.append(DatasetWarning(code="invalid_json", detail=detail, count=count))
    for label, (different, most_common, rows) in answers.variants.items():
        if different > 1:
            detail = (
                f"The label {shown(label)} has {different:,} different assistant turns in train. "
                f"Scoring uses the most common one ({most_common:,} of {rows:,} rows)."
            )
            count = rows - most_common
            found.append(DatasetWarning(code="several_completions", detail=detail, count=count))
    return found


def warn_of_columns(read: set[str], seen: set[str]) -> list[DatasetWarning]:
    """Columns of the files that nothing reads, so that a mistyped name is noticed."""
    unread = sorted(seen - read)
    if not unread:
        return []
    names = ", ".join(map(shown, unread[:20])) + (", …" if len(unread) > 20 else "")
    return [DatasetWarning(code="unread_columns", detail=f"Columns not read: {names}.", count=0)]
