"""The width of documentation: 100 columns, as in code."""

import re
from collections.abc import Iterator

from tools.prose import marked_lines

WIDTH = 100

_LINK_TARGET = re.compile(r"\]\([^)]*\)|\]\[[^]]*\]|<?https?://\S+")
_MARKER = re.compile(r"\s*(?:[-*+>#]+ |\d+\. )?(?:\[.\] )?")


def long_lines(source: list[str]) -> Iterator[tuple[int, int]]:
    """Yield number and width of each line that is too long and could be wrapped.

    Tables, code blocks, HTML, link targets, and words that are too long by themselves are exempt.
    """
    for number, (line, is_code) in enumerate(marked_lines(source), start=1):
        if len(line) <= WIDTH or is_code or line.lstrip()[:1] in ("|", "<"):
            continue
        if len(_LINK_TARGET.sub("]", line)) <= WIDTH:
            continue
        marker = _MARKER.match(line)
        if " " in line[marker.end() if marker else 0 : WIDTH + 1]:
            yield number, len(line)
