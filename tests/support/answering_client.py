"""The Python client against a server that answers in this process."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient

from fairtune import Client
from service.cli import connection

Classify = Callable[[Any], str]


def connect_to(monkeypatch: pytest.MonkeyPatch, http: httpx.Client, *modules: Any) -> None:
    """Have the commands of these modules use `http`, which stays open."""

    @contextmanager
    def connected(_server: str | None = None, key: str | None = None) -> Iterator[Client]:
        yield Client("http://127.0.0.1", key, http=http)

    for module in (connection, *modules):
        monkeypatch.setattr(module, "connected", connected)


def forwarding(client: TestClient) -> httpx.Client:
    """Return a client whose requests the test client answers, which is not httpx's."""

    def answer(request: httpx.Request) -> httpx.Response:
        headers = {name: value for name, value in request.headers.items() if name != "host"}
        content = request.read()
        answer = client.request(request.method, str(request.url), headers=headers, content=content)
        return httpx.Response(
            answer.status_code, headers=dict(answer.headers), content=answer.content
        )

    return httpx.Client(transport=httpx.MockTransport(answer))


def labelling_server(classify: Classify, batches: list[Any]) -> httpx.Client:
    """Return a client of a server whose run run_1 labels each text or chat at once."""

    def answer(request: httpx.Request) -> httpx.Response:
        if request.method == "GET":
            return httpx.Response(200, json={"id": "run_1", "status": "succeeded"})
        body = json.loads(request.content)
        batches.append(body)
        entries = body.get("texts") or body["messages"]
        predictions = [
            {"label": classify(entry), "score": 0.5, "probabilities": {}, "truncated": False}
            for entry in entries
        ]
        content = {
            "id": "pred_1",
            "status": "succeeded",
            "threshold": body.get("threshold", 0.25),
            "predictions": predictions,
        }
        return httpx.Response(201, json=content)

    return httpx.Client(transport=httpx.MockTransport(answer))
