"""The report's page: what it says, that nothing a user sent becomes markup, and its policy."""

import base64
import hashlib
import re
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.fairness.html import HEADER_POLICY, POLICY, render_compare, render_report
from service.fairness.html.report import SECTIONS
from service.fairness.schema import BiasReport
from service.fairness.schema_compare import Comparison
from tests.support import reports

ATTACKS = [
    "</title></style></script><script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "\"'><svg onload=alert(1)>",
    "{{ 7 * 7 }}{% for x in y %}{# #}",
    "]]><![CDATA[<b>--><!--",
    "&lt;&amp;amp;&#x3c;",
    "\u202egnp.exe\u2066",
    "a\x00b\x1b[31m\x85\r\nc",
    "عربي עברית 🏳️‍🌈",
    "x" * 3000,
    " \t\n",
    "",
]
hostile = st.one_of(
    st.sampled_from(ATTACKS),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=40),
    st.lists(st.sampled_from(["<", ">", '"', "'", "&", "/", "{{", "}}", "script"]), max_size=9).map(
        "".join
    ),
)


class Parsed(HTMLParser):
    """Tags with their attributes, and the text between them."""

    def __init__(self, page):
        super().__init__(convert_charrefs=True)
        self.tags, self.text, self.open = [], "", []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, tuple(attrs)))

    def handle_data(self, data):
        self.text += data

    def handle_comment(self, data):
        raise AssertionError(f"a comment: {data}")

    def unknown_decl(self, data):
        raise AssertionError(f"a declaration: {data}")

    def words(self):
        return " ".join(self.text.split())


@pytest.fixture(scope="module")
def usual():
    return reports.report()


@pytest.fixture(scope="module")
def page(usual):
    return render_report(usual, reports.texts_of(usual))


@pytest.fixture(scope="module")
def small():
    """A report with few rows, and hence few tags, but with every section."""
    return reports.report(("group-a", "group-b"), n=60, details=("detail-a", "detail-b"))


@pytest.fixture(scope="module")
def compared():
    return reports.comparison(models=2)


def swap(value, by):
    """The same structure with these strings for those, keys too."""
    if isinstance(value, dict):
        return {swap(key, by): swap(one, by) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [swap(one, by) for one in value]
    return by.get(value, value) if isinstance(value, str) else value


def strings(value):
    """Every string in the structure that a user, a model or a dataset may have written."""
    if isinstance(value, dict):
        return {found for one in value.values() for found in strings(one)}
    if isinstance(value, list | tuple):
        return {found for one in value for found in strings(one)}
    return {value} if isinstance(value, str) else set()


CLOSED = {"argmax", "fitted", "given", "fpr", "fnr", "pass", "fail", "inconclusive", "met"}
CLOSED |= {"not_met", "not_applicable", "adapter", "base", "checkpoint", "merged"}


def everything_open(model):
    return sorted(strings(model.model_dump(mode="json")) - CLOSED)


@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_no_text_of_a_report_becomes_markup(small, data):
    written = everything_open(small)
    drawn = data.draw(st.lists(hostile, min_size=len(written), max_size=len(written), unique=True))
    by = dict(zip(written, drawn, strict=True))
    made = BiasReport.model_validate(swap(small.model_dump(mode="json"), by))
    text = data.draw(st.text(max_size=40))  # lone surrogates too
    got = Parsed(
        render_report(made, reports.texts_of(made, text.replace("{", "(").replace("}", ")")))
    )
    wanted = Parsed(render_report(small, reports.texts_of(small)))
    assert got.tags == wanted.tags


@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_no_text_of_a_comparison_becomes_markup(compared, data):
    usual = compared
    written = everything_open(usual)
    drawn = data.draw(st.lists(hostile, min_size=len(written), max_size=len(written), unique=True))
    made = Comparison.model_validate(
        swap(usual.model_dump(mode="json"), dict(zip(written, drawn, strict=True)))
    )
    assert Parsed(render_compare(made)).tags == Parsed(render_compare(usual)).tags


@pytest.mark.parametrize("text", ATTACKS)
def test_a_mistakes_text_is_shown_as_it_is(small, text):
    got = Parsed(render_report(small, {small.worst_mistakes[0].id: text}))
    shown = re.sub("[\x00\x1b\x85]", "\ufffd", text)
    assert shown in got.text


def test_what_cannot_be_encoded_is_replaced(small):
    page = render_report(small, {small.worst_mistakes[0].id: "a\ud800b"})
    assert "a\ufffdb" in page
    page.encode("utf-8")


def test_the_policy_names_the_one_stylesheet_and_nothing_else(page):
    (style,) = re.findall(r"<style>(.*?)</style>", page, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert f"style-src 'sha256-{digest}'" in POLICY
    assert POLICY.startswith("default-src 'none'; ")
    assert "unsafe" not in POLICY
    metas = [dict(attrs) for tag, attrs in Parsed(page).tags if tag == "meta"]
    assert {"http-equiv": "Content-Security-Policy", "content": POLICY} in metas
    assert page.index("Content-Security-Policy") < page.index("<style>")
    assert HEADER_POLICY.removeprefix(POLICY) == "; frame-ancestors 'none'"


@pytest.mark.parametrize("kind", ["report", "comparison"])
def test_a_page_refers_to_nothing_outside_and_has_no_script(page, kind):
    shown = page if kind == "report" else render_compare(reports.comparison())
    parsed = Parsed(shown)
    for tag, attrs in parsed.tags:
        assert tag not in {"script", "link", "img", "iframe", "object", "embed", "form", "base"}
        for name, value in attrs:
            assert name not in {"src", "style", "srcset", "action", "xlink:href"}
            assert not name.startswith("on")
            assert "http" not in (value or "") or name == "http-equiv"
            if name == "href":
                assert value.startswith("#")
    (style,) = re.findall(r"<style>(.*?)</style>", shown, re.DOTALL)
    assert "url(" not in style
    assert "@import" not in style


def test_anchors_and_labels_lead_somewhere(page):
    attrs = [dict(attrs) for _, attrs in Parsed(page).tags]
    ids = [one["id"] for one in attrs if "id" in one]
    assert len(ids) == len(set(ids))
    assert {one["href"][1:] for one in attrs if "href" in one} <= set(ids)
    assert {one["aria-labelledby"] for one in attrs if "aria-labelledby" in one} <= set(ids)
    assert set(SECTIONS) <= set(ids)


def test_the_head_says_what_was_measured(page):
    words = Parsed(page).words()
    for said in (
        "run_01m831s9e232ax31xvq0kdk0st",
        "smollm2-135m-instruct",
        "adapter, step 454",
        "hate_speech_simple",
        "hate_speech_policy",
        "ds_01m831s8xqpe5wq0f3x1c0m6ye",
        "test: 456 hate, 553 other",
        "argmax",
        "95%",
        "schema version 2",
    ):
        assert said in words


def test_an_exploratory_report_says_so_and_no_other_does(usual, page):
    assert 'class="banner"' not in page
    meta = usual.meta.model_copy(update={"exploratory": True})
    exploratory = render_report(usual.model_copy(update={"meta": meta}))
    assert 'class="banner"' in exploratory
    assert "Exploratory: this report does not gate a release." in exploratory


def test_every_cap_has_its_verdict_and_what_would_settle_it(usual):
    caps = [
        usual.caps[0].model_copy(
            update={"verdict": "inconclusive", "needed_further": 211, "would_settle": "pass"}
        ),
        usual.caps[1].model_copy(update={"verdict": "fail"}),
        usual.caps[2].model_copy(
            update={
                "verdict": "inconclusive",
                "observed": None,
                "lower": None,
                "upper": None,
                "reason": "group 'middle_east': no negative rows",
            }
        ),
    ]
    words = Parsed(render_report(usual.model_copy(update={"caps": tuple(caps)}))).words()
    assert "3 caps: 1 failed, 2 inconclusive." in words
    assert "211 further negatives at the observed rate would make it pass." in words
    assert "Group 'middle_east': no negative rows." in words


def test_a_null_figure_is_na_with_its_reason_in_the_text():
    one_class = reports.report(n=40)
    none = one_class.groups[0].tuned.fpr.model_copy(
        update={"value": None, "lower": None, "upper": None, "reason": "no negative rows here"}
    )
    tuned = one_class.groups[0].tuned.model_copy(update={"fpr": none})
    groups = (one_class.groups[0].model_copy(update={"tuned": tuned}), *one_class.groups[1:])
    words = Parsed(render_report(one_class.model_copy(update={"groups": groups}))).words()
    assert "n/a1" in words
    assert "n/a: the figure cannot be computed. 1 no negative rows here." in words


def test_without_base_scores_groups_or_labels_every_section_says_what_is_missing():
    bare = reports.report(
        (),
        base=False,
        scores=False,
        caps=(),
        details=(),
        shown=None,
        by_source=(),
        format_sample=None,
        warnings=(),
        worst_mistakes=(),
        min_f1=None,
    )
    words = Parsed(render_report(bare)).words()
    for said in (
        "The report has no caps.",
        "The report has no minimum F1.",
        "The base model was not scored, so the report cannot show the effect of training.",
        "No row has a group",
        "There are fewer than two groups",
        "There are no scores, so there are no plots.",
        "calibration cannot be assessed",
        "No row has a source.",
        "No row has a finer label.",
        "there are no functional tests",
        "No answers were generated",
        "There are none: every row is predicted correctly.",
        "The prompt is not known.",
    ):
        assert said in words
    assert "<svg" not in render_report(bare).split("<main", 1)[1]


def test_one_row_of_one_class_is_shown():
    page = render_report(reports.report(("alone",), n=1, caps=reports.CAPS))
    assert "alone" in Parsed(page).words()


def test_texts_stand_behind_a_closed_click_with_a_warning(usual, page):
    parsed = Parsed(page)
    assert "they may be hateful or obscene" in parsed.words()
    assert all(attrs == () for tag, attrs in parsed.tags if tag == "details")
    behind = page.split("<details>")[-1]
    text = "A sentence about mexican, made up."
    assert text in behind
    assert text not in page.split("<details>")[0]
    bare = render_report(usual)
    assert "This page does not include the texts" in bare
    assert "made up" not in bare


def test_a_text_of_no_mistake_stays_off_the_page(usual):
    assert "a secret" not in render_report(usual, {"another row": "a secret"})


def test_many_groups_are_all_there_and_their_plots_folded():
    names = [f"group {n:03} " + "with a long name " * (n % 7) for n in range(200)]
    many = reports.report(names, n=3000)
    page = render_report(many)
    words = Parsed(page).words()
    assert all(group.group.strip() in words for group in many.groups)
    assert f"Show the plots of all {len(many.groups)} groups" in words
    assert f"under {many.settings.min_support} rows" in words
    assert len(page) < 9_000_000


def test_tables_have_captions_and_heads_have_scopes(page):
    tables = re.findall(r"<table.*?</table>", page, re.DOTALL)
    assert len(tables) > 10
    assert all("<caption>" in table for table in tables)
    for attrs in (dict(attrs) for tag, attrs in Parsed(page).tags if tag == "th"):
        assert attrs["scope"] in {"col", "row", "rowgroup"}


def test_every_plot_is_an_image_with_a_name_or_hidden(page):
    for tag, attrs in Parsed(page).tags:
        if tag == "svg":
            assert dict(attrs).get("role") == "img" or dict(attrs).get("aria-hidden") == "true"
    assert page.count('role="img"') == page.count("<desc>")


def test_the_same_report_gives_the_same_page(usual, page):
    assert render_report(usual, reports.texts_of(usual)) == page


def test_a_comparison_shows_every_model_pair_and_cap():
    made = reports.comparison()
    words = Parsed(render_compare(made)).words()
    for entry in made.entries:
        assert entry.name in words
        assert entry.entry in words
    assert words.count("Pareto front") >= 3
    assert "mexican FPR under 10.0%" in words
    assert len(made.pairs) == 6
    assert "attempt 4" in words


def test_a_comparison_of_models_without_groups_caps_or_f1():
    made = reports.comparison((), models=1, caps=(), min_f1=None, settings_of=None)
    none = made.entries[0].f1.model_copy(
        update={"value": None, "lower": None, "upper": None, "reason": "nothing is positive"}
    )
    bare = made.entries[0].model_copy(update={"f1": none, "caps": ()})
    words = Parsed(render_compare(made.model_copy(update={"entries": (bare,)}))).words()
    assert "There are no caps." in words
    assert "There is only one model" in words
    assert "Not shown, because F1 or the largest excess cannot be computed: 1." in words
    assert "nothing is positive" in words
