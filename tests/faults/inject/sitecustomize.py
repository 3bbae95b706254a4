"""Faults put into a process of the service from outside: the product has no hooks for them.

Python imports this module by itself in every process whose PYTHONPATH names its folder. Where
GATES_DIR is set too, what points_of_service.py and points_of_programs.py name is wrapped as soon as
its module has been imported, so that a process can be held at a chosen place (tests/faults/gates.py
is the other side):

    <point>@<n>.armed     made by the harness: JSON, what must be so for this gate to hold
    <point>@<n>.reached   made by the process that it holds: its process id
    <point>@<n>.go        made by the harness: the process goes on
    <fact>.seen           made by a process to which the fact happened

The first process to get to an armed gate is the one that it holds. SKEW_SECONDS shifts a process's
clock, but neither the kernel's nor SQLite's. A place that is no longer there is a loud error.
"""

import contextlib
import importlib.abc
import json
import os
import re
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from types import ModuleType
from typing import Any

FOLDER = Path(os.environ.get("GATES_DIR", "/nonexistent"))

Wrap = Callable[[Any], Any]
WRAPS: dict[str, list[tuple[str, Wrap]]] = {}
"""Module -> what is wrapped in it: by the name under which its callers look it up."""


def wraps(module: str, name: str) -> Callable[[Wrap], Wrap]:
    """Register a function that is given the original and returns what takes its place."""

    def register(wrap: Wrap) -> Wrap:
        WRAPS.setdefault(module, []).append((name, wrap))
        return wrap

    return register


def reach(point: str, **facts: Any) -> bool:
    """Wait at an armed gate of `point` with conditions among `facts`; return whether one held."""
    for armed in sorted(FOLDER.glob(f"{point}@*.armed")):
        with contextlib.suppress(FileNotFoundError, json.JSONDecodeError):
            if json.loads(armed.read_text()).items() <= facts.items():
                taken = armed.with_suffix(f".{os.getpid()}")
                armed.rename(taken)  # of two processes one succeeds
                taken.write_text(str(os.getpid()))
                taken.rename(armed.with_suffix(".reached"))
                while FOLDER.is_dir() and not armed.with_suffix(".go").exists():
                    time.sleep(0.01)
                return True
    return False


def seen(fact: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        (FOLDER / f"{fact}.seen").touch()


def step_of(path: object) -> int | None:
    """The step in the name of a checkpoint's directory, where there is one in the path."""
    found = re.search(r"checkpoint-(\d+)", str(path))
    return int(found[1]) if found else None


def told_by(path: object) -> dict[str, Any]:
    """The facts for a gate about a file: of which checkpoint it is, or that of a merged model."""
    if (step := step_of(path)) is not None:
        return {"step": step}
    return {"merged": True} if "/merged/" in str(path) else {}


# -- how they get there ----------------------------------------------------------------------------


def apply(module: ModuleType) -> None:
    """Wrap what is registered for `module`. Raises AttributeError where it is not there."""
    for path, wrap in WRAPS[module.__name__]:
        *owners, name = path.split(".")
        owner: Any = module
        for part in owners:
            owner = getattr(owner, part)
        setattr(owner, name, wrap(getattr(owner, name)))


class Wrapping(importlib.abc.MetaPathFinder):
    """Finds what the other finders find, and wraps it after it has been executed."""

    def find_spec(self, name: str, path: Any, target: Any = None) -> Any:
        if name not in WRAPS:
            return None
        others = (finder for finder in sys.meta_path if finder is not self)
        spec = next(filter(None, (other.find_spec(name, path, target) for other in others)), None)
        if spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def and_wrap(module: ModuleType) -> None:
            execute(module)
            apply(module)

        spec.loader.exec_module = and_wrap  # type: ignore[method-assign]  # of this one instance
        return spec


def shift_clock(seconds: float) -> AbstractContextManager[Any]:
    import datetime

    import time_machine

    then = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=seconds)
    travel = time_machine.travel(then, tick=True)
    travel.start()
    return travel


if "GATES_DIR" in os.environ:
    import points_of_programs  # noqa: F401 - they register themselves
    import points_of_service  # noqa: F401

    sys.meta_path.insert(0, Wrapping())
if skew := float(os.environ.get("SKEW_SECONDS", "0")):
    shift_clock(skew)
