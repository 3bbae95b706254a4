"""Comparisons: the front, the worst cap, paired tests over all pairs, and the same rows for all."""

import dataclasses
import itertools
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn.metrics import f1_score
from statsmodels.stats.multitest import multipletests

from service.fairness.compare import Entry, compare, pareto_front

COARSE = st.none() | st.integers(0, 4).map(lambda value: value / 4)  # so that there are ties


class Cap(NamedTuple):
    group: str
    metric: str
    max: float


def entry(name, predictions, **more):
    fields = {"name": "a run", "base_model": "tiny", "template": "simple"}
    return Entry(entry=name, predictions=predictions, **fields | more)


def made(entries, **more):
    return compare(entries, **{"positive_label": "hate", "split": "test"} | more)


def models(make_predictions, truth, calls, groups=None, scores=None):
    """One entry per column of `calls`."""
    return [
        entry(
            f"m{number}",
            make_predictions(
                ["hate" if one else "normal" for one in truth],
                ["hate" if one else "normal" for one in column],
                groups,
                scores,
            ),
        )
        for number, column in enumerate(calls)
    ]


def test_thresholds_fitted_on_the_rows_compared_are_warned_of(make_predictions):
    first, second = models(make_predictions, [True, False], [[True, False], [True, True]])
    second = dataclasses.replace(second, rule="fitted", threshold=0.4)
    for split, warned in (("validation", True), ("test", False)):
        said = {one.code: one.detail for one in made([first, second], split=split).warnings}
        assert ("threshold_fitted_here" in said) is warned
        assert not warned or "of m1 were" in said["threshold_fitted_here"]


# -- the front ---------------------------------------------------------------------------------


@given(st.lists(st.tuples(COARSE, COARSE), max_size=8))
def test_the_front_is_what_no_weighing_can_better(points):
    """Against brute force by sorting: F1 falling, and past equal F1 the least excess alone."""
    known = sorted({p for p in points if None not in p}, key=lambda p: (-p[0], p[1]))
    front, least = set(), float("inf")
    for f1, excess in known:
        if excess < least:
            front.add((f1, excess))
            least = excess
    assert pareto_front(points) == [point in front for point in points]


def test_equal_models_are_on_the_front_together_and_the_unknown_on_none():
    assert pareto_front([(0.8, 0.1), (0.8, 0.1), (0.8, 0.2), (None, 0.0), (0.9, None)]) == [
        True,
        True,
        False,
        False,
        False,
    ]
    assert pareto_front([(0.7, 0.3), (0.9, 0.1)]) == [False, True]
    assert pareto_front([(0.7, 0.1), (0.9, 0.3)]) == [True, True]


# -- random models against other libraries -----------------------------------------------------


@st.composite
def many_models(draw):
    rows, count = draw(st.integers(1, 30)), draw(st.integers(2, 5))
    booleans = st.lists(st.booleans(), min_size=rows, max_size=rows)
    groups = draw(st.lists(st.sampled_from(["a", "b", None]), min_size=rows, max_size=rows))
    return draw(booleans), [draw(booleans) for _ in range(count)], groups


@pytest.mark.usefixtures("quick_collection")
@settings(deadline=None, max_examples=50)
@given(many_models())
def test_figures_excesses_and_tests_are_those_of_other_libraries(make_predictions, drawn):
    truth, calls, groups = drawn
    caps = [Cap("a", "fpr", 0.25), Cap("b", "fnr", 0.5), Cap("c", "fpr", 0.1)]
    found = made(models(make_predictions, truth, calls, groups), caps=caps)
    truth, calls = np.array(truth), np.array(calls)
    for one, called in zip(found.entries, calls, strict=True):
        if truth.any():
            assert one.f1.value == pytest.approx(f1_score(truth, called, zero_division=0))
        else:
            assert (one.f1.value, one.f1.reason) == (None, "no positive rows")
        over = []
        for cap in caps:
            at_risk = np.array([group == cap.group for group in groups])
            at_risk &= ~truth if cap.metric == "fpr" else truth
            if at_risk.any():
                over.append((called != truth)[at_risk].mean() - cap.max)
        if over:
            assert one.worst_excess.value == pytest.approx(max(over))
        else:
            assert (one.worst_excess.value, one.worst_excess.group) == (None, None)
            assert one.worst_excess.reason
    right = calls == truth
    expected = []
    for first, second in itertools.combinations(right, 2):
        b, c = int((first & ~second).sum()), int((second & ~first).sum())
        expected.append(binomtest(b, b + c).pvalue if b + c else 1.0)
    tests = [pair.paired for pair in found.pairs]
    assert [test.p_value for test in tests] == pytest.approx(expected)
    assert [test.p_holm for test in tests] == pytest.approx(
        multipletests(expected, method="holm")[1]
    )
    names = [one.entry for one in found.entries]
    assert [(pair.first, pair.second) for pair in found.pairs] == list(
        itertools.combinations(names, 2)
    )


@settings(deadline=None, max_examples=50)
@given(many_models())
def test_the_front_is_of_f1_and_the_worst_excess(make_predictions, drawn):
    truth, calls, groups = drawn
    caps = [Cap("a", "fpr", 0.25)]
    found = made(models(make_predictions, truth, calls, groups), caps=caps).entries
    if found[0].worst_excess.value is None:  # the F1 alone
        best = max((one.f1.value for one in found if one.f1.value is not None), default=None)
        expected = [best is not None and one.f1.value == best for one in found]
    else:
        expected = pareto_front([(one.f1.value, one.worst_excess.value) for one in found])
    assert [one.pareto for one in found] == expected


# -- small tables by hand ----------------------------------------------------------------------


def test_a_small_table_by_hand(make_predictions):
    truth = [1, 1, 1, 1, 0, 0, 0, 0]
    groups = ["a", "a", "b", "b", "a", "a", "b", "b"]
    calls = [
        [1, 1, 1, 0, 1, 0, 0, 0],  # one miss in b, one false alarm in a
        [1, 1, 1, 1, 0, 0, 1, 1],  # both of b's negatives
    ]
    caps = [Cap("a", "fpr", 0.25), Cap("b", "fpr", 0.4)]
    found = made(models(make_predictions, truth, calls, groups), caps=caps, min_f1=0.7)
    one, two = found.entries
    assert (one.f1.value, two.f1.value) == (6 / 8, 8 / 10)
    assert (one.worst_excess.value, one.worst_excess.group) == (0.25, "a")
    assert (two.worst_excess.value, two.worst_excess.group) == (0.6, "b")
    assert (one.pareto, two.pareto) == (True, True)
    assert [(group.group, group.fpr.value, group.fnr.value) for group in one.groups] == [
        ("a", 0.5, 0.0),
        ("b", 0.0, 0.5),
    ]
    paired = found.pairs[0].paired
    assert (paired.both_right, paired.both_wrong) == (4, 0)
    assert (paired.only_first, paired.only_second) == (2, 2)
    assert (paired.p_value, paired.p_holm) == (1.0, 1.0)
    assert (found.data.rows, found.data.positives, found.min_f1) == (8, 4, 0.7)
    codes = [warning.code for warning in found.warnings]
    assert codes == ["choosing_on_test", "small_group", "small_group"]


def test_a_cap_on_a_group_of_other_splits_is_inconclusive_and_has_no_excess(make_predictions):
    entries = models(make_predictions, [1, 0], [[1, 0], [1, 1]], ["a", "a"])
    caps = [Cap("b", "fpr", 0.1), Cap("c", "fpr", 0.1)]
    found = made(entries, caps=caps, dataset_groups={"b"})
    one, two = found.entries
    assert [cap.verdict for cap in one.caps] == ["inconclusive", "not_applicable"]
    assert (one.worst_excess.value, one.worst_excess.group) == (None, None)
    assert (one.pareto, two.pareto) == (True, False)  # by F1 alone


def test_figures_that_cannot_be_had_are_null_with_the_reason(make_predictions):
    entries = models(make_predictions, [0, 0], [[0, 0], [0, 1]])
    found = made(entries, split="validation")
    assert found.entries[0].f1.value is None
    assert found.entries[0].f1.reason
    assert [one.pareto for one in found.entries] == [False, False]
    assert [warning.code for warning in found.warnings] == ["one_class"]


# -- the same rows for all ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"ids": ["r0", "x", "r2"]}, r"m1 .*as m0: the ids differ, first in row 1 \('x' instead"),
        ({"labels": ["hate", "hate", "hate"]}, "m1 .*the labels differ, first in row 2"),
        ({"groups": ["a", None, None]}, "m1 .*the groups differ, first in row 0"),
    ],
)
def test_other_rows_are_refused_by_name(make_predictions, change, words):
    same = {"labels": ["hate", "hate", "normal"], "predictions": ["hate", "hate", "normal"]}
    entries = [
        entry("m0", make_predictions(**same)),
        entry("m1", make_predictions(**same | change)),
    ]
    with pytest.raises(ValueError, match=words):
        made(entries)


def test_fewer_rows_one_model_and_the_same_name_are_refused(make_predictions):
    one = entry("m0", make_predictions(["hate", "normal"], ["hate", "normal"]))
    less = entry("m1", make_predictions(["hate"], ["hate"]))
    with pytest.raises(ValueError, match="m1 does not have the same rows as m0: 1 instead of 2"):
        made([one, less])
    with pytest.raises(ValueError, match="at least two"):
        made([one])
    with pytest.raises(ValueError, match="m0 is named twice"):
        made([one, one])
    with pytest.raises(ValueError, match="confidence"):
        made([one, entry("m1", one.predictions)], confidence=1.0)
