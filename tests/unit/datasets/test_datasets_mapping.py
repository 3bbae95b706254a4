"""The form field `mapping`: what it may say, and where an error in it points."""

import json

import pytest

from service.datasets.mapping import Mapping, parse_mapping
from service.domain.errors import InvalidRequest


@pytest.mark.parametrize("text", [None, "", "  ", "{}"])
def test_no_mapping_is_the_default(text):
    mapping = parse_mapping(text)
    assert mapping == Mapping()
    assert mapping.label_by_value == {"hate": "hate", "normal": "normal"}
    assert mapping.columns_set() == {}


def test_the_defaults_of_a_format_apply_to_the_options_that_are_not_set():
    mapping = parse_mapping('{"label": "mine", "group": null}').with_defaults(
        {"label": "label_binary", "group": "target_group_norm", "id": "original_id"}
    )
    assert (mapping.label, mapping.group, mapping.id) == ("mine", None, "original_id")


@pytest.mark.parametrize(
    ("value", "pointer", "message"),
    [
        ({"txt": "a"}, "/mapping/txt", "unknown field; mapping has text, label"),
        ({"text": None}, "/mapping/text", "must be a string"),
        ({"text": ""}, "/mapping/text", "must not be empty"),
        ({"label": 3}, "/mapping/label", "must be a string"),
        ({"labels": ["hate"]}, "/mapping/labels", "a classifier needs at least two labels"),
        ({"labels": []}, "/mapping/labels", "a classifier needs at least two labels"),
        ({"labels": ["a", "a", "b"]}, "/mapping/labels", "each label must be listed once"),
        (
            {"labels": {"0": "a", "1": "a"}},
            "/mapping/labels",
            "a classifier needs at least two labels",
        ),
        ({"labels": ["a", " "]}, "/mapping/labels/1", "must not be empty"),
        ({"labels": ["a", "b\0"]}, "/mapping/labels/1", "NUL"),
        ({"labels": {"a": []}}, "/mapping/labels/a", "must be a string"),
        ([], "/mapping", "object"),
    ],
)
def test_errors_point_into_the_mapping(value, pointer, message):
    with pytest.raises(InvalidRequest) as caught:
        parse_mapping(json.dumps(value))
    found = {item.pointer: item.detail for item in caught.value.errors}
    assert message in found[pointer]


def test_a_mapping_that_is_no_json():
    with pytest.raises(InvalidRequest) as caught:
        parse_mapping("text=body")
    assert caught.value.errors[0].pointer == "/mapping"
    assert caught.value.detail == "/mapping: is not JSON: a value is expected (line 1, column 1)"
