"""Drives the containers from an empty machine to a bias report, and breaks them on the way.

python tests/compose/drive.py --compose "docker compose" [--engine docker] [--keep] [--record]

Needs httpx and nothing else. `--record` writes the outcome to tests/compose/results.md.
"""

import argparse
import os
import platform
import shlex
import shutil
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))  # the tests package

from stack import ROOT, Failed, Stack
from steps import Drive

from tests.support.pages import table, write

PAGE = ROOT / "tests" / "compose" / "results.md"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def engine_of(compose: str) -> str:
    """The engine behind a compose command: its first word, where that is one."""
    name = Path(shlex.split(compose)[0]).name
    if name in ("docker", "podman"):
        return name
    return "podman" if shutil.which("podman") else "docker"


def steps_of(drive: Drive) -> Iterator[tuple[str, Callable[[], str]]]:
    """What is done, in this order."""
    yield "build the API's image", lambda: drive.build("api")
    yield "build the worker's image", lambda: drive.build("worker")
    yield "production refuses the development passwords", drive.production_refuses
    yield "`up` to the first `/readyz`", drive.first_start
    yield "who runs in the containers", drive.inhabitants
    yield "the first admin key, and others made with it", drive.keys
    yield "no key", drive.no_key
    yield "a viewer's key", drive.viewers_key
    yield "`--scale worker=2`", drive.scale
    yield "dataset and run through the published port", drive.begin_run
    yield "SIGKILL to the worker's container in mid-run", drive.worker_killed
    yield "Redis restarted in mid-run", lambda: drive.restarted("redis")
    yield "PostgreSQL restarted in mid-run", lambda: drive.restarted("postgres")
    yield "`stop worker` in mid-run", drive.worker_stopped
    yield "to the bias report", drive.finish
    yield "download of the adapter", drive.download
    yield "`/metrics`", drive.metrics
    yield "`down`, `up`", drive.down_and_up
    yield "backup, every volume removed, restore", drive.restored


def play(stack: Stack, port: int) -> list[list[str]]:
    """One row for each step. Raises Failed at the first that fails, having said so."""
    rows = []
    for name, step in steps_of(Drive(stack, port)):
        print(f"{name} …", flush=True)
        began = time.monotonic()
        try:
            outcome = step()
        except Exception as error:
            print(f"  FAILED after {time.monotonic() - began:.0f} s: {error}", file=sys.stderr)
            raise
        seconds = time.monotonic() - began
        print(f"  {seconds:.0f} s: {outcome}", flush=True)
        rows.append([name, f"{seconds:.0f}", outcome])
    return rows


def page_of(rows: list[list[str]], stack: Stack, compose: str) -> str:
    minutes = sum(float(row[1]) for row in rows) / 60
    python = platform.python_version()
    head = (
        f"{len(rows)} of {len(rows)} steps, {minutes:.0f} minutes on {os.cpu_count()} cores; "
        f"{Path(shlex.split(compose)[0]).name} over {stack.version()}, Python {python} outside."
    )
    return head + "\n\n" + table(["step", "s", "outcome"], rows)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--compose", default="docker compose", help="the command of compose")
    parser.add_argument("--engine", help="docker or podman; default: as the command says")
    parser.add_argument("--keep", action="store_true", help="leave everything running")
    parser.add_argument(
        "--record", action="store_true", help="write the outcome to tests/compose/results.md"
    )
    arguments = parser.parse_args()
    port = free_port()
    stack = Stack(arguments.compose, arguments.engine or engine_of(arguments.compose), port)
    passed = False
    try:
        stack.down(volumes=True)  # what an interrupted drive left
        rows = play(stack, port)
        passed = True
    except Failed:
        print(stack.last_words(), file=sys.stderr)
        return 1
    finally:
        if arguments.keep:
            print(f"Left running on http://127.0.0.1:{port}")
        else:
            stack.down(volumes=True)
    if passed and arguments.record:
        text = page_of(rows, stack, arguments.compose)
        write(PAGE, "The container test: outcome", "make compose-test RECORD=1", text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
