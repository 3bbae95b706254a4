"""Faults put into a process of the service from outside: the product has no hooks for them.

Python imports this module by itself in every process whose PYTHONPATH names its folder. Where
GATES_DIR is set too, the functions below are wrapped as soon as their module has been imported, so
that a process can be held at a chosen place (tests/faults/gates.py is the other side):

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


# -- in the API or a worker ------------------------------------------------------------------------


@wraps("service.store.jobs", "claim")
def before_claim(claim: Any) -> Any:
    """A worker has taken a message and is about to claim the job."""

    def held(*args: Any, **kwargs: Any) -> Any:
        reach("before_claim")
        return claim(*args, **kwargs)

    return held


@wraps("service.broker", "enqueue")
def before_enqueue(enqueue: Any) -> Any:
    """A job is queued and committed, the message that wakes a worker is not sent."""

    def held(*args: Any) -> Any:
        reach("before_enqueue")
        return enqueue(*args)

    return held


@wraps("service.store.shipping", "ship")
def before_record(ship: Any) -> Any:
    """A checkpoint's files are in the store, the row that makes them visible is not written."""

    def held(session: Any, claim: Any, lines: Any) -> Any:
        for line in lines:
            if line.type == "checkpoint":
                session.info["step"] = line.step
                reach("before_record", step=line.step)
        return ship(session, claim, lines)

    return held


@wraps("service.store.events", "append")
def mid_transaction(append: Any) -> Any:
    """A checkpoint is about to be recorded: the transaction has begun and holds the job's row."""

    def held(session: Any, *args: Any) -> Any:
        if "step" in session.info:
            reach("mid_transaction", step=session.info["step"])
        return append(session, *args)

    return held


@wraps("service.store.database", "Database.write")
def answer_lost(write: Any) -> Any:
    """A checkpoint is recorded and committed, but whoever recorded it does not hear of it."""

    @contextlib.contextmanager
    def deaf(self: Any) -> Any:
        with write(self) as session:
            yield session
        if "step" in session.info and reach("answer_lost", step=session.info["step"]):
            from service.domain.errors import Unavailable

            raise Unavailable("the answer to a commit was lost (a test says so)")

    return deaf


@wraps("service.artifacts.directory", "copy")
def mid_upload(copy: Any) -> Any:
    """Some of a checkpoint's file is in the store, under another name."""

    def held(reader: Any, writer: Any, *args: Any) -> Any:
        name = str(writer.name)
        step = step_of(name)
        if step is not None and name.endswith(".part"):
            writer.write(b"half a file")
            writer.flush()
            reach("mid_upload", step=step)
            writer.seek(0)
        return copy(reader, writer, *args)

    return held


@wraps("worker.supervisor", "Supervisor._finish")
def after_end(finish: Any) -> Any:
    """The program has ended well, its supervisor is about to record that."""

    def held(self: Any, status: int, *args: Any) -> Any:
        if status == 0:
            reach("after_end")
        return finish(self, status, *args)

    return held


@wraps("worker.tasks", "make_worker")
def worker_told(make_worker: Any) -> Any:
    """Notes that the worker knows that it is to stop."""

    def made(*args: Any, **kwargs: Any) -> Any:
        from celery import signals

        app = make_worker(*args, **kwargs)
        # After the product's own receiver: they are called in the order in which they connected.
        signals.worker_shutting_down.connect(lambda **_: seen("worker_told"), weak=False)
        return app

    return made


# -- in a program ----------------------------------------------------------------------------------


@wraps("worker.training.models", "load_base")
def loading(load_base: Any) -> Any:
    def held(*args: Any, **kwargs: Any) -> Any:
        reach("loading")
        return load_base(*args, **kwargs)

    return held


_place = {"step": 0, "micro": 0}


@wraps("worker.training.loop", "Trainer._step")
def counted(step: Any) -> Any:
    def counting(self: Any) -> Any:
        _place.update(step=self.state.step + 1, micro=0)
        return step(self)

    return counting


@wraps("worker.training.batches", "Padded.loss_sum")
def mid_step(loss_sum: Any) -> Any:
    """Between two micro-batches of a step; and where a machine's memory is said to end.

    memory.json: {"train": most rows of a micro-batch, "eval": …}
    """

    def held(self: Any, micro: Any) -> Any:
        import torch

        training = torch.is_grad_enabled()
        if training:
            _place["micro"] += 1
            if _place["micro"] == 2:
                reach("mid_step", step=_place["step"])
        with contextlib.suppress(FileNotFoundError):
            most = json.loads((FOLDER / "memory.json").read_text())
            if len(micro) > most.get("train" if training else "eval", len(micro)):
                raise torch.OutOfMemoryError("out of memory (a test says so)")
        return loss_sum(self, micro)

    return held


@wraps("worker.training.checkpoints", "_sync")
def mid_save(sync: Any) -> Any:
    """All files of a checkpoint are written aside, the directory does not have its name yet."""

    def held(path: Path) -> None:
        sync(path)
        if path.name == "manifest.json":
            reach("mid_save", step=step_of(path))

    return held


@wraps("worker.training.checkpoints", "write")
def after_save(write: Any) -> Any:
    """A checkpoint is complete in the job directory, and no event says so yet."""

    def held(directory: Path, **kwargs: Any) -> Any:
        written = write(directory, **kwargs)
        reach("after_save", step=step_of(directory))
        return written

    return held


@wraps("worker.programs.outcome", "finish")
def at_end(finish: Any) -> Any:
    """The last step is done, and scored; the result is about to be written."""

    def held(*args: Any, **kwargs: Any) -> Any:
        reach("at_end")
        return finish(*args, **kwargs)

    return held


@wraps("worker.programs.reporter", "Stop.on_signal")
def program_told(on_signal: Any) -> Any:
    """Notes that the program knows that it is to stop."""

    def noting(self: Any, *args: Any) -> Any:
        seen("program_told")
        return on_signal(self, *args)

    return noting


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
    sys.meta_path.insert(0, Wrapping())
if skew := float(os.environ.get("SKEW_SECONDS", "0")):
    shift_clock(skew)
