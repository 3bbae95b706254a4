"""Extraction of the prose of a Python or Markdown file: texts with their first lines."""

import ast
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Prose:
    """A text and the line of the file at which it starts."""

    text: str
    line: int
    spread: bool = False
    """True for a string without line breaks of its own that may cover several lines."""

    def line_at(self, offset: int, source: list[str]) -> int:
        """Return the line of the file with the character at `offset`."""
        if not self.spread:
            return self.line + self.text.count("\n", 0, offset)
        word = self.text[offset:].split(maxsplit=1)[0]
        lines = range(self.line, min(self.line + 30, len(source) + 1))
        return next((line for line in lines if word in source[line - 1]), self.line)


def python_prose(nodes: Iterable[ast.AST], source: list[str]) -> Iterator[Prose]:
    """Yield the strings of a module with these nodes, and its comments, adjacent ones joined."""
    spans: dict[int, list[tuple[int, int]]] = {}
    for node in nodes:
        if not isinstance(node, ast.Constant | ast.JoinedStr):
            continue
        if isinstance(node, ast.Constant):
            if not isinstance(node.value, str):
                continue
            lines = (node.end_lineno or node.lineno) - node.lineno
            yield Prose(node.value, node.lineno, spread=node.value.count("\n") != lines)
        for line in range(node.lineno, (node.end_lineno or node.lineno) + 1):
            start = node.col_offset if line == node.lineno else 0
            end = (node.end_col_offset or 0) if line == node.end_lineno else 1_000_000
            spans.setdefault(line, []).append((start, end))
    block: list[str] = []
    for number, text in enumerate([*source, ""], start=1):
        comment = _comment(text, spans.get(number, ()))
        if comment is not None:
            block.append(comment)
        elif block:
            yield Prose("\n".join(block), number - len(block))
            block = []


def _comment(line: str, strings: "list[tuple[int, int]] | tuple[()]") -> str | None:
    """Return the comment of a line, without the hash sign, if it has one."""
    at = line.find("#")
    while at >= 0:
        column = len(line[:at].encode())  # ast counts bytes
        if not any(start <= column < end for start, end in strings):
            return line[at + 1 :]
        at = line.find("#", at + 1)
    return None


_NO_PROSE = re.compile(r"`[^`\n]+`|(?<=\])\([^)\s]*\)")
"""Inline code and link targets."""


def markdown_prose(source: list[str]) -> Iterator[Prose]:
    """Yield the paragraphs of a Markdown file without its code."""
    paragraph: list[str] = []
    for number, (line, is_code) in enumerate([*marked_lines(source), ("", False)], start=1):
        if is_code or not line.strip():
            if paragraph:
                yield Prose("\n".join(paragraph), number - len(paragraph))
            paragraph = []
        else:
            paragraph.append(_NO_PROSE.sub("``", line))


def marked_lines(source: list[str]) -> Iterator[tuple[str, bool]]:
    """Yield each line of a Markdown file and True if it belongs to a fenced code block."""
    fence = ""
    for line in source:
        marker = line.lstrip()[:3]
        if fence:
            yield line, True
            if marker == fence:
                fence = ""
        elif marker in ("```", "~~~"):
            fence = marker
            yield line, True
        else:
            yield line, False
