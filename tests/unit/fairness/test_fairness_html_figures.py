"""How figures are written: no rounding into a bound, no minus before zero."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.fairness.html import figures
from service.fairness.schema_base import Estimate, RateEstimate


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0, "0.0%"),
        (0.0001, "<0.1%"),
        (0.0005, "0.1%"),
        (0.1234, "12.3%"),
        (0.9994, "99.9%"),
        (0.9999, ">99.9%"),
        (1, "100.0%"),
    ],
)
def test_percent(share, text):
    assert figures.percent(share) == text


@given(st.floats(0, 1))
def test_only_a_measured_bound_is_written_as_one(share):
    written = figures.percent(share)
    assert (written == "0.0%") == (share == 0)
    assert (written == "100.0%") == (share == 1)


def test_a_difference_has_its_sign_and_zero_has_none():
    assert figures.points(0.0214) == "+2.1\N{NARROW NO-BREAK SPACE}pp"
    assert figures.change(-0.1) == "\N{MINUS SIGN}0.100"
    assert figures.change(-0.0001) == "0.000"


def test_intervals():
    share = RateEstimate(value=0.5, numerator=1, denominator=2, lower=0.0001, upper=0.9)
    assert figures.span(share, shares=True) == "<0.1\N{EN DASH}90.0%"
    assert figures.span(Estimate(value=0.5, lower=-0.1, upper=0.2), shares=False) == (
        "\N{MINUS SIGN}0.100 to 0.200"
    )
    assert figures.span(Estimate(value=0.5), shares=False) is None


def test_notes_number_each_reason_once():
    notes = figures.Notes()
    assert [notes.number(reason) for reason in ("b", "a", "b", None)] == [1, 2, 1, 3]
    assert notes.reasons == ["b", "a", "the report states no reason"]


def test_a_name_in_a_plot_is_one_short_printable_line():
    assert figures.plain("a\nb\u202ec\x00") == "a b c"
    assert figures.plain("  ") == "(blank)"
    assert figures.plain("x" * 100, 10) == "x" * 9 + "…"
