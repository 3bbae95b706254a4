import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve
from sklearn.metrics import auc, f1_score, roc_curve

from service.fairness.calibration import calibration
from service.fairness.curves import HISTOGRAM_BINS, ROC_POINTS, histogram, roc
from tests.support.built_reports import build

SCORE = st.sampled_from([0.0, 0.05, 0.5, 1.0]) | st.floats(0, 1)
ROWS = st.lists(st.tuples(st.booleans(), SCORE), min_size=1, max_size=40)


def columns(rows):
    truth, scores = zip(*rows, strict=True)
    return np.array(truth), np.array(scores)


@settings(deadline=None, max_examples=60)
@given(ROWS)
def test_a_short_roc_curve_is_scikit_learns(rows):
    truth, scores = columns(rows)
    found = roc("a", truth, scores)
    if truth.all() or not truth.any():
        assert found is None
        return
    fpr, tpr, _ = roc_curve(truth, scores)
    assert (found.group, found.fpr, found.tpr) == ("a", tuple(fpr), tuple(tpr))


def test_a_long_roc_curve_is_thinned_along_its_whole_length():
    draw = np.random.default_rng(0)
    scores = draw.random(20_000)
    truth = draw.random(20_000) < scores
    found = roc(None, truth, scores)
    fpr, tpr = np.array(found.fpr), np.array(found.tpr)
    assert 150 < len(fpr) <= ROC_POINTS
    assert (fpr[0], tpr[0], fpr[-1], tpr[-1]) == (0, 0, 1, 1)
    assert (np.diff(fpr) >= 0).all()
    assert (np.diff(tpr) >= 0).all()
    whole = roc_curve(truth, scores)
    assert auc(fpr, tpr) == pytest.approx(auc(*whole[:2]), abs=1e-4)
    assert np.diff(fpr + tpr).max() < 6 / ROC_POINTS


@settings(deadline=None)
@given(ROWS)
def test_every_row_is_in_one_bin_of_the_histogram(rows):
    truth, scores = columns(rows)
    found = histogram(None, truth, scores)
    assert len(found.positives) == len(found.negatives) == HISTOGRAM_BINS
    assert (sum(found.positives), sum(found.negatives)) == (truth.sum(), (~truth).sum())


def test_bins_are_closed_on_the_right_and_the_first_on_the_left_too():
    scores = np.array([0.0, 0.05, 0.0500001, 1.0])
    found = histogram(None, np.ones(4, dtype=bool), scores)
    assert found.positives == (2, 1, *(0,) * 17, 1)


@settings(deadline=None, max_examples=60)
@given(ROWS)
def test_the_reliability_diagram_is_scikit_learns_with_its_empty_bins(rows):
    truth, scores = columns(rows)
    found = calibration(truth, scores, 0.95)
    share, mean = calibration_curve(truth, scores, pos_label=True, n_bins=15)
    full = [each for each in found.bins if each.rows]
    assert [each.positives.value for each in full] == pytest.approx(list(share))
    assert [each.mean_score for each in full] == pytest.approx(list(mean))
    assert sum(each.rows for each in found.bins) == len(rows)
    gaps = [each.rows * abs(each.positives.value - each.mean_score) for each in full]
    assert found.error.value == pytest.approx(sum(gaps) / len(rows))
    empty = [each for each in found.bins if not each.rows]
    assert all(each.mean_score is None and each.positives.reason for each in empty)
    assert [each.lower for each in found.bins[1:]] == [each.upper for each in found.bins[:-1]]


def test_the_sweep_is_what_each_threshold_would_give(make_predictions):
    draw = np.random.default_rng(3)
    scores = draw.random(60).round(2)  # many on a threshold
    truth = draw.random(60) < scores
    labels = ["hate" if each else "normal" for each in truth]
    groups = draw.choice(["a", "b"], 60)
    report = build(
        make_predictions(labels, labels, groups.tolist(), scores.tolist()),
    )
    sweep = report.curves.sweep
    assert len(sweep.thresholds) == 101
    assert (sweep.thresholds[0], sweep.thresholds[29], sweep.thresholds[-1]) == (0, 0.29, 1)
    for place, threshold in enumerate(sweep.thresholds):
        called = scores >= threshold
        assert sweep.f1[place] == pytest.approx(f1_score(truth, called))
        assert sweep.recall[place] == pytest.approx(called[truth].mean())
        if called.any():
            assert sweep.precision[place] == pytest.approx(truth[called].mean())
        else:
            assert sweep.precision[place] is None
        for name in "ab":
            inside = groups == name
            assert sweep.fpr[name][place] == pytest.approx(called[inside & ~truth].mean())
            assert sweep.fnr[name][place] == pytest.approx((~called)[inside & truth].mean())


def test_curves_are_of_all_rows_first_and_of_groups_that_have_one(make_predictions):
    labels, groups = ["hate", "normal", "normal"], ["b", "b", "a"]
    report = build(make_predictions(labels, labels, groups, [0.9, 0.2, 0.1]))
    curves = report.curves
    assert [each.group for each in curves.roc] == [None, "b"]
    assert [each.group for each in curves.histograms] == [None, "a", "b"]
    assert curves.sweep.fnr["a"] == (None,) * 101
    assert curves.calibration.error == report.overall.tuned.calibration_error
    assert len(report.groups[0].calibration.bins) == 15
