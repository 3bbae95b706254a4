"""An unknown field of a specification is refused with the fields that may be meant."""

import random

import pytest
from pydantic import BaseModel

from service.domain.errors import FieldError
from service.domain.near_names import with_near_names
from service.domain.spec import RunSpec
from service.domain.validation import UNKNOWN_FIELD, invalid_request

SECTIONS = {
    name: list(field.annotation.model_fields)
    for name, field in RunSpec.model_fields.items()
    if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
}


def advice(pointer: str) -> str:
    error = invalid_request((FieldError(pointer, UNKNOWN_FIELD),))
    return with_near_names(error, RunSpec).errors[0].detail


@pytest.mark.parametrize(
    ("pointer", "meant"),
    [
        ("/training/lerning_rate", "learning_rate?"),
        ("/trainnig", "training?"),
        ("/training/epochs", "num_train_epochs?"),
        ("/training/learning-rate", "learning_rate?"),
        ("/lora/Lora_Alpha", "lora_alpha?"),
        ("/lora_alpha", "/lora/lora_alpha?"),
        ("/training/lora_alpha", "/lora/lora_alpha?"),
        ("/fairness/cap", "caps?"),
    ],
)
def test_a_near_match_is_advised(pointer, meant):
    assert advice(pointer) == f"{UNKNOWN_FIELD}; did you mean {meant}"


@pytest.mark.parametrize("pointer", ["/colour", "/a~1b", "/", "", "/training/x/y", "/lora/0"])
def test_nothing_is_advised_for_other_names(pointer):
    assert advice(pointer) == UNKNOWN_FIELD


def test_a_field_of_any_section_is_named_with_its_section():
    for section, fields in SECTIONS.items():
        for field in fields:
            assert f"/{section}/{field}" in advice(f"/{field}"), field


def test_a_field_with_two_letters_swapped_is_recognised():
    order = random.Random(1)
    for section, fields in SECTIONS.items():
        for field in (name for name in fields if len(name) > 5):
            index = order.randrange(len(field) - 1)
            swapped = field[:index] + field[index + 1] + field[index] + field[index + 2 :]
            if swapped not in fields:
                assert field in advice(f"/{section}/{swapped}"), swapped


def test_other_errors_remain():
    errors = (FieldError("/seed", "must be a whole number"), FieldError("/sead", UNKNOWN_FIELD))
    refused = with_near_names(invalid_request(errors), RunSpec)
    assert refused.errors[0] == errors[0]
    assert refused.errors[1].detail.endswith("did you mean seed?")
    assert refused.detail == "/seed: must be a whole number (and 1 more)"
