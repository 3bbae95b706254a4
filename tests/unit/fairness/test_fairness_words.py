"""Words of the report: spaces, agreement with numbers, and each finer label listed once."""

import re
from html.parser import HTMLParser
from importlib import resources

import pytest

from service.domain.row_keys import SeenRows
from service.fairness import schema
from service.fairness.html import render_report
from service.fairness.text import render_text
from tests.support.built_reports import META, build

NO_SPACE = re.compile(r"[a-z)][.;:!?,][A-Za-z(]|[a-z]\(|\)[A-Za-z]")


class Words(HTMLParser):
    """The words of the main part as a reader sees them, cells and blocks apart; code is left out.

    Parts of a sentence that stand in elements of their own are joined as browsers join them.
    """

    INLINE = frozenset({"a", "bdi", "b", "cite", "code", "em", "span", "strong", "sub", "sup"})

    def __init__(self, page):
        super().__init__(convert_charrefs=True)
        self.text, self._code = "", 0
        self.feed(page.partition("<body")[2])

    def handle_starttag(self, tag, _attributes):
        self._code += tag in ("code", "style", "script")
        self.text += "" if tag in self.INLINE else "\n"

    def handle_endtag(self, tag):
        self._code -= tag in ("code", "style", "script")
        self.text += "" if tag in self.INLINE else "\n"

    def handle_data(self, data):
        self.text += "x" if self._code else data


def sentences(page):
    return [" ".join(line.split()) for line in Words(page).text.splitlines() if line.strip()]


@pytest.fixture(scope="module")
def table(make_predictions):
    """Three finer labels: of positives alone, of negatives alone, of both."""
    rows = [
        ("slur", "hate"),
        ("profanity", "normal"),
        ("mixed one", "hate"),
        ("mixed one", "normal"),
    ]
    rows *= 12
    return make_predictions(
        [label for _, label in rows],
        ["hate", "normal", "normal", "hate"] * 12,
        ["lgbtq", "mexican"] * 24,
        [0.9, 0.2, 0.4, 0.6] * 12,
        details=[detail for detail, _ in rows],
    )


def shown(*, group, truncated):
    return schema.Shown(
        system="Is it hate?", user="$text", completion="$label", group=group, truncated=truncated
    )


@pytest.mark.parametrize("group", [False, True])
@pytest.mark.parametrize("truncated", [None, 0, 1, 2])
@pytest.mark.parametrize("seen", [None, 0, 1, 2, 48])
def test_no_space_is_missing_after_a_sentence(table, group, truncated, seen):
    prompt = shown(group=group, truncated=truncated)
    rows = None if seen is None else SeenRows(frozenset(f"r{n}" for n in range(seen)), frozenset())
    report = build(
        table,
        base=table,
        validation=table,
        min_f1=0.6,
        shown=prompt,
        base_shown=prompt,
        seen=rows,
        meta=META.model_copy(update={"exploratory": True}),
    )
    page = sentences(render_report(report, {"r0": "a text"}))
    assert [line for line in page if NO_SPACE.search(line)] == []
    text = render_text(report)
    assert not re.search(r"[a-z][.;!?][A-Z]", text)
    if seen:
        words = " ".join(page)
        assert f"Without the {seen} row{'s' if seen > 1 else ''} that the model has seen" in words
        assert f"{48 - seen} rows that the model has not seen" in " ".join(text.split())
        verb = "has" if seen == 1 else "have"
        if seen < 48:
            assert f"{seen} of 48 rows {verb} a text that the model was trained on" in words


def test_each_finer_label_of_one_class_is_listed_once(table):
    page = render_report(build(table))
    by_detail = page.partition('id="by-detail-caption"')[2].partition("</table>")[0]
    functional = page.partition('id="functional-table-caption"')[2].partition("</table>")[0]
    assert "mixed one" in by_detail
    assert "slur" not in by_detail
    assert "profanity" not in by_detail
    assert all(name in functional for name in ("slur", "profanity", "mixed one"))
    assert "2 finer labels have rows of one class only" in " ".join(sentences(page))


def test_without_a_label_of_both_classes_there_is_no_second_table(make_predictions):
    table = make_predictions(
        ["hate", "normal"] * 4, ["hate", "normal"] * 4, details=["slur", "profanity"] * 4
    )
    page = render_report(build(table))
    assert 'id="by-detail-caption"' not in page
    assert 'id="functional-table-caption"' in page


def test_words_are_broken_only_where_nothing_else_helps():
    style = (resources.files("service.fairness.html") / "templates" / "page.css").read_text()
    assert "overflow-wrap: break-word" in style
    assert "anywhere" not in style  # it lets narrow columns break every word
    assert "break-all" not in style


def test_groups_that_are_treated_alike_are_equal(make_predictions):
    table = make_predictions(["hate", "normal"] * 4, ["hate", "normal"] * 4, [*"aabb" * 2])
    report = build(table)
    assert report.parity.tuned.false_positive_rate.value == 0
    row = re.search(
        r"<tr[^>]*><th[^>]*>false-positive rate.*?</tr>", render_report(report), re.DOTALL
    )
    assert "equal" in row[0]
    assert "<bdi>a</bdi>" not in row[0]
    parity = render_text(report).partition("Differences between groups")[2]
    line = next(line for line in parity.splitlines() if line.startswith(" FPR "))
    assert not re.search(r"\b[ab]\b", line)
