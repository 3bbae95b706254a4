"""One run of a small job in an installation, and the hands that break something while it runs."""

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import psutil

from service.domain.states import JobStatus
from service.store.tables import Job
from tests.faults.disks import Disk
from tests.faults.environment import Environment
from tests.faults.gates import Gate
from tests.faults.invariants import leftovers, stale_writes, violations
from tests.faults.record import Record, Reference, record_of
from tests.support.installation import wait_until
from tests.support.train_jobs import rows

if TYPE_CHECKING:
    from tests.faults.matrix import Moment

STEPS = 6
SAVE_STEPS = 2
_RECORDING = (
    "before_upload",
    "mid_upload",
    "uploaded_aside",
    "upload_begun",
    "part_sent",
    "before_complete",
    "before_record",
    "mid_transaction",
    "answer_lost",
)
"""Points at which the worker is held, and its program is not."""

BODY: dict[str, Any] = {
    "base_model": "tiny-llama",
    "lora": {"r": 4, "lora_alpha": 8, "lora_dropout": 0.1},
    "quantization": {"load_in_4bit": False},
    "training": {
        "max_steps": STEPS,
        "learning_rate": 0.01,
        "per_device_train_batch_size": 2,
        "per_device_eval_batch_size": 4,
        "gradient_accumulation_steps": 2,
        "packing": "none",  # a step of several micro-batches, between which something can happen
        "warmup_steps": 1,
        "max_seq_length": 128,
        "bf16": False,
        "gradient_checkpointing": False,
        "logging_steps": 1,
        "eval_strategy": "steps",
        "eval_steps": SAVE_STEPS,
        "save_strategy": "steps",
        "save_steps": SAVE_STEPS,
        "save_total_limit": 2,
        "early_stopping_patience": 0,
        # The last weights, which every step went into.
        "load_best_model_at_end": False,
    },
    "evaluation": {"baseline": False},
    "template": "label_only",
}
"""The smallest run with all that can go wrong: dropout, two micro-batches to a step, evaluations,
checkpoints of which some are deleted again."""


def dataset() -> dict[str, bytes]:
    """Files for an upload."""
    files: dict[str, list[str]] = {}
    for row in rows(train=20, validation=4, test=6):
        kept = {name: row[name] for name in ("text", "label", "group")}
        files.setdefault(row["split"], []).append(json.dumps(kept))
    return {split: "\n".join(lines).encode() for split, lines in files.items()}


@dataclass
class CaseRun:
    """A case of the matrix at work. Plays use it; times are `time.time()`."""

    reference: Reference | None = None
    """The undisturbed run; None where the case changes what is computed."""
    moments: tuple["Moment", ...] = ()
    environment: Environment = field(init=False)
    dataset_id: str = field(init=False)
    disk: Disk | None = None
    """The small disk of this installation, where it has one."""
    gates: list[Gate] = field(default_factory=list)
    _pacers: list[tuple[Gate, int]] = field(default_factory=list)
    run_id: str = ""
    job_id: str = ""
    broken_at: float | None = None
    token_broken: int = 0
    steps_done: int | None = None
    """By the attempt that was broken, when it was."""
    requested_at: float | None = None
    """Time of a user's request."""

    held_at: ClassVar[tuple[str, dict[str, Any]]] = ("mid_step", {"step": 5})
    """Where the program is held, with what is so there, while its worker is."""

    def prepare(self) -> None:
        """What has to be there before anything is broken."""

    def arm(self) -> None:
        """Put the case's gates up, and those that keep the program from running ahead of them."""
        arm = self.environment.gates.arm
        for moment in self.moments:
            if moment.recorded and not self._pacers:
                self._pacers.append((arm("mid_step", step=moment.recorded + 1), moment.recorded))
            with_it: tuple[Gate, ...] = ()
            if moment.point in _RECORDING:
                # The program shall not finish meanwhile.
                point, conditions = self.held_at
                with_it = (arm(point, **conditions),)
            self.gates.append(arm(moment.point, *with_it, **moment.conditions))

    def submit(self) -> None:
        self.follow(self.environment.submit(dataset_id=self.dataset_id, **BODY))

    def follow(self, run_id: str) -> None:
        """This is the run that the case_run is about."""
        self.run_id = run_id
        self.job_id = self.job.id

    def reach(self) -> Gate:
        """The case's one gate, once a process stands at it."""
        (gate,) = self.reach_each()
        return gate

    def reach_each(self) -> Iterator[Gate]:
        for moment, gate in zip(self.moments, self.gates, strict=True):
            if moment.recorded and self._pacers:
                pacer, step = self._pacers.pop()
                pacer.reached()
                wait_until(lambda at_least=step: self.newest_checkpoint(at_least))
                pacer.open()
            gate.reached()
            yield gate

    # -- who and where -------------------------------------------------------------------------

    @property
    def job(self) -> Job:
        return self.environment.job_of(self.run_id)

    def record(self) -> Record:
        return record_of(self.environment, self.run_id)

    def worker(self) -> str:
        """The worker that stands at the gate to claim the job, or else the one that has it."""
        job = self.job
        if job.owner is None or self._is_claiming():
            return self.environment.part_with(self.gates[0].reached())
        return self.environment.part_with(int(job.owner.split(":")[1]))

    def _is_claiming(self) -> bool:
        """Return True while a worker stands at the gate to claim the job: another may have it."""
        return any(gate.holds("before_claim") and not gate.is_open for gate in self.gates)

    def program(self) -> psutil.Process:
        """The program of the present attempt."""
        folder = f"{self.job_id}-{self.job.token}"
        for process in self.environment.children():
            with contextlib.suppress(psutil.Error):
                if any(folder in part for part in process.cmdline()):
                    return process
        raise AssertionError("the job has no program now")

    def said(self) -> list[dict[str, Any]]:
        """The whole lines that the present attempt's program has written so far."""
        path = (
            self.environment.settings.jobs_dir / f"{self.job_id}-{self.job.token}" / "events.jsonl"
        )
        if not path.exists():
            return []
        return [json.loads(line) for line in path.read_text().splitlines(keepends=True)[:-1]]

    def newest_checkpoint(self, at_least: int) -> str | None:
        """What the newest recorded checkpoint's keys begin with, once its step is so high."""
        checkpoints = record_of(self.environment, self.run_id).checkpoints
        if not checkpoints or checkpoints[-1].step < at_least:
            return None
        return checkpoints[-1].prefix

    def mark_broken(self) -> None:
        """Note that something is broken from now on, and how far the attempt has come."""
        self.token_broken = 0 if self._is_claiming() else self.job.token
        steps = [line["step"] for line in self.said() if line["type"] == "progress"]
        self.steps_done = max(steps, default=0)
        self.broken_at = time.time()

    # -- waiting -------------------------------------------------------------------------------

    def until(self, what: Callable[[Job], Any], seconds: float = 60) -> None:
        wait_until(lambda: what(self.job), seconds)

    def until_status(self, *statuses: str, seconds: float = 90) -> None:
        ends = {*statuses, JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELLED}
        with contextlib.suppress(AssertionError):
            self.until(lambda job: job.status in ends, seconds)
        job = self.job
        why = f"waited for {statuses}; {job!r}\n{self.environment.log_tail()}"
        assert job.status in statuses, why

    def until_taken_over(self) -> None:
        """Until a later attempt than the one that was broken has the job."""
        self.until(lambda job: job.token > self.token_broken and job.status != JobStatus.QUEUED)

    def outlast(self, seconds: float) -> None:
        """The fault itself lasts so long."""
        end = time.monotonic() + seconds
        wait_until(lambda: time.monotonic() > end, seconds + 10)

    def outlast_lease(self) -> None:
        self.outlast(
            self.environment.settings.lease_seconds + 4 * self.environment.settings.sweep_seconds
        )

    # -- what a user asks ----------------------------------------------------------------------

    def ask(self, what: str, **query: Any) -> None:
        """POST /v1/runs/{id}/cancel, pause, resume or retry."""
        self.requested_at = time.time()
        answer = self.environment.client.post(f"/v1/runs/{self.run_id}/{what}", params=query)
        assert answer.status_code == 200, answer.text

    def check(self, end: str) -> None:
        """Assert that everything is as it must be after the run came to `end`."""
        found = violations(self.environment, self.run_id, end, self.reference) + leftovers(
            self.environment
        )
        assert not found, "\n".join(found)

    # -- what came of it -----------------------------------------------------------------------

    def measured(self) -> dict[str, float]:
        """Seconds from the fault (or from what was asked) on, and steps lost, as far as known."""
        record = self.record()
        found: dict[str, float] = {"stale writes": len(list(stale_writes(record)))}
        if self.broken_at is not None:
            found |= self._after_break(record)
        if self.requested_at is not None:
            ends = [event for event in record.statuses if self._at(event) > self.requested_at]
            if ends:
                found["obeyed"] = self._at(ends[0]) - self.requested_at
        return found

    def _after_break(self, record: Record) -> dict[str, float]:
        assert self.broken_at is not None
        found: dict[str, float] = {}
        for event in record.statuses:
            seconds = self._at(event) - self.broken_at
            if seconds < 0:
                continue
            match event.data["status"]:
                case JobStatus.QUEUED:
                    found.setdefault("noticed", seconds)
                case JobStatus.RUNNING:
                    found.setdefault("taken over", seconds)
                case JobStatus.SUCCEEDED:
                    found["done"] = seconds
        if "taken over" in found and self.token_broken:
            again = [
                event.data["step"]
                for event in record.events
                if event.type == "rewound" and event.token == self.token_broken + 1
            ]
            assert self.steps_done is not None
            found["steps lost"] = max(0, self.steps_done - (again[0] if again else 0))
        return found

    @staticmethod
    def _at(event: Any) -> float:
        moment: float = event.created_at.timestamp()
        return moment
