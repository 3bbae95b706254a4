from types import SimpleNamespace

import pytest

from service.fairness.schema import ReportWarning, Shown
from service.fairness.schema_base import DRAWS_AGREE, NO_INTERVAL_COMPUTED, RateEstimate
from service.fairness.schema_curves import FormatSample
from tests.support.built_reports import META, build


def report_on(predictions, rule="argmax", **more):
    meta = META.model_copy(update={"threshold": rule})
    return build(predictions, **({"meta": meta} | more))


def cap(group, metric, maximum):
    return SimpleNamespace(group=group, metric=metric, max=maximum)


def warnings(report):
    return {warning.code: warning.detail for warning in report.warnings}


@pytest.fixture(scope="module")
def tuned(make_predictions):
    """Argmax calls the negative at 0.6 positive; from 0.65 on everything is right."""
    return make_predictions(
        ["hate", "hate", "normal", "normal"],
        ["hate", "hate", "hate", "normal"],
        ["a", "b", "a", "b"],
        [0.9, 0.7, 0.6, 0.1],
    )


@pytest.fixture(scope="module")
def validation(make_predictions):
    return make_predictions(
        ["hate", "normal"], ["hate", "hate"], ["a", "a"], [0.7, 0.6], split="validation"
    )


def test_every_rule_has_its_figures_and_verdicts(tuned, validation):
    caps = [cap("a", "fpr", 0.99)]
    report = report_on(tuned, "given", threshold=0.8, validation=validation, caps=caps, min_f1=0.9)
    argmax, fitted, given = report.thresholds
    assert [argmax.rule, fitted.rule, given.rule] == ["argmax", "fitted", "given"]
    assert (argmax.threshold, given.threshold) == (None, 0.8)
    assert fitted.threshold == pytest.approx(0.65)
    assert (fitted.fit.split, fitted.fit.rows, fitted.fit.f1) == ("validation", 2, 1)
    assert (argmax.fit, given.fit) == (None, None)
    found = [each.overall.confusion.model_dump() for each in (argmax, fitted, given)]
    assert [(each["false_positive"], each["false_negative"]) for each in found] == [
        (1, 0),
        (0, 0),
        (0, 1),
    ]
    assert [each.groups[0].fpr.value for each in (argmax, fitted, given)] == [1, 0, 0]
    assert [each.groups[1].fnr.value for each in (argmax, fitted, given)] == [0, 0, 1]
    assert [each.caps[0].numerator for each in (argmax, fitted, given)] == [1, 0, 0]
    assert [each.min_f1.verdict for each in (argmax, fitted, given)] == [
        "not_met",
        "met",
        "not_met",
    ]
    assert fitted.overall.auc == argmax.overall.auc == report.overall.tuned.auc


@pytest.mark.parametrize(
    ("rule", "wrong", "threshold"), [("argmax", 1, None), ("fitted", 0, 0.65), ("given", 2, 0.05)]
)
def test_the_headline_is_by_the_rule_of_the_meta_and_the_base_by_argmax(
    tuned, validation, rule, wrong, threshold
):
    report = report_on(
        tuned,
        rule,
        base=tuned,
        validation=validation,
        threshold=0.05 if rule == "given" else None,
        caps=[cap("a", "fpr", 0.5)],
        min_f1=0.5,
    )
    assert report.overall.tuned.confusion.false_positive == wrong
    assert report.overall.base.confusion.false_positive == 1
    assert report.settings.threshold == (None if threshold is None else pytest.approx(threshold))
    (headline,) = [each for each in report.thresholds if each.rule == rule]
    assert headline.overall == report.overall.tuned
    assert (headline.caps, headline.min_f1) == (report.caps, report.min_f1)
    assert [each.fpr for each in headline.groups] == [each.tuned.fpr for each in report.groups]
    assert report.before_after.overall.only_first == max(0, wrong - 1)


def test_without_validation_nothing_is_fitted_and_it_says_so(tuned):
    report = report_on(tuned, caps=[cap("a", "fpr", 0.5)], min_f1=0.5)
    _, fitted = report.thresholds
    assert (fitted.rule, fitted.threshold, fitted.fit, fitted.groups) == ("fitted", None, None, ())
    assert fitted.reason == "there are no labelled validation predictions to fit a threshold on"
    assert (fitted.overall.f1.value, fitted.overall.f1.reason) == (None, fitted.reason)
    assert (fitted.caps_verdict, fitted.min_f1.verdict) == ("not_applicable", None)
    assert warnings(report)["threshold_not_fitted"].startswith("No threshold was fitted: there")


@pytest.mark.parametrize(
    ("rule", "threshold", "message"),
    [
        ("fitted", None, "meta.threshold is 'fitted', but there are no validation predictions"),
        ("given", None, "meta.threshold is 'given', but threshold is None"),
        ("argmax", 0.5, "meta.threshold is 'argmax', but threshold is 0.5"),
        ("given", 1.5, r"threshold must be in \[0, 1\], not 1.5"),
        ("given", float("nan"), r"threshold must be in \[0, 1\], not nan"),
    ],
)
def test_a_rule_without_what_it_needs_is_refused(tuned, rule, threshold, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        report_on(tuned, rule, threshold=threshold)


def test_validation_predictions_of_another_step_are_refused(tuned, make_predictions):
    other = make_predictions(["hate"], ["hate"], checkpoint_step=3)
    with pytest.raises(ValueError, match="predictions are of step 3, but meta"):
        report_on(tuned, validation=other)


def test_a_row_on_the_given_threshold_is_called_positive(tuned):
    report = report_on(tuned, "given", threshold=0.6)
    assert report.overall.tuned.confusion.false_positive == 1


def test_success_is_to_beat_the_base_model_and_reach_the_least_f1(tuned, make_predictions):
    never = make_predictions(tuned.labels, ["normal"] * 4, tuned.groups)
    always = make_predictions(tuned.labels, ["hate"] * 4, tuned.groups)
    perfect = make_predictions(tuned.labels, tuned.labels, tuned.groups)

    def success(**more):
        return report_on(tuned, **more).success

    beats = success(base=always, min_f1=0.8)  # F1 0.8 against 2/3
    assert (beats.verdict, beats.base_template, beats.tuned_template) == ("met", *["simple"] * 2)
    assert beats.difference == pytest.approx(0.8 - 2 / 3)
    assert success(base=always, min_f1=0.81).verdict == "not_met"
    assert success(base=perfect, min_f1=0.5).verdict == "not_met"
    assert success(base=tuned).verdict == "not_met"
    assert success(base=never).verdict == "met"
    alone = success(min_f1=0.8)
    assert (alone.verdict, alone.reason) == (None, "the base model was not scored")
    assert (alone.base_template, alone.difference) == (None, None)
    assert success(min_f1=0.81).verdict == "not_met"
    empty = make_predictions(["normal"], ["normal"])
    assert report_on(empty, base=empty).success.reason.startswith("tuned: no positive rows")


def test_the_base_models_own_template_is_named(tuned):
    meta = META.model_copy(update={"base_template": "policy"})
    assert report_on(tuned, base=tuned, meta=meta).success.base_template == "policy"


def test_warnings_about_what_the_model_read_and_wrote(tuned):
    rate = RateEstimate(value=0.25, numerator=1, denominator=4, lower=0, upper=1)
    shown = Shown(system=None, user="$group: $text", completion="$label", group=True, truncated=2)
    sample = FormatSample(rows=4, outside=rate, disagree=rate, examples=("well",))
    given = ReportWarning(code="shared_rows", detail="3 rows are in train and test.")
    report = report_on(tuned, shown=shown, format_sample=sample, dataset_warnings=[given])
    found = warnings(report)
    assert found["group_shown"] == "The prompt states each row's group."
    assert found["rows_truncated"].startswith("The end of the text was cut off in 2 rows")
    assert found["answers_outside_format"].startswith(
        "1 of 4 freely generated answers was not a label"
    )
    assert report.warnings[-1] == given
    assert (report.shown, report.format_sample) == (shown, sample)
    clean = shown.model_copy(update={"group": False, "truncated": 0})
    none = sample.model_copy(update={"outside": rate.model_copy(update={"numerator": 0})})
    assert not {"group_shown", "rows_truncated", "answers_outside_format"} & set(
        warnings(report_on(tuned, shown=clean, format_sample=none))
    )


def test_a_figure_without_an_interval_says_why(tuned, make_predictions):
    perfect = make_predictions(tuned.labels, tuned.labels, tuned.groups)
    overall = report_on(perfect).overall.tuned
    assert (overall.f1.value, overall.f1.lower) == (1, None)
    assert overall.f1.interval_reason == DRAWS_AGREE
    report = report_on(tuned, base=perfect)
    assert report.overall.difference.f1.interval_reason == NO_INTERVAL_COMPUTED
    for group in report.groups:
        for area in (group.auc.subgroup, group.auc.bpsn, group.auc.bnsp):
            assert (area.interval_reason is None) == (area.value is None)
    for figure in (report.overall.tuned.f1, report.overall.tuned.auc):
        assert (figure.lower is None) == (figure.interval_reason is not None)


def test_an_f1_that_calling_every_row_positive_reaches_is_warned_of(tuned, make_predictions):
    assert "below_baseline" not in warnings(report_on(tuned))
    always = make_predictions(tuned.labels, ["hate"] * 4)
    found = warnings(report_on(always))
    assert "F1 is 0.6667, which is not above the 0.6667" in found["below_baseline"]
    assert found["one_prediction"] == "The model predicts 'hate' for every row."
    never = make_predictions(tuned.labels, ["normal"] * 4)
    assert warnings(report_on(never))["one_prediction"] == "The model never predicts 'hate'."


def test_warnings_about_the_fit(tuned, validation, make_predictions):
    caps = [cap("a", "fpr", 0.0), cap("b", "fpr", 0.1), cap("nobody", "fnr", 0.1)]
    found = warnings(report_on(tuned, validation=validation, caps=caps))
    assert "The validation split has no negative rows of b" in found["cap_not_in_validation"]
    assert not {"fit_infeasible", "fit_without_positives", "threshold_fitted_here"} & set(found)
    both = [cap("a", "fpr", 0.0), cap("a", "fnr", 0.0)]
    crossed = make_predictions(["hate", "normal"], ["hate"] * 2, ["a", "a"], [0.6, 0.7])
    found = warnings(report_on(tuned, validation=crossed, caps=both))
    assert "has the smallest total violation, 1.0000" in found["fit_infeasible"]
    here = make_predictions(["normal"], ["normal"], split="test")
    found = warnings(report_on(tuned, validation=here))
    assert (
        "fitted on the test split, which is also the split of this report"
        in found["threshold_fitted_here"]
    )
    assert "no 'hate' rows" in found["fit_without_positives"]
