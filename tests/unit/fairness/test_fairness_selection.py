from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.fairness.selection import CheckpointScore, is_better, score_checkpoint
from service.fairness.thresholds import fit_threshold

CAPS = [
    SimpleNamespace(group="a", metric="fpr", max=0.25),
    SimpleNamespace(group="b", metric="fnr", max=0.5),
    SimpleNamespace(group="nobody", metric="fpr", max=0.0),
]


@pytest.fixture(scope="module")
def validation(make_predictions):
    """Group a: two negatives, one wrong. Group b: two positives, both found. F1 4/5."""
    return make_predictions(
        ["normal", "normal", "hate", "hate"],
        ["hate", "normal", "hate", "hate"],
        ["a", "a", "b", "b"],
        [0.6, 0.1, 0.7, 0.9],
        checkpoint_step=7,
    )


def test_a_checkpoint_is_held_against_caps_and_f1_by_its_predictions(validation):
    found = score_checkpoint(validation, "hate", CAPS, 0.85, fitted=False)
    assert (found.step, found.threshold, found.feasible) == (7, None, False)
    assert found.f1 == pytest.approx(0.8)
    assert found.violation == pytest.approx((0.5 - 0.25) + (0.85 - 0.8))
    assert found.rates == {"a": {"fpr": 0.5, "fnr": None}, "b": {"fpr": None, "fnr": 0.0}}


def test_or_by_the_threshold_that_fits_it_best(validation):
    found = score_checkpoint(validation, "hate", CAPS, 0.85, fitted=True)
    assert found.threshold == pytest.approx(0.65)
    assert (found.f1, found.feasible, found.violation) == (1, True, 0)
    assert found.rates["a"]["fpr"] == 0


ROWS = st.lists(
    st.tuples(st.sampled_from(["hate", "normal"]), st.floats(0, 1), st.sampled_from("ab")),
    min_size=1,
    max_size=12,
)


@settings(deadline=None, max_examples=60)
@given(ROWS, st.sampled_from([None, 0.7]))
def test_a_fitted_standing_is_the_fits_own(make_predictions, rows, min_f1):
    labels, scores, groups = zip(*rows, strict=True)
    made = make_predictions(labels, labels, groups, scores)
    threshold, fit = fit_threshold(made, "hate", CAPS, min_f1)
    found = score_checkpoint(made, "hate", CAPS, min_f1, fitted=True)
    assert found.threshold == threshold
    assert (found.f1, found.violation) == pytest.approx((fit.f1, fit.violation))
    assert found.feasible == fit.feasible


def test_an_f1_that_cannot_be_told_falls_short_by_all_of_it(make_predictions):
    silent = make_predictions(["normal"], ["normal"])
    assert score_checkpoint(silent, "hate", [], 0.6, fitted=False).violation == 0.6
    assert score_checkpoint(silent, "hate", [], None, fitted=False).feasible


def stands(f1, violation=0.0):
    return CheckpointScore(
        step=1, f1=f1, feasible=violation == 0, violation=violation, threshold=None, rates={}
    )


@pytest.mark.parametrize(
    ("candidate", "best", "wins"),
    [
        (stands(0.1), None, True),
        (stands(0.1), stands(0.9, 0.01), True),
        (stands(0.9, 0.01), stands(0.1), False),
        (stands(0.6), stands(0.5), True),
        (stands(0.5), stands(0.6), False),
        (stands(0.5), stands(0.5), False),
        (stands(0.1, 0.1), stands(0.9, 0.2), True),
        (stands(0.9, 0.2), stands(0.9, 0.1), False),
        (stands(0.6, 0.1), stands(0.5, 0.1), True),
        (stands(0.6, 0.1), stands(0.6, 0.1), False),
        (stands(0.0), stands(None), True),
        (stands(None), stands(0.0), False),
    ],
)
def test_which_checkpoint_is_kept(candidate, best, wins):
    assert is_better(candidate, best) is wins
