"""Reading files into one row file: what a row alone does not show is kept count of here."""

from collections import Counter, defaultdict
from typing import BinaryIO

from service.datasets.convert import Converter, Ids
from service.datasets.findings import DatasetWarning, warn_of_splits
from service.datasets.lines import Fields
from service.datasets.mapping import Mapping
from service.datasets.problems import LISTED_DROPS, Flaw, Problems, shown
from service.datasets.readers import Format, Source, columns_of, kind_of, open_source
from service.datasets.rows import Kind, RowWriter, Split
from service.domain.errors import FieldError, InvalidRequest, escaped

_COLUMNS = ("text", "label", "group", "id", "source", "detail", "rationale", "split")

MAX_COLUMNS = 10_000
"""Different columns that are remembered."""


class Intake:
    """Takes the files of one dataset, one after another."""

    def __init__(self, mapping: Mapping, file_format: Format, problems: Problems) -> None:
        self._mapping = mapping
        self._format = file_format
        self._problems = problems
        self._named = set(mapping.named().values())
        self._ids = Ids()
        self._kind: Kind | None = None
        self._labelled: Counter[Split] = Counter()
        self._unlabelled: defaultdict[Split, list[FieldError]] = defaultdict(list)
        self.rows: Counter[Split] = Counter()
        """Rows written."""
        self.columns_read: set[str] = set()
        self.columns_seen: set[str] = set()
        self.warnings: list[DatasetWarning] = []

    def read(self, field: str, split: Split | None, file: BinaryIO, writer: RowWriter) -> None:
        """Write the good rows of a file and note what is wrong with the others.

        `field` is the form field; `split` null: a column says it. Raises InvalidRequest where the
        file holds another kind of rows than the ones before it.
        """
        source = open_source(file, self._format, self._needed(split))
        converter: Converter | None = None
        read = 0
        for number, found in source.found:
            read += 1
            pointer = f"/{field}/{source.unit}/{number}"
            if isinstance(found, Flaw):
                self._problems.add(pointer, [found])
                if found.fatal:
                    return
                continue
            if converter is None:
                converter = self._converter(field, split, source, found)
            self._see(found)
            row = converter.convert(found)
            if isinstance(row, list):
                self._problems.add(pointer, row)
                continue
            self.rows[row.split] += 1
            if row.label is not None:
                self._labelled[row.split] += 1
            elif len(self._unlabelled[row.split]) < LISTED_DROPS:
                self._note_unlabelled(row.split, pointer, converter.mapping.label)
            writer.add(row)
        if converter is not None and converter.other_splits:
            others = converter.other_splits
            detail = warn_of_splits(field, converter.mapping.split, others, read)
            warning = DatasetWarning(code="split_ignored", detail=detail, count=others.total())
            self.warnings.append(warning)

    def _see(self, row: Fields) -> None:
        """Note a row's columns; once they are too many, only those that the mapping names."""
        if len(self.columns_seen) < MAX_COLUMNS:
            self.columns_seen.update(row)
        else:
            self.columns_seen.update(row.keys() & self._named)

    def _needed(self, split: Split | None) -> list[str]:
        """Columns that the header of a CSV must have."""
        needed = [self._mapping.text, *self._mapping.named().values()]
        return needed if split is not None else [*needed, self._mapping.split]

    def _converter(
        self, field: str, split: Split | None, source: Source, first: Fields
    ) -> Converter:
        kind = kind_of(first, self._format)
        if self._kind not in (None, kind):
            holds = {"text": "texts", "messages": "chat messages"}
            raise InvalidRequest.at(
                f"/{field}",
                f"{field} holds {holds[kind]} where the file before it holds "
                f"{holds[self._kind or kind]}; a dataset is of one kind",
            )
        self._kind = kind
        mapping = columns_of(first, self._format, source.unit, self._mapping)
        unread = "text" if kind == "messages" else "messages"
        columns = {name: getattr(mapping, name) for name in _COLUMNS} | {"messages": "messages"}
        self.columns_read.update(columns[name] for name in columns if name != unread)
        return Converter(mapping, kind, split, self._ids)

    def _note_unlabelled(self, split: Split, pointer: str, column: str | None) -> None:
        at = f"{pointer}/{escaped(column or 'label')}"
        detail = f"the row has no label, though other rows of {split} have one"
        self._unlabelled[split].append(FieldError(at, detail))

    def unlabelled_rows(self, split: Split) -> int:
        return self.rows[split] - self._labelled[split]

    def finish(self) -> set[Split]:
        """Note the rows that lack a label where others of their split have one.

        Returns those splits. Raises InvalidRequest where the user named a column that no row has.
        """
        for field, column in self._mapping.named().items():
            if self.columns_seen and column not in self.columns_seen:
                found = ", ".join(map(shown, sorted(self.columns_seen)[:20]))
                raise self._problems.refuse(
                    f"/mapping/{field}", f"no row has the column {shown(column)}, only {found}"
                )
        mixed = {split for split in self.rows if 0 < self._labelled[split] < self.rows[split]}
        for split in sorted(mixed):
            total = self.unlabelled_rows(split)
            self._problems.add_more("missing_label", self._unlabelled[split], total)
        return mixed
