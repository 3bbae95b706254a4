"""Every kind of bad row: where the error points, what it says, and that drop leaves it out."""

import json

import pytest

from service.datasets.lines import MAX_LINE_BYTES

GOOD = b'{"text": "a", "label": "hate"}\n{"text": "b", "label": "normal"}\n'
CSV = b"text,label\na,hate\nb,normal\n"
CHAT = (
    b'{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "yes"}]}\n'
)
USER = {"role": "user", "content": "q"}
LONG = b'{"text": "' + b"x" * MAX_LINE_BYTES + b'", "label": "hate"}'


def row(**fields) -> bytes:
    return json.dumps({"text": "t", "label": "hate"} | fields).encode()


def said(*messages) -> bytes:
    return json.dumps({"messages": messages}).encode()


# (file before the row, the row, pointer below /train, part of the message, kind)
BAD = {
    "no text": (
        GOOD,
        b'{"body": "x", "label": "hate"}',
        "lines/3/text",
        "mapping.text",
        "missing_text",
    ),
    "null text": (GOOD, row(text=None), "lines/3/text", "a string, not null", "wrong_type"),
    "number for text": (GOOD, row(text=5), "lines/3/text", "a string, not a number", "wrong_type"),
    "list for text": (GOOD, row(text=["a"]), "lines/3/text", "a string, not a list", "wrong_type"),
    "empty text": (GOOD, row(text=""), "lines/3/text", "the text is empty", "blank_text"),
    "blank text": (
        GOOD,
        row(text=" \t\n\u3000"),
        "lines/3/text",
        "the text is empty",
        "blank_text",
    ),
    "unknown label": (
        GOOD,
        row(label="offensive"),
        "lines/3/label",
        "'hate', 'normal'; declare other labels in mapping.labels",
        "unknown_label",
    ),
    "label of other case": (
        GOOD,
        row(label="Hate"),
        "lines/3/label",
        "'Hate' is not one of",
        "unknown_label",
    ),
    "number for label": (GOOD, row(label=1), "lines/3/label", "'1' is not one of", "unknown_label"),
    "fraction for label": (
        GOOD,
        row(label=0.5),
        "lines/3/label",
        "a label must be a string or a whole number, not 0.5",
        "wrong_type",
    ),
    "object for label": (GOOD, row(label={}), "lines/3/label", "not an object", "wrong_type"),
    "label missing": (
        GOOD,
        b'{"text": "c"}',
        "lines/3/label",
        "other rows of train have one",
        "missing_label",
    ),
    "label blank": (
        GOOD,
        row(label="  "),
        "lines/3/label",
        "other rows of train have one",
        "missing_label",
    ),
    "list for group": (
        GOOD,
        row(group=[3]),
        "lines/3/group",
        "set mapping.group to null",
        "wrong_type",
    ),
    "boolean for source": (GOOD, row(source=True), "lines/3/source", "not a boolean", "wrong_type"),
    "long group": (
        GOOD,
        row(group="g" * 201),
        "lines/3/group",
        "longer than 200 characters",
        "bad_value",
    ),
    "list for id": (GOOD, row(id=[1]), "lines/3/id", "not a list", "wrong_type"),
    "NUL in text": (GOOD, row(text="a\0b"), "lines/3/text", "a NUL character", "bad_character"),
    "NUL in group": (GOOD, row(group="a\0b"), "lines/3/group", "a NUL character", "bad_value"),
    "unpaired surrogate": (
        GOOD,
        b'{"text": "\\ud83d", "label": "hate"}',
        "lines/3/text",
        "holds an unpaired surrogate",
        "bad_character",
    ),
    "invalid UTF-8": (
        GOOD,
        b'{"text": "caf\xe9", "label": "hate"}',
        "lines/3",
        "not valid UTF-8 at byte 14",
        "invalid_utf8",
    ),
    "UTF-16": (
        GOOD,
        '{"text": "a"}'.encode("utf-16"),
        "lines/3",
        "not valid UTF-8 at byte 1 ",
        "invalid_utf8",
    ),
    "broken JSON": (
        GOOD,
        b'{"text": "a", "label" "hate"}',
        "lines/3",
        "not valid JSON at column 23",
        "invalid_json",
    ),
    "two objects": (GOOD, row() + row(), "lines/3", "not valid JSON at column", "invalid_json"),
    "object over several lines": (GOOD, b"{", "lines/3", "one whole object", "invalid_json"),
    "deep nesting": (GOOD, b"[" * 200_000, "lines/3", "nested too deeply", "invalid_json"),
    "endless number": (
        GOOD,
        b'{"text": ' + b"1" * 5000 + b"}",
        "lines/3",
        "number that is too long",
        "invalid_json",
    ),
    "list for row": (GOOD, b"[1, 2]", "lines/3", "an object, not a list", "not_an_object"),
    "string for row": (GOOD, b'"text"', "lines/3", "an object, not a string", "not_an_object"),
    "key twice": (
        GOOD,
        b'{"text": "a", "text": "b"}',
        "lines/3",
        "the key 'text' twice",
        "duplicate_key",
    ),
    "too long": (GOOD, LONG, "lines/3", "longer than 1,000,000 bytes", "too_long"),
    "CSV: empty text": (CSV, b",hate", "lines/4/text", "the text is empty", "blank_text"),
    "CSV: unknown label": (
        CSV,
        b'"x\ny",no',
        "lines/4/label",
        "'no' is not one of",
        "unknown_label",
    ),
    "CSV: fields": (CSV, b"a,hate,c", "lines/4", "3 fields where the header has 2", "field_count"),
    "CSV: invalid UTF-8": (
        CSV,
        b"caf\xe9,hate",
        "lines/4",
        "not valid UTF-8 at byte 4 of line 4",
        "invalid_utf8",
    ),
    "CSV: NUL": (CSV, b"a\0b,hate", "lines/4/text", "a NUL character", "bad_character"),
    "chat: no messages": (
        CHAT,
        b'{"text": "a"}',
        "lines/2/messages",
        "'messages' is missing; the row has 'text'",
        "missing_messages",
    ),
    "chat: empty": (
        CHAT,
        b'{"messages": []}',
        "lines/2/messages",
        "must hold at least one message",
        "bad_messages",
    ),
    "chat: not a list": (
        CHAT,
        b'{"messages": "a"}',
        "lines/2/messages",
        "not a string",
        "bad_messages",
    ),
    "chat: not an object": (
        CHAT,
        b'{"messages": ["a"]}',
        "lines/2/messages/0",
        "not a string",
        "bad_messages",
    ),
    "chat: role": (
        CHAT,
        said({"role": "tool", "content": "a"}),
        "lines/2/messages/0/role",
        "system, user or assistant, not 'tool'",
        "bad_messages",
    ),
    "chat: role of odd type": (
        CHAT,
        said({"role": [], "content": "a"}),
        "lines/2/messages/0/role",
        "system, user or assistant",
        "bad_messages",
    ),
    "chat: content": (
        CHAT,
        said({"role": "user", "content": None}),
        "lines/2/messages/0/content",
        "a string, not null",
        "bad_messages",
    ),
    "chat: blank content": (
        CHAT,
        said(USER, {"role": "assistant", "content": " "}),
        "lines/2/messages/1/content",
        "assistant's message is empty",
        "blank_text",
    ),
    "chat: last is the user": (
        CHAT,
        said(USER),
        "lines/2/messages/0/role",
        "the last message must be the assistant's",
        "bad_messages",
    ),
    "chat: no user": (
        CHAT,
        said({"role": "assistant", "content": "a"}),
        "lines/2/messages",
        "at least one message must have the role user",
        "bad_messages",
    ),
    "chat: other keys": (
        CHAT,
        said(USER, {"role": "assistant", "content": "a", "refusal": "no"}),
        "lines/2/messages/1",
        "only role, content, weight, name, not 'refusal'",
        "bad_messages",
    ),
    "chat: last weight": (
        CHAT,
        said(USER, {"role": "assistant", "content": "a", "weight": 0}),
        "lines/2/messages/1/weight",
        "the last message has weight 0, but it is the answer that is learned",
        "bad_messages",
    ),
    "chat: weight of the user": (
        CHAT,
        said(USER | {"weight": 1}, {"role": "assistant", "content": "a"}),
        "lines/2/messages/0/weight",
        "only the assistant's messages can have weight 1",
        "bad_messages",
    ),
    "chat: weight": (
        CHAT,
        said(USER, {"role": "assistant", "content": "a", "weight": 0.5}),
        "lines/2/messages/1/weight",
        "the weight must be 0 or 1, not '0.5'",
        "bad_messages",
    ),
    "chat: boolean weight": (
        CHAT,
        said(USER, {"role": "assistant", "content": "a", "weight": True}),
        "lines/2/messages/1/weight",
        "the weight must be 0 or 1, not 'True'",
        "bad_messages",
    ),
    "chat: NUL": (
        CHAT,
        b'{"messages": [{"role": "user", "content": "\\u0000"}]}',
        "lines/2/messages/0/content",
        "a NUL character",
        "bad_character",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_row_is_refused_where_it_stands(case, refuse):
    before, bad, pointer, message, _ = BAD[case]
    error = refuse({"train": before + bad + b"\n"})
    assert [item.pointer for item in error.errors] == [f"/train/{pointer}"]
    assert message in error.errors[0].detail
    assert error.status == 422
    assert error.detail == f"/train/{pointer}: {error.errors[0].detail}"
    error.detail.encode()  # can always be sent


@pytest.mark.parametrize("case", BAD)
def test_drop_leaves_out_the_bad_row_alone(case, make):
    before, bad, pointer, message, kind = BAD[case]
    whole = make({"train": before})
    built = make({"train": before + bad + b"\n"}, on_invalid="drop")
    assert built.content_hash == whole.content_hash
    assert built.dropped.total == 1
    assert built.dropped.by_kind == {kind: 1}
    assert built.dropped.rows[0].pointer == f"/train/{pointer}"
    assert message in built.dropped.rows[0].detail


def test_a_row_with_several_flaws_lists_each_and_is_dropped_once(refuse, make, good):
    rows = [*good, {"text": "", "label": "no", "group": True}]
    error = refuse({"train": rows})
    assert [item.pointer for item in error.errors] == [
        "/train/lines/3/text",
        "/train/lines/3/label",
        "/train/lines/3/group",
    ]
    assert error.detail.endswith("(3 problems in total)")
    built = make({"train": rows}, on_invalid="drop")
    assert built.dropped.total == 1
    assert len(built.dropped.rows) == 3


def test_no_more_than_twenty_are_listed_and_all_are_counted(refuse, make, good):
    rows = good + [{"text": " ", "label": "hate"}] * 1234
    error = refuse({"train": rows})
    assert len(error.errors) == 20
    assert "1,234 problems in total, the first 20 listed" in error.detail
    built = make({"train": rows}, on_invalid="drop")
    assert built.dropped.total == 1234
    assert len(built.dropped.rows) == 100


# Refused with on_invalid drop too: no single row is at fault, or the file cannot be read on.
WHOLE = {
    "empty": ({"train": ""}, "/train", "the file holds no rows"),
    "blank lines": ({"train": "\n \n\n"}, "/train", "the file holds no rows"),
    "byte order mark alone": ({"train": b"\xef\xbb\xbf"}, "/train", "the file holds no rows"),
    "empty array": ({"train": "[]"}, "/train", "the file holds no rows"),
    "header alone": ({"train": "text,label\n"}, "/train", "the file holds no rows"),
    "empty validation": ({"train": GOOD, "validation": ""}, "/validation", "holds no rows"),
    "one label": (
        {"train": row() + b"\n" + row()},
        "/train",
        "a classifier needs at least two labels",
    ),
    "nothing": ({}, "/train", "train is missing"),
    "both": ({"train": GOOD, "file": GOOD}, "/file", "not both"),
    "unknown field": ({"train": GOOD, "dev": GOOD}, "/dev", "upload train, validation and test"),
    "two kinds": ({"train": GOOD, "test": CHAT}, "/test", "a dataset is of one kind"),
    "CSV without text": ({"train": "a,b\nc,d\n"}, "/train/lines/1/text", "only 'a', 'b'"),
    "CSV with a column twice": ({"train": "text,text\na,b\n"}, "/train/lines/1", "twice"),
    "CSV with semicolons": ({"train": "text;label\na;hate\n"}, "/train/lines/1/text", "by commas"),
    "CSV with an open quote": (
        {"train": CSV + b'"c,hate\n'},
        "/train/lines/4",
        "is not valid CSV: a quote that opens here is never closed",
    ),
    "CSV with a very long record": (
        {"train": CSV + b'"c,hate\n' + b"d,hate\n" * 200_000},
        "/train/lines/4",
        "is a quote that opens here never closed?",
    ),
    "CSV with a very long line": (
        {"train": CSV + b"x" * 3_000_000},
        "/train/lines/4",
        "longer than",
    ),
    "binary": ({"train": b"PK\x03\x04\xff\xfe"}, "/train", "is a zip archive"),
    "split missing in CSV": ({"file": CSV}, "/file/lines/1/split", "no column 'split'"),
    "split without rows": ({"file": "text,split\n"}, "/file", "the file holds no rows"),
}


@pytest.mark.parametrize("on_invalid", ["refuse", "drop"])
@pytest.mark.parametrize("case", WHOLE)
def test_bad_dataset_is_refused_always(case, on_invalid, refuse):
    files, pointer, message = WHOLE[case]
    error = refuse(files, on_invalid=on_invalid)
    assert error.errors[0].pointer == pointer
    assert message in error.errors[0].detail


def test_when_nothing_is_left_the_error_says_what_was_dropped(refuse):
    error = refuse({"train": [{"text": ""}, {"text": 1}]}, on_invalid="drop")
    assert [item.pointer for item in error.errors] == [
        "/train",
        "/train/lines/1/text",
        "/train/lines/2/text",
    ]
    assert error.errors[0].detail == "no valid row of train remains"


def test_dropping_may_leave_one_label_which_is_refused(refuse, good):
    rows = [*good[:1], {"text": "", "label": "normal"}]
    error = refuse({"train": rows}, on_invalid="drop")
    assert "a classifier needs at least two labels" in error.errors[0].detail


def test_ids_are_unique_across_splits(refuse, make, good):
    rows = [row | {"id": index} for index, row in enumerate(good)]
    error = refuse({"train": rows, "test": rows})
    assert [item.pointer for item in error.errors] == ["/test/lines/1/id", "/test/lines/2/id"]
    assert "set mapping.id to null to number the rows" in error.errors[0].detail


def test_a_dropped_row_does_not_take_its_id(make, good):
    rows = [{"id": "x", "text": ""}, good[0] | {"id": "x"}, good[1] | {"id": "y"}]
    assert make({"train": rows}, on_invalid="drop").dropped.total == 1


def test_a_mapped_column_that_no_row_has(refuse, good):
    from service.datasets.mapping import Mapping

    error = refuse({"train": good}, mapping=Mapping(group="target"))
    assert error.errors[0].pointer == "/mapping/group"
    assert (
        "no row has the column 'target'; the columns are 'label', 'text'" in error.errors[0].detail
    )
    error = refuse({"train": CSV}, mapping=Mapping(group="target/a"))
    assert error.errors[0].pointer == "/train/lines/1/target~1a"


def test_a_column_of_too_many_groups(refuse):
    rows = [
        {"text": str(n), "label": ("hate", "normal")[n % 2], "group": str(n)} for n in range(1001)
    ]
    error = refuse({"train": rows})
    assert error.errors[0].pointer == "/mapping/group"
    assert "1,001 different values" in error.errors[0].detail
