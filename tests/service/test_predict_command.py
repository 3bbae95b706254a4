"""`fairtune predict` without a worker: what it reads, sends, prints, writes and refuses."""

import csv
import gzip
import io
import json

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from service.cli import predict
from service.cli.main import app
from service.domain.prediction import MAX_TEXTS
from tests.support.answering_client import connect_to, labelling_server

LINES = st.lists(st.sampled_from(["", " ", "\t", "a", "b c"]), max_size=12)
CELLS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8)
PREDICTED = ("label", "score", "threshold")


@pytest.fixture
def command(monkeypatch):
    """Runs the command against a server that labels each text with its own words."""
    batches = []
    connect_to(monkeypatch, labelling_server(str.upper, batches), predict)

    def run(*arguments, **options):
        batches.clear()
        result = CliRunner().invoke(app, ["predict", "run_1", *arguments], **options)
        printed = [json.loads(line) for line in result.stdout.splitlines()]
        assert all(text.strip() for body in batches for text in body["texts"])
        return result, printed, [body["texts"] for body in batches]

    return run


generated = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@generated
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
    transport = httpx.MockTransport(lambda _request: httpx.Response(401, json=problem))
    connect_to(monkeypatch, httpx.Client(transport=transport), predict)
    result = CliRunner().invoke(app, ["predict", "run_1", "a text", *sent])
    assert result.exit_code == 5
    assert "--key" in result.stderr
    assert "FAIRTUNE_KEY" in result.stderr


# -- tables in, tables out -------------------------------------------------------------------------


def written(file):
    """Return the rows of an output file, null as None."""
    if file.suffix == ".parquet":
        return pq.read_table(file).to_pylist()
    if file.suffix == ".jsonl":
        return [json.loads(line) for line in file.read_bytes().split(b"\n")[:-1]]
    with file.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


@generated
@given(st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=6), st.sampled_from(["csv", "jsonl"]))
def test_rows_of_any_table_keep_their_columns_and_order(command, tmp_path, cells, suffix):
    source, target = tmp_path / f"in.{suffix}", tmp_path / f"out.{suffix}"
    cells = [*cells, ("n", "the last one")]
    if suffix == "csv":
        with source.open("w", newline="", encoding="utf-8") as stream:
            csv.writer(stream, quoting=csv.QUOTE_ALL).writerows([("n", "body"), *cells])
    else:
        rows = (json.dumps({"n": n, "body": body}) + "\n" for n, body in cells)
        source.write_text("".join(rows), "utf-8")
    result, _, _ = command("--file", str(source), "--column", "body", "--output", str(target))
    assert result.exit_code == 0, result.output
    rows = written(target)
    assert [(row["n"], row["body"]) for row in rows] == cells
    for row in rows:
        expected = row["body"].upper() if row["body"].strip() else None
        assert (row["label"] or None) == expected


@pytest.mark.parametrize("target", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize("origin", ["csv", "jsonl", "parquet", "txt"])
def test_every_format_becomes_every_other(command, tmp_path, origin, target):
    texts = ["a, “b”", "", "c\td"]
    file, output = tmp_path / f"in.{origin}", tmp_path / f"out.{target}"
    if origin == "parquet":
        pq.write_table(pa.table({"n": [1, 2, 3], "text": texts}), file)
    elif origin == "jsonl":
        lines = [json.dumps({"n": n, "text": text}) for n, text in enumerate(texts, 1)]
        file.write_text("\n".join(lines))
    elif origin == "csv":
        file.write_text('n,text\n1,"a, “b”"\n2,\n3,c\td\n', "utf-8")
    else:
        file.write_text("".join(f"{text}\n" for text in texts), "utf-8")
    result, printed, _ = command("--file", str(file), "--output", str(output))
    assert (result.exit_code, printed) == (0, []), result.output
    rows = written(output)
    own = [name for name in rows[0] if name not in PREDICTED]
    assert own == (["text"] if origin == "txt" else ["n", "text"])
    assert [row["text"] for row in rows] == texts
    assert [row["label"] or None for row in rows] == ["A, “B”", None, "C\tD"]
    assert [str(row["score"] or "") for row in rows] == ["0.5", "", "0.5"]
    if origin != "txt":
        assert [int(row["n"]) for row in rows] == [1, 2, 3]
    if origin in ("jsonl", "parquet") and target in ("jsonl", "parquet"):
        assert rows[0]["n"] == 1
    assert not output.with_name(f"{output.name}.part").exists()


def test_columns_of_the_input_are_never_replaced(command, tmp_path):
    file = tmp_path / "in.csv"
    file.write_text("text,label,predicted_label\na,hate,x\n")
    result, printed, _ = command("--file", str(file))
    assert printed[0]["label"] == "hate"
    assert printed[0]["predicted_label"] == "x"
    assert printed[0]["predicted_predicted_label"] == "A"
    assert printed[0]["score"] == 0.5
    assert "the predicted one is predicted_predicted_label" in result.stderr


def test_values_of_json_lines_stay_as_they_are(command, tmp_path):
    row = {
        "text": "a",
        "x": 1.0,
        "big": 2**70,
        "list": [1, {"b": None}],
        "odd": "\ud800",
        "no": None,
    }
    file = tmp_path / "in.jsonl"
    file.write_text(json.dumps(row) + "\n" + json.dumps({"text": 7, "more": True}) + "\n")
    _, printed, batches = command("--file", str(file))
    assert batches == [["a", "7"]]
    assert printed[0] == row | {"label": "A", "score": 0.5, "threshold": 0.25}
    assert list(printed[1]) == ["text", "more", *PREDICTED]
    for suffix in ("csv", "parquet"):
        target = tmp_path / f"out.{suffix}"
        result, _, _ = command("--file", str(file), "--output", str(target))
        assert result.exit_code == 0, (result.output, result.exception)
        assert written(target)[0]["list"] == '[1, {"b": null}]'
        assert written(target)[0]["big"] == str(2**70)


def test_standard_input_may_be_a_table(command):
    content = gzip.compress('text,n\n\n"a\nb",1\n'.encode("utf-16"))
    _, printed, batches = command("--file", "-", "--format", "csv", input=content)
    assert batches == [["a\nb"]]
    assert printed[0]["n"] == "1"
    table = io.BytesIO()
    pq.write_table(pa.table({"text": ["a"], "n": [1]}), table)
    _, printed, _ = command("--file", "-", "--format", "parquet", input=table.getvalue())
    assert printed[0] == {"text": "a", "n": 1, "label": "A", "score": 0.5, "threshold": 0.25}


def test_a_large_file_is_sent_in_batches_in_order(command, tmp_path):
    file, output = tmp_path / "in.parquet", tmp_path / "out.parquet"
    texts = [f"text {number}" for number in range(1000)]
    pq.write_table(pa.table({"text": texts}), file)
    _, _, batches = command("--file", str(file), "--output", str(output))
    assert [len(batch) for batch in batches] == [256, 256, 256, 232]
    assert pq.read_table(output)["label"].to_pylist() == [text.upper() for text in texts]


@pytest.mark.parametrize(
    ("name", "content", "arguments", "message"),
    [
        ("a.csv", "body\nx\n", (), "no column 'text', only 'body'; name another column with --col"),
        ("a.csv", "text,text\nx,y\n", (), "the column 'text' twice"),
        ("a.csv", "text,n\nx,1,2\n", (), "line 2 has 3 fields where the header has 2"),
        ("a.csv", 'text\n"x\n', (), "line 2 is not valid CSV: a quote"),
        ("a.csv", b"text\nx\ncaf\xe9\n", (), "line 3 is not valid UTF-8 at byte 4"),
        ("a.csv", "text\n", (), "there is no text"),
        ("a.csv", b"PAR1\x15\x04", (), "is a Parquet file, not plain text"),
        ("a.jsonl", '{"a": 1}\n', (), "line 1 has no key 'text', only 'a'; name another key"),
        ("a.jsonl", '{"messages": []}\n', (), "chats are read by --messages"),
        ("a.jsonl", '{"text": []}\n', (), "line 1: 'text' must be a string, not a list"),
        ("a.jsonl", '{"text": "a"}\n"b"\n', (), "line 2 must be an object, not a string"),
        ("a.jsonl", '{"text": "a"}\n{\n', (), "line 2 is not valid JSON at column 2"),
        ("a.jsonl", '{"text": "a", "text": "b"}\n', (), "line 1 has the key 'text' twice"),
        ("a.jsonl", '{"text": "\\ud800"}\n', (), "line 1 holds an unpaired surrogate"),
        ("a.txt", "a\nb\0c\n", (), "line 2 holds a NUL character"),
        ("a.parquet", "text\nx\n", (), "is not a Parquet file"),
        ("a.txt", "a\n", ("--column", "x"), "set --format"),
        ("a.txt", "a\n", ("--format", "xml"), "text, csv, jsonl, parquet"),
        ("a.txt", "a\n", ("--output", "b.xlsx"), "ends with .jsonl, .csv, .parquet"),
        ("a.txt", "a\n", ("--output", "none/b.csv"), "the directory none does not exist"),
        ("a.csv", "text\na\n", ("--output", "a.csv"), "is the input"),
    ],
)
def test_what_cannot_be_read_or_written_is_named_before_anything_is_sent(
    command, tmp_path, monkeypatch, name, content, arguments, message
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    result, _, batches = command("--file", name, *arguments)
    assert result.exit_code == 1, result.exception
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert batches == []


def test_a_refusal_names_the_line_and_the_rows_before_it_are_kept(monkeypatch, tmp_path):
    file, output = tmp_path / "in.txt", tmp_path / "out.csv"
    file.write_text("\n".join(["a"] * 300 + [""] + ["b"] * 10))
    real = labelling_server(str.upper, [])

    def answer(request):
        if request.method == "POST" and b'"b"' in request.content:
            error = {"pointer": "/texts/44", "detail": "is bad"}
            return httpx.Response(422, json={"detail": "is bad", "errors": [error]})
        return real._transport.handle_request(request)

    connect_to(monkeypatch, httpx.Client(transport=httpx.MockTransport(answer)), predict)
    result = CliRunner().invoke(
        app, ["predict", "run_1", "--file", str(file), "--output", str(output)]
    )
    assert result.exit_code == 1
    assert "line 302: is bad" in result.stderr.splitlines()
    assert not output.exists()
    assert f"until then are in {output}.part" in result.stderr
    assert len((tmp_path / "out.csv.part").read_text().splitlines()) == 257
