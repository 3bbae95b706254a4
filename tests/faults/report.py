"""Outcomes of the fault matrix as a page: tests/faults/results/matrix.md.

python -m tests.faults.report FOLDER

FOLDER is where `pytest --faults-outcomes FOLDER` left the outcome of each case. Cases that were not
executed this time keep their last outcome; the page names the days.
"""

import json
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from statistics import median
from typing import Any

from service.store.database import IDLE_IN_TRANSACTION_MS
from tests.faults.case_run import SAVE_STEPS, STEPS
from tests.faults.deletion_cases import DELETION_CASES, MERGED_DELETION_CASES
from tests.faults.environment import LEASE_SECONDS, NOTICED_SECONDS, SWEEP_SECONDS
from tests.faults.matrix import CASES, RECORDING, SETTINGS, Case
from tests.faults.merge_cases import MERGE_CASES
from tests.support.pages import table, write

RESULTS = Path(__file__).with_name("results")
NAMES = {
    "files": "SQLite, files",
    "servers": "PostgreSQL, Redis",
    "bucket": "SQLite, files, S3",
}
PARTS = {
    "A run": CASES,
    "A merge": MERGE_CASES,
    "A run's deletion": DELETION_CASES,
    "A merged model's deletion, alone": MERGED_DELETION_CASES,
}

Outcome = dict[str, Any]
Key = tuple[str, str, str]
"""Job, case, setting."""

LOST_WORKER = ("worker_killed", "worker_zombie", "worker_cut_off", "machine_lost", "clock_skew")


PLANNED: list[Key] = [
    (case.job, case.id, setting)
    for cases in PARTS.values()
    for case in cases
    for setting in case.on
]


def read(folder: Path) -> dict[Key, Outcome]:
    """What came of every case that there is, as far as it was ever executed."""
    found = json.loads((RESULTS / "faults.json").read_text())
    found += [json.loads(path.read_text()) for path in folder.glob("*.json")]
    newest = {(one["job"], one["case"], one["setting"]): one for one in found}
    return {key: newest[key] for key in PLANNED if key in newest}


def matrix(all_rows: tuple[Case, ...], outcomes: dict[Key, Outcome]) -> str:
    """One line for each way in which something breaks, with all its moments."""
    lines = []
    scenarios = {case.scenario.name: case.scenario for case in all_rows}
    settings = [one for one in SETTINGS if any(one in case.on for case in all_rows)]
    for name, scenario in scenarios.items():
        cases = [case for case in all_rows if case.scenario.name == name]
        moments = dict.fromkeys(moment.name for case in cases for moment in case.when)
        cells = [scenario.what, scenario.how, ", ".join(moments) or "-", promise(cases)]
        for setting in settings:
            planned = [
                outcomes.get((case.job, case.id, setting)) for case in cases if setting in case.on
            ]
            executed = [one for one in planned if one is not None]
            passed = sum(one["outcome"] == "passed" for one in executed)
            missing = len(planned) - len(executed)
            cell = f"{passed} of {len(executed)}" if executed or not missing else ""
            cell += f" ({missing} not executed)" if missing else ""
            cells.append(cell.strip() if planned else "n/a")
        lines.append(cells)
    head = ["what", "how", "when", "promised", *(f"passed: {NAMES[one]}" for one in settings)]
    return table(head, lines)


def promise(cases: list[Case]) -> str:
    words = [" or ".join(dict.fromkeys(case.end for case in cases))]
    attempts = sorted({case.attempts for case in cases if case.end != "deleted"})
    if attempts:
        words.append(f"attempts: {' or '.join(map(str, attempts))}")
    lost = [case.lost for case in cases if case.lost is not None]
    if lost:
        words.append(f"steps lost ≤ {max(lost)}")
    return "; ".join(words)


def times(outcomes: Iterable[Outcome]) -> str:
    known = [one for one in outcomes if "measured" in one]

    def of(figure: str, *scenarios: str, frozen: bool = False) -> list[float]:
        # In the middle of a transaction a frozen worker keeps the job's case from everyone.
        return [
            one["measured"][figure]
            for one in known
            if one["scenario"] in scenarios and figure in one["measured"]
            if frozen == (one["scenario"] != "worker_killed" and one["when"] == RECORDING.name)
        ]

    lease = f"lease + 2 sweeps + 2 renewals = {NOTICED_SECONDS:.1f} s"
    measured = [
        ("a lost worker is noticed", lease, of("noticed", *LOST_WORKER), "s"),
        (
            "… frozen or cut off in the middle of a transaction (PostgreSQL)",
            f"{IDLE_IN_TRANSACTION_MS / 1000:g} s more for each transaction",
            of("noticed", *LOST_WORKER, frozen=True),
            "s",
        ),
        (
            "… and its job taken over",
            "at most one sweep later",
            of("taken over", *LOST_WORKER),
            "s",
        ),
        ("a dead program is noticed", "at once", of("noticed", "program_killed"), "s"),
        (
            "a program that stands still is noticed",
            "its limit (4 s; start-up 15 s; a merge's step 10 s) + 1 s",
            of("noticed", "program_frozen", "program_hangs"),
            "s",
        ),
        (
            "a worker told to stop has returned its job to the queue",
            "one step",
            of("noticed", "worker_terminated"),
            "s",
        ),
        ("a cancel or a pause is obeyed", "10 s + one step", of("obeyed", "cancelled"), "s"),
        (
            "steps made again after a loss",
            f"≤ save_steps = {SAVE_STEPS}",
            of("steps lost", "program_killed", "program_frozen", "program_hangs", *LOST_WORKER),
            "steps",
        ),
    ]
    return table(
        ["what", "promised", "median", "maximum", "of"],
        [
            [
                what,
                promised,
                f"{median(found):.1f} {unit}",
                f"{max(found):.1f} {unit}",
                f"{len(found)}",
            ]
            for what, promised, found, unit in measured
            if found
        ],
    )


def main(folder: Path) -> None:
    outcomes = read(folder)
    failed = {key: one for key, one in outcomes.items() if one["outcome"] != "passed"}
    days = Counter(one["day"] for one in outcomes.values())
    stale = sum(one.get("measured", {}).get("stale writes", 0) for one in outcomes.values())
    head = (
        f"{len(outcomes) - len(failed)} of {len(outcomes)} cases passed, each a run of {STEPS} "
        f"steps with a checkpoint every {SAVE_STEPS}, a merge of such a run, or a deletion; "
        f"{len(PLANNED) - len(outcomes)} have not been executed yet. "
        f"Lease {LEASE_SECONDS:g} s, sweep {SWEEP_SECONDS:g} s. "
        f"Writes by an attempt that had lost its job: {stale:g}. "
        f"Executed: {', '.join(f'{count} on {day}' for day, count in sorted(days.items()))}."
    )
    text = [head, times(outcomes.values())]
    text += [f"{name}:\n\n{matrix(cases, outcomes)}" for name, cases in PARTS.items()]
    if failed:
        names = "\n".join(f"- {job}, {case}, {NAMES[setting]}" for job, case, setting in failed)
        text.append(f"Failed:\n\n{names}")
    listed = list(outcomes.values())
    (RESULTS / "faults.json").write_text(json.dumps(listed, indent=1, ensure_ascii=False) + "\n")
    write(RESULTS / "matrix.md", "The fault matrix: outcomes", "make faults", "\n\n".join(text))
    print("\n\n".join(text))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
