"""What a guard is, and where the tests are that need it."""

from dataclasses import dataclass

RESULT_TESTS = "tests/service/test_results.py::"
STEERING_TESTS = "tests/service/test_steering.py::"
SUPERVISOR_TESTS = "tests/service/test_supervisor.py::"
GUARD_TESTS = "tests/faults/test_guards.py::"
PART_TESTS = "tests/unit/test_parts.py::"

SHIPPING = "service/store/program_events.py"
SUPERVISOR = "worker/supervision/supervisor.py"
SWEEP = "service/queue/sweep.py"


def row(name: str) -> str:
    """The test of a row of the matrix."""
    return f"tests/faults/test_matrix.py::test_row[{name}]"


def merge_row(name: str) -> str:
    return f"tests/faults/test_merges.py::test_row[{name}]"


def deletion_row(name: str) -> str:
    return f"tests/faults/test_deletions.py::test_row[{name}]"


@dataclass(frozen=True)
class Guard:
    name: str
    file: str
    old: str
    """The guard: this text, which stands in the file exactly once."""
    new: str
    tests: tuple[str, ...]
