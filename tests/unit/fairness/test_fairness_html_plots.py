"""Plots: where every mark lies, against coordinates worked out by hand."""

import re
from xml.etree import ElementTree

import pytest

from service.fairness.html import plots_bins, plots_lines, plots_plane, plots_rates, svg
from service.fairness.schema_base import Estimate, RateEstimate
from service.fairness.schema_curves import RocCurve, ScoreHistogram, Sweep
from service.fairness.schema_groups import Calibration, CalibrationBin
from service.fairness.schema_verdicts import CapVerdict


def rate(value, lower=None, upper=None):
    return RateEstimate(
        value=value, numerator=1, denominator=2, lower=lower, upper=upper, reason=None
    )


UNKNOWN = RateEstimate(
    value=None, numerator=0, denominator=0, lower=None, upper=None, reason="no rows"
)


def cap(limit=0.4, observed=0.1, lower=0.05, upper=0.2, metric="fpr"):
    return CapVerdict(
        group="a",
        metric=metric,
        max=limit,
        observed=observed,
        numerator=1,
        denominator=10,
        lower=lower,
        upper=upper,
        verdict="pass",
        needed_further=None,
        would_settle=None,
        reason=None,
    )


def marks(drawn, class_):
    """Attributes of the elements with that class, in order; the plot must be well-formed XML."""
    root = ElementTree.fromstring(drawn)
    return [one.attrib for one in root.iter() if class_ == one.attrib.get("class")]


def numbers(found, *keys):
    return [tuple(float(one[key]) for key in keys) for one in found]


def test_an_axis_maps_its_ends_to_its_pixels_and_holds_what_lies_beyond():
    axis = svg.Axis(0, 2, 10, 110)
    assert [axis.at(value) for value in (0, 0.5, 2, -1, 3)] == [10, 35, 110, 10, 110]


def test_a_path_breaks_where_a_value_is_missing_and_a_lone_point_is_a_dot():
    assert 'd="M0 0L1 1M5 5L5 5M8 8L9 9"' in svg.path(
        [(0, 0), (1, 1), None, (5, 5), None, (8, 8), (9, 9)], "line"
    )
    assert 'd="M2 3L2 3"' in svg.path([None, (2, 3)], "line")
    assert svg.path([None, None], "line") == ""


def test_what_is_put_into_an_element_is_escaped():
    made = svg.tag("text", "<b>&\"'", class_='x" onload="y')
    root = ElementTree.fromstring(made)
    assert root.text == "<b>&\"'"
    assert root.attrib == {"class": 'x" onload="y'}


def test_a_forest_row_has_a_line_a_model_on_one_scale():
    drawn = plots_rates.forest(
        "a", "fpr", [("base", rate(0.25, 0.2, 0.3)), ("tuned", rate(0.1, 0.05, 0.5))], cap(), 0.5
    )
    # 0 to 0.5 lies on 12 to 248 px: 472 px per 1.
    assert numbers(marks(drawn, "whisker base"), "x1", "x2", "y1") == [(106.4, 153.6, 14)]
    assert numbers(marks(drawn, "whisker tuned"), "x1", "x2", "y1") == [(35.6, 248, 42)]
    assert numbers(marks(drawn, "mark tuned"), "cx", "cy") == [(59.2, 42)]
    assert marks(drawn, "mark base")[0]["points"] == "130,9 135,14 130,19 125,14"
    assert numbers(marks(drawn, "cap"), "x1", "x2", "y1", "y2") == [(200.8, 200.8, 0, 56)]
    assert len(marks(drawn, "grid")) == 6


def test_an_unknown_rate_is_said_not_drawn():
    drawn = plots_rates.forest("a", "fnr", [("tuned", UNKNOWN)], None, 1.0)
    assert marks(drawn, "mark tuned") == []
    assert ">n/a</text>" in drawn
    assert "tuned not available" in drawn


@pytest.mark.parametrize(
    ("uppers", "caps", "end"),
    [([], [], 0.1), ([0.1], [], 0.1), ([0.11], [], 0.25), ([0.2], [0.3], 0.5), ([0.51], [], 1.0)],
)
def test_the_scale_of_rates_holds_every_interval_and_cap(uppers, caps, end):
    rates = [rate(0.05, 0.01, upper) for upper in uppers] + [UNKNOWN]
    assert plots_rates.axis_end(rates, [cap(limit) for limit in caps]) == end


def test_a_cap_lies_beside_the_one_sided_limits():
    drawn = plots_rates.limits(cap(0.4, 0.1, 0.05, 0.2), 0.5)
    assert numbers(marks(drawn, "whisker tuned"), "x1", "x2") == [(35.6, 106.4)]
    assert numbers(marks(drawn, "mark tuned"), "cx", "cy") == [(59.2, 14)]
    assert numbers(marks(drawn, "cap"), "x1") == [(200.8,)]


# A panel is 230 x 210 px; its area spans x 38..222 and, upwards, y 174..8.


def test_a_roc_curve_runs_from_corner_to_corner_over_that_of_all_rows():
    whole = RocCurve(group=None, fpr=(0, 0.5, 1), tpr=(0, 0.75, 1))
    drawn = plots_lines.roc(RocCurve(group="a", fpr=(0, 0, 1), tpr=(0, 0.5, 1)), whole)
    assert marks(drawn, "line first")[0]["d"] == "M38 174L38 91L222 8"
    assert marks(drawn, "line whole")[0]["d"] == "M38 174L130 49.5L222 8"
    assert numbers(marks(drawn, "ideal"), "x1", "y1", "x2", "y2") == [(38, 174, 222, 8)]
    assert "at most 10%, the true-positive rate is 50.0%" in drawn


def test_a_sweep_breaks_at_null_and_shows_cap_and_threshold():
    sweep = Sweep(
        thresholds=(0, 0.25, 0.5, 1),
        f1=(0.5, 0.5, 0.5, None),
        precision=(0.5, 0.5, 0.5, None),
        recall=(1, 1, 0.5, 0),
        fpr={"a": (1, None, 0.5, 0)},
        fnr={"a": (0, 0, 0.5, 1)},
    )
    drawn = plots_lines.sweep_group(sweep, "a", (), [cap(0.5)])
    assert marks(drawn, "line first")[0]["d"] == "M38 8L38 8M130 91L222 174"
    assert marks(drawn, "line second")[0]["d"] == "M38 174L84 174L130 91L222 8"
    assert numbers(marks(drawn, "cap"), "y1", "y2") == [(91, 91)]


def test_a_histogram_has_positive_rows_up_and_the_others_down_to_one_scale():
    bins = ScoreHistogram(group=None, positives=(0, 4), negatives=(2, 0))
    drawn = plots_bins.histogram(bins, (), "hate")
    keys = ("x", "y", "width", "height")
    # The tallest bar, 4 rows, is 83 px; bins are 92 px wide with a gap of 1.
    assert numbers(marks(drawn, "bar positive"), *keys) == [(130.5, 8, 91, 83)]
    assert numbers(marks(drawn, "bar negative"), *keys) == [(38.5, 91, 91, 41.5)]
    assert "4 rows labelled hate, mean score 0.75; 2 other rows, mean score 0.25" in drawn


def test_a_reliability_diagram_leaves_empty_bins_out():
    empty = CalibrationBin(lower=0, upper=0.5, rows=0, mean_score=None, positives=UNKNOWN)
    full = CalibrationBin(
        lower=0.5, upper=1, rows=8, mean_score=0.75, positives=rate(0.5, 0.25, 0.75)
    )
    drawn = plots_bins.reliability(
        Calibration(error=Estimate(value=0.25), bins=(empty, full)), "all rows"
    )
    assert numbers(marks(drawn, "mark tuned"), "cx", "cy") == [(176, 91)]
    assert numbers(marks(drawn, "whisker tuned"), "x1", "y1", "y2") == [(176, 132.5, 49.5)]
    assert "1 of 2 bins has rows. Expected calibration error: 0.250." in drawn


def test_the_front_in_the_plane_is_a_staircase():
    dots = [
        plots_plane.Dot(1, "low", 0.6, -0.1, True),
        plots_plane.Dot(2, "high", 0.8, 0.1, True),
        plots_plane.Dot(3, "beaten", 0.6, 0.1, False),
    ]
    drawn = plots_plane.plane(dots, min_f1=0.7)
    discs = numbers(marks(drawn, "mark tuned"), "cx", "cy")
    (x1, y1), (x2, y2) = discs
    assert x1 < x2
    assert y1 > y2
    (zero,) = numbers(marks(drawn, "cap"), "x1")
    assert zero[0] == pytest.approx((x1 + x2) / 2)
    (least,) = numbers(marks(drawn, "threshold"), "y1")
    assert least[0] == pytest.approx((y1 + y2) / 2)
    steps = re.findall(r"[\d.]+", marks(drawn, "line front")[0]["d"])
    assert [float(step) for step in steps] == [x1, y1, x2, y1, x2, y2]
    assert len(marks(drawn, "mark base")) == 1


@pytest.mark.parametrize("f1", [0.0, 1.0])
def test_the_plane_of_one_model_has_room(f1):
    drawn = plots_plane.plane([plots_plane.Dot(1, "one", f1, 0.0, True)], None)
    ((x, y),) = numbers(marks(drawn, "mark tuned"), "cx", "cy")
    assert 46 < x < 446
    assert 12 < y < 302


def test_every_plot_has_a_name_and_a_description():
    drawn = plots_rates.limits(cap(), 0.5)
    root = ElementTree.fromstring(drawn)
    assert root.attrib["role"] == "img"
    assert [child.tag for child in root][:2] == ["title", "desc"]
    assert root[0].text == "FPR of a compared with its cap"
    assert root[1].text == "Observed 10.0%, limits 5.0% and 20.0%; cap 40.0%."
