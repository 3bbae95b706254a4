"""Every text that is not JSON is refused in a sentence that says what to change."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.datasets.lines import DECODER
from service.domain.json_reasons import json_reason

ROW = '{"text": "a", "labels": ["b", "c"], "n": {"x": 1}}'

CASES = {
    '{"a": 1},': "a comma follows the end; remove the comma",
    '{"a": 1} {"a": 2}': "more text follows the end",
    '{"a": 1,}': "a comma stands before the brace that closes the object; remove the comma",
    '{"a": [1,]}': "a comma stands before the bracket that closes the list; remove the comma",
    "{'a': 1}": "strings need double quotes, not single ones",
    "{\"a\": 'b'}": "strings need double quotes, not single ones",
    "{a: 1}": "a key in double quotes is expected",
    '{"a": None}': "None is Python; write null",
    '{"a": True}': "True is Python; write true",
    '{"a": nan}': "nan is no value of JSON; write null",
    '{"a": }': "a value is expected",
    '{"a":': "a value is missing at the end",
    '{"a" 1}': "a colon is expected after the key",
    '{"a": 1 "b": 2}': "a comma, or the end of the object or list, is expected",
    '{"a": 1': "the object or list is never closed",
    "{": "the object is never closed",
    '{"a": "b': "a string is never closed",
    '{"a": "b\tc"}': "a string holds a line end, a tab or another control character; write an "
    "escape such as \\n",
    '{"a": "\\d"}': "a backslash begins no escape of JSON; write a backslash twice",
}


@pytest.mark.parametrize("text", CASES)
def test_the_reason_names_the_remedy(text):
    with pytest.raises(json.JSONDecodeError) as caught:
        DECODER.decode(text)
    assert json_reason(caught.value) == CASES[text]


@given(
    start=st.integers(0, len(ROW)),
    length=st.integers(0, 3),
    insertion=st.text(st.sampled_from("{}[],:'\"\\ \n\tNTx1-."), max_size=3),
)
def test_no_damaged_text_has_a_reason_of_the_parser(start, length, insertion):
    text = ROW[:start] + insertion + ROW[start + length :]
    try:
        DECODER.decode(text)
    except json.JSONDecodeError as error:
        reason = json_reason(error)
    except ValueError:
        return
    else:
        return
    assert not reason.startswith(("Expecting", "Extra", "Invalid", "Unterminated", "Illegal"))
    assert not reason.endswith((" at", ":", "."))
