"""Reading files into one row file, and counting what no single row shows."""

from collections import Counter, defaultdict
from typing import BinaryIO

from service.datasets.convert import Converter, Ids
from service.datasets.findings import DatasetWarning, describe_ignored_splits
from service.datasets.lines import Fields
from service.datasets.mapping import Mapping
from service.datasets.problems import LISTED_DROPS, Flaw, Problems, quoted
from service.datasets.rows import Kind, RowWriter, Split
from service.datasets.sources import Source, open_source
from service.datasets.suspicious_values import is_missing
from service.domain.decoding import NotTextError
from service.domain.errors import FieldError, InvalidRequest, escaped

_COLUMNS = ("text", "label", "group", "id", "source", "detail", "rationale", "split")

_CHECKED_VALUES = ("text", "source", "detail")

MAX_COLUMNS = 10_000
"""Maximum number of different columns that are remembered."""


class Intake:
    """Reads the files of one dataset, one after another."""

    def __init__(
        self, mapping: Mapping, file_format: str, problems: Problems, max_file_bytes: int
    ) -> None:
        self._mapping = mapping
        self._max_file_bytes = max_file_bytes
        self._format = file_format
        self._problems = problems
        self._mapped_columns = set(mapping.columns_set().values())
        self._ids = Ids()
        self._kind: Kind | None = None
        self._labelled: Counter[Split] = Counter()
        self._unlabelled: defaultdict[Split, list[FieldError]] = defaultdict(list)
        self.rows: Counter[Split] = Counter()
        """Rows written."""
        self.columns_read: set[str] = set()
        self.columns_in_files: set[str] = set()
        self.warnings: list[DatasetWarning] = []
        self.missing_values: dict[str, Counter[str]] = {}
        """Field of a row -> word for a missing value -> rows; groups are counted elsewhere."""
        self.message_findings: Counter[str] = Counter()
        """Code of a warning -> chats; see `turns.describe_messages`."""

    def read(self, field: str, split: Split | None, file: BinaryIO, writer: RowWriter) -> None:
        """Write the valid rows of a file and record the flaws of the others.

        `field` is the form field; `split` null: a column holds each row's split. Raises
        InvalidRequest if the file holds another kind of rows than the files before it, or if its
        format does not take an option of the mapping.
        """
        try:
            self._read(field, split, file, writer)
        except NotTextError as error:
            self._problems.add(f"/{field}", [Flaw("not_text", error.detail, fatal=True)])

    def _read(self, field: str, split: Split | None, file: BinaryIO, writer: RowWriter) -> None:
        """Read a file as `read` does. Raises NotTextError too."""
        source = open_source(
            file,
            self._format,
            self._mapping,
            split=split is None,
            max_bytes=self._max_file_bytes,
        )
        converter: Converter | None = None
        rows_read = 0
        for number, fields in source.rows:
            rows_read += 1
            pointer = f"/{field}/{source.unit}/{number}"
            if isinstance(fields, Flaw):
                self._problems.add(pointer, [fields])
                if fields.fatal:
                    return
                continue
            if converter is None:
                converter = self._converter(field, split, source, fields)
            self._note_columns(fields)
            row = converter.convert(fields)
            if isinstance(row, list):
                self._problems.add(pointer, row)
                continue
            self.rows[row.split] += 1
            if row.label is not None:
                self._labelled[row.split] += 1
            elif len(self._unlabelled[row.split]) < LISTED_DROPS:
                self._note_unlabelled(row.split, pointer, converter.mapping.label)
            for name in _CHECKED_VALUES:
                value = getattr(row, name)
                if value is not None and is_missing(value):
                    self.missing_values.setdefault(name, Counter())[value.strip()] += 1
            writer.add(row)
        if converter is not None:
            self.message_findings += converter.message_findings
        if converter is not None and converter.ignored_splits:
            ignored = converter.ignored_splits
            detail = describe_ignored_splits(field, converter.mapping.split, ignored, rows_read)
            warning = DatasetWarning(code="split_ignored", detail=detail, count=ignored.total())
            self.warnings.append(warning)

    def _note_columns(self, row: Fields) -> None:
        """Record a row's columns; once there are too many, only those that the mapping sets."""
        if len(self.columns_in_files) < MAX_COLUMNS:
            self.columns_in_files.update(row)
        else:
            self.columns_in_files.update(row.keys() & self._mapped_columns)

    def _converter(
        self, field: str, split: Split | None, source: Source, first: Fields
    ) -> Converter:
        kind, mapping = source.layout(first, self._mapping)
        if self._kind not in (None, kind):
            content = {"text": "texts", "messages": "chat messages"}
            raise InvalidRequest.at(
                f"/{field}",
                f"{field} holds {content[kind]}, but the file before it holds "
                f"{content[self._kind or kind]}; a dataset is of one kind",
            )
        self._kind = kind
        unread = "text" if kind == "messages" else "messages"
        columns = {name: getattr(mapping, name) for name in _COLUMNS} | {"messages": "messages"}
        self.columns_read.update(columns[name] for name in columns if name != unread)
        return Converter(mapping, kind, split, self._ids)

    def _note_unlabelled(self, split: Split, pointer: str, column: str | None) -> None:
        label_pointer = f"{pointer}/{escaped(column or 'label')}"
        detail = f"the row has no label, although other rows of {split} have one"
        self._unlabelled[split].append(FieldError(label_pointer, detail))

    def unlabelled_rows(self, split: Split) -> int:
        return self.rows[split] - self._labelled[split]

    def finish(self) -> set[Split]:
        """Return the splits that have both rows with a label and rows without, and record those.

        Raises InvalidRequest if the mapping sets a column that no row has.
        """
        for option, column in self._mapping.columns_set().items():
            if self.columns_in_files and column not in self.columns_in_files:
                columns = ", ".join(map(quoted, sorted(self.columns_in_files)[:20]))
                raise self._problems.refuse(
                    f"/mapping/{option}",
                    f"no row has the column {quoted(column)}; the columns are {columns}",
                )
        mixed = {split for split in self.rows if 0 < self._labelled[split] < self.rows[split]}
        for split in sorted(mixed):
            total = self.unlabelled_rows(split)
            self._problems.add_more("missing_label", self._unlabelled[split], total)
        return mixed
