"""The Accept header is read as RFC 9110 says, section 12.5.1."""

import pytest

from service.api.responses.negotiation import CSV, HTML, JSON, preferred

ALL = [JSON, HTML, CSV]
BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8"


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("", JSON),
        ("*/*", JSON),
        (BROWSER, HTML),
        ("text/csv", CSV),
        ("TEXT/CSV", CSV),
        ("text/csv;header=present", CSV),
        ("text/*", HTML),
        ("text/html;q=0.2, text/csv;q=0.3", CSV),
        ("text/csv, */*", CSV),  # as good, and said on purpose
        ("text/csv;q=0.5, */*;q=0.6", JSON),
        ("application/json;q=0, */*", HTML),
        ("text/*;q=0, */*;q=0.1", JSON),
        ("text/html;q=0, text/*", CSV),
        ("text/html; q=0.5; charset=utf-8, application/json;q=0.4", HTML),
        ("text/html;q=1.5, text/csv;q=0.1", CSV),  # no quality: takes nothing
        ("text/html;q=x, text/csv;q=0.1", CSV),
        ("text/html;q=nan", None),
        ("image/png", None),
        ("application/json;q=0", None),
        ("*/*;q=0", None),
        (" , ,", JSON),
        ("nonsense", None),
    ],
)
def test_what_is_liked_best(accept, expected):
    assert preferred(accept, ALL) == expected
