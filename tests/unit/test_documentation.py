"""The documentation names files, modules and headings that exist."""

import ast
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WIDTH = 100
TRACKED = subprocess.run(
    ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z", "*.md"],
    cwd=ROOT,
    capture_output=True,
    text=True,
    check=True,
).stdout.split("\0")
PAGES = sorted(ROOT / name for name in TRACKED if name and (ROOT / name).exists())
GENERATED = (
    "benchmarks/results/20",
    "tests/faults/results/",
    "tests/compose/results.md",
)
GUIDES = [page for page in PAGES if not str(page.relative_to(ROOT)).startswith(GENERATED)]
CODE = re.compile(r"^( *)```.*?^\1```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
PATH = re.compile(
    r"`((?:service|worker|tests|benchmarks|migrations|docs)/[\w./-]*)(?:\*\.[a-z]+)?`"
)
MODULE = re.compile(r"\b((?:service|worker|tests|benchmarks)(?:\.[a-z_]+)+)\b")
NAMED = re.compile(r"`((?:service|worker)/[\w/]+\.py)`: `(\w+)`")


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def prose(page: Path) -> str:
    """The page without its code blocks."""
    return CODE.sub("", page.read_text())


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {
        re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings
    }


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_relative_link_leads_somewhere(page):
    broken = []
    for target in LINK.findall(prose(page)):
        if target.startswith(("http://", "https://", "mailto:")):
            continue
        path, _, anchor = target.partition("#")
        file = page if not path else (page.parent / path).resolve()
        if not file.exists() or (anchor and anchor not in anchors(file)):
            broken.append(target)
    assert broken == []


@pytest.mark.parametrize("page", GUIDES, ids=name_of)
def test_every_path_and_module_in_a_guide_exists(page):
    text = page.read_text()
    missing = [path for path in PATH.findall(text) if not (ROOT / path).exists()]
    for module in MODULE.findall(text):
        parts = module.split(".")
        # A name of the module may follow: service.store.jobs.claim.
        candidates = [parts, parts[:-1]]
        files = [ROOT.joinpath(*names) for names in candidates if len(names) > 1]
        if not any(file.is_dir() or file.with_suffix(".py").exists() for file in files):
            missing.append(module)
    assert missing == []


@pytest.mark.parametrize("page", GUIDES, ids=name_of)
def test_every_function_named_beside_its_file_is_defined_there(page):
    undefined = [
        f"{file}: {name}"
        for file, name in NAMED.findall(page.read_text())
        if not re.search(rf"^(?:def|class) {name}\b", (ROOT / file).read_text(), re.MULTILINE)
    ]
    assert undefined == []


def test_the_index_links_every_page_of_the_docs():
    linked = {
        ((ROOT / "docs") / target.partition("#")[0]).resolve()
        for target in LINK.findall((ROOT / "docs" / "README.md").read_text())
    }
    assert set((ROOT / "docs").glob("*.md")) - linked == {ROOT / "docs" / "README.md"}


def test_the_table_of_decisions_has_every_record():
    table = (ROOT / "docs" / "adr" / "README.md").read_text()
    records = sorted((ROOT / "docs" / "adr").glob("[0-9]*.md"))
    rows = [line for line in table.splitlines() if re.match(r"\| \d", line)]
    assert [LINK.findall(row)[0] for row in rows] == [record.name for record in records]
    for record in records:
        number, title = int(record.name[:4]), record.read_text().splitlines()[0]
        assert title.startswith(f"# {number}. "), title


@pytest.mark.parametrize("page", GUIDES, ids=name_of)
def test_prose_is_wrapped_as_code_is(page):
    lines = prose(page).splitlines()
    assert [
        line
        for line in lines
        if len(LINK.sub("[]", line)) > WIDTH and not line.startswith(("|", "# "))
    ] == []


def texts_of_the_code() -> str:
    """Every string of the product's code; of an f-string its constant parts."""
    strings = [
        node.value
        for package in ("service", "worker")
        for file in (ROOT / package).rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    return re.sub(r"\s+", " ", "\n".join(strings))


def quotations() -> list[str]:
    """Pieces of messages that the troubleshooting guide quotes; … stands for a value."""
    text = (ROOT / "docs" / "troubleshooting.md").read_text()
    sections = text[text.index("## model_unavailable") : text.index("## crashed, worker_lost")]
    quoted = re.findall(r"^(?:- `([^`]+)`|\| ((?:`[^`]+`(?:; )?)+) \|)", sections, re.MULTILINE)
    spans = [
        span for item, cell in quoted for span in ([item] if item else re.findall("`(.+?)`", cell))
    ]
    pieces = [piece.strip(" '") for span in spans for piece in re.split("…|'[a-z]+'", span)]
    return [re.sub(r"\s+", " ", piece) for piece in pieces if len(piece.split()) >= 3]


def test_the_messages_that_troubleshooting_quotes_are_those_of_the_code():
    texts = texts_of_the_code()
    assert len(quotations()) > 15
    assert [piece for piece in quotations() if piece not in texts] == []


ABSENT = re.compile(r"DESIGN|§|\bthe plan\b|\bthe design\b|shared/|\bissue \d")


@pytest.mark.parametrize("page", GUIDES, ids=name_of)
def test_no_page_refers_to_a_text_that_a_reader_does_not_have(page):
    assert ABSENT.findall(prose(page)) == []
