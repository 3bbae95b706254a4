"""Warnings about datasets that are accepted."""

from collections.abc import Mapping as AnyMapping

from pydantic import BaseModel, Field

from service.datasets.chat import Answers
from service.datasets.problems import count, quoted
from service.datasets.stats import DatasetStats


class DatasetWarning(BaseModel):
    code: str = Field(description="Stable identifier of the warning, such as shared_rows.")
    detail: str = Field(description="The warning as a sentence.")
    count: int = Field(description="Number of rows affected; 0 if the warning is not about rows.")


def _plural(number: int, singular: str, plural: str) -> str:
    return singular if number == 1 else plural


def describe_ignored_splits(
    field: str, column: str, ignored: AnyMapping[str, int], rows: int
) -> str:
    """Return the text of split_ignored for one file; `ignored` counts the values that differ."""
    total = sum(ignored.values())
    splits = ", ".join(f"{name} {number:,}" for name, number in sorted(ignored.items()))
    return (
        f"In {field}, {total:,} of {count(rows, 'row')} {_plural(total, 'has', 'have')} another "
        f"split in the column {quoted(column)} ({splits}). The file determines the split; the "
        "column is ignored."
    )


def row_warnings(stats: DatasetStats) -> list[DatasetWarning]:
    warnings = []
    if shared := sum(stats.shared_rows.values()):
        splits = ", ".join(f"{split} {number:,}" for split, number in stats.shared_rows.items())
        detail = (
            f"{count(shared, 'row')} {_plural(shared, 'has', 'have')} a text that also occurs in "
            f"an earlier split ({splits}): metrics measured on them are too optimistic."
        )
        warnings.append(DatasetWarning(code="shared_rows", detail=detail, count=shared))
    if rows := stats.conflicting_rows:
        detail = (
            f"{count(rows, 'row')} {_plural(rows, 'has', 'have')} a text that occurs elsewhere "
            "with another label."
        )
        warnings.append(DatasetWarning(code="conflicting_labels", detail=detail, count=rows))
    if rows := stats.repeated_rows:
        detail = f"{count(rows, 'row')} {_plural(rows, 'repeats', 'repeat')} a text of the split."
        warnings.append(DatasetWarning(code="repeated_rows", detail=detail, count=rows))
    warnings += _label_warnings(stats)
    if rows := stats.rows - sum(stats.groups.values()):
        detail = (
            f"{rows:,} of {count(stats.rows, 'row')} {_plural(rows, 'has', 'have')} no group and "
            f"{_plural(rows, 'is', 'are')} missing from the metrics by group."
        )
        warnings.append(DatasetWarning(code="no_group", detail=detail, count=rows))
    return warnings


def _label_warnings(stats: DatasetStats) -> list[DatasetWarning]:
    train = stats.splits.get("train")
    if train is None:
        detail = "No row is of the split train: the dataset serves evaluations, not runs."
        without_train = [DatasetWarning(code="no_train", detail=detail, count=0)]
        return without_train + ([] if stats.labels else _without_labels(stats))
    if not stats.labels:
        return _without_labels(stats)
    warnings = []
    for name, split in stats.splits.items():
        if not split.has_labels:
            detail = f"The rows of {name} have no label, so that nothing can be measured on them."
            warnings.append(DatasetWarning(code="no_labels", detail=detail, count=split.rows))
        trained = train.labels
        untrained = {label: rows for label, rows in split.labels.items() if label not in trained}
        if trained and untrained:
            labels = ", ".join(map(quoted, untrained))
            plural = _plural(len(untrained), "label occurs", "labels occur")
            detail = f"The {plural} in {name} but not in train: {labels}."
            rows = sum(untrained.values())
            warnings.append(DatasetWarning(code="unseen_labels", detail=detail, count=rows))
    return warnings


def _without_labels(stats: DatasetStats) -> list[DatasetWarning]:
    detail = "No row has a label, so that no error rate can be measured."
    return [DatasetWarning(code="no_labels", detail=detail, count=stats.rows)]


def answer_warnings(answers: Answers) -> list[DatasetWarning]:
    warnings = []
    if rows := answers.doubled_braces:
        detail = (
            f"{rows:,} of {count(answers.rows, 'assistant turn')} {_plural(rows, 'has', 'have')} "
            "doubled braces, as in {{…}}: that is not JSON, and if only some turns have them, the "
            "first token reveals the class."
        )
        warnings.append(DatasetWarning(code="doubled_braces", detail=detail, count=rows))
    if rows := answers.invalid_json:
        detail = (
            f"{count(rows, 'assistant turn')} {_plural(rows, 'starts', 'start')} with a brace but "
            f"{_plural(rows, 'is', 'are')} not valid JSON."
        )
        warnings.append(DatasetWarning(code="invalid_json", detail=detail, count=rows))
    for label, (different, most_common, rows) in answers.variants.items():
        if different > 1:
            detail = (
                f"The label {quoted(label)} has {different:,} different assistant turns in train. "
                f"Scoring uses the most common one ({most_common:,} of {rows:,} rows)."
            )
            warnings.append(
                DatasetWarning(code="several_completions", detail=detail, count=rows - most_common)
            )
    return warnings


def column_warnings(read: set[str], present: set[str]) -> list[DatasetWarning]:
    """Warn about columns of the files that are not read, so that a mistyped name is noticed."""
    unread = sorted(present - read)
    if not unread:
        return []
    names = ", ".join(map(quoted, unread[:20])) + (", …" if len(unread) > 20 else "")
    return [DatasetWarning(code="unread_columns", detail=f"Columns not read: {names}.", count=0)]
