"""The pages in a real Chromium: harmless, legible to everybody, on a phone and on paper."""

import re

import pytest
from axe_playwright_python.sync_playwright import Axe

NAMES = ["usual", "hostile", "many", "bare", "exploratory", "comparison", "comparison of many"]
STANDARDS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
WIDER = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
OPEN_ALL = "document.querySelectorAll('details').forEach(one => { one.open = true })"


@pytest.mark.parametrize("name", NAMES)
def test_a_page_loads_nothing_runs_nothing_and_breaks_no_policy(opened, name):
    with opened(name) as made:
        made.page.evaluate(OPEN_ALL)
        assert made.said == []
        assert made.requests == ["http://fairtune.test/report"]
        assert made.page.evaluate("document.scripts.length + document.images.length") == 0
        assert "ran" not in made.page.title().split()


def test_the_policy_alone_would_stop_a_script_an_image_and_a_style(opened, rendered):
    """What the templates keep out, the policy in the page would keep from working."""
    body = (
        "<script>document.title = 'ran'</script><img src=/x.png><link rel=stylesheet href=/x.css>"
        "<p id=p style='color: rgb(1, 2, 3)'>x</p><style>p { color: rgb(1, 2, 3) }</style>"
    )
    page = rendered("bare").replace("<main", body + "<main", 1)
    with opened("", html=page) as made:
        assert made.page.title() != "ran"
        assert made.page.evaluate("getComputedStyle(p).color") != "rgb(1, 2, 3)"
        assert made.requests == ["http://fairtune.test/report"]
        assert len(made.said) >= 5
        assert all("Content Security Policy" in said for said in made.said)


def test_the_stylesheet_is_let_through(opened):
    with opened("usual") as made:
        assert (
            made.page.evaluate("getComputedStyle(document.querySelector('h1')).fontWeight") >= "600"
        )
        assert made.page.evaluate("document.styleSheets[0].cssRules.length") > 50


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", [name for name in NAMES if name != "many"])
def test_a_page_has_no_barriers_that_axe_finds(opened, name, scheme):
    with opened(name, scheme=scheme) as made:
        made.page.evaluate(OPEN_ALL)
        found = Axe().run(made.page, options={"runOnly": {"type": "tag", "values": STANDARDS}})
        assert found.violations_count == 0, found.generate_report()


def test_dark_is_dark_and_light_is_light(opened):
    paper = "getComputedStyle(document.body).backgroundColor"
    with opened("usual") as made:
        assert made.page.evaluate(paper) == "rgb(255, 255, 255)"
    with opened("usual", scheme="dark") as made:
        assert made.page.evaluate(paper) == "rgb(21, 24, 28)"


@pytest.mark.parametrize("name", NAMES)
def test_a_phone_need_not_scroll_sideways(opened, name):
    with opened(name, width=380) as made:
        assert made.page.evaluate(WIDER) == 0
        made.page.evaluate(OPEN_ALL)
        assert made.page.evaluate(WIDER) == 0


def test_a_wide_table_scrolls_in_its_own_container_by_keyboard(opened):
    with opened("usual", width=380) as made:
        region = made.page.get_by_role("region", name="All 1,009 rows")
        assert region.evaluate("one => one.scrollWidth > one.clientWidth")
        region.focus()
        # The page's policy keeps Playwright's own waiting, which evaluates text, from working.
        scrolled = region.evaluate_handle(
            "one => ({ seen: new Promise(done => "
            "one.addEventListener('scroll', () => done(one.scrollLeft), { once: true })) })"
        )
        made.page.keyboard.press("ArrowRight")
        assert scrolled.evaluate("one => one.seen") > 0


def test_texts_open_by_click_and_by_keyboard(opened):
    with opened("usual") as made:
        text = made.page.get_by_text("A sentence about").first
        summary = made.page.get_by_text("they may be hateful or obscene")
        assert not text.is_visible()
        summary.click()
        assert text.is_visible()
        summary.focus()
        made.page.keyboard.press("Enter")
        assert not text.is_visible()
        made.page.keyboard.press("Enter")
        assert text.is_visible()


def test_the_contents_lead_to_their_sections(opened):
    with opened("usual") as made:
        links = made.page.get_by_role("navigation", name="Contents").get_by_role("link")
        assert links.count() == 16
        links.filter(has_text="Most confident errors").click()
        assert made.page.url.endswith("#mistakes")
        assert made.page.locator("#mistakes").evaluate(
            "one => Math.abs(one.getBoundingClientRect().top) < 60"
        )


def test_hostile_names_are_words_and_keep_their_direction(opened):
    with opened("hostile") as made:
        shown = made.page.locator("#groups bdi").all_inner_texts()
        assert any("<script>document.title='ran'</script>" in text for text in shown)
        assert "{{ 7 * 7 }}" in shown
        assert "(blank)" in shown


def printed(page):
    """Pages of A4."""
    return len(re.findall(rb"/Type\s*/Page\b(?!s)", page.pdf(prefer_css_page_size=True)))


@pytest.mark.parametrize(
    ("name", "least", "most"),
    [("usual", 8, 14), ("bare", 3, 5), ("comparison", 3, 5), ("hostile", 10, 30), ("many", 25, 90)],
)
def test_a_page_goes_on_a_sensible_amount_of_paper(opened, name, least, most):
    with opened(name) as made:
        assert least <= printed(made.page) <= most


def test_paper_has_no_contents_but_says_what_is_closed(opened):
    with opened("usual", scheme="dark") as made:
        made.page.emulate_media(media="print")
        assert not made.page.get_by_role("navigation").is_visible()
        assert made.page.get_by_text("open them before printing").is_visible()
        paper = made.page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert paper == "rgb(255, 255, 255)"


def test_short_tables_and_figures_are_not_split_between_pages(opened):
    with opened("usual") as made:
        made.page.emulate_media(media="print")
        whole = "one => getComputedStyle(one).breakInside"
        for chosen in ("#caps-caption", "figure.short", ".panel", "tr"):
            one = made.page.locator(chosen).first
            if chosen.startswith("#"):
                one = made.page.locator(".scroll", has=one)
            assert one.evaluate(whole) == "avoid", chosen
