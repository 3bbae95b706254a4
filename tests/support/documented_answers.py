"""Comparison of answers with the OpenAPI document: their status and their content type."""

import re
from typing import Any

import httpx

# Answers that stand for every path, hence in none of them.
_EVERYWHERE = {405, 500}


class DocumentedAnswers:
    """A hook for a client: raises AssertionError for an answer that the document lacks."""

    def __init__(self, document: dict[str, Any]) -> None:
        self._operations = [
            (_regex(path), method.upper(), operation)
            for path, operations in document["paths"].items()
            for method, operation in operations.items()
        ]

    def __call__(self, answer: httpx.Response) -> None:
        request = answer.request
        if answer.status_code in _EVERYWHERE:
            return
        for pattern, method, operation in self._operations:
            if method == request.method and pattern.fullmatch(request.url.path):
                described = operation["responses"].get(str(answer.status_code))
                call = f"{method} {request.url.path}"
                assert described is not None, f"{call}: {answer.status_code} is not documented"
                _check_type(call, answer, described.get("content", {}))
                return


def _check_type(call: str, answer: httpx.Response, content: dict[str, Any]) -> None:
    header = answer.headers.get("content-type")
    if header is None or answer.status_code == httpx.codes.NO_CONTENT:
        return
    types = {header, header.partition(";")[0]}
    assert types & content.keys() or "*/*" in content, (
        f"{call}: {answer.status_code} has the type {header}, documented are {[*content]}"
    )


def _regex(path: str) -> re.Pattern[str]:
    parts = re.split(r"(\{\w+\})", path)
    names = {"{path}": ".+"}
    return re.compile(
        "".join(names.get(p, "[^/]+") if p.startswith("{") else re.escape(p) for p in parts)
    )
