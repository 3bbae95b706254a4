"""Every door through which text comes in reads the same encodings, or names what it cannot read."""

import gzip
import json

import pytest
from typer.testing import CliRunner

from service.cli import predict
from service.cli.main import app
from service.settings import Settings
from tests.support.answering_client import connect_to, labelling_server

ENCODINGS = ["utf-8", "utf-8-sig", "utf-16", "utf-32", "utf-16-le", "utf-16-be"]
ROWS = b'{"text": "a", "label": "hate"}\n{"text": "b", "label": "normal"}\n'
NAMED = [
    (gzip.compress(b"{}", mtime=0), "is a gzip file, not plain text; decompress it first"),
    (b"PAR1\x15\x04", "is a Parquet file, not plain text; convert it"),
    (b"PK\x03\x04\x14\0\0\0xl/", "is an Excel workbook (.xlsx), not plain text"),
    (b"\xff\xfe{\0}", "begins as UTF-16 but is not valid UTF-16"),
]


def upload(client, **fields):
    answer = client.post("/v1/datasets", data={"name": "d"} | fields, files={"train": ROWS})
    return answer.status_code, answer.json()


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_json_body_is_read_in_utf_8_alone(client, dataset_id, encoding):
    body = json.dumps({"dataset_id": dataset_id, "base_model": "tiny", "name": "é"})
    answer = client.post(
        "/v1/runs?dry_run=true",
        content=body.encode(encoding),
        headers={"Content-Type": "application/json"},
    )
    if encoding.startswith("utf-8"):
        assert answer.status_code == 200, answer.text
        assert answer.json()["spec"]["name"] == "é"
    else:
        assert answer.status_code == 400
        label = encoding[:6].upper()
        assert answer.json()["detail"] == f"the body is in {label}; send JSON in UTF-8"


@pytest.mark.parametrize(("content", "message"), NAMED[:-1])
def test_a_body_that_is_no_text_is_named(client, content, message):
    answer = client.post("/v1/runs", content=content, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400
    assert answer.json()["detail"].startswith(f"the body {message}")


@pytest.mark.parametrize("url", ["/v1/runs", "/v1/datasets"])
def test_a_compressed_body_is_named(client, url):
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    answer = client.post(url, content=gzip.compress(b"{}"), headers=headers)
    assert answer.status_code == 400
    detail = "Content-Encoding gzip is not supported; send the body uncompressed"
    assert answer.json()["detail"] == detail


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_form_field_is_read(client, encoding):
    mapping = '{"labels": {"hate": "hâte", "normal": "normal"}}'.encode(encoding)
    # As a part without a file name: the client sends a str or bytes field as it is.
    status, dataset = upload(client, mapping=mapping, name="name é".encode(encoding))
    assert status == 201, dataset
    assert (dataset["name"], list(dataset["stats"]["labels"])) == ("name é", ["hâte", "normal"])


@pytest.mark.parametrize(("content", "message"), NAMED)
def test_a_form_field_that_is_no_text_is_named(client, content, message):
    status, problem = upload(client, mapping=content)
    assert status == 422
    assert problem["errors"][0]["pointer"] == "/mapping"
    assert problem["errors"][0]["detail"].startswith(message)
    assert problem["detail"].startswith("/mapping: ")


@pytest.fixture
def texts(monkeypatch):
    """Run the command and return the texts that it sends, or its output."""
    bodies = []
    connect_to(monkeypatch, labelling_server(str.upper, bodies), predict)

    def run(*arguments, **options):
        bodies.clear()
        result = CliRunner().invoke(app, ["predict", "run_1", *arguments], **options)
        return bodies[0]["texts"] if result.exit_code == 0 else result.stderr

    return run


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_texts_are_read_from_a_file_and_from_standard_input(texts, tmp_path, encoding, end, packed):
    data = f"a é{end}b “x”{end}".encode(encoding)
    data = gzip.compress(data, mtime=0) if packed else data
    (tmp_path / "texts").write_bytes(data)
    assert texts("--file", str(tmp_path / "texts")) == ["a é", "b “x”"]
    assert texts("--file", "-", input=data) == ["a é", "b “x”"]


@pytest.mark.parametrize(
    ("content", "message"),
    [*NAMED[1:], (b"a\ncaf\xe9\n", "is not valid UTF-8 at byte 4 of line 2")],
)
def test_a_file_of_texts_that_is_no_text_is_named(texts, tmp_path, content, message):
    path = tmp_path / "texts"
    path.write_bytes(content)
    assert texts("--file", str(path)).startswith(f"--file {path} {message}")
    assert texts("--file", "-", input=content).startswith(f"--file - {message}")


def test_an_argument_that_is_not_utf_8_is_named(texts):
    assert texts("a", "caf\udce9") == (
        "text 2 is not valid UTF-8; write it in UTF-8, or use --file\n"
    )


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_the_environment_file_is_read(tmp_path, monkeypatch, encoding):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FAIRTUNE_PORT", raising=False)
    (tmp_path / ".env").write_bytes("FAIRTUNE_PORT=8123\r\n# é\r\n".encode(encoding))
    assert Settings().port == 8123


@pytest.mark.parametrize(("content", "message"), NAMED)
def test_an_environment_file_that_is_no_text_is_named(tmp_path, monkeypatch, content, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_bytes(content)
    result = CliRunner().invoke(app, ["keys", "list"])
    assert result.exit_code == 2
    assert result.stderr.startswith(f".env {message}")
