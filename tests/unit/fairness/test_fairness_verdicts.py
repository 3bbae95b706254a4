from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.stats import beta, binom

from service.fairness import rates, verdicts
from service.fairness.rates import rate, unknown_rate
from service.fairness.schema import CapVerdict

SEARCHED = 3000


def cap(group="a", metric="fpr", maximum=0.1):
    return SimpleNamespace(group=group, metric=metric, max=maximum)


def brute_force(count, total, bound, confidence):
    """further_needed as its docstring defines it, by trying every m up to SEARCHED."""
    if count / total == bound:
        return None
    rows = np.arange(total + 1, total + SEARCHED + 1)
    if count / total < bound:
        errors = -(-count * rows // total)
        settled = beta.ppf(confidence, errors + 1, rows - errors) < bound - 1e-9
    else:
        errors = count * rows // total
        settled = beta.ppf(1 - confidence, errors, rows - errors + 1) > bound + 1e-9
    return int(rows[settled][0]) - total if settled.any() else None


@pytest.mark.parametrize("confidence", [0.8, 0.95])
@pytest.mark.parametrize("true_rate", [0.02, 0.1, 0.25, 0.4, 0.9])
@pytest.mark.parametrize("total", [1, 7, 40, 150])
def test_wrong_verdicts_are_rarer_than_one_minus_confidence(total, true_rate, confidence):
    """Exactly, over every possible count, with the true rate on the cap: the worst case."""
    chance = dict.fromkeys(["pass", "fail", "inconclusive"], 0.0)
    for count in range(total + 1):
        verdict = verdicts.check_criterion(count, total, true_rate, confidence)
        chance[verdict] += binom.pmf(count, total, true_rate)
    assert chance["pass"] <= 1 - confidence + 1e-12
    assert chance["fail"] <= 1 - confidence + 1e-12
    assert sum(chance.values()) == pytest.approx(1)


def test_verdicts_on_drawn_data_err_as_rarely_as_promised_and_do_decide():
    drawn = np.random.default_rng(7).binomial
    judged = [verdicts.check_criterion(count, 400, 0.2, 0.95) for count in range(401)]

    def share(verdict, true_rate):
        counts = drawn(400, true_rate, size=20_000)
        return np.mean([judged[count] == verdict for count in counts])

    three_sigma = 3 * np.sqrt(0.05 * 0.95 / 20_000)
    assert 0.02 < share("pass", 0.2) <= 0.05 + three_sigma
    assert 0.02 < share("fail", 0.2) <= 0.05 + three_sigma
    assert share("pass", 0.1) > 0.95
    assert share("fail", 0.3) > 0.95


def test_verdicts_by_hand():
    # 0 of n passes under c once (1 - c)^n < 0.05: 0.9^28 = 0.0523, 0.9^29 = 0.0471.
    assert verdicts.check_criterion(0, 28, 0.1, 0.95) == "inconclusive"
    assert verdicts.check_criterion(0, 29, 0.1, 0.95) == "pass"
    # n of n fails over c once c^n < 0.05: 0.4^3 = 0.064, 0.4^4 = 0.0256.
    assert verdicts.check_criterion(3, 3, 0.4, 0.95) == "inconclusive"
    assert verdicts.check_criterion(4, 4, 0.4, 0.95) == "fail"
    # One-sided at 0.95, not two-sided: (1 - c)^n < 0.025 would take 36.
    assert verdicts.further_needed(0, 10, 0.1, 0.95) == 19
    assert verdicts.further_needed(1, 1, 0.4, 0.95) == 3


def test_a_limit_on_the_cap_is_not_past_it():
    # 0 of 2 at 0.99: (1 - upper)^2 = 0.01, so the limit is 0.9 exactly; mirrored for 2 of 2.
    assert verdicts.check_criterion(0, 2, 0.9, 0.99) == "inconclusive"
    assert verdicts.check_criterion(2, 2, 0.1, 0.99) == "inconclusive"
    assert verdicts.further_needed(0, 1, 0.9, 0.99) == 2
    assert verdicts.further_needed(1, 1, 0.1, 0.99) == 2


def test_a_cap_of_0_never_passes_and_fails_on_one_error():
    assert verdicts.check_criterion(0, 10_000, 0.0, 0.95) == "inconclusive"
    assert verdicts.further_needed(0, 10_000, 0.0, 0.95) is None
    assert verdicts.check_criterion(1, 10_000, 0.0, 0.95) == "fail"


@settings(deadline=None, max_examples=300)
@given(
    st.integers(1, 60).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))),
    st.integers(1, 99).map(lambda percent: percent / 100),
    st.sampled_from([0.6, 0.8, 0.95, 0.99]),
)
@example((0, 1), 0.9, 0.99)
@example((2, 5), 0.4, 0.95)
@example((1, 3), 0.4, 0.95)
@example((3, 23), 0.1, 0.95)
@example((13, 14), 0.97, 0.95)
def test_further_needed_is_the_smallest_number_that_settles(proportion, bound, confidence):
    if verdicts.check_criterion(*proportion, bound, confidence) != "inconclusive":
        return
    found = verdicts.further_needed(*proportion, bound, confidence)
    expected = brute_force(*proportion, bound, confidence)
    if expected is None:
        assert found is None or found > SEARCHED
    else:
        assert found == expected


def test_rounding_against_the_verdict_is_what_makes_the_search_jump():
    """1 of 7 under 0.3: settled at some totals, and unsettled again after the next error."""
    settled = [
        verdicts.check_criterion(-(-rows // 7), rows, 0.3, 0.95) == "pass" for rows in range(8, 120)
    ]
    first = settled.index(True)
    assert not all(settled[first:])
    assert verdicts.further_needed(1, 7, 0.3, 0.95) == first + 1


def test_a_verdict_out_of_reach_is_null_and_quick_to_find_so():
    assert verdicts.further_needed(100_001, 1_000_000, 0.1, 0.95) is None
    assert verdicts.further_needed(39_700, 100_000, 0.4, 0.999) is not None


def test_judging_a_cap():
    passed = verdicts.judge_cap(cap(), rate(0, 40, 0.95, empty=""), 0.95)
    lower, upper = rates.clopper_pearson_limits(0, 40, 0.95)
    assert passed == CapVerdict(
        group="a",
        metric="fpr",
        max=0.1,
        observed=0.0,
        numerator=0,
        denominator=40,
        lower=lower,
        upper=upper,
        verdict="pass",
        needed_further=None,
        would_settle=None,
        reason=None,
    )
    failed = verdicts.judge_cap(cap(metric="fnr"), rate(20, 40, 0.95, empty=""), 0.95)
    assert (failed.verdict, failed.metric, failed.needed_further) == ("fail", "fnr", None)


@pytest.mark.parametrize(("count", "settles"), [(0, "pass"), (2, "fail")])
def test_an_inconclusive_cap_says_what_would_settle_it(count, settles):
    open_cap = verdicts.judge_cap(cap(), rate(count, 10, 0.95, empty=""), 0.95)
    assert (open_cap.verdict, open_cap.would_settle) == ("inconclusive", settles)
    assert open_cap.needed_further == verdicts.further_needed(count, 10, 0.1, 0.95)
    assert open_cap.reason is None


def test_an_observed_rate_on_the_cap_is_settled_by_no_number():
    tied = verdicts.judge_cap(cap(), rate(1, 10, 0.95, empty=""), 0.95)
    assert (tied.verdict, tied.needed_further, tied.would_settle) == ("inconclusive", None, None)
    assert "the observed rate equals the cap" in tied.reason


def test_a_rate_next_to_the_cap_is_settled_by_no_number_within_reach():
    close = verdicts.judge_cap(cap(), rate(10_001, 100_000, 0.95, empty=""), 0.95)
    assert (close.verdict, close.needed_further) == ("inconclusive", None)
    assert "more than 1,000,000 further rows" in close.reason


def test_a_group_with_nothing_to_count_is_inconclusive_but_an_unknown_one_not_applicable():
    empty = verdicts.judge_cap(cap(), unknown_rate("no negative rows"), 0.95)
    assert empty.verdict == "inconclusive"
    assert empty.reason == "group 'a': no negative rows"
    assert (empty.observed, empty.lower, empty.upper, empty.needed_further) == (None,) * 4
    absent = verdicts.judge_cap(cap(), None, 0.95)
    assert absent.verdict == "not_applicable"
    assert absent.reason == "the data has no group 'a'"


@pytest.mark.parametrize(
    ("each", "expected"),
    [
        ([], "not_applicable"),
        (["not_applicable"], "not_applicable"),
        (["pass", "not_applicable"], "pass"),
        (["pass", "pass"], "pass"),
        (["pass", "inconclusive"], "inconclusive"),
        (["inconclusive", "not_applicable"], "inconclusive"),
        (["pass", "inconclusive", "fail"], "fail"),
    ],
)
def test_the_verdict_on_all_caps(each, expected):
    judged = [verdicts.judge_cap(cap(), None, 0.95).model_copy(update={"verdict": v}) for v in each]
    assert verdicts.summarise(judged) == expected
