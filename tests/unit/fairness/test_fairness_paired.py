import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

from service.fairness.paired import holm, paired
from tests.support.built_reports import build


def right(both, first, second, neither):
    """Which rows two models got right, from the four counts."""
    one = [True] * both + [True] * first + [False] * second + [False] * neither
    two = [True] * both + [False] * first + [True] * second + [False] * neither
    return np.array(one), np.array(two)


COUNT = st.integers(0, 25)


@settings(deadline=None, max_examples=60)
@given(st.tuples(COUNT, COUNT, COUNT, COUNT).filter(any))
def test_mcnemar_is_statsmodels_exact_test(counts):
    both, first, second, neither = counts
    ours = paired(*right(*counts))
    assert (ours.both_right, ours.only_first, ours.only_second, ours.both_wrong) == counts
    assert ours.rows == sum(counts)
    theirs = mcnemar([[both, first], [second, neither]], exact=True).pvalue
    assert ours.p_value == pytest.approx(theirs if first + second else 1)


def test_mcnemar_by_hand():
    # 1 of 6 tosses, both tails: 2 (1 + 6) / 64.
    assert paired(*right(0, 1, 5, 0)).p_value == pytest.approx(14 / 64)
    assert paired(*right(9, 0, 0, 3)).p_value == 1


@pytest.mark.usefixtures("quick_collection")
@settings(deadline=None, max_examples=50)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_is_statsmodels(p_values):
    assert holm(p_values) == pytest.approx(multipletests(p_values, method="holm")[1], abs=1e-12)


def test_holm_by_hand():
    assert holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert holm([]) == []


def test_base_against_tuned_overall_and_by_group(make_predictions):
    labels = ["hate"] * 6 + ["normal"] * 3
    groups = ["a"] * 6 + ["b"] * 2 + [None]
    base = make_predictions(labels, ["normal"] * 6 + ["normal", "hate", "normal"], groups)
    tuned = make_predictions(labels, ["hate"] * 6 + ["normal", "hate", "hate"], groups)
    found = build(tuned, base=base).before_after
    assert (found.overall.only_first, found.overall.only_second) == (1, 6)
    assert found.overall.p_holm is None
    a, b = found.groups
    assert (a.group, a.paired.only_second, a.paired.rows) == ("a", 6, 6)
    assert a.paired.p_value == pytest.approx(2 / 64)
    assert a.paired.p_holm == pytest.approx(4 / 64)
    assert (b.paired.both_right, b.paired.both_wrong, b.paired.p_holm) == (1, 1, 1)
    alone = build(tuned)
    assert alone.before_after is None
