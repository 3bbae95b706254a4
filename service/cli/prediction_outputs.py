"""Files of predictions: each row of the input with its label, score and threshold."""

import csv
import io
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import IO, Any, Protocol

import typer

from service.cli.prediction_inputs import Parquet, Row, Source, Survey

SUFFIXES = (".jsonl", ".csv", ".parquet")
ADDED = ("label", "score", "threshold")
Values = tuple[str | None, float | None, float | None]
"""Label, score and threshold of a row; None for one without a text."""


class Output(Protocol):
    """Receives the rows in order."""

    def write(self, rows: Sequence[tuple[Row, Values]]) -> None: ...

    def close(self) -> None: ...


def added_columns(survey: Survey) -> tuple[str, ...]:
    """Return the names of the added columns, which replace none of the input's own."""

    def unused(name: str) -> str:
        return unused(f"predicted_{name}") if name in survey.columns else name

    return tuple(unused(name) for name in ADDED)


def output_of(file: Path, stream: IO[bytes], source: Source, survey: Survey) -> Output:
    """Return the output that writes the format of the file's suffix to the stream."""
    added = added_columns(survey)
    if file.suffix.lower() == ".csv":
        return _Csv(stream, survey, added)
    if file.suffix.lower() == ".parquet":
        return _Parquet(stream, source, survey, added)
    return _JsonLines(stream, added)


class Printed:
    """JSON lines on standard output."""

    def __init__(self, added: Sequence[str]) -> None:
        self._added = added

    def write(self, rows: Sequence[tuple[Row, Values]]) -> None:
        for row, values in rows:
            typer.echo(_json(row.fields | dict(zip(self._added, values, strict=True))))

    def close(self) -> None:
        pass


class _JsonLines:
    def __init__(self, stream: IO[bytes], added: Sequence[str]) -> None:
        self._stream = stream
        self._added = added

    def write(self, rows: Sequence[tuple[Row, Values]]) -> None:
        for row, values in rows:
            line = _json(row.fields | dict(zip(self._added, values, strict=True)))
            self._stream.write(line.encode() + b"\n")

    def close(self) -> None:
        self._stream.flush()


class _Csv:
    def __init__(self, stream: IO[bytes], survey: Survey, added: Sequence[str]) -> None:
        self._columns = list(survey.columns)
        self._stream = io.TextIOWrapper(stream, "utf-8", newline="", write_through=True)
        self._minimal = csv.writer(self._stream, lineterminator="\n")
        # Python 3.11 leaves a CR unquoted if it is not in the line's end.
        self._all = csv.writer(self._stream, lineterminator="\n", quoting=csv.QUOTE_ALL)
        self._write([*self._columns, *added])

    def write(self, rows: Sequence[tuple[Row, Values]]) -> None:
        for row, values in rows:
            own = (row.fields.get(name) for name in self._columns)
            self._write([_cell(value) for value in (*own, *values)])

    def _write(self, cells: list[str]) -> None:
        writer = self._all if any("\r" in cell for cell in cells) else self._minimal
        writer.writerow(cells)

    def close(self) -> None:
        self._stream.detach()


class _Parquet:
    def __init__(
        self, stream: IO[bytes], source: Source, survey: Survey, added: Sequence[str]
    ) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        own: Iterable[Any]
        if isinstance(source, Parquet):
            own = source.schema
        else:
            own = [pa.field(name, _arrow(types)) for name, types in survey.columns.items()]
        new_types = (pa.string(), pa.float64(), pa.float64())
        new = [pa.field(name, kind) for name, kind in zip(added, new_types, strict=True)]
        self._schema = pa.schema([*own, *new])
        self._as_text = {
            name
            for name, types in survey.columns.items()
            if not isinstance(source, Parquet) and pa.types.is_string(_arrow(types))
        }
        self._added = added
        self._writer = pq.ParquetWriter(stream, self._schema)

    def write(self, rows: Sequence[tuple[Row, Values]]) -> None:
        import pyarrow as pa

        lines = [
            {
                name: _cell(value) if name in self._as_text and value is not None else value
                for name, value in row.fields.items()
            }
            | dict(zip(self._added, values, strict=True))
            for row, values in rows
        ]
        self._writer.write_table(pa.Table.from_pylist(lines, schema=self._schema))

    def close(self) -> None:
        self._writer.close()


def _arrow(types: set[type]) -> Any:
    """Return the Arrow type of a column; of values of several types, their text's."""
    import pyarrow as pa

    types = types - {type(None)}
    if types == {bool}:
        return pa.bool_()
    if types == {int}:
        return pa.int64()
    if types and types <= {int, float}:
        return pa.float64()
    return pa.string()


def _cell(value: object) -> str:
    """Return a value as text; lists and objects as JSON, null as nothing.

    Unpaired surrogates, which UTF-8 does not have, are escaped.
    """
    if value is None:
        return ""
    if isinstance(value, bool | dict | list):
        return _json(value)
    return str(value).encode(errors="backslashreplace").decode()


def _json(value: object) -> str:
    """Return JSON without NaN; unpaired surrogates, which UTF-8 does not have, are escaped."""
    text = json.dumps(_without_nan(value), ensure_ascii=False, default=str)
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(_without_nan(value), default=str)
    return text


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_nan(entry) for name, entry in value.items()}
    if isinstance(value, list):
        return [_without_nan(entry) for entry in value]
    is_number = not isinstance(value, float) or abs(value) < float("inf")
    return value if is_number else None
