"""The language check finds what it names, where it is, and nothing in correct English."""

import ast

import pytest

from tools.columns import long_lines
from tools.glossary import PHRASES, phrases_in
from tools.identifiers import Tally, forbidden_names
from tools.language_check import (
    check_markdown,
    check_openapi,
    check_python,
    problems_in,
    tally_problems,
)


def problems_of(text, path="service/module.py"):
    return list(check_python(path, text, Tally()))


FORBIDDEN = {
    "a wake-up is lost": "queue message",
    "Wakeups back off": "queue message",
    "the database is away": "is unavailable",
    "the checkpoint that it is gone on from": "resumed from",
    "an event that was gone back past": "rewound past",
    "the job is given back": "return to the queue",
    "evaluations that were asked for": "requested",
    "ask again": "retry",
    "held against the bar": "compared with",
    "laid over the preset": "merged into",
    "half a surrogate pair": "unpaired surrogate",
    "half of a surrogate pair": "unpaired surrogate",
    "a worker unheard of": "lease",
    "the first process writes": "rank 0",
    "buckets of rests": "suffixes",
    "Most bytes of a line": "maximum",
    "the played rows": "execute cases",
    "leftovers have three brooms": "cleanup",
}

CORRECT = (
    "It runs right away and wakes up. The object is away from the origin.",
    "They agreed on that; the log goes on. It holds. A bug in the rest of the file.",
    "At least 3 and at most 5 bytes. Most rows have a label. It rests on three assumptions.",
    "Half a page. Backpropagation gives gradients. The given value is held in memory.",
    "The process first writes; rank 0 was first. Overlaid, a layover. The form field `format`.",
    "The first process that comes by holds the lock.",
    "The user is asked whether the house rules apply; a storm of requests; the scene.",
)


@pytest.mark.parametrize("text", FORBIDDEN)
def test_a_phrase_is_found_with_its_replacement(text):
    ((_, phrase, replacement),) = phrases_in(text, "worker/module.py")
    assert phrase.lower() in text.lower()
    assert FORBIDDEN[text] in replacement


@pytest.mark.parametrize("text", CORRECT)
def test_correct_english_is_left_alone(text):
    assert list(phrases_in(text, "worker/module.py")) == []


def test_words_of_the_test_harness_are_forbidden_there_alone():
    ((_, phrase, replacement),) = phrases_in("the storm ends", "tests/faults/module.py")
    assert (phrase, replacement) == ("the storm", "chaos run")
    assert list(phrases_in("the storm ends", "service/module.py")) == []


def test_every_phrase_has_a_replacement_that_is_not_forbidden_itself():
    for phrase in PHRASES:
        assert phrase.replacement
        assert list(phrases_in(phrase.replacement, "tests/module.py")) == []


def test_comments_docstrings_and_strings_are_read_with_their_lines():
    text = '''"""A module.

It handles wake-ups.
"""
x = "# is away"  # a comment that is gone
# on from here
raise ValueError(
    f"{x} is held "
    f"against {x}, and also asked "
    "for"
)
wake_up = 1  # names are another check's
'''
    assert problems_of(text) == [
        'service/module.py:3: "wake-ups"; write: queue message',
        'service/module.py:5: "is away"; write: is unavailable, is unreachable',
        'service/module.py:8: "held against"; write: compared with',
        'service/module.py:9: "asked for"; write: requested',
        'service/module.py:5: "gone on from"; write: resumed from, continue with',
    ]


def test_names_of_the_glossary_are_forbidden():
    text = "class Found: ...\nMOST_ROWS = LEAST = 1\ndef judge(): ...\nclass FoundRows: ..."
    assert [(line, name) for line, name, _ in forbidden_names(ast.walk(ast.parse(text)))] == [
        (1, "Found"),
        (3, "judge"),
        (2, "MOST_ROWS"),
    ]
    assert 'service/module.py:2: "MOST_ROWS"; write: MAX_ROWS' in problems_of(text)


def test_markdown_is_read_without_its_code():
    text = (
        "# Title\n\nThe worker is\naway.\n\n```\nwake-up\n```\n\nSee `wake-up` and\n"
        "[this](0018-wake-up.md) wake-up.\n"
    )
    assert list(check_markdown("docs/page.md", text)) == [
        'docs/page.md:3: "is away"; write: is unavailable, is unreachable',
        'docs/page.md:11: "wake-up"; write: queue message',
    ]


LONG = "word " * 21


def test_long_lines_that_can_be_wrapped_are_named():
    lines = [LONG, "short", f"- {LONG}", f"> {LONG}"]
    assert list(long_lines(lines)) == [(1, 105), (3, 107), (4, 107)]


@pytest.mark.parametrize(
    "text",
    [
        f"| {LONG} |",
        f"```\n{LONG}\n```",
        f"~~~sh\n{LONG}\n```\n~~~",
        f"<img alt='{LONG}'>",
        f"See [the page](https://example.org/{'x' * 90}) of it",
        f"See https://example.org/{'x' * 90} there",
        "- " + "x" * 120,
        "x" * 100,
    ],
)
def test_lines_that_cannot_be_wrapped_are_exempt(text):
    assert list(long_lines(text.splitlines())) == []


def test_the_texts_of_the_openapi_document_are_read():
    document = {
        "paths": {"/v1/runs": {"post": {"summary": "Go on from a checkpoint", "operationId": "x"}}},
        "tags": [{"name": "is away", "description": "Runs."}],
    }
    assert list(check_openapi(document)) == [
        'openapi/paths/~1v1~1runs/post/summary: "Go on from"; write: resumed from, continue with'
    ]


def module(empty, names, headless=0, docstrings=0):
    lines = [f"found = {index}" for index in range(empty)]
    lines += [f"name_{index} = {index}" for index in range(names - empty)]
    lines += [f'def f_{index}():\n    """What it is."""' for index in range(headless)]
    lines += [f'def g_{index}():\n    """Return it."""' for index in range(docstrings - headless)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "passes"),
    [
        (module(4, 1000), True),
        (module(5, 1000), False),
        (module(0, 10, 2, 100), True),
        (module(0, 10, 3, 100), False),
    ],
)
def test_empty_names_and_openings_have_a_limit(text, passes):
    tally = Tally()
    assert list(check_python("worker/module.py", text, tally)) == []
    assert (list(tally_problems(tally)) == []) == passes


def test_empty_names_and_openings_are_listed_with_their_lines():
    tally = Tally()
    text = 'def f(one, *, other=1):\n    """Whether it is."""\n    kept = one\n'
    list(check_python("worker/module.py", text, tally))
    list(check_python("tests/module.py", text, tally))  # not counted
    assert sorted(tally_problems(tally)) == [
        "1 of 1 docstrings (100.0%) open with a question word; the limit is 3%",
        "4 of 4 names (1000.0 per 1,000) do not say what they hold; the maximum is 4 per 1,000",
        "worker/module.py:1: one: name what it is",
        "worker/module.py:1: other: name what it is",
        "worker/module.py:2: Whether it is.: open with a verb or a noun",
        "worker/module.py:3: kept: name what it is",
        "worker/module.py:3: one: name what it is",
    ]


def test_code_and_documents_of_a_tree_are_found(tmp_path):
    for path in ("service/a.py", "docs/adr/b.md", "README.md", "elsewhere/c.py"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text("# the queue is away\n")
    assert [problem.split(":")[0] for problem in problems_in(tmp_path)] == [
        "service/a.py",
        "docs/adr/b.md",
        "README.md",
    ]
