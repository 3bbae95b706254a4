from types import SimpleNamespace

import numpy as np
import pytest

from service.fairness import ReportMeta, label_counts, render_text
from tests.support.built_reports import build

META = ReportMeta(
    run_id="run_1", base_model="tiny", template="simple", split="test", checkpoint_step=6
)


@pytest.fixture(scope="module")
def report(make_predictions):
    drawn = np.random.default_rng(5)
    labels, before, after = (drawn.choice(["hate", "normal"], 90).tolist() for _ in range(3))
    groups = [None, *drawn.choice(["lgbtq", "mexican"], 88).tolist(), "a_group_of_a_very_long_name"]
    caps = [
        SimpleNamespace(group=group, metric=metric, max=maximum)
        for group, metric, maximum in [
            ("lgbtq", "fpr", 0.9),
            ("mexican", "fpr", 0.05),
            ("mexican", "fnr", 0.48),
            ("nobody", "fpr", 0.1),
        ]
    ]
    seen = make_predictions(labels, after, groups, drawn.random(90).tolist(), split="validation")
    return build(
        make_predictions(labels, after, groups, drawn.random(90).tolist()),
        validation=seen,
        base=make_predictions(labels, before, groups, drawn.random(90).tolist()),
        meta=META,
        train_counts=label_counts(labels, groups),
        caps=caps,
        min_f1=0.615,
    )


def test_every_line_fits_and_ends_where_its_text_does(report):
    text = render_text(report)
    lines = text.splitlines()
    assert text.endswith("\n")
    assert max(len(line) for line in lines) <= 100
    assert all(line == line.rstrip() for line in lines)


def test_the_figures_of_the_report_are_in_it(report):
    text = render_text(report)
    lines = text.splitlines()
    f1 = next(line.split() for line in lines if line.startswith("  F1 "))
    overall = report.overall
    assert f1 == [
        "F1",
        f"{overall.base.f1.value:.3f}",
        "→",
        f"{overall.tuned.f1.value:.3f}",
        f"{overall.difference.f1.value:+.3f}",
        f"{report.baselines.always_positive.f1.value:.3f}",
        f"{report.baselines.group_majority.f1.value:.3f}",
    ]
    for group in report.groups:
        for rate in (group.tuned.fpr, group.base.fnr):
            if rate.value is not None:
                assert f"{rate.value * 100:.1f}% [" in text
                assert f"{rate.upper * 100:5.1f}%]" in text
    assert "run run_1" in lines[0]
    assert "checkpoint at step 6" in lines[2]
    assert "n/a" in text
    assert "a_group_of_a_ve…" in text


def test_caps_say_their_verdict_and_what_they_need(report):
    verdicts = {(each.group, each.metric): each for each in report.caps}
    assert [each.verdict for each in verdicts.values()] == [
        "pass",
        "fail",
        "inconclusive",
        "not_applicable",
    ]
    text = " ".join(render_text(report).split())
    assert "lgbtq FPR under 90.0% PASS" in text
    assert "mexican FPR under 5.0% FAIL" in text
    undecided = verdicts["mexican", "fnr"]
    needed = f"{undecided.needed_further:,} more positives at this rate would make it"
    assert f"{needed} {undecided.would_settle}" in text
    assert "nobody FPR under 10.0% NOT APPLICABLE the data has no group 'nobody'" in text
    assert "all caps FAIL" in text
    assert "F1 at least 0.615 NOT MET" in text


def test_thresholds_parity_pairs_and_success_are_in_it(report):
    lines = render_text(report).splitlines()
    text = " ".join(" ".join(lines).split())
    argmax, fitted = report.thresholds
    assert f"argmax {argmax.overall.f1.value:.3f} {argmax.overall.fpr.value:.3f}" in text
    at = f"fitted {fitted.threshold:.4f} {fitted.overall.f1.value:.3f}"
    assert at in text
    verdict = next(line for line in lines if line.startswith("  fitted"))
    assert verdict.endswith(fitted.caps_verdict.upper().replace("_", " "))
    assert f"fitted on validation, 90 rows: F1 {fitted.fit.f1:.3f}" in text
    odds = report.parity.tuned.equalized_odds
    assert f"→ {odds.value:.3f} [{odds.lower:.3f}, {odds.upper:.3f}]" in text
    assert "a_group_…" in text
    test = report.before_after.overall
    assert f"{test.only_second} rows right only after training, {test.only_first} only" in text
    assert "by group, Holm: a_group_of_a_ve… p = 1.000, lgbtq p = " in text
    f1 = report.overall.tuned.f1
    assert f"success criterion NOT MET: F1 {f1.value:.3f} with simple" in text
    assert f"bootstrap intervals: F1 [{f1.lower:.3f}, {f1.upper:.3f}], AUC [" in text


def test_small_p_values_are_not_rounded_to_0(make_predictions):
    labels = ["hate"] * 40
    report = build(
        make_predictions(labels, labels),
        base=make_predictions(labels, ["normal"] * 40),
    )
    assert "p = 1.8e-12" in render_text(report)


def test_without_base_caps_or_groups_only_what_there_is(make_predictions):
    alone = build(make_predictions(["hate", "normal"], ["hate", "normal"]))
    text = render_text(alone)
    assert "→" not in text
    assert "Caps" not in text
    assert "False-positive" not in text
    assert "No row has a group" in text
    assert "Between groups" not in text
    assert "Did training help" not in text
    assert "fitted n/a there are no labelled validation predictions" in " ".join(text.split())


def test_names_from_the_data_cannot_steer_the_terminal(make_predictions):
    hostile = build(
        make_predictions(["hate"], ["hate"], ["\x1b[2Jgone\nline"]),
        meta=META.model_copy(update={"base_model": "m\x1b]0;title\x07"}),
    )
    text = render_text(hostile)
    assert "\x1b" not in text
    assert "\x07" not in text
    assert "?[2Jgone?line" in text
