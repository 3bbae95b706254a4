"""Outcomes of the fault matrix as a page: tests/faults/results/matrix.md.

python -m tests.faults.report FOLDER

FOLDER is where `pytest --faults-outcomes FOLDER` has left what came of each row. Of rows that were
not played this time it stays what came of them last; the page names the days.
"""

import json
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from statistics import median
from typing import Any

from service.store.database import IDLE_IN_TRANSACTION_MS
from tests.faults.deletion_rows import DELETION_ROWS, MERGED_DELETION_ROWS
from tests.faults.house import LEASE_SECONDS, NOTICED_SECONDS, SWEEP_SECONDS
from tests.faults.matrix import RECORDING, ROWS, SETTINGS, Row
from tests.faults.merge_rows import MERGE_ROWS
from tests.faults.scene import SAVE_STEPS, STEPS
from tests.support.pages import table, write

RESULTS = Path(__file__).with_name("results")
NAMES = {
    "files": "SQLite, files",
    "servers": "PostgreSQL, Redis",
    "bucket": "SQLite, files, S3",
}
PARTS = {
    "A run": ROWS,
    "A merge": MERGE_ROWS,
    "A run's deletion": DELETION_ROWS,
    "A merged model's deletion, alone": MERGED_DELETION_ROWS,
}

Outcome = dict[str, Any]
Key = tuple[str, str, str]
"""Job, row, setting."""

LOST_WORKER = ("worker_killed", "worker_zombie", "worker_cut_off", "machine_lost", "clock_skew")


PLANNED: list[Key] = [
    (row.job, row.id, setting) for rows in PARTS.values() for row in rows for setting in row.on
]


def read(folder: Path) -> dict[Key, Outcome]:
    """What came of every row that there is, as far as it was ever played."""
    found = json.loads((RESULTS / "faults.json").read_text())
    found += [json.loads(path.read_text()) for path in folder.glob("*.json")]
    newest = {(one["job"], one["row"], one["setting"]): one for one in found}
    return {key: newest[key] for key in PLANNED if key in newest}


def matrix(all_rows: tuple[Row, ...], outcomes: dict[Key, Outcome]) -> str:
    """One line for each way in which something breaks, with all its moments."""
    lines = []
    plays = {row.play.name: row.play for row in all_rows}
    settings = [one for one in SETTINGS if any(one in row.on for row in all_rows)]
    for name, play in plays.items():
        rows = [row for row in all_rows if row.play.name == name]
        moments = dict.fromkeys(moment.name for row in rows for moment in row.when)
        cells = [play.what, play.how, ", ".join(moments) or "-", promise(rows)]
        for setting in settings:
            planned = [
                outcomes.get((row.job, row.id, setting)) for row in rows if setting in row.on
            ]
            played = [one for one in planned if one is not None]
            passed = sum(one["outcome"] == "passed" for one in played)
            missing = len(planned) - len(played)
            cell = f"{passed} of {len(played)}" if played or not missing else ""
            cell += f" ({missing} not executed)" if missing else ""
            cells.append(cell.strip() if planned else "n/a")
        lines.append(cells)
    head = ["what", "how", "when", "promised", *(f"passed: {NAMES[one]}" for one in settings)]
    return table(head, lines)


def promise(rows: list[Row]) -> str:
    words = [" or ".join(dict.fromkeys(row.end for row in rows))]
    attempts = sorted({row.attempts for row in rows if row.end != "deleted"})
    if attempts:
        words.append(f"attempts: {' or '.join(map(str, attempts))}")
    lost = [row.lost for row in rows if row.lost is not None]
    if lost:
        words.append(f"steps lost ≤ {max(lost)}")
    return "; ".join(words)


def times(outcomes: Iterable[Outcome]) -> str:
    known = [one for one in outcomes if "measured" in one]

    def of(figure: str, *plays: str, frozen: bool = False) -> list[float]:
        # In the middle of a transaction a frozen worker keeps the job's row from everyone.
        return [
            one["measured"][figure]
            for one in known
            if one["play"] in plays and figure in one["measured"]
            if frozen == (one["play"] != "worker_killed" and one["when"] == RECORDING.name)
        ]

    lease = f"lease + 2 sweeps + 2 renewals = {NOTICED_SECONDS:.1f} s"
    measured = [
        ("a lost worker is noticed", lease, of("noticed", *LOST_WORKER), "s"),
        (
            "… frozen or cut off in the middle of a transaction (PostgreSQL)",
            f"{IDLE_IN_TRANSACTION_MS / 1000:g} s more",
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
            "a worker told to stop has given its job back",
            "one step",
            of("noticed", "worker_told"),
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
    text += [f"{name}:\n\n{matrix(rows, outcomes)}" for name, rows in PARTS.items()]
    if failed:
        names = "\n".join(f"- {job}, {row}, {NAMES[setting]}" for job, row, setting in failed)
        text.append(f"Failed:\n\n{names}")
    listed = list(outcomes.values())
    (RESULTS / "faults.json").write_text(json.dumps(listed, indent=1, ensure_ascii=False) + "\n")
    write(RESULTS / "matrix.md", "The fault matrix: outcomes", "make faults", "\n\n".join(text))
    print("\n\n".join(text))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
