"""What came of the matrix and of the soak, into docs/reliability.md between its markers.

PYTHONPATH=tests/support python tests/faults/report.py FOLDER

FOLDER is where `pytest --faults-outcomes FOLDER` has left what came of each row.
"""

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from statistics import median
from typing import Any

from house import LEASE_SECONDS, NOTICED_SECONDS, SWEEP_SECONDS
from matrix import BOTH, RECORDING, ROWS, Row
from pages import put, table
from scene import SAVE_STEPS, STEPS

from service.store.database import IDLE_IN_TRANSACTION_MS

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "reliability.md"
RESULTS = Path(__file__).with_name("results")
NAMES = {"files": "SQLite, files", "servers": "PostgreSQL, Redis"}

Outcome = dict[str, Any]

LOST_WORKER = ("worker_killed", "worker_zombie", "worker_cut_off", "machine_lost", "clock_skew")


def read(folder: Path) -> dict[tuple[int, str], Outcome]:
    """Outcomes by number of the row and setting."""
    found = {}
    for path in sorted(folder.glob("*.json")):
        number, _, setting = path.stem.partition("-")
        found[int(number), setting] = json.loads(path.read_text())
    return found


def matrix(outcomes: dict[tuple[int, str], Outcome]) -> str:
    """One line for each way in which something breaks, with all its moments."""
    lines = []
    plays = {row.play.name: row.play for row in ROWS}
    for name, play in plays.items():
        rows = [(number, row) for number, row in enumerate(ROWS) if row.play.name == name]
        moments = dict.fromkeys(moment.name for _, row in rows for moment in row.when)
        cells = [play.what, play.how, ", ".join(moments) or "-", promise([row for _, row in rows])]
        for setting in BOTH:
            planned = [outcomes.get((n, setting)) for n, row in rows if setting in row.on]
            passed = sum(one is not None and one["outcome"] == "passed" for one in planned)
            cells.append(f"{passed} of {len(planned)}" if planned else "n/a")
        lines.append(cells)
    head = ["what", "how", "when", "promised", *(f"passed: {NAMES[one]}" for one in BOTH)]
    return table(head, lines)


def promise(rows: list[Row]) -> str:
    ends = " or ".join(dict.fromkeys(row.end for row in rows))
    attempts = sorted({row.attempts for row in rows})
    words = [ends, f"attempts: {' or '.join(map(str, attempts))}"]
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
            "its limit (4 s, start-up 15 s) + 1 s",
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
        ["what", "promised", "median", "most", "of"],
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
    planned = sum(len(row.on) for row in ROWS)
    stale = sum(one.get("measured", {}).get("stale writes", 0) for one in outcomes.values())
    head = (
        f"{len(outcomes) - len(failed)} of {planned} rows passed, each a run of {STEPS} steps with "
        f"a checkpoint every {SAVE_STEPS}. Lease {LEASE_SECONDS:g} s, sweep {SWEEP_SECONDS:g} s. "
        f"Writes by an attempt that had lost its run: {stale:g}."
    )
    text = [head, times(outcomes.values()), matrix(outcomes)]
    if failed:
        names = "\n".join(f"- {ROWS[n].id}, {NAMES[setting]}" for n, setting in sorted(failed))
        text.append(f"Failed:\n\n{names}")
    RESULTS.mkdir(exist_ok=True)
    listed = [one | {"row": ROWS[n].id} for (n, _), one in sorted(outcomes.items())]
    (RESULTS / "faults.json").write_text(json.dumps(listed, indent=1, ensure_ascii=False) + "\n")
    put(PAGE, "faults", "\n\n".join(text))
    print("\n\n".join(text))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
