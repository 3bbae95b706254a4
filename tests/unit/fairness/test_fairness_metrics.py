from itertools import pairwise

import numpy as np
import pytest
import sklearn.metrics
from hypothesis import given, settings
from hypothesis import strategies as st

from service.fairness import metrics

PROBABILITIES = st.sampled_from([0.0, 0.2, 1 / 3, 0.4, 0.5, 1.0]) | st.floats(0, 1)
ROWS = st.lists(st.tuples(st.booleans(), st.booleans(), PROBABILITIES), min_size=1, max_size=40)


def columns(rows):
    truth, called, scores = zip(*rows, strict=True)
    return np.array(truth), np.array(called), np.array(scores)


@settings(deadline=None, max_examples=60)
@given(ROWS)
def test_figures_are_scikit_learns_wherever_they_are_defined(rows):
    truth, called, scores = columns(rows)
    ours = metrics.overall_metrics(truth, called, scores, 0.95)
    assert ours.accuracy.value == pytest.approx(sklearn.metrics.accuracy_score(truth, called))
    for name in ("precision", "recall", "f1"):
        theirs = getattr(sklearn.metrics, f"{name}_score")(truth, called, zero_division=np.nan)
        figure = getattr(ours, name)
        if np.isnan(theirs) or (name == "f1" and not truth.any()):
            assert figure.value is None
            assert figure.reason
        else:
            assert figure.value == pytest.approx(theirs)
    if truth.all() or not truth.any():
        assert ours.auc.value is None
    else:
        assert ours.auc.value == pytest.approx(sklearn.metrics.roc_auc_score(truth, scores))


@settings(deadline=None, max_examples=60)
@given(ROWS)
def test_auc_is_the_chance_to_rank_a_positive_above_a_negative(rows):
    truth, _, scores = columns(rows)
    pairs = [(a > b) + (a == b) / 2 for a in scores[truth] for b in scores[~truth]]
    value = metrics.auc(truth, scores).value
    assert value == (pytest.approx(np.mean(pairs)) if pairs else None)


@settings(deadline=None, max_examples=60)
@given(ROWS)
def test_calibration_error_is_guos_sum_over_15_bins(rows):
    truth, _, scores = columns(rows)
    # np.linspace, since m / 15 and a score on an edge may differ in their last bit.
    edges = np.linspace(0, 1, 16)
    expected = 0.0
    for low, high in pairwise(edges):
        inside = (scores > low) & (scores <= high) | (low == 0) & (scores == 0)
        if inside.any():
            gap = abs(truth[inside].mean() - scores[inside].mean())
            expected += inside.sum() / len(rows) * gap
    assert metrics.calibration_error(truth, scores).value == pytest.approx(expected)


def test_calibration_error_by_hand():
    truth = np.array([True, False, True, True])
    # Bins (0.2, 0.267]: half positive, mean score 0.25. (0.867, 0.933]: all positive, mean 0.9.
    scores = np.array([0.25, 0.25, 0.9, 0.9])
    assert metrics.calibration_error(truth, scores).value == pytest.approx((2 * 0.25 + 2 * 0.1) / 4)


def test_scores_all_the_same_rank_nothing():
    assert metrics.auc(np.array([True, False, False]), np.full(3, 0.5)).value == 0.5


def test_f1_is_0_when_measured_and_null_when_there_is_nothing_to_measure():
    none, one = np.array([False, False]), np.array([True, False])
    assert metrics.f1(one, none).value == 0
    # One rule for the same lack: without a positive row nothing that is predicted makes an F1.
    for predicted in (none, one):
        assert metrics.f1(none, predicted).value is None
        assert metrics.f1(none, predicted).reason == "no positive rows"


@pytest.mark.parametrize("label", [True, False])
def test_one_row_gives_what_one_row_can(label):
    figures = metrics.overall_metrics(np.array([label]), np.array([label]), np.array([0.9]), 0.95)
    assert figures.accuracy.value == 1
    assert figures.auc.value is None
    assert figures.auc.reason == "all rows are of one class"
    assert (figures.fpr.value, figures.fnr.value) == ((None, 0) if label else (0, None))
    assert figures.precision.value == (1 if label else None)
    assert figures.calibration_error.value == pytest.approx(0.1 if label else 0.9)


def test_predictions_without_scores_have_no_ranking():
    truth = np.array([True, False])
    figures = metrics.overall_metrics(truth, truth, None, 0.95)
    for figure in (figures.auc, figures.calibration_error):
        assert (figure.value, figure.reason) == (None, "there are no scores")


def test_differences_are_tuned_minus_base_and_null_where_either_is():
    truth = np.array([True, True, False, False])
    tuned = metrics.overall_metrics(truth, truth, np.array([0.9, 0.8, 0.2, 0.1]), 0.95)
    silent = metrics.overall_metrics(truth, np.zeros(4, dtype=bool), None, 0.95)
    change = metrics.differences(tuned, silent)
    assert change.accuracy.value == 0.5
    assert change.fnr.value == -1
    assert change.f1.value == 1
    assert change.precision.reason == "base: no row was predicted positive"
    assert metrics.differences(silent, tuned).auc.reason == "tuned: there are no scores"
