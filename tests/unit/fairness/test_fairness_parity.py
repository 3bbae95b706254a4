import fairlearn.metrics
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.fairness.parity import parity
from service.fairness.schema import Confusion

RATES = {
    "demographic_parity": fairlearn.metrics.selection_rate,
    "false_positive_rate": fairlearn.metrics.false_positive_rate,
    "true_positive_rate": fairlearn.metrics.true_positive_rate,
}


def counts(tp, fp, fn, tn):
    return Confusion(true_positive=tp, false_positive=fp, false_negative=fn, true_negative=tn)


def rows_of(groups):
    """The counted rows again: what is true, what was called, of which group."""
    rows = []
    for name, each in groups.items():
        rows += [(1, 1, name)] * each.true_positive + [(0, 1, name)] * each.false_positive
        rows += [(1, 0, name)] * each.false_negative + [(0, 0, name)] * each.true_negative
    truth, called, names = zip(*rows, strict=True)
    return np.array(truth), np.array(called), list(names)


FEW = st.integers(0, 6)
GROUP = st.builds(counts, FEW, FEW, FEW, FEW).filter(
    lambda each: (
        each.true_positive + each.false_negative and each.false_positive + each.true_negative
    )
)


@settings(deadline=None, max_examples=25)
@given(st.dictionaries(st.sampled_from("abcd"), GROUP, min_size=2))
def test_differences_are_fairlearns(groups):
    truth, called, names = rows_of(groups)
    ours = parity(groups, 0.95, 0)
    frame = fairlearn.metrics.MetricFrame(
        metrics=RATES, y_true=truth, y_pred=called, sensitive_features=names
    )
    for name in RATES:
        difference = getattr(ours, name)
        assert difference.value == pytest.approx(frame.difference()[name])
        by_group = frame.by_group[name]
        assert by_group[difference.highest] == pytest.approx(by_group.max())
        assert by_group[difference.lowest] == pytest.approx(by_group.min())
    assert ours.demographic_parity.value == pytest.approx(
        fairlearn.metrics.demographic_parity_difference(truth, called, sensitive_features=names)
    )
    assert ours.equalized_odds.value == pytest.approx(
        fairlearn.metrics.equalized_odds_difference(truth, called, sensitive_features=names)
    )
    assert ours.left_out == {}


def test_by_hand_and_a_group_with_nothing_to_count_is_left_out():
    groups = {
        "a": counts(8, 1, 2, 9),  # FPR 0.1, recall 0.8, called 9 of 20
        "b": counts(5, 4, 5, 6),  # FPR 0.4, recall 0.5, called 9 of 20
        "c": counts(1, 0, 0, 0),  # no negatives, recall 1, called 1 of 1
    }
    found = parity(groups, 0.95, 0)
    assert found.false_positive_rate.value == pytest.approx(0.3)
    assert (found.false_positive_rate.highest, found.false_positive_rate.lowest) == ("b", "a")
    assert found.true_positive_rate.value == pytest.approx(0.5)
    assert (found.true_positive_rate.highest, found.true_positive_rate.lowest) == ("c", "b")
    assert found.demographic_parity.value == pytest.approx(1 - 9 / 20)
    assert found.demographic_parity.lowest == "a"  # of equals the first by name
    odds = found.equalized_odds
    assert (odds.value, odds.highest, odds.lowest) == (0.5, "c", "b")
    assert found.left_out == {"c": "no negative rows"}


def test_a_rate_that_fewer_than_two_groups_have_is_null():
    found = parity({"a": counts(1, 1, 1, 1), "b": counts(1, 0, 1, 0)}, 0.95, 0)
    for difference in (found.false_positive_rate, found.equalized_odds):
        assert (difference.value, difference.lower, difference.highest) == (None, None, None)
        assert difference.reason == "fewer than two groups have this rate"
    assert found.true_positive_rate.value == 0


def test_the_interval_is_that_of_rows_drawn_one_by_one_within_each_group():
    groups = {"a": counts(30, 5, 10, 35), "b": counts(20, 20, 10, 20)}
    found = parity(groups, 0.9, 3)
    truth, called, names = (np.array(column) for column in rows_of(groups))
    drawn, apart = np.random.default_rng(11), []
    for _ in range(2000):
        rates = []
        for name in groups:
            rows = np.flatnonzero(names == name)
            rows = drawn.choice(rows, len(rows))
            rates.append(called[rows][truth[rows] == 0].mean())
        apart.append(max(rates) - min(rates))
    lowest, highest = np.quantile(apart, [0.05, 0.95])
    value = 20 / 40 - 5 / 40
    expected = 2 * value - highest, 2 * value - lowest
    assert (found.false_positive_rate.lower, found.false_positive_rate.upper) == pytest.approx(
        expected, abs=0.02
    )


def test_the_seed_alone_decides_the_interval():
    groups = {"a": counts(30, 5, 10, 35), "b": counts(20, 20, 10, 20)}
    assert parity(groups, 0.9, 3) == parity(groups, 0.9, 3)
    assert parity(groups, 0.9, 3).demographic_parity != parity(groups, 0.9, 4).demographic_parity


@pytest.mark.parametrize("true", [(0.2, 0.2, 0.2), (0.1, 0.2, 0.4)])
def test_an_interval_covers_the_true_difference_and_0_where_groups_are_alike(true):
    """At 0.9, three groups: a percentile interval would never hold 0 in the first case."""
    draw, covered = np.random.default_rng(9), 0
    for seed in range(200):
        groups = {}
        for name, fpr in zip("abc", true, strict=True):
            fp = draw.binomial(150, fpr)
            groups[name] = counts(50, int(fp), 10, 150 - int(fp))
        found = parity(groups, 0.9, seed).false_positive_rate
        covered += found.lower <= max(true) - min(true) <= found.upper
    assert 0.8 < covered / 200 < 0.97
