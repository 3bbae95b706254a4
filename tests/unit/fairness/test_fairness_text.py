import io
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from service.fairness import ReportMeta, label_counts, render_text
from service.fairness.text import print_report
from tests.support.built_reports import build

META = ReportMeta(
    run_id="run_1", base_model="tiny", template="simple", split="test", checkpoint_step=6
)


@pytest.fixture(scope="module")
def report(make_predictions):
    random = np.random.default_rng(5)
    labels, before, after = (random.choice(["hate", "normal"], 90).tolist() for _ in range(3))
    groups = [
        None,
        *random.choice(["lgbtq", "mexican"], 88).tolist(),
        "a_group_of_a_very_long_name",
    ]
    caps = [
        SimpleNamespace(group=group, metric=metric, max=maximum)
        for group, metric, maximum in [
            ("lgbtq", "fpr", 0.9),
            ("mexican", "fpr", 0.05),
            ("mexican", "fnr", 0.48),
            ("nobody", "fpr", 0.1),
        ]
    ]
    validation = make_predictions(
        labels, after, groups, random.random(90).tolist(), split="validation"
    )
    return build(
        make_predictions(labels, after, groups, random.random(90).tolist()),
        validation=validation,
        base=make_predictions(labels, before, groups, random.random(90).tolist()),
        meta=META,
        train_counts=label_counts(labels, groups),
        caps=caps,
        min_f1=0.615,
    )


def cells(text, name, section=None):
    """Return the cells of the first row of a section that starts with `name`."""
    lines = text.splitlines()
    start = next(i for i, line in enumerate(lines) if section is None or section in line)
    return next(line.split() for line in lines[start + 1 :] if line.startswith(f" {name} "))


def test_every_line_fits_and_has_no_trailing_blanks(report):
    text = render_text(report)
    lines = text.splitlines()
    assert text.endswith("\n")
    assert max(len(line) for line in lines) <= 100
    assert all(line == line.rstrip() for line in lines)
    assert render_text(report) == text


def test_metrics_of_the_report_are_in_it(report):
    text = render_text(report)
    overall = report.overall
    f1 = overall.tuned.f1
    assert cells(text, "F1") == [
        "F1",
        f"{overall.base.f1.value:.3f}",
        f"{f1.value:.3f}",
        f"{overall.difference.f1.value:+.3f}",
        *f"{f1.lower:.3f} to {f1.upper:.3f}".split(),
        f"{report.baselines.always_positive.f1.value:.3f}",
        f"{report.baselines.group_majority.f1.value:.3f}",
    ]
    for group in report.groups:
        for rate in (group.tuned.fpr, group.base.fnr):
            if rate.value is not None:
                assert f"{rate.value * 100:.1f}% " in text
                assert f"{rate.lower * 100:.1f}% to {rate.upper * 100:.1f}%" in text
    assert "run run_1" in text.splitlines()[0]
    assert "checkpoint at step 6" in text.splitlines()[2]
    assert "n/a" in text
    assert "a_group_of_a_very_lon…*" in text
    small = [group for group in report.groups if group.small_sample]
    assert ("* fewer than 30 negatives" in text) == any(0 < g.negatives < 30 for g in small)
    assert ("* fewer than 30 positives" in text) == any(0 < g.positives < 30 for g in small)


def test_caps_have_their_verdict_and_what_would_settle_it(report):
    verdicts = {(cap.group, cap.metric): cap for cap in report.caps}
    assert [cap.verdict for cap in verdicts.values()] == [
        "pass",
        "fail",
        "inconclusive",
        "not_applicable",
    ]
    text = " ".join(render_text(report).split())
    assert "lgbtq FPR under 90.0% PASS" in text
    assert "mexican FPR under 5.0% FAIL" in text
    undecided = verdicts["mexican", "fnr"]
    needed = f"mexican FNR: {undecided.needed_further:,} more positives at this rate would make the"
    assert f"{needed} verdict {undecided.would_settle}." in text
    assert "nobody FPR under 10.0% NOT APPLICABLE n/a" in text
    assert "nobody FPR: the data has no group 'nobody'." in text
    assert "all caps FAIL" in text
    assert "all rows F1 at least 0.615 NOT MET" in text


def test_thresholds_parity_pairs_and_success_are_in_it(report):
    text = render_text(report)
    words = " ".join(text.split())
    argmax, fitted = report.thresholds
    assert f"argmax {argmax.overall.f1.value:.3f} {argmax.overall.fpr.value:.3f}" in words
    verdict = fitted.caps_verdict.upper().replace("_", " ")
    row = " ".join(cells(text, "fitted"))
    assert row.startswith(f"fitted {fitted.threshold:.4f} {fitted.overall.f1.value:.3f}")
    assert row.endswith(verdict)
    assert "fitted on 90 rows of the validation split, where its F1 is " in words
    assert f"where its F1 is {fitted.fit.f1:.3f}." in words
    odds = report.parity.tuned.equalized_odds
    assert f"{odds.value:.3f} {odds.lower:.3f} to {odds.upper:.3f}" in words
    assert "a_group_of_… lgbtq" in words
    test = report.before_after.overall
    assert cells(text, "all rows", "row by row")[2:5] == [
        f"{test.rows}",
        f"{test.only_first}",
        f"{test.only_second}",
    ]
    assert cells(text, "a_group_of_a_very_lon…", "row by row")[-1] == "1.000"
    f1 = report.overall.tuned.f1
    assert f"Success criterion: NOT MET. F1 is {f1.value:.3f} with simple" in words


def test_small_p_values_are_not_rounded_to_0(make_predictions):
    labels = ["hate"] * 40
    report = build(
        make_predictions(labels, labels),
        base=make_predictions(labels, ["normal"] * 40),
    )
    assert cells(render_text(report), "all rows", "row by row")[-1] == "1.8e-12"


def test_without_base_caps_or_groups_those_sections_are_absent(make_predictions):
    text = render_text(build(make_predictions(["hate", "normal"], ["hate", "normal"])))
    words = " ".join(text.split())
    assert " base " not in text
    assert "Verdicts on caps" not in text
    assert "False-positive" not in text
    assert "No row has a group" in text
    assert "Differences between groups" not in text
    assert "Success criterion" not in text
    assert "fitted n/a" in words
    assert "No threshold was fitted: there are no labelled validation predictions" in words


def test_names_from_the_data_cannot_control_the_terminal(make_predictions):
    hostile = build(
        make_predictions(["hate"], ["hate"], ["\x1b[2Jgone\nline"]),
        meta=META.model_copy(update={"base_model": "m\x1b]0;title\x07[red]"}),
    )
    text = render_text(hostile)
    assert "\x1b" not in text
    assert "\x07" not in text
    assert "?[2Jgone?line" in text
    assert "title?[red]" in text  # rich's markup stays text


def test_without_unicode_the_lines_are_ascii(report):
    text = render_text(report, "ascii")
    assert text.isascii()
    assert "?" not in text
    assert "a_group_of_a_very_l...*" in text


def test_only_a_terminal_gets_colour(report, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    terminal, pipe = Terminal(), io.StringIO()
    print_report(report, terminal)
    print_report(report, pipe)
    assert "\x1b[32mPASS" in terminal.getvalue()
    assert "\x1b" not in pipe.getvalue()
    assert [line.rstrip() for line in pipe.getvalue().splitlines()] == (
        render_text(report).splitlines()
    )


def test_importing_the_report_does_not_load_rich():
    code = "import sys, service.fairness; print('rich' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
