"""Conversion of an uploaded row into a canonical row, or into the list of its flaws."""

import json
import math
import re
from collections import Counter

from service.datasets.lines import Fields, json_type
from service.datasets.mapping import MAX_NAME, Mapping
from service.datasets.problems import Flaw, bad_character, quoted
from service.datasets.rows import Kind, Row, Split
from service.datasets.turns import describe_messages, read_messages
from service.domain.errors import escaped

SPLIT_NAMES: dict[str, Split] = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "val": "validation",
    "valid": "validation",
    "dev": "validation",
    "development": "validation",
    "test": "test",
    "testing": "test",
}
"""Value of a split column, in lower case -> split."""

_WHOLE = re.compile(r"-?(0|[1-9][0-9]{0,17})(\.0+)?")


def split_named(value: object) -> Split | None:
    """Return the split that a value of a split column names, in any case."""
    return SPLIT_NAMES.get(value.strip().lower()) if isinstance(value, str) else None


def whole_number(text: str) -> str | None:
    """Return a whole number without a fraction, so that 1 and 1.0 are the same; else None."""
    return text.partition(".")[0] if _WHOLE.fullmatch(text) else None


def _number_text(value: object) -> str | None:
    """Return a finite number as text; None for any other value."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return json.dumps(value)


def _canonical(text: str) -> str | None:
    """Return a whole number or a truth value as JSON writes it; None for any other text."""
    lower = text.lower()
    return lower if lower in ("true", "false") else whole_number(text)


def _labels_by_canonical(label_by_value: dict[str, str]) -> dict[str, str]:
    """Return canonical value -> label for the values that are declared for one label alone."""
    labels: dict[str, set[str]] = {}
    for value, label in label_by_value.items():
        if (canonical := _canonical(value)) is not None:
            labels.setdefault(canonical, set()).add(label)
    return {canonical: names.pop() for canonical, names in labels.items() if len(names) == 1}


class Ids:
    """The ids in use, over all files. Rows without an id of their own are numbered."""

    def __init__(self) -> None:
        self._used: set[str] = set()
        self._rows: Counter[Split] = Counter()

    def number(self, split: Split) -> str:
        """Return ``train-17`` for the 17th row of train that could be parsed, valid or not."""
        self._rows[split] += 1
        return f"{split}-{self._rows[split]}"

    def reserve(self, row_id: str) -> bool:
        """Reserve the id; return False if it is already in use."""
        if row_id in self._used:
            return False
        self._used.add(row_id)
        return True


class Converter:
    """Converts the rows of one file. `split` null: a column holds each row's split."""

    def __init__(self, mapping: Mapping, kind: Kind, split: Split | None, ids: Ids) -> None:
        self.mapping = mapping
        self._kind = kind
        self._split = split
        self._ids = ids
        self._label_by_value = mapping.label_by_value
        self._label_by_canonical = _labels_by_canonical(self._label_by_value)
        values = list(map(quoted, self._label_by_value))
        more = f" and {len(values) - 20} more" if len(values) > 20 else ""
        self._unknown_label = f"is not one of the labels {', '.join(values[:20])}{more}"
        if mapping.labels is None:
            self._unknown_label += "; declare other labels in mapping.labels"
        else:
            self._unknown_label += " declared in mapping.labels"
        self.ignored_splits: Counter[str] = Counter()
        """Values of the split column that contradict `split`."""
        self.message_findings: Counter[str] = Counter()
        """Code of a warning -> chats with such messages; see `turns.describe_messages`."""

    def convert(self, fields: Fields) -> Row | list[Flaw]:
        flaws: list[Flaw] = []
        text = self._text(fields, flaws) if self._kind == "text" else None
        messages = read_messages(fields, flaws) if self._kind == "messages" else None
        split = self._row_split(fields, flaws)
        label = self._label(fields, flaws)
        group, source, detail, rationale = (
            self._optional(fields, field, flaws)
            for field in ("group", "source", "detail", "rationale")
        )
        own_id = self._optional(fields, "id", flaws)
        number = self._ids.number(split) if split else ""
        if flaws or split is None:
            return flaws
        row_id = number if own_id is None else own_id
        if not self._ids.reserve(row_id):
            return [self._duplicate(row_id)]
        if messages is not None:
            self.message_findings.update(describe_messages(fields))
        return Row(
            id=row_id,
            split=split,
            text=text,
            messages=messages,
            label=label,
            group=group,
            source=source,
            detail=detail,
            rationale=rationale,
        )

    def _duplicate(self, row_id: str) -> Flaw:
        detail = (
            f"the id {quoted(row_id)} is used by an earlier row; ids must be unique across all "
            "splits; set mapping.id to null to number the rows instead"
        )
        return Flaw("duplicate_id", detail, escaped(self.mapping.id or "id"))

    def _text(self, fields: Fields, flaws: list[Flaw]) -> str | None:
        column = self.mapping.text
        value = fields.get(column)
        if not isinstance(value, str):
            if column in fields:
                flaws.append(_type_flaw(column, "must be a string", value))
            else:
                flaws.append(_missing(fields, column, "text"))
        elif not value.strip():
            flaws.append(Flaw("blank_text", "the text is empty", escaped(column)))
        elif bad := bad_character(value):
            flaws.append(Flaw("bad_character", bad, escaped(column)))
        return value if isinstance(value, str) else None

    def _row_split(self, fields: Fields, flaws: list[Flaw]) -> Split | None:
        column = self.mapping.split
        value = fields.get(column)
        if isinstance(value, str) and not value.strip():
            value = None
        if self._split is not None:
            if value is not None:
                name = split_named(value) or "other"
                if name != self._split:
                    self.ignored_splits[name] += 1
            return self._split
        if value is None:
            missing = _missing(fields, column, "split")
            remedy = "; to use every row for training, upload the file as `train`"
            flaws.append(Flaw("missing_split", missing.detail + remedy, missing.path))
            return None
        split = split_named(value)
        if split is None:
            detail = f"must be train, validation (or val, valid, dev) or test, not {quoted(value)}"
            flaws.append(Flaw("unknown_split", detail, escaped(column)))
        return split

    def _label(self, fields: Fields, flaws: list[Flaw]) -> str | None:
        column = self.mapping.label
        value = None if column is None else fields.get(column)
        if column is None or value is None:
            return None
        if isinstance(value, str):
            raw = value.strip()
        elif isinstance(value, int):  # 0, 1, true, false: as in JSON
            raw = json.dumps(value)
        elif (number := _number_text(value)) in self._label_by_value:
            raw = str(number)
        else:
            flaws.append(_type_flaw(column, "a label must be a string or a whole number", value))
            return None
        if not raw:
            return None
        label = self._label_by_value.get(raw)
        if label is None and (canonical := _canonical(raw)) is not None:
            label = self._label_by_canonical.get(canonical)
        if label is None:
            flaws.append(
                Flaw("unknown_label", f"{quoted(raw)} {self._unknown_label}", escaped(column))
            )
        return label

    def _optional(self, fields: Fields, field: str, flaws: list[Flaw]) -> str | None:
        """Return an optional column's string without the space around it; None if blank.

        A number is taken as its text.
        """
        column = getattr(self.mapping, field)
        value = None if column is None else fields.get(column)
        if value is None:
            return None
        value = _number_text(value) or value
        if not isinstance(value, str):
            requirement = (
                f"must be a string or a number (set mapping.{field} to null to ignore the column)"
            )
            flaws.append(_type_flaw(column, requirement, value))
            return None
        value = value.strip()
        bad = bad_character(value)
        if bad is None and len(value) > MAX_NAME and field != "rationale":
            bad = (
                f"is longer than {MAX_NAME} characters; does mapping.{field} name the right column?"
            )
        if bad is not None:
            flaws.append(Flaw("bad_value", bad, escaped(column)))
        return value or None


def _missing(fields: Fields, column: str, field: str) -> Flaw:
    if column in fields:
        problem = f"the column {quoted(column)} is empty"
    else:
        columns = ", ".join(quoted(name) for name in list(fields)[:10]) or "no columns"
        problem = f"the column {quoted(column)} is missing; the row has {columns}"
    detail = f"{problem}; mapping.{field} can name another column"
    return Flaw(f"missing_{field}", detail, escaped(column))


def _type_flaw(column: str, requirement: str, value: object) -> Flaw:
    actual = json.dumps(value) if isinstance(value, float) else json_type(value)
    return Flaw("wrong_type", f"{requirement}, not {actual}", escaped(column))
