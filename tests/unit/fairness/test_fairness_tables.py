import csv
import io

import pytest

from service.fairness import label_counts
from service.fairness.tables import bias_csv, performance_csv
from tests.support.built_reports import META, build

COUNTS = ["true_positive", "true_negative", "false_positive", "false_negative"]


def read(text):
    assert text.endswith("\r\n")
    return list(csv.DictReader(io.StringIO(text, newline="")))


@pytest.fixture(scope="module")
def report(make_predictions):
    """Group a: two positives, two negatives. Group b: one positive. One negative without group."""
    labels = ["hate", "hate", "normal", "normal", "hate", "normal"]
    groups = ["a", "a", "a", "a", "b", None]
    scores = [0.9, 0.4, 0.6, 0.1, 0.8, 0.2]
    called = ["hate" if score >= 0.5 else "normal" for score in scores]
    return build(
        make_predictions(labels, called, groups, scores),
        base=make_predictions(labels, ["hate"] * 6, groups),
        validation=make_predictions(["normal", "hate"], ["hate"] * 2, scores=[0.6, 0.7]),
        train_counts=label_counts(["normal", "hate"], ["a", "b"]),
    )


def test_performance_in_the_originals_columns(report):
    text = performance_csv(report)
    assert text.splitlines()[0] == (
        "strategy,accuracy,precision,recall,f1_score,true_positive,true_negative,false_positive,"
        "false_negative,a_fpr,a_fnr,a_samples,b_fpr,b_fnr,b_samples"
    )
    lines = {line["strategy"]: line for line in read(text)}
    assert list(lines) == ["tuned", "tuned_fitted", "base", "always_positive", "group_majority"]
    tuned = lines["tuned"]
    assert [tuned[name] for name in COUNTS] == ["2", "2", "1", "1"]
    assert float(tuned["accuracy"]) == pytest.approx(4 / 6)
    assert float(tuned["f1_score"]) == pytest.approx(2 / 3)
    assert (tuned["a_fpr"], tuned["a_fnr"], tuned["a_samples"]) == ("0.5", "0.5", "4")
    assert (tuned["b_fpr"], tuned["b_fnr"], tuned["b_samples"]) == ("", "0.0", "1")
    # At 0.65 the negative at 0.6 is called right.
    fitted = lines["tuned_fitted"]
    assert [fitted[name] for name in COUNTS] == ["2", "3", "0", "1"]
    assert (fitted["a_fpr"], fitted["a_fnr"]) == ("0.0", "0.5")
    assert [lines["base"][name] for name in COUNTS] == ["3", "0", "3", "0"]
    assert lines["always_positive"]["a_fpr"] == "1.0"
    # a's rows are called negative, b's positive, the one without a group by the tie: positive.
    majority = lines["group_majority"]
    assert [majority[name] for name in COUNTS] == ["1", "2", "1", "2"]
    assert (majority["a_fpr"], majority["a_fnr"], majority["b_fnr"]) == ("0.0", "1.0", "0.0")


def test_bias_in_the_originals_columns(report):
    text = bias_csv(report)
    assert text.splitlines()[0] == (
        "strategy,persona_tag,sample_count,false_positive_rate,false_negative_rate,true_positive,"
        "true_negative,false_positive,false_negative"
    )
    assert "tuned,a,4,0.5,0.5,1,1,1,1" in text.splitlines()
    assert "tuned,b,1,,0.0,1,0,0,0" in text.splitlines()
    assert "tuned_fitted,a,4,0.0,0.5,1,2,0,1" in text.splitlines()
    assert "base,a,4,1.0,0.0,2,0,2,0" in text.splitlines()
    assert "always_positive,b,1,,0.0,1,0,0,0" in text.splitlines()
    assert "group_majority,a,4,0.0,1.0,0,2,0,2" in text.splitlines()
    assert len(text.splitlines()) == 1 + 5 * 2


def test_what_there_is_no_figure_of_is_empty_or_absent(make_predictions):
    made = make_predictions(["normal", "normal"], ["normal", "normal"], ["a", "a"])
    report = build(made)
    lines = {line["strategy"]: line for line in read(performance_csv(report))}
    assert list(lines) == ["tuned", "always_positive", "group_majority"]
    assert (lines["tuned"]["f1_score"], lines["tuned"]["accuracy"]) == ("", "1.0")
    majority = lines["group_majority"]
    assert [majority[name] for name in ("accuracy", *COUNTS, "a_fpr", "a_samples")] == [
        *[""] * 6,
        "2",
    ]
    assert "group_majority,a,2,,,,,," in bias_csv(report)


def test_tuned_is_by_argmax_whatever_the_headline_and_a_given_threshold_has_its_line(
    make_predictions,
):
    made = make_predictions(["hate", "normal"], ["hate", "hate"], scores=[0.9, 0.6])
    given = META.model_copy(update={"threshold": "given"})
    report = build(made, meta=given, threshold=0.7)
    lines = {line["strategy"]: line for line in read(performance_csv(report))}
    assert lines["tuned"]["false_positive"] == "1"
    assert lines["tuned_given"]["false_positive"] == "0"


@pytest.mark.parametrize("name", ["=1+1", "+1", "-1", "@SUM(A1)", "\tx", "\rx"])
def test_no_name_runs_as_a_formula(make_predictions, name):
    made = make_predictions(["hate", "normal"], ["hate", "normal"], [name, name])
    report = build(made)
    lines = list(csv.reader(io.StringIO(bias_csv(report), newline="")))
    assert {line[1] for line in lines[1:]} == {f"'{name}"}
    header = next(csv.reader(io.StringIO(performance_csv(report), newline="")))
    assert f"'{name}_fpr" in header


def test_a_name_with_commas_quotes_and_line_ends_stays_one_cell(make_predictions):
    name = 'a,"b"\nc\rd'
    made = make_predictions(["hate", "normal"], ["hate", "normal"], [name, name])
    report = build(made)
    assert {line["persona_tag"] for line in read(bias_csv(report))} == {name}
