"""`fairtune predict` without a server: what it sends, prints and refuses."""

import json

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from service.cli import predict
from service.cli.main import app
from service.domain.prediction import MAX_TEXTS

LINES = st.lists(st.sampled_from(["", " ", "\t", "a", "b c"]), max_size=12)


@pytest.fixture
def command(monkeypatch):
    """Runs the command against a server that labels each text with its own words."""
    batches = []

    def answer(_client, _run, body, _wait):
        batches.append(body["texts"])
        assert all(text.strip() for text in body["texts"])
        predictions = [{"label": text.upper(), "score": 0.5} for text in body["texts"]]
        return {"predictions": predictions, "threshold": 0.25}

    monkeypatch.setattr(predict, "_predict_batch", answer)

    def run(*arguments, **options):
        batches.clear()
        result = CliRunner().invoke(app, ["predict", "run_1", *arguments], **options)
        return result, [json.loads(line) for line in result.stdout.splitlines()], batches

    return run


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(LINES)
def test_each_line_of_a_file_has_a_line_of_output(command, lines):
    content = "".join(f"{line}\n" for line in lines)
    result, printed, _ = command("--file", "-", input=content)
    if not any(line.strip() for line in lines):
        assert result.exit_code == 1
        assert "there is no text" in result.stderr
        return
    assert [line["text"] for line in printed] == lines
    for line in printed:
        is_blank = not line["text"].strip()
        assert line["label"] == (None if is_blank else line["text"].upper())
        assert line["score"] == (None if is_blank else 0.5)
    blank = [number for number, line in enumerate(lines, 1) if not line.strip()]
    assert ("blank" in result.stderr) == bool(blank)
    if blank:
        assert f"the first is line {blank[0]}:" in result.stderr


def test_a_batch_of_blank_lines_alone_is_not_sent(command):
    content = "a\n" + "\n" * (2 * MAX_TEXTS) + "b\n"
    _, printed, batches = command("--file", "-", input=content)
    assert len(printed) == 2 * MAX_TEXTS + 2
    assert batches == [["a"], ["b"]]
    assert printed[-1]["label"] == "B"


@pytest.mark.parametrize("sent", [(), ("--key", "ft_wrong")])
def test_a_refused_key_names_the_option(monkeypatch, sent):
    problem = {"detail": "send an API key with the header `Authorization: Bearer ft_…`"}
    real = httpx.Client
    transport = httpx.MockTransport(lambda _request: httpx.Response(401, json=problem))
    monkeypatch.setattr(predict.httpx, "Client", lambda **more: real(transport=transport, **more))
    result = CliRunner().invoke(app, ["predict", "run_1", "a text", *sent])
    assert result.exit_code == 1
    assert "401" in result.stderr
    assert "--key" in result.stderr
    assert "FAIRTUNE_KEY" in result.stderr
