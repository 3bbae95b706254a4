"""Check the language of code and documentation: `python -m tools.language_check`.

Four rules: no phrase of `tools.glossary`; fewer than 4 of 1,000 names without content; fewer than
3 % of docstrings that open with a question word; documentation wrapped at 100 columns.
"""

import ast
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from tools.columns import WIDTH, long_lines
from tools.glossary import phrases_in
from tools.identifiers import MAX_EMPTY_PER_1000, MAX_OPENING_SHARE, Tally, forbidden_names
from tools.prose import markdown_prose, python_prose

CODE = ("service", "worker", "migrations", "benchmarks", "tests", "tools")
COUNTED = ("service/", "worker/")
"""Where names and docstrings are counted."""

DOCUMENTS = ("README.md", "CHANGELOG.md", "ARCHITECTURE.md", "CONTRIBUTING.md")

EXEMPT = (
    "service/datasets/sample/",  # texts of a dataset
    "tools/glossary.py",  # the phrases themselves
    "tests/unit/test_language_check.py",
)

LISTED = 200
"""Maximum number of empty names that are listed."""

TEXT_KEYS = ("title", "summary", "description")


def check_python(path: str, text: str, tally: Tally) -> Iterator[str]:
    """Yield the problems of a module, and count its names and docstrings."""
    nodes = list(ast.walk(ast.parse(text)))  # once: walking takes most of the time
    if path.startswith(COUNTED):
        tally.add(path, nodes)
    if path.startswith(EXEMPT):
        return
    source = text.splitlines()
    for prose in python_prose(nodes, source):
        for offset, phrase, replacement in phrases_in(prose.text, path):
            yield _problem(path, prose.line_at(offset, source), phrase, replacement)
    for line, name, replacement in forbidden_names(nodes):
        yield _problem(path, line, name, replacement)


def check_markdown(path: str, text: str) -> Iterator[str]:
    """Yield the problems of a document."""
    source = text.splitlines()
    for prose in markdown_prose(source):
        for offset, phrase, replacement in phrases_in(prose.text, path):
            yield _problem(path, prose.line_at(offset, source), phrase, replacement)
    for line, width in long_lines(source):
        yield f"{path}:{line}: {width} columns; wrap the line at {WIDTH}"


def check_openapi(document: dict[str, Any]) -> Iterator[str]:
    """Yield the problems of the texts in an OpenAPI document."""
    for pointer, text in openapi_texts(document):
        for _, phrase, replacement in phrases_in(text, "openapi"):
            yield f'openapi{pointer}: "{phrase}"; write: {replacement}'


def openapi_texts(node: object, pointer: str = "") -> Iterator[tuple[str, str]]:
    """Yield the titles, summaries and descriptions of an OpenAPI document with their pointers."""
    if isinstance(node, list):
        for index, item in enumerate(node):
            yield from openapi_texts(item, f"{pointer}/{index}")
    elif isinstance(node, dict):
        for key, value in node.items():
            below = f"{pointer}/{key.replace('~', '~0').replace('/', '~1')}"
            if key in TEXT_KEYS and isinstance(value, str):
                yield below, value
            else:
                yield from openapi_texts(value, below)


def openapi_problems() -> list[str]:
    """Return the problems of the OpenAPI document of this tree."""
    from service.api.app import create_app
    from service.settings import Settings

    with tempfile.TemporaryDirectory() as folder:
        settings = Settings.model_validate({"data_dir": folder})
        return list(check_openapi(create_app(settings).openapi()))


def tally_problems(tally: Tally) -> Iterator[str]:
    """Yield the locations of names and docstrings of which there are too many, and the figure."""
    if tally.empty_per_1000 > MAX_EMPTY_PER_1000:
        yield from (f"{item}: name what it is" for item in tally.empty_names[:LISTED])
        yield (
            f"{len(tally.empty_names)} of {tally.names} names ({tally.empty_per_1000:.1f} per "
            f"1,000) do not say what they hold; the maximum is {MAX_EMPTY_PER_1000:g} per 1,000"
        )
    if tally.opening_share >= MAX_OPENING_SHARE:
        yield from (f"{item}: open with a verb or a noun" for item in tally.openings)
        yield (
            f"{len(tally.openings)} of {tally.docstrings} docstrings ({tally.opening_share:.1%}) "
            f"open with a question word; the limit is {MAX_OPENING_SHARE:.0%}"
        )


def problems_in(root: Path) -> Iterator[str]:
    """Yield the problems of all files below `root`, but not those of the OpenAPI document."""
    tally = Tally()
    for folder in CODE:
        for file in sorted((root / folder).rglob("*.py")):
            path = file.relative_to(root).as_posix()
            yield from check_python(path, file.read_text("utf-8"), tally)
    for file in [*sorted((root / "docs").rglob("*.md")), *(root / name for name in DOCUMENTS)]:
        if file.exists():
            yield from check_markdown(file.relative_to(root).as_posix(), file.read_text("utf-8"))
    yield from tally_problems(tally)


def _problem(path: str, line: int, phrase: str, replacement: str) -> str:
    return f'{path}:{line}: "{phrase}"; write: {replacement}'


def main() -> int:
    """Print every problem; return 1 if there is one."""
    # Most of the time is the import of the service, on the second core.
    with ProcessPoolExecutor(1) as pool:
        openapi = pool.submit(openapi_problems)
        problems = [*problems_in(Path(__file__).parents[1]), *openapi.result()]
    for problem in problems:
        print(problem)
    print(f"language: {len(problems)} problems" if problems else "language: no problems")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
