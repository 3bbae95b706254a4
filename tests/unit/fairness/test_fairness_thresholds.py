import math
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from service.fairness.thresholds import called_at, candidates, decide, fit_threshold


def cap(group="a", metric="fpr", maximum=0.1):
    return SimpleNamespace(group=group, metric=metric, max=maximum)


NEXT_TO_ONE = math.nextafter(1, 0)
SCORE = st.sampled_from([0.0, 0.25, 0.5, 0.75, NEXT_TO_ONE, 1.0]) | st.floats(0, 1)
ROW = st.tuples(st.sampled_from(["hate", "normal", "offensive"]), SCORE, st.sampled_from("abc"))
ROWS = st.lists(ROW, min_size=1, max_size=14)
CAPS = st.lists(
    st.builds(
        cap, st.sampled_from("abd"), st.sampled_from(["fpr", "fnr"]), st.sampled_from([0, 0.3, 0.5])
    ),
    max_size=3,
)


def predicted(make_predictions, rows, **more):
    labels, scores, groups = zip(*rows, strict=True)
    return make_predictions(labels, ["normal"] * len(rows), groups, scores, **more)


def figures(rows, called, caps, min_f1):
    """F1 (None: cannot be computed) and violation, counted row by row."""
    truth = [label == "hate" for label, _, _ in rows]
    hits = sum(a and b for a, b in zip(truth, called, strict=True))
    either = sum(truth) + sum(called)
    f1 = 2 * hits / either if any(truth) else None
    violation = 0.0
    for each in caps:
        wrong = [
            call == (each.metric == "fpr")
            for is_hate, call, (_, _, group) in zip(truth, called, rows, strict=True)
            if group == each.group and is_hate == (each.metric == "fnr")
        ]
        if wrong:
            violation += max(0, sum(wrong) / len(wrong) - each.max)
    if min_f1 is not None:
        violation += max(0, min_f1 - (f1 or 0))
    return f1, violation


@settings(deadline=None, max_examples=300)
@given(ROWS, CAPS, st.sampled_from([None, 0.4, 0.9]))
@example([("hate", 1.0, "a"), ("normal", 1.0, "a")], [cap(maximum=0.0)], None)
@example([("normal", 0.5, "a")], [], 0.4)
def test_the_fitted_threshold_is_the_best_of_all(make_predictions, rows, caps, min_f1):
    """Against every set of rows that a threshold can call positive, tried one by one."""
    threshold, fit = fit_threshold(predicted(make_predictions, rows), "hate", caps, min_f1)
    found = figures(rows, [score >= threshold for _, score, _ in rows], caps, min_f1)
    assert (fit.f1, fit.violation) == pytest.approx(found)
    assert fit.feasible == (fit.violation == 0)
    cuts = [*sorted({score for _, score, _ in rows}), 2.0]
    options = [figures(rows, [score >= cut for _, score, _ in rows], caps, min_f1) for cut in cuts]

    def rank(option):
        f1, violation = option
        return (violation, 1 if f1 is None else -f1)

    assert rank(found) == min(rank(option) for option in options)


@settings(deadline=None)
@given(st.lists(SCORE, min_size=1, max_size=20))
def test_candidates_cut_between_any_two_scores_and_at_both_ends(scores):
    distinct = sorted(set(scores))
    found = candidates(np.array(scores))
    assert len(found) == len(distinct) + 1
    calls = [tuple(score >= cut for score in distinct) for cut in found]
    assert calls == [
        (False,) * place + (True,) * (len(distinct) - place) for place in range(len(distinct) + 1)
    ]


def test_by_hand(make_predictions):
    rows = [("hate", 0.9, "a"), ("hate", 0.6, "a"), ("normal", 0.7, "a"), ("normal", 0.2, "b")]
    predictions = predicted(make_predictions, rows, split="validation")
    threshold, fit = fit_threshold(predictions, "hate")
    assert threshold == pytest.approx(0.4)
    assert (fit.split, fit.rows) == ("validation", 4)
    assert (fit.f1, fit.feasible, fit.violation) == (0.8, True, 0)
    # No negative of a may be called positive: only 0.9 is left, F1 2/3.
    threshold, fit = fit_threshold(predictions, "hate", [cap("a", "fpr", 0.0)])
    assert threshold == pytest.approx(0.8)
    assert fit.f1 == pytest.approx(2 / 3)
    assert fit.feasible
    # Nor may a positive be missed: one of both by all or by half. Both by 0.5 are nowhere.
    both = [cap("a", "fpr", 0.0), cap("a", "fnr", 0.0)]
    threshold, fit = fit_threshold(predictions, "hate", both)
    assert threshold == pytest.approx(0.8)
    assert (fit.feasible, fit.violation) == (False, 0.5)


def test_a_rate_on_its_cap_holds_it(make_predictions):
    rows = [("hate", 0.9, "a")] + [("normal", 0.95, "a")] + [("normal", 0.1, "a")] * 9
    _, fit = fit_threshold(predicted(make_predictions, rows), "hate", [cap("a", "fpr", 0.1)])
    assert (fit.feasible, fit.f1) == (True, pytest.approx(2 / 3))


def test_f1_under_its_least_is_infeasible_by_what_it_lacks(make_predictions):
    rows = [("hate", 0.2, "a"), ("normal", 0.8, "a")]
    threshold, fit = fit_threshold(predicted(make_predictions, rows), "hate", [], 0.9)
    assert threshold == pytest.approx(0.1)
    assert (fit.feasible, fit.violation) == (False, pytest.approx(0.9 - 2 / 3))


def test_of_equal_thresholds_the_one_nearest_to_one_half_then_the_higher(make_predictions):
    # F1 is 1 for every cut between 0.1 and 0.9; there is one.
    rows = [("hate", 0.9, "a"), ("normal", 0.1, "a")]
    assert fit_threshold(predicted(make_predictions, rows), "hate")[0] == 0.5
    # F1 is 2/3 at 0.1 and at 0.95, 0.4 at 0.55: the first is 0.4 from one half, the other 0.45.
    rows = [("normal", 0.2, "a"), ("hate", 0.9, "a"), ("normal", 0.9, "a"), ("hate", 0.9, "a")]
    assert fit_threshold(predicted(make_predictions, rows), "hate")[0] == pytest.approx(0.55)
    # Without a positive row there is no F1, and 0.375 and 0.625 are equally near to one half.
    rows = [("normal", score, "a") for score in (0.25, 0.5, 0.75)]
    threshold, fit = fit_threshold(predicted(make_predictions, rows), "hate")
    assert (threshold, fit.f1) == (0.625, None)


def test_a_cap_on_a_group_without_such_rows_cannot_be_broken(make_predictions):
    predictions = predicted(make_predictions, [("hate", 0.9, "a"), ("normal", 0.1, "b")])
    caps = [cap("a", "fpr", 0.0), cap("b", "fnr", 0.0), cap("nobody", "fpr", 0.0)]
    assert fit_threshold(predictions, "hate", caps)[1].feasible


def test_a_million_rows_are_fitted_in_seconds(make_predictions):
    draw = np.random.default_rng(0)
    scores = draw.random(1_000_000)
    labels = np.where(draw.random(1_000_000) < scores, "hate", "normal").tolist()
    made = make_predictions(labels, labels, ["a"] * 1_000_000, scores.tolist())
    threshold, fit = fit_threshold(made, "hate", [cap("a", "fpr", 0.25)])
    # The share of negatives over t is (1 - t)^2: 0.25 at one half, where F1 is 3/4.
    assert threshold == pytest.approx(0.5, abs=0.01)
    assert fit.f1 == pytest.approx(0.75, abs=0.01)


def test_called_at_counts_scores_at_or_above():
    assert called_at(np.array([0.5, 0.2, 0.5]), np.array([0.0, 0.2, 0.5, 0.6])).tolist() == [
        3,
        3,
        2,
        0,
    ]


def test_a_row_on_the_threshold_is_called_positive(make_predictions):
    made = make_predictions(["hate"] * 3, ["hate"] * 3, scores=[0.4, 0.5, 0.6])
    decided = decide(
        make_predictions(["hate", "normal", "hate"], ["normal"] * 3, scores=made.scores),
        "hate",
        0.5,
    )
    assert decided.predictions == ("normal", "hate", "hate")
    assert decided.scores == made.scores


def test_below_the_threshold_the_most_probable_other_label_is_named(make_predictions):
    scores = {"hate": [0.6, 0.2, 0.6], "offensive": [0.1, 0.4, 0.2], "normal": [0.3, 0.4, 0.2]}
    made = make_predictions(
        ["hate"] * 3, ["hate", "normal", "hate"], scores=scores["hate"], label_scores=scores
    )
    assert decide(made, "hate", 0.7).predictions == ("normal", "normal", "normal")
    assert decide(made, "hate", 0.2).predictions == ("hate", "hate", "hate")


def test_without_label_scores_the_other_label_is_named_where_there_is_one(make_predictions):
    two = make_predictions(["hate", "normal"], ["hate", "hate"], scores=[0.6, 0.6])
    assert decide(two, "hate", 0.7).predictions == ("normal", "normal")
    three = make_predictions(["offensive", "normal"], ["hate", "offensive"], scores=[0.6, 0.1])
    assert decide(three, "hate", 0.7).predictions == ("not hate", "offensive")
