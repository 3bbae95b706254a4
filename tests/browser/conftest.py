"""A real Chromium, and pages opened in it as a server with the strict header would send them."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest
from playwright.sync_api import Browser, Page, Route, sync_playwright

from service.fairness.html import HEADER_POLICY, render_compare, render_report
from tests.support import reports

ADDRESS = "http://fairtune.test/report"
QUIET = (
    "--no-sandbox",  # as root there is none to have
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)
PATIENCE = 240_000
"""Milliseconds: a machine with other work may take its time over a page with 400 plots."""

LONG = "Menschen mit einem außerordentlich langen Namen " * 4 + "x" * 120
HOSTILE = "</script></style><script>document.title='ran'</script><img src=x onerror=alert(1)>"


def _hostile() -> str:
    names = (
        HOSTILE,
        LONG,
        "مجموعة باللغة العربية",
        "קבוצה",
        "🏳️‍🌈 👩‍👩‍👧",
        "\u202egnp.exe",
        " ",
        "{{ 7 * 7 }}",
    )
    made = reports.report(names, n=400, caps=[reports.CapLimit(name, "fpr", 0.2) for name in names])
    return render_report(made, reports.texts_of(made, HOSTILE + "\u202e{group}\x00" + LONG))


def _exploratory() -> str:
    made = reports.report(n=90)
    meta = made.meta.model_copy(update={"exploratory": True})
    return render_report(made.model_copy(update={"meta": meta}))


def _bare() -> str:
    missing = {"shown": None, "by_source": (), "format_sample": None, "worst_mistakes": ()}
    return render_report(
        reports.report((), n=30, base=False, scores=False, caps=(), details=(), **missing)
    )


def _usual() -> str:
    made = reports.report()
    return render_report(made, reports.texts_of(made))


PAGES: dict[str, Callable[[], str]] = {
    "usual": _usual,
    "hostile": _hostile,
    "many": lambda: render_report(reports.report([f"group {n:03}" for n in range(200)], n=2000)),
    "bare": _bare,
    "exploratory": _exploratory,
    "comparison": lambda: render_compare(reports.comparison()),
    "comparison of many": lambda: render_compare(reports.comparison((LONG, HOSTILE), models=12)),
}


@pytest.fixture(scope="session")
def rendered() -> Callable[[str], str]:
    """A page by its name in PAGES, made once."""
    made: dict[str, str] = {}

    def render(name: str) -> str:
        if name not in made:
            made[name] = PAGES[name]()
        return made[name]

    return render


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    path = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    assert path, "no Chromium: install the Debian package chromium, or set CHROMIUM to one's path"
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=path, args=list(QUIET))
        yield started
        started.close()


@dataclass
class Opened:
    """A page, with what it asked the network for and what its console said."""

    page: Page
    requests: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)


@pytest.fixture
def opened(browser, rendered):
    """Opens a page by its name, or HTML as it is; nothing but the page itself is ever answered."""

    @contextmanager
    def open_page(name: str, *, html: str | None = None, width: int = 1280, scheme: str = "light"):
        context = browser.new_context(
            viewport={"width": width, "height": 800}, color_scheme=scheme, reduced_motion="reduce"
        )
        context.set_default_timeout(PATIENCE)
        page = context.new_page()
        made = Opened(page)

        def answer(route: Route) -> None:
            made.requests.append(route.request.url)
            if route.request.url == ADDRESS:
                route.fulfill(
                    body=html or rendered(name),
                    content_type="text/html; charset=utf-8",
                    headers={"Content-Security-Policy": HEADER_POLICY},
                )
            else:
                route.abort()

        context.route("**/*", answer)
        page.on("console", lambda message: made.said.append(message.text))
        page.on("pageerror", lambda error: made.said.append(str(error)))
        page.goto(ADDRESS)
        yield made
        context.close()

    return open_page
