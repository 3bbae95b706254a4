import numpy as np
import pytest
from sklearn.metrics import f1_score, roc_auc_score

from service.fairness import bootstrap, metrics
from service.fairness.bootstrap import (
    basic,
    f1_interval,
    group_by_score,
    percentile,
    score_intervals,
)
from service.fairness.rates import confusion, wilson_interval
from service.fairness.schema import Confusion


def drawn_rows(n, seed):
    """Rows whose score is about the chance that they are positive, and what 0.5 makes of it."""
    draw = np.random.default_rng(seed)
    scores = draw.random(n)
    truth = draw.random(n) < scores
    return truth, scores >= 0.5, scores


def by_hand(truth, called, scores):
    """F1, area and calibration error; scikit-learn would take seconds over hundreds of draws."""
    f1 = 2 * (truth & called).sum() / (truth.sum() + called.sum())
    area = (scores[truth][:, None] > scores[~truth]).mean()
    area += (scores[truth][:, None] == scores[~truth]).mean() / 2
    bins = np.searchsorted(np.linspace(0, 1, 16)[1:-1], scores)
    error = np.abs(np.bincount(bins, weights=truth - scores)).sum() / len(truth)
    return f1, area, error


def test_intervals_are_those_of_rows_drawn_one_by_one():
    truth, called, scores = drawn_rows(150, 0)
    draw, figures = np.random.default_rng(1), []
    for _ in range(600):
        rows = draw.integers(150, size=150)
        figures.append(by_hand(truth[rows], called[rows], scores[rows]))
    expected = np.quantile(figures, [0.05, 0.95], axis=0).T
    area = roc_auc_score(truth, scores)
    assert by_hand(truth, called, scores)[:2] == pytest.approx((f1_score(truth, called), area))
    error = metrics.calibration_error(truth, scores).value
    expected[2] = max(0, 2 * error - expected[2][1]), max(error, 2 * error - expected[2][0])
    found = (
        f1_interval(confusion(truth, called), 0.9, 0),
        *score_intervals(truth, scores, area, error, 0.9, 0),
    )
    for ours, theirs in zip(found, expected, strict=True):
        assert ours == pytest.approx(theirs, abs=0.015)


def test_scores_put_together_change_the_interval_by_next_to_nothing(monkeypatch):
    truth, _, scores = drawn_rows(1500, 2)
    figures = roc_auc_score(truth, scores), metrics.calibration_error(truth, scores).value
    exact = score_intervals(truth, scores, *figures, 0.95, 0)
    monkeypatch.setattr(bootstrap, "MAX_STEPS", 100)
    put = group_by_score(truth, scores)
    assert 100 <= len(put.positives) <= 100 + metrics.CALIBRATION_BINS
    assert put.positives.sum() + put.negatives.sum() == 1500
    rough = score_intervals(truth, scores, *figures, 0.95, 0)
    for one, other in zip(exact, rough, strict=True):
        assert one == pytest.approx(other, abs=0.004)


@pytest.mark.parametrize("most", [4, 10_000])
def test_steps_keep_the_calibration_error_exact(monkeypatch, most):
    monkeypatch.setattr(bootstrap, "MAX_STEPS", most)
    truth, _, scores = drawn_rows(300, 3)
    put = group_by_score(truth, scores)
    gaps = put.positives * put.gap_positives + put.negatives * put.gap_negatives
    error = np.abs(np.add.reduceat(gaps, put.bins)).sum() / 300
    assert error == pytest.approx(metrics.calibration_error(truth, scores).value)


def test_draws_without_the_figure_are_left_out_and_without_difference_there_are_no_ends():
    nan = float("nan")
    assert percentile(np.array([0.0, nan, 1.0, nan]), 0.9) == pytest.approx((0.05, 0.95))
    assert percentile(np.array([0.5, 0.5, nan]), 0.9) == (None, None)
    assert percentile(np.array([nan]), 0.9) == (None, None)
    right = np.array([True, False])
    assert f1_interval(confusion(right, right), 0.95, 0) == (None, None)


def test_a_basic_interval_mirrors_the_draws_stays_within_0_and_1_and_holds_the_figure():
    drawn = np.linspace(0.2, 0.4, 101)
    assert basic(drawn, 0.3, 0.9) == pytest.approx((0.21, 0.39))
    assert basic(drawn, 0.25, 0.9) == pytest.approx((0.11, 0.29))
    assert basic(drawn, 0.1, 0.9) == pytest.approx((0, 0.1))
    assert basic(1 - drawn, 0.95, 0.9) == pytest.approx((0.95, 1))
    assert basic(np.array([0.5, 0.5]), 0.5, 0.9) == (None, None)


def test_an_area_of_1_has_no_end_over_1():
    # More scores than are kept apart, so that the drawn areas are moved.
    scores = np.linspace(0, 1, 9001)
    truth = scores > 0.5
    area, _ = score_intervals(truth, scores, 1.0, 0.1, 0.95, 0)
    assert area == (None, None)  # as where nothing is moved: no draw differs from another


def test_one_class_has_no_area_to_draw():
    truth, _, scores = drawn_rows(50, 4)
    area, calibration = score_intervals(np.ones_like(truth), scores, None, 0.5, 0.95, 0)
    assert area == (None, None)
    assert calibration.lower < calibration.upper


def covered(intervals, true):
    return np.mean([lower <= true <= upper for lower, upper in intervals])


def test_a_wilson_interval_covers_the_true_rate_about_as_often_as_it_says():
    for rate in (0.1, 0.3):
        counts = np.random.default_rng(5).binomial(120, rate, size=2000)
        known = {count: wilson_interval(count, 120, 0.9) for count in set(counts.tolist())}
        assert 0.87 < covered([known[count] for count in counts.tolist()], rate) < 0.93


def test_a_bootstrap_interval_covers_the_true_f1_about_as_often_as_it_says(monkeypatch):
    monkeypatch.setattr(bootstrap, "RESAMPLES", 500)
    share = np.array([0.35, 0.10, 0.15, 0.40])  # TP, FP, FN, TN
    true = 2 * 0.35 / (2 * 0.35 + 0.10 + 0.15)
    drawn = np.random.default_rng(6).multinomial(300, share, size=600)
    intervals = [
        f1_interval(
            Confusion(true_positive=tp, false_positive=fp, false_negative=fn, true_negative=tn),
            0.9,
            seed,
        )
        for seed, (tp, fp, fn, tn) in enumerate(drawn.tolist())
    ]
    # Three standard deviations of 600 draws are 0.037; percentile intervals are a little short.
    assert 0.85 < covered(intervals, true) < 0.94


def test_an_interval_of_the_calibration_error_covers_the_true_one_more_often_than_not(monkeypatch):
    """Scores that are too sure, true error 0.16: a percentile interval would lie over it."""
    monkeypatch.setattr(bootstrap, "RESAMPLES", 300)
    draw, intervals = np.random.default_rng(8), []

    def rows(n):
        chance = draw.random(n)
        return draw.random(n) < chance, np.where(chance < 0.5, chance / 5, 1 - (1 - chance) / 5)

    true = metrics.calibration_error(*rows(400_000)).value
    for seed in range(150):
        truth, scores = rows(300)
        error = metrics.calibration_error(truth, scores).value
        intervals.append(score_intervals(truth, scores, None, error, 0.9, seed)[1])
    assert 0.82 < covered(intervals, true) < 0.97


def test_a_tie_between_steps_counts_one_half():
    truth, _, scores = drawn_rows(200, 10)
    scores = scores.round(1)
    put = group_by_score(truth, scores)
    assert len(put.positives) == 11
    area = bootstrap._area(put.positives[None], put.negatives[None])
    assert area == pytest.approx(roc_auc_score(truth, scores))
