"""Warnings about datasets that are accepted."""

from collections.abc import Mapping as AnyMapping

from pydantic import BaseModel, Field

from service.datasets.chat import Answers
from service.datasets.problems import quoted
from service.datasets.stats import DatasetStats
from service.datasets.suspicious_values import is_missing, spellings
from service.domain.wording import agree, count


class DatasetWarning(BaseModel):
    code: str = Field(description="Stable identifier of the warning, such as shared_rows.")
    detail: str = Field(description="The warning as a sentence.")
    count: int = Field(description="Number of rows affected; 0 if the warning is not about rows.")


def describe_ignored_splits(
    field: str, column: str, ignored: AnyMapping[str, int], rows: int
) -> str:
    """Return the text of split_ignored for one file; `ignored` counts the values that differ."""
    total = sum(ignored.values())
    splits = ", ".join(f"{name} {number:,}" for name, number in sorted(ignored.items()))
    return (
        f"In {field}, {total:,} of {count(rows, 'row')} {agree(total, 'has', 'have')} another "
        f"split in the column {quoted(column)} ({splits}). The file determines the split; the "
        "column is ignored."
    )


def row_warnings(stats: DatasetStats) -> list[DatasetWarning]:
    warnings = []
    if shared := sum(stats.shared_rows.values()):
        splits = ", ".join(
            f"{split} {number:,}" for split, number in stats.shared_rows.items() if number
        )
        detail = (
            f"{count(shared, 'row')} {agree(shared, 'has', 'have')} a text that also occurs in "
            f"an earlier split ({splits}): metrics measured on them are too optimistic."
        )
        warnings.append(DatasetWarning(code="shared_rows", detail=detail, count=shared))
    if rows := stats.conflicting_rows:
        detail = (
            f"{count(rows, 'row')} {agree(rows, 'has', 'have')} a text that occurs elsewhere "
            "with another label."
        )
        warnings.append(DatasetWarning(code="conflicting_labels", detail=detail, count=rows))
    if rows := stats.repeated_rows:
        detail = f"{count(rows, 'row')} {agree(rows, 'repeats', 'repeat')} a text of the split."
        warnings.append(DatasetWarning(code="repeated_rows", detail=detail, count=rows))
    warnings += _label_warnings(stats)
    if rows := stats.rows - sum(stats.groups.values()):
        detail = (
            f"{rows:,} of {count(stats.rows, 'row')} {agree(rows, 'has', 'have')} no group and "
            f"{agree(rows, 'is', 'are')} missing from the metrics by group."
        )
        warnings.append(DatasetWarning(code="no_group", detail=detail, count=rows))
    return warnings + _group_warnings(stats.groups)


def value_warnings(missing: AnyMapping[str, AnyMapping[str, int]]) -> list[DatasetWarning]:
    """Warn about words for a missing value; `missing` counts the rows by field and value."""
    warnings = []
    for field, values in missing.items():
        rows = sum(values.values())
        words = ", ".join(map(quoted, sorted(values)[:20]))
        detail = (
            f"{count(rows, 'row')} {agree(rows, 'has', 'have')} a word for a missing value as "
            f"{field}: {words}."
        )
        warnings.append(DatasetWarning(code="suspicious_values", detail=detail, count=rows))
    return warnings


def _group_warnings(groups: AnyMapping[str, int]) -> list[DatasetWarning]:
    """Warn about names that probably are no group, or one: each would get figures of its own."""
    warnings = []
    missing = [name for name in groups if is_missing(name)]
    if missing:
        rows = sum(groups[name] for name in missing)
        plural = agree(len(missing), "value stands", "values stand")
        detail = (
            f"The group {plural} for a missing one: {', '.join(map(quoted, missing[:20]))}. Leave "
            "the column empty in rows without a group."
        )
        warnings.append(DatasetWarning(code="suspicious_groups", detail=detail, count=rows))
    names = [same for same in spellings(groups) if not set(same) <= set(missing)]
    if names:
        rows = sum(groups[name] for same in names for name in same)
        listed = "; ".join(", ".join(map(quoted, same[:5])) for same in names[:10])
        detail = f"Groups are spelled in several ways and count as different ones: {listed}."
        warnings.append(DatasetWarning(code="suspicious_groups", detail=detail, count=rows))
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
            plural = agree(len(untrained), "label occurs", "labels occur")
            detail = f"The {plural} in {name} but not in train: {labels}."
            rows = sum(untrained.values())
            warnings.append(DatasetWarning(code="unseen_labels", detail=detail, count=rows))
        if missing := [label for label in trained if split.labels and label not in split.labels]:
            labels = " or ".join(map(quoted, missing))
            detail = (
                f"No row of {name} is labelled {labels}: what needs rows of the class, such as its "
                f"recall, and F1 and AUC if it is the positive label, cannot be measured on {name}."
            )
            warnings.append(DatasetWarning(code="missing_class", detail=detail, count=0))
    return warnings


def message_warnings(findings: AnyMapping[str, int]) -> list[DatasetWarning]:
    """Warn about what is ignored in messages; `findings` counts the chats by code."""
    details = {
        "ignored_names": "{has} the name of an author in a message: names are not used.",
        "ignored_weights": "{has} weight 1 on an earlier message of the assistant: only the last "
        "message is learned.",
    }
    warnings = []
    for code, rows in sorted(findings.items()):
        has = f"{count(rows, 'chat')} {agree(rows, 'has', 'have')}"
        detail = details[code].format(has=has)
        warnings.append(DatasetWarning(code=code, detail=detail, count=rows))
    return warnings


def _without_labels(stats: DatasetStats) -> list[DatasetWarning]:
    detail = "No row has a label, so that no error rate can be measured."
    return [DatasetWarning(code="no_labels", detail=detail, count=stats.rows)]


def answer_warnings(answers: Answers) -> list[DatasetWarning]:
    warnings = []
    if rows := answers.doubled_braces:
        detail = (
            f"{rows:,} of {count(answers.rows, 'assistant turn')} {agree(rows, 'has', 'have')} "
            "doubled braces, as in {{…}}: that is not JSON, and if only some turns have them, the "
            "first token reveals the class."
        )
        warnings.append(DatasetWarning(code="doubled_braces", detail=detail, count=rows))
    if rows := answers.invalid_json:
        detail = (
            f"{count(rows, 'assistant turn')} {agree(rows, 'starts', 'start')} with a brace but "
            f"{agree(rows, 'is', 'are')} not valid JSON."
        )
        warnings.append(DatasetWarning(code="invalid_json", detail=detail, count=rows))
    if rows := sum(answers.contradictions.values()):
        splits = ", ".join(
            f"{split} {number:,}" for split, number in answers.contradictions.items()
        )
        detail = (
            f"{count(rows, 'row')} {agree(rows, 'has', 'have')} the assistant turn of another "
            f"label ({splits}): correct the label or the turn."
        )
        warnings.append(DatasetWarning(code="contradicting_answers", detail=detail, count=rows))
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
    names = ", ".join(map(quoted, unread[:20]))
    if len(unread) > 20:
        names += f" and {len(unread) - 20:,} more"
    return [DatasetWarning(code="unread_columns", detail=f"Columns not read: {names}.", count=0)]
