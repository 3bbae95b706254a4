"""`fairtune predict`: what a run's model makes of texts, asked of a running server over HTTP."""

import json
import sys
import time
from pathlib import Path
from typing import Annotated, Any, NoReturn

import httpx
import typer

from service.domain.prediction import MAX_TEXTS
from service.domain.states import RESTING, JobStatus

_POLL_SECONDS = 0.5
_UNCLAIMED_SECONDS = 10.0
"""Predictions that are queued for longer are worth a word: a free worker has them at once."""

_WHO_TAKES_THEM = (
    "A worker that takes the queue predictions may be missing or busy (FAIRTUNE_QUEUES says what a "
    "worker takes)."
)


def predict(
    run: Annotated[str, typer.Argument(help="The run's id.")],
    texts: Annotated[
        list[str] | None,
        typer.Argument(help="What is to be classified; left out: each line of --file is one."),
    ] = None,
    file: Annotated[
        Path | None, typer.Option(help="A file with a text on each line; - is standard input.")
    ] = None,
    url: Annotated[
        str, typer.Option(help="Where the server is.", envvar="FAIRTUNE_URL")
    ] = "http://127.0.0.1:8000",
    key: Annotated[
        str | None, typer.Option(help="API key, where the server has any.", envvar="FAIRTUNE_KEY")
    ] = None,
    target: Annotated[
        str | None, typer.Option(help="adapter (as it is left out), checkpoint or merged.")
    ] = None,
    step: Annotated[int | None, typer.Option(help="Of the checkpoint.")] = None,
    template: Annotated[str | None, typer.Option(help="Left out: the run's.")] = None,
    threshold: Annotated[
        str | None, typer.Option(help="argmax, or a number from 0 to 1; left out: the run's.")
    ] = None,
    timeout: Annotated[
        float | None,
        typer.Option(
            min=0,
            metavar="SECONDS",
            help="Wait so long for all of them together; left out: until they are there.",
        ),
    ] = None,
) -> None:
    """Classify texts with a run's model: one JSON object a line, in their order."""
    asked = _texts(texts, file)
    options: dict[str, Any] = {"target": target, "step": step, "template": template}
    options["threshold"] = _threshold(threshold)
    body = {name: value for name, value in options.items() if value is not None}
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    patience = _Patience(run, timeout)
    with httpx.Client(base_url=url, headers=headers, timeout=60, trust_env=False) as client:
        try:
            for start in range(0, len(asked), MAX_TEXTS):
                part = asked[start : start + MAX_TEXTS]
                _print(part, _predicted(client, run, body | {"texts": part}, patience))
        except httpx.TransportError as error:
            _refuse(f"{url} does not answer ({error}): name the server with --url")
        except httpx.InvalidURL as error:
            _refuse(f"--url {url}: {error}")


def _texts(texts: list[str] | None, file: Path | None) -> list[str]:
    if texts and file is not None:
        _refuse("give texts or --file, not both")
    if file is None:
        found = texts or []
    else:
        try:
            content = sys.stdin.read() if str(file) == "-" else file.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            _refuse(f"--file {file}: {error}")
        found = content.split("\n")
    found = [text for text in found if text.strip()]
    if not found:
        _refuse("there is no text: give some, or --file")
    return found


def _threshold(given: str | None) -> str | float | None:
    if given is None or given == "argmax":
        return given
    try:
        return float(given)
    except ValueError:
        _refuse(f"--threshold {given}: give argmax or a number from 0 to 1")


class _Patience:
    """How long the whole command waits, and what it says meanwhile."""

    def __init__(self, run: str, timeout: float | None) -> None:
        self._run = run
        self._timeout = timeout
        self._began = time.monotonic()
        self._has_spoken = False

    def look(self, found: dict[str, Any], since: float) -> None:
        """Say once that nobody takes up what was asked for at `since`. Raises Exit in the end."""
        now = time.monotonic()
        is_queued = found["status"] == JobStatus.QUEUED
        place = found["queue_position"] if is_queued else None
        at_place = "" if place is None else f" at place {place}"
        if self._timeout is not None and now - self._began >= self._timeout:
            path = f"/v1/runs/{self._run}/predictions/{found['id']}"
            _refuse(
                f"--timeout: after {self._timeout:g} s {found['id']} is {found['status']}"
                f"{at_place}. It goes on: GET {path} reads it later, POST {path}/cancel ends it."
                + (f" {_WHO_TAKES_THEM}" if is_queued else "")
            )
        if is_queued and not self._has_spoken and now - since > _UNCLAIMED_SECONDS:
            self._has_spoken = True
            typer.echo(
                f"{found['id']} has been queued for {now - since:.0f} s{at_place}, and no worker "
                f"has picked it up yet. {_WHO_TAKES_THEM}",
                err=True,
            )

    def pause(self) -> None:
        left = _POLL_SECONDS
        if self._timeout is not None:
            left = min(left, self._began + self._timeout - time.monotonic())
        time.sleep(max(0, left))


def _predicted(
    client: httpx.Client, run: str, body: dict[str, Any], patience: _Patience
) -> dict[str, Any]:
    """The finished predictions."""
    found = _checked(client.post(f"/v1/runs/{run}/predictions", json=body))
    asked = time.monotonic()
    while found["status"] not in RESTING:
        patience.look(found, asked)
        patience.pause()
        found = _checked(client.get(f"/v1/runs/{run}/predictions/{found['id']}"))
    if found["status"] != JobStatus.SUCCEEDED:
        failure = found["failure"] or {"detail": found["status"], "advice": ""}
        _refuse(f"{failure['detail']} {failure['advice']}")
    return found


def _checked(response: httpx.Response) -> dict[str, Any]:
    if not response.is_success:
        try:
            detail = response.json()["detail"]
        except (ValueError, KeyError, TypeError):
            detail = response.text[:300]
        _refuse(f"{response.status_code}: {detail}")
    answer: dict[str, Any] = response.json()
    return answer


def _print(texts: list[str], found: dict[str, Any]) -> None:
    for text, one in zip(texts, found["predictions"], strict=True):
        line = {
            "text": text,
            "label": one["label"],
            "score": one["score"],
            "threshold": found["threshold"],
        }
        typer.echo(json.dumps(line, ensure_ascii=False))


def _refuse(detail: str) -> NoReturn:
    typer.echo(detail, err=True)
    raise typer.Exit(1)
