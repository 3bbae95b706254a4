import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.proportion import proportion_confint

from service.fairness import rates
from service.fairness.schema import Confusion

CONFIDENCES = st.sampled_from([0.5, 0.8, 0.9, 0.95, 0.99, 0.999])
PROPORTIONS = st.integers(1, 3000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


@settings(deadline=None)
@given(PROPORTIONS, CONFIDENCES)
def test_wilson_interval_is_statsmodels(proportion, confidence):
    expected = proportion_confint(*proportion, alpha=1 - confidence, method="wilson")
    assert rates.wilson_interval(*proportion, confidence) == pytest.approx(expected, abs=1e-9)


@settings(deadline=None)
@given(PROPORTIONS, CONFIDENCES.filter(lambda level: level > 0.5))
def test_each_one_sided_limit_is_half_of_statsmodels_two_sided_one(proportion, confidence):
    expected = proportion_confint(*proportion, alpha=2 * (1 - confidence), method="beta")
    assert rates.clopper_pearson_limits(*proportion, confidence) == pytest.approx(
        expected, abs=1e-9
    )


def test_limits_by_hand():
    # No error in 20 rows: (1 - upper)^20 = 0.05. The mirror image for 20 in 20.
    assert rates.clopper_pearson_limits(0, 20, 0.95) == pytest.approx((0, 1 - 0.05 ** (1 / 20)))
    assert rates.clopper_pearson_limits(20, 20, 0.95) == pytest.approx((0.05 ** (1 / 20), 1))
    # 5 of 10 at z = 1.959964: centre 0.5, half-width z sqrt(1/40 + z²/400) / (1 + z²/10).
    assert rates.wilson_interval(5, 10, 0.95) == pytest.approx((0.236593, 0.763407), abs=1e-6)


def test_a_rate_over_nothing_is_null_with_its_reason_and_a_measured_0_is_0():
    unknown = rates.rate(0, 0, 0.95, empty="no negative rows")
    assert (unknown.value, unknown.lower, unknown.upper) == (None, None, None)
    assert (unknown.numerator, unknown.denominator) == (0, 0)
    assert unknown.reason == "no negative rows"
    measured = rates.rate(0, 1, 0.95, empty="no negative rows")
    assert (measured.value, measured.lower, measured.reason) == (0, 0, None)
    assert 0 < measured.upper < 1


def test_counts_and_rates_by_hand():
    truth = np.array([True] * 5 + [False] * 7)
    called = np.array([True] * 3 + [False] * 2 + [True] * 1 + [False] * 6)
    counts = rates.confusion(truth, called)
    assert counts == Confusion(true_positive=3, false_negative=2, false_positive=1, true_negative=6)

    def share(name):
        estimate = getattr(rates, name)(counts, 0.95)
        return estimate.numerator, estimate.denominator, estimate.value

    assert share("accuracy") == (9, 12, 9 / 12)
    assert share("precision") == (3, 4, 3 / 4)
    assert share("recall") == (3, 5, 3 / 5)
    assert share("fpr") == (1, 7, 1 / 7)
    assert share("fnr") == (2, 5, 2 / 5)


@pytest.mark.parametrize("truth", [True, False])
@pytest.mark.parametrize("called", [True, False])
def test_one_row_is_counted_where_it_belongs(truth, called):
    counts = rates.confusion(np.array([truth]), np.array([called])).model_dump()
    cell = f"{'true' if truth == called else 'false'}_{'positive' if called else 'negative'}"
    assert counts == {name: int(name == cell) for name in counts}


@pytest.mark.parametrize("confidence", [0.49, 1.0, -1, float("nan")])
def test_a_confidence_without_meaning_is_refused(confidence):
    with pytest.raises(ValueError, match=r"^confidence must be at least"):
        rates.check_confidence(confidence)
