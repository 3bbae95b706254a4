"""`fairtune predict`: classify texts with a run's model through a running server."""

import json
import sys
import time
from pathlib import Path
from typing import Annotated, Any, NoReturn

import httpx
import typer
from httpx import codes

from service.datasets.lines import DECODER, decoding_flaw
from service.domain.decoding import NotTextError, text_lines, text_of
from service.domain.json_reasons import json_reason
from service.domain.prediction import MAX_TEXTS
from service.domain.states import RESTING, JobStatus

_POLL_SECONDS = 0.5
_MAX_DECOMPRESSED_BYTES = 1 << 30
_UNCLAIMED_SECONDS = 10.0
"""Time in the queue after which a message is printed; a free worker starts immediately."""

_NO_WORKER = (
    "No worker of the queue predictions may be running, or all are busy (FAIRTUNE_QUEUES sets the "
    "queues of a worker)."
)

_NO_KEY = (
    "Send an API key with --key or FAIRTUNE_KEY; `fairtune keys create` makes one on the server's "
    "machine."
)


def predict(
    run: Annotated[str, typer.Argument(help="Id of the run.")],
    texts: Annotated[
        list[str] | None,
        typer.Argument(help="Texts to classify; alternatively use --file."),
    ] = None,
    file: Annotated[
        Path | None, typer.Option(help="File with one text per line; - reads standard input.")
    ] = None,
    messages: Annotated[
        Path | None,
        typer.Option(
            help="File with one chat per line, as JSON with the key messages, for a run that was "
            "trained on chats; - reads standard input."
        ),
    ] = None,
    url: Annotated[
        str, typer.Option(help="Address of the server.", envvar="FAIRTUNE_URL")
    ] = "http://127.0.0.1:8000",
    key: Annotated[
        str | None, typer.Option(help="API key, if the server requires one.", envvar="FAIRTUNE_KEY")
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
) -> None:
    """Classify texts with a run's model; prints one JSON object per text or line, in order.

    A blank line has no prediction: its label is null, so that output and input stay aligned.
    """
    field, inputs = "texts", _read_lines(texts, file, messages)
    if messages is not None:
        field, inputs = "messages", [_chat(messages, *line) for line in enumerate(inputs, start=1)]
    options: dict[str, Any] = {"target": target, "step": step, "template": template}
    options["threshold"] = _threshold(threshold)
    body = {name: value for name, value in options.items() if value is not None}
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    wait = _Wait(run, timeout)
    with httpx.Client(base_url=url, headers=headers, timeout=60, trust_env=False) as client:
        try:
            for start in range(0, len(inputs), MAX_TEXTS):
                batch = inputs[start : start + MAX_TEXTS]
                filled = [entry for entry in batch if not _is_blank(entry)]
                job = None
                if filled:
                    job = _predict_batch(client, run, body | {field: filled}, wait)
                _print(batch, job)
        except httpx.TransportError as error:
            _refuse(f"{url} does not answer ({error}); set the server's address with --url")
        except httpx.InvalidURL as error:
            _refuse(f"--url {url}: {error}")


def _read_lines(texts: list[str] | None, file: Path | None, messages: Path | None) -> list[Any]:
    if sum(source is not None for source in (texts or None, file, messages)) > 1:
        _refuse("use only one of texts, --file and --messages")
    path = file or messages
    option = "--file" if messages is None else "--messages"
    lines = _arguments(texts or []) if path is None else _lines(option, path)
    blank = [number for number, line in enumerate(lines, start=1) if not line.strip()]
    if len(blank) == len(lines):
        _refuse("there is no text: add texts as arguments, or use --file or --messages")
    if blank:
        place = "argument" if path is None else "line"
        typer.echo(
            f"{len(blank)} of {len(lines)} {place}s {'is' if len(blank) == 1 else 'are'} blank, "
            f"the first is {place} {blank[0]}: the label there is null",
            err=True,
        )
    return lines


def _chat(file: Path, number: int, line: str) -> Any:
    """Return the chat of a line: the value of `messages`, or the list that it is; blank: as is."""
    if _is_blank(line):
        return line
    try:
        value = DECODER.decode(line.strip())
    except json.JSONDecodeError as error:
        reason = f"is not valid JSON at column {error.colno}: {json_reason(error)}"
        _refuse(f"--messages {file}: line {number} {reason}")
    except (ValueError, RecursionError) as error:
        _refuse(f"--messages {file}: line {number} {decoding_flaw(error).detail}")
    chat = value.get("messages") if isinstance(value, dict) else value
    if not isinstance(chat, list):
        _refuse(f"--messages {file}: line {number} has no list messages")
    return chat


def _is_blank(entry: Any) -> bool:
    return isinstance(entry, str) and not entry.strip()


def _arguments(texts: list[str]) -> list[str]:
    """Return the texts of the command line, of which bytes that are not UTF-8 are escaped."""
    for number, text in enumerate(texts, start=1):
        try:
            text.encode()
        except UnicodeEncodeError:
            _refuse(f"text {number} is not valid UTF-8; write it in UTF-8, or use --file")
    return texts


def _lines(option: str, file: Path) -> list[str]:
    try:
        content = sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
        return text_lines(text_of(content, max_bytes=_MAX_DECOMPRESSED_BYTES))
    except OSError as error:
        _refuse(f"{option} {file}: {error.strerror or error}")
    except NotTextError as error:
        _refuse(f"{option} {file} {error.detail}")


def _threshold(option: str | None) -> str | float | None:
    if option is None or option == "argmax":
        return option
    try:
        return float(option)
    except ValueError:
        _refuse(f"--threshold {option}: use argmax or a number from 0 to 1")


class _Wait:
    """The command's time limit, and its message about predictions that stay queued."""

    def __init__(self, run: str, timeout: float | None) -> None:
        self._run = run
        self._timeout = timeout
        self._began = time.monotonic()
        self._has_warned = False

    def check(self, job: dict[str, Any], since: float) -> None:
        """Warn once if no worker starts the job submitted at `since`. Raises Exit on timeout."""
        now = time.monotonic()
        is_queued = job["status"] == JobStatus.QUEUED
        position = job["queue_position"] if is_queued else None
        at_position = "" if position is None else f" at position {position}"
        if self._timeout is not None and now - self._began >= self._timeout:
            path = f"/v1/runs/{self._run}/predictions/{job['id']}"
            _refuse(
                f"--timeout: after {self._timeout:g} s {job['id']} is {job['status']}"
                f"{at_position}. It continues: read it with GET {path}, cancel it with POST "
                f"{path}/cancel." + (f" {_NO_WORKER}" if is_queued else "")
            )
        if is_queued and not self._has_warned and now - since > _UNCLAIMED_SECONDS:
            self._has_warned = True
            typer.echo(
                f"{job['id']} has been queued for {now - since:.0f} s{at_position}, and no worker "
                f"has started it. {_NO_WORKER}",
                err=True,
            )

    def pause(self) -> None:
        seconds = _POLL_SECONDS
        if self._timeout is not None:
            seconds = min(seconds, self._began + self._timeout - time.monotonic())
        time.sleep(max(0, seconds))


def _predict_batch(
    client: httpx.Client, run: str, body: dict[str, Any], wait: _Wait
) -> dict[str, Any]:
    """Return the finished predictions."""
    job = _checked(client.post(f"/v1/runs/{run}/predictions", json=body))
    since = time.monotonic()
    while job["status"] not in RESTING:
        wait.check(job, since)
        wait.pause()
        job = _checked(client.get(f"/v1/runs/{run}/predictions/{job['id']}"))
    if job["status"] != JobStatus.SUCCEEDED:
        failure = job["failure"] or {"detail": job["status"], "advice": ""}
        _refuse(f"{failure['detail']} {failure['advice']}")
    return job


def _checked(response: httpx.Response) -> dict[str, Any]:
    if not response.is_success:
        try:
            detail = response.json()["detail"]
        except (ValueError, KeyError, TypeError):
            detail = response.text[:300]
        hint = f". {_NO_KEY}" if response.status_code == codes.UNAUTHORIZED else ""
        _refuse(f"{response.status_code}: {detail}{hint}")
    body: dict[str, Any] = response.json()
    return body


def _print(inputs: list[Any], job: dict[str, Any] | None) -> None:
    """Print a line for each text or chat; `job` has the predictions of those not blank."""
    predictions = iter([] if job is None else job["predictions"])
    for entry in inputs:
        prediction = {"label": None, "score": None} if _is_blank(entry) else next(predictions)
        line = {
            "text" if isinstance(entry, str) else "messages": entry,
            "label": prediction["label"],
            "score": prediction["score"],
            "threshold": None if job is None else job["threshold"],
        }
        typer.echo(json.dumps(line, ensure_ascii=False))


def _refuse(detail: str) -> NoReturn:
    typer.echo(detail, err=True)
    raise typer.Exit(1)
