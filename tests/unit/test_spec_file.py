"""Specification files and `--set`: what is read, and what is refused with its line."""

import contextlib
import json
import random
from datetime import date

import pytest
import typer
import yaml
from hypothesis import given
from hypothesis import strategies as st

from service.cli.assignments import assigned, with_changes
from service.cli.errors import ExitStatus
from service.cli.spec_file import parse_object, read_object

# Control characters must be escaped in YAML, and its line ends are folded.
PRINTED = st.characters(
    codec="utf-8",
    exclude_categories=["Cs", "Cc", "Zl", "Zp"],
    exclude_characters="\ufeff\ufffe\uffff",
)
NAMES = st.text(PRINTED, min_size=1)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**12), 10**12)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(PRINTED, max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=12,
)
OBJECTS = st.dictionaries(NAMES, VALUES, min_size=1, max_size=5)


@pytest.fixture
def refusal(capsys):
    """Returns the line that a refusal prints."""

    def line(call, *arguments) -> str:
        with pytest.raises(typer.Exit) as ended:
            call(*arguments)
        assert ended.value.exit_code == ExitStatus.USAGE
        (printed,) = capsys.readouterr().err.splitlines()
        return printed

    return line


@given(OBJECTS)
def test_json_is_read_as_it_is(content):
    assert parse_object("--file", json.dumps(content), "JSON") == content


@given(OBJECTS)
def test_json_is_yaml(content):
    text = json.dumps(content, ensure_ascii=False)
    assert parse_object("--file", text, "YAML") == content


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"),
        ("off", "off"),
        ("yes", "yes"),
        ("none", "none"),
        ("3e-4", 3e-4),
        ("1E5", 1e5),
        (".5", 0.5),
        ("5.", 5.0),
        ("+3", 3),
        ("010", 10),
        ("0x10", 16),
        ("0o10", 8),
        ("1_000", "1_000"),
        ("12:30:45", "12:30:45"),
        ("2026-01-02", "2026-01-02"),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("'no'", "no"),
        ("1.2.3", "1.2.3"),
        ("e5", "e5"),
        ("-", [None]),
        ("=", "="),
    ],
)
def test_yaml_has_the_values_of_its_core_schema(text, value):
    read = parse_object("--file", f"a: {text}" if text != "-" else "a:\n-", "YAML")["a"]
    assert read == value
    assert type(read) is type(value)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_number_of_json_is_the_same_number_of_yaml(number):
    assert parse_object("--file", f"a: {json.dumps(number)}", "YAML") == {"a": number}


def test_merge_keys_and_aliases():
    text = "base: &b {x: 1, y: 2}\nother:\n  <<: *b\n  y: 3\n"
    assert parse_object("--file", text, "YAML")["other"] == {"x": 1, "y": 3}


@pytest.mark.parametrize(
    ("kind", "text", "reasons"),
    [
        ("YAML", "a: 1\nb: 2\na: 3\n", ["line 3 column 1", "'a' occurs twice"]),
        ("YAML", "x:\n  a: 1\n  a: 3\n", ["line 3 column 3", "'a' occurs twice"]),
        ("YAML", "a: [1, 2\nb: 3", ["not valid YAML at line 2"]),
        ("YAML", "a: 1\n\tb: 2", ["not valid YAML at line 2"]),
        ("YAML", "a: !!python/object:os.system x", ["not valid YAML at line 1", "python"]),
        ("YAML", "1: a", ["the key 1 must be a text"]),
        ("YAML", "? [a]\n: b", ["must be a text"]),
        ("YAML", "a: .nan", ["JSON"]),
        ("YAML", "a: &x [*x]", ["file"]),
        ("YAML", "--- 1\n--- 2", ["not valid YAML at line 2"]),
        ("YAML", "- a\n- b", ["must be an object"]),
        ("YAML", "just text", ["must be an object"]),
        ("YAML", "", ["is empty"]),
        ("YAML", "# a comment", ["must be an object"]),
        ("YAML", "a: \0", ["not valid YAML"]),
        ("JSON", '{"a": 1, "a": 2}', ["'a' occurs twice"]),
        ("JSON", '{"a": {"b": 1, "b": 2}}', ["'b' occurs twice"]),
        ("JSON", '{"a": NaN}', ["NaN is no value of JSON"]),
        ("JSON", '{"a": 1,}', ["line 1 column", "comma"]),
        ("JSON", '{\n"a": None}', ["line 2 column 6", "write null"]),
        ("JSON", '{"a": "\\ud800"}', ["unpaired surrogate"]),
        ("JSON", "[1]", ["must be an object"]),
        ("JSON", "{" + '"a":{' * 100_000, ["nested too deeply"]),
        ("JSON", '{"a": ' + "9" * 5000 + "}", ["file"]),
        ("TOML", "a = 1\na = 2", ["not valid TOML", "overwrite"]),
        ("TOML", "a = 2026-01-02", ["a (2026-01-02)", "quotes"]),
        ("TOML", "[x]\nb = [1, 2026-01-02T00:00:00Z]", ["x.b[1]"]),
        ("TOML", "a = inf", ["JSON"]),
        ("TOML", "a", ["not valid TOML"]),
    ],
)
def test_what_is_no_specification_is_refused_in_a_line(kind, text, reasons, refusal):
    line = refusal(parse_object, "--file spec", text, kind)
    assert line.startswith("--file spec")
    for reason in reasons:
        assert reason in line


def test_damaged_files_never_end_in_another_error(capsys):
    order = random.Random(2)
    text = yaml.safe_dump({"training": {"learning_rate": 1e-4, "a": [1, {"b": "c"}]}, "é": "x"})
    for _ in range(300):
        index = order.randrange(len(text))
        piece = order.choice(["", "{", "]", "\t", ":", "- ", "&a ", "*a", "'", '"', "\x07", "!!x "])
        damaged = text[:index] + piece + text[index + order.randrange(3) :]
        for kind in ("YAML", "JSON", "TOML"):
            with contextlib.suppress(typer.Exit):
                parse_object("--file", damaged, kind)
            assert len(capsys.readouterr().err.splitlines()) <= 1


def test_a_file_may_have_any_encoding_and_name(tmp_path, refusal):
    for encoding in ("utf-8", "utf-8-sig", "utf-16", "utf-32"):
        for name, text in {
            "s.yaml": "name: é\n",
            "s.YML": "name: é\n",
            "s.json": '{"name": "é"}',
            "s.toml": 'name = "é"\r\n',
        }.items():
            file = tmp_path / name
            file.write_bytes(text.encode(encoding))
            assert read_object("--file", file) == {"name": "é"}
    (tmp_path / "s.txt").write_text("name: x")
    assert ".json, .toml, .yaml, .yml" in refusal(read_object, "--file", tmp_path / "s.txt")
    assert "No such file" in refusal(read_object, "--file", tmp_path / "none.yaml")
    (tmp_path / "folder.yaml").mkdir()
    assert "directory" in refusal(read_object, "--file", tmp_path / "folder.yaml")
    (tmp_path / "s.json").write_bytes(b"PAR1 and more \0")
    assert "Parquet" in refusal(read_object, "--file", tmp_path / "s.json")


@pytest.mark.parametrize(
    ("texts", "spec"),
    [
        (["seed=3"], {"seed": 3}),
        (["training.learning_rate=3e-4"], {"training": {"learning_rate": 3e-4}}),
        (
            ["training.bf16=false", "training.packing=none"],
            {"training": {"bf16": False, "packing": "none"}},
        ),
        (["name=a = b"], {"name": "a = b"}),
        (['name="3"'], {"name": "3"}),
        (["name="], {"name": ""}),
        (["fairness.caps=[]"], {"fairness": {"caps": []}}),
        (['lora={"r": 2}', "lora.lora_alpha=4"], {"lora": {"r": 2, "lora_alpha": 4}}),
        (["seed=1", "seed=2"], {"seed": 2}),
        (["seed=1_000"], {"seed": "1_000"}),
        (["a=NaN"], {"a": "NaN"}),
        (["training.max_steps=null"], {"training": {"max_steps": None}}),
    ],
)
def test_assignments(texts, spec):
    assert assigned(texts) == spec


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("seed", "write FIELD=VALUE"),
        ("=3", "write FIELD=VALUE"),
        ("training.=3", "write FIELD=VALUE"),
        ("training..x=3", "write FIELD=VALUE"),
        ("training.bf16=True", "write true"),
        ("seed=None", "write null"),
        ('lora={"r": 2', "not valid JSON at column 8: the object"),
        ("fairness.caps=[1,]", "comma"),
        ('lora={"r": 2, "r": 3}', "'r' occurs twice"),
        ('lora={"r": NaN}', "NaN is no value of JSON"),
        ("a=" + "[" * 100_000, "nested too deeply"),
    ],
)
def test_what_is_no_assignment_is_refused(text, reason, refusal):
    line = refusal(assigned, [text])
    assert line.startswith("--set ")
    assert reason in line


def test_changes_override_field_by_field():
    spec = {"seed": 1, "training": {"num_train_epochs": 3, "bf16": True}, "tags": ["a"]}
    changes = {"training": {"max_steps": 2}, "tags": ["b"]}
    assert with_changes(spec, changes) == {
        "seed": 1,
        "training": {"num_train_epochs": None, "max_steps": 2, "bf16": True},
        "tags": ["b"],
    }
    assert spec["training"]["num_train_epochs"] == 3


def test_a_date_is_a_text_in_yaml():
    assert not isinstance(parse_object("-f", "a: 2026-01-02", "YAML")["a"], date)
