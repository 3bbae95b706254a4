"""The check of answers that every test with the client makes sees an answer that is missing."""

import httpx
import pytest

from tests.support.documented_answers import DocumentedAnswers

DOCUMENT = {"paths": {"/a/{id}": {"get": {"responses": {"200": {"content": {"text/csv": {}}}}}}}}


def answer(path: str, status: int = 200, kind: str = "text/csv; charset=utf-8") -> httpx.Response:
    request = httpx.Request("GET", f"http://127.0.0.1{path}")
    return httpx.Response(status, headers={"Content-Type": kind}, request=request)


def test_documented_answers_pass():
    check = DocumentedAnswers(DOCUMENT)
    check(answer("/a/1"))
    check(answer("/b", 404))  # no path of the document


@pytest.mark.parametrize(
    ("missing", "named"),
    [
        (answer("/a/1", 409), "409 is not documented"),
        (answer("/a/1", kind="text/html"), "has the type text/html"),
    ],
)
def test_an_answer_that_is_not_documented_fails(missing, named):
    with pytest.raises(AssertionError, match=named):
        DocumentedAnswers(DOCUMENT)(missing)
