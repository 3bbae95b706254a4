import dataclasses
import math

import pytest


def test_columns_are_kept_as_tuples_and_cannot_be_replaced(make_predictions):
    made = make_predictions(["hate"], ["normal"], scores=[0.25], label_scores={"hate": [0.25]})
    assert made.labels == ("hate",)
    assert made.scores == (0.25,)
    assert made.label_scores == {"hate": (0.25,)}
    assert len(made) == 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        made.labels = ()


def test_empty_predictions_are_refused(make_predictions):
    with pytest.raises(ValueError, match="empty: a report needs at least one row"):
        make_predictions([], [])


@pytest.mark.parametrize(
    "column", ["labels", "groups", "sources", "details", "predictions", "scores"]
)
def test_a_column_of_another_length_is_refused_by_name(make_predictions, column):
    columns = {"labels": ["hate"] * 3, "predictions": ["hate"] * 3, "ids": ["a", "b", "c"]}
    columns[column] = [0.5, 0.5] if column == "scores" else ["hate", "hate"]
    with pytest.raises(ValueError, match=f"^{column} has 2 entries, ids has 3$"):
        make_predictions(**columns)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_score_that_is_no_number_is_refused_naming_the_row(make_predictions, bad):
    with pytest.raises(ValueError, match=r"^scores: row 1 \(id 'r1'\) has .*not a finite number$"):
        make_predictions(["hate"] * 3, ["hate"] * 3, scores=[0.1, bad, 0.3])


@pytest.mark.parametrize("bad", [-0.01, 1.01])
def test_a_score_that_is_no_probability_is_refused_naming_the_row(make_predictions, bad):
    with pytest.raises(ValueError, match=r"^scores: row 2 .*outside \[0, 1\]$"):
        make_predictions(["hate"] * 3, ["hate"] * 3, scores=[0.1, 0.2, bad])


def test_rounding_around_0_and_1_is_clipped(make_predictions):
    made = make_predictions(["hate"] * 2, ["hate"] * 2, scores=[-1e-9, 1 + 1e-9])
    assert made.scores == (0.0, 1.0)


def test_scores_of_every_label_are_checked_too(make_predictions):
    with pytest.raises(ValueError, match=r"^label_scores\['normal'\]: row 0 .*nan"):
        make_predictions(["hate"], ["hate"], label_scores={"normal": [math.nan]})
    with pytest.raises(ValueError, match=r"^label_scores\['normal'\] has 2 entries, ids has 1$"):
        make_predictions(["hate"], ["hate"], label_scores={"normal": [0.5, 0.5]})


def test_missing_labels_and_groups_that_are_no_text_are_refused(make_predictions):
    with pytest.raises(ValueError, match=r"^labels: row 1 \(id 'r1'\) has None, not text$"):
        make_predictions(["hate", None], ["hate", "hate"])
    with pytest.raises(ValueError, match=r"^groups: row 0 \(id 'r0'\) has nan, not text or None$"):
        make_predictions(["hate"], ["hate"], [math.nan])


def test_same_rows(make_predictions):
    one = make_predictions(["hate", "normal"], ["hate", "hate"], ["a", None])
    assert one.same_rows_as(make_predictions(["hate", "normal"], ["normal"] * 2, ["a", None]))
    assert not one.same_rows_as(make_predictions(["hate", "hate"], ["hate"] * 2, ["a", None]))
    assert not one.same_rows_as(make_predictions(["hate", "normal"], ["hate"] * 2, ["b", None]))
    assert not one.same_rows_as(
        make_predictions(["hate", "normal"], ["hate"] * 2, ["a", None], ids=["r1", "r0"])
    )
