"""Summarise the outcome of `mutmut run` for the repository.

python -m tools.mutants

Writes tests/faults/results/mutants.md: for each module how many of its mutants (single changes of
the code) made a test fail, and every mutant that none noticed, with its change. Reads what mutmut
left in mutants/. Exits with 1 if mutmut has not been run.
"""

import re
import subprocess
import sys
from collections import Counter, defaultdict
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "tests" / "faults" / "results" / "mutants.md"
NOTICED = ("killed", "timeout", "segfault", "suspicious", "caught by type check")
_RESULT = re.compile(r"^\s+(?P<mutant>\S+__mutmut_\d+): (?P<status>.+)$")


def mutmut(*arguments: str) -> str:
    """Return what a mutmut command prints. Raises CalledProcessError."""
    command = [str(Path(sys.executable).with_name("mutmut")), *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout


def parse(listing: str) -> dict[str, str]:
    """Return the status of each mutant in the output of `mutmut results`."""
    matches = (_RESULT.match(line) for line in listing.splitlines())
    return {match["mutant"]: match["status"] for match in matches if match}


def module_of(mutant: str) -> str:
    """Return the module of a mutant such as `service.store.jobs.x_claim__mutmut_3`."""
    return re.split(r"\.x[_ǁ]", mutant)[0]


def change(mutant: str) -> str:
    """Return the changed lines of a mutant's diff."""
    lines = mutmut("show", mutant).splitlines()
    return "\n".join(line for line in lines if line[:1] in "+-" and line[:3] not in ("+++", "---"))


def summary(statuses: dict[str, str]) -> list[str]:
    """Return the lines of a table with one row for each module."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for mutant, status in statuses.items():
        counts[module_of(mutant)][status] += 1
    lines = [
        "| module | mutants | noticed | not noticed | without a test |",
        "| --- | --- | --- | --- | --- |",
    ]
    for module, by_status in sorted(counts.items()):
        total = by_status.total()
        noticed = sum(by_status[status] for status in NOTICED)
        untested = by_status["no tests"]
        share = f"{noticed} ({100 * noticed / total:.0f} %)"
        lines.append(
            f"| `{module}` | {total} | {share} | {total - noticed - untested} | {untested} |"
        )
    return lines


def main() -> int:
    """Write the page. Return the exit status."""
    statuses = parse(mutmut("results", "--all", "true"))
    if not statuses:
        print("mutants/ holds no results: run `mutmut run` first.", file=sys.stderr)
        return 1
    lines = [
        "# Mutation testing",
        "",
        (
            f"`make mutants` on {datetime.now(UTC):%Y-%m-%d}. Each mutant is one change of the "
            "code; it is noticed if a test fails with it."
        ),
        "",
        *summary(statuses),
        "",
        "## Mutants that no test noticed",
        "",
    ]
    survivors = [name for name, status in statuses.items() if status not in NOTICED]
    for mutant in survivors:
        lines += [f"`{mutant}`", "", "```diff", change(mutant), "```", ""]
    PAGE.write_text("\n".join(lines).rstrip() + "\n")
    print("\n".join(summary(statuses)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
