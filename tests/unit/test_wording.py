"""Sentences agree with their number, and advice differs from what it replaces."""

import pytest

from service.datasets.stats import DatasetStats
from service.domain.errors import InvalidRequest
from service.domain.spec import RunSpec
from service.domain.steps import StepPlan
from service.domain.wording import agree, count
from service.usecases.evaluations import describe_checkpoints
from service.usecases.plan_warnings import plan_warnings
from service.usecases.run_checks import check_learned


def test_a_noun_agrees_with_its_number():
    assert [count(number, "row") for number in (0, 1, 2, 1234)] == [
        "0 rows",
        "1 row",
        "2 rows",
        "1,234 rows",
    ]
    assert [agree(number, "has", "have") for number in (0, 1, 2)] == ["have", "has", "have"]


@pytest.mark.parametrize(
    ("steps", "warmup", "sentence", "advice"),
    [
        (1, 1, "takes 1 of 1 step, more", "to 0"),
        (2, 1, "takes 1 of 2 steps, more", "to 0"),
        (3, 2, "takes 2 of 3 steps, more", "to about 1"),
        (90, 50, "takes 50 of 90 steps, more", "to about 9"),
    ],
)
def test_advice_on_the_warm_up_is_no_reason_for_the_same_warning(steps, warmup, sentence, advice):
    warning = StepPlan(8, 1, steps, warmup).warmup_warning()
    assert sentence in warning
    assert warning.endswith(f"set training.warmup_steps {advice}")
    assert StepPlan(8, 1, steps, int(advice.split()[-1])).warmup_warning() is None


STEPS = StepPlan(2, 1, 90, 5)


def stats(**fields) -> DatasetStats:
    split = {"rows": 2, "has_labels": True, "has_groups": False, "groups": {}, "group_labels": {}}
    split["labels"] = {"hate": 1, "normal": 1}
    length = dict.fromkeys(("min", "median", "p90", "p99", "max"), 1)
    splits = dict.fromkeys(("train", "validation", "test"), split)
    whole = {"kind": "text", "text_length": length, "repeated_rows": 0, "conflicting_rows": 0}
    return DatasetStats.model_validate(
        split | whole | {"splits": splits, "shared_rows": {}} | fields
    )


@pytest.mark.parametrize(
    ("shared", "sentence"),
    [
        ({"test": 1}, "1 row of validation and test also occurs in an earlier split"),
        ({"validation": 1, "test": 1}, "2 rows of validation and test also occur in an earlier"),
    ],
)
def test_a_plan_counts_shared_rows(shared, sentence):
    spec = RunSpec(dataset_id="d")
    details = [item.detail for item in plan_warnings(spec, stats(shared_rows=shared), STEPS)]
    assert any(detail.startswith(sentence) for detail in details)


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [(1, "1 chat of the dataset has messages"), (2, "2 chats of the dataset have messages")],
)
def test_chats_that_must_not_be_learned_are_counted(rows, sentence):
    spec = RunSpec(dataset_id="d", training={"train_on": "all"})
    with pytest.raises(InvalidRequest, match=sentence):
        check_learned(spec, stats(zero_weight_rows=rows))


def test_checkpoints_are_listed():
    assert describe_checkpoints([6]) == "a checkpoint of step 6"
    assert describe_checkpoints([3, 6]) == "checkpoints of steps 3, 6"
