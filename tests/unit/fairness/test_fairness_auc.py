import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from service.fairness.auc import group_aucs
from service.fairness.columns import partition

SCORE = st.sampled_from([0.0, 0.25, 0.5, 1.0]) | st.floats(0, 1)
ROWS = st.lists(
    st.tuples(st.booleans(), SCORE, st.sampled_from(["a", "b", None])), min_size=1, max_size=40
)


def expected(truth, scores, rows):
    if not truth[rows].any() or truth[rows].all():
        return None
    return pytest.approx(roc_auc_score(truth[rows], scores[rows]), abs=1e-12)


@settings(deadline=None, max_examples=80)
@given(ROWS)
def test_areas_around_a_group_are_scikit_learns_on_those_rows(rows):
    truth, scores, groups = zip(*rows, strict=True)
    truth, scores = np.array(truth), np.array(scores)
    for name, found in group_aucs(truth, scores, partition(groups)).items():
        inside = np.array([group == name for group in groups])
        for figure, chosen in {
            "subgroup": inside,
            "bpsn": np.where(inside, ~truth, truth),
            "bnsp": np.where(inside, truth, ~truth),
        }.items():
            area = getattr(found, figure)
            assert area.value == expected(truth, scores, chosen)
            assert (area.reason is None) == (area.value is not None)


def test_the_background_holds_rows_of_other_groups_and_of_none():
    truth = np.array([True, False, True, False, True, False])
    scores = np.array([0.9, 0.6, 0.5, 0.1, 0.7, 0.2])
    found = group_aucs(truth, scores, partition(["a", "a", "b", "b", None, None]))["a"]
    assert found.subgroup.value == 1
    assert found.bpsn.value == 0.5  # 0.5 and 0.7 against the group's harmless 0.6
    assert found.bnsp.value == 1  # the group's hateful 0.9 against 0.1 and 0.2


@pytest.mark.parametrize(
    ("rows", "reasons"),
    [
        (
            [(True, "a"), (False, None)],
            ("the group has no negative rows", "the background has no positive rows", None),
        ),
        (
            [(False, "a"), (True, None)],
            ("the group has no positive rows", None, "the group has no positive rows"),
        ),
        (
            [(True, "a"), (False, "a")],
            (None, "the background has no positive rows", "the background has no negative rows"),
        ),
    ],
)
def test_what_is_missing_is_said(rows, reasons):
    truth, groups = zip(*rows, strict=True)
    found = group_aucs(np.array(truth), np.array([0.5, 0.4]), partition(groups))["a"]
    assert (found.subgroup.reason, found.bpsn.reason, found.bnsp.reason) == reasons
