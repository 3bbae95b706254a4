"""One row as it was uploaded -> one canonical row, or what is wrong with it."""

import json
from collections import Counter

from service.datasets.lines import Fields, json_type
from service.datasets.mapping import MAX_NAME, Mapping
from service.datasets.problems import Flaw, bad_character, shown
from service.datasets.rows import Kind, Row, Split
from service.datasets.turns import read_messages
from service.domain.errors import escaped

SPLIT_NAMES: dict[str, Split] = {
    "train": "train",
    "validation": "validation",
    "val": "validation",
    "valid": "validation",
    "dev": "validation",
    "test": "test",
}
"""What a split column may say."""


class Ids:
    """Which ids are taken, over all files. Rows without an id of their own are numbered."""

    def __init__(self) -> None:
        self._taken: set[str] = set()
        self._rows: Counter[Split] = Counter()

    def number(self, split: Split) -> str:
        """``train-17`` for the 17th row of train that could be read, good or bad."""
        self._rows[split] += 1
        return f"{split}-{self._rows[split]}"

    def take(self, row_id: str) -> bool:
        """Whether the id was still free; it no longer is."""
        if row_id in self._taken:
            return False
        self._taken.add(row_id)
        return True


class Converter:
    """Converts the rows of one file. `split` null: a column says each row's split."""

    def __init__(self, mapping: Mapping, kind: Kind, split: Split | None, ids: Ids) -> None:
        self.mapping = mapping
        self._kind = kind
        self._split = split
        self._ids = ids
        self._words = mapping.words
        words = list(map(shown, self._words))
        more = f" and {len(words) - 20} more" if len(words) > 20 else ""
        self._unknown = f"is not one of the labels {', '.join(words[:20])}{more}"
        if mapping.labels is None:
            self._unknown += "; other labels must be declared in mapping.labels"
        else:
            self._unknown += ", which mapping.labels declares"
        self.other_splits: Counter[str] = Counter()
        """What the split column says where it disagrees with `split`."""

    def convert(self, fields: Fields) -> Row | list[Flaw]:
        flaws: list[Flaw] = []
        text = self._text(fields, flaws) if self._kind == "text" else None
        messages = read_messages(fields, flaws) if self._kind == "messages" else None
        split = self._row_split(fields, flaws)
        label = self._label(fields, flaws)
        group, source, detail, rationale = (
            self._name(fields, field, flaws) for field in ("group", "source", "detail", "rationale")
        )
        own_id = self._own_id(fields, flaws)
        number = self._ids.number(split) if split else ""
        if flaws or split is None:
            return flaws
        row_id = number if own_id is None else own_id
        if not self._ids.take(row_id):
            return [self._duplicate(row_id)]
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
            f"the id {shown(row_id)} is already taken; ids are unique across all splits, and "
            "mapping.id null numbers the rows instead"
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
        if self._split is not None:
            if value is not None:
                said = SPLIT_NAMES.get(value.strip(), "other") if isinstance(value, str) else None
                if said != self._split:
                    self.other_splits[said or "other"] += 1
            return self._split
        if value is None:
            missing = _missing(fields, column, "split")
            remedy = "; to use every row for training, send the file as `train`"
            flaws.append(Flaw("missing_split", missing.detail + remedy, missing.path))
            return None
        split = SPLIT_NAMES.get(value.strip()) if isinstance(value, str) else None
        if split is None:
            detail = f"{shown(value)} is not train, validation (or val, valid, dev) or test"
            flaws.append(Flaw("unknown_split", detail, escaped(column)))
        return split

    def _label(self, fields: Fields, flaws: list[Flaw]) -> str | None:
        column = self.mapping.label
        value = None if column is None else fields.get(column)
        if column is None or value is None:
            return None
        if isinstance(value, str):
            raw = value.strip()
        elif isinstance(value, int):  # 0, 1, true, false: as JSON writes them
            raw = json.dumps(value)
        else:
            flaws.append(_type_flaw(column, "a label must be a string or a whole number", value))
            return None
        if not raw:
            return None
        label = self._words.get(raw)
        if label is None:
            flaws.append(Flaw("unknown_label", f"{shown(raw)} {self._unknown}", escaped(column)))
        return label

    def _name(self, fields: Fields, field: str, flaws: list[Flaw]) -> str | None:
        """A string of an optional column without the space around it; None where it is blank."""
        column = getattr(self.mapping, field)
        value = None if column is None else fields.get(column)
        if value is None:
            return None
        if not isinstance(value, str):
            needs = f"must be a string (mapping.{field} null leaves the column out)"
            flaws.append(_type_flaw(column, needs, value))
            return None
        value = value.strip()
        bad = bad_character(value)
        if bad is None and len(value) > MAX_NAME and field != "rationale":
            bad = f"is longer than {MAX_NAME} characters; does mapping.{field} name another column?"
        if bad is not None:
            flaws.append(Flaw("bad_value", bad, escaped(column)))
        return value or None

    def _own_id(self, fields: Fields, flaws: list[Flaw]) -> str | None:
        column = self.mapping.id
        value = None if column is None else fields.get(column)
        if isinstance(value, int) and not isinstance(value, bool):
            value = str(value)
            if len(value) <= MAX_NAME:
                return value
        return self._name(fields, "id", flaws) if value is not None else None


def _missing(fields: Fields, column: str, field: str) -> Flaw:
    found = ", ".join(shown(name) for name in list(fields)[:10]) or "no column at all"
    blank = " or it is empty" if column in fields else f", only {found}"
    detail = f"there is no {shown(column)}{blank}; mapping.{field} can name another column"
    return Flaw(f"missing_{field}", detail, escaped(column))


def _type_flaw(column: str, needs: str, value: object) -> Flaw:
    return Flaw("wrong_type", f"{needs}, not {json_type(value)}", escaped(column))
