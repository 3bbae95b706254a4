"""The domain's own rules: ids, states, templates, overlays."""

import itertools
from typing import get_args

import pytest
from pydantic import BaseModel, ValidationError

from service.domain.evaluation import EvaluationRequest
from service.domain.ids import new_id
from service.domain.job_kinds import EVALUATE, KINDS
from service.domain.merge import MergeComparison, MergeRequest
from service.domain.prediction import Prediction, PredictionRequest
from service.domain.release import Hindrance, PromotionRequest
from service.domain.spec import RunSpec, overlay
from service.domain.states import (
    TRANSITIONS,
    FailureReason,
    JobStatus,
    sources_of,
)
from service.domain.template import Template


def test_ids_are_prefixed_unique_and_sort_by_time(monkeypatch):
    times = itertools.count(1_700_000_000_000_000_000, 1_000_000)
    monkeypatch.setattr("service.domain.ids.time.time_ns", lambda: next(times))
    made = [new_id("run") for _ in range(1000)]
    assert all(one.startswith("run_") and len(one) == 30 for one in made)
    assert made == sorted(set(made))


def test_the_state_machine_is_the_designs():
    allowed = {
        "queued": {"running", "paused", "cancelled"},
        "running": {"succeeded", "failed", "cancelled", "paused", "queued"},
        "paused": {"queued", "cancelled"},
        "failed": {"queued"},
        "succeeded": set(),
        "cancelled": set(),
    }
    assert {source: set(targets) for source, targets in TRANSITIONS.items()} == allowed
    assert sources_of(JobStatus.RUNNING) == {"queued"}


def test_every_failure_reason_has_advice():
    for kind in KINDS.values():
        assert set(kind.advice) == set(FailureReason)
        assert all(advice.text.endswith(".") for advice in kind.advice.values())
    # An evaluation is neither retried nor cloned: it is requested again.
    assert not [one.text for one in EVALUATE.advice.values() if "retry" in one.text]


def test_an_overlay_replaces_fields_not_sections_and_alters_neither():
    base = {"lora": {"r": 8, "bias": "none"}, "tags": ["a"], "seed": 1}
    changes = {"lora": {"r": 4}, "tags": ["b"], "training": {"optim": "adamw_torch"}}
    assert overlay(base, changes) == {
        "lora": {"r": 4, "bias": "none"},
        "tags": ["b"],
        "seed": 1,
        "training": {"optim": "adamw_torch"},
    }
    assert base == {"lora": {"r": 8, "bias": "none"}, "tags": ["a"], "seed": 1}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"max_steps": 5}, (None, 5)),
        ({"num_train_epochs": 2}, (2, None)),
        ({"max_steps": None}, (3, None)),
        ({"max_steps": 5, "num_train_epochs": 2}, (2, 5)),  # refused by the specification
    ],
)
def test_one_of_a_pair_takes_the_other_away(changes, expected):
    base = {"training": {"num_train_epochs": 3, "max_steps": None}}
    merged = overlay(base, {"training": changes})["training"]
    assert (merged["num_train_epochs"], merged["max_steps"]) == expected


def test_a_resolved_specification_survives_json():
    spec = RunSpec(dataset_id="ds_1", tags=["x"])
    assert RunSpec.model_validate_json(spec.model_dump_json()) == spec
    with pytest.raises(ValidationError, match="frozen"):
        spec.seed = 3


def template(**fields):
    given = {
        "name": "t",
        "description": "d",
        "system": None,
        "user": "Text: $text",
        "completion": "<$label>",
        "labels": None,
    }
    return Template(**(given | fields))


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"user": "no text"}, r"user must contain \$text exactly once"),
        ({"user": "$text $text"}, r"user must contain \$text exactly once"),
        ({"user": "$text $name"}, r"unknown placeholder \$name"),
        ({"system": "$text"}, r"unknown placeholder \$text"),
        ({"completion": "yes"}, r"completion must contain \$label"),
        ({"labels": {"a": "x", "b": "x"}}, "same word"),
        ({"name": "../x"}, "pattern"),
        ({"colour": "red"}, "Extra inputs"),
    ],
)
def test_a_broken_template_is_refused(fields, says):
    with pytest.raises(ValidationError, match=says):
        template(**fields)


def test_a_template_says_labels_and_shows_the_group_only_when_asked_to():
    plain = template(labels={"hate": "hate_speech", "normal": "not_hate"})
    assert plain.completion_for("hate") == "<hate_speech>"
    with pytest.raises(KeyError):
        plain.completion_for("spam")
    assert not plain.shows_group
    assert plain.split_user("lgbtq") == ("Text: ", "")
    telling = template(user="About $group: $text!")
    assert telling.shows_group
    assert telling.split_user("lgbtq") == ("About lgbtq: ", "!")
    assert telling.split_user(None) == ("About unknown: ", "!")
    # What a group is called is data, not a pattern.
    assert telling.split_user("$text") == ("About $text: ", "!")


def models_of(annotation):
    """Yield the models that a field's annotation mentions."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from models_of(argument)


@pytest.mark.parametrize(
    "model",
    [
        RunSpec,
        EvaluationRequest,
        MergeRequest,
        MergeComparison,
        PredictionRequest,
        Prediction,
        PromotionRequest,
        Hindrance,
        Template,
    ],
)
def test_every_field_that_users_see_has_a_description(model):
    models = [model]
    for one in models:
        for name, field in one.model_fields.items():
            assert field.description, f"{one.__name__}.{name}"
            models += [inner for inner in models_of(field.annotation) if inner not in models]
