"""The docstring of service.domain.errors lists every exception class of the code."""

import ast
import builtins
import re
from pathlib import Path

from service.domain import errors

ROOT = Path(__file__).parents[2]
TREE = re.compile(r"^(?:[│ ]*[├└]── )?(\w+) {2,}(?:\d{3} *)?(?:\S.*)?$")
ELSEWHERE = re.compile(r"^    (\w+) {2,}(?:(\w+): )?\S")


def exception_classes():
    """Return (module, name, bases) of every exception class in service/ and worker/."""
    classes = []
    for package in ("service", "worker"):
        for path in (ROOT / package).rglob("*.py"):
            module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.ClassDef):
                    bases = {ast.unparse(base).rpartition(".")[2] for base in node.bases}
                    classes.append((module, node.name, bases))
    builtin = (getattr(builtins, name) for name in dir(builtins))
    names = {
        one.__name__ for one in builtin if isinstance(one, type) and issubclass(one, BaseException)
    }
    while more := {name for _, name, bases in classes if bases & names} - names:
        names |= more
    return [(module, name, bases) for module, name, bases in classes if name in names]


def listed():
    """Return the names of the tree, and those that are said to live elsewhere, by module."""
    tree, elsewhere = set(), {}
    lines = (errors.__doc__ or "").splitlines()
    until = next(i for i, line in enumerate(lines) if line.startswith("The others"))
    for line in lines[1:until]:
        if match := TREE.fullmatch(line):
            tree.add(match[1])
    place = ""
    for line in lines[until:]:
        if match := ELSEWHERE.match(line):
            module = f"{place}.{match[2]}" if match[2] else place
            elsewhere[match[1]] = module
        elif re.fullmatch(r"(service|worker)(\.\w+)+", line):
            place = line
    return tree, elsewhere


def test_the_docstring_lists_every_exception_class():
    tree, elsewhere = listed()
    found = exception_classes()
    own = {name for module, name, _ in found if module == errors.__name__}
    assert tree == own
    others = {name: module for module, name, _ in found if module != errors.__name__}
    assert set(elsewhere) == set(others)
    for name, module in elsewhere.items():
        assert others[name] == module, name


def test_the_tree_shows_each_class_below_its_base_with_its_status():
    stack = [(0, errors.FairtuneError)]
    for line in (errors.__doc__ or "").split("Two never reach HTTP")[0].splitlines()[2:]:
        match = re.match(r"^([│ ├└─]*)(\w+) +(\d{3})", line)
        if match is None:
            continue
        depth, cls = len(match[1]) // 4, getattr(errors, match[2])
        assert cls.status == int(match[3]), line
        if depth:
            while stack[-1][0] >= depth:
                stack.pop()
            assert cls.__base__ is stack[-1][1], line
        stack.append((depth, cls))
