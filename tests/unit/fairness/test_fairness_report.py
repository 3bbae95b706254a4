import subprocess
import sys
import time
from types import SimpleNamespace

import fairlearn.metrics
import numpy as np
import pytest
import sklearn.metrics
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError
from statsmodels.stats.proportion import proportion_confint

from service.fairness import BiasReport, label_counts, schema
from service.fairness.support import Counts, describe_small, is_small_sample
from tests.support.built_reports import META, build


def cap(group, metric, maximum):
    return SimpleNamespace(group=group, metric=metric, max=maximum)


def codes(report):
    return [warning.code for warning in report.warnings]


@pytest.fixture(scope="module")
def table(make_predictions):
    """Group a: 10 negatives with 2 errors, 5 positives with 1. Group b: 4 positives, all right.
    One negative row without a group, wrong."""
    rows = [("a", "normal", "hate")] * 2 + [("a", "normal", "normal")] * 8
    rows += [("a", "hate", "normal")] + [("a", "hate", "hate")] * 4
    rows += [("b", "hate", "hate")] * 4 + [(None, "normal", "hate")]
    groups, labels, predictions = zip(*rows, strict=True)
    return make_predictions(labels, predictions, groups)


def test_a_small_table_by_hand(table):
    report = build(table, min_support=5, min_f1=0.8)
    assert report.schema_version == 2
    assert report.meta == META
    assert report.data.model_dump() == {
        "rows": 20,
        "positives": 9,
        "negatives": 11,
        "without_label": None,
        "without_group": 1,
        "labels": {"hate": 9, "normal": 11},
        "seen_in_training": None,
        "seen_in_validation": None,
    }
    assert report.unseen is None
    tuned = report.overall.tuned
    assert tuned.confusion.model_dump() == {
        "true_positive": 8,
        "true_negative": 8,
        "false_positive": 3,
        "false_negative": 1,
    }
    assert tuned.accuracy.value == 16 / 20
    assert tuned.precision.value == 8 / 11
    assert tuned.recall.value == 8 / 9
    assert tuned.f1.value == pytest.approx(16 / 20)
    a, b = report.groups
    assert (a.group, a.n, a.positives, a.negatives, a.small_sample) == ("a", 15, 5, 10, False)
    assert (a.tuned.fpr.value, a.tuned.fnr.value) == (2 / 10, 1 / 5)
    assert (b.group, b.n, b.positives, b.negatives, b.small_sample) == ("b", 4, 4, 0, True)
    assert (b.tuned.fpr.value, b.tuned.fpr.reason) == (None, "no negative rows")
    assert (b.tuned.fnr.value, b.tuned.accuracy.value) == (0, 1)
    assert report.min_f1.verdict == "met"
    assert codes(report) == ["rows_without_group", "small_group", "threshold_not_fitted"]


@pytest.mark.parametrize(
    ("min_support", "a", "b"),
    [
        (4, None, None),
        (5, None, "4 positives (FNR)"),
        (6, "5 positives (FNR)", "4 positives (FNR)"),
    ],
)
def test_a_small_sample_is_a_small_denominator(table, min_support, a, b):
    """a has 15 rows, of which 5 are positive; b has 4, none of them negative."""
    report = build(table, min_support=min_support)
    assert [group.small_sample for group in report.groups] == [a is not None, b is not None]
    small = [warning.detail for warning in report.warnings if warning.code == "small_group"]
    assert small == [
        f"{name} has {rates}, fewer than {min_support}."
        for name, rates in (("a", a), ("b", b))
        if rates is not None
    ]


@settings(deadline=None, max_examples=100)
@given(st.integers(0, 60), st.integers(0, 60), st.integers(1, 60))
def test_many_rows_of_one_class_do_not_make_the_other_rate_large(positives, negatives, least):
    small = is_small_sample(positives, negatives, least)
    assert small == any(0 < rows < least for rows in (positives, negatives))
    assert small == (describe_small("a", Counts(positives, negatives), least) is not None)


def test_without_a_base_model_there_is_no_before(table):
    report = build(table)
    assert (report.overall.base, report.overall.difference) == (None, None)
    assert [group.base for group in report.groups] == [None, None]


def test_the_base_model_stands_beside_the_tuned_one(table, make_predictions):
    base = make_predictions(table.labels, ["hate"] * 20, table.groups)
    report = build(table, base=base)
    assert report.overall.base.fpr.value == 1
    assert report.overall.difference.fpr.value == pytest.approx(3 / 11 - 1)
    assert report.groups[0].base.fpr.value == 1
    assert report.groups[0].tuned.fpr.value == 0.2


LABEL = st.sampled_from(["hate", "normal", "offensive"])
GROUP = st.sampled_from(["a", "b", "c", None])
ROWS = st.lists(st.tuples(LABEL, LABEL, GROUP), min_size=1, max_size=60)


@settings(deadline=None, max_examples=30)
@given(ROWS)
def test_groups_are_fairlearns_and_intervals_statsmodels(make_predictions, rows):
    report = build(make_predictions(*zip(*rows, strict=True)), confidence=0.9)
    grouped = [row for row in rows if row[2] is not None]
    assert [group.group for group in report.groups] == sorted({row[2] for row in grouped})
    if not grouped:
        return
    frame = fairlearn.metrics.MetricFrame(
        metrics={
            "n": fairlearn.metrics.count,
            "fpr": fairlearn.metrics.false_positive_rate,
            "fnr": fairlearn.metrics.false_negative_rate,
            "accuracy": sklearn.metrics.accuracy_score,
        },
        y_true=np.array([label == "hate" for label, _, _ in grouped]).astype(int),
        y_pred=np.array([called == "hate" for _, called, _ in grouped]).astype(int),
        sensitive_features=[group for _, _, group in grouped],
    )
    for group in report.groups:
        theirs = frame.by_group.loc[group.group]
        assert group.n == theirs["n"] == group.positives + group.negatives
        for name, denominator in {
            "fpr": group.negatives,
            "fnr": group.positives,
            "accuracy": group.n,
        }.items():
            ours = getattr(group.tuned, name)
            assert ours.denominator == denominator
            if denominator == 0:
                assert ours.value is None
                assert ours.reason
                continue
            assert ours.value == pytest.approx(theirs[name])
            assert (ours.lower, ours.upper) == pytest.approx(
                proportion_confint(ours.numerator, denominator, alpha=0.1, method="wilson")
            )


@settings(deadline=None, max_examples=15)
@given(ROWS, st.permutations(range(60)))
def test_the_order_of_rows_changes_nothing_and_the_same_input_gives_the_same(
    make_predictions, rows, order
):
    caps = [cap("a", "fpr", 0.3), cap("d", "fnr", 0.1)]

    def report(places):
        labels, called, groups = zip(*(rows[place] for place in places), strict=True)
        # Eighths: sums of them are exact in any order.
        scores = [place % 9 / 8 for place in places]
        ids = [f"r{place}" for place in places]
        made = make_predictions(labels, called, groups, scores, ids=ids, details=groups)
        return build(made, base=made, validation=made, caps=caps).model_dump_json()

    places = range(len(rows))
    assert report(places) == report(places)
    assert report(places) == report([place for place in order if place < len(rows)])


def test_trivial_baselines(table):
    train = label_counts(["hate", "normal", "normal", "hate"], ["a", "a", "a", "b"])
    baselines = build(table, train_counts=train).baselines
    always = baselines.always_positive
    assert always.f1.value == pytest.approx(2 * 9 / (2 * 9 + 11))
    assert always.fpr.value == 1
    assert always.auc.reason == "there are no scores"
    # a is mostly normal there, b hate, and the row without a group follows all rows' tie: hate.
    majority = baselines.group_majority.confusion
    assert (majority.true_positive, majority.false_positive) == (4, 1)
    assert (majority.true_negative, majority.false_negative) == (10, 5)


def test_a_group_majority_that_was_not_learned_is_null_with_its_reason(table):
    majority = build(table).baselines.group_majority
    assert majority.confusion is None
    for name in ("accuracy", "precision", "recall", "fpr", "fnr", "f1", "auc"):
        assert getattr(majority, name).value is None
        assert getattr(majority, name).reason == "the labels of the training split are not known"


def test_caps_are_judged_on_their_group_and_metric(table):
    caps = [
        cap("a", "fpr", 0.6),
        cap("a", "fnr", 0.01),
        cap("b", "fpr", 0.1),
        cap("seen_in_train", "fpr", 0.1),
        cap("nowhere", "fpr", 0.1),
    ]
    report = build(table, caps=caps, train_counts={"seen_in_train": {"hate": 1}})
    assert [(each.group, each.metric, each.verdict) for each in report.caps] == [
        ("a", "fpr", "pass"),
        ("a", "fnr", "fail"),
        ("b", "fpr", "inconclusive"),
        ("seen_in_train", "fpr", "inconclusive"),
        ("nowhere", "fpr", "not_applicable"),
    ]
    assert [each.observed for each in report.caps] == [0.2, 0.2, None, None, None]
    assert report.caps[0].denominator == 10
    assert report.caps[3].reason == "group 'seen_in_train': no labelled rows in this split"
    assert report.caps_verdict == "fail"
    assert "cap_not_applicable" in codes(report)


def test_caps_are_judged_on_the_tuned_model_alone(table, make_predictions):
    perfect = make_predictions(table.labels, table.labels, table.groups)
    report = build(perfect, base=table, caps=[cap("a", "fpr", 0.3)])
    assert report.caps[0].observed == 0


@pytest.mark.parametrize(("least", "verdict"), [(0.81, "not_met"), (0.8, "met"), (0.0, "met")])
def test_min_f1_is_held_against_the_point_value(table, least, verdict):
    held = build(table, min_f1=least).min_f1
    assert (held.min_f1, held.verdict) == (least, verdict)
    assert held.value == pytest.approx(0.8)


def test_min_f1_that_cannot_be_told(make_predictions):
    held = build(make_predictions(["normal"], ["normal"]), min_f1=0.5).min_f1
    assert (held.value, held.verdict) == (None, None)
    assert held.reason
    assert build(make_predictions(["normal"], ["normal"])).min_f1 is None


def test_one_row_of_one_label_is_reported_with_its_warnings(make_predictions):
    report = build(make_predictions(["hate"], ["hate"]))
    assert report.groups == ()
    assert report.caps_verdict == "not_applicable"
    assert report.overall.tuned.fpr.value is None
    assert codes(report) == [
        "one_class",
        "one_prediction",
        "below_baseline",
        "no_groups",
        "threshold_not_fitted",
    ]


def test_an_exploratory_report_says_so(table):
    assert "exploratory" not in codes(build(table))
    asked = META.model_copy(update={"exploratory": True})
    assert codes(build(table, meta=asked))[0] == "exploratory"
    differences = ["the split is train, not test", "min_f1 is none; the run's is 0.6"]
    report = build(table, meta=asked, differences=differences)
    assert report.warnings[0].detail == (
        "This report is exploratory and does not gate a release: the split is train, not test; "
        "min_f1 is none; the run's is 0.6."
    )


def test_a_base_on_other_rows_is_refused(table, make_predictions):
    with pytest.raises(ValueError, match="do not cover the same rows in the same order"):
        build(table, base=make_predictions(table.labels, table.predictions))


def test_predictions_that_say_another_origin_than_the_meta_are_refused(make_predictions):
    with pytest.raises(ValueError, match="predictions are of the split 'train', but meta"):
        build(make_predictions(["hate"], ["hate"], split="train"))
    with pytest.raises(ValueError, match="predictions are of step 3, but meta"):
        build(make_predictions(["hate"], ["hate"], checkpoint_step=3))


def test_a_confidence_without_meaning_is_refused(table):
    with pytest.raises(ValueError, match="confidence"):
        build(table, confidence=1.0)


def test_json_and_back(table):
    report = build(table, base=table, caps=[cap("a", "fpr", 0.3)], min_f1=0.6)
    again = BiasReport.model_validate_json(report.model_dump_json())
    assert again == report
    with pytest.raises(ValidationError, match="Extra inputs"):
        BiasReport.model_validate(report.model_dump() | {"verdict": "good"})
    with pytest.raises(ValidationError, match="frozen"):
        report.caps_verdict = "pass"


def test_a_figure_is_never_nan():
    with pytest.raises(ValidationError, match="finite"):
        schema.Estimate(value=float("nan"))


def test_every_field_of_the_form_is_described():
    models = [
        each
        for each in vars(schema).values()
        if isinstance(each, type) and issubclass(each, BaseModel) and each is not BaseModel
    ]
    assert len(models) > 10
    bare = [
        f"{model.__name__}.{name}"
        for model in models
        for name, field in model.model_fields.items()
        if not field.description
    ]
    assert bare == []


def test_importing_the_report_loads_no_numerical_library():
    code = (
        "import sys, service.fairness; "
        "print({'numpy', 'scipy', 'sklearn', 'torch', 'fastapi'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_a_thousand_rows_take_under_two_seconds_of_processor_time(make_predictions):
    drawn = np.random.default_rng(1)
    labels, answers = (drawn.choice(["hate", "normal"], 1000).tolist() for _ in range(2))
    groups = drawn.choice(["a", "b", "c", "d", "e"], 1000).tolist()
    scores = drawn.random(1000).tolist()
    made = make_predictions(labels, answers, groups, scores)
    caps = [cap(group, "fpr", 0.49) for group in "abcde"]
    train = label_counts(labels, groups)
    build(make_predictions(["hate"], ["hate"]))  # imports are not what is measured
    started = time.process_time()
    build(made, base=made, validation=made, caps=caps, train_counts=train)
    assert time.process_time() - started < 2
