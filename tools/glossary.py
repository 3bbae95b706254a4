"""The phrases that code and documentation must not use, each with its replacement."""

import re
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Phrase:
    """A forbidden phrase. `only`: it is forbidden in files below these paths, else in all."""

    pattern: str
    replacement: str
    only: tuple[str, ...] = ()


_TESTS = ("tests/", "docs/reliability.md")

PHRASES = (
    Phrase(r"wake-?ups?", "queue message"),
    Phrase(r"(?:is|are|was|were|be|been) away(?! from)", "is unavailable, is unreachable"),
    Phrase(r"(?:go|goes|going|gone|went) on (?:from|with)", "resumed from, continue with"),
    Phrase(r"(?:go|goes|going|gone|went) back past", "rewound past"),
    Phrase(r"(?:give|gives|giving|given|gave) back", "return to the queue, return, release"),
    Phrase(r"(?:ask|asks|asking|asked) (?:for )?again", "retry, request again"),
    Phrase(r"asked for", "requested"),
    Phrase(r"(?:hold|holds|holding|held) against", "compared with"),
    Phrase(r"(?:lay|lays|laying|laid) (?:over|below|under|upon|on top)", "merged into"),
    Phrase(r"half (?:of )?(?:a|the) surrogate pair", "unpaired surrogate"),
    Phrase(r"unheard of", "has not renewed its lease"),
    Phrase(r"heard (?:of|from) (?:it|them|a worker|the worker)", "received; renewed its lease"),
    Phrase(r"the first process(?! (?:that|to|which))", "rank 0", only=("worker/", "docs/")),
    Phrase(r"helper (?:process|rank)(?:es|s)?", "nonzero rank", only=("worker/", "docs/")),
    Phrase(r"buckets? of rests?", "suffixes in length buckets"),
    Phrase(r"(?:the|its|their|of|and) rests", "suffixes"),
    Phrase(r"(?:shared|common) beginnings?", "shared prefix"),
    Phrase(r"beginnings? of (?:a|the|its|their) prompts?", "prefix of the prompt"),
    Phrase(r"(?:least|most) (?:bytes|characters|tokens|seconds) (?:of|that|a)", "minimum, maximum"),
    Phrase(r"form of (?:the|a|its) report(?:'s JSON)?", "schema version of the report"),
    Phrase(
        r"(?:play|plays|played|playing) (?:the )?(?:rows?|cells?|cases?|matrix)", "execute cases"
    ),
    Phrase(r"rows? (?:were|was|is|are) (?:not |never )?played", "cases were executed"),
    Phrase(r"(?:the|a|one|each|every|this|that) houses?", "environment", only=_TESTS),
    Phrase(r"(?:the|a|one|each|every|this|that) scenes?", "scenario", only=_TESTS),
    Phrase(r"(?:the|a|one|each|every|this|that) storms?", "chaos run", only=_TESTS),
    Phrase(r"brooms?", "cleanup"),
    Phrase(r"as it is left out", "default"),
    Phrase(r"another attempt may do", "retrying may succeed"),
    Phrase(r"may go on at once", "concurrency limit"),
    Phrase(r"nothing is made twice", "no second resource is created"),
)

NAMES = {
    **dict.fromkeys(
        ("Found", "Named", "Made", "Asked", "Laid", "Standing", "Parts", "Order"),
        "the name of what the object holds, such as StoredEvaluation",
    ),
    "cannot": "unsupported_reason",
    "judge": "judge_cap, update_best, compare_scores or check_criterion",
}
"""Class and function name -> what to write instead."""

CONSTANT_PREFIXES = {"LEAST_": "MIN_", "MOST_": "MAX_"}


def _compiled(pattern: str) -> re.Pattern[str]:
    words = pattern.replace(" ", r"\s+")
    return re.compile(rf"(?<![\w-])(?:{words})(?![\w-])", re.IGNORECASE)


_MATCHERS = [(phrase, _compiled(phrase.pattern)) for phrase in PHRASES]
_ANY = _compiled("|".join(phrase.pattern for phrase in PHRASES))
"""Matches a text with a phrase at the speed of one search instead of one for each phrase."""


def phrases_in(text: str, path: str) -> Iterator[tuple[int, str, str]]:
    """Yield the offset of each forbidden phrase in a text, the phrase, and its replacement."""
    if not _ANY.search(text):
        return
    end = 0
    for match, phrase in sorted(_matches(text, path), key=lambda pair: pair[0].start()):
        if match.start() >= end:  # the first of overlapping ones is reported alone
            end = match.end()
            yield match.start(), " ".join(match[0].split()), phrase.replacement


def _matches(text: str, path: str) -> Iterator[tuple[re.Match[str], Phrase]]:
    for phrase, matcher in _MATCHERS:
        if not phrase.only or path.startswith(phrase.only):
            yield from ((match, phrase) for match in matcher.finditer(text))
