import pytest

from service.fairness.baselines import group_majority, label_counts


def test_label_counts():
    counts = label_counts(["hate", "hate", "normal", "hate"], ["a", "a", None, "b"])
    assert counts == {"a": {"hate": 2}, None: {"normal": 1}, "b": {"hate": 1}}


TRAIN = {
    "mostly": {"hate": 3, "normal": 2},
    "rarely": {"hate": 1, "normal": 9},
    "tied": {"hate": 2, "normal": 2},
    None: {"hate": 1},
}


@pytest.mark.parametrize(
    ("group", "positive"),
    [("mostly", True), ("rarely", False), ("tied", False), ("unseen", False), (None, False)],
)
def test_a_group_takes_its_majority_in_training_or_else_that_of_all(group, positive):
    assert group_majority([group], TRAIN, "hate") == [positive]


def test_a_tie_over_all_rows_is_positive():
    assert group_majority(["unseen"], {"a": {"hate": 1}, "b": {"normal": 1}}, "hate") == [True]


def test_a_tied_group_follows_all_rows_either_way():
    tied = {"hate": 2, "normal": 2}
    assert group_majority(["a"], {"a": tied, "b": {"hate": 1}}, "hate") == [True]
    assert group_majority(["a"], {"a": tied, "b": {"normal": 1}}, "hate") == [False]


def test_labels_are_positive_against_the_rest():
    counts = {"a": {"hate": 4, "offensive": 3, "normal": 3}}
    assert group_majority(["a"], counts, "hate") == [False]
