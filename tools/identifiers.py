"""Identifiers and docstrings of Python modules: names without content, and openings."""

import ast
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from tools.glossary import CONSTANT_PREFIXES, NAMES

EMPTY = re.compile(
    "one|found|said|told|known|made|asked|given|wanted|each|other|place|kept|rest|named|laid|heard|"
    "taken|shown|held|meant|seen"
)
MAX_EMPTY_PER_1000 = 4.0

OPENING = re.compile(r"(?:What|Whether|Of|How|Who|Whose|Which|Where|The same)\b")
MAX_OPENING_SHARE = 0.03

_DOCUMENTED = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Module)


@dataclass(slots=True)
class Tally:
    """Counts over several modules, with the locations of what counts against them."""

    names: int = 0
    docstrings: int = 0
    empty_names: list[str] = field(default_factory=list)
    openings: list[str] = field(default_factory=list)

    def add(self, path: str, nodes: Iterable[ast.AST]) -> None:
        """Count the names and docstrings of a module with these nodes."""
        for node in nodes:
            if isinstance(node, ast.Name | ast.arg):
                name = node.id if isinstance(node, ast.Name) else node.arg
                self.names += 1
                if EMPTY.fullmatch(name):
                    self.empty_names.append(f"{path}:{node.lineno}: {name}")
            elif isinstance(node, _DOCUMENTED) and (text := ast.get_docstring(node)):
                self.docstrings += 1
                if OPENING.match(text):
                    line = node.body[0].lineno
                    self.openings.append(f"{path}:{line}: {text.splitlines()[0]}")

    @property
    def empty_per_1000(self) -> float:
        return 1000 * len(self.empty_names) / max(1, self.names)

    @property
    def opening_share(self) -> float:
        return len(self.openings) / max(1, self.docstrings)


def forbidden_names(nodes: Iterable[ast.AST]) -> Iterator[tuple[int, str, str]]:
    """Yield line, name and replacement of each definition whose name the glossary replaces."""
    for node in nodes:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            if replacement := NAMES.get(node.name):
                yield node.lineno, node.name, replacement
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            for prefix, better in CONSTANT_PREFIXES.items():
                if node.id.lstrip("_").startswith(prefix):
                    yield node.lineno, node.id, node.id.replace(prefix, better)
