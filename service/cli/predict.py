"""`fairtune predict`: classify texts with a run's model through a running server."""

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from service.cli.connection import Key, Server, connected
from service.cli.errors import ExitStatus, refuse
from service.domain.prediction import MAX_TEXTS
from service.domain.states import RESTING, JobStatus

if TYPE_CHECKING:
    from fairtune import Predictions, Run
    from service.cli.prediction_inputs import Row, Source, Survey
    from service.cli.prediction_outputs import Output, Values

_POLL_SECONDS = 0.5
_UNCLAIMED_SECONDS = 10.0
"""Time in the queue after which a message is printed; a free worker starts immediately."""

_NO_WORKER = (
    "No worker of the queue predictions may be running, or all are busy (FAIRTUNE_QUEUES sets the "
    "queues of a worker)."
)
_BLANK: "Values" = (None, None, None)


def predict(
    run: Annotated[str, typer.Argument(help="Id of the run.")],
    texts: Annotated[
        list[str] | None,
        typer.Argument(help="Texts to classify; alternatively use --file."),
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option(
            help="File with one text per line, or a .csv, .jsonl or .parquet file; - reads "
            "standard input."
        ),
    ] = None,
    messages: Annotated[
        Path | None,
        typer.Option(
            help="File with one chat per line, as JSON with the key messages, for a run that was "
            "trained on chats; - reads standard input."
        ),
    ] = None,
    file_format: Annotated[
        str | None,
        typer.Option(
            "--format",
            metavar="FORMAT",
            help="Format of --file: text, csv, jsonl or parquet; default: that of its suffix.",
        ),
    ] = None,
    column: Annotated[
        str | None,
        typer.Option(help="Column or key that holds the text; default: text."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="File for the input's rows with label, score and threshold; its suffix, .jsonl, "
            ".csv or .parquet, selects the format. Default: JSON lines on standard output.",
        ),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(help="Which weights to use: adapter (default), checkpoint or merged."),
    ] = None,
    step: Annotated[int | None, typer.Option(help="Optimizer step of the checkpoint.")] = None,
    template: Annotated[
        str | None, typer.Option(help="Prompt template; default: the run's.")
    ] = None,
    threshold: Annotated[
        str | None,
        typer.Option(
            help="argmax, or the minimum score of a positive text from 0 to 1; default: the run's."
        ),
    ] = None,
    timeout: Annotated[
        float | None,
        typer.Option(
            min=0,
            metavar="SECONDS",
            help="Maximum time to wait for all predictions; default: no limit.",
        ),
    ] = None,
    as_json: Annotated[  # noqa: ARG001
        bool, typer.Option("--json", help="Print JSON lines, as without this option.")
    ] = False,
    server: Server = None,
    key: Key = None,
) -> None:
    """Classify texts with a run's model; prints one JSON object per text or line, in order.

    A blank line has no prediction: its label is null, so that output and input stay aligned.
    """
    # CSV, JSON lines and the types of the API take a moment, which --help does not need.
    from service.cli import prediction_inputs as inputs

    if sum(origin is not None for origin in (texts or None, file, messages)) > 1:
        refuse("use only one of texts, --file and --messages")
    options: dict[str, Any] = {"target": target, "step": step, "template": template}
    options["threshold"] = _threshold(threshold)
    _check_output(output, file or messages)
    with _source(texts, file, messages, file_format, column) as source:
        label = "" if isinstance(source, inputs.Arguments) else _option(file, messages)
        with _refused_input(label):
            survey = inputs.Survey.of(source)
        _check_rows(source, survey)
        wait = _Wait(run, timeout)
        with connected(server, key) as client, _opened(output, source, survey) as sink:
            classified = _Batches(client.runs.get(run), source, options, wait)
            rows = source.rows()
            while batch := list(islice(rows, MAX_TEXTS)):
                sink.write(list(zip(batch, classified.classify(batch), strict=True)))
    if output is not None:
        typer.echo(f"{survey.rows:,} rows are in {output}", err=True)
    if classified.truncated:
        typer.echo(
            f"{classified.truncated:,} of {survey.rows:,} were longer than the run's "
            "max_seq_length, so that their end was cut off",
            err=True,
        )


@contextmanager
def _source(
    texts: list[str] | None,
    file: Path | None,
    messages: Path | None,
    file_format: str | None,
    column: str | None,
) -> Iterator["Source"]:
    """Open the input. Raises Exit."""
    from service.cli import prediction_inputs as inputs

    path = file or messages
    if path is None:
        if file_format or column:
            refuse("--format and --column describe a file: use --file")
        yield inputs.Arguments(texts or [])
        return
    option = _option(file, messages)
    if messages is not None and (file_format or column):
        refuse("--messages reads JSON lines: omit --format and --column")
    if file_format is not None and file_format not in inputs.FORMATS:
        refuse(f"--format {file_format}: use one of {', '.join(inputs.FORMATS)}")
    kind = inputs.format_of(path, file_format)
    if column is not None and kind == "text":
        refuse("--column is for CSV, JSON lines and Parquet: set --format")
    try:
        with inputs.opened(path) as stream:
            if messages is not None:
                yield inputs.Chats(stream)
                return
            with _refused_input(option):
                source = inputs.source_of(stream, kind, column or inputs.TEXT, MAX_TEXTS)
            yield source
    except OSError as error:
        if error.filename not in (None, str(path)):
            raise
        refuse(f"{option}: {error.strerror or error}")


def _option(file: Path | None, messages: Path | None) -> str:
    return f"--file {file}" if messages is None else f"--messages {messages}"


@contextmanager
def _refused_input(label: str) -> Iterator[None]:
    from service.cli.prediction_inputs import InvalidInputError
    from service.domain.decoding import NotTextError

    try:
        yield
    except (InvalidInputError, NotTextError) as error:
        detail = str(error)
        refuse(f"{label}{detail if detail.startswith(':') else f' {detail}'}".lstrip(": "))


def _check_output(output: Path | None, origin: Path | None) -> None:
    """Refuse an output that could not be written after all texts are classified. Raises Exit."""
    from service.cli.prediction_outputs import SUFFIXES

    if output is None:
        return
    if output.suffix.lower() not in SUFFIXES:
        refuse(f"--output {output}: name a file that ends with {', '.join(SUFFIXES)}")
    if not output.parent.is_dir():
        refuse(f"--output {output}: the directory {output.parent} does not exist")
    if output.is_dir():
        refuse(f"--output {output}: is a directory")
    if origin is not None and output.exists() and origin.exists() and output.samefile(origin):
        refuse(f"--output {output}: is the input; name another file")


def _check_rows(source: "Source", survey: "Survey") -> None:
    """Refuse an input without any text, and say that some rows have none. Raises Exit."""
    blank, rows, noun = survey.blank_rows, survey.rows, source.noun
    if blank == rows:
        refuse("there is no text: add texts as arguments, or use --file or --messages")
    if blank:
        typer.echo(
            f"{blank} of {rows} {noun}s {'is' if blank == 1 else 'are'} blank, "
            f"the first is {source.place} {survey.first_blank}: the label there is null",
            err=True,
        )


@contextmanager
def _opened(output: Path | None, source: "Source", survey: "Survey") -> Iterator["Output"]:
    """Open the output; a file is complete or named FILE.part."""
    from service.cli.prediction_outputs import ADDED, Printed, added_columns, output_of

    added = added_columns(survey)
    for name, column in zip(ADDED, added, strict=True):
        if name != column:
            typer.echo(f"the input has a column {name}: the predicted one is {column}", err=True)
    if output is None:
        yield Printed(added)
        return
    part = output.with_name(f"{output.name}.part")
    with part.open("wb") as stream:
        sink = output_of(output, stream, source, survey)
        try:
            yield sink
        except BaseException:
            typer.echo(f"the rows that were classified until then are in {part}", err=True)
            raise
        finally:
            sink.close()
    part.replace(output)


class _Batches:
    """Classifies batches of rows, one after the other."""

    def __init__(
        self, run: "Run", source: "Source", options: dict[str, Any], wait: "_Wait"
    ) -> None:
        self._run = run
        self._source = source
        self._options = options
        self._wait = wait
        self.truncated = 0
        """Number of texts that were too long."""

    def classify(self, batch: list["Row"]) -> Iterator["Values"]:
        """Return a label, score and threshold for each row. Raises Exit."""
        filled = [row for row in batch if not row.is_blank]
        if not filled:
            return iter([_BLANK] * len(batch))
        job = self._finished(filled)
        predictions = iter(job.predictions or ())
        values: list[Values] = []
        for row in batch:
            if row.is_blank:
                values.append((None, None, job.threshold))
                continue
            prediction = next(predictions)
            self.truncated += prediction.truncated
            values.append((prediction.label, prediction.score, job.threshold))
        return iter(values)

    def _finished(self, rows: list["Row"]) -> "Predictions":
        import fairtune

        entries: dict[str, Any] = {self._source.field: [row.entry for row in rows]}
        try:
            job = self._run.submit_predictions(**entries, **self._options)
        except fairtune.InvalidRequest as error:
            self._refuse_rows(rows, error)
        since = time.monotonic()
        try:
            while job.status not in RESTING:
                self._wait.check(job, since)
                self._wait.pause()
                job.refresh()
        except KeyboardInterrupt:
            job.cancel()
            raise
        if job.status != JobStatus.SUCCEEDED:
            raise fairtune.JobFailed(job)
        return job

    def _refuse_rows(self, rows: list["Row"], error: Any) -> NoReturn:
        """Refuse with the input's lines instead of positions in the request. Raises Exit."""
        details = []
        for item in error.errors:
            pointer, detail = item.pointer, item.detail
            if match := re.fullmatch(r"/(?:texts|messages)/(\d+)(.*)", pointer):
                pointer = f"{self._source.place} {rows[int(match[1])].number}{match[2]}"
            details.append(f"{pointer}: {detail}")
        refuse("; ".join(details) or error.detail)


def _threshold(option: str | None) -> str | float | None:
    if option is None or option == "argmax":
        return option
    try:
        return float(option)
    except ValueError:
        refuse(f"--threshold {option}: use argmax or a number from 0 to 1")


class _Wait:
    """The command's time limit, and its message about predictions that stay queued."""

    def __init__(self, run: str, timeout: float | None) -> None:
        self._run = run
        self._timeout = timeout
        self._began = time.monotonic()
        self._has_warned = False

    def check(self, job: "Predictions", since: float) -> None:
        """Warn once if no worker starts the job submitted at `since`. Raises Exit on timeout."""
        now = time.monotonic()
        is_queued = job.status == JobStatus.QUEUED
        position = job.queue_position if is_queued else None
        at_position = "" if position is None else f" at position {position}"
        if self._timeout is not None and now - self._began >= self._timeout:
            path = f"/v1/runs/{self._run}/predictions/{job.id}"
            refuse(
                f"--timeout: after {self._timeout:g} s {job.id} is {job.status}"
                f"{at_position}. It continues: read it with GET {path}, cancel it with POST "
                f"{path}/cancel." + (f" {_NO_WORKER}" if is_queued else ""),
                status=ExitStatus.TIMEOUT,
            )
        if is_queued and not self._has_warned and now - since > _UNCLAIMED_SECONDS:
            self._has_warned = True
            typer.echo(
                f"{job.id} has been queued for {now - since:.0f} s{at_position}, and no worker "
                f"has started it. {_NO_WORKER}",
                err=True,
            )

    def pause(self) -> None:
        seconds = _POLL_SECONDS
        if self._timeout is not None:
            seconds = min(seconds, self._began + self._timeout - time.monotonic())
        time.sleep(max(0, seconds))
