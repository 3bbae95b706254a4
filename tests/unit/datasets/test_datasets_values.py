"""Values as other programs write them: numbers, missing values, spellings, spaces and splits."""

import csv
import io
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.datasets.lines import DECODER
from service.datasets.mapping import Mapping
from service.datasets.quoting import without_outer_spaces
from service.datasets.rows import read_rows

NUMBERS = Mapping(labels={"0": "normal", "1": "hate"})
FUNCTION_SCOPED = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


def warnings_of(built, code):
    return [warning for warning in built.warnings if warning.code == code]


def lines(*rows: str) -> str:
    return "".join(row + "\n" for row in rows)


@pytest.mark.parametrize("mapping", [NUMBERS, Mapping(labels={"0.0": "normal", "1.0": "hate"})])
@pytest.mark.parametrize("one", ["1", "1.0", "1.00", "1e0", '"1"', '"1.0"', '" 1.0 "'])
def test_a_whole_number_is_one_label_however_it_is_written(one, mapping, make):
    rows = lines(f'{{"text": "a", "label": {one}}}', '{"text": "b", "label": 0.0}')
    assert make({"train": rows}, mapping=mapping).stats.labels == {"hate": 1, "normal": 1}
    if "e" not in one:
        table = lines("text,label", f"a,{one}", "b,0.0")
        assert make({"train": table}, mapping=mapping).stats.labels == {"hate": 1, "normal": 1}


def test_a_label_that_the_mapping_names_is_taken_as_it_stands(make):
    mapping = Mapping(labels={"1": "hate", "1.0": "normal", "0.5": "half"})
    table = lines("text,label", "a,1", "b,1.0", "c,0.5")
    assert make({"train": table}, mapping=mapping).stats.labels == {
        "half": 1,
        "hate": 1,
        "normal": 1,
    }
    rows = lines('{"text": "a", "label": 1}', '{"text": "b", "label": 0.5}')
    assert make({"train": rows}, mapping=mapping).stats.labels == {"half": 1, "hate": 1}


@pytest.mark.parametrize("true", ["true", "True", "TRUE"])
@pytest.mark.parametrize(
    "mapping", [{"true": "hate", "false": "normal"}, {"True": "hate", "False": "normal"}]
)
def test_a_truth_value_is_one_label_however_it_is_written(true, mapping, make):
    table = lines("text,label", f"a,{true}", "b,FALSE")
    rows = lines('{"text": "a", "label": true}', '{"text": "b", "label": false}')
    for content in (table, rows):
        built = make({"train": content}, mapping=Mapping(labels=mapping))
        assert built.stats.labels == {"hate": 1, "normal": 1}


@pytest.mark.parametrize("value", ["01", "1.5", "1.0.0", "+1", "\u0661", "1_0"])
def test_what_is_no_such_number_is_refused(value, refuse):
    table = lines("text,label", "a,1", "b,0", f"c,{value}")
    assert refuse({"train": table}, mapping=NUMBERS).errors[0].pointer == "/train/lines/4/label"


@given(st.integers(-(10**15), 10**15))
def test_json_has_one_kind_of_number(number):
    assert DECODER.decode(f"{number}.0") == number
    assert isinstance(DECODER.decode(f"{number}.0"), int)
    assert isinstance(DECODER.decode(f"{number}.5"), float)


@pytest.mark.parametrize(
    ("value", "text"), [("3", "3"), ("3.0", "3"), ("-2.5", "-2.5"), ('"x"', "x"), ("NaN", None)]
)
@pytest.mark.parametrize("field", ["group", "source", "detail", "rationale", "id"])
def test_a_number_is_taken_as_its_text(field, value, text, make):
    rows = lines(
        f'{{"text": "a", "label": "hate", "{field}": {value}}}',
        '{"text": "b", "label": "normal"}',
    )
    row, _ = read_rows(make({"train": rows}).path)
    assert getattr(row, field) == (text if field != "id" or text else "train-1")


@pytest.mark.parametrize("value", ["true", "[1]", "{}", "Infinity"])
def test_what_is_neither_text_nor_number_is_refused(value, refuse, good):
    bad = f'{{"text": "a", "label": "hate", "group": {value}}}\n'
    error = refuse({"train": "".join(json.dumps(row) + "\n" for row in good) + bad})
    assert "must be a string or a number (set mapping.group to null" in error.errors[0].detail


def test_a_missing_text_or_label_may_be_nan(refuse, make):
    rows = lines('{"text": "a", "label": "hate"}', '{"text": NaN, "label": "normal"}')
    assert refuse({"train": rows}).errors[0].pointer == "/train/lines/2/text"
    chats = lines('{"text": "a", "label": NaN}', '{"text": "b", "label": "hate"}')
    assert "the row has no label" in refuse({"train": chats}).errors[0].detail


MISSING = ["nan", "NaN", "NULL", "None", "N/A", "NA", "null", "<NA>", "#N/A", "\\N", "nil", "-"]


@pytest.mark.parametrize("name", MISSING)
def test_a_group_that_stands_for_none_is_named(name, make):
    table = lines("text,label,group", f"a,hate,{name}", f"b,hate,{name}", "c,normal,women")
    (warning,) = warnings_of(make({"train": table}), "suspicious_groups")
    assert (warning.count, repr(name) in warning.detail) == (2, True)
    assert "'women'" not in warning.detail


@pytest.mark.parametrize("field", ["text", "source", "detail"])
def test_other_values_that_stand_for_none_are_named(field, make, good):
    rows = [*good, good[0] | {"text": "c", field: "NaN"}, good[1] | {"text": "d", field: " nan "}]
    (warning,) = warnings_of(make({"train": rows}), "suspicious_values")
    assert (warning.count, warning.detail) == (
        2,
        f"2 rows have a word for a missing value as {field}: 'NaN', 'nan'.",
    )
    assert warnings_of(make({"train": good}), "suspicious_values") == []


@pytest.mark.parametrize(
    "names",
    [
        ["LGBTQ", "lgbtq", "Lgbtq"],
        ["middle east", "middle_east", "Middle-East"],
        ["3", "3.0"],
        ["straße", "STRASSE"],
        ["elderly", "elderly\u200b"],
    ],
)
def test_one_group_in_several_spellings_is_named(names, make):
    rows = [f"t{number},hate,{name}" for number, name in enumerate(names)]
    (warning,) = warnings_of(
        make({"train": lines("text,label,group", *rows, "c,normal,women")}), "suspicious_groups"
    )
    assert warning.count == len(names)
    assert all(repr(name) in warning.detail for name in names)
    assert "'women'" not in warning.detail


def test_the_line_of_excel_that_names_the_separator_is_named(refuse):
    detail = refuse({"train": "sep=,\ntext,label\na,hate\n"}).errors[0].detail
    assert detail == "the line 'sep=' is not the header; remove it"


def test_different_groups_are_not_suspicious(make):
    names = [
        "lgbtq",
        "mexican",
        "middle_east",
        "non-binary",
        "1",
        "2",
        "10",
        "nationality",
        "a",
        "b",
    ]
    rows = [
        f"t{number},{('hate', 'normal')[number % 2]},{name}" for number, name in enumerate(names)
    ]
    built = make({"train": lines("text,label,group", *rows)})
    assert warnings_of(built, "suspicious_groups") == []


SPELLINGS = {
    "train": ["train", "Train", "TRAIN", " train ", "training"],
    "validation": ["validation", "Validation", "val", "VAL", "valid", "dev", "Dev", "development"],
    "test": ["test", "TEST", "Test", "testing"],
}


@pytest.mark.parametrize(
    ("split", "spelling"), [(split, name) for split, names in SPELLINGS.items() for name in names]
)
def test_a_split_may_be_spelled_in_any_case(split, spelling, make):
    table = lines("text,label,split", "a,hate,train", "b,normal,train", f"c,hate,{spelling}")
    *_, row = read_rows(make({"file": table}).path)
    assert row.split == split
    built = make({split: table, "train": lines("text,label", "a,hate", "b,normal")})
    ignored = warnings_of(built, "split_ignored")
    assert bool(ignored) == (split != "train")


@pytest.mark.parametrize(
    "table",
    [
        'label, text\nhate, "hello, there"\nnormal, "good day"\n',
        'label ,text\n"hate" , "hello, there"\n"normal"\t,\t"good day" \n',
        ' "label", "text"\n hate,   "hello, there"  \r\n"normal", "good day"',
    ],
)
def test_quotes_may_have_spaces_around_them(table, make):
    texts = [row.text for row in read_rows(make({"train": table}).path)]
    assert texts == ["hello, there", "good day"]


def test_a_quoted_field_after_a_space_may_have_several_lines(make):
    table = 'label, text\nhate, "a\n, ""b"" ,\nc" \nnormal, "d"\n'
    texts = [row.text for row in read_rows(make({"train": table}).path)]
    assert texts == ['a\n, "b" ,\nc', "d"]


def test_an_unquoted_field_keeps_its_spaces_and_quotes(make):
    table = 'label,text\nhate, a "b" c \nnormal, "d" e\n'
    texts = [row.text for row in read_rows(make({"train": table}).path)]
    assert texts == [' a "b" c ', ' "d" e']


FIELD = st.text(st.sampled_from(' \t,"\nab'), max_size=8)


@given(records=st.lists(st.lists(FIELD, min_size=1, max_size=4), min_size=1), spaces=st.data())
def test_a_table_with_spaces_around_its_quotes_is_the_table_without(records, spaces):
    space = st.sampled_from(["", " ", "  ", "\t"])
    text = ""
    for record in records:
        quoted = ['"' + field.replace('"', '""') + '"' for field in record]
        text += ",".join(spaces.draw(space) + field + spaces.draw(space) for field in quoted) + "\n"
    assert parsed(text) == records


@given(st.lists(st.lists(FIELD, min_size=2, max_size=4), min_size=1))
def test_a_table_as_pythons_writer_writes_it_is_unchanged(records):
    file = io.StringIO(newline="")
    csv.writer(file, lineterminator="\n").writerows(records)
    text = file.getvalue()
    if any(field[:1] in (" ", "\t") and '"' in field for record in records for field in record):
        return  # the writer quotes those, too
    assert parsed(text) == records


def parsed(text: str) -> list[list[str]]:
    """The records as the reader of CSV reads them."""
    is_continued = False

    def cleaned():
        nonlocal is_continued
        for line in io.StringIO(text, newline="\n"):
            in_quotes, is_continued = is_continued, True
            yield without_outer_spaces(line, in_quotes=in_quotes)

    reader = csv.reader(cleaned(), strict=True)
    records = []
    while True:
        is_continued = False
        record = next(reader, None)
        if record is None:
            return records
        records.append(record)


@pytest.mark.parametrize(
    ("header", "has", "lacks"),
    [
        ("body,label", "name another column in mapping", "commas"),
        ("body;label", "its columns seem to be separated by semicolons: separate them by", "?"),
        ("body\tlabel", "its columns seem to be separated by tabs", "?"),
        ("body", "separate columns by commas, or name another column", "seem"),
    ],
)
def test_commas_are_advised_where_they_are_missing(header, has, lacks, refuse):
    detail = refuse({"train": f"{header}\na,hate\n"}).errors[0].detail
    assert has in detail
    assert lacks not in detail


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ('"a,hate\nb,normal', "a quote that opens here is never closed"),
        ('"a"b,hate', "text follows a closing quote; within quotes, write a quote twice"),
    ],
)
def test_quotes_that_do_not_match_are_named(record, message, refuse):
    error = refuse({"train": f"text,label\nx,hate\n{record}\n"})
    assert error.errors[0].pointer == "/train/lines/3"
    assert error.errors[0].detail == f"is not valid CSV: {message}"


@pytest.mark.parametrize("split", ["validation", "test"])
def test_a_split_without_a_class_is_named_when_it_is_uploaded(split, make, good):
    one = [{"text": f"{number}", "label": "normal"} for number in range(3)]
    (warning,) = warnings_of(make({"train": good, split: one}), "missing_class")
    assert f"No row of {split} is labelled 'hate': " in warning.detail
    both = [*one, {"text": "9", "label": "hate"}]
    assert warnings_of(make({"train": good, split: both}), "missing_class") == []
