"""`fairtune predict`: what a run's model makes of texts, asked of a running server over HTTP."""

import json
import sys
import time
from pathlib import Path
from typing import Annotated, Any, NoReturn

import httpx
import typer

from service.domain.prediction import MOST_TEXTS
from service.domain.states import RESTING, JobStatus

_POLL_SECONDS = 0.5


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
) -> None:
    """Classify texts with a run's model: one JSON object a line, in their order."""
    asked = _texts(texts, file)
    options: dict[str, Any] = {"target": target, "step": step, "template": template}
    options["threshold"] = _threshold(threshold)
    body = {name: value for name, value in options.items() if value is not None}
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    with httpx.Client(base_url=url, headers=headers, timeout=60, trust_env=False) as client:
        try:
            for start in range(0, len(asked), MOST_TEXTS):
                part = asked[start : start + MOST_TEXTS]
                _print(part, _predicted(client, run, body | {"texts": part}))
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


def _predicted(client: httpx.Client, run: str, body: dict[str, Any]) -> dict[str, Any]:
    """The finished predictions."""
    found = _checked(client.post(f"/v1/runs/{run}/predictions", json=body))
    while found["status"] not in RESTING:
        time.sleep(_POLL_SECONDS)
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
